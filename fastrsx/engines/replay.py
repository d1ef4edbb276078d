"""What an iteration asks for next: it is played again where chunks lie, with the results so far, so that several trials take one round trip."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastrsx.kernels.formulas import records
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton.passes import Plane

from ..inputs import Vector
from .graphs import NOTHING
from .interpreted import advance_of
from .memory import QUIET
from .tasks import Target, Trial

Wanted = tuple[float, ...]  # the t of a trial A x + t A p; or the three numbers of one in the plane


class Result(NamedTuple):
    """The point of a trial, and the sums of `plane_derivatives` there, None outside the domain."""

    wanted: Wanted
    point: Vector
    sums: list[Vector] | None


class _Asked(Exception):  # noqa: N818 - no error
    """The iteration asks for a trial."""


class _Unknown(Exception):  # noqa: N818
    """The iteration asks for something else."""


class Replay:
    """Stands for an engine, and knows some results."""

    def __init__(self, it: Any, results: Sequence[Result]) -> None:
        self.it, self.results = it, list(results)
        self.sums: Any = None  # of the last
        self._advance = advance_of(self)

    def _next(self, wanted: Wanted) -> Result:
        if not self.results:
            raise _Asked(wanted)
        result = self.results.pop(0)
        self.sums = result.sums
        return result

    def _evaluate_into(self, link: Any, a: Any, da: Any, t: float, b: Any, w: Any, out: Any, sums: Any, point: Vector) -> float:
        if da is not self.it.da:
            raise _Unknown
        point[:] = self._next((float(t),)).point
        return float(records.as_point(point).fun)

    def _evaluate_plane_into(self, link: Any, at: Any, y: Vector, b: Any, w: Any, out: Any, sums: Any, point: Vector) -> float:
        point[:] = self._next(tuple(y.tolist())).point
        return float(records.as_point(point).fun)

    def _plane_derivatives_into(self, link: Any, at: Any, a: Any, b: Any, w: Any, point: Vector, sums: Any) -> None:
        if self.sums is None:
            self._next((1.0,))  # the whole step, whose point is known already
        sums[0] = self.sums[0]

    def _unknown(self, *args: Any) -> Any:
        raise _Unknown

    largest = _is_penalised = _spread = _unknown


def recorded(args: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """The arguments of `advance` as they are now, without n-vectors."""
    what, problem, flat_image, it, work, rows = args
    kept = it._replace(**{name: np.array(value) for name, value in it._asdict().items() if isinstance(value, np.ndarray)}, a=None, da=None)
    return what, problem._replace(b=None, w=None), flat_image.size, kept, (work.link, n, len(work.point)), rows.copy()


def next_trial(call: tuple[Any, ...], results: Sequence[Result]) -> Any:
    """The trial that the iteration asks for after these results, if it does."""
    return _played(call, results)[0]


def last_trial(call: tuple[Any, ...], results: Sequence[Result], more: Sequence[Result]) -> Any:
    """The trial that is the step, if these results are all that the iteration asks for."""
    return _played(call, [*results, *more])[1]


@QUIET
def _played(call: tuple[Any, ...], results: Sequence[Result]) -> tuple[Any, Any]:
    """The trial that the iteration asks for after these results, and the one that is its step."""
    what, problem, flat, it, (link, n, room), rows = call
    *a, da, other = (SimpleNamespace(shape=(n,), size=n) for _ in range(5))
    it = it._replace(**{name: np.array(value) for name, value in it._asdict().items() if isinstance(value, np.ndarray)}, a=a, da=da)
    replay = Replay(it, results)
    image, state = SimpleNamespace(shape=(flat,), size=flat), it.state.view(iteration.ITERATION)
    now = int(state["now"][0])
    try:
        replay._advance(what, problem, image, it, SimpleNamespace(link=link, a=other, point=np.zeros(room), sums=None), rows.copy())
    except _Asked as asked:
        return asked.args[0], NOTHING
    except _Unknown:
        return NOTHING, NOTHING
    return NOTHING, results[-1].wanted if state["now"][0] != now else NOTHING


def attempt(target: Target, here: Vector, da: Vector, before: Vector, wanted: Wanted, link: Any) -> Trial:
    """The trial on a chunk."""
    if len(wanted) == 1:
        (t,) = wanted
        return target.trial(link, here, da, t)
    return target.combined(link, Plane(here, da, before), np.array(wanted))


def result(wanted: Wanted, point: Vector, sums: list[Vector] | None) -> Result:
    return Result(wanted, point, sums)


def found(results: Sequence[Any]) -> list[Result]:
    """The results that there are."""
    return [each for each in results if each is not NOTHING]
