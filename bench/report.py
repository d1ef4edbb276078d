"""From the JSON of a benchmark run to the tables and pictures.

python bench/report.py run.json --readme README.md --results bench --targets CONTRIBUTING.md
"""

import argparse
import json
import statistics
import textwrap
from pathlib import Path

BEGIN, END = "<!-- benchmarks: written by bench/report.py -->", "<!-- end of benchmarks -->"
OURS = "fastrsx"
WHOLE_SHAPES = [(1_000_000, 16), (500_000, 64), (200_000, 128), (100_000, 256)]
PASS_SHAPES = [*WHOLE_SHAPES, (1_000_000, 13), (500_000, 37), (300_000, 100)]
WIDTH = 100  # characters of a line of prose
# The rows that the README shows, and their names there; bench/RESULTS.md has every row.
HEADLINES = {
    ("newton, vocabulary", 30_522, 384): "a solve: word frequencies",
    ("newton", 1_000_000, 13): "a solve: random data",
    ("newton, automobiles", 2_217, 5): "a solve: market shares of cars",
    ("newton_batch", 200, 5): "10000 small solves",
    ("value+grad", 500_000, 37): "value and gradient",
}
REACHED = 1e-6  # above the minimum, relative: a solver that stops farther away has not solved the problem


def duration(seconds):
    """Three digits and a unit."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


class Rows:
    """{(op, n, d): {who: (seconds, extra_info)}} of a run, in the order of the run."""

    def __init__(self, run):
        self.run, self.table = run, {}
        for bench in run["benchmarks"]:
            info = bench["extra_info"]
            self.table.setdefault((info["op"], info["n"], info["d"]), {})[info["who"]] = (info.get("seconds", bench["stats"]["median"]), info)

    def seconds(self, op, n, d, who=OURS):
        return self.table[op, n, d][who][0]

    def info(self, op, n, d, who=OURS):
        return self.table[op, n, d][who][1]

    def over_read(self, op, n, d):
        """Our time over that of one read of A, timed in turns."""
        return self.info(op, n, d)["over_read"]


# -- targets ----------------------------------------------------------------------------------------------------


def by_shape(shapes, ratio, unit="x"):
    """The ratio for each shape (n, d): the text of one cell, and the ratios."""
    ratios = [ratio(n, d) for n, d in shapes]
    return ", ".join(f"{value:.2f}{unit} at {n} x {d}" for (n, d), value in zip(shapes, ratios, strict=True)), ratios


def at_most(limit, cell):
    text, ratios = cell
    return text, f"at most {limit:g}", all(ratio <= limit for ratio in ratios)


def at_least(limit, cell):
    text, ratios = cell
    return text, f"at least {limit:g}", all(ratio >= limit for ratio in ratios)


def targets(rows):
    """For each figure with a target: (its name, what limits it, a function that returns the measurement, the target and whether it was met)."""
    gram = "weighted Gram"

    def faster(op, n, d, *others):
        return min(rows.seconds(op, n, d, who) for who in others) / rows.seconds(op, n, d)

    def gram_over_mkl(n, d):
        return faster(gram, n, d, "MKL dsyrk")

    def roofline(n, d):
        return rows.info(gram, n, d)["roofline"]

    def threads(op):
        return lambda n, d: rows.info(f"{op} on one thread", n, d)["over_two"]

    def over_whole(op):
        """The odd numbers of columns from the least ratio to the largest."""
        ratios = sorted((peers[OURS][1]["over_whole"], key[2]) for key, peers in rows.table.items() if key[0] == f"{op}, odd")
        if not ratios:
            raise KeyError(f"{op}, odd")
        return ", ".join(f"{ratio:.2f}x at {d}" for ratio, d in ratios), [ratio for ratio, _ in ratios]

    def solve(op, n, d):
        return by_shape([(n, d)], lambda n, d: faster(op, n, d, "SciPy trust-exact"))

    def floor(n, d):
        return rows.seconds("newton, vocabulary", n, d) / rows.info("newton, vocabulary", n, d)["floor"]

    def memory(shapes):
        text, used = by_shape(shapes, lambda n, d: rows.info("memory beyond A", n, d)["MB"], " MB")
        allowed = [rows.info("memory beyond A", n, d)["allowed_MB"] for n, d in shapes]
        return text, "6 n-vectors + 64 MB", all(have <= most for have, most in zip(used, allowed, strict=True))

    def call(seconds, limit):
        return duration(seconds), f"at most {duration(limit)}", seconds <= limit

    def process(op, limit):
        return call(rows.seconds(op, 500, 8), limit)

    def one_read(n, d):
        return rows.info("newton, one read", n, d)["over_one"]

    batch = [(200, 5)]
    narrow = [(1_000_000, 16), (1_000_000, 32)]
    wide = [(500_000, 64), (300_000, 100), (200_000, 128), (200_000, 200), (30_522, 384), (60_000, 512)]
    tall, peers = [(1_000_000, 16), (500_000, 64), (100_000, 256)], ("torch", "torch, analytic", "JAX")

    def hessian(who):
        return by_shape([(500_000, 64)], lambda n, d: faster("value+grad+Hessian", n, d, who))

    def layout(op, *names):
        """The worst of these layouts at each shape."""
        return by_shape(tall, lambda n, d: max(rows.info(f"{op}, {name}", n, d)["over_plain"] for name in names))

    def mixed(n, d):
        return max(rows.info(f"weighted Gram, mixed, {dtype}", n, d)["over_double"] for dtype in ("float64", "float32"))

    def sparse(op):
        return by_shape([(1_000_000, 1000)], lambda n, d: 1 / rows.info(f"{op}, sparse", n, d)["over_scipy"])

    def streamed(key):
        return rows.info("newton, streamed", 15_625_000, 64)[key]

    def reads():
        extra = streamed("npass") - streamed("nit")
        return f"{streamed('npass')} for {streamed('nit')} steps", "at most one more than steps", extra <= 1

    def resident():
        peak, limit = streamed("peak") / 1e9, streamed("limit") / 1e9
        return f"{peak:.2f} GB of {streamed('size') / 1e9:.2g} GB", f"at most {limit:.2g} GB", peak <= limit

    def over_sum(n, d):
        return streamed("over_sum")

    def layout_of_vocabulary():
        return by_shape([(30522, 384)], lambda n, d: rows.info("newton, vocabulary, float32", n, d)["over_plain"])

    def wide_over(n, d):
        return faster("newton, wide", n, d, "matrix-free", "SciPy L-BFGS-B on Problem")

    strided, mixed_shapes = ("every second row", "every second column"), [(500_000, 64), (200_000, 128), (100_000, 256), (60_000, 512)]
    by_hessian, large = "newton by Hessian", [(1_000_000, 256), (200_000, 512)]

    def over_exact(n, d):
        return 1 / rows.info(by_hessian, n, d, "sampled")["over_exact"]

    def vocabulary_steps():
        exact, sampled = (rows.info(by_hessian, 30522, 384, who)["steps"] for who in ("exact", "sampled"))
        text = f"{exact[0]} exact; sampled {statistics.median(sampled):g} in the median of {len(sampled)} seeds, {max(sampled)} at most"
        return text, exact + sampled

    def worst_choice():
        grid = {key: peers[OURS][1]["over_best"] for key, peers in rows.table.items() if key[0] == "newton, auto"}
        if not grid:
            raise KeyError("newton, auto")
        (_, n, d), worst = max(grid.items(), key=lambda item: item[1])
        return f"{worst:.2f}x at {n} x {d}, the worst of {len(grid)} shapes", [worst]

    def over_read(op):
        return by_shape(PASS_SHAPES, lambda n, d: rows.over_read(op, n, d))

    def over_gram(n, d):
        return rows.info("Newton pass, a known", n, d)["over_gram"]

    def over_best_of(op, *who):
        return lambda n, d: faster(op, n, d, *who)

    def weights(n, d):
        return rows.info("Newton pass, w > 0", n, d)["over_none"]

    def step_passes(n, d):
        return rows.info(by_hessian, n, d, "sampled")["step_passes"]

    vocabulary, vectors = "newton, vocabulary", [(1_000_000, 16), (500_000, 64), (300_000, 100), (60_000, 512)]
    read_once = "memory: a pass reads A once, and nothing else of its size"
    scalars = "loads of scalars, and packing between tiles"
    hess_pass = "the Gram matrix, and a read of A before it for the value"
    in_lanes = "for each row an exponential, its part of the Gram matrix, and loads from memory"
    halved = "lines of memory of which half is used, then packing"
    compiler = "Numba: a loop over threads is compiled apart, and again into the iteration that holds it"
    return [
        ("value, over one read of A", read_once, lambda: at_most(1.10, over_read("value"))),
        ("value+grad, over one read of A", read_once, lambda: at_most(1.15, over_read("value+grad"))),
        ("hess_vec, over one read of A", read_once, lambda: at_most(1.15, over_read("hess_vec, a known"))),
        (
            "value+grad against the better of torch and JAX",
            "memory: they read A twice",
            lambda: at_least(1.8, by_shape(PASS_SHAPES, over_best_of("value+grad", *peers))),
        ),
        ("weighted Gram up to 64 columns against MKL dsyrk", scalars, lambda: at_least(1.4, by_shape(narrow + wide[:1], gram_over_mkl))),
        ("weighted Gram of 100 to 200 columns against MKL dsyrk", scalars, lambda: at_least(1.1, by_shape(wide[1:4], gram_over_mkl))),
        ("weighted Gram from 384 columns on against MKL dsyrk", scalars, lambda: at_least(0.95, by_shape(wide[4:], gram_over_mkl))),
        (
            "weighted Gram up to 32 columns, part of the roofline",
            "tiles on the diagonal, which compute both of their triangles",
            lambda: at_least(0.85, by_shape(narrow, roofline, "")),
        ),
        ("weighted Gram from 64 columns on, part of the roofline", scalars, lambda: at_least(0.70, by_shape(wide, roofline, ""))),
        (
            "Newton pass, over its weighted Gram",
            "the exponentials and sums of each row",
            lambda: at_most(1.15, by_shape(narrow + wide, over_gram)),
        ),
        ("value+grad+Hessian against NumPy", hess_pass, lambda: at_least(8, hessian("NumPy"))),
        ("value+grad+Hessian against JAX with the same formulas", hess_pass, lambda: at_least(12, hessian("JAX, analytic"))),
        ("value+grad+Hessian against JAX by differentiation", hess_pass, lambda: at_least(28, hessian("JAX, autodiff"))),
        ("newton on the vocabulary against SciPy trust-exact", "see the next row", lambda: at_least(10, solve(vocabulary, 30522, 384))),
        (
            "newton on the vocabulary, over the sum of its passes' rooflines",
            "work between passes: the trust-region subproblem, gathering rows, the search in a plane",
            lambda: at_most(1.6, by_shape([(30522, 384)], floor)),
        ),
        (
            "newton on a small problem against SciPy trust-exact",
            "Python for half of the time: checks, allocations, two calls with thirty arrays",
            lambda: at_least(20, solve("newton", 1000, 8)),
        ),
        (
            "newton_batch of 10000 problems against SciPy trust-exact in a loop",
            in_lanes,
            lambda: at_least(200, by_shape(batch, over_best_of("newton_batch", "SciPy trust-exact, in a loop"))),
        ),
        (
            "newton_batch of 10000 problems against JAX, a vmap of full Newton steps",
            in_lanes,
            lambda: at_least(15, by_shape(batch, over_best_of("newton_batch", "JAX, vmap"))),
        ),
        (
            "newton_batch of 10000 problems, 1 thread over 2",
            "memory, which the threads share",
            lambda: at_least(1.8, by_shape(batch, lambda n, d: rows.info("newton_batch", n, d)["over_two"])),
        ),
        (
            "a kernel called from jitted code, beyond its arithmetic",
            "passing the arrays",
            lambda: call(rows.info("value, called from jitted code", 100, 4)["overhead"], 1.5e-6),
        ),
        ("Problem.value from Python", "Python: checks of x and the call", lambda: call(rows.seconds("Problem.value", 100, 4), 8e-6)),
        (
            "newton at 256 columns, exact Hessian over sampled",
            "memory: a solve from samples makes more passes",
            lambda: at_least(3, by_shape(large[:1], over_exact)),
        ),
        (
            "newton at 512 columns, exact Hessian over sampled",
            "memory: a solve from samples makes more passes",
            lambda: at_least(4, by_shape(large[1:], over_exact)),
        ),
        (
            "a step from a sampled Hessian, in gradients",
            "three passes over A, and the Gram matrix of the rows drawn",
            lambda: at_most(6, by_shape(large, step_passes)),
        ),
        (
            'the choice of "auto", over the better of exact and sampled',
            "a rough model of costs; at 64 columns the two nearly tie",
            lambda: at_most(1.1, worst_choice()),
        ),
        ("steps on the vocabulary", "the loss, which is not convex on about half of the way", lambda: at_most(20, vocabulary_steps())),
        ("value+grad, F-ordered over C-ordered", "packing, with a transposition in registers", lambda: at_most(1.3, layout("value+grad", "F"))),
        ("weighted Gram, F-ordered over C-ordered", "packing, as above", lambda: at_most(1.3, layout("weighted Gram", "F"))),
        ("value+grad, A[::2] or A[:, ::2] over C-ordered", halved, lambda: at_most(1.3, layout("value+grad", *strided))),
        ("weighted Gram, A[::2] or A[:, ::2] over C-ordered", halved, lambda: at_most(1.3, layout("weighted Gram", *strided))),
        (
            "value+grad, float32 over float64",
            "two exponentials for each row, which are float64",
            lambda: at_most(0.65, layout("value+grad", "float32")),
        ),
        ("weighted Gram, float32 over float64", "arithmetic, which is float64", lambda: at_most(1.0, layout("weighted Gram", "float32"))),
        (
            "weighted Gram, mixed precision over float64",
            "packing, which at 64 columns takes as long as the multiplications",
            lambda: at_most(0.6, by_shape(mixed_shapes, mixed)),
        ),
        ("value+grad of sparse A against SciPy and NumPy", "entries read one by one", lambda: at_least(3, sparse("value+grad"))),
        ("Hessian of sparse A against SciPy's Gram matrix", "products of entries added one by one", lambda: at_least(2, sparse("Hessian"))),
        (
            "newton on the vocabulary, float32 over float64",
            "arithmetic, which is float64 either way",
            lambda: at_most(0.9, layout_of_vocabulary()),
        ),
        (
            "newton on 8 GB on disk, speed of a read over that of np.memmap's sum",
            "two cores: while both sum a Hessian, one also copies from the page cache",
            lambda: at_least(0.8, by_shape([(15_625_000, 64)], over_sum)),
        ),
        ("newton on 8 GB on disk, reads of the file", "a read for each step, and one at the start", reads),
        ("newton on 8 GB on disk, resident memory", "chunks that are read ahead, and n-vectors", resident),
        (
            "newton in one read of A a step, against two reads",
            "arithmetic: on AVX2 the Hessian of a row takes longer than its read",
            lambda: at_least(1.5, by_shape([(1_000_000, 16), (4_000_000, 8)], one_read)),
        ),
        ("the same at 64 columns", "the Gram matrix", lambda: at_least(1.2, by_shape([(500_000, 64)], one_read))),
        (
            "newton on two workers of dask, over newton in memory on two threads",
            "a scheduler beside the workers on two cores, and a round trip for each step",
            lambda: at_most(1.3, by_shape([(4_000_000, 64)], lambda n, d: rows.info("newton on two workers of dask", n, d)["over_memory"])),
        ),
        (
            "newton on wide A, reduced to n variables, against the better of products alone and L-BFGS-B",
            "factors of n x n matrices",
            lambda: at_least(1, by_shape([(500, 5_000), (1_000, 20_000)], wide_over)),
        ),
        (
            "Newton pass, with weights w over without",
            "one more number for each row, and its products",
            lambda: at_most(1.03, by_shape(WHOLE_SHAPES, weights)),
        ),
        (
            "weighted Gram of odd d, time of a useful flop over that with the next multiple of 8",
            "columns of the last register that do not count",
            lambda: at_most(1.11, over_whole("weighted Gram")),
        ),
        (
            "value of odd d, time of a byte over that with the next multiple of 8",
            "at few columns an exponential for fewer bytes, then rows that begin within a line of memory",
            lambda: at_most(1.1, over_whole("value")),
        ),
        (
            "value+grad of odd d, time of a byte over that with the next multiple of 8",
            "the same",
            lambda: at_most(1.1, over_whole("value+grad")),
        ),
        ("Newton pass from 64 columns on, 1 thread over 2", "nothing: arithmetic", lambda: at_least(1.8, by_shape(tall[1:], threads("Newton pass")))),
        (
            "Newton pass of 16 columns, 1 thread over 2",
            "memory, which the threads share",
            lambda: at_least(1.4, by_shape(tall[:1], threads("Newton pass"))),
        ),
        ("value+grad, 1 thread over 2", "memory, which the threads share", lambda: at_least(1.7, by_shape(tall, threads("value+grad")))),
        ("memory beyond A", "n-vectors, and a partial sum for each block of rows", lambda: memory(vectors)),
        ("first newton of a machine, serial", "Numba's compiler", lambda: process("first newton, cold, serial", 20)),
        ("first newton of a machine, parallel", compiler, lambda: process("first newton, cold, parallel", 20)),
        ("first newton of a process", "importing Numba, and loading machine code", lambda: process("first newton, cached, parallel", 1)),
        ("import fastrsx, beyond NumPy", "nothing: Numba is imported when it is needed", lambda: process("import fastrsx", 0.05)),
    ]


def figures(rows):
    """For each figure with a target: (its name, what limits it, measured, target, met); the last two are None if its rows did not run."""
    for what, limit, measure in targets(rows):
        try:
            yield what, limit, *measure()
        except KeyError as missing:
            yield what, limit, f"no row {missing}", None, None


def limits_table(rows):
    """The measurements and what limits them, for users."""
    lines = ["| what | measured | what limits it |", "|---|---|---|"]
    return "\n".join(lines + [f"| {what} | {measured} | {limit} |" for what, limit, measured, _, _ in figures(rows)])


def target_table(rows):
    """The targets, and whether the run met them, for contributors."""
    lines = ["| what | target | last run |", "|---|---|---|"]
    for what, _, measured, target, met in figures(rows):
        lines.append(f"| {what} | {target or ''} | {measured if met is None else 'met' if met else '**missed**'} |")
    return "\n".join(lines)


# -- rows -------------------------------------------------------------------------------------------------------


def speed(info):
    """GF/s if flops are known, else GB/s if bytes are, and the fraction of the roofline."""
    for key, unit in (("GFs", "GF/s"), ("GBs", "GB/s")):
        if key in info:
            return f"{info[key]:.0f} {unit}, {info['roofline']:.0%} of roofline"
    if "problems" in info:
        return f"{info['problems']} problems"
    within = f", {duration(info['within'])} to within 1e-6 of the minimum" if "within" in info else ""
    return f"{info['nit']} steps, {info['npass']} passes{within}" if "nit" in info else ""


def headline_table(rows):
    """The README's table: ours against the best of the others that reached the minimum."""
    lines = ["| what | n x d | fastrsx | the best other | its time | ratio |", "|---|---|---|---|---|---|"]
    for (op, n, d), what in HEADLINES.items():
        peers = rows.table.get((op, n, d), {})
        others = {who: seconds for who, (seconds, info) in peers.items() if who != OURS and info.get("reached", 0) <= REACHED}
        if OURS in peers and others:
            ours, who = peers[OURS][0], min(others, key=others.get)
            lines.append(f"| {what} | {n} x {d} | {duration(ours)} | {who} | {duration(others[who])} | {others[who] / ours:.2f}x |")
    return "\n".join(lines)


def full_table(rows):
    lines = ["| what | n x d | who | time | speed | over ours |", "|---|---|---|---|---|---|"]
    for (op, n, d), peers in rows.table.items():
        for who, (seconds, info) in peers.items():
            over = f"{seconds / peers[OURS][0]:.2f}x" if OURS in peers and who != OURS else ""
            reached = f"stopped {info['reached']:.1e} above the minimum" if info.get("reached", 0) > REACHED else ""
            lines.append(f"| {op} | {n} x {d} | {who} | {duration(seconds)} | {speed(info) or reached} | {over} |")
    return "\n".join(lines)


def groups_table(rows):
    """A row for each size of groups and number of columns: a pass, and a solve."""
    lines = [
        "| rows in | columns | value+grad | over one read of A | JAX over ours | newton | steps, reads | SciPy over ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    prefix = "value+grad, "
    for (op, n, d), peers in rows.table.items():
        if "group" not in op or not op.startswith(prefix):
            continue
        sizes = op.removeprefix(prefix)
        ours, info = peers[OURS]
        solves = rows.table[f"newton, {sizes}", n, d]
        solve, of_solve = solves[OURS]
        jax = f"{peers['JAX'][0] / ours:.1f}x" if "JAX" in peers else ""
        scipy = f"{solves['SciPy trust-exact'][0] / solve:.1f}x" if "SciPy trust-exact" in solves else ""
        counts = f"{of_solve['nit']}, {of_solve['npass']}"
        lines.append(f"| {sizes} | {d} | {duration(ours)} | {info['over_read']:.2f} | {jax} | {duration(solve)} | {counts} | {scipy} |")
    return "\n".join(lines)


def machine(rows):
    """The date and machine of the run."""
    info = rows.run["benchmarks"][0]["extra_info"]
    return f"Medians of one run on {rows.run['datetime'][:10]}: {info['cpu']}, {info['threads']} threads"


def headline_caption(rows):
    """The text below the README's table."""
    return (
        f"{machine(rows)}. The ratio is the other's time over ours. Of the others (NumPy and SciPy, torch, JAX), the fastest one that came "
        "to within a millionth of the minimum. [bench/RESULTS.md](bench/RESULTS.md) has every row, and what limits each."
    )


def caption(rows):
    """The machine, versions and ceilings of the run."""
    info = rows.run["benchmarks"][0]["extra_info"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return (
        f"{machine(rows)}, {versions}; one read of A at {info['read_GBs']:.0f} GB/s and dgemm at {info['dgemm_GFs']:.0f} GF/s in the same "
        "session. The ratio is the other's time over ours."
        + rows.run.get("merged", "")  # a note, written by whoever puts rows of another run into the file
    )


def order_effect(rows, others):
    """How far rows moved between two runs, the second in reverse order."""
    moved = [
        others.table[key][who][0] / seconds
        for key, peers in rows.table.items()
        for who, (seconds, _) in peers.items()
        if who in others.table.get(key, {})
    ]
    quartiles = statistics.quantiles(moved, n=4)
    return f"{len(moved)} rows, reversed over straight: quartiles {', '.join(f'{q:.2f}' for q in quartiles)}"


# -- pictures ---------------------------------------------------------------------------------------------------

COLOURS = {OURS: "C3", "MKL dsyrk": "C0", "OpenBLAS dsyrk": "C2", "NumPy": "C7", "tabmat": "C1"}


def picture_roofline(rows, axes):
    """Speed over arithmetic intensity, below the limits of memory and dgemm."""
    info = rows.run["benchmarks"][0]["extra_info"]
    intensity = [2**k for k in range(-1, 8)]
    axes.plot(intensity, [min(i * info["read_GBs"], info["dgemm_GFs"]) for i in intensity], "k-", label="one read of A, dgemm")
    for who, colour in COLOURS.items():
        points = [(d / 8, peers[who][1]["GFs"]) for (op, _, d), peers in rows.table.items() if op == "weighted Gram" and who in peers and d <= 512]
        axes.plot(*zip(*sorted(points), strict=True), "o" if who == OURS else "x", color=colour, label=who)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="d / 8, flops for each byte of A",
        ylabel="GF/s, as n d$^2$ / t",
        title="Gram matrix (dsyrk: without weights)",
    )
    axes.set_xticks(intensity, [f"{i:g}" for i in intensity])
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.legend(fontsize="small")


def picture_accuracy(rows, op, n, d, axes):
    """How far above the minimum each solver was, over time."""
    peers = rows.table[op, n, d]
    least = min(loss for _, info in peers.values() for _, loss in info.get("trace", []))
    for (who, (_, info)), colour in zip(peers.items(), ("C3", "C0", "C1", "C2", "C4"), strict=False):
        best, points = float("inf"), []
        for seconds, loss in info.get("trace", []):
            best = min(best, loss)
            points.append((max(seconds, 1e-2), max(best / least - 1, 1e-12)))
        axes.plot(*zip(*points, strict=True), label=who, color=colour, linewidth=2.5 if who == OURS else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="loss / minimum - 1", title=f"{op}, {n} x {d}")
    axes.legend(fontsize="small")


def picture_growth(rows, axes):
    """Time for each entry of A, as n and as d doubles."""
    for axis, vary, label in ((axes[0], 0, "n, at d = 64"), (axes[1], 1, "d, at n = 100000")):
        for op, marker in (("value+grad", "o-"), ("Newton pass", "s-")):
            points = sorted(
                (key[1 + vary], peers[OURS][0] / (key[1] * key[2]) * 1e9)
                for key, peers in rows.table.items()
                if key[0] == f"growth of {op}" and (key[2] == 64 if vary == 0 else key[1] == 100_000)
            )
            axis.plot(*zip(*points, strict=True), marker, label=op)
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="ns for each entry of A")
        axis.legend(fontsize="small")


def svg_pyplot():
    """pyplot with SVG output; the same figures give the same files."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fastrsx"
    from matplotlib import pyplot

    return pyplot


def draw(rows, folder):
    pyplot = svg_pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 4.2), layout="constrained")
    picture_roofline(rows, axes)
    figure.savefig(folder / "roofline.svg", metadata={"Date": None})
    solves = [("newton, vocabulary", 30522, 384), ("newton", 500_000, 64)]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for solve, axis in zip(solves, axes, strict=True):
        picture_accuracy(rows, *solve, axis)
    figure.savefig(folder / "accuracy.svg", metadata={"Date": None})
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    picture_growth(rows, axes)
    figure.savefig(folder / "growth.svg", metadata={"Date": None})


# -- the command ------------------------------------------------------------------------------------------------


def wrapped(text):
    """Prose in lines of WIDTH; tables, pictures, headings and examples as they are."""
    return "\n".join(
        line if line.startswith(("|", "!", "#", "<", " ")) else textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def between_markers(path, text, begin=BEGIN, end=END):
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n\n{wrapped(text)}\n\n{end}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--readme", type=Path, help="put the headline table between the markers of this file")
    parser.add_argument("--results", type=Path, help="folder: put all tables between the markers of its RESULTS.md, and draw the pictures")
    parser.add_argument("--targets", type=Path, help="put what we aim at between the markers of this file")
    parser.add_argument("--groups", type=Path, help="folder: put the table of groups of rows between their markers of its RESULTS.md")
    parser.add_argument("--reversed", type=Path, help="JSON of a run with --reverse-rows, to say how far rows moved")
    args = parser.parse_args()
    rows = Rows(json.loads(args.json.read_text(encoding="utf-8")))
    headlines = f"{headline_table(rows)}\n\n{headline_caption(rows)}"
    print(headlines)
    if args.reversed:
        print(order_effect(rows, Rows(json.loads(args.reversed.read_text(encoding="utf-8")))))
    if args.readme:
        between_markers(args.readme, headlines)
    if args.results:
        text = f"{caption(rows)}\n\n## What limits it\n\n{limits_table(rows)}\n\n## Every row\n\n{full_table(rows)}"
        between_markers(args.results / "RESULTS.md", text)
        draw(rows, args.results)
    if args.groups:
        text = f"{machine(rows)}, n = 1000000.\n\n{groups_table(rows)}"
        between_markers(args.groups / "RESULTS.md", text, "<!-- groups: written by bench/report.py -->", "<!-- end of groups -->")
    if args.targets:
        between_markers(args.targets, target_table(rows))


if __name__ == "__main__":
    main()
