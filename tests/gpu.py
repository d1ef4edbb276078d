"""For tests of what runs on a GPU: Numba's simulator, where NUMBA_ENABLE_CUDASIM=1 is set, else a GPU; without either they are skipped."""

import pytest
from numba import config


def kernels():
    """`fastrsx.kernels.cuda`, at the top of a module of tests."""
    if config.ENABLE_CUDASIM:
        import simulator

        return simulator.launching
    pytest.importorskip("numba_cuda", reason="neither NUMBA_ENABLE_CUDASIM=1 is set nor numba-cuda is installed")
    from numba import cuda

    if not cuda.is_available():
        pytest.skip("neither NUMBA_ENABLE_CUDASIM=1 is set nor is there a GPU", allow_module_level=True)
    from fastrsx.kernels import cuda as launching

    return launching
