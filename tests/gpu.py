"""For tests of GPU code: Numba's simulator if NUMBA_ENABLE_CUDASIM=1 is set, else a GPU; without either, the tests are skipped."""

import pytest
from numba import config


def kernels():
    """`fastrsx.kernels.cuda`; call this at the top of a test module."""
    if config.ENABLE_CUDASIM:
        import simulator  # noqa: F401  it adapts the simulator
        from fastrsx.kernels import cuda as launching

        return launching
    pytest.importorskip("numba_cuda", reason="neither NUMBA_ENABLE_CUDASIM=1 is set nor numba-cuda is installed")
    from numba import cuda

    if not cuda.is_available():
        pytest.skip("neither NUMBA_ENABLE_CUDASIM=1 is set nor is there a GPU", allow_module_level=True)
    from fastrsx.kernels import cuda as launching

    return launching
