"""Numba's CUDA simulator, adapted for tests: its threads run one at a time, from barrier to barrier, each time in a new random order.

A barrier is that of a block or, as Numba's has none, that of a warp: other warps of the block may be elsewhere.

The original polls threads that all run at once: most of the time goes into waiting for Python's lock, and sometimes two threads that ask for a
shared array at the same time get one each. In a random order, a missing barrier shows as a wrong result.
"""

import random
import threading
from contextlib import contextmanager

import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel as simulated
from numba.cuda.simulator.kernel import BlockThread
from numba.cuda.simulator.kernelapi import FakeCUDAModule

from fastrsx.kernels.gpu import block


class Thread(BlockThread):
    """A thread of a block; it yields at a barrier."""

    def __init__(self, *args):
        super().__init__(*args)
        self.go, self.stopped, self.ended, self.waits_for_warp = threading.Lock(), threading.Lock(), False, False
        self.warp = self.threadIdx.x // block.WARP
        self.go.acquire()  # locks as signals: one thread waits until another releases them
        self.stopped.acquire()

    def run(self):
        self.go.acquire()
        super().run()
        self.ended = True
        self.stopped.release()

    def syncwarp(self):
        self.waits_for_warp = True
        self.syncthreads()
        self.waits_for_warp = False

    def syncthreads(self):
        self.stopped.release()
        self.go.acquire()
        if self.abort:
            raise SystemExit


class Block(simulated.BlockManager):
    """A block of threads; each one runs up to the next barrier or its end, then the next one runs."""

    def run(self, grid_point, *args):
        live = [Thread(lambda: self._f(*args), self, grid_point, place, self._debug) for place in np.ndindex(*self._block_dim)]
        order = random.Random(0)
        for thread in live:
            thread.start()
        ready = live
        while live:
            order.shuffle(ready)
            for thread in ready:
                thread.go.release()
                thread.stopped.acquire()
                if thread.exception:
                    for other in live:
                        other.abort = True
                        other.go.release()
                    raise thread.exception[0].with_traceback(thread.exception[1])
            live = [thread for thread in live if not thread.ended]
            for_block = {thread.warp for thread in live if not thread.waits_for_warp}
            ready = [thread for thread in live if thread.warp not in for_block] or live
            assert ready is not live or not any(thread.waits_for_warp for thread in live), "threads of a warp wait at different barriers"


def namespaces(fn, found):
    """The globals of a function and of all device functions that it may call: kernels by link have globals of their own."""
    if id(fn.__globals__) not in found:
        found[id(fn.__globals__)] = fn.__globals__
        for value in list(fn.__globals__.values()):
            if isinstance(value, simulated.FakeCUDAKernel):
                namespaces(value.fn, found)
    for cell in fn.__closure__ or ():
        if isinstance(cell.cell_contents, simulated.FakeCUDAKernel):
            namespaces(cell.cell_contents.fn, found)
    return found


@contextmanager
def swapped(fn, module):
    """Replace `numba.cuda` in all functions of a launch at once: one by one, a function would restore it while other threads are in it."""
    found = [names for names in namespaces(fn, {}).values() if names.get("cuda") is cuda] if not swapped.is_launched else []
    is_launch, swapped.is_launched = not swapped.is_launched, True
    for names in found:
        names["cuda"] = module
    try:
        yield
    finally:
        for names in found:
            names["cuda"] = cuda
        swapped.is_launched = not is_launch


swapped.is_launched = False
simulated.BlockManager, simulated.swapped_cuda_module = Block, swapped
FakeCUDAModule.syncwarp = lambda self: threading.current_thread().syncwarp()
