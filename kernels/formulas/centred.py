"""Sums that were taken with another alpha, alpha~, and their correction (docs/theory.md, "One read of A").

With ~ for "over alpha~", f~ = u/alpha~ and c~ = f~ - b: where alpha is alpha~ / (1 + delta), f = (1 + delta) f~ and c = c~ + delta f~.
"""

from ..compiling.jit import formula
from .records import Residuals


@formula
def corrected(sums, delta):
    """The sums of residuals with alpha."""
    grown = 1.0 + delta
    squares = sums.squares + 2.0 * delta * sums.fc + delta * delta * sums.ff
    return Residuals(squares, grown * (sums.fc + delta * sums.ff), grown * grown * sums.ff, sums.penalty)


@formula
def corrected_entries(v, vf, vc, delta):
    """Entries of A^T v/alpha, A^T (v f)/alpha and A^T (v c)/alpha, from those of A^T v~, A^T (v~ f~) and A^T (v~ c~)."""
    grown = 1.0 + delta
    return grown * v, grown * grown * vf, grown * (vc + delta * vf)


@formula
def lost(sums, delta):
    """||delta f~||^2: what the correction adds to <c~, c~> and takes off again, about."""
    return delta * delta * sums.ff
