"""Newton's method in other variables than x: y, with A x = B y for the B that a problem of its own has in place of A."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..engines.contract import Point
from ..inputs import Matrix, Vector
from ..problem import Problem
from ..result import NewtonResult
from ..verdicts import UNATTAINABLE, back_at_start


class Variables(ABC):
    """The interface of variables y for the solver.

    Parameters
    ----------
    original : Problem
        The one in x.
    x0 : (d,) array or None
        The start.

    Attributes
    ----------
    problem : Problem
        The one in y; its columns need no scaling.
    y0 : array
        The y of x0.
    condition : float
        That of A's scaled columns, where it is the reason for variables y.
    weakest : (d,) array
        In that case, the direction of scaled columns along which A x changes least.
    """

    problem: Problem
    y0: Vector
    condition = 1.0
    weakest: Vector

    def __init__(self, original: Problem, x0: Vector | None) -> None:
        self.original, self.scale = original, original._column_scale
        self.x0 = np.zeros(original.A.shape[1]) if x0 is None else x0

    def _solve_over(self, B: Matrix, kernel: str, num_threads: int | None) -> None:
        original = self.original
        self.problem = Problem(B, original.b, **original._like_this, kernel=kernel, num_threads=num_threads)
        self.problem._column_scale = np.ones(B.shape[1])  # scaled already
        self.problem.names = original.names  # for messages: those of y have none

    def _start_image(self) -> Any:
        """A x0, shortened as the solver does."""
        passes, self.x0 = self.original._passes, self.x0.copy()
        with self.original._running():
            a0 = passes.empty()
            passes.products(self.x0, a0)
            self.original._shorten(self.x0, a0)
        return a0

    @property
    def softmax(self) -> bool:
        """Whether a constant in all entries of A x does not change the loss."""
        return self.original._traits.blind_to_shifts and not self.original.w.size

    def _at(self, x: Vector) -> tuple[Any, Point]:
        """A x and the point there."""
        passes = self.original._passes
        with self.original._running():
            ax = passes.empty()
            passes.products(x, ax)
            return ax, passes.evaluate(ax)

    def _not_above_start(self, result: NewtonResult, ax: Any, point: Point) -> tuple[Any, Point]:
        """A x and the point there, after resetting x to x0 where x has a higher loss; for a success, by more than rounding."""
        start = self._at(self.x0)
        if point.fun <= start[1].fun + (start[1].noise if result.success else 0.0):
            return ax, point
        result.x = self.x0
        result.status, result.message = back_at_start(result.status, result.message, UNATTAINABLE, "The x for it has a higher loss than x0")
        result.success = result.status.success
        return start

    @abstractmethod
    def start(self, y: Vector, a: Vector) -> None:
        """Put the start into y and A x there into a."""

    @abstractmethod
    def direction(self, y: Vector) -> Vector:
        """The direction of scaled columns of A that y stands for."""

    @abstractmethod
    def lift(self, y: Vector) -> Vector:
        """The x that y stands for, of all the nearest to x0 in scaled columns, as is each iterate of `newton` in x."""

    @abstractmethod
    def rewrite(self, result: NewtonResult, a: Vector) -> None:
        """Turn the result in y at a = A x into the one in x."""


class Chained(Variables):
    """The variables of a problem that is itself in other variables."""

    def __init__(self, outer: Variables, inner: Variables) -> None:
        super().__init__(outer.original, outer.x0)
        self.outer, self.inner, self.problem, self.y0 = outer, inner, inner.problem, inner.y0
        self.condition, self.weakest = inner.condition, outer.direction(inner.weakest)

    def start(self, y: Vector, a: Vector) -> None:
        self.inner.start(y, a)

    def direction(self, y: Vector) -> Vector:
        return self.outer.direction(self.inner.direction(y))

    def lift(self, y: Vector) -> Vector:
        return self.outer.lift(self.inner.lift(y))

    def rewrite(self, result: NewtonResult, a: Vector) -> None:
        self.inner.rewrite(result, a)
        self.outer.rewrite(result, a)
