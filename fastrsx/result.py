"""What a solve returns."""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from scipy.optimize import OptimizeResult


class Status(IntEnum):
    """How a solve ended; `sentence` says it in words, and what to do."""

    CONVERGED = 0
    EXACT_FIT = 1
    MAX_ITER = 2
    NO_MINIMISER = 3
    STALLED = 4
    NONFINITE = 5
    CALLBACK_STOP = 6

    @property
    def success(self) -> bool:
        """Whether x is a second-order point: the gradient is small and the Hessian is not negative."""
        return self in (Status.CONVERGED, Status.EXACT_FIT)

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "Converged to a minimum: the last step was negligible and the Hessian is not negative.",
    Status.EXACT_FIT: "f(x) equals b to rounding: an exact fit, so a global minimum.",
    Status.MAX_ITER: "Stopped after max_iter steps; raise max_iter, or start again from x.",
    Status.NO_MINIMISER: "The infimum is not attained.",
    Status.STALLED: "Stalled.",
    Status.NONFINITE: "A x or the loss is not finite at x0; start nearer 0, where it always is.",
    Status.CALLBACK_STOP: "Stopped by the callback.",
}


SUM_TOL = 1e-8  # of b's sum from 1, to which f sums
HEADER = f"{'iter':>4} {'loss':>18} {'|grad|':>9} {'decrement':>9} {'radius':>8} {'alpha':>9} {'min eig':>9} {'step':>9} {'ms':>9}"


class Record(NamedTuple):
    """One accepted step; norms and eigenvalues are in columns of A scaled to unit RMS.

    Attributes
    ----------
    fun, grad_norm, alpha, min_eig
        The loss, the norm of its gradient, alpha and the smallest eigenvalue of the Hessian where the step begins. min_eig is
        an estimate from above, and close where it is negative; with a sampled Hessian it is that of the sample.
    decrement : float
        The decrease that the quadratic model promised.
    radius : float
        The trust radius.
    step : float
        max |A p| of the step p that was taken.
    seconds : float
        Since the solve began, when the step was reported: a small problem reports up to 16 steps together, unless it has a
        callback or a table to show them one by one.
    """

    fun: float
    grad_norm: float
    decrement: float
    radius: float
    alpha: float
    min_eig: float
    step: float
    seconds: float

    def row(self, iteration: int) -> str:
        """A line of the table under HEADER, which names the columns."""
        return (
            f"{iteration:>4} {self.fun:>18.11e} {self.grad_norm:>9.2e} {self.decrement:>9.2e} {self.radius:>8.2g} {self.alpha:>9.3g} "
            f"{'-' if math.isnan(self.min_eig) else format(self.min_eig, '.1e'):>9} {self.step:>9.2e} {self.seconds * 1e3:>9.2f}"
        )


def _has_nan(value: object) -> bool:
    return isinstance(value, (float, np.ndarray)) and bool(np.isnan(value).any())


class History(list[Record]):
    """The records of a solve, one for each accepted step; `history.column("fun")` is one field of all of them."""

    def column(self, name: str) -> np.ndarray:
        """One field of every record, as an array."""
        return np.array([getattr(record, name) for record in self])

    def __str__(self) -> str:
        return "\n".join([HEADER, *(record.row(i) for i, record in enumerate(self))])


class NewtonResult(OptimizeResult):
    """The result of `newton`: an `OptimizeResult`, so a dict with attributes.

    Attributes
    ----------
    x : (d,) array
        The solution, or the best point found.
    names : tuple of str, or None
        The columns of A, in the order of x, where A is a DataFrame that names them; `table` shows both.
    fun : float
        The loss there.
    jac : (d,) array
        Its gradient there.
    hess : (d, d) array
        Its Hessian there; None where it was not formed (`newton(hessian=)`): `Problem.hess` has it.
    success : bool
        Whether x is a second-order point.
    status : Status
        How the solve ended.
    message : str
        The same in words, with what to do.
    nit : int
        Accepted steps.
    nfev, njev, nhev : int
        Evaluations of the loss (each rejected trial counts), the gradient and the Hessian; those at the returned x included.
    nsampled, nreused, nproducts : int
        Without the exact Hessian: Hessians sampled, steps that reused an older one, and products with the exact Hessian.
    npass : int
        Passes over A.
    kernel : str
        What ran, and why.
    alpha, log_alpha : float
        <u, 1> at x (may be inf), and its logarithm (never inf).
    min_eig : float
        The smallest eigenvalue of the Hessian at x, in columns of A scaled to unit RMS, or in the basis that steps were taken in; its
        sign is the Hessian's own. With a sampled Hessian,
        that of the sample; without one, the result of 60 steps of Lanczos's method at the minimum, NaN elsewhere.
    history : History
        One record for each accepted step.
    """

    def __repr__(self) -> str:
        """The informative fields: not those that are None or NaN."""
        return repr(OptimizeResult({name: value for name, value in self.items() if value is not None and not _has_nan(value)}))

    def summary(self) -> str:
        """One line: how it ended, the loss, and the cost."""
        seconds = f", {self.history[-1].seconds:.3g} s" if self.history else ""  # of the steps
        return (
            f"{Status(self.status).name}: loss {self.fun:.12e} after {self.nit} step{'s' * (self.nit != 1)} ({self.nfev} losses, {self.npass} passes"
            f"{seconds}). {self.message}"
        )

    def table(self, spec: str = ".6g") -> str:
        """A line for each coefficient: the name of its column, or its number, and x as `spec` formats it.

        Examples
        --------
        >>> import numpy as np, fastrsx
        >>> print(fastrsx.newton([[1.0], [0.0]], [0.8, 0.2]).table(".3f"))
        x[0]  1.074
        """
        names = self.get("names") or [f"x[{j}]" for j in range(len(self.x))]
        values = [format(value, spec) for value in self.x]
        width, most = max(map(len, names)), max(map(len, values))
        return "\n".join(f"{name:<{width}}  {value:>{most}}" for name, value in zip(names, values, strict=True))
