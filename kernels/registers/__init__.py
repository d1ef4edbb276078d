"""Registers of eight numbers as a Numba type, the exponential of one, and outer products into them."""
