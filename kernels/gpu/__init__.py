"""The same fold with numba.cuda."""
