"""Numba kernels: all the arithmetic over the n rows of A, and an iteration of Newton's method without a return to Python.

Read them in this order: `simd` (a register as a Numba type), `exp`, `links` (u and its derivatives), `microkernel` (outer products into
registers), `panel` (rows as it wants them; its loaders are `strided` for any layout and dtype and `csr` for sparse rows), `fold` (rows fold into a
state, states combine), `dense` (the public kernels: the fold over blocks, in parallel or serial); then `cholesky`, `trust_region`, `plane` (the
search that follows a step), `newton` (an iteration), `dependence` (columns that are nearly dependent) and `solve` (what iterations come to, and
a whole solve in one call); `lanes` and `batch` (many
small problems, eight to a register); `sample` (rows drawn for a Hessian), `stream` (one read for an iteration) and `mixed` (a Gram matrix in
float32 and float64).

On a GPU the same fold, with numba.cuda: `cuda_block` (what the threads of a block do together), `cuda_fold` (n-vectors: rows fold into a state,
states combine), `cuda_rows` (passes over A), `cuda_gram` (its Gram matrix), `cuda_plane` (the search), `cuda` (the public kernels, as in `dense`) and
`cuda_cost` (what they should take).
"""
