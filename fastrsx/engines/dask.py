"""The steps of a solve on a dask cluster: one round trip for each; where the first trial is refused, another for those that follow."""

import gc
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastrsx.kernels.cpu import ahead
from fastrsx.kernels.formulas import records
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton.passes import PLANE, Plane

from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan, reads_once
from . import replay, tasks
from .chunked import ChunkedPasses
from .contract import Derivatives, Foreseen, Point
from .graphs import NOTHING, Field, NVector, task, task_in_any_case, tree
from .graphs import ClusterError as ClusterError
from .interpreted import advance_of

ROUNDS = 4  # trials in a round trip
RENEWED_EVERY = 8  # steps: then A x is formed anew, and what it came from is forgotten
COLLECTED_FROM = 10_000_000  # rows: see `_forget`; a collection takes 0.1 s, the step of so many rows more


class DaskPasses(ChunkedPasses):
    """What the solver's iteration asks of an engine, over the chunks of a dask array."""

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any) -> None:
        super().__init__(data, b, w, plan, link)
        self._found: tuple[tuple[float, ...], Foreseen | None] = (), None  # what `foresee` has found
        self._call: Any = None  # of `advance`, as it began; and the results of trials since, as far as they are known and used
        self._results: list[replay.Result] = []
        self._played = 0
        self._last: replay.Result | None = None
        self._trial: Any = None  # the n-vector of the last one, and its tasks
        self._iterate: iteration.Iterate | None = None
        self._steps = 0
        self._advance = advance_of(self)

    @staticmethod
    def grouped_version() -> Any:
        """The engine for groups of rows."""
        from .dask_groups import GroupedDaskPasses

        return GroupedDaskPasses

    # -- the trial of a step ----------------------------------------------------------------------------------

    def look_ahead(self, a: NVector, p: Vector, da: NVector, out: NVector) -> Point:
        """Also the derivatives there, on the assumption that the trial is accepted: in the same round trip."""
        self.evaluations += 1
        self._steps += 1
        assert self._iterate is not None
        is_renewed = self._steps % RENEWED_EVERY == 0
        x, step = self._iterate.x.copy(), p.copy()
        parts = [None] * len(self.chunks) if is_renewed else a.parts
        trials = [task(tasks.look, *each, x, step, self.link) for each in zip(self.chunks, self.targets, parts, strict=True)]
        da.parts = out.parts = self._zeros.parts  # the last trial's are not needed while this one is made
        point, sums = self._look_ahead(trials, out, da, True)
        self._ahead = (point, sums) if point.fun < np.inf else None
        self.count += is_renewed
        return point

    @property
    def reads_once(self) -> bool:
        return reads_once(self.shape, self.data.loader.name) and not hasattr(self.data.A._meta, "tocsr")

    @cached_property
    def _samples(self) -> list[Any]:
        """The rows of each chunk that predict a step, drawn once."""
        rows = ahead.sample_rows(self.shape[0])
        rows_of = [part - first for first, part in zip(self.firsts, np.split(rows, np.searchsorted(rows, self.firsts[1:])), strict=True)]
        (samples,) = self._keep([[task(tasks.draw, *each) for each in zip(self.chunks, self.targets, rows_of, strict=True)]])
        return samples

    def foresee(self, a: NVector, here: Point, first: Derivatives, p: Vector, da: NVector, out: NVector) -> tuple[Point, float]:
        """In one round trip, or two where the prediction is not good enough."""
        if (self._steps + 1) % RENEWED_EVERY == 0:
            return self.look_ahead(a, p, da, out), 0.0
        self._steps += 1
        self.count += 1
        self.evaluations += 1
        da.parts = out.parts = self._zeros.parts  # as above
        step, part = p.copy(), min(1.0, ahead.SAMPLE / self.shape[0])
        sums = [task(tasks.fold_sample, *each, step, here.raw, self.link) for each in zip(self._samples, a.parts, strict=True)]
        predicted = task(tasks.predict, sums, here.raw, first.v, first.q, step, part)
        each = zip(self.chunks, self.targets, a.parts, strict=True)
        trials = [task(tasks.read_ahead, *parts, step, predicted, self.link) for parts in each]
        total = tree(tasks.add_ahead, [Field(trial, 2) for trial in trials])
        found, (trials,) = self._compute(task(tasks.finish_ahead, total, predicted, self.targets[0], self.shape[1], self.link), trials)
        self.assign(out, self._pieces(trials, []))
        da.parts = [Field(each, 1) for each in trials]
        if found is None:
            point, sums = self._look_ahead(self._moved(a, da, 1.0), out, None, True)
            self._ahead = (point, sums) if point.fun < np.inf else None
            return point, np.inf
        raw, error, firsts, hess = found
        point = Point(np.array(raw))
        self._found = point.identity, Foreseen(Derivatives(*np.array(firsts)), np.array(hess), error)
        return point, error

    def foreseen(self, point: Point) -> Foreseen | None:
        (identity, found), self._found = self._found, ((), None)
        return found if found is not None and identity == point.identity and found.error < np.inf else None

    def _forget(self) -> None:
        """Let go of what the steps before have left: A x before the step is A x less what the step has changed."""
        assert self._iterate is not None
        here, ahead, before = (self._iterate.a[k] for k in _in_turn(self._iterate))
        before.parts, ahead.parts = [part._replace(place="before") for part in here.parts], self._zeros.parts
        before.beside = ahead.beside = []
        if self.shape[0] >= COLLECTED_FROM:  # a scheduler in this process, as LocalCluster's, keeps graphs, and so n-vectors, in cycles
            gc.collect()

    # -- the solver's iteration -------------------------------------------------------------------------------

    def workspace(self, hessian: bool = True) -> Any:
        """The part of a workspace that `advance` reads."""
        return SimpleNamespace(link=self.link, a=self.empty(), point=np.zeros(records.POINT_ROOM), sums=None)

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        *a, da = (self.empty() for _ in range(4))
        self._iterate = iteration.alloc_iterate.py_func(0, self.shape[1], False)._replace(a=a, da=da, plane_sums=np.empty((1, PLANE)))
        return self._iterate

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`, interpreted: it handles scalars, and a few losses are a round trip."""
        assert self._iterate is not None
        before = _in_turn(self._iterate)
        self._call, self._results, self._played, self._last, self._trial = replay.recorded(args, self.shape[0]), [], 0, None, None
        verdict = int(self._advance(*args))
        if self._trial is not None:
            (out, trials), self._trial = self._trial, None  # whose graph holds what it was made from
            trials, beside = self._keep([trials, self._point_of(trials)[1]])
            self.assign(out, self._pieces(trials, beside))
        if _in_turn(self._iterate) != before:
            self._forget()
        return verdict

    def _evaluate_into(self, link: Any, a: NVector, da: Any, t: float, b: Any, w: Any, out: NVector, sums: Any, point: Vector) -> float:
        assert self._iterate is not None
        if da is self._iterate.da:
            return self._tried((float(t),), out, point)
        if self._trial is not None and self._trial[0] is out:
            self._trial = None
        there = self._evaluate(self._moved(a, da, t), out)
        point[:] = there.raw
        return there.fun

    def _evaluate_plane_into(self, link: Any, at: Any, y: Vector, b: Any, w: Any, out: NVector, sums: Any, point: Vector) -> float:
        return self._tried(tuple(y.tolist()), out, point)

    def _plane_derivatives_into(self, link: Any, at: Any, a: NVector, b: Any, w: Any, point: Vector, sums: Matrix) -> None:
        if self._last is None:  # the whole step was taken
            self._last = self._result_of((1.0,))
        assert self._last.sums is not None
        sums[0] = self._last.sums[0]

    def _tried(self, wanted: replay.Wanted, out: NVector, point: Vector) -> float:
        """The loss of a trial; its n-vector is only made where it is used."""
        self._last = self._result_of(wanted)
        self._trial = out, self._attempts(wanted)
        trials = self._trial[1]
        self.assign(out, self._pieces(trials, self._point_of(trials)[1]))
        point[:] = self._last.point
        return float(records.as_point(point).fun)

    def _result_of(self, wanted: replay.Wanted) -> replay.Result:
        """The result of a trial; where it is not known, also of those that the iteration will ask for after it, in the same round trip."""
        result = self._results[self._played] if self._played < len(self._results) else None
        if result is None or result.wanted != wanted:
            del self._results[self._played :]
            self._try(wanted)
            result = self._results[self._played]
        self._played += 1
        return result

    def _try(self, wanted: Any) -> None:
        """The results of a trial and of those after it; and where these are the step, the derivatives at its end."""
        call, known = task(tasks.whole, self._call), list(self._results)
        rounds: list[Any] = []
        for _ in range(ROUNDS):
            trials = self._attempts(wanted)
            point, beside = self._point_of(trials)
            sums = self._plane_sums(self._plane(), self._pieces(trials, beside), point)
            rounds.append(task(replay.result, wanted, point, sums))
            wanted = task(replay.next_trial, call, [*known, *rounds])
        found = task_in_any_case(replay.found, rounds)
        trials = self._attempts(task(replay.last_trial, call, known, found))
        point, beside = self._point_of(trials)
        ended = task(tasks.together, point, self._differentiated(self._pieces(trials, beside), point, True))
        found, ended = self._compute(task_in_any_case(tasks.together, found, ended))[0]
        self._results += [replay.Result(tuple(each.wanted), np.array(each.point), each.sums) for each in found]
        if ended is not NOTHING:
            self.count += 1
            self._ahead = Point(np.array(ended[0])), ended[1]

    def _plane(self) -> Plane:
        assert self._iterate is not None
        now, _, before = _in_turn(self._iterate)
        return Plane(self._iterate.a[now], self._iterate.da, self._iterate.a[before])

    def _attempts(self, wanted: Any) -> list[Any]:
        each = zip(self.targets, *(vector.parts for vector in self._plane()), strict=True)
        return [task(replay.attempt, *parts, wanted, self.link) for parts in each]

    def _plane_sums(self, at: Any, a: NVector, point: Any) -> Any:
        """The sums of `plane_derivatives` at a, a task."""
        each = zip(at.here.parts, at.da.parts, at.before.parts, a.parts, self.targets, strict=True)
        return tree(tasks.add, [task(tasks.plane_sums, *parts, point, self.link) for parts in each])


def _in_turn(it: iteration.Iterate) -> tuple[int, int, int]:
    """The numbers of A x at the point, at the trial and before."""
    now = int(it.state.view(iteration.ITERATION)["now"][0])
    ahead = iteration.after.py_func(now)
    return now, ahead, iteration.after.py_func(ahead)
