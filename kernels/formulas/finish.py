"""From sums over rows to entries of the gradient and the Hessian."""

from ..compiling.jit import formula
from ..registers.simd import fma


@formula
def derivative_entries(v, vf, vc, w2a, s, half_ff):
    """Entries of A^T v/alpha, A^T q/alpha and the gradient, from those of A^T v/alpha, A^T (v f)/alpha, A^T (v c)/alpha and A^T (w^2 a)."""
    return v, vf + vc - (s + half_ff) * v, 2.0 * (vc - s * v) + w2a


@formula
def gradient_entry(v, vu, vb, w2a, point):
    """The same from those of A^T v^, A^T (v^ u^), A^T (v^ b) and A^T (w^2 a).

    See docs/theory.md, "One read of A".
    """
    vf = vu / point.alpha / point.alpha
    return derivative_entries(v / point.alpha, vf, vf - vb / point.alpha, w2a, point.s, 0.5 * point.ff)


@formula
def rank_2(v, q, other_v, other_q):
    """Entry (i, j) of v q^T + q v^T, from v_i, q_i, v_j and q_j; or entry i of its product with p, from v_i, q_i, <v, p> and <q, p>."""
    return fma(v, other_q, q * other_v)
