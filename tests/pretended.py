"""A GPU that is only pretended, for a process of its own: kernels are compiled and linked for it, arrays have addresses, and launches are noted."""

import time
from types import SimpleNamespace

import numpy as np
from numba.cuda import codegen, dispatcher
from numba.cuda.cudadrv import devices, driver
from numba.cuda.cudadrv.devicearray import DeviceNDArray

from fastrsx.kernels.formulas import links
from fastrsx.kernels.gpu import block, loop, passes

CAPABILITY, MULTIPROCESSORS = (9, 0), 132
gpu = SimpleNamespace(compute_capability=CAPABILITY, id=0, MULTIPROCESSOR_COUNT=MULTIPROCESSORS)
context = SimpleNamespace(device=gpu)
noted = []  # the name, the grid, the threads, the bytes of shared memory and the arguments of each launch
address = [2**30]


def note(stream, config, kernel, *args):
    """Stands for cuda.core's launch."""
    noted.append((kernel, config, [getattr(value, "value", value) for value in args]))


def get_cufunc(library):
    """A function of a module that no driver has loaded; its kernel is the name."""
    if 0 not in library._cufunc_cache:
        library.get_cubin()
        kernel = library._entry_name
        library._cufunc_cache[0] = SimpleNamespace(kernel=kernel, module=SimpleNamespace(initialized=True), handle=kernel, device=gpu)
    return library._cufunc_cache[0]


def pretend():
    """From now on; returns nothing."""
    dispatcher.get_current_device = block.cuda.get_current_device = lambda: gpu
    codegen.devices.get_context = devices.get_context = lambda *args: context
    dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin()
    codegen.CUDACodeLibrary.get_cufunc = get_cufunc
    driver._to_core_stream = lambda stream: stream
    dispatcher.launch = note
    block._multiprocessors_of = lambda index: MULTIPROCESSORS
    block.ask_for_shared = lambda compiled, launch: None
    block.cuda.device_array = array


def array(shape, dtype=np.float64, stream=0):
    """An array at an address where there is nothing."""
    dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
    strides = tuple(dtype.itemsize * int(np.prod(shape[k + 1 :], dtype=int)) for k in range(len(shape)))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    memory = driver.MemoryPointer(context, driver.binding.CUdeviceptr(address[0]), size)
    address[0] += -(-max(size, 1) // 256) * 256
    return DeviceNDArray(shape, strides, dtype, gpu_data=memory)


class Step:
    """The launches of a Newton step of n x d, on a stream that is a number."""

    def __init__(self, n, d, stream=0):
        self.A, self.p, self.a, self.da, self.out, self.b = array((n, d)), array(d), array(n), array(n), array(n), array(n)
        self.w, self.hess = array(0), array((d, d))
        self.work = passes.alloc_workspace(n, d, True, links.RSX, stream)

    def launch(self):
        """Three kernels to the point at a + A p, and three to the derivatives there."""
        loop.look_ahead(self.A, self.p, self.a, self.da, self.b, self.w, self.out, self.work)
        loop.derivatives(self.A, self.out, self.b, self.w, self.hess, self.work)


def seconds(work, most=300):
    """The median CPU seconds of a call."""
    times = []
    for _ in range(most):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    pretend()
    started = time.process_time()
    Step(100_000, 16).launch()
    print(f"the first launches of a step: {time.process_time() - started:.2f} s of CPU")
    for what, stream in (("numba-cuda", 0), ("queue", 7)):
        step = Step(100_000, 16, stream)
        step.launch()
        dispatcher.launch = lambda *args: None  # to note them takes as long as all else
        print(f"{1e6 * seconds(step.launch):.1f} us for the launches of a step by {what}")
