"""What a solve returns."""

import html
import math
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.special import ndtr, ndtri

from . import inputs, plots
from .inputs import Matrix, Vector


class Status(IntEnum):
    """How a solve ended; ``sentence`` says it in words, and what to do."""

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


KINDS = ("sandwich", "least-squares", "bootstrap")  # of covariances
MOST_SHOWN = 60  # coefficients, in a notebook
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
        ``max |A p|`` of the step p that was taken.
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
    return (isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")) and bool(np.isnan(value).any())


class History(list[Record]):
    """The records of a solve, one for each accepted step; `history.column("fun")` is one field of all of them."""

    def column(self, name: str) -> np.ndarray:
        """One field of every record, as an array."""
        return np.array([getattr(record, name) for record in self])

    def plot(self, ax: Any = None) -> Any:
        """Draw the norm of the gradient and the promised decrease of each step, on a logarithmic scale; needs matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes of pyplot by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ValueError
            Without a step.

        Examples
        --------
        >>> import fastrsx
        >>> from matplotlib.figure import Figure
        >>> result = fastrsx.newton([[1.0], [0.0]], [0.8, 0.2])
        >>> result.history.plot(Figure().subplots()).get_xlabel()
        'step'
        """
        if not self:
            raise ValueError("the history has no step to draw")
        return plots.history(ax, self.column("grad_norm"), self.column("decrement"))

    def __str__(self) -> str:
        return "\n".join([HEADER, *(record.row(i) for i, record in enumerate(self))])


class Inference(NamedTuple):
    """What the covariance says of each coefficient: normal statistics.

    Attributes
    ----------
    std_err, z, p, low, high : (d,) array
        The standard error; x over it; the probability of so large a z where the coefficient is 0; and the interval.
    """

    std_err: Vector
    z: Vector
    p: Vector
    low: Vector
    high: Vector


def inference(x: Vector, cov: Matrix, level: float) -> Inference:
    """The statistics of x at a level such as 0.95."""
    if not 0 < inputs.as_number("level", level) < 1:
        raise ValueError(f"level is {level!r}; it must lie between 0 and 1, such as 0.95")
    std_err = np.sqrt(np.diagonal(cov))
    z = x / std_err
    half = float(ndtri(0.5 + 0.5 * level)) * std_err
    return Inference(std_err, z, 2 * ndtr(-np.abs(z)), x - half, x + half)


class NewtonResult(OptimizeResult):
    """The result of `newton`: an `OptimizeResult`, so a dict with attributes. It keeps A and b alive, for `covariance`; a copy does not.

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
    groups : array, or None
        The labels of groups, in the order of `alpha`.
    alpha, log_alpha : float, or (groups,) array
        <u, 1> at x (may be inf), and its logarithm (never inf); with groups, of each.
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

    def __getstate__(self) -> None:
        """Without the problem: a pickled result is what it shows."""

    def covariance(self, kind: str = "sandwich", *, resamples: int = 200, seed: int = 0) -> np.ndarray:
        """The covariance of x, if the errors of b were drawn again: (d, d).

        With c = r * (f - b), r the weights of residuals, and the rows J_i of df/dx = (1/alpha) (I - f 1^T) diag(v) A:

        - "sandwich": H^-1 (sum 4 c_i^2 J_i J_i^T) H^-1 n/(n - d), H the Hessian. The errors of rows are independent; their variances
          may differ.
        - "least-squares": <c, f - b>/(n - d) (J^T diag(r) J)^-1. The errors have variances in proportion to 1/r too, one for all without r,
          and c is small. As in `scipy.optimize.curve_fit`. With weights w, B J^T diag(r) J B takes the place of the inverse,
          B = (J^T diag(r) J + 1/2 A^T diag(w^2) A)^-1.
        - "bootstrap": of the x of so many solves, each with the signs of c drawn anew (the wild bootstrap). As "sandwich", without
          linearising.

        Where all rows share one softmax, there are no clusters of rows to draw from. b that was divided by its sum has dependent errors, each by
        about 1/n of the others: that counts where few rows carry most of b (docs/theory.md, "Standard errors").

        With T > 1 groups, the errors of groups are independent, and those within a group may depend on each other in any way:

        - "sandwich" is H^-1 (sum g_t g_t^T) H^-1 T/(T - 1) (n - 1)/(n - d), g_t the sum of 2 c_i J_i over the rows of group t.
        - "bootstrap" draws one sign for each group.
        - "least-squares" takes rows to be independent but for the sum of b: n - d is less by 1 for each group whose b sums to 1.

        A group whose errors are drawn says one thing, however many rows it has: T should be large. Of n and T, rows with a multiplicity or
        residual weight of 0 are no part.

        Parameters
        ----------
        kind : {"sandwich", "least-squares", "bootstrap"}, optional
        resamples : int, optional
            Solves of the bootstrap, at least 2.
        seed : int, optional
            Of the bootstrap.

        Returns
        -------
        (d, d) array

        Raises
        ------
        ValueError
            For a result that is no minimum, was pickled, or has A on a GPU or a cluster; with no more rows than columns, or of 2 or more groups no
            more than columns (but for "least-squares"); and where columns have no coefficients of their own.

        Examples
        --------
        >>> import numpy as np, fastrsx
        >>> rng = np.random.default_rng(0)
        >>> A = rng.standard_normal((500, 2))
        >>> b = fastrsx.predict(A, [0.5, -1.0]) + 1e-4 * rng.standard_normal(500)
        >>> result = fastrsx.newton(A, b)
        >>> np.sqrt(np.diagonal(result.covariance())).round(5).tolist()
        [0.00127, 0.00026]
        """
        kind = inputs.as_choice("kind", kind, KINDS)
        resamples, seed = inputs.as_count("resamples", resamples, 2), inputs.as_count("seed", seed, 0)
        if not self.success:
            raise ValueError(f"x has no standard errors: the solve ended as {Status(self.status).name}, not at a minimum")
        covariance = self.__dict__.get("_covariance")  # see `fastrsx.uncertainty`
        if covariance is None:
            raise ValueError("x has no standard errors: this result was copied or loaded, without the A and b that they are computed from")
        return np.asarray(covariance(self.x, kind, resamples, seed))

    def table(self, spec: str = ".6g", *, errors: str | None = None, level: float = 0.95, resamples: int = 200, seed: int = 0) -> str:
        """A line for each coefficient: the name of its column, or its number, and x as `spec` formats it.

        With `errors`, a kind of `covariance`, also its standard error, z = x / error, the probability of so large a z where the coefficient
        is 0, and the interval at `level`.

        Examples
        --------
        >>> import numpy as np, fastrsx
        >>> print(fastrsx.newton([[1.0], [0.0]], [0.8, 0.2]).table(".3f"))
        x[0]  1.074
        >>> rng = np.random.default_rng(0)
        >>> A = rng.standard_normal((500, 2))
        >>> b = fastrsx.predict(A, [0.5, 0.0]) + 1e-4 * rng.standard_normal(500)
        >>> print(fastrsx.newton(A, b).table(".3f", errors="sandwich"))
                   x  std err        z  P>|z|   2.5 %  97.5 %
        x[0]   0.501    0.001  470.568  0.000   0.499   0.503
        x[1]  -0.001    0.001   -0.639  0.523  -0.003   0.002
        """
        columns = self._columns(errors, level, resamples, seed)
        cells = [[title, *(format(value, spec) for value in column)] for title, column in columns.items()]
        rows = list(zip(["", *self._labels], *cells, strict=True))[errors is None :]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            f"{name:<{widths[0]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths[1:], strict=True)) for name, *row in rows
        )

    def plot_fit(self, ax: Any = None) -> Any:
        """Draw b over the fitted f(x), a point for each row of A, or hexagons for more than 20,000; needs matplotlib.

        Both axes are logarithmic where all entries are positive. Points on the line are fitted exactly.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes of pyplot by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ValueError
            For a result that was copied or pickled, or has A on a GPU or a cluster, or an x at which f is not finite.

        Examples
        --------
        >>> import fastrsx
        >>> from matplotlib.figure import Figure
        >>> result = fastrsx.newton([[1.0], [0.0]], [0.8, 0.2])
        >>> result.plot_fit(Figure().subplots()).get_ylabel()
        'b'
        """
        target_and_fit = self.__dict__.get("_target_and_fit")  # see `fastrsx.uncertainty`
        if target_and_fit is None:
            raise ValueError("there is no fit to draw: this result was copied or loaded, without the A and b that it is drawn from")
        b, f = target_and_fit(self.x)
        if not np.isfinite(f).all():
            raise ValueError(f"there is no fit to draw: the solve ended as {Status(self.status).name}, at an x where f is not finite")
        return plots.fit(ax, b, f)

    @property
    def _labels(self) -> list[str]:
        """The names of A's columns, or their numbers."""
        return list(self.get("names") or [f"x[{j}]" for j in range(len(self.x))])

    def _columns(self, errors: str | None, level: float, resamples: int, seed: int) -> dict[str, np.ndarray]:
        """The columns of a table, by their titles."""
        if errors is None:
            return {"x": self.x}
        found = inference(self.x, self.covariance(errors, resamples=resamples, seed=seed), level)
        tail = 50 * (1 - level)
        return {"x": self.x, "std err": found.std_err, "z": found.z, "P>|z|": found.p, f"{tail:g} %": found.low, f"{100 - tail:g} %": found.high}

    def to_frame(self, *, errors: str | None = None, level: float = 0.95, resamples: int = 200, seed: int = 0) -> Any:
        """The numbers of `table` as a pandas DataFrame, one row for each coefficient; needs pandas."""
        import pandas as pd

        return pd.DataFrame(self._columns(errors, level, resamples, seed), index=self._labels)

    def _repr_html_(self) -> str:
        """The summary and the coefficients, for a notebook."""
        shown = list(zip(self._labels, self.x, strict=True))
        rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{value:.6g}</td></tr>" for name, value in shown[:MOST_SHOWN])
        more = f"<p>and {len(shown) - MOST_SHOWN} more</p>" if len(shown) > MOST_SHOWN else ""
        return f"<p>{html.escape(self.summary())}</p><table><tr><th></th><th>x</th></tr>{rows}</table>{more}"
