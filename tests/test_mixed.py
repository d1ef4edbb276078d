"""The weighted Gram matrix in mixed precision, against longdouble and the error bound of kernels/cpu/mixed.py."""

import numba
import numpy as np
import pytest
import scipy.sparse

import fastrsx
from fastrsx.kernels.cpu import mixed, passes
from fastrsx.kernels.cpu.blocks import block_count
from fastrsx.kernels.layouts.panel import ROWS, padded

WIDTHS = [1, 5, 8, 13, 16, 24, 40, 48, 100, 129]
U = 2.0**-24
GUARD = -7.0


def gram_of(A, h, kernel=passes.gram_by_blocks_mixed_serial):
    """The sum of the blocks' matrices, where it is defined, and the float32 panels; nothing may be written behind the outputs."""
    n, d = A.shape
    blocks, wide, lines = block_count(n, d), padded(d), mixed.wide_padded(d) // mixed.WIDE
    gram, panels32 = np.full((blocks + 1, wide, wide), GUARD), np.full((blocks + 1, lines, ROWS, mixed.WIDE), GUARD, np.float32)
    buffers, roots = np.empty((blocks, ROWS, wide)), np.full((blocks, 2, ROWS), np.nan)
    scales = np.full((blocks + 1, mixed.SCALES, wide), GUARD)
    gram[-1] = -0.0  # even an added 0 would change it
    kernel(A, h, gram[:-1], buffers, roots, scales[:-1], panels32[:-1])
    for array, guard in ((gram, -0.0), (panels32, GUARD), (scales, GUARD)):
        assert (array[-1] == guard).all(), "written behind an output"
    assert np.signbit(gram[-1]).all(), "added to behind an output"
    used = min(n, ROWS)
    return np.triu(gram[:-1].sum(axis=0)[:d, :d]), panels32[:-1, :, :used]


def check(A, h):
    """The error is within the bound, and the float32 copies are finite."""
    found, panels32 = gram_of(A, h)
    n = len(A)
    L, g = A.astype(np.longdouble), h.astype(np.longdouble)
    expected = np.triu(L.T @ (g[:, None] * L))
    summands = np.triu(abs(L).T @ (abs(g)[:, None] * abs(L)))
    m = min(n, ROWS)
    lost = np.zeros_like(summands)
    for i in range(0, n, ROWS):
        tops = (np.sqrt(abs(g[i : i + ROWS, None])) * abs(L[i : i + ROWS])).max(axis=0)
        lost += m * 2.0**-109 * np.outer(tops, tops)
    allowed = (m + 3) * U * summands + lost + n * np.finfo(float).eps * summands + n * 1e-323
    assert np.isfinite(panels32).all()
    assert (abs(found - expected) <= allowed).all(), f"{np.max(abs(found - expected) / np.where(allowed > 0, allowed, 1)):.2e} of what is allowed"
    return abs(found - expected), summands


def random(n, d, *seed):
    rng = np.random.default_rng([n, d, *seed])
    return rng, rng.standard_normal((n, d)), rng.standard_normal(n)


@pytest.mark.parametrize("d", WIDTHS)
def test_any_number_of_rows_is_within_the_bound(d):
    for rows in [*range(1, 20), 63, 64, 65, 127, 128, 129, 300]:
        _, A, h = random(rows, d)
        check(A, h)


@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_every_number_of_rows_is_within_the_bound(rows):
    _, A, h = random(rows, 24)
    check(A, h)


@pytest.mark.parametrize("d", WIDTHS)
def test_weights_of_any_size_and_sign(d):
    rng, A, h = random(ROWS, d)
    for weights in (abs(h), -abs(h), 1e-12 * h, 1e-300 * h, 1e290 * h, np.ldexp(h, rng.integers(-300, 300, len(h)).astype(np.int32))):
        check(A, weights)
    check(A, np.where(rng.random(len(h)) < 0.5, 0.0, h))
    check(A, -0.0 * h)


@pytest.mark.parametrize("d", WIDTHS)
def test_columns_of_any_scale(d):
    rng, A, h = random(300, d)
    exponents = rng.permutation(np.linspace(-150, 150, d))
    check(A * 10.0**exponents, h)
    check(A * 1e150, h)
    check(A * 1e-150, h)
    check(np.where(rng.random(A.shape) < 0.95, 0.0, A * 10.0**exponents), h)  # panels whose columns are zero
    check(A * np.where(np.arange(d) % 3 == 0, 0.0, 10.0**exponents), h)


def test_columns_whose_scale_changes_from_panel_to_panel():
    rng, A, h = random(10 * ROWS, 40)
    jumps = np.repeat(10.0 ** rng.integers(-150, 150, (10, 40)), ROWS, axis=0)
    check(A * jumps, h)
    check(A * np.repeat(10.0 ** rng.integers(-12, 12, (10, 40)), ROWS, axis=0), h)


def test_the_scale_of_a_column_changes_no_digit():
    """Powers of two, small or large, come out as they were put in."""
    rng, A, h = random(500, 40)
    plain, _ = gram_of(A, h)
    powers = np.ldexp(1.0, rng.integers(-400, 400, 40).astype(np.int32))
    scaled, _ = gram_of(A * powers, h * 2.0**30)
    np.testing.assert_array_equal(scaled, np.triu(plain * powers[:, None] * powers * 2.0**30))


def test_the_error_is_that_of_float32():
    """The roundings of 128 sums cancel at random, and a few are left: more than float64's, less than the bound."""
    _, A, h = random(20_000, 64)
    error, summands = check(A, h)
    assert 1e-11 < np.max(error[np.triu_indices(64)] / summands[np.triu_indices(64)]) < 4 * U


@pytest.mark.parametrize("d", [8, 13])
def test_float32_data_and_data_in_place_give_the_same_bits(d):
    _, A, h = random(256, d)
    A = A.astype(np.float32)
    narrow, _ = gram_of(A, h)
    wide, _ = gram_of(A.astype(float), h)
    np.testing.assert_array_equal(narrow, wide)


def test_what_is_not_finite_shows():
    _, A, h = random(200, 24)
    for bad in (np.nan, np.inf):
        B = A.copy()
        B[150, 5] = bad
        found, _ = gram_of(B, h)
        hit = np.zeros((24, 24), dtype=bool)
        hit[5], hit[:, 5] = True, True
        assert not np.isfinite(found[np.triu(hit)]).any()
        assert np.isfinite(found[~hit]).all()
    h[10] = np.nan
    assert np.isnan(gram_of(A, h)[0][np.triu_indices(24)]).all()


@pytest.mark.parametrize("shape", [(2000, 64), (1700, 129)])
def test_any_number_of_threads_gives_the_same_bits(shape):
    _, A, h = random(*shape)
    expected, _ = gram_of(A, h)
    before = numba.get_num_threads()
    try:
        for threads in {1, min(2, before)}:
            numba.set_num_threads(threads)
            np.testing.assert_array_equal(gram_of(A, h, passes.gram_by_blocks_mixed)[0], expected)
    finally:
        numba.set_num_threads(before)


# -- newton(precision="mixed") ----------------------------------------------------------------------------------


def noisy(n, d):
    rng = np.random.default_rng(d)
    A, x = rng.standard_normal((n, d)), rng.standard_normal(d) / np.sqrt(d)
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, n)
    return A, b / b.sum()


def test_a_mixed_solve_ends_at_the_minimum_and_judges_it_in_float64():
    A, b = noisy(2000, 70)
    mixed, double = (fastrsx.newton(A, b, kernel="serial", hessian="exact", precision=precision) for precision in ("mixed", "double"))
    assert mixed.status is double.status is fastrsx.Status.CONVERGED
    assert mixed.fun == pytest.approx(double.fun, rel=1e-13)
    np.testing.assert_allclose(mixed.x, double.x, rtol=0, atol=1e-6 * abs(double.x).max())
    np.testing.assert_allclose(mixed.hess, fastrsx.Problem(A, b, kernel="serial").hess(mixed.x), rtol=0, atol=1e-6 * abs(double.hess).max())
    assert mixed.npass > double.npass  # its Hessian takes a separate pass


def test_a_mixed_hessian_is_another():
    A, b = noisy(2000, 70)
    problem = fastrsx.Problem(A, b, kernel="serial")
    hess = problem.hess(np.full(70, 0.01))
    problem = fastrsx.Problem(A, b, kernel="serial")
    problem._passes.use_mixed()
    found = problem.hess(np.full(70, 0.01))
    assert 0 < abs(found - hess).max() <= 1e-5 * abs(hess).max()


@pytest.mark.parametrize(
    ("A", "precision", "message"),
    [
        (np.ones((4, 2)), "single", "precision is 'single'; it must be one of 'double', 'mixed'"),
        (scipy.sparse.csr_array(np.eye(4)), "mixed", "precision is 'mixed', which is for dense A in memory"),
        (np.ones((4, 1025)), "mixed", "precision is 'mixed', .* of at most 1024 columns"),
    ],
)
def test_precision_that_is_not_there(A, precision, message):
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(A, np.ones(4), precision=precision, kernel="serial")
