"""How long a new process waits for compilation, for loading from the disk cache, and for imports."""

import subprocess
import sys

import pytest

SMALL = "import numpy as np; A = np.linspace(-1, 1, 4000).reshape(500, 8) ** 3; b = np.full(500, 1 / 500)"
KERNELS = ("value", "value_grad", "value_grad_hess", "hess_vec", "factors", "weighted_gram")
OUTPUTS = {
    "value": "",
    "value_grad": "np.empty(8),",
    "value_grad_hess": "np.empty(8), np.empty((8, 8)),",
    "hess_vec": "np.ones(8), np.empty(8),",
    "factors": "np.empty(500), np.empty((2, 8)),",
}


def seconds(code, cache, body="", **environment):
    """Run `body`, then `code` in a new process; the seconds that `code` took."""
    script = f"import time\n{SMALL}\n{body}\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    environment = {"PATH": "/usr/bin:/bin", "NUMBA_CACHE_DIR": str(cache), **environment}
    return float(subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def process_row(row, benchmark):
    """process_row(work, op, who, rounds) times `work`, which returns the seconds that count, without the start of Python."""

    def run(work, op, who="fastrsx", rounds=1):
        found = []
        row(lambda: found.append(work()), op, 500, 8, who, rounds=rounds, warmup=0)
        benchmark.extra_info["seconds"] = sorted(found)[len(found) // 2]

    return run


def newton(kernel):
    return f"import fastrsx; fastrsx.newton(A, b, kernel={kernel!r})"


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
def test_first_newton_cold(process_row, tmp_path, kernel):
    caches = iter(range(9))
    process_row(lambda: seconds(newton(kernel), tmp_path / str(next(caches))), f"first newton, cold, {kernel}", rounds=3)


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
def test_first_newton_cached(process_row, tmp_path, kernel):
    seconds(newton(kernel), tmp_path)
    process_row(lambda: seconds(newton(kernel), tmp_path), f"first newton, cached, {kernel}", rounds=7)


def test_import(process_row, tmp_path):
    """Beyond the import of NumPy."""
    process_row(lambda: seconds("import fastrsx", tmp_path), "import fastrsx", rounds=7)


@pytest.mark.parametrize("twin", ["", "_serial"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_cold(process_row, tmp_path, kernel, twin):
    body = "from fastrsx.kernels import dense; work = dense.alloc_workspace(500, 8, True); w = np.empty(0); x = np.ones(8) / 9"
    if kernel == "weighted_gram":
        call = f"dense.weighted_gram{twin}(A, b, np.empty((8, 8)), work)"
    else:
        call = f"dense.{kernel}{twin}(A, x, b, w, {OUTPUTS[kernel]} work)"
    process_row(lambda: seconds(call, tmp_path, body), f"compile {kernel}{twin}")
