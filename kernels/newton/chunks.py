"""The folds of one chunk of rows whose states are merged elsewhere, and that merge: for an engine whose chunks lie on other machines.

A state is blocks x 9, as in `cpu.passes`; only here it may travel between the fold and the merge.
"""

import numpy as np

from ..compiling.jit import serial
from ..cpu.blocks import block_rows
from ..cpu.vectors import fold_domain, fold_residuals, merge_domains, merge_residuals
from ..formulas.records import as_point, as_state
from .passes import fold_combination


@serial
def chunk_domain(link, a, da, t, out, sums):
    """The domain of out = a + t da; with an empty da, of out, which is then a."""
    blocks = sums.shape[0]
    for k in range(blocks):
        start, stop = block_rows(k, blocks, out.shape[0])
        fold_domain(link, a, da, t, start, stop, out, as_state(sums[k]))


@serial
def chunk_combination(link, plane, y, out, sums):
    """The domain of out = here + y0 z0 + y1 z1 + y2 z2, see `fold_combination`."""
    blocks = sums.shape[0]
    for k in range(blocks):
        start, stop = block_rows(k, blocks, out.shape[0])
        fold_combination(link, plane, y, start, stop, out, as_state(sums[k]))


@serial
def chunk_residuals(link, a, b, w, point, sums):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2, alpha known."""
    blocks = sums.shape[0]
    for k in range(blocks):
        start, stop = block_rows(k, blocks, a.shape[0])
        fold_residuals(link, a, b, w, as_point(point), start, stop, as_state(sums[k]))


@serial
def join_domains(sums, point):
    """M, k, alpha^, kappa, the slope and the step of all chunks; L is +inf where alpha <= 0."""
    merge_domains(sums, as_point(point))
    as_point(point).fun = 0.0 if as_point(point).alpha > 0.0 else np.inf


@serial
def join_residuals(sums, point):
    """L, <c, c>, s and <f, f> of all chunks."""
    merge_residuals(sums, as_point(point))
