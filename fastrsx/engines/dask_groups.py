"""Many softmaxes over one x, on a dask cluster: groups within a chunk are as in memory, and what chunks have of other groups comes together.

The numbers of groups stay with the chunks; only those of groups that lie in several chunks travel, for they are what chunks wait for.
"""

from typing import Any

import numpy as np

from fastrsx.kernels.newton import iteration

from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan
from . import chunk_groups, tasks
from .contract import LARGEST_LOG, Derivatives, Point
from .dask import DaskPasses
from .graphs import Field, NVector, Pieces, task, tree
from .groups import GroupedDerivatives
from .memory import EMPTY


class GroupsPoint(Point):
    """A point whose groups are with the chunks, and come here when they are asked for."""

    __slots__ = ("_beside", "_engine", "_logs")

    def __init__(self, raw: np.ndarray, engine: "GroupedDaskPasses", beside: list[Any]) -> None:
        super().__init__(raw)
        self._engine, self._beside = engine, beside
        self._logs = EMPTY

    @property
    def log_alpha(self) -> Vector:  # type: ignore[override]
        """log <u, 1> of each group; NaN outside the domain."""
        if not self._logs.size:
            alpha, shift = self._engine.numbers_of_groups(self._beside).T
            self._logs = np.log(np.where(alpha > 0, alpha, np.nan)) + shift
        return self._logs

    @property
    def alpha(self) -> Vector:  # type: ignore[override]
        """<u, 1> of each group, which may be inf."""
        return np.where(self.log_alpha > LARGEST_LOG, np.inf, np.exp(np.minimum(self.log_alpha, LARGEST_LOG)))

    @property
    def nearest_pole(self) -> int:
        """The group of which alpha cancels most."""
        return int(self.raw[chunk_groups.NUMBER])


class GroupedDaskPasses(DaskPasses):
    """The kernels of `fastrsx.kernels.groups` over the chunks of a dask array; rows of a group lie together.

    `beside` of an n-vector A x are the numbers of its groups: a task for each chunk, and one for groups in several.
    """

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any, offsets: np.ndarray, m: Any, omega: Any) -> None:
        self.offsets, self._m, self._omega = offsets, m, omega
        super().__init__(data, b, w, plan, link)

    @property
    def reads_once(self) -> bool:
        return False

    def _held(self, b: Any, w: Any) -> list[Any]:
        """Also which groups lie in which chunks."""
        offsets, sizes = self.offsets, [size for size in self.data.A.chunks[0] if size]
        rows = [(first, first + size) for first, size in zip(self.firsts, sizes, strict=True)]
        which = [(int(np.searchsorted(offsets, start, "right")) - 1, int(np.searchsorted(offsets, stop))) for start, stop in rows]
        self.which = [slice(*each) for each in which]  # the groups of each chunk
        across = [
            [t for t in sorted({g, h - 1}) if offsets[t] < start or offsets[t + 1] > stop] for (g, h), (start, stop) in zip(which, rows, strict=True)
        ]
        self.ends, counts = np.unique(np.array([t for each in across for t in each], dtype=np.int64), return_counts=True)
        self.counts = counts.tolist()  # in how many chunks each of those groups lies
        self.places = [np.searchsorted(self.ends, each).tolist() for each in across]
        held = []
        each = zip(self.chunks, *(self._split(vector) for vector in (b, w, self._m, self._omega)), which, rows, strict=True)
        for chunk, b_of, w_of, m_of, omega_of, (g, h), (start, stop) in each:
            local = np.clip(offsets[g : h + 1] - start, -1, stop - start + 1)
            held.append(task(chunk_groups.hold, chunk, b_of, w_of, m_of, omega_of, local, g))
        return held

    def numbers_of_groups(self, beside: list[Any]) -> Matrix:
        """alpha^ and M of each group."""
        found = self._computed([task(chunk_groups.logs, target, *at) for target, at in zip(self.targets, self._at(beside), strict=True)])
        numbers = np.empty((len(self.offsets) - 1, 2))
        for groups, part in zip(self.which, found, strict=True):
            numbers[groups] = part
        return numbers

    def _computed(self, jobs: list[Any]) -> Any:
        """The results of tasks."""
        return self._compute(task(tasks.together, *jobs))[0]

    def _sums_of_groups(self, jobs: list[Any]) -> np.ndarray:
        """The sums over chunks of an array of numbers for each group."""
        found = self._computed(jobs)
        sums = np.zeros((len(self.offsets) - 1, *found[0].shape[1:]))
        for groups, part in zip(self.which, found, strict=True):
            sums[groups] += part
        return sums

    # -- b and the weights ------------------------------------------------------------------------------------

    def column_scale(self, names: Names = None) -> Vector:
        """Also refuses such entries of the other weights."""
        scale = super().column_scale(names)
        for name, vector, place in (("multiplicity", self._m, 2), ("residual_weights", self._omega, 3)):
            if vector.size:
                pieces = Pieces(self.shape[0])
                pieces.parts = [Field(target, place) for target in self.targets]
                self._check(name, pieces, self._facts(pieces), 0.0)
        return scale

    @property
    def norm_b(self) -> float:
        """||b|| with the weights of residuals."""
        return float(np.sqrt(self._sum([task(chunk_groups.squares_of_b, target) for target in self.targets])[0]))

    def sums_of_b(self) -> Vector:
        """See `GroupedPasses.sums_of_b`."""
        return self._sums_of_groups([task(chunk_groups.facts_of_b, target) for target in self.targets])[:, 0]

    def live_rows(self) -> Vector:
        """The rows of each group that are not masked."""
        return self._sums_of_groups([task(chunk_groups.facts_of_b, target) for target in self.targets])[:, 1].astype(int)

    # -- the point --------------------------------------------------------------------------------------------

    def _point_of(self, trials: list[Any]) -> tuple[Any, list[Any]]:
        folded = [Field(trial, 2) for trial, places in zip(trials, self.places, strict=True) if places]
        ends = task(chunk_groups.join_ends, folded, self.counts)
        dones = [
            task(chunk_groups.complete, target, trial, ends, places, self.link) if places else trial
            for target, trial, places in zip(self.targets, trials, self.places, strict=True)
        ]
        finished = [self._done(done, places) for done, places in zip(dones, self.places, strict=True)]
        there = task(chunk_groups.finish, finished, ends, self.counts)
        return Field(there, 0), [*dones, there]

    @staticmethod
    def _done(task: Any, places: list[int]) -> Any:
        """The numbers of a chunk: where all its groups are whole, they are in the trial."""
        return task if places else Field(task, 2)

    def _at(self, beside: list[Any]) -> list[tuple[Any, Any, list[int]]]:
        """What the functions of each chunk take of a point."""
        *dones, there = beside
        return [(self._done(done, places), there, places) for done, places in zip(dones, self.places, strict=True)]

    def _in_chunks(self, a: NVector) -> Any:
        """For each chunk: its target, A x, and what is known of the point there."""
        return ((target, part, *at) for target, part, at in zip(self.targets, a.parts, self._at(a.beside), strict=True))

    def _point_at(self, a: NVector, raw: Vector) -> Point:
        return GroupsPoint(np.array(raw), self, a.beside)

    def point_of(self, raw: np.ndarray) -> Point:
        assert self._iterate is not None
        return GroupsPoint(raw, self, self._iterate.a[int(self._iterate.state.view(iteration.ITERATION)["now"][0])].beside)

    # -- sums over rows ---------------------------------------------------------------------------------------

    def _differentiated(self, a: NVector, point: Any, with_gram: bool) -> Any:
        return self._derived(a, "hessian" if with_gram else "gradient")

    def _derived(self, a: NVector, what: str) -> Any:
        jobs = [task(chunk_groups.differentiate, chunk, *each, self.link, what) for chunk, each in zip(self.chunks, self._in_chunks(a), strict=True)]
        return self._merged(chunk_groups.finish_derivatives, jobs)

    def _merged(self, finish: Any, parts: list[Any]) -> Any:
        """The sums over all chunks, with what groups in several of them add."""
        across = [part for part, places in zip(parts, self.places, strict=True) if places]
        return task(finish, tree(chunk_groups.add_parts, parts), across, self.counts)

    def _first_of(self, a: NVector, point: Point, sums: list[Matrix]) -> Any:
        there: Any = Pieces(self.shape[0])  # a may move on
        self.assign(there, a)
        grad, curvature, hess = sums
        return GroupedDerivatives(self, there, point, np.array(grad), float(curvature) if hess.size else np.inf)

    def _hessian_of(self, first: Any, sums: list[Matrix]) -> Matrix:
        return np.array(sums[2])

    def rank_2(self, a: NVector, point: Any) -> Matrix:
        """A^T diag(h) A minus the Hessian."""
        self.count += 1
        return -np.asarray(self._compute(self._derived(a, "rank 2"))[0][2])

    def hess_vec(self, a: NVector, point: Any, first: Derivatives, p: Vector, da: Any = EMPTY) -> Vector:
        self.count += 1
        with_da, p = bool(da.size), np.array(p)
        each = zip(self.chunks, self._in_chunks(a), strict=True)
        jobs = [task(chunk_groups.curvature, chunk, *at, p, self.link, with_da) for chunk, at in each]
        total, (kept,) = self._compute(self._merged(chunk_groups.finish_curvature, jobs), jobs if with_da else [])
        if with_da:
            da.parts = [Field(one, "da") for one in kept]
        return np.array(total)

    def weigh_step(self, a: NVector, point: Any, da: NVector) -> Vector:
        """A^T (h * da)."""
        self.count += 1
        D = [Field(each, "D") for each in self._described(a, "D")]
        return self._sum([task(chunk_groups.weighed, *each, self.link) for each in zip(self.chunks, D, da.parts, strict=True)])[0]

    def _plane_sums(self, at: Any, a: NVector, point: Any) -> Any:
        planes = [list(each) for each in zip(at.here.parts, at.da.parts, at.before.parts, strict=True)]
        jobs = [task(chunk_groups.plane_sums, plane, *each, self.link) for plane, each in zip(planes, self._in_chunks(a), strict=True)]
        return self._merged(chunk_groups.finish_plane, jobs)

    # -- n-vectors --------------------------------------------------------------------------------------------

    def _described(self, a: NVector, wanted: str) -> list[Any]:
        return [task(chunk_groups.describe, *each, self.link, wanted) for each in self._in_chunks(a)]

    def _kept(self, a: NVector, wanted: str) -> list[NVector]:
        (kept,) = self._keep([self._described(a, wanted)])
        found = [self.empty() for _ in wanted]
        for vector, name in zip(found, wanted, strict=True):
            vector.parts = [Field(each, name) for each in kept]
        return found

    def diagonal(self, a: NVector, point: Any) -> NVector:
        return self._kept(a, "D")[0]

    def predictions(self, a: NVector, point: Any) -> tuple[NVector, NVector]:
        f, v = self._kept(a, "fv")
        return f, v

    def rank_2_vectors(self, a: NVector, point: Any) -> tuple[Matrix, Matrix]:
        """A_t^T v/alpha_t and A_t^T q/alpha_t of each group t, groups x d."""
        self.count += 1
        each = zip(self.chunks, self.targets, self._described(a, "fvq"), strict=True)
        found = self._sums_of_groups([task(chunk_groups.rank_2_vectors, *parts) for parts in each])
        return found[:, 0], found[:, 1]

    def centred_factor(self, scale: Vector) -> Matrix:
        """The R of the QR of scaled differences within groups."""
        jobs = [task(chunk_groups.factor, *each, scale) for each in zip(self.chunks, self.targets, strict=True)]
        return np.array(self._compute(task(chunk_groups.join_factors, jobs, self.counts, scale))[0])

    def distance(self, a: NVector, other: NVector, centred: bool) -> float:
        """max |a - other|; centred, after the mean of each group is subtracted."""
        if not centred:
            return super().distance(a, other, centred)
        parts = list(zip(self.targets, a.parts, other.parts, strict=True))
        sums = [task(chunk_groups.end_sums, *each) for each, places in zip(parts, self.places, strict=True) if places]
        sizes = np.diff(self.offsets)[self.ends] * 1.0
        jobs = [task(chunk_groups.largest_centred, *each, sums, places, self.counts, sizes) for each, places in zip(parts, self.places, strict=True)]
        return float(max(self._computed(jobs)))

    # -- the solver's iteration -------------------------------------------------------------------------------

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        it = super().alloc_iterate(exact)
        self._iterate = it._replace(points=np.zeros((3, chunk_groups.NUMBER + 1)))
        return self._iterate

    def workspace(self, hessian: bool = True) -> Any:
        work = super().workspace(hessian)
        work.point = np.zeros(chunk_groups.NUMBER + 1)
        return work
