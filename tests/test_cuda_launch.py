"""What is handed to the GPU's driver, with a driver that is only pretended: launches of `queueing` are those of numba-cuda, in their order."""

import importlib.util
from pathlib import Path

import pytest
from numba import config

if config.ENABLE_CUDASIM:
    pytest.skip("NUMBA_ENABLE_CUDASIM=1 is set, and the simulator launches no kernels", allow_module_level=True)
if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'fastrsx[cuda]'", allow_module_level=True)
import cuda_resources

if cuda_resources.ptxas() is None:
    pytest.skip("the assembler is not installed: pip install nvidia-cuda-nvcc", allow_module_level=True)

from processes import run

START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import pretended
from fastrsx.kernels.gpu import loop, passes, queueing
from fastrsx.kernels.formulas import links
from numba.cuda import dispatcher

pretended.pretend()
def launched(work):
    pretended.noted.clear()
    work()
    return [(kernel, tuple(config.grid), tuple(config.block), config.shmem_size, args) for kernel, config, args in pretended.noted]

def on(step, stream):
    step.work = step.work._replace(stream=stream)
    return step
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Kernels that are compiled once."""
    return str(tmp_path_factory.mktemp("kernels"))


def ran(code, folder):
    return run(START + code, Path(folder), "-W", "error", FASTRSX_CACHE=folder)


def test_a_step_is_launched_as_numba_cuda_launches_it(folder):
    code = """
step = pretended.Step(100_000, 16)
plain = launched(step.launch)
assert len(plain) == 6
on(step, 7)
assert not queueing._ready
assert launched(step.launch) == plain
assert len(queueing._ready) == 6
calls = []
call = dispatcher.CUDADispatcher.call
dispatcher.CUDADispatcher.call = lambda *args: (calls.append(args), call(*args))[1]
assert launched(step.launch) == plain
assert not calls
step.a, step.out = step.out, step.a
other = launched(step.launch)
assert other != plain and not calls
assert other == launched(on(step, 0).launch) and len(calls) == 6
print("fine")
"""
    assert ran(code, folder) == "fine"


def test_numbers_are_those_of_each_launch(folder):
    """A step length, and an empty array in the place of one of n numbers: these have types of their own, or values."""
    code = """
step = pretended.Step(1000, 3)
def losses(t):
    passes.evaluate(step.a, step.da, t, step.b, step.w, step.out, step.work)
    passes.evaluate(step.a, step.w, t, step.b, step.w, step.a, step.work)
plain = [launched(lambda: losses(t)) for t in (0.5, 0.25)]
assert plain[0] != plain[1]
on(step, 7)
for _ in range(2):
    assert [launched(lambda: losses(t)) for t in (0.5, 0.25)] == plain
print("fine")
"""
    assert ran(code, folder) == "fine"


def test_arguments_of_other_kinds_are_numba_cudas(folder):
    """NumPy's numbers."""
    code = """
step = on(pretended.Step(1000, 3), 7)
for _ in range(2):
    for t in (0.5, np.float64(0.5)):
        passes.evaluate(step.a, step.da, t, step.b, step.w, step.out, step.work)
        assert len(queueing._ready) == 3
assert len(pretended.noted) == 12
print("fine")
"""
    assert ran(code, folder) == "fine"


def test_python_takes_little_of_a_step(folder):
    """Less than a quarter of numba-cuda's own time, in turns, since machines differ."""
    code = """
step = pretended.Step(100_000, 16)
step.launch()
on(step, 7).launch()
dispatcher.launch = lambda *args: None
times = {0: [], 7: []}
for _ in range(5):
    for stream in times:
        times[stream].append(pretended.seconds(on(step, stream).launch, 60))
print(min(times[7]) < 0.25 * min(times[0]))
"""
    assert ran(code, folder) == "True"
