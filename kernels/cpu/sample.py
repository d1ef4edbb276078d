"""Rows drawn to stand for all in A^T diag(h) A: each with a probability that grows with |h_i| times its leverage.

The leverage of row i is A_i (A^T A)^-1 A_i^T = ||A_i R^-1||^2 for A = Q R. The norm is estimated from its products with
eight random vectors (Drineas, Magdon-Ismail, Mahoney and Woodruff, JMLR 13, 2012), one register; R comes from rows drawn
uniformly, which can only make a leverage too large (Cohen et al., "Uniform sampling for matrix approximation", ITCS 2015).
"""

import numpy as np
from numba import prange

from ..compiling.jit import parallel, serial, serial_twin
from ..layouts.panel import ROWS, row_squares, view_rows
from .blocks import block_rows

ROUNDS = 20  # for the scale of the probabilities; a handful suffices unless almost all rows are certain


@parallel
def scores(A, B, out, buffers):
    """out_i = ||A_i B||^2; B (padded d x 8) is zero in its padding. One pass."""
    blocks = buffers.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, A.shape[0])
        for i in range(start, stop, ROWS):
            rows = min(ROWS, stop - i)
            row_squares(view_rows(A, i, rows, buffers[k]), B, rows, out, i, A, i + ROWS)


scores_serial = serial_twin(scores)


@serial
def probability_scale(h, scores, wanted):
    """The c for which the probabilities min(1, c |h_i| scores_i) sum to the number of rows wanted."""
    c = np.inf
    for _ in range(ROUNDS):  # certain rows stay certain while c grows
        certain, rest = 0, 0.0
        for i in range(h.shape[0]):
            importance = abs(h[i]) * scores[i]
            if c < np.inf and c * importance >= 1.0:
                certain += 1
            else:
                rest += importance
        grown = (wanted - certain) / rest if rest > 0.0 else c
        if not (c == np.inf or grown > c * (1.0 + 1e-9)):
            break
        c = grown
    return c


@serial
def draw(h, scores, wanted, offset, rows, weights):
    """About `wanted` different rows, in order, and the weights that make their Gram matrix right on average; returns how many.

    Row i is taken with probability min(1, c |h_i| scores_i), with weight h_i over it: systematic sampling, which lays the
    probabilities end to end and takes the row at offset, offset + 1, offset + 2, ... (0 <= offset < 1). Rows that
    outweigh a share are certain, so they add no noise: with a few heavy rows that is most of it.
    """
    c = probability_scale(h, scores, wanted)
    count, passed = 0, 0.0
    for i in range(h.shape[0]):
        probability = min(1.0, c * abs(h[i]) * scores[i])
        passed += probability
        if passed > offset + count and count < rows.shape[0] and probability > 0.0:
            rows[count], weights[count] = i, h[i] / probability
            count += 1
    return count
