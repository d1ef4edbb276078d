"""fastrsx.Problem: values and derivatives against the formulas, its memory of the last x, operators, SciPy, pickling; plan()."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize
from scipy.sparse.linalg import cg

import fastrsx
from fastrsx import Problem, Status


def example(n=60, d=4, w=None, **options):
    rng = np.random.default_rng([n, d])
    b = rng.random(n)
    return Problem(rng.standard_normal((n, d)), b / b.sum(), w=w, **{"kernel": "serial"} | options), 0.3 * rng.standard_normal(d)


# -- the formulas ----------------------------------------------------------------------------------------------


def f(problem, x):
    a = problem.A @ x
    u = np.exp(a) + a
    return u / u.sum()


def loss(problem, x):
    """Holds for complex x too: its imaginary part at x + i h p is h times the derivative along p, to rounding."""
    wa = (problem.w if problem.w.size else 0.0) * (problem.A @ x)
    return ((f(problem, x) - problem.b) ** 2).sum() + 0.5 * (wa**2).sum()


def jacobian(problem, x):
    a = problem.A @ x
    e = np.exp(a)
    v = e + 1
    return (v[:, None] * problem.A - np.outer(f(problem, x), v @ problem.A)) / (e + a).sum()


def gradient(problem, x):
    w2a = (problem.w**2 if problem.w.size else 0.0) * (problem.A @ x)
    return 2 * jacobian(problem, x).T @ (f(problem, x) - problem.b) + problem.A.T @ w2a


def hessian(problem, x):
    steps = 1e-30j * np.eye(len(x))
    return np.array([gradient(problem, x + step).imag for step in steps]) / 1e-30


SHAPES = pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (60, 4), (63, 8), (129, 1), (700, 17)])
WEIGHTS = pytest.mark.parametrize("w", [None, 0.02, "rows"])
KERNELS = pytest.mark.parametrize("kernel", ["serial", "parallel"])


@SHAPES
@WEIGHTS
@KERNELS
def test_value_and_derivatives_are_the_formulas(n, d, w, kernel):
    w = np.linspace(0, 0.1, n) if w == "rows" else w
    problem, x = example(n, d, w, kernel=kernel)
    value, grad, hess = problem.value_grad_hess(x)
    size = np.abs(problem.A).max() / n  # of the terms of J, which cancel where n = 1
    assert value == pytest.approx(loss(problem, x), rel=1e-12)
    np.testing.assert_allclose(grad, gradient(problem, x), rtol=1e-11, atol=1e-12 * size)
    np.testing.assert_allclose(hess, hessian(problem, x), rtol=1e-10, atol=1e-12 * max(np.abs(hess).max(), size))
    np.testing.assert_array_equal(hess, hess.T)
    np.testing.assert_allclose(problem.predict(x), f(problem, x), rtol=1e-12, atol=1e-15)
    assert problem.predict(x).sum() == pytest.approx(1, rel=1e-14)


def test_gradient_of_the_reference_is_that_of_its_loss():
    problem, x = example(w=0.1)
    steps = 1e-30j * np.eye(len(x))
    np.testing.assert_allclose(gradient(problem, x), [loss(problem, x + step).imag / 1e-30 for step in steps], rtol=1e-12)


@SHAPES
@WEIGHTS
def test_alone_or_together_gives_the_same(n, d, w):
    """Value and Hessian to the bit; the gradient up to rounding, since one pass for both sums it in another order."""
    w = np.linspace(0, 0.1, n) if w == "rows" else w
    problem, x = example(n, d, w)
    value, grad, hess = example(n, d, w)[0].value_grad_hess(x)
    assert problem.value(x) == value
    assert problem.grad(x).tobytes() == grad.tobytes()
    assert problem.hess(x).tobytes() == hess.tobytes()
    together = example(n, d, w)[0].value_and_grad(x)
    assert together[0] == value
    np.testing.assert_allclose(together[1], grad, rtol=0, atol=1e-12 * abs(grad).max())
    after_grad, x = example(n, d, w)
    grad = after_grad.grad(x)
    assert after_grad.value(x) == value
    assert after_grad.hess(x).tobytes() == hess.tobytes()
    assert after_grad.grad(x).tobytes() == grad.tobytes() == together[1].tobytes()


@pytest.mark.parametrize("method", ["value", "grad", "hess", "predict"])
def test_serial_and_parallel_give_the_same_bits(method):
    serial, x = example(1500, 5)
    parallel, _ = example(1500, 5, kernel="parallel")
    assert np.asarray(getattr(serial, method)(x)).tobytes() == np.asarray(getattr(parallel, method)(x)).tobytes()


# -- passes ----------------------------------------------------------------------------------------------------


def passes(problem, call):
    before = problem.npass
    call()
    return problem.npass - before


def test_each_of_value_grad_hess_reads_the_data_once():
    problem, x = example()
    assert passes(problem, lambda: problem.value(x)) == 1
    assert passes(problem, lambda: problem.grad(x)) == 1
    assert passes(problem, lambda: problem.hess(x)) == 1
    for method in (problem.value, problem.grad, problem.hess, problem.predict, problem.factors, problem.value_and_grad, problem.value_grad_hess):
        assert passes(problem, lambda method=method: method(x)) == 0
        assert passes(problem, lambda method=method: method(x.copy())) == 0
    assert passes(problem, lambda: problem.hess_vec(x, x)) == 1
    assert passes(problem, lambda: problem.hess_vec(x, x)) == 1
    assert passes(problem, lambda: problem.hess_vec(x + 1, x)) == 2


@pytest.mark.parametrize(
    ("method", "count"), [("value", 1), ("grad", 1), ("hess", 2), ("value_and_grad", 1), ("value_grad_hess", 2), ("predict", 1), ("factors", 1)]
)
def test_passes_at_a_new_x(method, count):
    problem, x = example()
    for shift in range(3):
        assert passes(problem, lambda shift=shift: getattr(problem, method)(x + shift)) == count


def test_hessian_brings_the_gradient():
    problem, x = example()
    problem.hess(x)
    assert passes(problem, lambda: problem.grad(x)) == 0


def test_operators_count_their_passes():
    problem, x = example()
    assert passes(problem, lambda: problem.jac_operator(x)) == 1
    jac, hess = problem.jac_operator(x), problem.hess_operator(x)
    assert passes(problem, lambda: jac.matvec(x)) == 1
    assert passes(problem, lambda: jac.rmatvec(problem.b)) == 1
    assert passes(problem, lambda: hess.matvec(x)) == 2  # the first one also computes the gradient
    assert passes(problem, lambda: hess.matvec(x)) == 1


def test_near_an_exact_fit_the_gradient_takes_a_second_pass():
    problem, x = example()
    near = Problem(problem.A, problem.predict(x) * (1 + 1e-5 * np.cos(np.arange(len(problem.b)))))
    assert passes(near, lambda: near.value_and_grad(x)) == 2
    assert passes(near, lambda: near.value_and_grad(x + 1)) == 1


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
def test_outside_the_domain_nothing_is_left_of_the_last_x(kernel):
    problem = Problem(np.ones((3, 1)), np.ones(3) / 3, kernel=kernel)
    x, p = np.array([-2.0]), np.ones(1)
    calls = [problem.grad, lambda x: problem.value_and_grad(x)[1], lambda x: problem.hess_vec(x, p), problem.hess, lambda x: problem.factors(x).v]
    for i, (call, outside) in enumerate(zip(calls, [np.nan, np.nan, 0.0, 0.0, 0.0], strict=True)):
        problem.value_and_grad(p)
        np.testing.assert_array_equal(call(x - i), outside)
        assert problem.value(x - i) == np.inf


@pytest.mark.parametrize("method", ["value", "grad", "hess", "predict"])
def test_x_changed_in_place_is_noticed(method):
    problem, x = example()
    getattr(problem, method)(x)
    x[0] += 0.5
    expected = getattr(example()[0], method)(x)
    np.testing.assert_array_equal(getattr(problem, method)(x), expected)


def arrays_of(answer):
    """The arrays in an answer; A itself in Factors is the caller's."""
    if isinstance(answer, fastrsx.Factors):
        return [answer.D, answer.v, answer.q]
    return [part for part in (answer if isinstance(answer, tuple) else (answer,)) if isinstance(part, np.ndarray)]


@pytest.mark.parametrize("method", ["grad", "hess", "value_and_grad", "value_grad_hess", "predict", "factors", "hess_vec"])
@pytest.mark.parametrize("inside", [True, False])
def test_answers_belong_to_the_caller(method, inside):
    if inside:
        problem, x = example()
    else:
        problem, x = Problem(np.ones((3, 1)), np.ones(3) / 3, kernel="serial"), np.array([-2.0])
    arguments = (x, x) if method == "hess_vec" else (x,)
    first = arrays_of(getattr(problem, method)(*arguments))
    expected = [array.copy() for array in first]
    for array in first:
        array[...] = 99
    for array, again in zip(expected, arrays_of(getattr(problem, method)(*arguments)), strict=True):
        np.testing.assert_array_equal(again, array)
    np.testing.assert_allclose(problem.grad(x), (example()[0] if inside else problem).grad(x), rtol=1e-12)


def test_threads_may_share_a_problem():
    problem, x = example(300, 4)
    points = [x + 0.01 * i for i in range(40)]
    expected = [example(300, 4)[0].value_grad_hess(point) for point in points]
    with ThreadPoolExecutor(8) as pool:
        for got, want in zip(pool.map(problem.value_grad_hess, points), expected, strict=True):
            assert got[0] == want[0]
            np.testing.assert_array_equal(got[1], want[1])
            np.testing.assert_array_equal(got[2], want[2])


# -- operators -------------------------------------------------------------------------------------------------


@SHAPES
@WEIGHTS
def test_products_with_the_hessian(n, d, w):
    w = np.linspace(0, 0.1, n) if w == "rows" else w
    problem, x = example(n, d, w)
    p = np.cos(np.arange(d))
    hess = problem.hess(x)
    factors, operator = problem.factors(x), problem.hess_operator(x)
    close = {"rtol": 1e-10, "atol": 1e-12 * max(np.abs(hess).max(), 1 / n)}
    np.testing.assert_allclose(problem.hess_vec(x, p), hess @ p, **close)
    np.testing.assert_allclose(factors.to_dense(), hess, **close)
    np.testing.assert_allclose(factors.matvec(p), hess @ p, **close)
    assert operator.shape == (d, d)
    assert operator.dtype == np.float64
    np.testing.assert_allclose(operator @ p, hess @ p, **close)
    np.testing.assert_allclose(operator.T @ p, hess @ p, **close)
    np.testing.assert_allclose(operator @ np.eye(d), hess, **close)


def test_hess_operator_stays_at_its_x():
    problem, x = example()
    operator, expected = problem.hess_operator(x), problem.hess_vec(x, np.ones(4))
    x += 1
    problem.value(x)
    np.testing.assert_array_equal(operator @ np.ones(4), expected)


@SHAPES
@KERNELS
def test_jac_operator_and_its_adjoint(n, d, kernel):
    problem, x = example(n, d, kernel=kernel)
    p, y = np.cos(np.arange(d)), np.sin(np.arange(n))
    J = problem.jac_operator(x)
    assert J.shape == (n, d)
    scale = np.abs(problem.A).max() / n
    np.testing.assert_allclose(J @ p, jacobian(problem, x) @ p, rtol=1e-10, atol=1e-13 * scale)
    np.testing.assert_allclose(J.T @ y, jacobian(problem, x).T @ y, rtol=1e-10, atol=1e-12 * scale)
    assert (J @ p) @ y == pytest.approx(p @ (J.T @ y), rel=1e-11, abs=1e-12 * scale)


def test_jac_operator_is_the_derivative_of_predict():
    problem, x = example()
    p, h = np.array([1.0, -0.5, 0.25, 2.0]), 1e-3
    near, far = (problem.predict(x + t * p) - problem.predict(x - t * p) for t in (h, 2 * h))
    np.testing.assert_allclose(problem.jac_operator(x) @ p, (8 * near - far) / (12 * h), rtol=1e-8, atol=1e-12)


# -- the domain ------------------------------------------------------------------------------------------------


@KERNELS
@pytest.mark.parametrize("x", [[-0.6], [-2.0], [-1e4], [-1e300], [1e308]])
def test_outside_the_domain(x, kernel):
    """alpha <= 0, or A x beyond float64."""
    problem = Problem(np.full((5, 1), 3.0 if x[0] > 0 else 1.0), np.full(5, 0.2), kernel=kernel)
    value, grad, hess = problem.value_grad_hess(x)
    assert value == np.inf
    factors = problem.factors(x)
    J = problem.jac_operator(x)
    for derivative in (grad, problem.predict(x), J @ [1.0], J.T @ np.ones(5)):
        assert np.isnan(derivative).all()
    for hessian in (hess, problem.hess_vec(x, [1.0]), problem.hess_operator(x) @ [1.0], factors.D, factors.to_dense(), factors.matvec([1.0])):
        assert (hessian == 0).all()
    assert problem.value([0.0]) == pytest.approx(0, abs=1e-30)
    assert np.isfinite(problem.grad([0.0])).all()


def test_huge_activations_stay_finite():
    problem = Problem([[1e4], [1e4 - 1], [-1e4]], [0.5, 0.25, 0.25], kernel="serial")
    e = np.exp(-1.0)
    assert problem.predict([1.0]) == pytest.approx([1 / (1 + e), e / (1 + e), 0], rel=1e-11)
    assert all(np.isfinite(part).all() for part in problem.value_grad_hess([1.0]))


# -- copies ----------------------------------------------------------------------------------------------------

COPIES = pytest.mark.parametrize("duplicate", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "deepcopy"])


@COPIES
@KERNELS
def test_problem_round_trip(duplicate, kernel):
    problem, x = example(w=0.1, kernel=kernel, num_threads=1)
    expected = problem.value_grad_hess(x)
    twin = duplicate(problem)
    assert not np.shares_memory(twin.A, problem.A)
    assert (twin.plan, repr(twin)) == (problem.plan, repr(problem))
    problem.value(2 * x)  # each remembers its own x
    for got, want in zip(twin.value_grad_hess(x), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    problem.A[:] = 0
    np.testing.assert_array_equal(twin.grad(2 * x), example(w=0.1)[0].grad(2 * x))


@COPIES
def test_result_round_trip(duplicate):
    problem, _ = example()
    result = fastrsx.newton(problem.A, problem.b, kernel="serial")
    twin = duplicate(result)
    assert type(twin) is fastrsx.NewtonResult
    assert twin.keys() == result.keys()
    for name in ("x", "jac", "hess"):
        np.testing.assert_array_equal(twin[name], result[name])
    assert {name: twin[name] for name in twin if name not in ("x", "jac", "hess")} == {
        name: result[name] for name in result if name not in ("x", "jac", "hess")
    }
    assert twin.status is Status.CONVERGED
    assert type(twin.history) is fastrsx.History
    assert all(type(record) is fastrsx.Record for record in twin.history)
    assert len(twin.history) == result.nit > 0
    np.testing.assert_array_equal(twin.history.column("fun"), result.history.column("fun"))
    assert str(twin.history) == str(result.history)
    assert twin.summary() == result.summary()


@COPIES
@pytest.mark.parametrize("status", Status)
def test_status_round_trip(duplicate, status):
    assert duplicate(status) is status
    assert duplicate(status).sentence == status.sentence


@COPIES
def test_plan_round_trip(duplicate):
    plan = fastrsx.plan(np.ones((4, 2)))
    assert duplicate(plan) == plan
    assert str(duplicate(plan)) == str(plan)


# -- plan ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["auto", "serial", "parallel"])
@pytest.mark.parametrize("shape", [(3, 1), (10**6, 10)])
def test_plan_prints_as_one_line(shape, kernel):
    plan = fastrsx.plan(np.broadcast_to(0.0, shape), kernel=kernel)
    assert "\n" not in str(plan)
    assert plan.reason
    for part in (f"{plan.kernel} kernels", f"on {plan.threads} thread", "exact Hessian", plan.reason):
        assert part in str(plan)


def test_plan_says_why():
    small, large = np.ones((3, 1)), np.broadcast_to(0.0, (10**6, 10))
    assert fastrsx.plan(small).kernel == "serial"
    assert fastrsx.plan(large, num_threads=1)[:3] == ("serial", "exact", 1)
    assert "one thread" in fastrsx.plan(large, num_threads=1).reason
    assert fastrsx.plan(large, kernel="serial").reason == "kernel='serial' was asked for; steps in one read of A"
    assert fastrsx.plan(small, kernel="parallel").kernel == "parallel"
    assert fastrsx.plan(small, kernel="parallel").reason == "kernel='parallel' was asked for"
    assert fastrsx.plan(small, kernel="parallel", num_threads=1).threads == 1


@pytest.mark.parametrize(
    ("loader", "change"),
    [
        ("in place", np.array),
        ("in place", lambda A: A[1:]),
        ("copy", np.asfortranarray),
        ("copy", lambda A: A[:, ::2]),
        ("copy", lambda A: A.astype(np.float32)),
    ],
    ids=["same", "rows", "F order", "columns", "float32"],
)
def test_plan_names_the_loader(loader, change):
    plan = fastrsx.plan(change(np.ones((4, 3))))
    assert plan.loader == loader
    assert ("read in place" in str(plan)) == (loader == "in place")
    assert ("converted" in str(plan)) == (loader == "copy")


def test_plan_neither_copies_nor_looks_at_the_entries():
    """A is 800 PB of NaN."""
    n, d = 10**14, 10**3
    A, b = np.broadcast_to(np.nan, (n, d)), np.broadcast_to(np.nan, n)
    assert fastrsx.plan(A).loader == "panels"
    assert fastrsx.plan(A, b) == fastrsx.plan(A)


def test_plan_checks_the_shape_of_b():
    with pytest.raises(ValueError, match="b has 3 entries; it must have 4"):
        fastrsx.plan(np.ones((4, 2)), np.ones(3))


@pytest.mark.parametrize("options", [{}, {"kernel": "parallel"}, {"kernel": "parallel", "num_threads": 1}])
def test_plan_is_what_runs(options):
    problem, _ = example()
    plan = fastrsx.plan(problem.A, problem.b, **options)
    assert Problem(problem.A, problem.b, **options).plan == plan
    assert fastrsx.newton(problem.A, problem.b, **options).kernel == str(plan)


# -- SciPy -----------------------------------------------------------------------------------------------------

METHODS = {
    "trust-exact": lambda problem: {"fun": problem.value, "jac": problem.grad, "hess": problem.hess, "options": {"gtol": 1e-12}},
    "trust-ncg": lambda problem: {"fun": problem.value, "jac": problem.grad, "hessp": problem.hess_vec, "options": {"gtol": 1e-12}},
    "Newton-CG": lambda problem: {"fun": problem.value, "jac": problem.grad, "hessp": problem.hess_vec, "options": {"xtol": 1e-10}},
    "Newton-CG with hess_operator": lambda problem: {
        "fun": problem.value_and_grad,
        "jac": True,
        "hess": problem.hess_operator,
        "options": {"xtol": 1e-10},
    },
    "L-BFGS-B": lambda problem: {"fun": problem.value_and_grad, "jac": True, "options": {"gtol": 1e-10, "ftol": 0, "maxls": 50}},
}


@pytest.mark.parametrize("method", METHODS)
def test_minimize_reaches_the_minimum_of_newton(method):
    problem, _ = example(30, 3, w=0.05)
    best = fastrsx.newton(problem.A, problem.b, w=problem.w, kernel="serial")
    assert best.status is Status.CONVERGED
    result = minimize(x0=np.zeros(3), method=method.split()[0], **METHODS[method](problem))
    assert result.fun == pytest.approx(best.fun, rel=1e-12)
    np.testing.assert_allclose(result.x, best.x, atol=1e-6)
    assert np.abs(best.jac).max() <= 1e-10


@pytest.mark.parametrize("tr_solver", [None, "lsmr"])
def test_least_squares_reaches_the_minimum_of_newton(tr_solver):
    problem, _ = example(30, 3)
    best = fastrsx.newton(problem.A, problem.b, kernel="serial")
    assert best.status is Status.CONVERGED
    result = least_squares(
        lambda x: problem.predict(x) - problem.b, np.zeros(3), jac=problem.jac_operator, tr_solver=tr_solver, ftol=1e-14, xtol=1e-14, gtol=1e-12
    )
    assert 2 * result.cost == pytest.approx(best.fun, rel=1e-10)
    np.testing.assert_allclose(result.x, best.x, atol=1e-4)


def test_cg_solves_with_hess_operator():
    problem, _ = example(30, 3, w=0.05)
    best = fastrsx.newton(problem.A, problem.b, w=problem.w, kernel="serial")
    solution, info = cg(problem.hess_operator(best.x), np.ones(3), rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(solution, np.linalg.solve(best.hess, np.ones(3)), rtol=1e-8)


# -- names -----------------------------------------------------------------------------------------------------

NAMES = {"Factors", "History", "NewtonResult", "Plan", "Problem", "Record", "Status", "newton", "plan", "predict", "warmup"}


def test_public_names():
    assert set(fastrsx.__all__) >= NAMES
    assert set(dir(fastrsx)) >= {*fastrsx.__all__, "__version__"}
    assert len(dir(fastrsx)) == len(set(dir(fastrsx)))


def test_star_import():
    names = {}
    exec("from fastrsx import *", names)
    assert names.keys() >= NAMES
    assert all(callable(names[name]) for name in NAMES)  # a function, say, not the module of that name


def test_unknown_name():
    with pytest.raises(AttributeError, match="'fastrsx' has no attribute 'solve'"):
        fastrsx.solve  # noqa: B018


def test_predict_is_the_problems():
    problem, x = example()
    np.testing.assert_array_equal(fastrsx.predict(problem.A, x), problem.predict(x))


@pytest.mark.parametrize("how", ["in memory", "in groups", "in chunks"])
def test_a_problem_goes_with_its_last_reference(how):
    """In a cycle, its n-vectors would wait for a collection of garbage, which knows nothing of memory on a GPU or a cluster."""
    A, b = np.random.default_rng(0).standard_normal((60, 3)), np.full(60, 1 / 60)
    if how == "in chunks":
        A = pytest.importorskip("dask.array", reason="needs dask[array]").from_array(A, chunks=(20, 3))
    options = {"groups": np.repeat([1, 2], 30)} if how == "in groups" else {}

    def passes():
        problem = fastrsx.Problem(A, b, **options)
        problem.value(np.zeros(3))
        return weakref.ref(problem._passes)

    passes()  # what compiles may keep a traceback
    gc.disable()
    try:
        assert passes()() is None
    finally:
        gc.enable()
