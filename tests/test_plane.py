"""The plane search: its derivatives against the naive ones of the three-column problem, and its guarantees."""

import numpy as np
import pytest

import naive
from fastrsx.kernels import dense
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.formulas.records import POINT_ROOM, as_point
from fastrsx.kernels.newton import passes, plane


class Plane:
    """Random images of x, p and the previous point."""

    def __init__(self, n, seed, spread=0.5, weighted=False, link="rsx"):
        self.link = link
        rng = np.random.default_rng([n, seed])
        self.here, self.da, self.before = spread * rng.standard_normal((3, n))
        if link == "linear":
            self.here += 2.0  # alpha > 0
        self.b = rng.dirichlet(np.ones(n))
        self.w = rng.random(n) / n if weighted else np.empty(0)
        self.A = np.column_stack([self.here, self.da, self.here - self.before])
        self.work = dense.alloc_workspace(n, 3, False)
        self.sums = np.empty((len(self.work.sums), passes.PLANE))
        self.a, self.point = np.empty(n), np.zeros(POINT_ROOM)

    @property
    def images(self):
        return passes.Plane(self.here, self.da, self.before)

    def evaluate(self, y, twin=passes.evaluate_plane_serial):
        return twin(LINKS[self.link], self.images, np.asarray(y, float), self.b, self.w, self.a, self.work.sums, self.point)

    def search(self, y, farthest, twin=plane.search_serial):
        y = np.array(y, float)
        self.evaluate(y)
        before, target = as_point(self.point).fun, plane.Target(self.b, self.w)
        twin(LINKS[self.link], self.images, farthest, self.a, target, self.point, y, self.work.sums, self.sums)
        return y, before, as_point(self.point).fun

    def naive(self, y):
        return naive.Naive(self.A, self.b, np.array([1.0, 0, 0]) + y, w=self.w, link=self.link)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("n", [1, 7, 8, 130, 2000])
def test_derivatives_in_the_plane(n, weighted, link):
    data, y = Plane(n, 0, weighted=weighted, link=link), np.array([0.1, 0.5, -0.3])
    ref = data.naive(y)
    fun = data.evaluate(y)
    assert abs(fun - float(ref.value)) <= 1e-13 * float(ref.value_scale)
    np.testing.assert_allclose(data.a, ref.a.astype(float), atol=1e-14)
    assert as_point(data.point).step == pytest.approx(float(abs(ref.a - data.here).max()))
    passes.plane_derivatives_serial(LINKS[data.link], data.images, data.a, data.b, data.w, data.point, data.sums)
    scale, g, H = np.empty(3), np.empty(3), np.empty((3, 3))
    plane.scaled_model(data.sums[0], n, scale, g, H)
    np.testing.assert_allclose(scale, np.sqrt((data.A**2).mean(axis=0)), rtol=1e-12)
    assert (abs(g - (ref.grad / scale).astype(float)) <= 1e-13 * (ref.grad_scale / scale).astype(float)).all()
    outer = np.outer(scale, scale)
    assert (abs(H - (ref.hess / outer).astype(float)) <= 1e-13 * (ref.hess_scale / outer).astype(float)).all()


@pytest.mark.parametrize("seed", range(20))
def test_search_goes_down_to_a_stationary_point_of_the_plane(seed):
    data = Plane(300, seed)
    y, before, after = data.search([0.0, 0.0, 0.0], np.inf)
    ref = data.naive(y)
    assert after <= before
    assert after == pytest.approx(float(ref.value), rel=1e-12)
    np.testing.assert_allclose(data.a, ref.a.astype(float), atol=1e-12)
    hess = ref.hess.astype(float)
    assert np.linalg.eigvalsh(hess)[0] > 0
    grad = ref.grad.astype(float)
    assert grad @ np.linalg.solve(hess, grad) / 2 <= 2 * plane.ENOUGH * (before - after) + 1e-12 * after


@pytest.mark.parametrize("seed", range(10))
def test_search_stays_within_reach(seed):
    data = Plane(300, seed, spread=2.0)
    y0 = np.array([0.0, 1e-3, 0.0])
    farthest = 2 * abs(data.da).max() * 1e-3
    y, before, after = data.search(y0, farthest)
    assert after <= before
    assert abs(data.a - data.here).max() <= farthest * (1 + 1e-12)
    assert after == pytest.approx(float(data.naive(y).value), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 2, 4, 6, 9])
def test_search_goes_on_after_a_trial_outside_the_domain(seed):
    """alpha is near its pole, and the first trial is beyond: a shorter one is within."""
    data, rng = Plane(6, seed, spread=1.0), np.random.default_rng(seed)
    data.here[:] = 0.1 * rng.standard_normal(6) - 0.45
    data.da *= 3.0
    _, before, after = data.search([0.0, 1e-3, 0.0], np.inf)
    assert after < 0.7 * before


def test_directions_that_are_zero_or_the_same_are_no_trouble():
    data = Plane(100, 0)
    data.here[:], data.before[:] = 0.0, -data.da  # x = 0, and the previous step was along p
    _, before, after = data.search([0.0, 0.1, 0.0], np.inf)
    assert after <= before
    assert np.isfinite(data.a).all()


def test_parallel_gives_the_same_bits():
    data, y = Plane(5000, 1, weighted=True), [0.2, 0.7, 0.1]
    found = []
    for twin, derivatives in ((passes.evaluate_plane_serial, passes.plane_derivatives_serial), (passes.evaluate_plane, passes.plane_derivatives)):
        fun = data.evaluate(y, twin)
        derivatives(LINKS[data.link], data.images, data.a, data.b, data.w, data.point, data.sums)
        found.append((fun, data.a.tobytes(), data.point.tobytes(), data.sums[0].tobytes()))
    assert found[0] == found[1]
    searches = [Plane(5000, 2, spread=2.0) for _ in range(2)]
    ends = [data.search([0.0, 1e-2, 0.0], 1.0, twin)[0] for data, twin in zip(searches, (plane.search_serial, plane.search), strict=True)]
    np.testing.assert_array_equal(*ends)
    np.testing.assert_array_equal(searches[0].a, searches[1].a)
