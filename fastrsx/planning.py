"""Which kernels run, and why. The only file with thresholds."""

from functools import lru_cache
from typing import Any, NamedTuple

from fastrsx.kernels.layouts import registry
from fastrsx.kernels.registers.shapes import REGISTER

from . import inputs
from .grouping import groups_of
from .loading import Data, Loader, as_data, loader_of
from .system import device, threads

# In a row of launches the twins tie at 0.015 ms a pass (bench/RESULTS.md, rows "small Newton pass" at 1000 x 4 and 1000 x 16). But
# OpenMP's first launch after a pause of 20 ms costs 2 to 6 ms, and a solve makes about 20 passes: so 20 times that.
SERIAL_BELOW_MS = 0.3


HESSIANS = ("exact", "sampled", "sampled-only", "matrix-free", "reduced")
SAMPLE_ROWS = 20  # times d: leaves a condition number of about 2.5, ((1 + 20^-1/2)/(1 - 20^-1/2))^2
SAMPLE_PART = 0.02  # of n, where that is more: the Gram matrix of so few costs less than one read of A
# bench/RESULTS.md, rows "newton, auto" and "newton by Hessian": products for a step, and more of them for what takes more steps.
PRODUCTS = {"exact": 1, "sampled": 2.5, "matrix-free": 60}
EXACT_UP_TO = 64  # columns; there a Hessian costs less than two reads of A
# The speed of a dense Gram matrix on one thread, in n d^2 for each ns, by the registers of the CPU (rows "weighted Gram").
PANEL_NS = 1 / {"zmm": 45.0, "ymm": 24.0, "q": 24.0, "xmm": 3.0}[REGISTER]
# What a row costs beside its entries, on one thread, in ns: its weights, with one exponential, in a Newton pass, and in a gradient or a product with
# the Hessian. Measured at 1e5 rows of 1 to 16 columns by AVX-512 and AVX2, on a Zen 4; scaled by the width of registers for those of 128 bit.
NEWTON_ROW_NS, ROW_NS = {"zmm": (5.0, 2.5), "ymm": (5.5, 4.2), "q": (11.0, 8.4), "xmm": (11.0, 8.4)}[REGISTER]
# The same of sparse A (bench/RESULTS.md, rows "value+grad, sparse" and "Hessian, sparse"): an entry in a pass, one that is sorted for a Gram matrix,
# and a product that is added to that.
ENTRY_NS, SORT_NS, UPDATE_NS = 2.5, 8.0, 1.0
SAMPLED_ON_GPU_FROM = 256  # columns: below, a step on a GPU takes as long as its launches, or a Gram matrix one read of A
# Steps in one read: columns up to which the Gram matrix of a refused step costs less than the reads that are spared, in memory and from disk; and
# bytes of A from which it is not in a cache, where a read costs little (rows "newton, one read").
READ_ONCE_UP_TO, READ_ONCE_IN_PARTS_UP_TO, READ_ONCE_FROM = 64, 128, 2**26
# Loaders of an A on a GPU, and of one that is not a dense array in memory.
ON_GPU = ("device", "device copy", "device sparse")
NOT_IN_MEMORY = ("stream", "sparse", "sparse copy", "dask", *ON_GPU)
PAYS = 1.25  # the ratio of costs for which to leave the exact Hessian, or that of the reduced problem
# Rows of a wide A: beyond, a step of the reduced problem takes 5 s or more and its six matrices 0.8 GB. Below, with weights, it is 2.6 times as fast
# as products alone (rows "newton, wide"); where columns are correlated, these end after 100 steps without the minimum.
REDUCED_UP_TO = 4096


class Plan(NamedTuple):
    """What would run for n x d data; prints as one line.

    Attributes
    ----------
    kernel : {"parallel", "serial", "cuda"}
        The twin of each kernel that runs; the first two give the same bits. "cuda": those for a GPU.
    hessian : {"exact", "sampled", "sampled-only", "matrix-free", "reduced"}
        What Newton steps are computed from.
    threads : int
        Threads of the CPU that the kernels use.
    loader : {"in place", "panels", "copy", "stream", "sparse", "sparse copy", "device", "device copy", "device sparse", "dask"}
        How A is read: in place; packed a few rows at a time; converted to C-ordered float64; from disk in chunks; in place, as
        compressed rows; converted to such; on a GPU; copied to one; on one as compressed rows; by dask, in chunks.
    data : str
        The same in words, and why A was converted.
    reason : str
        Why.
    gpu : str
        The GPU and the variant of its kernels; empty for the CPU, and where this process has no GPU.
    """

    kernel: str
    hessian: str
    threads: int
    loader: str
    data: str
    reason: str
    gpu: str = ""

    def on_gpu(self, A: Any) -> "Plan":
        """The same plan, which says what GPU reads A."""
        return self if self.loader not in ON_GPU or device.why_none() else self._replace(gpu=device.variant(A))

    def with_hessian(self, hessian: str, why: str) -> "Plan":
        """The same plan for Newton steps from this Hessian."""
        if hessian == self.hessian and not why:
            return self
        return self._replace(hessian=hessian, reason=f"{self.reason}; {why}" if why else self.reason)

    def by_reads(self, shape: tuple[int, int]) -> "Plan":
        """The same plan, which says where steps take one read of A."""
        if self.hessian != "exact" or not reads_once(shape, self.loader):
            return self
        return self._replace(reason=f"{self.reason}; steps in one read of A")

    def in_groups(self, groups: int | None, gathered: bool) -> "Plan":
        """The same plan, which says that u is normalised within groups of rows."""
        if groups is None:
            return self
        return self._replace(reason=f"{self.reason}; u normalised within {groups} group{'s' * (groups != 1)} of rows{', gathered' * gathered}")

    def in_basis(self, condition: float) -> "Plan":
        """The same plan for steps in an orthonormal basis of the columns, which have that condition."""
        why = f"steps in an orthonormal basis of the columns, as these are nearly dependent (condition {condition:.1e} once scaled)"
        return self._replace(reason=f"{self.reason}; {why}")

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        where = f" on {self.gpu}" * bool(self.gpu) if self.kernel == "cuda" else f" on {self.threads} thread{plural}"
        return f"{self.kernel} kernels{where}, {self.hessian} Hessian, {self.data}: {self.reason}"


class Size(NamedTuple):
    """The numbers that the time of a pass depends on."""

    n: int
    d: int
    entries: int | None = None  # of sparse A

    def gram_ns(self, rows: int) -> float:
        """A rough time of the Gram matrix of some rows of a dense A, on one thread."""
        return rows * self.d**2 * PANEL_NS

    def sparse_gram_ns(self, updates: float) -> float:
        """The same for sparse A, by so many products of two entries of a row."""
        return SORT_NS * (self.entries or 0) + UPDATE_NS * updates

    def exact_gram_ns(self) -> float:
        """The same for all rows, by the cheaper way; where A is sparse, as if its rows had equally many entries."""
        dense = self.gram_ns(self.n)
        if self.entries is None:
            return dense
        return min(dense, self.sparse_gram_ns(self.entries * (self.entries / self.n + 1) / 2))


def size_of(A: Any) -> Size:
    """The size of an array or a sparse matrix."""
    n, d = A.shape
    return Size(n, d, A.nnz if hasattr(A, "nnz") else None)


def pass_ms(size: Size) -> float:
    """A rough time of one Newton pass on one thread, in milliseconds: weights of rows, row sums, Gram matrix (the same rows)."""
    n, d, entries = size
    sums = 0.2 * n * d if entries is None else ENTRY_NS * entries
    return (NEWTON_ROW_NS * n + sums + size.exact_gram_ns()) * 1e-6


def step_cost(size: Size, hessian: str, sample_rows: int) -> float:
    """A rough cost of a step: a gradient, products with A or the Hessian, and a Gram matrix with the factors of its subproblem."""
    n, d, entries = size
    read, sums = (0.65 * n * d, 1.0 * n * d) if entries is None else (ENTRY_NS * entries,) * 2
    model = {
        "exact": sums + size.exact_gram_ns() + 0.037 * d**3,
        "sampled": sample_rows * d + size.gram_ns(sample_rows) + 0.037 * d**3,
        "matrix-free": 0.0,
    }
    return (1 + PRODUCTS[hessian]) * (ROW_NS * n + read) + model[hessian]


def sample_size(n: int, d: int) -> int:
    """How many rows a sampled Hessian draws, unless specified."""
    return max(SAMPLE_ROWS * d, int(SAMPLE_PART * n))


def is_in_parts(loader: str) -> bool:
    """Whether only parts of A are in memory at a time."""
    layout = registry.named(loader)
    return loader == "stream" if layout is None else layout.in_parts


def is_whole(loader: str) -> bool:
    """Whether A is dense and in memory."""
    return loader not in NOT_IN_MEMORY and not is_in_parts(loader)


def reads_once(shape: tuple[int, int], loader: str) -> bool:
    """Whether a step from the exact Hessian takes one read of A, see `fastrsx.kernels.cpu.ahead`."""
    if loader in ON_GPU:
        return False
    n, d = shape
    return d <= READ_ONCE_IN_PARTS_UP_TO if is_in_parts(loader) else d <= READ_ONCE_UP_TO and 8 * n * d >= READ_ONCE_FROM


def choose_hessian(size: Size, hessian: str, sample_rows: int, loader: str = "in place") -> tuple[str, str]:
    """What Newton steps are computed from, and why."""
    n, d, _ = size
    if hessian == "auto" and loader == "device sparse":
        return "matrix-free", "steps by products alone, as A is sparse on a GPU"
    if hessian == "auto" and d <= EXACT_UP_TO:
        return "exact", ""
    whole = is_whole(loader)
    if hessian == "reduced" and not whole:
        raise ValueError("hessian is 'reduced', which is for dense A in memory: pass 'matrix-free', or 'auto'")
    if loader == "dask" and hessian.startswith("sampled"):
        raise ValueError(f"hessian is {hessian!r}, which draws rows of A in memory: pass 'exact', 'matrix-free' or 'auto' with A in chunks of dask")
    if hessian == "reduced" and d <= n:
        raise ValueError(f"hessian is 'reduced', which takes n x n data for n x d, and A is {n} x {d}: pass 'exact', or 'auto'")
    if loader == "device sparse" and hessian not in ("auto", "matrix-free"):
        raise ValueError(f"hessian is {hessian!r}, and A is sparse on a GPU, where no Gram matrix is formed: pass 'matrix-free', or A.get()")
    if hessian != "auto":
        return hessian, f"hessian={hessian!r} was asked for"
    if min(n, d) > REDUCED_UP_TO:
        return "matrix-free", f"steps by products alone, as {min(n, d)} is more than the {REDUCED_UP_TO} up to which matrices of that size are formed"
    if is_in_parts(loader) or loader == "dask":
        return ("exact", "") if d <= REDUCED_UP_TO else ("matrix-free", "steps by products alone, as A is in parts")
    if loader in ON_GPU:
        return choose_on_gpu(n, d, sample_rows)
    if d > n and whole:
        return "reduced", f"the loss depends on the {n} numbers A x alone, so steps are taken in at most {n} variables in place of {d}"
    costs = {choice: step_cost(size, choice, sample_rows) for choice in PRODUCTS if choice != "sampled" or 2 * sample_rows <= n}
    best = min(costs, key=lambda choice: costs[choice])
    if costs["exact"] < PAYS * costs[best]:
        return "exact", ""
    why = f"from {sample_rows} rows" if best == "sampled" else "by products alone"
    return best, f"steps {why} should take 1/{costs['exact'] / costs[best]:.1f} of the time of the exact Hessian's"


def choose_on_gpu(n: int, d: int, sample_rows: int) -> tuple[str, str]:
    """The same for a wide A on a GPU, where a Gram matrix is cheaper relative to products than here; by the current GPU's data sheet."""
    if d > n:
        return "matrix-free", "steps by products alone, as A has more columns than rows"
    if d < SAMPLED_ON_GPU_FROM or 2 * sample_rows > n:
        return "exact", ""
    from fastrsx.kernels.gpu import cost  # only here, since a solve in memory imports nothing of a GPU

    costs = cost.steps(n, d, sample_rows, PRODUCTS["sampled"], cost.ceiling_of(device.capability()))
    if costs["exact"] < PAYS * costs["sampled"]:
        return "exact", ""
    return "sampled", f"steps from {sample_rows} rows should take 1/{costs['exact'] / costs['sampled']:.1f} of the time of the exact Hessian's"


def gram_is_sparse(data: Data) -> bool:
    """Whether A^T diag(h) A is cheaper by outer products of sparse rows than by panels."""
    if data.gram_bounds is None:
        return False
    size = size_of(data.A)
    return size.sparse_gram_ns(data.gram_updates) < size.gram_ns(size.n)


def choose(
    size: Size, loader: Loader, kernel: str = "auto", num_threads: int | None = None, hessian: str | None = None, may_read_once: bool = True
) -> Plan:
    """The plan for data of that size, from arguments already checked; without `hessian`, one that takes no Newton steps."""
    if loader.name == "dask" and num_threads is not None:
        raise ValueError(f"num_threads is {num_threads}, and A is in chunks of dask, whose tasks take one thread each: give its workers threads")
    plan = _choose_kernel(size, loader, kernel, threads.in_use() if num_threads is None else num_threads)
    if hessian is None:
        return plan
    plan = plan.with_hessian(*choose_hessian(size, hessian, sample_size(size.n, size.d), loader.name))
    return plan.by_reads(size[:2]) if may_read_once else plan


@lru_cache(maxsize=256)  # for it would be a thirtieth of a small solve
def _choose_kernel(size: Size, loader: Loader, kernel: str, count: int) -> Plan:
    """The plan without Newton steps, on at most so many threads."""
    n, d, _ = size
    work = pass_ms(size)
    what = f"a pass over {n} x {d} is about {work:.2g} ms of work"
    if loader.name in ("device", "device sparse"):
        kernel, count, reason = "cuda", 1, "A is there"
    elif loader.name == "dask":
        kernel, count, reason = "serial", 1, "each chunk is a task of one thread"
    elif kernel != "auto":
        reason = f"kernel={kernel!r} was asked for"
    elif count == 1:
        kernel, reason = "serial", "one thread"
    elif work < SERIAL_BELOW_MS:
        kernel, reason = "serial", f"{what}, less than a launch of threads is worth ({SERIAL_BELOW_MS:g} ms)"
    else:
        kernel, reason = "parallel", what
    return Plan(kernel, "exact", count if kernel == "parallel" else 1, loader.name, str(loader), reason)


def check_kernel(kernel: Any, num_threads: Any, *also: str) -> tuple[str, int | None]:
    """The arguments `kernel` and `num_threads`, checked; `also` are other kernels than those for the CPU."""
    kernel = inputs.as_choice("kernel", kernel, ("auto", "parallel", "serial", *also))
    if num_threads is not None:
        num_threads = inputs.as_count("num_threads", num_threads, 1)
        if num_threads > threads.available():
            raise ValueError(f"num_threads is {num_threads}; this process has {threads.available()} (NUMBA_NUM_THREADS sets it)")
    return kernel, num_threads


def plan(A: Any, b: Any = None, *, groups: Any = None, hessian: str = "auto", kernel: str = "auto", num_threads: int | None = None) -> Plan:
    """What `newton(A, b)` would run, and why; nothing is computed.

    Parameters
    ----------
    A : (n, d) array_like
        The data; only its shape, dtype and layout are read.
    b : (n,) array_like, optional
        Not needed; its shape is checked where given.
    groups : (n,) array_like, optional
        As in `newton`.
    hessian : {"auto", "exact", "sampled", "sampled-only", "matrix-free", "reduced"}, optional
        As in `newton`.
    kernel : {"auto", "parallel", "serial", "cuda"}, optional
        Overrides the choice.
    num_threads : int, optional
        As in `newton`.

    Returns
    -------
    Plan
        A small tuple that prints as one line.

    Raises
    ------
    ValueError, TypeError
        For arguments that `newton` would refuse by shape or dtype.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> print(fastrsx.plan(np.ones((100, 3)), kernel="serial"))
    serial kernels on 1 thread, exact Hessian, A read in place: kernel='serial' was asked for
    """
    kernel, num_threads = check_kernel(kernel, num_threads, "cuda")
    data = as_data(A)
    if b is not None:
        inputs.of_size("b", b, data.shape[0], "one for each row of A")
    hessian = inputs.as_choice("hessian", hessian, ("auto", *HESSIANS))
    loader = loader_of(data, kernel)
    found = None if groups is None else groups_of(groups, data.shape[0], loader.name == "dask")
    several = found is not None and found.count > 1
    chosen = choose(size_of(data), loader, kernel, num_threads, hessian, may_read_once=not several).on_gpu(data)
    return chosen if found is None else chosen.in_groups(found.count, found.order is not None)
