"""
A dask cluster on a laptop
==========================

A dask array is solved where its chunks lie. The scheduler may be a cluster's, or that of this
process with two threads, as here: the calls are the same. For workers of their own, start
``distributed.Client(n_workers=2, threads_per_worker=1)`` first.
"""

import dask
import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from dask.diagnostics import Profiler
from matplotlib.patches import Patch

import fastrsx

rng = np.random.default_rng(0)
n, d = 600_000, 24
A = rng.standard_normal((n, d))
b = fastrsx.predict(A, 0.2 * rng.standard_normal(d)) * rng.uniform(0.5, 1.5, n)
b /= b.sum()

chunked = da.from_array(A, chunks=(100_000, d))
with dask.config.set(scheduler="threads", num_workers=2):
    fastrsx.newton(chunked, b, max_iter=1)  # loads the kernels
    with Profiler() as profile:
        result = fastrsx.newton(chunked, b)
print(result.summary())
print(
    "largest difference from the x of A in memory:", np.abs(result.x - fastrsx.newton(A, b).x).max()
)

answers = set()
for workers in (1, 2, 4):
    with dask.config.set(scheduler="threads", num_workers=workers):
        answers.add(fastrsx.newton(chunked, b).x.tobytes())
print("different answers from 1, 2 and 4 workers:", len(answers))

# %%
# Each step is one round trip: all chunks form A p for the step, then, without asking again, the
# gradient and the Hessian at the new point. The answer has the same bits on any number of
# workers, since states of chunks merge in the order of the chunks.

KINDS = {
    "look": ("C0", "A p, and alpha at the new point"),
    "differentiate": ("C3", "gradient and Hessian there"),
}
lanes = {
    worker: lane
    for lane, worker in enumerate(dict.fromkeys(task.worker_id for task in profile.results))
}
begin = min(task.start_time for task in profile.results)
figure, axes = plt.subplots(figsize=(8.4, 2.8))
for task in profile.results:
    name = task.key[0] if isinstance(task.key, tuple) else task.key
    color = next((color for kind, (color, _) in KINDS.items() if f"_{kind}-" in name), "0.7")
    span = 1000 * (task.start_time - begin), 1000 * (task.end_time - task.start_time)
    axes.broken_barh(
        [span], (lanes[task.worker_id] - 0.4, 0.8), color=color, edgecolor="white", linewidth=0.5
    )
axes.set(
    xlabel="milliseconds",
    yticks=range(len(lanes)),
    xlim=(0, None),
    title="One solve on two workers: a bar is a task, for one chunk",
)
axes.set_yticklabels([f"worker {lane + 1}" for lane in range(len(lanes))])
axes.tick_params(axis="y", length=0)
axes.legend(
    handles=[
        Patch(color=color, label=label) for color, label in (*KINDS.values(), ("0.7", "all else"))
    ],
    loc="upper center",
    bbox_to_anchor=(0.5, -0.25),
    ncols=3,
)
plt.show()
