"""Blocks of threads on a GPU: their sizes, and how kernels are compiled and configured. The one module that imports numba.cuda."""

import functools
import warnings

import numpy as np
from numba import config

from ..compiling.gpucache import cached

NEEDED = "the kernels for a GPU need the package numba-cuda, which is not installed: pip install 'fastrsx[cuda]'"
try:
    from numba import cuda as cuda
except ImportError as error:
    raise ImportError(NEEDED) from error
if not config.ENABLE_CUDASIM and getattr(cuda, "implementation", "") != "NVIDIA":  # then it is Numba's own, an older one
    raise ImportError(NEEDED)

# Threads of a block as a square, and of a warp; and blocks. The simulator runs each thread as one of Python.
EDGE, WARP_ROWS, WARP_COLUMNS, MOST_BLOCKS = (4, 2, 2, 2) if config.ENABLE_CUDASIM else (16, 4, 8, 4096)
THREADS, WARP = EDGE * EDGE, WARP_ROWS * WARP_COLUMNS
WARPS, ALL = THREADS // WARP, 2**WARP - 1  # of a block; the lanes of a warp, as bits

# Four blocks of that many registers a thread are half of the threads that a multiprocessor holds.
kernel = cuda.jit if config.ENABLE_CUDASIM else functools.partial(cuda.jit, max_registers=64)


def kernel_of(registers):
    """A decorator of kernels with at most that many registers a thread."""
    return cuda.jit if config.ENABLE_CUDASIM else functools.partial(cuda.jit, max_registers=registers, lto=False)


device = functools.partial(cuda.jit, device=True, inline="always")
# The same for what kernels call several times: inlined by LLVM, not by Numba, which would copy it and infer its types each time.
called = functools.partial(cuda.jit, device=True) if config.ENABLE_CUDASIM else functools.partial(cuda.jit, device=True, forceinline=True)
unsigned = np.uint64  # for an index in a hot loop: a signed one is tested for a negative value


def why_unavailable():
    """Why no kernel can run in this process; empty where it can."""
    if config.ENABLE_CUDASIM or cuda.is_available():
        return ""
    return " ".join((cuda.cuda_error() or "the driver finds none").split())


def address_of(array):
    """Where an array begins in the memory of the GPU."""
    return array.ctypes.data if config.ENABLE_CUDASIM else array.__cuda_array_interface__["data"][0]


def multiprocessors():
    """How many the current GPU has."""
    return 2 if config.ENABLE_CUDASIM else _multiprocessors_of(cuda.get_current_device().id)


@functools.cache  # an attribute of a device takes Python 10 us
def _multiprocessors_of(index):
    return cuda.gpus[index].MULTIPROCESSOR_COUNT


if config.ENABLE_CUDASIM:

    def configured(kernel, grid, stream, threads=THREADS, shared=0):
        """A kernel for a launch; the simulator's is the kernel itself."""
        return kernel[grid, threads, stream, shared]

else:
    from numba.cuda.core.errors import NumbaPerformanceWarning  # of numba-cuda: no subclass of Numba's own
    from numba.cuda.cudadrv.driver import CudaAPIError, binding, driver

    GRANTED = 48 * 1024  # bytes of shared memory that a block has without asking

    def ask_for_shared(compiled, launch):
        """Let a compiled kernel have the shared memory of its launch; numba-cuda has no option for it."""
        function = compiled._codelibrary.get_cufunc()
        most = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        try:
            driver.cuKernelSetAttribute(most, launch.sharedmem, function.handle, function.device.id)
        except (CudaAPIError, TypeError):  # the handle is of another kind in other versions of cuda.core
            function.kernel.attributes.max_dynamic_shared_size_bytes = launch.sharedmem

    @functools.lru_cache(maxsize=256)
    def configured(kernel, grid, stream, threads=THREADS, shared=0):
        """A kernel for a launch, without numba-cuda's warning of few blocks: the last step of a sum takes one. shared: bytes that it asks for."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)  # by category: with colorama the text begins with an escape sequence
            launch = cached(kernel)[grid, threads, stream, shared]
        if shared > GRANTED:
            launch.pre_launch_callbacks.append(ask_for_shared)
        return launch


@device
def block_rows(k, blocks, n):
    """First row of block k and of the next."""
    return n * k // blocks, n * (k + 1) // blocks
