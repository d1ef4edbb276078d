"""
A file larger than the memory
=============================

A memory map that is large beside the free memory is not loaded: `fastrsx.newton` streams it from
its file, chunk by chunk, and a step reads it once. To show this in seconds, the file here has
half a gigabyte, and the package is told that only 400 MB are free. A larger file takes more time,
and six more numbers in memory for each row.
"""

import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import psutil

import fastrsx

n, d = 1_000_000, 64
rng = np.random.default_rng(0)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "A.npy"
file = np.lib.format.open_memmap(path, "w+", np.float64, (n, d))
for start in range(0, n, 100_000):
    file[start : start + 100_000] = rng.standard_normal((100_000, d))
b = fastrsx.predict(file, 0.2 * rng.standard_normal(d)) * rng.uniform(0.5, 1.5, n)
b /= b.sum()
file.flush()
del file


def watched():
    """A solve of the mapped file, and the memory that it adds to the process, every 2 ms."""
    process, seen, ended = psutil.Process(), [], threading.Event()
    before, started = process.memory_info().rss, time.perf_counter()

    def watch():
        while not ended.wait(0.002):
            seen.append((time.perf_counter() - started, (process.memory_info().rss - before) / 1e6))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = fastrsx.newton(np.load(path, mmap_mode="r"), b)
    finally:
        ended.set()
        thread.join()
    print(result.kernel)
    print(
        f"{result.status.name}, {result.nit} steps, {result.npass} reads of A, "
        f"at most {max(size for _, size in seen):.0f} MB more\n"
    )
    return result, np.array(seen).T


for free in (0, 10**9):  # loads the kernels of both ways
    with mock.patch.multiple("fastrsx.loading", LARGE=0, free=lambda free=free: free):
        fastrsx.newton(np.load(path, mmap_mode="r")[:20_000], b[:20_000], max_iter=2)
with mock.patch("fastrsx.loading.free", return_value=400_000_000):
    streamed, of_stream = watched()
mapped, of_map = watched()
print("largest difference of x:", np.abs(streamed.x - mapped.x).max())
folder.cleanup()

# %%
# Through the map every page of the file that is read stays in memory for as long as there is
# room. Streaming keeps the chunks at hand, the n-vectors and the sums, and x is the same to
# rounding.

figure, axes = plt.subplots()
axes.plot(*of_map, color="C0", label="read in place, through the map")
axes.plot(*of_stream, color="C3", label="streamed from the file")
axes.axhline(8e-6 * n * d, color="0.6", linewidth=1, linestyle="--")
axes.annotate(
    "size of the file",
    (1, 8e-6 * n * d),
    (-4, -14),
    axes.get_yaxis_transform(),
    "offset points",
    color="0.4",
    ha="right",
)
axes.set(
    xlabel="seconds",
    ylabel="memory beyond that before the solve, MB",
    xlim=(0, None),
    ylim=(0, None),
    title="Streaming takes memory for chunks, not for the file",
)
axes.legend(loc="center right")
plt.show()
