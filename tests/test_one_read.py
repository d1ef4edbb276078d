"""Steps in one read of A: the prediction, its corrections against the naive derivatives, and solves against those in two reads."""

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx import planning
from fastrsx.engines.contract import Point
from fastrsx.engines.memory import Passes
from fastrsx.kernels.cpu import ahead
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.formulas.records import POINT_ROOM
from fastrsx.kernels.newton import iteration

KINDS = ("normal", "heavy tails", "weights", "softmax", "one-hot")


def problem(kind, n, d, seed=0):
    """A, b and options of `newton`."""
    rng = np.random.default_rng([n, d, seed])
    A = rng.standard_t(3, (n, d)) if kind == "heavy tails" else rng.standard_normal((n, d))
    link = "softmax" if kind == "softmax" else "rsx"
    b = fastrsx.predict(A, rng.standard_normal(d) / np.sqrt(d), link=link) * rng.uniform(0.5, 1.5, n)
    if kind == "one-hot":
        b = np.zeros(n)
        b[rng.integers(n)] = 1.0
    return A, b / b.sum(), {"link": link} | ({"w": rng.random(n) / n} if kind == "weights" else {})


@pytest.fixture
def at_any_size(monkeypatch):
    """Steps take one read however small A is."""
    monkeypatch.setattr(planning, "READ_ONCE_FROM", 0)


def engine(A, b, link="rsx", w=None):
    """The passes of a problem, on one thread."""
    passes = fastrsx.Problem(A, b, w=w, link=link, kernel="serial")._passes
    assert isinstance(passes, Passes)
    return passes


class Step:
    """A step p from x, foreseen by an engine."""

    def __init__(self, A, b, x, p, link="rsx", w=None, prepare=lambda passes: None):
        self.A, self.b, self.w, self.link, self.x, self.p = A, b, w, link, x, p
        self.passes = engine(A, b, link, w)
        prepare(self.passes)
        self.a, self.da, self.out = A @ x, np.empty(len(b)), np.empty(len(b))
        self.here = self.passes.evaluate(self.a)
        self.first = self.passes.gradient(self.a, self.here)
        before = self.passes.count, self.passes.evaluations
        self.there, self.error = self.passes.foresee(self.a, self.here, self.first, p, self.da, self.out)
        assert (self.passes.count - before[0], self.passes.evaluations - before[1]) == (1, 1)
        self.foreseen = self.passes.foreseen(self.there)

    @property
    def naive(self):
        return naive.Naive(self.A, self.b, self.x + self.p, w=self.w, link=self.link)

    def predicted(self):
        point = np.empty(POINT_ROOM)
        work = self.passes.workspace()
        ahead.predict(work.link, self.here.raw, self.first.v, self.first.q, self.p, self.a, self.passes.sample, point)
        return Point(point)

    def compare(self, first_order=1e-12):
        """The point, A p and A (x + p), and the derivatives of first order, which have no error but rounding."""
        there, seen = self.there, self.naive
        np.testing.assert_allclose(self.da, self.A @ self.p, rtol=0, atol=1e-13 * np.abs(self.A @ self.p).max())
        np.testing.assert_allclose(self.out, self.A @ (self.x + self.p), rtol=0, atol=1e-13 * np.abs(self.out).max())
        assert there.log_alpha == pytest.approx(float(np.log(seen.alpha)), rel=1e-13)
        assert there.fun == pytest.approx(float(seen.value), rel=1e-12)
        assert there.at.squares == pytest.approx(float(seen.c @ seen.c), rel=1e-12)
        assert (there.at.s, there.at.ff) == pytest.approx((float(seen.s), float(seen.f @ seen.f)), rel=1e-12)
        assert there.at.kappa == pytest.approx(float(seen.kappa), rel=1e-12)
        assert there.step == np.abs(self.da).max()
        assert there.at.slope / there.at.alpha == pytest.approx(float(seen.v @ (self.A @ self.p) / seen.alpha), rel=1e-12)
        if self.foreseen is not None:
            first = self.foreseen.first
            assert (np.abs(first.grad - seen.grad) <= first_order * seen.grad_scale).all()
            assert (np.abs(np.array([first.v, first.q]) - seen.V) <= first_order * seen.V_scale).all()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (9, 3), (700, 13), (3000, 8), (2100, 40)])
def test_one_read_finds_what_two_find(n, d, weighted, link):
    rng = np.random.default_rng([n, d])
    A, x, p = rng.standard_normal((n, d)), 0.3 * rng.standard_normal(d) / np.sqrt(d), 0.2 * rng.standard_normal(d) / np.sqrt(d)
    if link == "linear":
        A = A + 3.0
        x, p = np.abs(x) + 0.01, np.abs(p)
    b = rng.dirichlet(np.ones(n))
    step = Step(A, b, x, p, link, rng.random(n) / n if weighted else None)
    step.compare()
    assert step.error < np.inf
    hess, exact = step.foreseen.hess, step.naive.hess
    scale = np.sqrt((A**2).mean(axis=0))
    off = np.abs(hess - exact) / scale / scale[:, None]
    rounding = 1e-12 * float(np.abs(step.naive.D).sum())
    assert off.max() <= 3 * step.error + rounding
    if n <= ahead.SAMPLE:  # the sample is all rows, and the prediction exact
        assert step.error <= rounding


@pytest.mark.parametrize("tails", [0.2, 1.0])
def test_the_prediction_has_the_terms_of_second_order(tails):
    """Where the sample is all rows, it is exact; where it is not, its error is a small part of what the first order misses."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((40_000, 5))
    x, p = 0.3 * rng.standard_normal(5) / np.sqrt(5), tails * rng.standard_normal(5) / np.sqrt(5)
    step = Step(A, rng.dirichlet(np.ones(len(A))), x, p)
    seen, first = step.naive, step.here.alpha * (1 + step.first.v @ p)
    missed = abs(float(seen.alpha) - first)
    assert missed > 0.3 * tails**2 * step.here.alpha * float(p @ p)
    predicted = step.predicted()
    assert abs(predicted.alpha - float(seen.alpha)) <= 0.15 * missed
    assert abs(predicted.at.s - float(seen.s)) <= 0.3 * abs(
        step.here.at.s + step.first.q @ p - step.here.at.ff / 2 * (step.first.v @ p) - float(seen.s)
    )


def test_a_sample_that_does_not_speak_for_all_rows_is_not_used():
    """One row that is not in the sample has most of alpha."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((30_000, 3))
    heavy = next(i for i in range(len(A)) if i not in set(ahead.sample_rows(len(A))))
    A[heavy] = 12.0
    x, p = np.full(3, 0.4), np.full(3, 0.01)
    step = Step(A, rng.dirichlet(np.ones(len(A))), x, p)
    predicted = step.predicted()
    slope = step.first.v @ p
    assert predicted.scaled_alpha == pytest.approx(step.here.scaled_alpha * (1 + slope), rel=1e-14)
    assert predicted.at.s == pytest.approx(step.here.at.s + step.first.q @ p - step.here.at.ff / 2 * slope, rel=1e-12)
    step.compare()


@pytest.mark.parametrize("length", [30.0, 300.0, 3e3, 1e5])
def test_a_step_beyond_every_prediction_is_evaluated(length):
    """Then A p alone is taken from the read; nothing overflows into a result."""
    rng = np.random.default_rng(1)
    A = rng.standard_normal((4000, 3))
    p = np.array([length, -length, length / 2])
    step = Step(A, rng.dirichlet(np.ones(len(A))), np.zeros(3), p)
    assert step.error == np.inf
    assert step.foreseen is None
    point = engine(A, step.b).evaluate(A @ p)
    assert step.there.at[:4] == pytest.approx(point.at[:4], rel=1e-12)
    assert step.there.fun == pytest.approx(point.fun, rel=1e-11)


def test_near_an_exact_fit_no_digit_cancels():
    """The sums are about c, so that the gradient has as many digits as from two reads."""
    rng = np.random.default_rng(2)
    A, x = rng.standard_normal((5000, 6)), rng.standard_normal(6) / 3
    b = fastrsx.predict(A, x) * (1 + 1e-7 * rng.standard_normal(5000))
    Step(A, b, x + 1e-8, np.full(6, -1e-8)).compare(first_order=1e-9)


def test_what_is_foreseen_is_given_once_and_for_its_point_alone():
    A, b, _ = problem("normal", 3000, 4)
    step = Step(A, b, np.zeros(4), np.full(4, 0.1))
    assert step.foreseen is not None
    assert step.passes.foreseen(step.there) is None
    step.passes.foresee(step.a, step.here, step.first, step.p, step.da, step.out)
    assert step.passes.foreseen(step.here) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(300, 3), (5000, 13), (20_000, 24)])
def test_a_solve_in_one_read_is_that_in_two(monkeypatch, kind, n, d):
    A, b, options = problem(kind, n, d)
    two = fastrsx.newton(A, b, kernel="serial", **options)
    monkeypatch.setattr(planning, "READ_ONCE_FROM", 0)
    one = fastrsx.newton(A, b, kernel="serial", **options)
    assert (one.status, one.message.split("led by")[0]) == (two.status, two.message.split("led by")[0])
    assert one.nit <= two.nit + 1
    if two.success:
        assert one.fun == pytest.approx(two.fun, rel=1e-10)
        assert one.npass < two.npass
        problem_ = fastrsx.Problem(A, b, **options)
        np.testing.assert_allclose(one.hess, problem_.hess(one.x), rtol=0, atol=1e-7 * np.abs(one.hess).max())
        assert one.min_eig == pytest.approx(two.min_eig, rel=1e-4)
        assert len(one.history) == one.nit


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads_and_layouts(at_any_size, kind):
    A, b, options = problem(kind, 5000, 12)
    solves = [fastrsx.newton(A, b, kernel=kernel, **options) for kernel in ("serial", "parallel")]
    solves += [fastrsx.newton(layout(A), b, kernel="serial", **options) for layout in (np.asfortranarray, lambda A: np.repeat(A, 2, axis=1)[:, ::2])]
    single = A.astype(np.float32)
    pairs = [(found, solves[0]) for found in solves[1:]]
    pairs.append(tuple(fastrsx.newton(each, b, kernel="serial", **options) for each in (single, single.astype(np.float64))))
    for found, expected in pairs:
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.hess, expected.hess)
        assert (found.fun, found.nit, found.npass, found.nhev) == (expected.fun, expected.nit, expected.npass, expected.nhev)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids="CF")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_solve_that_stops_early_has_the_hessian_of_its_x(at_any_size, layout, steps):
    A, b, _ = problem("normal", 6000, 5)
    found = fastrsx.newton(layout(A), b, max_iter=steps, kernel="serial")
    assert found.nit == steps
    exact = fastrsx.Problem(A, b).hess(found.x)
    np.testing.assert_allclose(found.hess, exact, rtol=0, atol=2e-8 * np.abs(exact).max())
    np.testing.assert_allclose(
        found.jac, fastrsx.Problem(A, b).grad(found.x), rtol=0, atol=1e-11 * np.abs(fastrsx.Problem(A, b).grad(np.zeros(5))).max()
    )


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray], ids="CF")
def test_a_verdict_is_given_by_exact_weights(at_any_size, monkeypatch, layout):
    """With predictions spoilt, a solve takes more steps, and ends where it did."""
    A, b, _ = problem("normal", 6000, 5)
    expected = fastrsx.newton(layout(A), b, kernel="serial")
    monkeypatch.setattr(Passes, "sample", property(lambda passes: ahead.Sample(np.zeros(1, np.int64), np.zeros((5, 1)), np.zeros(1), np.zeros(1))))
    found = fastrsx.newton(layout(A), b, kernel="serial")
    assert found.status == expected.status
    assert found.nhev > expected.nhev
    assert found.fun == pytest.approx(expected.fun, rel=1e-10)
    np.testing.assert_allclose(found.hess, expected.hess, rtol=0, atol=1e-6 * np.abs(expected.hess).max())


def test_events_wait_for_exact_weights():
    """A Hessian with an error above a hundredth of its smallest eigenvalue decides nothing."""
    state = np.zeros(iteration.ITERATION_ROOM)
    s = iteration.as_iteration(state)
    for error, min_eig, certain in ((0.0, -1.0, True), (1e-3, 1.0, True), (1e-3, 1e-2, False), (1e-12, 0.0, False), (1e-12, -1.0, False)):
        s.error, s.min_eig = error, min_eig
        assert iteration.is_certain.py_func(s) == certain


def test_sampled_rows_are_spread_over_all():
    for n in (1, 5, ahead.SAMPLE, ahead.SAMPLE + 1, 10**6):
        rows = ahead.sample_rows(n)
        assert len(rows) == min(n, ahead.SAMPLE)
        assert (np.diff(rows) > 0).all()
        assert 0 <= rows[0] <= rows[-1] < n
    np.testing.assert_array_equal(ahead.sample_rows(ahead.SAMPLE), np.arange(ahead.SAMPLE))


def test_the_plan_says_how_many_reads_a_step_takes():
    large, small = (fastrsx.plan(np.broadcast_to(0.0, (n, 16))) for n in (10**6, 10**3))
    assert "steps in one read" in str(large)
    assert "steps in one read" not in str(small)
