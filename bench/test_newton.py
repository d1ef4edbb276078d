"""Whole solves, from x = 0 to the minimum."""

import pytest

import fastrsx
import peers
import problems
from fastrsx.data import load_automobiles


def solve(row, op, A, b, who, gtol, rounds):
    """One row: ours, or SciPy's trust-exact on analytic NumPy derivatives; both must reach the same loss."""
    best = fastrsx.newton(A, b)
    assert best.success
    work = (lambda: fastrsx.newton(A, b)) if who == "fastrsx" else lambda: peers.scipy_trust_exact(A, b, gtol)
    result = row(work, op, *A.shape, who=who, rounds=rounds)
    assert result.fun == pytest.approx(best.fun, rel=1e-8)


@pytest.mark.parametrize("who", ["fastrsx", "SciPy trust-exact"])
def test_small(row, who):
    solve(row, "newton", *problems.noisy(1000, 8), who, 1e-10, 2001)


@pytest.mark.parametrize("who", ["fastrsx", "SciPy trust-exact"])
def test_automobiles(row, who):
    cars = load_automobiles()
    solve(row, "newton, automobiles", cars.A, cars.b, who, 1e-10, 2001)


@pytest.mark.parametrize("who", ["fastrsx", "SciPy trust-exact"])
def test_tall(row, who):
    solve(row, "newton", *problems.noisy(500_000, 64), who, 1e-13, 3)


@pytest.mark.parametrize("who", ["fastrsx", "SciPy trust-exact"])
def test_vocabulary(row, who):
    A, b = problems.vocabulary()
    solve(row, "newton, vocabulary", A, b, who, 1e-12, 7 if who == "fastrsx" else 1)
