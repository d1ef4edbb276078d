"""`newton_batch` with A on a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU: each problem ends as it does in memory."""

import numpy as np
import pytest
from extensions import softplus
from numba import config

import fastrsx
import gpu
from fastrsx import Status

kernels = gpu.kernels()
from fastrsx.engines import cuda_batch  # noqa: E402  the simulator comes first
from fastrsx.kernels.formulas.links import LINKS, RSX  # noqa: E402
from fastrsx.kernels.gpu import batch as solving  # noqa: E402
from fastrsx.kernels.lanes import batch as on_cpu  # noqa: E402
from fastrsx.kernels.newton.small import STATUS  # noqa: E402

cuda = kernels.cuda
only_simulated = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="it counts in the simulator")


def problems(count, n, d, seed=0, spread=1.0):
    rng = np.random.default_rng([count, n, d, seed])
    A = rng.standard_normal((count, n, d))
    a = np.einsum("kij,kj->ki", A, spread * rng.standard_normal((count, d)) / np.sqrt(d))
    b = abs(np.exp(a) + a) * rng.uniform(0.5, 1.5, (count, n))
    return A, b / b.sum(axis=1, keepdims=True)


def there(*arrays):
    return [cuda.to_device(array) for array in arrays]


def assert_same(found, expected):
    """The same ends, and the same points but for rounding."""
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.success, expected.success)
    np.testing.assert_array_equal(found.nit, expected.nit)
    np.testing.assert_allclose(found.fun, expected.fun, rtol=1e-12, atol=1e-28)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-9, atol=1e-12)
    assert found.message == expected.message


def left(A, b, w=None, x0=None, link=RSX):
    """Which problems the GPU leaves to the CPU."""
    given = cuda_batch.as_batch(*there(A, b), w, x0)
    counts = solving.solve_all(link, *given, 1e-10, 100, 0).counts.copy_to_host()
    return counts[:, 0] == solving.LEFT


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "spread"), [(5, 1, 0.5), (20, 2, 2.0), (40, 3, 1.0), (30, 5, 1.0), (40, 8, 0.5)])
def test_each_is_what_the_cpu_finds(n, d, spread, dtype):
    A, b = (array.astype(dtype) for array in problems(9, n, d, spread=spread))
    found = fastrsx.newton_batch(*there(A, b))
    assert type(found.x) is np.ndarray
    assert_same(found, fastrsx.newton_batch(A, b))
    assert not left(A, b).all()
