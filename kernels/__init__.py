"""Numba kernels: all the arithmetic over the n rows of A, and an iteration of Newton's method without a return to Python.

Read them in this order: `simd` (a register as a Numba type), `exp`, `panel` (rows as the micro-kernel wants
them), `microkernel` (outer products into registers), `fold` (rows fold into a state, states combine), `dense`
(the public kernels: the fold over blocks, in parallel or serial); then `cholesky`, `trust_region` and `newton`.
"""
