"""Many softmaxes over one x: u is normalised within each group of rows.

With multiplicities m, residual weights omega and sums over the rows i of each group t (docs/theory.md, "Many softmaxes"):

    u_i = m_i (exp(a_i) + a_i)    alpha_t = sum u_i    f_i = u_i/alpha_t    c_i = omega_i (f_i - b_i)    s_t = sum f_i c_i
    L    = sum over all rows of omega_i (f_i - b_i)^2 + 1/2 ||w * a||^2
    Hess = A^T diag(h) A - 2 (V^T Q + Q^T V),    V_t = A_t^T v/alpha_t,    Q_t = A_t^T q/alpha_t

The formulas of a row are those of `formulas`, with the numbers of its group. The rank-2 terms are two more rows for each group to the micro-kernel
of the Gram matrix: with scalars of -2 V_t for the row Q_t, and of -2 Q_t for the row V_t.

Two regimes, one fold. Rows are folded in units that stay in the nearest caches: whole groups, whose numbers are formed and used while their rows
are there, or a piece of a group that is larger than a unit, whose sums merge with those of its other pieces. `units` divides the rows, `rows` has
the folds over n-vectors, and `passes` those over A.
"""
