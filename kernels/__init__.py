"""Numba kernels: all the arithmetic over the n rows of A, and an iteration of Newton's method without a return to Python.

Read the folders in this order:

    compiling   how kernels are compiled, and kept on disk
    registers   `simd` (a register as a Numba type), `exp`, `shapes` (as many as the CPU has), `tile` (outer products into
                registers), and what is made of them: `gram`, `sums` (over rows), `products` (P x), `narrow` (at most four columns)
    formulas    the paper: `records` (numbers with names), `links` (u and its derivatives), `rows`, `states`, `centred`
                (sums with another alpha), `finish`, `steps`
    layouts     `panel` (rows as the tile reads them), and its loaders: `strided` for any layout and dtype, `csr` for sparse rows,
                `registry` for registered ones
    cpu         `blocks` (what blocks of rows share), `vectors` and `rows` (rows fold into a state), `passes` (all blocks, then the merge
                of their states), `mixed` (a Gram matrix in float32 and float64), `ahead` (a step in one read), `sample` (rows
                drawn for a Hessian)
    newton      `cholesky`, `trust_region`, `passes` (what an iteration needs from an engine), `plane` (the search that follows a step),
                `iteration`, `verdict` (the outcome of iterations), `dependence` (nearly dependent columns), `small` (a whole
                solve in one call)
    lanes       many small problems, eight to a register: `lanes`, `batch`
    gpu         the same fold with numba.cuda: `block` (its size), `halves` (numbers of 16 bits), `ptx` (operations of lanes),
                `reduction` (sums of a block), `scalar` (the formulas for a thread), `vectors` (n-vectors), `share` (rows among
                lanes), `rows` (passes over A), `sparse` (over sparse A), `merge` (d-vectors of all blocks), `tensor` (tensor cores),
                `tensor_gram` and `gram` (Gram matrices with them and without), `plane`, `queueing` (a launch with little Python),
                `passes` (what each pass launches), `loop` (what a step launches), `sample` (rows drawn for a Hessian), `subproblem`
                and `batch` (many small problems), `cost` (the time they should take)

The public modules are `dense` (the kernels of values and derivatives, in parallel or serial), `solve` (a small solve), `cuda` (those of
`dense` on a GPU) and `exp`.
"""
