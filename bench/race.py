"""The picture of the README: how far above the minimum each solver is, over time.

python bench/race.py                                  # race, and draw: some minutes
python bench/race.py --draw bench/results/race.json   # draw a race that was run before
"""

import argparse
import datetime
import json
import time
from pathlib import Path

import numba
import numpy as np
from conftest import SETTLE, versions
from llvmlite import binding
from report import OURS, duration, svg_pyplot
from test_newton import SOLVERS

import fastrsx
import peers
import problems

HERE = Path(__file__).parent
PROBLEMS = {  # name: n, d and the title of the picture
    "vocabulary": (30_522, 384, "Frequencies of 30522 words, from 384 columns of their embeddings"),
    "automobiles": (2_217, 5, "Market shares of 2217 cars, from 5 columns"),
    "noisy": (1_000_000, 13, "Random data of 1000000 rows and 13 columns"),
}
COLOURS = dict(zip((OURS, *SOLVERS), ("C3", "C0", "C1", "C2", "C4"), strict=True))
FLOOR = 1e-10  # relative; a loss that is closer to the minimum counts as the minimum
THINNED = 0.95  # a point is drawn only if its gap to the minimum is below this part of the last one's


# -- the race ---------------------------------------------------------------------------------------------------


def ours(A, b):
    """The (seconds, loss) of each of our steps, without the time spent on recording."""
    trace, recording, start = [], 0.0, time.perf_counter()

    def record(intermediate_result):
        nonlocal recording
        now = time.perf_counter()
        trace.append((now - start - recording, intermediate_result.fun))
        recording += time.perf_counter() - now

    fastrsx.newton(A, b, callback=record)
    return trace


def median_run(run, rounds):
    """The trace of the run with the median time, of `rounds` runs after one that is not counted."""
    traces = []
    for _ in range(rounds + 1):
        time.sleep(SETTLE)
        traces.append(run())
    return sorted(traces[1:], key=lambda trace: trace[-1][0])[rounds // 2]


def race(problem, rounds):
    """The traces of all solvers and their context, ready for JSON."""
    n, d, title = PROBLEMS[problem]
    A, b, _ = problems.make(problem, n, d)
    traces = {OURS: median_run(lambda: ours(A, b), rounds)}
    for label, (who, method) in SOLVERS.items():
        if absent := peers.missing(who):
            print(f"{label} needs the package {absent}: left out")
            continue
        with peers.Peer(who, method, problem, n, d) as peer:

            def run(peer=peer):
                peer()
                return peer.result()[1]

            traces[label] = median_run(run, rounds)
        print(f"{label}: {duration(traces[label][-1][0])}", flush=True)
    return {
        "title": title,
        "start": float(peers.NumpyProblem(A, b).value(np.zeros(d))),
        "date": datetime.date.today().isoformat(),
        "machine": f"{binding.get_host_cpu_name()}, {numba.get_num_threads()} threads",
        "versions": versions(),
        "traces": traces,
    }


# -- the picture ------------------------------------------------------------------------------------------------


def closer_and_closer(trace, least):
    """The points of a trace to draw: the least loss so far, relative to the minimum, wherever it has come closer, and the end."""
    best, points = float("inf"), []
    for seconds, loss in trace:
        best = min(best, loss)
        gap = max(best / least - 1, FLOOR)
        if not points or gap < THINNED * points[-1][1]:
            points.append((seconds, gap))
    return [*points, (trace[-1][0], gap)]


def draw(found, path):
    pyplot = svg_pyplot()
    pyplot.rcParams["svg.fonttype"] = "none"  # text as text, not as paths: a third of the size
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    traces = found["traces"]
    least = min(loss for trace in traces.values() for _, loss in trace)
    first, last = min(trace[0][0] for trace in traces.values()) / 2, max(trace[-1][0] for trace in traces.values())
    for who, trace in sorted(traces.items(), key=lambda item: item[1][-1][0]):
        points = [(first / 10, found["start"] / least - 1), *closer_and_closer(trace, least)]
        axes.plot(
            *zip(*points, strict=True),
            "o-",
            markevery=[-1],
            drawstyle="steps-post",
            label=f"{who}, {duration(trace[-1][0])}",
            color=COLOURS[who],
            linewidth=3 if who == OURS else 1.5,
            markersize=8 if who == OURS else 5,
            zorder=3 if who == OURS else 2,
        )
    axes.set(xscale="log", yscale="log", xlim=(first, 1.3 * last), xlabel="seconds", ylabel="loss above the minimum, relative")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title(found["title"], loc="left", fontsize="medium")
    figure.legend(loc="outside right center", title="solver, stopped after", frameon=False, alignment="left")
    figure.text(0.99, 0.02, f"{found['date']}\n{found['machine']}", ha="right", va="bottom", fontsize="small", color="0.4")
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


# -- the command ------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="vocabulary")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each solver, of which the median one is drawn (default: %(default)s)")
    parser.add_argument("--draw", type=Path, metavar="JSON", help="draw this race in place of running one")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "race.json", help="where to write the race (default: %(default)s)")
    parser.add_argument("--svg", type=Path, default=HERE / "race.svg", help="where to write the picture (default: %(default)s)")
    args = parser.parse_args()
    if args.draw:
        found = json.loads(args.draw.read_text(encoding="utf-8"))
    else:
        found = race(args.problem, args.rounds)
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(found), encoding="utf-8")
    draw(found, args.svg)


if __name__ == "__main__":
    main()
