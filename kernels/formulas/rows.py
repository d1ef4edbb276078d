"""One row: its weights in the derivatives, and its terms in the loss."""

from ..compiling.jit import formula
from ..registers.simd import fma, splat
from .records import Factors, Residuals, Weights


@formula
def factors(point):
    """The numbers of a point that the weights of its rows need, in every lane."""
    return Factors(splat(point.shift), splat(point.k), splat(1.0 / point.alpha), splat(point.s), splat(0.5 * point.ff))


@formula
def weights(u, v, e, b, at, omega=1.0):
    """h, v/alpha, q/alpha and r of a row with the residual weight omega, without w (docs/theory.md, "Derivatives" and "Many softmaxes")."""
    f, v = u * at.over_alpha, v * at.over_alpha
    cs = omega * (f - b) - at.s
    return Weights(2.0 * fma(omega * v, v, e * at.over_alpha * cs), v, v * (omega * f + cs - at.half_ff), 2.0 * (v * cs))


@formula
def penalised(row, w, a):
    """The same with w: h + w^2 and r + w^2 a."""
    return Weights(fma(w, w, row.h), row.v, row.q, fma(w * w, a, row.r))


@formula
def loss(sums):
    """L."""
    return sums.squares + sums.penalty


@formula
def sum_weights(u, v, b, omega=1.0):
    """The weights of the sums A^T y while alpha is not known: v, v u and v b, the last two times omega."""
    return v, v * (omega * u), v * (omega * b)


@formula
def add_residual(sums, u, b, over_alpha, omega=1.0):
    """The sums with f = u/alpha and c = omega (f - b) of one more row."""
    f = u * over_alpha
    left = f - b
    c = omega * left
    return Residuals(fma(c, left, sums.squares), fma(f, c, sums.fc), fma(omega * f, f, sums.ff), sums.penalty)


@formula
def add_penalty(sums, w, a):
    """The sums with the row's part of 1/2 ||w * a||^2."""
    wa = w * a
    return Residuals(sums.squares, sums.fc, sums.ff, fma(0.5 * wa, wa, sums.penalty))
