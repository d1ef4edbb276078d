"""Numba kernels: all the arithmetic over the n rows of A, and an iteration of Newton's method without a return to Python.

Read them in this order: `simd` (a register as a Numba type), `exp`, `links` (u and its derivatives), `panel` (rows as the
micro-kernel wants them), `microkernel` (outer products into registers), `fold` (rows fold into a state, states combine),
`dense` (the public kernels: the fold over blocks, in parallel or serial); then `cholesky`, `trust_region`, `plane` (the search
that follows a step), `newton` (an iteration) and `solve` (what iterations come to, and a whole solve in one call); `lanes` and `batch` (many
small problems, eight to a register); and `sample` (rows drawn for a Hessian).
"""
