"""One pass over A at a time, against one read of A and against peers; all data is larger than the caches."""

import numpy as np
import pytest

import peers
import problems
from fastrsx import Problem

SHAPES = [(1_000_000, 13), (1_000_000, 16), (500_000, 37), (500_000, 64), (300_000, 100), (200_000, 128), (100_000, 256)]
GRAM_SHAPES = [(1_000_000, 16), (1_000_000, 32), (500_000, 64), (300_000, 100), (200_000, 128), (200_000, 200), (30_522, 384), (60_000, 512)]
ODD_COLUMNS = [3, 5, 7, 13, 37, 65, 97, 100, 129, 255, 257]  # none is a multiple of 8
NUMBERS = 30_000_000  # of an A of 240 MB
WIDE_SHAPES = [(20_000, 768), (12_000, 1024), (6_000, 2048)]


def ids(shape):
    return f"{shape[0]}x{shape[1]}"


class At:
    """The kernels at a point of a random problem, and a check of peers' results there."""

    def __init__(self, n, d):
        self.A, self.b, self.x = problems.gaussian(n, d)
        self.problem = Problem(self.A, self.b, kernel="parallel")
        self.passes = self.problem._passes
        self.point = self.passes.project(self.x)
        self.a = self.passes.a
        self.first = self.passes.gradient(self.a, self.point)
        self.shape, self.nbytes = self.A.shape, self.A.nbytes

    def check(self, result):
        """Value and gradient (and Hessian) of a peer, against ours."""
        value, grad, *hess = result
        assert float(value) == pytest.approx(self.point.fun, rel=1e-11)
        np.testing.assert_allclose(grad, self.first.grad, atol=1e-11 * np.abs(self.first.grad).max())
        for found in hess:
            expected = self.passes.hessian(self.a, self.point)[1]
            np.testing.assert_allclose(found, expected, atol=1e-11 * np.abs(expected).max())

    def one_pass(self, op):
        """The pass that `op` names, as a callable."""
        return {
            "value+grad": lambda: self.passes.project_grad(self.x),
            "Newton pass": lambda: self.passes.hessian(self.a, self.point),
            "value": lambda: self.passes.project(self.x),
            "weighted Gram": lambda: self.passes.weighted_gram(self.b),
        }[op]


@pytest.fixture(params=SHAPES, ids=ids)
def at(request):
    return At(*request.param)


# -- one pass against one read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", sorted({*SHAPES, *GRAM_SHAPES}), ids=ids)
def test_read(shape, peer_row):
    """One read of A by OpenBLAS: the yardstick."""
    A, _, x = problems.gaussian(*shape)
    peer_row("NumPy", "read A", "gaussian", *shape, lambda a: np.testing.assert_allclose(a, A @ x, atol=1e-12), nbytes=A.nbytes)


def test_products(at, row):
    row(lambda: at.passes.products(at.x, at.a), "A x", *at.shape, nbytes=at.nbytes)
    np.testing.assert_allclose(at.a, at.A @ at.x, atol=1e-12)


def test_value(at, row, over_read):
    def work():
        return at.passes.project(at.x)

    assert row(work, "value", *at.shape, nbytes=at.nbytes).fun == at.point.fun
    over_read(work, *at.shape)


def test_value_grad(at, row, over_read):
    def work():
        return at.passes.project_grad(at.x)

    point, first = row(work, "value+grad", *at.shape, nbytes=at.nbytes)
    at.check((point.fun, first.grad))
    over_read(work, *at.shape)


@pytest.mark.parametrize("who", ["NumPy", "torch", "torch, analytic", "JAX"])
def test_value_grad_of_peers(at, peer_row, who):
    peer_row(who, "value+grad", "gaussian", *at.shape, at.check, nbytes=at.nbytes)


def test_gradient(at, row):
    """The second pass of value and gradient, near an exact fit."""
    row(lambda: at.passes.gradient(at.a, at.point), "gradient, a known", *at.shape, nbytes=at.nbytes)


def test_hess_vec(at, row, over_read):
    def work():
        return at.passes.hess_vec(at.a, at.point, at.first, at.x)

    row(work, "hess_vec, a known", *at.shape, nbytes=at.nbytes)
    over_read(work, *at.shape)


# -- the Gram matrix --------------------------------------------------------------------------------------------


def gram_costs(n, d):
    """Bytes, and flops as n d^2, for the triangle."""
    return {"nbytes": 8 * n * d, "flops": n * d * d}


@pytest.mark.parametrize("shape", GRAM_SHAPES + WIDE_SHAPES, ids=ids)
def test_weighted_gram(shape, row):
    at = At(*shape)
    h = peers.weights(at.b)
    gram = row(lambda: at.passes.weighted_gram(h), "weighted Gram", *shape, **gram_costs(*shape))
    rows = np.arange(0, len(gram), 37)
    expected = at.A[:, rows].T @ (h[:, None] * at.A)
    np.testing.assert_allclose(gram[rows], expected, atol=1e-11 * np.abs(gram).max())


@pytest.mark.parametrize("who", ["MKL dsyrk", "OpenBLAS dsyrk", "NumPy", "tabmat"])
@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=ids)
def test_gram_of_peers(shape, peer_row, who):
    A, b, _ = problems.gaussian(*shape)
    h = peers.weights(b) if who in ("NumPy", "tabmat") else np.ones(len(b))
    expected = A[:, :4].T @ (h[:, None] * A)

    def check(gram):
        np.testing.assert_allclose(np.triu(gram)[:4], np.triu(expected), atol=1e-11 * np.abs(expected).max())

    peer_row(who, "weighted Gram", "gaussian", *shape, check, rounds=7, warmup=1, **gram_costs(*shape))


@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=ids)
def test_newton_pass(shape, row, in_turns):
    """Gradient, rank-2 vectors and Hessian, a known."""
    at = At(*shape)
    h = peers.weights(at.b)

    def work():
        return at.passes.hessian(at.a, at.point)

    row(work, "Newton pass, a known", *shape, **gram_costs(*shape))
    in_turns("over_gram", lambda: at.passes.weighted_gram(h), work, turns=5, rounds=3)


def test_value_grad_hess(row):
    at = At(500_000, 64)

    def work():
        at.problem._key = None  # forget what is remembered
        return at.problem.value_grad_hess(at.x)

    at.check(row(work, "value+grad+Hessian", *at.shape, **gram_costs(*at.shape)))


@pytest.mark.parametrize(
    ("who", "op", "label"),
    [
        ("NumPy", "value+grad+Hessian", "NumPy"),
        ("JAX", "value+grad+Hessian", "JAX, analytic"),
        ("JAX", "value+grad+Hessian, autodiff", "JAX, autodiff"),
    ],
)
def test_value_grad_hess_of_peers(peer_row, who, op, label):
    at = At(500_000, 64)
    peer_row(who, op, "gaussian", *at.shape, at.check, name="value+grad+Hessian", label=label, rounds=7, warmup=1)


# -- any number of columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", ODD_COLUMNS)
@pytest.mark.parametrize("op", ["value", "value+grad", "weighted Gram"])
def test_any_columns(benchmark, row, in_turns, op, d):
    """The time of a byte of A, or of a useful flop, over that with the next multiple of 8 columns."""
    odd, whole = (At(NUMBERS // columns, columns) for columns in (d, -(-d // 8) * 8))
    costs = [gram_costs(*at.shape) if op == "weighted Gram" else {"nbytes": at.nbytes} for at in (odd, whole)]
    row(odd.one_pass(op), f"{op}, odd", *odd.shape, rounds=7, **costs[0])
    in_turns("over_whole", whole.one_pass(op), odd.one_pass(op), turns=5, rounds=3)
    unit = "flops" if op == "weighted Gram" else "nbytes"
    benchmark.extra_info["over_whole"] *= costs[1][unit] / costs[0][unit]


# -- threads, growth, small problems ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1_000_000, 16), (500_000, 64), (100_000, 256)], ids=ids)
@pytest.mark.parametrize("op", ["value+grad", "Newton pass"])
def test_threads(shape, row, in_turns, on_threads, op):
    """The time of one thread, and its ratio to that of two, timed in turns."""
    at = At(*shape)
    one_pass = at.one_pass(op)

    def on(count):
        on_threads(count)
        one_pass()

    row(lambda: on(1), f"{op} on one thread", *shape, rounds=7)
    in_turns("over_two", lambda: on(2), lambda: on(1), turns=5, rounds=3)


@pytest.mark.parametrize("shape", [(2**k, 64) for k in range(10, 23)] + [(100_000, 2**k) for k in range(2, 11)], ids=ids)
@pytest.mark.parametrize("op", ["value+grad", "Newton pass"])
def test_growth(shape, row, op):
    """How the cost grows as n and d double."""
    at = At(*shape)
    costs = gram_costs(*shape) if op == "Newton pass" else {"nbytes": at.nbytes}
    row(at.one_pass(op), f"growth of {op}", *shape, rounds=7, warmup=1, **costs)


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
@pytest.mark.parametrize("n", [250, 1000, 4000, 16000, 64000])
@pytest.mark.parametrize("d", [4, 16, 64])
def test_crossover(row, n, d, kernel):
    """Where threads begin to pay in a row of launches: SERIAL_BELOW_MS of `fastrsx.planning` cites these rows."""
    A, b, x = problems.gaussian(n, d)
    passes = Problem(A, b, kernel=kernel)._passes
    point = passes.project(x)
    row(lambda: passes.hessian(passes.a, point), "small Newton pass", n, d, who=kernel, rounds=51)
    assert np.isfinite(point.fun)
