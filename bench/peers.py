"""The peers that we are timed against, each in its own process: the same formulas, as a careful user would write them in other libraries.

OpenBLAS, OpenMP and XLA workers keep spinning after a call; in one process they would slow down the next call.

A peer is a function of (op, A, b, x) that returns a callable; calling it does the work, and returns arrays to check.
"""

import ctypes
import functools
import importlib.util
import multiprocessing
import sysconfig
import time
from pathlib import Path

import numpy as np

import problems


class NumpyProblem:
    """Value, gradient and Hessian by the analytic formulas, shifted by max(0, max a); terms that they share at one x are computed once."""

    def __init__(self, A, b):
        self.A, self.b, self.x = A, b, None

    def at(self, x):
        if self.x is None or not np.array_equal(x, self.x):
            self.x = x.copy()
            a = self.A @ x
            shift = max(0.0, a.max())
            self.e, self.k = np.exp(a - shift), np.exp(-shift)
            u, self.v = self.e + self.k * a, self.e + self.k
            self.alpha = u.sum()
            self.f = u / self.alpha
            self.c = self.f - self.b
            self.s = self.f @ self.c
        return self

    def value(self, x):
        self.at(x)
        return self.c @ self.c if self.alpha > 0 else np.inf

    def grad(self, x):
        self.at(x)
        return self.A.T @ ((2 / self.alpha) * self.v * (self.c - self.s))

    def hess(self, x):
        self.at(x)
        D = (self.v / self.alpha) ** 2 + self.e * (self.c - self.s) / self.alpha
        vA = self.v @ self.A / self.alpha
        qA = (self.v * (self.f + self.c - self.s) - 0.5 * (self.f @ self.f) * self.v) @ self.A / self.alpha
        return 2 * (self.A.T @ (D[:, None] * self.A) - np.outer(vA, qA) - np.outer(qA, vA))


class GroupedNumpyProblem:
    """The same where u is normalised within groups of rows, by np.add.reduceat; each group has its own shift."""

    def __init__(self, A, b, offsets):
        self.A, self.b, self.x = A, b, None
        self.starts, self.sizes = offsets[:-1], np.diff(offsets)

    def over_group(self, y):
        return np.repeat(np.add.reduceat(y, self.starts), self.sizes)

    def at(self, x):
        if self.x is None or not np.array_equal(x, self.x):
            self.x = x.copy()
            a = self.A @ x
            shift = np.repeat(np.maximum(0.0, np.maximum.reduceat(a, self.starts)), self.sizes)
            e, k = np.exp(a - shift), np.exp(-shift)
            u = e + k * a
            alpha = self.over_group(u)
            self.inside = alpha.min() > 0
            self.f, self.v, self.e = u / alpha, (e + k) / alpha, e / alpha
            self.c = self.f - self.b
            self.cs = self.c - self.over_group(self.f * self.c)
        return self

    def value(self, x):
        self.at(x)
        return self.c @ self.c if self.inside else np.inf

    def grad(self, x):
        self.at(x)
        return self.A.T @ (2 * self.v * self.cs)

    def hess(self, x):
        self.at(x)
        D = self.v**2 + self.e * self.cs
        q = self.v * (self.f + self.cs - 0.5 * self.over_group(self.f**2))
        V, Q = (np.add.reduceat(y[:, None] * self.A, self.starts, axis=0) for y in (self.v, q))
        half = V.T @ Q
        return 2 * (self.A.T @ (D[:, None] * self.A) - half - half.T)


def grouped_numpy_peer(op, A, b, x, offsets):
    problem = GroupedNumpyProblem(A, b, offsets)

    def value_grad():
        problem.x = None
        return problem.value(x), problem.grad(x)

    return {"value+grad": value_grad, "trust-exact": lambda: scipy_solve(A, b, "trust-exact", True, problem=problem, gtol=1e-8)}[op]


def grouped_jax_peer(op, A, b, x, offsets):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    count, of_rows = len(offsets) - 1, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    A, b, x, of_rows = (jax.device_put(array) for array in (A, b, x, of_rows))
    within = {"num_segments": count, "indices_are_sorted": True}

    def loss(x, A, b, of_rows):
        a = A @ x
        shift = jax.lax.stop_gradient(jnp.maximum(jax.ops.segment_max(a, of_rows, **within), 0.0))[of_rows]
        u = jnp.exp(a - shift) + jnp.exp(-shift) * a
        alpha = jax.ops.segment_sum(u, of_rows, **within)
        return ((u / alpha[of_rows] - b) ** 2).sum()

    compiled = jax.jit(jax.value_and_grad(loss))
    return {"value+grad": lambda: jax.tree.map(np.asarray, jax.block_until_ready(compiled(x, A, b, of_rows)))}[op]


def weights(b):
    """The weights h of the rows "weighted Gram", of both signs."""
    return b * len(b) - 0.3


def scipy_solve(A, b, method, second_order, problem=None, **options):
    """SciPy's minimize on the analytic derivatives: x, and the (seconds, loss) of each evaluation.

    The loss is of the size 1 / n, too small for SciPy's absolute tolerances, so SciPy gets n times the loss.
    """
    from scipy.optimize import minimize

    problem, n, trace, start = problem or NumpyProblem(A, b), len(b), [], time.perf_counter()

    def value(x):
        value = problem.value(x)
        trace.append((time.perf_counter() - start, float(value)))
        return n * value

    second = {"hess": lambda x: n * problem.hess(x)} if second_order else {}
    result = minimize(value, np.zeros(A.shape[1]), jac=lambda x: n * problem.grad(x), method=method, options=options, **second)
    return result.x, trace


def numpy_peer(op, A, b, x):
    problem = NumpyProblem(A, b)
    out = np.empty(len(A))
    square = np.empty(A.shape) if op == "dgemm" else None

    def value_grad():
        problem.x = None
        return problem.value(x), problem.grad(x)

    def value_grad_hess():
        return *value_grad(), problem.hess(x)

    return {
        "read A": lambda: np.dot(A, x, out=out),
        "dgemm": lambda: np.dot(A, A, out=square),
        "value+grad": value_grad,
        "value+grad+Hessian": value_grad_hess,
        "weighted Gram": lambda: A.T @ (weights(b)[:, None] * A),
        "trust-exact": lambda: scipy_solve(A, b, "trust-exact", True, gtol=1e-8),
        "batch": lambda: np.array([scipy_solve(A[j], b[j], "trust-exact", True, gtol=1e-8)[0] for j in range(problems.LOOPED)]),
        "L-BFGS-B": lambda: scipy_solve(A, b, "L-BFGS-B", False, maxiter=500, maxfun=600, ftol=0, gtol=1e-9),
    }[op]


def openblas_peer(op, A, b, x):
    """dsyrk, which takes no weights."""
    from scipy.linalg.blas import dsyrk

    return {"weighted Gram": lambda: dsyrk(1.0, A.T)}[op]


def mkl_libraries():
    """The MKL library that pip installs; it has no Python module."""
    return list(Path(sysconfig.get_path("data"), "lib").glob("libmkl_rt.so*"))


def mkl_peer(op, A, b, x):
    """dsyrk of pip's MKL, which takes no weights."""
    mkl = ctypes.CDLL(str(mkl_libraries()[0]))
    n, d = A.shape
    C = np.zeros((d, d))
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (A, C)]
    row_major, upper, transposed = 101, 121, 112

    def work():
        mkl.cblas_dsyrk(row_major, upper, transposed, d, n, ctypes.c_double(1.0), pointers[0], d, ctypes.c_double(0.0), pointers[1], d)
        return C

    return {"weighted Gram": work}[op]


def tabmat_peer(op, A, b, x):
    import tabmat

    matrix, h = tabmat.DenseMatrix(A), weights(b)
    return {"weighted Gram": lambda: matrix.sandwich(h)}[op]


def torch_peer(op, A, b, x):
    import torch

    A, b, x = (torch.from_numpy(np.array(array)) for array in (A, b, x))
    x.requires_grad_(True)

    def loss(x):
        a = A @ x
        shift = torch.clamp(a.max(), min=0.0).detach()
        u = torch.exp(a - shift) + torch.exp(-shift) * a
        return ((u / u.sum() - b) ** 2).sum()

    def value_grad():
        x.grad = None
        value = loss(x)
        value.backward()
        return value.item(), x.grad.numpy()

    def lbfgs():
        trace, start, z = [], time.perf_counter(), torch.zeros_like(x, requires_grad=True)
        solver = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")

        def closure():
            solver.zero_grad()
            value = len(b) * loss(z)
            value.backward()
            trace.append((time.perf_counter() - start, value.item() / len(b)))
            return value

        solver.step(closure)
        return z.detach().numpy(), trace

    return {"value+grad": value_grad, "L-BFGS": lbfgs}[op]


def torch_analytic_peer(op, A, b, x):
    """The analytic gradient, in torch operations."""
    import torch

    A, b, x = (torch.from_numpy(np.array(array)) for array in (A, b, x))

    def value_grad():
        a = A @ x
        shift = torch.clamp(a.max(), min=0.0)
        e, k = torch.exp(a - shift), torch.exp(-shift)
        u = e + k * a
        alpha = u.sum()
        f = u / alpha
        c = f - b
        return (c @ c).item(), (A.T @ ((2 / alpha) * (e + k) * (c - f @ c))).numpy()

    return {"value+grad": value_grad}[op]


def jax_peer(op, A, b, x):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    A, b, x = (jax.device_put(array) for array in (A, b, x))

    def loss(x, A, b):
        a = A @ x
        shift = jax.lax.stop_gradient(jnp.maximum(a.max(), 0.0))
        u = jnp.exp(a - shift) + jnp.exp(-shift) * a
        return ((u / u.sum() - b) ** 2).sum()

    def analytic(x, A, b):
        a = A @ x
        shift = jnp.maximum(a.max(), 0.0)
        e, k = jnp.exp(a - shift), jnp.exp(-shift)
        u, v = e + k * a, e + k
        alpha = u.sum()
        f = u / alpha
        c = f - b
        s = f @ c
        D = (v / alpha) ** 2 + e * (c - s) / alpha
        vA, qA = v @ A / alpha, (v * (f + c - s) - 0.5 * (f @ f) * v) @ A / alpha
        hess = 2 * (A.T @ (D[:, None] * A) - jnp.outer(vA, qA) - jnp.outer(qA, vA))
        return c @ c, A.T @ ((2 / alpha) * v * (c - s)), hess

    def autodiff(x, A, b):
        return (*jax.value_and_grad(loss)(x, A, b), jax.hessian(loss)(x, A, b))

    def newton(A, b):
        """A fixed number of full Newton steps; these problems allow that."""
        x = jnp.zeros(A.shape[1])
        for _ in range(problems.BATCH_STEPS):
            _, grad, hess = analytic(x, A, b)
            x = x - jnp.linalg.solve(hess, grad)
        return x

    def batch():
        compiled = jax.jit(jax.vmap(newton))
        return lambda: np.asarray(jax.block_until_ready(compiled(A, b)))

    losses = []  # (time, loss) of each step, one evaluation each

    def scaled(x, args):
        return len(b) * loss(x, *args)

    def reported(x, args):
        value = scaled(x, args)
        jax.debug.callback(lambda value: losses.append((time.perf_counter(), float(value) / len(b))), value)
        return value

    def minimise(function):
        import optimistix

        solver = optimistix.BFGS(rtol=1e-12, atol=1e-12)
        solution = optimistix.minimise(function, solver, jnp.zeros_like(x), args=(A, b), max_steps=500, throw=False)
        return np.asarray(solution.value)

    def bfgs():
        """The first call compiles. It also solves once more to record the losses, since each report to Python delays XLA."""
        if not losses:
            minimise(reported)
            jax.effects_barrier()
            minimise(scaled)
        start = time.perf_counter()
        z = minimise(scaled)
        seconds, steps, first, last = time.perf_counter() - start, len(losses), losses[0][0], losses[-1][0]
        return z, [(seconds * (1 + (steps - 1) * (when - first) / (last - first)) / steps, value) for when, value in losses]

    def jitted(function):
        compiled = jax.jit(function)
        return lambda: jax.tree.map(np.asarray, jax.block_until_ready(compiled(x, A, b)))

    return {
        "value+grad": lambda: jitted(jax.value_and_grad(loss)),
        "value+grad+Hessian": lambda: jitted(analytic),
        "value+grad+Hessian, autodiff": lambda: jitted(autodiff),
        "BFGS": lambda: bfgs,
        "batch": batch,
    }[op]()


PEERS = {  # name: (the peer, the packages it needs)
    "NumPy": (numpy_peer, ["numpy"]),
    "OpenBLAS dsyrk": (openblas_peer, ["scipy"]),
    "MKL dsyrk": (mkl_peer, ["mkl"]),
    "tabmat": (tabmat_peer, ["tabmat"]),
    "torch": (torch_peer, ["torch"]),
    "torch, analytic": (torch_analytic_peer, ["torch"]),
    "JAX": (jax_peer, ["jax", "optimistix"]),
}


GROUPED_PEERS = {"NumPy": grouped_numpy_peer, "JAX": grouped_jax_peer}


def is_installed(package):
    if package == "mkl":
        return bool(mkl_libraries())
    return importlib.util.find_spec(package) is not None


def missing(who):
    """The first package that the peer needs and that is not installed, or None."""
    return next((package for package in PEERS[who][1] if not is_installed(package)), None)


def _serve(connection, who, op, problem, n, d):
    A, b, x = problems.make(problem, n, d)
    work = GROUPED_PEERS[who](op, A, b, x, problems.offsets_of(problem, n)) if problem in problems.GROUPS else PEERS[who][0](op, A, b, x)
    result = None
    while (message := connection.recv()) != "stop":
        if message == "work":
            result = work()
            connection.send(None)
        else:
            connection.send(result)


class Peer:
    """A peer in its own process. Calling it runs its work, at the cost of two messages, 0.05 ms. Use it as a context manager."""

    def __init__(self, who, op, problem, n, d):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=functools.partial(_serve, theirs, who, op, problem, n, d), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self):
        self._connection.send("work")
        self._connection.recv()

    def result(self):
        """What the last call returned."""
        self._connection.send("result")
        return self._connection.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.send("stop")
        self._process.join(5)
        self._process.kill()
