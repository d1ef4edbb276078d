"""For tests of GPU code: Numba's simulator if NUMBA_ENABLE_CUDASIM=1 is set, else a GPU; without either, the tests are skipped."""

from contextlib import contextmanager
from types import SimpleNamespace

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


class TwoGpus:
    """What numba-cuda's list of GPUs is to the engine: contexts that are entered and left. Arrays and launches are noted with the GPU they are on."""

    def __init__(self, monkeypatch):
        from numba import cuda

        from fastrsx.kernels.gpu import passes

        self.entered, self.seen = [0], set()
        array = type(cuda.device_array(1))
        for owner, name in ((type(passes.fold_fill), "__call__"), (array, "copy_to_device"), (array, "copy_to_host"), (cuda, "device_array")):
            monkeypatch.setattr(owner, name, self.noted(getattr(owner, name)))
        monkeypatch.setattr(cuda, "gpus", self)

    def noted(self, function):
        def call(*args, **kwargs):
            self.seen.add(self.entered[-1])
            return function(*args, **kwargs)

        return call

    @property
    def current(self):
        return SimpleNamespace(id=self.entered[-1])

    def __len__(self):
        return 2

    @contextmanager
    def __getitem__(self, index):
        self.entered.append(index)
        yield
        self.entered.pop()
