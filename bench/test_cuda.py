"""Passes over an A on a GPU, against the prediction from its data sheet (kernels/gpu/cost.py) and against CuPy and torch.

Skipped without a GPU. In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) they only show that the rows run, on tiny shapes, with NumPy as the peer.
"""

import importlib.metadata
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numba import config

if config.ENABLE_CUDASIM:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import simulator  # noqa: F401  it adapts the simulator
else:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'fastrsx[cuda]'")
from fastrsx.kernels import cuda as kernels
from fastrsx.kernels.gpu import cost

if kernels.why_unavailable():
    pytest.skip(f"no GPU: {kernels.why_unavailable()}", allow_module_level=True)

cuda = kernels.cuda
SHAPES = [(20, 3)] if config.ENABLE_CUDASIM else [(10_000_000, 64), (1_000_000, 512)]
PARTS = 10  # of the rows; they differ by a factor, so random numbers for one part are enough
PEERS = ["numpy"] if config.ENABLE_CUDASIM else ["cupy", "torch"]
OPS = ("value", "value_grad", "value_grad_hess", "hess_vec", "weighted_gram")
SETTLE = 0.1  # seconds


def card():
    return "simulator" if config.ENABLE_CUDASIM else cuda.get_current_device().name


class At:
    """A random problem on the GPU, and our passes over it; peers use its arrays."""

    def __init__(self, n, d, dtype):
        rng = np.random.default_rng(n + d)
        part = rng.standard_normal((n // PARTS, d)).astype(dtype)
        self.n, self.d, self.itemsize = n, d, part.itemsize
        self.A = cuda.device_array((n, d), dtype)
        for k in range(PARTS):
            self.A[k * len(part) : (k + 1) * len(part)].copy_to_device(part * dtype(0.5 + k / PARTS))
        b = rng.random(n)
        x, p = 0.3 * rng.standard_normal((2, d)) / np.sqrt(d)
        self.b, self.x, self.p, self.w = map(cuda.to_device, (b / b.sum(), x, p, np.empty(0)))
        self.h = cuda.to_device(rng.random(n))
        self.grad, self.hess, self.out = cuda.device_array(d), cuda.device_array((d, d)), cuda.device_array(d)
        self.work = kernels.alloc_workspace(n, d, True)

    def call(self, op):
        """Run one of our passes; returns its outputs, on the GPU."""
        if op == "weighted_gram":
            kernels.weighted_gram(self.A, self.h, self.hess, self.work)
            cuda.synchronize()
            return (self.hess,)
        outputs = {"value": (), "value_grad": (self.grad,), "value_grad_hess": (self.grad, self.hess), "hess_vec": (self.out,)}[op]
        direction = (self.p,) if op == "hess_vec" else ()
        getattr(kernels, op)(self.A, self.x, self.b, self.w, *direction, *outputs, self.work)
        return outputs


def formulas(xp, op, A, x, b, p, h):
    """The same pass as a user of NumPy, CuPy or torch would write it."""
    A = A if A.dtype == x.dtype else xp.asarray(A, dtype=x.dtype)
    if op == "weighted_gram":
        return (A.T @ (h[:, None] * A),)
    a = A @ x
    shift = max(0.0, float(a.max()))
    e, k = xp.exp(a - shift), float(np.exp(-shift))
    u, v = e + k * a, e + k
    alpha = u.sum()
    f = u / alpha
    c = f - b
    fun, s = c @ c, f @ c
    if op == "value":
        float(fun)
        return ()
    v = v / alpha
    grad = 2 * (A.T @ (v * (c - s)))
    if op == "value_grad":
        return (grad,)
    q = v * (f + c - s - 0.5 * (f @ f))
    h = 2 * (v * v + e / alpha * (c - s))
    Av, Aq = A.T @ v, A.T @ q
    if op == "hess_vec":
        return (A.T @ (h * (A @ p)) - 2 * (Av * (Aq @ p) + Aq * (Av @ p)),)
    return grad, A.T @ (h[:, None] * A) - 2 * (Av[:, None] * Aq[None, :] + Aq[:, None] * Av[None, :])


@pytest.fixture(scope="module", params=[(*shape, dtype) for shape in SHAPES for dtype in (np.float64, np.float32)], ids=str)
def at(request):
    return At(*request.param)


@pytest.fixture(scope="module")
def predictions(request):
    """A list to which measured times are added; they are printed beside the predicted ones at the end."""
    rows = []
    yield rows
    lines = [f"\n{card()}", "| pass | n x d | A | predicted | measured |", "|---|---|---|---|---|"]
    for op, n, d, itemsize, predicted, measured in rows:
        expected = f"{predicted * 1e3:.2f} ms" if predicted else "no data sheet"
        lines.append(f"| {op} | {n} x {d} | float{8 * itemsize} | {expected} | {measured * 1e3:.2f} ms |")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n".join(lines))


def timed(benchmark, work, op, at, who, **extra):
    """The median seconds of one row."""
    versions = {name: importlib.metadata.version(name) for name in ("numba", "numpy")}
    benchmark.group = f"{op}, GPU|{at.n}|{at.d}|float{8 * at.itemsize}"
    benchmark.extra_info.update(op=f"{op}, GPU", n=at.n, d=at.d, who=who, card=card(), threads=1, versions=versions, **extra)
    time.sleep(SETTLE)
    benchmark.pedantic(work, rounds=15, warmup_rounds=2)
    return benchmark.stats.stats.median


@pytest.mark.parametrize("op", OPS)
def test_pass(benchmark, at, op, predictions):
    works = cost.passes(at.n, at.d, at.itemsize)[op]
    ceiling = next((ceiling for ceiling in cost.CEILINGS if ceiling.name.split()[0] in card()), None)
    predicted = cost.seconds(works, ceiling) if ceiling else None
    measured = timed(benchmark, lambda: at.call(op), op, at, "fastrsx", predicted=predicted)
    predictions.append((op, at.n, at.d, at.itemsize, predicted, measured))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("peer", PEERS)
def test_peer(benchmark, at, op, peer):
    xp = pytest.importorskip(peer, reason=f"{peer} is not installed")
    arrays = at.A, at.x, at.b, at.p, at.h
    if peer == "torch":
        arrays = [xp.as_tensor(array, device="cuda") for array in arrays]
    elif peer == "numpy":
        arrays = [array.copy_to_host() for array in arrays]
    else:
        arrays = [xp.asarray(array) for array in arrays]

    def work():
        found = formulas(xp, op, *arrays)
        cuda.synchronize()
        return found

    for found, expected in zip(work(), at.call(op), strict=True):
        expected = expected.copy_to_host()
        found = found.get() if peer == "cupy" else found.cpu().numpy() if peer == "torch" else found
        np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    timed(benchmark, work, op, at, peer)
