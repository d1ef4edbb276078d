"""Kernels queued with little Python: how numba-cuda passes an array to a kernel is kept with the array, and how a kernel is launched by its types.

numba-cuda finds the types of all arguments, takes arrays apart and configures the launch anew each time, which takes 30 us. Here it does so for the
first launch of a kernel with arguments of these types; the next ones hand the same values to the same function of cuda.core.
"""

import ctypes
from typing import NamedTuple

from numba import config

from .block import THREADS, configured

MOST = 1024  # launches that are kept

if config.ENABLE_CUDASIM:

    def queue(kernel, grid, stream, args, threads=THREADS, shared=0):
        """Queue a kernel with that many blocks; the simulator's runs at once."""
        configured(kernel, grid, stream, threads, shared)(*args)

else:
    from numba.cuda import dispatcher as numbas
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    class Ready(NamedTuple):
        """How a compiled kernel is launched."""

        stream: object
        config: object
        kernel: object

    class OtherError(Exception):
        """An argument of a kind that is left to numba-cuda."""

    class Plain:
        """What numba-cuda's method reads of a kernel: that its arguments are of no other package."""

        extensions = ()

    _ready: dict = {}
    _plain = Plain()
    NUMBERS = {float: ctypes.c_double, int: ctypes.c_int64}

    def told_array(array):
        """The type of an array, as a number, and what a kernel gets of it."""
        told: list = []
        converted: list = []
        numbas._Kernel._prepare_args(_plain, array._numba_type_, array, 0, converted, told)
        if converted:  # numba-cuda has copied it
            raise OtherError
        array._told = array._numba_type_._code, told
        return array._told

    def tell(args, types, values):
        """Append the types of arguments, and what a kernel gets of them."""
        for arg in args:
            kind = type(arg)
            if kind is DeviceNDArray:
                code, parts = arg.__dict__.get("_told") or told_array(arg)
                types.append(code)
                values += parts
            elif kind in NUMBERS:
                types.append(kind)
                values.append(NUMBERS[kind](arg))
            elif isinstance(arg, tuple):
                types.append((kind, len(arg)))
                tell(arg, types, values)
            else:
                raise OtherError

    def prepared(kernel, configuration, args):
        """How numba-cuda has launched it, where it is compiled as it is used to be."""
        compiled = kernel.overloads[tuple(map(kernel.typeof_pyval, args))]
        function = compiled._codelibrary.get_cufunc()
        settings = {"grid": configuration.griddim, "block": configuration.blockdim, "shmem_size": configuration.sharedmem}
        return Ready(configuration.stream, numbas.LaunchConfig(**settings), function.kernel)

    def queue(kernel, grid, stream, args, threads=THREADS, shared=0):
        """Queue a kernel with that many blocks. On a stream, which is that of one GPU; the default stream is that of any."""
        types, values = [kernel, grid, stream, threads, shared], list[object]()
        try:
            if not stream:
                raise OtherError
            tell(args, types, values)
        except OtherError:
            configured(kernel, grid, stream, threads, shared)(*args)
            return
        key = tuple(types)
        ready = _ready.get(key)
        if ready is not None:
            numbas.launch(ready.stream, ready.config, ready.kernel, *values)
            return
        configuration = configured(kernel, grid, stream, threads, shared)
        configuration(*args)
        if len(_ready) >= MOST:
            _ready.clear()
        _ready[key] = prepared(kernel, configuration, args)
