"""How evenly blocks keep many threads at work, from the schedule itself, with costs measured here on one thread; a Markdown table.

    python bench/schedule.py            the table, for machines with more threads than this one
    python bench/schedule.py --measure  times on as many threads as there are

The Hessian's pass is modelled: Numba gives each thread an equal run of the parts of blocks; then rows of the Gram matrix are combined over the
blocks, eight at a time. A pass of value and gradient has no more than the blocks of rows.
"""

import argparse
import statistics
import time
from itertools import pairwise

import numba
import numpy as np

from fastrsx.kernels import dense
from fastrsx.kernels.cpu.blocks import block_count, block_rows, part_count
from fastrsx.kernels.cpu.passes import finish_hessian_serial
from fastrsx.kernels.layouts.panel import padded
from fastrsx.kernels.registers.gram import strip_start, strips_of_part
from fastrsx.kernels.registers.simd import LANES

LAUNCH_NS = 20_000.0  # of a parallel loop


def median_ns(function, times=5):
    """The median time of a call."""
    function()
    found = []
    for _ in range(times):
        start = time.perf_counter_ns()
        function()
        found.append(time.perf_counter_ns() - start)
    return statistics.median(found)


def costs(d):
    """ns for a row of the Gram matrix, to pack a row once more, and to combine a number of two Gram matrices, on one thread."""
    n = max(4096, 2**22 // d)
    A, work, out = np.random.default_rng(0).standard_normal((n, d)), dense.alloc_workspace(n, d, True), np.empty((d, d))
    h, blocks = np.ones(n), block_count(n, d)
    combine = median_ns(lambda: finish_hessian_serial(work.gram, work.vectors, out)) / (blocks * d * d / 2)
    clear = median_ns(lambda: work.gram.fill(0.0)) / work.gram.size
    row = median_ns(lambda: dense.weighted_gram_serial(A, h, out, work)) / n - (combine / 2 + clear) * blocks * d * d / n
    return row, median_ns(lambda: np.multiply(A, 2.0, out=A)) / n, clear + combine / 2


def chunks(tasks, threads):
    """The sums of Numba's equal runs of tasks."""
    bounds = [len(tasks) * t // threads for t in range(threads + 1)]
    return [sum(tasks[first:last]) for first, last in pairwise(bounds)]


def hessian_ns(n, d, threads, cost):
    """The modelled time of a Hessian's pass."""
    row, pack, combine = cost
    blocks, wide = block_count(n, d), padded(d)
    parts, tasks = part_count(blocks, d, threads), []
    for k in range(blocks):
        start, stop = block_rows(k, blocks, n)
        for part in range(parts):
            first, last = (strip_start(wide, s) for s in strips_of_part(wide, part, parts))
            area = (last * (last + LANES) - first * (first + LANES)) / (wide * (wide + LANES))
            tasks.append((stop - start) * (row * area + (pack * last / wide if parts > 1 else 0.0)))
    groups = -(-d // LANES)
    return max(chunks(tasks, threads)) + combine * blocks * d * d * -(-groups // threads) / groups + 2 * LAUNCH_NS


def table(n, widths, threads):
    """The efficiency on each number of threads."""
    lines = [f"| n = {n} | blocks | " + " | ".join(f"T = {t}" for t in threads) + " |", "|---" * (len(threads) + 2) + "|"]
    for d in widths:
        cost = costs(d)
        one = hessian_ns(n, d, 1, cost)
        found = [one / t / hessian_ns(n, d, t, cost) for t in threads]
        lines.append(f"| d = {d} | {block_count(n, d)} | " + " | ".join(f"{each:.2f}" for each in found) + " |")
    return "\n".join(lines)


def measured(n, d):
    """The speed-up of the Hessian's pass on 1, 2, 4, ... threads of this machine, in turns."""
    A, b, empty = np.random.default_rng(0).standard_normal((n, d)), np.full(n, 1 / n), np.empty(0)
    work, grad, hess, x = dense.alloc_workspace(n, d, True), np.empty(d), np.empty((d, d)), np.full(d, 1e-3)
    counts = [2**i for i in range(numba.config.NUMBA_NUM_THREADS.bit_length()) if 2**i <= numba.config.NUMBA_NUM_THREADS]
    times = {t: [] for t in counts}
    for turn in range(8):
        for t in counts:
            numba.set_num_threads(t)
            start = time.perf_counter()
            dense.value_grad_hess(A, x, b, empty, grad, hess, work)
            if turn:
                times[t].append(time.perf_counter() - start)
    one = statistics.median(times[1])
    return ", ".join(f"T = {t}: {one / statistics.median(times[t]):.2f}" for t in counts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="time this machine's threads")
    if parser.parse_args().measure:
        for n, d in ((500_000, 64), (50_000, 512), (10_000, 1000)):
            print(f"{n} x {d}: {measured(n, d)}")
    else:
        print(table(4_000_000, (16, 64, 256, 512, 1000), (2, 4, 8, 16, 32, 64, 128)))
        print()
        print(table(200_000, (16, 64, 256, 512, 1000), (2, 4, 8, 16, 32, 64, 128)))
