"""Rows in groups, each with a softmax of its own: the kernels against the naive reference, in any layout, and solves."""

import pickle

import numpy as np
import pytest
import scipy.sparse

import fastrsx
from fastrsx import loading
from fastrsx.data import load_automobiles
from fastrsx.engines import file, passes_over
from fastrsx.inputs import read_only
from fastrsx.kernels import grouped
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.groups import units as division
from fastrsx.loading import load
from fastrsx.planning import choose, size_of
from naive import Naive, five_point

NONE = np.empty(0)
STRUCTURES = {
    "one": lambda rng, n: [n],
    "single rows": lambda rng, n: [1] * n,
    "ragged": lambda rng, n: np.diff(np.unique([0, n, *rng.integers(1, n, n // 7)])),
    "large and tiny": lambda rng, n: [3, n // 2, 1, 1, 2, n - n // 2 - 8, 1],
    "pairs and one large": lambda rng, n: [2] * (n // 4) + [n - 2 * (n // 4)],
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small_units(monkeypatch):
    """Units of one panel, so that problems of a few hundred rows have groups in pieces."""
    monkeypatch.setattr(division, "MOST_ROWS", 128)


def example(rng, structure, n=700, d=5, weighted=False):
    """A, b that sums to 1 in each group, offsets, and w, m and omega: all of them or none. Each alpha is positive near 0."""
    offsets = np.concatenate([[0], np.cumsum(STRUCTURES[structure](rng, n))])
    A, b = rng.standard_normal((n, d)), rng.random(n)
    labels = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    b /= np.bincount(labels, b)[labels]
    w, m, omega = NONE, NONE, NONE
    if weighted:
        w, m, omega = 0.1 * rng.random(n), rng.integers(0, 3, n) * 1.0, rng.integers(0, 3, n) * 0.5
        m[offsets[:-1]] = 1.0
    return A, b, offsets, labels, w, m, omega


def engine(A, b, offsets, w=NONE, m=NONE, omega=NONE, link="rsx", kernel="serial"):
    data = load(A)
    return passes_over(data, b, w, choose(size_of(data.A), data.loader, kernel), LINKS[link], (offsets, m, omega))


def or_none(y):
    return y if y.size else None


def assert_near(found, expected, scale, factor=64):
    """Within rounding of terms of that size; where they are 0, of a hundredth of the largest."""
    error = np.abs(np.asarray(found, np.longdouble) - expected)
    least = max(0.01 * np.max(scale), np.finfo(float).eps)
    assert (error <= factor * np.finfo(float).eps * np.maximum(scale, least)).all(), error.max()


# -- kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["rsx", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_passes_are_the_formulas(rng, small_units, structure, weighted, link):
    A, b, offsets, labels, w, m, omega = example(rng, structure, weighted=weighted)
    x, p = 0.05 * rng.standard_normal(5), rng.standard_normal(5)
    naive = Naive(A, b, x, w=or_none(w), m=or_none(m), r=or_none(omega), groups=labels, link=link)
    passes = engine(A, b, offsets, w, m, omega, link)
    point, first = passes.project_grad(x)
    a = passes.a.copy()
    assert_near(a, naive.a, np.abs(A) @ np.abs(x))
    assert_near(point.fun, naive.value, naive.value_scale)
    assert_near(point.alpha, naive.alpha, abs(naive.alpha) * float(naive.kappa), 16)
    for found in (first, passes.gradient(a, point)):
        assert_near(found.grad, naive.grad, naive.grad_split_scale)
    first, hess = passes.hessian(a, point)
    assert_near(hess, naive.hess, naive.hess_scale)
    V, Q = passes.rank_2_vectors(a, point)
    assert_near(V, naive.V[0], naive.V_scale[0])
    assert_near(Q, naive.V[1], naive.V_scale[1])
    assert_near(
        first.rank_2(), 2 * (naive.V[0].T @ naive.V[1] + naive.V[1].T @ naive.V[0]), 4 * naive.V_scale[0].T @ naive.V_scale[1] + naive.hess_scale
    )
    da = np.empty(len(b))
    assert_near(passes.hess_vec(a, point, first, p, da), naive.hess @ p, naive.hess_scale @ abs(p) * 4)
    assert_near(da, A @ p, np.abs(A) @ np.abs(p))
    assert_near(passes.diagonal(a, point), naive.D + naive.w**2 / 2, naive.D_scale + naive.w**2)
    f, v = passes.predictions(a, point)
    assert_near(f, naive.f, naive.f_scale)
    assert_near(v, naive.v / naive.in_rows(naive.alpha), naive.v / naive.in_rows(naive.alpha))


def test_the_hessian_is_the_derivative_of_the_gradient(rng):
    A, b, offsets, labels, w, m, omega = example(rng, "ragged", 40, weighted=True)
    problem = fastrsx.Problem(A, b, w=w, groups=labels, multiplicity=m, residual_weights=omega)
    x, p = 0.1 * rng.standard_normal(5), rng.standard_normal(5)
    np.testing.assert_allclose(problem.hess(x) @ p, five_point(problem.grad, x, p, 1e-3), rtol=1e-8)
    np.testing.assert_allclose(problem.grad(x) @ p, five_point(problem.value, x, p, 1e-3), rtol=1e-8)
    np.testing.assert_allclose(problem.jac_operator(x) @ p, five_point(problem.predict, x, p, 1e-3), rtol=1e-7, atol=1e-11)
    y = rng.standard_normal(len(b))
    assert y @ (problem.jac_operator(x) @ p) == pytest.approx(p @ problem.jac_operator(x).rmatvec(y), rel=1e-12)
    factors = problem.factors(x)
    assert factors.v.shape == (len(offsets) - 1, 5)
    np.testing.assert_allclose(factors.to_dense(), problem.hess(x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(factors.matvec(p), problem.hess(x) @ p, rtol=1e-12)


@pytest.mark.parametrize("structure", ["ragged", "large and tiny"])
def test_twins_have_the_same_bits(rng, small_units, structure):
    A, b, offsets, _, w, m, omega = example(rng, structure, 20_000, 16, weighted=True)
    x = 0.02 * rng.standard_normal(16)
    found = []
    for kernel in ("serial", "parallel"):
        passes = engine(A, b, offsets, w, m, omega, kernel=kernel)
        point, first = passes.project_grad(x)
        derived, hess = passes.hessian(passes.a, point)
        product = passes.hess_vec(passes.a, point, first, x)
        found.append((point.raw, first.grad, derived.grad, hess, product, passes.diagonal(passes.a, point)))
    for serial, parallel in zip(*found, strict=True):
        np.testing.assert_array_equal(serial, parallel)


LAYOUTS = {
    "float32": lambda A: A.astype(np.float32),
    "F": np.asfortranarray,
    "csr": lambda A: scipy.sparse.csr_array(np.where(np.abs(A) > 1, A, 0.0)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_as_good_as_an_array(rng, small_units, monkeypatch, layout):
    monkeypatch.setattr(loading, "COPIED_UP_TO", 0)
    A, b, _, labels, w, m, omega = example(rng, "large and tiny", weighted=True)
    A = LAYOUTS[layout](A)
    plain = np.array(A.toarray() if layout == "csr" else A, dtype=float, order="C")
    x = 0.05 * rng.standard_normal(5)
    problem, expected = (fastrsx.Problem(each, b, w=w, groups=labels, multiplicity=m, residual_weights=omega, kernel="serial") for each in (A, plain))
    assert problem.value(x) == pytest.approx(expected.value(x), rel=1e-13)
    np.testing.assert_allclose(problem.grad(x), expected.grad(x), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(problem.hess(x), expected.hess(x), rtol=0, atol=1e-13 * abs(expected.hess(x)).max())
    np.testing.assert_allclose(problem.hess_vec(x, x), expected.hess_vec(x, x), rtol=1e-10, atol=1e-13)
    for one, other in zip(problem.factors(x)[1:4], expected.factors(x)[1:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)


def test_kernels_run_in_a_users_workspace(rng, small_units):
    A, b, offsets, labels, w, m, omega = example(rng, "large and tiny", weighted=True)
    x, p = 0.05 * rng.standard_normal(5), rng.standard_normal(5)
    naive = Naive(A, b, x, w=w, m=m, r=omega, groups=labels)
    for array in (A, b, w, m, omega):
        array.setflags(write=False)  # as the engine passes them, so that the kernels are those that it compiles
    work, rows = grouped.alloc_workspace(offsets, 5, True), grouped.Rows(b, w, m, omega)
    grad, hess, product = np.empty(5), np.empty((5, 5)), np.empty(5)
    assert grouped.value_grad_hess_serial(A, x, rows, grad, hess, work) == pytest.approx(float(naive.value), rel=1e-13)
    assert_near(grad, naive.grad, naive.grad_split_scale)
    assert_near(hess, naive.hess, naive.hess_scale)
    assert grouped.hess_vec_serial(A, x, rows, p, product, work) == pytest.approx(float(naive.value), rel=1e-13)
    assert_near(product, naive.hess @ p, naive.hess_scale @ abs(p) * 4)
    fit = naive.f.astype(float)  # where the sums of pieces cancel
    fit.setflags(write=False)
    assert grouped.value_grad_serial(A, x, grouped.Rows(fit, read_only(NONE), m, omega), grad, work) < 1e-28
    assert np.abs(grad).max() < 1e-14


@pytest.mark.parametrize("most", [1, 5, 128, 1000])
def test_units_cover_the_rows_and_no_more(rng, most, monkeypatch):
    monkeypatch.setattr(division, "rows_of_unit", type("", (), {"py_func": staticmethod(lambda d: most)}))
    for structure in STRUCTURES:
        n = 300
        offsets = np.concatenate([[0], np.cumsum(STRUCTURES[structure](rng, n))]).astype(np.int64)
        for cuts in (None, np.array([100, 101, 250, n])):
            units = division.make_units(offsets, 4, 3, cuts)
            sizes = np.diff(units.starts)
            assert units.starts[0] == 0
            assert units.starts[-1] == n
            assert (sizes > 0).all()
            assert sizes.max() <= most
            assert set([] if cuts is None else cuts) <= set(units.starts)
            whole = units.pieces < 0
            assert np.isin(units.starts[:-1][whole], offsets).all()
            assert np.isin(units.starts[1:][whole], offsets).all()
            np.testing.assert_array_equal(units.pieces[~whole], np.arange(np.count_nonzero(~whole)))
            np.testing.assert_array_equal(units.firsts, np.searchsorted(offsets, units.starts[:-1], side="right") - 1)
            np.testing.assert_array_equal(np.repeat(units.large, np.diff(units.large_pieces)), units.firsts[~whole])
            edges = units.edges.reshape(-1) if cuts is None else units.edges
            assert edges[0] == 0
            assert edges[-1] == len(sizes)
            assert (np.diff(edges) >= 0).all()


# -- solves -----------------------------------------------------------------------------------------------------


def cars_in_years():
    cars = load_automobiles()
    total = np.bincount(cars.year, cars.b)
    return cars, cars.b / total[cars.year]


def test_cars_within_years():
    cars, b = cars_in_years()
    assert fastrsx.Problem(cars.A, b, groups=cars.year).value(np.zeros(5)) == pytest.approx(2.2737253988369754e-1, rel=1e-12)
    result = fastrsx.newton(cars.A, b, groups=cars.year)
    assert result.status.name == "CONVERGED"
    assert result.fun == pytest.approx(1.8889211489607063e-1, rel=1e-12)
    assert result.nit <= 6
    np.testing.assert_allclose(result.x[[0, 4]], [-0.2029, 0.1763], atol=5e-5)
    np.testing.assert_array_equal(result.groups, np.unique(cars.year))
    np.testing.assert_allclose(result.alpha, Naive(cars.A, b, result.x, groups=cars.year).alpha.astype(float), rtol=1e-12)
    np.testing.assert_allclose(np.exp(result.log_alpha), result.alpha, rtol=1e-12)
    f = fastrsx.predict(cars.A, result.x, groups=cars.year)
    np.testing.assert_allclose(np.bincount(cars.year, f)[1971:], 1, rtol=1e-13)


def test_no_other_start_ends_lower():
    cars, b = cars_in_years()
    rng = np.random.default_rng(0)
    problem, starts = fastrsx.Problem(cars.A, b, groups=cars.year), (rng.standard_normal(5) for _ in range(10_000))
    inside = [x0 for x0 in starts if problem.value(x0) < np.inf][:60]
    assert len(inside) == 60
    found = [fastrsx.newton(cars.A, b, x0, groups=cars.year) for x0 in inside]
    assert min(result.fun for result in found) >= 1.8889211489607063e-1 * (1 - 1e-12)
    assert sum(result.success for result in found) >= 50


def test_any_order_of_rows_gives_the_same(rng):
    cars, b = cars_in_years()
    labels = np.array([f"year {year}" for year in cars.year])
    expected = fastrsx.newton(cars.A, b, groups=labels)
    assert "u normalised within 20 groups of rows" in expected.kernel
    order = rng.permutation(len(b))
    result = fastrsx.newton(cars.A[order], b[order], groups=labels[order])
    assert "gathered" in result.kernel
    np.testing.assert_allclose(result.x, expected.x, rtol=1e-12)
    assert result.groups[0] == labels[order[0]]
    assert isinstance(fastrsx.newton(cars.A, b, groups=labels.tolist()).groups, np.ndarray)
    problem = fastrsx.Problem(cars.A[order], b[order], groups=list(labels[order]))
    np.testing.assert_allclose(problem.predict(result.x), fastrsx.predict(cars.A, result.x, groups=cars.year)[order], rtol=1e-12)
    p = rng.standard_normal(5)
    expected_jacobian = fastrsx.Problem(cars.A, b, groups=cars.year).jac_operator(result.x)
    np.testing.assert_allclose(problem.jac_operator(result.x) @ p, (expected_jacobian @ p)[order], rtol=1e-10, atol=1e-16)


def test_one_group_is_no_group(rng):
    A, b = rng.standard_normal((300, 4)), rng.dirichlet(np.ones(300))
    plain, one = fastrsx.newton(A, b), fastrsx.newton(A, b, groups=["all"] * 300, multiplicity=1.0, residual_weights=np.ones(300))
    np.testing.assert_array_equal(one.x, plain.x)
    np.testing.assert_array_equal(one.hess, plain.hess)
    assert one.fun == plain.fun
    np.testing.assert_array_equal(one.alpha, [plain.alpha])


@pytest.mark.parametrize("hessian", ["exact", "sampled", "sampled-only", "matrix-free"])
def test_every_hessian_finds_the_planted_x(rng, hessian):
    n, d, x = 24 * 200, 20, 0.3 * rng.standard_normal(20)
    A, labels = rng.standard_normal((n, d)), np.repeat(np.arange(200), 24)
    b = fastrsx.predict(A, x, groups=labels)
    result = fastrsx.newton(A, b, groups=labels, hessian=hessian, kernel="serial", max_iter=200)
    assert result.status.name == "EXACT_FIT"
    np.testing.assert_allclose(result.x, x, atol=1e-9)
    if hessian == "exact":
        assert result.npass <= 2 * result.nit + 3  # the start, and at the end derivatives for the result


@pytest.mark.parametrize("link", ["rsx", "softmax"])
def test_integer_multiplicities_are_copies(rng, link):
    """k copies of a row with b/k each, omega k each: f is 1/k of that of the merged row, so k omega k (f/k - b/k)^2 is what it was."""
    A, _, _, labels, _, _, omega = example(rng, "ragged", 60, weighted=True)
    m = rng.integers(1, 4, 60)
    b = rng.random(60) + 0.5
    b /= np.bincount(labels, b)[labels]
    merged = fastrsx.newton(A, b, groups=labels, multiplicity=m * 1.0, residual_weights=omega + 0.5, link=link)
    copies = np.repeat(np.arange(60), m)
    apart = fastrsx.newton(A[copies], (b / m)[copies], groups=labels[copies], residual_weights=((omega + 0.5) * m)[copies], link=link)
    assert merged.success
    assert apart.success
    assert merged.fun == pytest.approx(apart.fun, rel=1e-11)
    np.testing.assert_allclose(merged.x, apart.x, rtol=1e-10, atol=1e-10)


def test_masked_rows_are_as_if_they_were_not_there(rng):
    A, b, _, labels, _, _, _ = example(rng, "ragged", 60)
    kept = np.ones(60)
    kept[[3, 17, 40, 41]] = 0.0
    b[kept == 0] = 0.0
    A[kept == 0] *= 1000.0  # exp of which overflows
    masked = fastrsx.newton(A, b, groups=labels, multiplicity=kept)
    rows = kept > 0
    dropped = fastrsx.newton(A[rows], b[rows], groups=labels[rows])
    np.testing.assert_allclose(masked.x, dropped.x, rtol=1e-10, atol=1e-10)
    assert masked.fun == pytest.approx(dropped.fun, rel=1e-12)


def test_rows_without_residual_weight_count_in_alpha_alone(rng):
    A, b, _, labels, _, _, _ = example(rng, "ragged", 60)
    omega = np.ones(60)
    omega[[3, 17]] = 0.0
    first = fastrsx.newton(A, b, groups=labels, residual_weights=omega)
    b[[3, 17]] = 123.0  # which nobody sees
    second = fastrsx.newton(A, b, groups=labels, residual_weights=omega)
    np.testing.assert_allclose(first.x, second.x, rtol=1e-10, atol=1e-10)
    assert first.fun == pytest.approx(float(Naive(A, b, first.x, groups=labels, r=omega).value), rel=1e-12)


def test_multiplicities_without_groups(rng):
    A, b, _, _, _, m, omega = example(rng, "one", 60, weighted=True)
    result = fastrsx.newton(A, b, multiplicity=m, residual_weights=omega)
    naive = Naive(A, b, result.x, m=m, r=omega)
    assert result.success
    assert result.fun == pytest.approx(float(naive.value), rel=1e-12)
    assert isinstance(result.alpha, float)
    assert result.alpha == pytest.approx(float(naive.alpha), rel=1e-12)
    assert result.groups is None


def test_groups_of_one_row_fit_nothing(rng):
    A, b = rng.standard_normal((30, 3)) * 0.1, rng.random(30)
    result = fastrsx.newton(A, b, groups=np.arange(30))
    assert result.fun == pytest.approx(((1 - b) ** 2).sum(), rel=1e-13)
    np.testing.assert_allclose(result.jac, 0, atol=1e-15)
    assert "Every group has one row, where f is 1 whatever x is." in result.message


def test_messages_name_groups(rng):
    A, b, _, labels, _, _, _ = example(rng, "ragged", 60)
    b[labels == 2] *= 0.5
    names = np.array([f"market {t}" for t in labels])
    message = fastrsx.newton(A, b, groups=names).message
    assert "b sums to 0.5 in group 'market 2', and f to 1 in each" in message
    b[labels == 0] *= 2.0
    assert "b sums to 2 in group 'market 0' and in 1 other group to other numbers than 1" in fastrsx.newton(A, b, groups=names).message
    result = fastrsx.newton(A, b.astype(np.float32) / 2, groups=names)
    assert "market 0" in repr(result)
    b /= np.bincount(labels, b)[labels]
    b[labels == 1] *= 1 + 1e-7
    assert "b sums to 1 + 1.0e-07 in group 'market 1', and" in fastrsx.newton(A, b, groups=names).message
    with pytest.raises(ValueError, match="x0 lies outside the domain alpha = <u, 1> > 0 of group 'market"):
        fastrsx.newton(-np.abs(A), b, np.full(5, 3.0), groups=names)


def test_an_outside_good_frees_the_sum_of_b(rng):
    A, b, offsets, labels, _, _, _ = example(rng, "ragged", 60)
    omega = np.ones(60)
    omega[offsets[:-1]] = b[offsets[:-1]] = 0.0
    assert "b sums" not in fastrsx.newton(A, b, groups=labels, residual_weights=omega).message
    m = 1.0 - (np.arange(60) == offsets[1])
    assert "b sums to" in fastrsx.newton(A, b, groups=labels, residual_weights=m, multiplicity=m).message


def test_one_row_that_is_not_masked_is_a_group_of_one_row(rng):
    A, b, _, labels, _, _, _ = example(rng, "pairs and one large", 60)
    m = np.ones(60)
    m[1] = 0.0
    message = fastrsx.newton(0.1 * A, b, groups=labels, multiplicity=m).message
    assert "1 of 16 groups have one row, where f is 1 whatever x is." in message


def test_a_row_alone_whose_pole_is_in_the_way_is_to_be_dropped(rng):
    A, labels = rng.standard_normal((300, 1)), np.repeat(np.arange(30), 10)
    b = fastrsx.predict(A, [-0.5], groups=labels) * rng.uniform(0.8, 1.2, 300)
    b /= np.bincount(labels, b)[labels]
    result = fastrsx.newton(np.vstack([A, [[2.0]]]), np.append(b, 1.0), groups=np.append(labels, 99))  # its alpha is 0 at x = -0.28
    assert not result.success
    assert "1 of 31 groups have one row, where f is 1 whatever x is; drop those rows" in result.message
    assert fastrsx.newton(A, b, groups=labels).success


def test_a_pole_is_that_of_a_group():
    """u is linear in a near a = -0.567, so f tends to a b that is linear in a centred column only as alpha tends to 0."""
    z = np.linspace(-0.1, 0.1, 40)
    A = np.vstack([np.zeros((5, 2)), np.column_stack([np.ones(40), z])])
    b, labels = np.concatenate([np.full(5, 0.2), 1 / 40 + 0.2 * z]), ["near"] * 5 + ["far"] * 40
    result = fastrsx.newton(A, b, groups=labels)
    assert result.status.name == "NO_MINIMISER"
    assert "alpha = <u, 1> of group 'far' tends to 0" in result.message
    assert result.alpha[0] == pytest.approx(5)
    assert result.alpha[1] < 40 * 1e-3


def test_a_step_does_not_cross_the_pole_of_a_group():
    """e^x + e^(-x/5) + 4/5 x is positive at 0 and at -12, and negative between."""
    A, b, labels = np.array([[0.0], [0.1], [1.0], [-0.2]]), np.full(4, 0.5), [0, 0, 1, 1]
    problem = fastrsx.Problem(A, b, groups=labels)
    assert problem.value([0.0]) < np.inf
    assert problem.value([-4.0]) == np.inf
    assert problem.value([-12.0]) < np.inf
    passes, a, da = engine(A, b, np.array([0, 2, 4])), np.zeros(4), -12.0 * A[:, 0]
    assert passes.evaluate(a, da, 1.0, np.empty(4)).fun == np.inf
    assert passes.evaluate(a, da, 0.05, np.empty(4)).fun < np.inf
    assert passes.evaluate(a + da).fun == problem.value([-12.0])
    with pytest.raises(ValueError, match="x0 lies outside the domain"):
        fastrsx.newton(A, b, [-4.0], groups=labels)


def test_softmax_does_not_see_what_is_constant_within_groups(rng):
    cars, b = cars_in_years()
    A = np.column_stack([cars.A, np.ones(len(b)), cars.year - 1980.0])
    result = fastrsx.newton(A, b, groups=cars.year, link="softmax")
    expected = fastrsx.newton(cars.A, b, groups=cars.year, link="softmax")
    assert result.success
    np.testing.assert_allclose(result.x[:5], expected.x, rtol=1e-7)
    np.testing.assert_array_equal(result.x[5:], 0)
    shifted = fastrsx.newton(A, b, np.r_[expected.x + 0.1, 3.0, -0.2], groups=cars.year, link="softmax")
    np.testing.assert_allclose(shifted.x[:5], expected.x, rtol=1e-6)
    np.testing.assert_array_equal(shifted.x[5:], 0)
    assert "Columns 5, 6 of A, constant within every group, do not change the loss: x is 0 there." in result.message


def test_a_wide_problem_has_a_least_solution(rng):
    A, b = rng.standard_normal((40, 90)), rng.random(40)
    labels = np.repeat(np.arange(8), 5)
    b /= np.bincount(labels, b)[labels]
    for link in ("rsx", "softmax"):
        result = fastrsx.newton(A, b, groups=labels, link=link)
        assert result.success
        assert result.fun < 1e-20
        centred = A - np.array([A[labels == t].mean(axis=0) for t in range(8)])[labels] if link == "softmax" else A
        projected = np.linalg.pinv(centred) @ (centred @ result.x)
        np.testing.assert_allclose(projected, result.x, atol=1e-8 * abs(result.x).max())


def test_a_file_is_read_as_groups_lie_in_it(rng, small_units, monkeypatch, tmp_path):
    A, b, _, labels, w, m, omega = example(rng, "large and tiny", 3000, 12, weighted=True)
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading, "free", lambda: 0)
    monkeypatch.setattr(file, "CHUNK_BYTES", 700 * 12 * 8)  # groups lie across the borders of chunks
    np.save(tmp_path / "A.npy", A)
    given = {"w": w, "multiplicity": m, "residual_weights": omega, "kernel": "serial"}
    on_disk = np.load(tmp_path / "A.npy", mmap_mode="r")
    found, expected = (fastrsx.newton(each, b, groups=labels, **given) for each in (on_disk, A))
    assert "A read from disk in chunks" in found.kernel
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-10)
    np.testing.assert_allclose(found.hess, expected.hess, rtol=0, atol=1e-12 * abs(expected.hess).max())
    problem = fastrsx.Problem(on_disk, b, groups=labels, **given)
    np.testing.assert_allclose(problem.grad(found.x), expected.jac, atol=1e-14)
    np.testing.assert_allclose(problem.hess_vec(found.x, found.x), expected.hess @ found.x, rtol=1e-9)
    with pytest.raises(ValueError, match=r"groups has rows of one group that lie apart, and A is on disk: sort its rows by group"):
        fastrsx.newton(on_disk, b, groups=labels[::-1] % 2)


def test_mixed_precision_ends_at_the_same_x(rng):
    A, b, _, labels, _, _, _ = example(rng, "ragged", 3000, 40)
    expected = fastrsx.newton(A, b, groups=labels, kernel="serial")
    mixed = fastrsx.newton(A, b, groups=labels, kernel="serial", precision="mixed")
    np.testing.assert_allclose(mixed.x, expected.x, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(mixed.hess, expected.hess, rtol=0, atol=1e-10 * abs(expected.hess).max())


def test_a_users_own_link_has_groups(rng):
    from test_own_links import SOFTPLUS, naive_softplus

    A, b, _, labels, _, m, omega = example(rng, "ragged", 60, weighted=True)
    result = fastrsx.newton(A, b, groups=labels, multiplicity=m, residual_weights=omega, link=SOFTPLUS)
    naive = Naive(A, b, result.x, m=m, r=omega, groups=labels, link=naive_softplus)
    assert result.fun == pytest.approx(float(naive.value), rel=1e-12)
    assert_near(result.jac, naive.grad, naive.grad_split_scale)


def test_a_problem_is_pickled_with_its_groups(rng):
    A, b, _, labels, w, m, omega = example(rng, "ragged", 60, weighted=True)
    order = rng.permutation(60)
    given = {"w": w[order], "multiplicity": m[order], "residual_weights": omega[order]}
    problem = fastrsx.Problem(A[order], b[order], groups=labels[order], **given)
    copied, x = pickle.loads(pickle.dumps(problem)), 0.1 * rng.standard_normal(5)
    assert (
        copied.value(x)
        == problem.value(x)
        == pytest.approx(fastrsx.Problem(A, b, w=w, groups=labels, multiplicity=m, residual_weights=omega).value(x))
    )
    np.testing.assert_array_equal(copied.predict(x), problem.predict(x))
    assert list(copied.groups) == list(problem.groups)


def test_near_dependent_columns_take_a_basis(rng):
    A, b, _, labels, _, _, _ = example(rng, "ragged", 300)
    A[:, 4] = A[:, 3] + 1e-3 * rng.standard_normal(300)
    result = fastrsx.newton(A, b, groups=labels)
    assert "orthonormal basis" in result.kernel
    assert result.success
    assert result.fun == pytest.approx(float(Naive(A, b, result.x, groups=labels).value), rel=1e-10)
    assert result.alpha.shape == (len(np.unique(labels)),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": [0, 0, 1]}, r"groups has 3 entries; it must have 4"),
        ({"groups": [0, 0, 1, None]}, r"groups\[3\] is None"),
        ({"multiplicity": [1, 1, -1, 1]}, r"multiplicity\[2\] is -1.0"),
        ({"residual_weights": [1, np.nan, 1, 1]}, r"residual_weights\[1\] is nan"),
        ({"groups": list("aabb"), "multiplicity": [0, 1, 0, 0]}, r"multiplicity is 0 in every row of group 'b'"),
        ({"multiplicity": 0.0}, r"multiplicity is 0 in every row"),
    ],
)
def test_what_is_no_grouping_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(np.eye(4, 2), np.full(4, 0.25), **given)


def test_entries_are_refused_by_the_callers_row(rng):
    A = rng.standard_normal((6, 2))
    A[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"A\[4, 1\] is nan"):
        fastrsx.newton(A, np.full(6, 0.5), groups=[0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1], [0, 1, 0, 1, 0]])
def test_only_the_groups_outside_the_domain_have_no_shares(labels):
    of = np.array(labels)
    a = np.where(of == 0, -4.0, 1.5) + 0.25 * np.arange(5)  # <u, 1> is negative in group 0
    f = fastrsx.predict(a[:, None], [1.0], groups=labels)
    assert np.isnan(f[of == 0]).all()
    np.testing.assert_allclose(f[of == 1], fastrsx.predict(a[of == 1, None], [1.0]), rtol=1e-14)
    jac = fastrsx.Problem(a[:, None], np.zeros(5), groups=labels).jac_operator([1.0])
    np.testing.assert_array_equal(np.isnan(jac.matvec([1.0])), of == 0)
