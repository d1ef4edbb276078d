"""Memory that a solve takes beyond A: at most 6 n-vectors and 64 MB, and no copy of a C-ordered A."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, threading, time
sys.path.insert(0, {bench!r})
import fastrsx, problems, psutil
A, b, _ = problems.gaussian({n}, {d})
small, _, _ = problems.gaussian.__wrapped__(500, {d})
fastrsx.newton(small, b[:500] / b[:500].sum(), kernel="parallel", max_iter=1)  # code and threads are there
fastrsx.newton(small, b[:500] / b[:500].sum(), kernel="parallel", max_iter=1, hessian=fastrsx.plan(A).hessian, sample_rows={d})
process, done = psutil.Process(), False
before = peak = process.memory_info().rss
def watch():
    global peak
    while not done:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.0005)
watcher = threading.Thread(target=watch)
watcher.start()
fastrsx.newton(A, b, kernel="parallel", max_iter=3)
done = True
watcher.join()
print((peak - before) / 1e6)
"""


@pytest.mark.parametrize(("n", "d"), [(1_000_000, 16), (500_000, 64), (300_000, 100), (60_000, 512)])
def test_memory(row, benchmark, n, d):
    script = SCRIPT.format(bench=str(Path(__file__).parent), n=n, d=d)
    found = []

    def work():
        found.append(float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout))

    row(work, "memory beyond A", n, d, rounds=3, warmup=0)
    allowed = (6 * 8 * n) / 1e6 + 64
    benchmark.extra_info.update(MB=max(found), allowed_MB=allowed)
    assert max(found) <= allowed
