"""The paper's formulas: functions of numbers, which may be registers of eight rows, or a number of one thread of a GPU.

    a = A x    e = exp(a)    u = e + a    v = e + 1    alpha = <u, 1>    f = u / alpha    c = f - b    s = <f, c>
    L    = <c, c> + 1/2 ||w * a||^2
    grad = A^T r,                  r = (2/alpha) v * (c - s) + w^2 * a
    Hess = A^T diag(h) A - 2 (A^T v/alpha) (A^T q/alpha)^T - 2 (A^T q/alpha) (A^T v/alpha)^T,
           h = 2 v^2/alpha^2 + 2 e * (c - s)/alpha + w^2,     q = v * (f + c - s - 1/2 <f, f>)

The problem is that of arXiv:2309.13482, with derivatives rederived (docs/theory.md). The letters u, alpha, f and c are those of that paper and
its siblings; v, s, h and q are ours. For other links, too, v = u' and e = u''. u, v, e and alpha are held divided by exp(M), M = max(0, max a)
by default: f, r, h and the rank-2 vectors do not change, and nothing overflows. A hat in a comment marks such a quantity.

`records` names the numbers, `links` has u and its derivatives, `rows` the terms of one row, `states` how sums follow M, `finish` the results of sums,
and `steps` the tests of a step.
"""
