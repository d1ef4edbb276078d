"""A file four times as large as the memory that the process may use, against np.memmap's sum of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

N, D, LIMIT = 15_625_000, 64, 2 * 10**9  # 8 GB; the n-vectors of a solve are 1.1 GB of the limit
GROUP = Path("/sys/fs/cgroup/memory/fastrsx-bench")

SCRIPT = r"""
import json, os, re, sys, time
import numpy as np, psutil
import fastrsx
from fastrsx import loading
A, b = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
small = np.load(sys.argv[1], mmap_mode="r")[:40_000]
free, large = loading.free, loading.LARGE
loading.free, loading.LARGE = (lambda: 0), 0  # even a small part is streamed, so that code and threads are there
fastrsx.newton(small, b[:40_000] / b[:40_000].sum(), max_iter=1, kernel="parallel")
loading.free, loading.LARGE = free, large
def forget():  # what is cached of the file: written a moment ago, it would never be read from disk
    with open(sys.argv[1], "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
forget()
start = time.perf_counter()
result = fastrsx.newton(A, b, w=1e-6)
seconds = time.perf_counter() - start
peak = 1024 * int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])  # ru_maxrss is that of the parent, if that had more
forget()
start = time.perf_counter()
A.sum()
summed = time.perf_counter() - start
found = dict(status=result.status.name, nit=result.nit, npass=result.npass, plan=result.kernel)
print(json.dumps(dict(found, seconds=seconds, sum_seconds=summed, peak=peak)))
"""


@pytest.fixture
def files(tmp_path):
    """A, written in parts, and a b that x fits up to 20 % in each row."""
    rng = np.random.default_rng(0)
    A = np.lib.format.open_memmap(tmp_path / "A.npy", "w+", np.float64, (N, D))
    x = rng.standard_normal(D) / 8
    b = np.empty(N)
    for start in range(0, N, 2**18):
        part = rng.standard_normal((min(2**18, N - start), D), dtype=np.float32)
        A[start : start + len(part)] = part
        a = part @ x
        b[start : start + len(part)] = (np.exp(a) + a) * rng.uniform(0.8, 1.2, len(part))
    A.flush()
    np.save(tmp_path / "b.npy", b / b.sum())
    return tmp_path / "A.npy", tmp_path / "b.npy"


def test_larger_than_memory(files, row, benchmark):
    try:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    found = []

    def work():
        command = f'echo $$ > {GROUP}/cgroup.procs; exec "$0" "$@"'
        run = subprocess.run(["sh", "-c", command, sys.executable, "-c", SCRIPT, *map(str, files)], check=True, capture_output=True, text=True)
        found.append(json.loads(run.stdout))

    row(work, "newton, streamed", N, D, rounds=1, warmup=0)
    result = found[-1]
    assert result["status"] == "CONVERGED"
    assert "from disk in chunks" in result["plan"]
    over_sum = result["sum_seconds"] * result["npass"] / result["seconds"]
    benchmark.extra_info.update({**result, "over_sum": over_sum, "limit": LIMIT, "size": 8 * N * D})
