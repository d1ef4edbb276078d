"""`newton_batch` with A on a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU: each problem ends as it does in memory."""

import numpy as np
import pytest
from extensions import softplus
from numba import config

import fastrsx
import gpu
from fastrsx import Status

kernels = gpu.kernels()
from fastrsx.engines import cuda_batch  # noqa: E402  the simulator comes first
from fastrsx.kernels.formulas.links import LINKS, RSX  # noqa: E402
from fastrsx.kernels.gpu import batch as solving  # noqa: E402

cuda = kernels.cuda
only_simulated = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="it counts in the simulator")


def problems(count, n, d, seed=0, spread=1.0):
    rng = np.random.default_rng([count, n, d, seed])
    A = rng.standard_normal((count, n, d))
    a = np.einsum("kij,kj->ki", A, spread * rng.standard_normal((count, d)) / np.sqrt(d))
    b = abs(np.exp(a) + a) * rng.uniform(0.5, 1.5, (count, n))
    return A, b / b.sum(axis=1, keepdims=True)


def there(*arrays):
    return [cuda.to_device(array) for array in arrays]


def assert_same(found, expected):
    """The same ends, and the same points but for rounding."""
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_array_equal(found.nit, expected.nit)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-12, atol=1e-28)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9, atol=1e-12)
    assert found.message == expected.message


def left(A, b, w=None, x0=None, link=RSX):
    """Which problems the GPU leaves to the CPU."""
    given = cuda_batch.as_batch(*there(A, b), w, x0)
    counts = solving.solve_all(link, *given, 1e-10, 100, 0).counts.copy_to_host()
    return counts[:, 0] == solving.LEFT


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "spread"), [(5, 1, 0.5), (20, 2, 2.0), (40, 3, 1.0), (30, 5, 1.0), (40, 8, 0.5)])
def test_each_is_what_the_cpu_finds(n, d, spread, dtype):
    A, b = (array.astype(dtype) for array in problems(9, n, d, spread=spread))
    found = fastrsx.newton_batch(*there(A, b))
    assert type(found.x) is np.ndarray
    assert_same(found, fastrsx.newton_batch(A, b))
    assert not left(A, b).all()


def test_weights_starts_and_the_lanes_of_a_warp():
    """Some lanes for each problem, all for each, and records in the workspace: the same problems, with w and x0."""
    A, b = problems(7, 30, 2, spread=0.5)
    w, x0 = np.random.default_rng(1).uniform(0.0, 0.1, b.shape), np.full((7, 2), 0.05)
    expected = fastrsx.newton_batch(A, b, x0, w=w)
    assert_same(fastrsx.newton_batch(*there(A, b, x0), w=cuda.to_device(w)), expected)
    assert_same(fastrsx.newton_batch(cuda.to_device(A), b, x0, w=w), expected)
    shape, given = solving.Shape(2, 1, True, True), cuda_batch.as_batch(*there(A, b), w, x0)
    for lanes in (solving.WARP // 4, solving.WARP // 2, solving.WARP):
        for is_shared in (True, False):
            solved = solving.solve_all(RSX, *given, 1e-10, 100, 0, shape=shape._replace(lanes=lanes, is_shared=is_shared))
            x, _, counts = (array.copy_to_host() for array in solved)
            stays = counts[:, 0] != solving.LEFT
            assert stays.sum() > 3
            np.testing.assert_array_equal(counts[stays, 1], expected.nit[stays])
            np.testing.assert_allclose(x[stays], expected.x[stays], rtol=1e-9, atol=1e-12)
    assert_same(fastrsx.newton_batch(*there(A, b), w=0.01), fastrsx.newton_batch(A, b, w=0.01))


def test_several_sweeps_over_the_rows():
    """More sums than a lane holds."""
    A, b = problems(3, 60, 12, spread=0.2)
    assert solving.Shape(12, 4, False, True).sums > solving.MOST_SUMS
    assert not left(A, b).all()
    assert_same(fastrsx.newton_batch(*there(A, b)), fastrsx.newton_batch(A, b))


@pytest.mark.parametrize(
    "change", [lambda A: np.repeat(A, 2, axis=1)[:, ::2], lambda A: np.ascontiguousarray(A.transpose(0, 2, 1)).transpose(0, 2, 1)]
)
def test_strides(change):
    A, b = problems(4, 12, 2, spread=0.5)
    array = type(cuda.to_device(A))
    strided = array(change(A)) if config.ENABLE_CUDASIM else change_there(change, A)
    np.testing.assert_array_equal(fastrsx.newton_batch(strided, cuda.to_device(b)).x, fastrsx.newton_batch(*there(A, b)).x)


def change_there(change, A):
    """A view on the GPU with the strides of change(A)."""
    changed = change(A)
    base = changed.base if changed.base is not None else changed
    return cuda.to_device(base).view() if changed is base else cuda.as_cuda_array(_View(cuda.to_device(base), changed))


class _View:
    """The interface of an array on the GPU, with the shape and strides of another."""

    def __init__(self, owner, like):
        self.owner = owner
        self.__cuda_array_interface__ = owner.__cuda_array_interface__ | {"shape": like.shape, "strides": like.strides}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy's numbers, in the simulator
def test_a_failure_does_not_touch_the_others():
    """Each unusual problem has the status of the CPU."""
    A, b = problems(12, 30, 3, spread=0.5)
    good = fastrsx.newton_batch(*there(A, b))
    A[1, 4, 0] = np.nan
    A[2] *= 1e200
    b[3] = 0.0
    b[3, np.argmax(A[3, :, 0])] = 1.0  # a vertex of the hull: no minimiser
    b[4, 0] = np.inf
    A[5, :, 2] = A[5, :, 0] + A[5, :, 1]  # columns that depend on each other
    A[6, :, 1] = 0.0
    A[7] *= 30.0  # far from where the model holds
    b[8] *= 1e9
    b[9] = fastrsx.predict(A[9], [0.1, -0.1, 0.2])  # an exact fit
    A[10] = 1.0
    x0 = np.zeros((12, 3))
    x0[10] = -5.0  # outside the domain
    x0[11, 0] = np.nan
    found, expected = fastrsx.newton_batch(*there(A, b, x0)), fastrsx.newton_batch(A, b, x0)
    assert {Status.CONVERGED, Status.EXACT_FIT, Status.NONFINITE, Status.NO_MINIMISER} <= set(found.status)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.nit, expected.nit)
    assert found.message == expected.message
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.x[0], good.x[0])


def test_steps_that_are_refused_or_meet_the_radius():
    """The trust region at work: without a plane search, which takes three columns, such problems stay on the GPU."""
    A, b = problems(24, 20, 2, spread=3.0)
    found, expected = fastrsx.newton_batch(*there(A, b)), fastrsx.newton_batch(A, b)
    assert_same(found, expected)
    stays = ~left(A, b)
    refused = expected.nfev > expected.nit + 1
    assert (stays & refused).any()
    np.testing.assert_array_equal(found.nfev[stays], expected.nfev[stays])


def test_too_few_steps():
    A, b = problems(3, 20, 2, spread=0.5)
    for max_iter in (0, 1):
        assert_same(fastrsx.newton_batch(*there(A, b), max_iter=max_iter), fastrsx.newton_batch(A, b, max_iter=max_iter))


@pytest.mark.parametrize(
    ("link", "u", "slope"),
    [
        (LINKS["softmax"], np.exp, np.exp),
        (LINKS["linear"], lambda a: a, np.ones_like),
        (softplus.LINK.compiled, lambda a: np.log1p(np.exp(a)), lambda a: 1.0 / (1.0 + np.exp(-a))),
    ],
    ids=["softmax", "linear", "softplus"],
)
def test_other_links(link, u, slope):
    """The kernel takes any link, as that of the CPU does; `newton_batch` has the one of the paper. The loss is L there, and its gradient 0."""
    A, b = problems(6, 20, 2, spread=0.5)
    A += 1.0
    solved = solving.solve_all(link, *cuda_batch.as_batch(*there(A, b), None, np.full((6, 2), 0.1)), 1e-10, 100, 0)
    x, fun, counts = (array.copy_to_host() for array in solved)
    stays = counts[:, 0] == solving.MINIMUM
    assert stays.any() or link is LINKS["linear"]  # whose f does not change with the length of x: the Hessian is singular
    for j in np.flatnonzero(counts[:, 0] != solving.LEFT):
        a = A[j] @ x[j]
        f, v = u(a) / u(a).sum(), slope(a) / u(a).sum()
        c = f - b[j]
        np.testing.assert_allclose(fun[j], c @ c, rtol=1e-12)
        if stays[j]:
            np.testing.assert_allclose(2.0 * A[j].T @ (v * (c - f @ c)), 0.0, atol=1e-7)


@only_simulated
def test_one_launch_solves_all(monkeypatch):
    launches, launch = [], solving.configured
    monkeypatch.setattr(solving, "configured", lambda *args: launches.append(args[0]) or launch(*args))
    A, b = problems(8, 40, 2, spread=0.1)
    assert fastrsx.newton_batch(*there(A, b)).success.all()
    assert len(launches) == 1
    A[3, 0, 0] = np.nan  # three more fetch A, b and x0 of the problem that is left, and one the b of the failure
    fastrsx.newton_batch(*there(A, b))
    assert len(launches) == 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": np.ones((3, 4))}, ValueError, r"A has shape \(3, 4\); it must have 3 axes"),
        ({"A": np.ones((3, 0, 2))}, ValueError, r"A has shape \(3, 0, 2\); none of its 3 axes"),
        ({"A": np.ones((3, 4, 17))}, ValueError, "A has 17 columns, and on a GPU newton_batch solves problems of at most 16"),
        ({"A": np.ones((3, 4, 2), np.int64)}, TypeError, "A has dtype int64 on the GPU"),
        ({"b": np.ones((3, 5))}, ValueError, r"b has shape \(3, 5\); it must have \(3, 4\)"),
        ({"w": -np.eye(3, 4)}, ValueError, "w has -1.0 in problem 0"),
        ({"x0": np.ones((3, 3))}, ValueError, r"x0 has shape \(3, 3\); it must have \(3, 2\)"),
    ],
)
def test_bad_input_is_named(change, error, message):
    given = {"A": np.ones((3, 4, 2)), "b": np.full((3, 4), 0.25), "w": None, "x0": None} | change
    with pytest.raises(error, match=message):
        fastrsx.newton_batch(**{name: value if value is None else cuda.to_device(value) for name, value in given.items()})


def test_a_negative_number_for_w_and_a_list_of_arrays():
    A, b = there(*problems(2, 4, 1))
    with pytest.raises(ValueError, match=r"w has -1\.0 in problem 0"):
        fastrsx.newton_batch(A, b, w=-1.0)
    with pytest.raises(TypeError, match="is on a GPU"):
        fastrsx.newton_batch([A[0], A[1]], b.copy_to_host())


def test_lanes_and_records():
    """Sums end where `first_place` says; a record is odd; problems that fit share a warp."""
    for d in range(1, solving.MOST_COLUMNS + 1):
        shape = solving.shape_of(5, d, False)
        assert shape.stride % 2 == 1
        assert shape.sums >= len(solving.sums_of(d))
    assert solving.shape_of(5, 2, False).lanes == solving.WARP // 4
    assert solving.shape_of(200, 5, False) == solving.Shape(5, solving.WARP, False, True)
    assert not solving.shape_of(5000, 5, False).is_shared
    for lanes in (1, 2, 4, 8, 16, 32):
        for count in (8, 24, 32, 40, 64):
            copies = count // max(1, next(c for c in (count >> s for s in range(7)) if c % 2 or (count // c) == lanes))
            places = {solving.first_place(lane, count, lanes) for lane in range(lanes)}
            assert places == {k * (count // copies) for k in range(copies)}
