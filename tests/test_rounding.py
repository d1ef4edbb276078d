"""Verdicts do not hang on the last digit: bounds on the rounding of L and of the Hessian, and solves whose data are moved by one ulp."""

import numpy as np
import pytest
from numpy.polynomial.legendre import legvander

import fastrsx
import naive
from fastrsx import Problem, Status
from fastrsx.kernels.newton import trust_region

OMEGA = 0.567143290409783873
EPS = float(np.finfo(float).eps)
SEEDS = range(6)


def moved(A, b, seed):
    """The problem with its rows permuted, and each entry of A moved by an ulp or not; as it is for seed 0."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(b)) if seed else np.arange(len(b))
    to = np.where(rng.random(A.shape) < 0.5, -np.inf, np.inf) if seed else A
    return np.where(rng.random(A.shape) < 0.5, A, np.nextafter(A, to))[order], b[order]


def at_distance(r, seed):
    """A with an intercept, b, and an x that is r from the pole."""
    rng = np.random.default_rng(seed)
    A = np.column_stack([np.ones(20), rng.standard_normal((20, 2))])
    return A, rng.dirichlet(np.ones(20)), np.array([r - OMEGA, 0.1 * r, -0.1 * r])


POINTS = [at_distance(r, seed) for r in (1.0, 1e-2, 1e-4) for seed in range(3)]
POINTS += [(A, b, x + [intercept, 0, 0]) for intercept in (10.0, 200.0, 2000.0) for A, b, x in POINTS[:3]]


@pytest.mark.parametrize(("A", "b", "x"), POINTS)
def test_the_noise_bounds_the_error_of_the_loss_and_of_the_hessian(A, b, x):
    problem = Problem(A, b)
    passes = problem._passes
    a = passes.empty()
    passes.products(x, a)
    point = passes.evaluate(a)
    exact = naive.Naive(A, b, x)
    assert abs(point.fun - exact.value) <= point.noise
    kappa = point.at.kappa
    assert point.noise <= 20 * (16 * kappa + abs(a).max()) * EPS * (exact.value + exact.F)
    H, (v, q) = problem.hess(x), exact.V.astype(float)
    terms = np.linalg.norm(H) / trust_region.saturation(H, v, q, np.ones(3))
    assert np.linalg.norm((H - exact.hess).astype(float)) <= (16 * kappa + a.max()) * EPS * terms


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", [{"kernel": "serial"}, {"kernel": "parallel"}, {"hessian": "sampled"}], ids=str)
def test_a_loss_that_falls_to_the_pole_has_no_minimum(options, seed):
    rng = np.random.default_rng(5)
    A, b = np.column_stack([np.ones(14), rng.standard_normal(14)]), rng.dirichlet(np.full(14, 0.3))
    A, b = moved(A, b, seed)
    result = fastrsx.newton(A, b, **options)
    assert result.status is Status.NO_MINIMISER
    assert "pole" in result.message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("intercept", range(12, 25))
def test_an_exact_fit_is_found_whatever_the_last_digits_are(intercept, seed):
    """Its intercept is known to eps exp(intercept)/intercept, for the A x in u is that small beside exp(A x)."""
    A = legvander(np.linspace(-1, 1, 30), 2)
    A, b = moved(A, fastrsx.predict(A, [intercept, 0.5, -2.0]), seed)
    for options in ({"kernel": "serial"}, {"kernel": "parallel"}):
        result = fastrsx.newton(A, b, [intercept - 3.0, 0.4, -1.9], **options)
        assert result.success  # A has moved since b was made: the loss may end just above its noise, as CONVERGED
        assert np.sqrt(naive.Naive(A, b, result.x).value) <= 1000 * EPS * np.linalg.norm(b)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_that_gain_nothing_end(seed):
    """b is so large that no step changes the loss beyond rounding."""
    rng = np.random.default_rng([6, seed])
    result = fastrsx.newton(rng.standard_normal((12, 4)), 1e20 * rng.standard_normal(12))
    assert result.status is not Status.MAX_ITER
    assert result.nit < 100
