"""From the JSON of a benchmark run to the tables and pictures.

python bench/report.py run.json --readme README.md --results bench
"""

import argparse
import json
import statistics
from pathlib import Path

BEGIN, END = "<!-- benchmarks: written by bench/report.py -->", "<!-- end of benchmarks -->"
OURS = "fastrsx"
PASS_SHAPES = [(1_000_000, 16), (500_000, 64), (200_000, 128), (100_000, 256)]
# What the README shows; bench/RESULTS.md has every row.
HEADLINES = (
    "newton",
    "newton_batch",
    "newton, automobiles",
    "newton, vocabulary",
    "value+grad",
    "value+grad, sparse",
    "Hessian, sparse",
    "value+grad+Hessian",
    "weighted Gram",
)


def duration(seconds):
    """Three digits and a unit."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


class Rows:
    """{(op, n, d): {who: (seconds, extra_info)}} of a run, in its order."""

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
        """Our time over that of one read of A, taken in turns."""
        return self.info(op, n, d)["over_read"]


# -- targets ----------------------------------------------------------------------------------------------------


def by_shape(shapes, ratio, unit="x"):
    """(n, d): ratio for each shape, as one cell, and the ratios."""
    ratios = [ratio(n, d) for n, d in shapes]
    return ", ".join(f"{value:.2f}{unit} at {n} x {d}" for (n, d), value in zip(shapes, ratios, strict=True)), ratios


def at_most(limit, cell):
    text, ratios = cell
    return text, f"at most {limit:g}", all(ratio <= limit for ratio in ratios)


def at_least(limit, cell):
    text, ratios = cell
    return text, f"at least {limit:g}", all(ratio >= limit for ratio in ratios)


def targets(rows):
    """(what, a function that returns what was measured, the target, and whether it was met) for each target of the suite."""
    gram = "weighted Gram"

    def faster(op, n, d, *others):
        return min(rows.seconds(op, n, d, who) for who in others) / rows.seconds(op, n, d)

    def gram_over_mkl(n, d):
        return faster(gram, n, d, "MKL dsyrk")

    def roofline(n, d):
        return rows.info(gram, n, d)["roofline"]

    def threads(op):
        return lambda n, d: rows.info(f"{op} on one thread", n, d)["over_two"]

    def per_flop(n, d):
        m, e = {5: (1_000_000, 8), 13: (1_000_000, 16), 100: (300_000, 104), 129: (200_000, 136)}[d]
        return rows.seconds(gram, n, d) / (n * d * d) / (rows.seconds(gram, m, e) / (m * e * e))

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

    batch = [(200, 5)]
    narrow = [(1_000_000, 16), (1_000_000, 32)]
    wide = [(500_000, 64), (300_000, 100), (200_000, 128), (200_000, 200), (30_522, 384), (60_000, 512)]
    odd = [(1_000_000, 5), (1_000_000, 13), (300_000, 100), (200_000, 129)]
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
        return f"{streamed('npass')} for {streamed('nit')} steps", "at most 1 more", extra <= 1

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

    return [
        ("value over one read of A", lambda: at_most(1.10, by_shape(PASS_SHAPES, lambda n, d: rows.over_read("value", n, d)))),
        ("value+grad over one read of A", lambda: at_most(1.15, by_shape(PASS_SHAPES, lambda n, d: rows.over_read("value+grad", n, d)))),
        ("hess_vec over one read of A", lambda: at_most(1.15, by_shape(PASS_SHAPES, lambda n, d: rows.over_read("hess_vec, a known", n, d)))),
        (
            "value+grad against the better of torch and JAX",
            lambda: at_least(1.8, by_shape(PASS_SHAPES, lambda n, d: faster("value+grad", n, d, *peers))),
        ),
        ("weighted Gram against MKL dsyrk", lambda: at_least(1.4, by_shape(narrow + wide[:1], gram_over_mkl))),
        ("the same", lambda: at_least(1.1, by_shape(wide[1:4], gram_over_mkl))),
        ("the same", lambda: at_least(0.95, by_shape(wide[4:], gram_over_mkl))),
        ("weighted Gram, part of the roofline", lambda: at_least(0.85, by_shape(narrow, roofline, ""))),
        ("the same", lambda: at_least(0.70, by_shape(wide, roofline, ""))),
        (
            "Newton pass over weighted Gram",
            lambda: at_most(1.15, by_shape(narrow + wide, lambda n, d: rows.info("Newton pass, a known", n, d)["over_gram"])),
        ),
        ("value+grad+Hessian against NumPy", lambda: at_least(8, hessian("NumPy"))),
        ("value+grad+Hessian against JAX, analytic", lambda: at_least(12, hessian("JAX, analytic"))),
        ("value+grad+Hessian against JAX, autodiff", lambda: at_least(28, hessian("JAX, autodiff"))),
        ("newton, vocabulary, against SciPy trust-exact", lambda: at_least(10, solve("newton, vocabulary", 30522, 384))),
        ("the same over the sum of its passes' rooflines", lambda: at_most(1.6, by_shape([(30522, 384)], floor))),
        ("newton, small, against SciPy trust-exact", lambda: at_least(20, solve("newton", 1000, 8))),
        (
            "newton_batch, 10000 problems, against SciPy trust-exact in a loop",
            lambda: at_least(200, by_shape(batch, lambda n, d: faster("newton_batch", n, d, "SciPy trust-exact, in a loop"))),
        ),
        (
            "the same against JAX, a vmap of full Newton steps",
            lambda: at_least(15, by_shape(batch, lambda n, d: faster("newton_batch", n, d, "JAX, vmap"))),
        ),
        ("the same, 2 threads over 1", lambda: at_least(1.8, by_shape(batch, lambda n, d: rows.info("newton_batch", n, d)["over_two"]))),
        (
            "a kernel called from jitted code, beyond its arithmetic",
            lambda: call(rows.info("value, called from jitted code", 100, 4)["overhead"], 1.5e-6),
        ),
        ("Problem.value from Python", lambda: call(rows.seconds("Problem.value", 100, 4), 8e-6)),
        ("newton, exact over sampled Hessian", lambda: at_least(3, by_shape(large[:1], over_exact))),
        ("the same", lambda: at_least(4, by_shape(large[1:], over_exact))),
        (
            "a step from a sampled Hessian, in gradients",
            lambda: at_most(6, by_shape(large, lambda n, d: rows.info(by_hessian, n, d, "sampled")["step_passes"])),
        ),
        ('the choice of "auto" over the better of exact and sampled', lambda: at_most(1.1, worst_choice())),
        ("steps on the vocabulary", lambda: at_most(20, vocabulary_steps())),
        ("value+grad, F-ordered over C-ordered", lambda: at_most(1.3, layout("value+grad", "F"))),
        ("weighted Gram, the same", lambda: at_most(1.3, layout("weighted Gram", "F"))),
        ("value+grad, A[::2] or A[:, ::2] over C-ordered", lambda: at_most(1.3, layout("value+grad", *strided))),
        ("weighted Gram, the same", lambda: at_most(1.3, layout("weighted Gram", *strided))),
        ("value+grad, float32 over float64", lambda: at_most(0.65, layout("value+grad", "float32"))),
        ("weighted Gram, the same", lambda: at_most(1.0, layout("weighted Gram", "float32"))),
        ("weighted Gram in mixed precision over float64", lambda: at_most(0.6, by_shape(mixed_shapes, mixed))),
        ("value+grad, CSR, against SciPy and NumPy", lambda: at_least(3, sparse("value+grad"))),
        ("Hessian, CSR, against SciPy's Gram matrix", lambda: at_least(2, sparse("Hessian"))),
        ("newton, vocabulary, float32 over float64", lambda: at_most(0.9, layout_of_vocabulary())),
        ("newton, 8 GB on disk: speed of a read over that of np.memmap's sum", lambda: at_least(0.8, by_shape([(15_625_000, 64)], over_sum))),
        ("the same: reads of the file", reads),
        ("the same: resident memory", resident),
        (
            "newton, wide, reduced to n variables, against products alone and L-BFGS-B",
            lambda: at_least(1, by_shape([(500, 5_000), (1_000, 20_000)], wide_over)),
        ),
        (
            "Newton pass with weights over one without",
            lambda: at_most(1.03, by_shape(PASS_SHAPES, lambda n, d: rows.info("Newton pass, w > 0", n, d)["over_none"])),
        ),
        ("time per useful flop over that of the next multiple of 8", lambda: at_most(1.15, by_shape(odd, per_flop))),
        ("2 threads over 1, Newton pass", lambda: at_least(1.8, by_shape(tall[1:], threads("Newton pass")))),
        ("the same", lambda: at_least(1.4, by_shape(tall[:1], threads("Newton pass")))),
        ("2 threads over 1, value+grad", lambda: at_least(1.7, by_shape(tall, threads("value+grad")))),
        ("memory beyond A", lambda: memory([(1_000_000, 16), (500_000, 64), (300_000, 100), (60_000, 512)])),
        ("first newton, cold, serial", lambda: process("first newton, cold, serial", 20)),
        ("first newton, cold, parallel", lambda: process("first newton, cold, parallel", 20)),
        ("first newton, cached, parallel", lambda: process("first newton, cached, parallel", 1)),
        ("import fastrsx beyond NumPy", lambda: process("import fastrsx", 0.05)),
    ]


def target_table(rows):
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for what, measure in targets(rows):
        try:
            measured, target, met = measure()
        except KeyError as missing:
            lines.append(f"| {what} | no row {missing} | | |")
        else:
            lines.append(f"| {what} | {measured} | {target} | {'met' if met else '**missed**'} |")
    return "\n".join(lines)


# -- rows -------------------------------------------------------------------------------------------------------


def speed(info):
    """GF/s where there are flops, else GB/s where there are bytes, and the part of the roofline."""
    for key, unit in (("GFs", "GF/s"), ("GBs", "GB/s")):
        if key in info:
            return f"{info[key]:.0f} {unit}, {info['roofline']:.0%} of roofline"
    if "problems" in info:
        return f"{info['problems']} problems"
    within = f", {duration(info['within'])} to within 1e-6 of the minimum" if "within" in info else ""
    return f"{info['nit']} steps, {info['npass']} passes{within}" if "nit" in info else ""


def headline_table(rows):
    """The README's: ours against the best of the others, for the operations that matter."""
    lines = ["| what | n x d | fastrsx | speed | the best other | its time | ratio |", "|---|---|---|---|---|---|---|"]
    for (op, n, d), peers in rows.table.items():
        others = {who: row for who, row in peers.items() if who != OURS and row[1].get("reached", 0) <= 1e-6}
        if op in HEADLINES and OURS in peers and others:
            ours, info = peers[OURS]
            who, (best, _) = min(others.items(), key=lambda item: item[1][0])
            lines.append(f"| {op} | {n} x {d} | {duration(ours)} | {speed(info)} | {who} | {duration(best)} | {best / ours:.2f}x |")
    return "\n".join(lines)


def full_table(rows):
    lines = ["| what | n x d | who | time | speed | over ours |", "|---|---|---|---|---|---|"]
    for (op, n, d), peers in rows.table.items():
        for who, (seconds, info) in peers.items():
            over = f"{seconds / peers[OURS][0]:.2f}x" if OURS in peers and who != OURS else ""
            reached = f"stopped {info['reached']:.1e} above the minimum" if info.get("reached", 0) > 1e-6 else ""
            lines.append(f"| {op} | {n} x {d} | {who} | {duration(seconds)} | {speed(info) or reached} | {over} |")
    return "\n".join(lines)


def caption(rows):
    """What was measured where."""
    info = rows.run["benchmarks"][0]["extra_info"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return (
        f"Medians of one run on {rows.run['datetime'][:10]}: {info['cpu']}, {info['threads']} threads, {versions}; one read of A at "
        f"{info['read_GBs']:.0f} GB/s and dgemm at {info['dgemm_GFs']:.0f} GF/s in the same session. The ratio is the other's time over ours."
        + rows.run.get("merged", "")  # what whoever puts rows of another run into the file says of it
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
    """Speed over arithmetic intensity, below what memory and dgemm allow."""
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
    """pyplot, whose pictures are SVG, and the same for the same figures."""
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


def between_markers(path, text, begin=BEGIN, end=END):
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--readme", type=Path, help="put the headline table between the markers of this file")
    parser.add_argument("--results", type=Path, help="folder: put all tables between the markers of its RESULTS.md, and draw the pictures")
    parser.add_argument("--reversed", type=Path, help="JSON of a run with --reverse-rows, to say how far rows moved")
    args = parser.parse_args()
    rows = Rows(json.loads(args.json.read_text(encoding="utf-8")))
    print(headline_table(rows), caption(rows), sep="\n\n")
    if args.reversed:
        print(order_effect(rows, Rows(json.loads(args.reversed.read_text(encoding="utf-8")))))
    if args.readme:
        between_markers(args.readme, f"{headline_table(rows)}\n\n{caption(rows)}")
    if args.results:
        text = f"{caption(rows)}\n\n## Targets\n\n{target_table(rows)}\n\n## Every row\n\n{full_table(rows)}"
        between_markers(args.results / "RESULTS.md", text)
        draw(rows, args.results)


if __name__ == "__main__":
    main()
