"""Columns that span the same space pose the same problem: raw units, polynomials of years, near copies."""

import numpy as np
import pytest
import scipy.sparse
from numpy.polynomial.legendre import legvander

import fastrsx
from fastrsx import Problem, Status, loading
from fastrsx.data import load_automobiles
from fastrsx.steps import basis


def bell(times, centre=0.5):
    """Shares that follow a bell curve; its centre is a fraction of the range."""
    t = (times - times.min()) / np.ptp(times)
    shares = np.exp(-(((t - centre) / 0.25) ** 2))
    return shares / shares.sum()


def centred(times, degree):
    """Polynomials of the same degree, far from dependent."""
    return legvander(2 * (times - times.min()) / np.ptp(times) - 1, degree)


def with_condition(condition, d, seed):
    """A d x d matrix of that condition."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    return (left * np.geomspace(1, 1 / condition, d)) @ right


def orthonormal(A):
    """Another basis of A's column space."""
    axes, sizes, _ = np.linalg.svd(A / np.abs(A).max(axis=0), full_matrices=False)
    return axes[:, sizes > 1e-11 * sizes[0]] * np.sqrt(len(A))


def in_basis(result):
    return "orthonormal basis" in result.kernel


YEARS = {
    "1971-1990": np.arange(1971.0, 1991.0),
    "1990-2019": np.arange(1990.0, 2020.0),
    "1971-1990, 5 rows a year": np.repeat(np.arange(1971.0, 1991.0), 5),
    "1800-1999": np.arange(1800.0, 2000.0),
    "1900-1999, every third": np.arange(1900.0, 2000.0, 3),
    "days since 1970": 365.25 * np.arange(20.0, 60.0),
}


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("times", YEARS.values(), ids=YEARS.keys())
def test_polynomials_of_raw_years(times, degree):
    b = bell(times)
    raw, easy = fastrsx.newton(np.vander(times, degree + 1), b), fastrsx.newton(centred(times, degree), b)
    assert raw.success
    assert easy.success
    assert raw.fun == pytest.approx(easy.fun, rel=1e-6)
    assert raw.nit <= 1.5 * easy.nit + 3
    assert in_basis(raw)
    assert raw.min_eig >= 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
def test_columns_times_any_matrix(condition, seed):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((200, 6)), 0.5 * rng.standard_normal(6)
    b = fastrsx.predict(A, x) * rng.uniform(0.5, 1.5, 200)
    b /= b.sum()
    plain, turned = fastrsx.newton(A, b), fastrsx.newton(A @ with_condition(condition, 6, seed), b)
    assert plain.status is turned.status is Status.CONVERGED
    assert turned.fun == pytest.approx(plain.fun, rel=1e-6)
    assert turned.nit <= 1.5 * plain.nit + 3
    np.testing.assert_allclose(A @ with_condition(condition, 6, seed) @ turned.x, A @ plain.x, atol=1e-5)


def cars(kind):
    """The cars in raw units: price in 1000 dollars and so on, with a constant and products."""
    A = load_automobiles().A * [8.6, 0.09, 0.5, 0.7, 0.22] + [11.8, 0.39, 0.3, 2.1, 1.25]
    products = {"squares": A**2, "a product": A[:, :1] * A[:, 4:], "a log": np.log(A[:, :1].clip(0.5))}
    return np.column_stack([A, *(products[name] for name in kind), np.ones(len(A))])


@pytest.mark.parametrize("kind", [("squares", "a product"), ("a log",), ("squares", "a product", "a log")], ids=str)
def test_cars_in_raw_units(kind):
    A, b = cars(kind), load_automobiles().b
    raw, turned = fastrsx.newton(A, b, w=1e-4), fastrsx.newton(orthonormal(A), b, w=1e-4)
    assert raw.success
    assert turned.success
    assert raw.fun == pytest.approx(turned.fun, rel=1e-6)
    assert raw.nit <= 1.5 * turned.nit + 3


def dummies(n, categories, rng):
    return np.eye(categories)[rng.integers(0, categories, n)]


NEARLY_DEPENDENT = {
    "near copies": lambda A, rng: np.column_stack([A, A[:, :2] + 1e-7 * rng.standard_normal((len(A), 2))]),
    "dummies that nearly sum to 1": lambda A, rng: np.column_stack([dummies(len(A), 20, rng) + 1e-6 * rng.random((len(A), 20)), np.ones(len(A))]),
    "log and level of one price": lambda A, rng: np.column_stack([np.exp(3 + 0.01 * A[:, 0]), 3 + 0.01 * A[:, 0], A[:, 1:]]),
    "one price in two units": lambda A, rng: np.column_stack([A, (A[:, 0] * 1.07).round(5)]),
}


@pytest.mark.parametrize("make", NEARLY_DEPENDENT.values(), ids=NEARLY_DEPENDENT.keys())
def test_nearly_dependent_columns(make):
    rng = np.random.default_rng(1)
    A = make(rng.standard_normal((300, 4)), rng)
    b = rng.dirichlet(np.ones(300))
    raw, turned = fastrsx.newton(A, b, w=1e-3), fastrsx.newton(orthonormal(A), b, w=1e-3)
    assert in_basis(raw)
    assert not in_basis(turned)
    assert raw.status is turned.status is Status.CONVERGED
    assert raw.fun == pytest.approx(turned.fun, rel=1e-6)
    assert raw.nit <= 1.5 * turned.nit + 3


# -- every path ------------------------------------------------------------------------------------------------

TIMES = np.repeat(np.arange(1971.0, 1991.0), 20)


@pytest.fixture
def years():
    """[year^2, year, 1], 400 rows, and their minimum in a good basis."""
    b = bell(TIMES) * np.random.default_rng(0).uniform(0.8, 1.2, len(TIMES))
    b /= b.sum()
    return np.vander(TIMES, 3), b, fastrsx.newton(centred(TIMES, 2), b)


def check(result, best):
    assert in_basis(result)
    assert result.status is best.status is Status.CONVERGED
    assert result.fun == pytest.approx(best.fun, rel=1e-6)
    assert result.nit <= 1.5 * best.nit + 3


LAYOUTS = {
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(A, 2, axis=0)[::2],
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(years, layout, monkeypatch):
    A, b, best = years
    monkeypatch.setattr(loading, "COPIED_UP_TO", 0)
    check(fastrsx.newton(layout(A), b), best)


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
@pytest.mark.parametrize("given", [{"hessian": "sampled", "sample_rows": 200}, {"hessian": "matrix-free"}, {"precision": "mixed"}], ids=str)
def test_other_hessians(years, given, kernel):
    A, b, best = years
    result = fastrsx.newton(A, b, kernel=kernel, **given)
    assert in_basis(result)
    assert result.success
    assert result.fun == pytest.approx(best.fun, rel=1e-6)


def test_float32_storage(years):
    A, b, _ = years
    A = np.asarray(A, np.float32)  # rounds the squares of years, so the space is another
    monotone = fastrsx.newton(orthonormal(A.astype(float)), b)
    check(fastrsx.newton(A, b), monotone)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_a_file_larger_than_memory(years, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading, "free", lambda: 1)
    A, b, best = years
    stored = np.memmap(tmp_path / "A.bin", mode="w+", dtype=dtype, shape=A.shape)
    stored[:] = A
    if dtype == np.float32:
        best = fastrsx.newton(orthonormal(np.asarray(stored, float)), b)
    result = fastrsx.newton(np.memmap(tmp_path / "A.bin", mode="r", dtype=dtype, shape=A.shape), b)
    assert "from disk" in result.kernel
    check(result, best)


def test_without_room_for_a_copy_the_basis_is_formed_in_each_pass(years, monkeypatch):
    A, b, best = years
    in_memory = fastrsx.newton(A, b)
    monkeypatch.setattr(basis, "LARGE", 0)
    monkeypatch.setattr(basis, "free", lambda: 0)
    result = fastrsx.newton(A, b)
    check(result, best)
    assert result.nit == in_memory.nit
    np.testing.assert_allclose(result.x, in_memory.x, rtol=1e-6)


def test_more_columns_than_rows():
    rng = np.random.default_rng(2)
    A = with_condition(1e6, 12, 0) @ rng.standard_normal((12, 90))  # rows that are nearly dependent
    b = rng.dirichlet(np.ones(12))
    result, best = fastrsx.newton(A, b, w=1e-2), fastrsx.newton(np.eye(12), b, w=1e-2)
    assert "reduced" in result.kernel
    assert in_basis(result)
    assert result.success
    assert result.fun == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.parametrize("link", ["softmax", "linear"])
def test_links(years, link):
    A, b, _ = years
    x0 = [0.0, 0.0, 1.0] if link == "linear" else None
    raw, best = fastrsx.newton(A, b, x0, link=link), fastrsx.newton(centred(TIMES, 2), b, None if x0 is None else [1.0, 0.0, 0.0], link=link)
    assert in_basis(raw)
    assert raw.success == best.success
    assert raw.fun == pytest.approx(best.fun, rel=1e-6)


# -- what is reported ------------------------------------------------------------------------------------------


def test_the_report_is_of_the_callers_columns(years):
    pandas = pytest.importorskip("pandas")
    A, b, _ = years
    frame, seen = pandas.DataFrame(A, columns=["year^2", "year", "1"]), []
    result = fastrsx.newton(frame, b, callback=lambda intermediate_result: seen.append(intermediate_result))
    problem = Problem(A, b)
    assert result.names == ("year^2", "year", "1")
    assert result.fun == problem.value(result.x)
    scale = np.sqrt((A**2).mean(axis=0))
    np.testing.assert_allclose(result.hess / np.outer(scale, scale), problem.hess(result.x) / np.outer(scale, scale), atol=1e-9)
    np.testing.assert_allclose(result.jac / scale, problem.grad(result.x) / scale, atol=1e-12)
    assert len(seen) == result.nit
    assert np.array_equal(seen[-1].x, result.x)
    assert problem.value(seen[2].x) == pytest.approx(seen[2].fun, rel=1e-6)
    assert "condition 5.6e+05 once scaled" in result.kernel


def test_a_start_is_a_start_in_any_basis(years):
    A, b, best = years
    x0 = fastrsx.newton(A, b, max_iter=4).x
    first = fastrsx.newton(A, b, x0, max_iter=0)
    np.testing.assert_array_equal(first.x, x0)
    check(fastrsx.newton(A, b, x0), best)


def test_exactly_dependent_columns_beside_nearly_dependent_ones(years):
    A, b, best = years
    result = fastrsx.newton(np.column_stack([A, A[:, 2]]), b)
    check(result, best)
    assert result.x[2] == pytest.approx(result.x[3])  # the least norm


def test_a_planted_solution_is_an_exact_fit():
    rng = np.random.default_rng(4)
    A = rng.standard_normal((100, 4)) @ with_condition(1e6, 4, 1)
    b = fastrsx.predict(A, np.linalg.lstsq(A, 0.3 * rng.standard_normal(100), rcond=None)[0])
    result = fastrsx.newton(A, b)
    assert in_basis(result)
    assert result.success
    assert result.fun <= 1e-20  # A x is known to 1e-10


def test_columns_far_from_dependent_stay_as_they_are():
    rng = np.random.default_rng(5)
    for n, d in [(50, 3), (500, 8), (2000, 70)]:
        A, b = rng.standard_normal((n, d)) * 10.0 ** rng.integers(-9, 9, d), rng.dirichlet(np.ones(n))
        assert not in_basis(fastrsx.newton(A, b, max_iter=3))
    assert not in_basis(fastrsx.newton(load_automobiles().A, load_automobiles().b))


def test_a_rare_category_is_no_near_dependence():
    """It may be missing from all of the few rows that are looked at."""
    rng = np.random.default_rng(6)
    A, b = rng.standard_normal((20000, 4)), rng.dirichlet(np.ones(20000))
    A[:, 3] = 0
    A[777, 3] = 1
    assert not in_basis(fastrsx.newton(A, b))


@pytest.mark.parametrize("period", [2, 5, 64, 100])
def test_rows_that_repeat_are_looked_at_all_the_same(period):
    """If only every k-th row were looked at, all could be of one kind, with two equal columns."""
    rng = np.random.default_rng(7)
    A, b = rng.standard_normal((period * 200, 2)), rng.dirichlet(np.ones(period * 200))
    A[::period, 1] = A[::period, 0]
    assert not in_basis(fastrsx.newton(A, b, max_iter=2))


# -- beyond help -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [6, 7, 9])
def test_beyond_the_digits_of_float64_a_solve_says_so_and_its_advice_works(degree):
    times = YEARS["1971-1990"]
    b = bell(times)
    raw = fastrsx.newton(np.vander(times, degree + 1), b)
    assert not raw.success
    assert "are nearly dependent, with a condition of" in raw.message
    assert "centre and standardise them before they are squared or multiplied, or drop one" in raw.message
    standardised = (times - times.mean()) / times.std()
    followed = fastrsx.newton(np.vander(standardised, degree + 1), b)
    assert followed.success
    assert fastrsx.newton(np.vander(times, 3), b).success  # with the others dropped


# -- no minimum, and what is none ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda t: np.vander(t, 3), lambda t: centred(t, 2)], ids=["raw", "centred"])
@pytest.mark.parametrize("centre", [0.3, 0.25, 0.7])
def test_an_exact_fit_at_infinity_is_told_apart(make, centre):
    times = YEARS["1971-1990"]
    A, b = make(times), bell(times, centre)
    result = fastrsx.newton(A, b)
    assert result.status is Status.NO_MINIMISER
    assert result.nit <= 48
    assert "the loss tends to 0 as x grows along column" in result.message
    assert f"column {np.argmin(np.ptp(A, axis=0))} of A" in result.message
    assert fastrsx.newton(A, b, link="softmax").success
    assert fastrsx.newton(A, b, w=1e-6).success


@pytest.mark.parametrize("intercept", [5.0, *range(12, 25)])
def test_a_planted_solution_with_a_large_intercept_is_no_fit_at_infinity(intercept):
    t = np.linspace(-1, 1, 30)
    A = legvander(t, 2)
    b = fastrsx.predict(A, [intercept, 0.5, -2.0])
    result = fastrsx.newton(A, b, [intercept - 3.0, 0.4, -1.9])
    assert result.status is Status.EXACT_FIT
    assert result.fun <= 1e-27


def test_no_point_above_the_start_is_returned():
    """Steps that each rise by no more than rounding may add up."""
    A = [[0.54362499, 1, 0.81585355, 1], [0.85740428, 1, 0.72965545, 1]]
    x0 = [0.52254153, -0.37771966, 0.55668953, 0.40376263]
    result = fastrsx.newton(A, [5e5, 5e5], x0, link="linear")
    assert result.fun <= Problem(A, [5e5, 5e5], link="linear").value(x0)


def test_where_x_is_x0_again_the_message_speaks_of_no_pole():
    """b is so large that steps do not change the loss, but they have come near the pole."""
    rng = np.random.default_rng(2663)
    result = fastrsx.newton(rng.standard_normal((6, 2)), -1e20 * rng.random(6), hessian="matrix-free")
    assert result.status is Status.STALLED
    assert "x is x0" in result.message
    assert "pole" not in result.message
    assert not result.x.any()


def test_a_fit_that_is_attained_is_none_at_infinity():
    """An A x that is the same in all rows fits b at any height, but the long steps on the way there do not show it."""
    group = np.array([0, 0, 2, 2, 3, 3, 3, 0, 0, 2, 2, 0, 3])
    A = np.column_stack([group == 0, group == 1, group == 2, np.ones(13)]).astype(float)
    result = fastrsx.newton(A, np.full(13, 1 / 13), [3.8242925771941847, 15.421361344745266, -1.2037780878911306, 68.41982617700124])
    assert result.success
    assert result.fun <= 1e-17


def test_softmax_does_not_see_a_constant_that_columns_nearly_hide():
    """The difference of the columns is constant, but the basis has it only to rounding times their condition."""
    years = np.array([1616, 1617, 1618, 1619, 1623, 1624, 1625, 1626, 1628, 1630, 1632, 1634.0]).repeat(2)
    b = np.random.default_rng(0).random(24)
    result = fastrsx.newton(np.column_stack([years, years + 1]), b / b.sum(), link="softmax")
    assert result.success
    assert np.isclose(result.fun, fastrsx.newton((years - years.mean())[:, None], b / b.sum(), link="softmax").fun, rtol=1e-9, atol=0)


def test_near_0_x_has_no_rounding_of_a_distant_start():
    years = np.linspace(1970, 2030, 34)
    A = np.vander(years, 5)
    result = fastrsx.newton(A, np.full(34, 1 / 34), [-6.9e-13, 3.2e-9, 2.3e-6, 0.0034, -2.54], w=0.5)
    assert result.success
    assert np.abs(A @ result.x).max() <= 1e-17
