"""How kernels are compiled: flags, serial twins, formulas that are inlined, and the same source with other names."""

import gc
import types
from functools import cached_property

from numba import config, njit
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.core.targetconfig import ConfigStack

from .diskcache import cached
from .libraries import PartOnDisk, Parts, WholeCompiler

# No fastmath: explicit lanes and fma say what may be vectorised, and every twin gives the same bits. No wrapper for C, which takes 5 % of the
# time to compile and which only a kernel passed as an argument to jitted code would need.
FLAGS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


class Kernel(CPUDispatcher):
    """A compiled function. In a function with prange loops of its own, the name of a kernel means its serial twin.

    Numba's workqueue layer ends the process where a loop on all threads starts another.
    """

    twin: Dispatcher | None = None

    @cached_property
    def parts(self):
        """The kernel as other functions call it."""
        return cached(Parts(self), PartOnDisk)

    def _meant(self):
        """The meaning of a call in the function that numba is compiling."""
        flags = ConfigStack().top_or_none()
        return self.parts if self.twin is None or flags is None or not flags.auto_parallel.enabled else self.twin.parts

    def compile(self, sig):
        """Without the garbage collector: it finds nothing among the objects of a compilation, and would take a tenth of its time."""
        collects = gc.isenabled()
        gc.disable()
        try:
            return super().compile(sig)
        finally:
            if collects:
                gc.enable()

    def get_call_template(self, args, kws):
        return self._meant().get_call_template(args, kws)

    def get_overload(self, sig):
        return self._meant().get_overload(sig)


DISABLED = (
    "NUMBA_DISABLE_JIT is set, and the kernels of fastrsx are vector code that Python cannot run: unset it in this process. "
    "To step through a function of your own, call its py_func; to measure its coverage, run it in another process."
)


def _compiled(func, **flags):
    if config.DISABLE_JIT:
        raise RuntimeError(DISABLED)
    dispatcher = njit(**flags, **FLAGS)(func)
    dispatcher.__class__, dispatcher._compiler.__class__ = Kernel, WholeCompiler
    return cached(dispatcher)


def serial(func):
    """Compile `func` for one thread."""
    return _compiled(func)


def parallel(func):
    """Compile `func` with its prange loops on all threads."""
    return _compiled(func, parallel=True)


def part(func):
    """A short piece of a kernel, inlined into it by numba, which is slow for long ones: also what returns a record, as no compiled function can."""
    return njit(inline="always", **FLAGS)(func)


def formula(func):
    """A formula: a function of numbers, which may be registers, inlined into its callers. `gpu.scalar` makes its GPU version."""
    return part(func)


def rebuilt(func, names, cells=None):
    """The same source with other meanings of these global names and free variables."""
    other = types.FunctionType(func.__code__, func.__globals__ | names, func.__name__, func.__defaults__, cells or func.__closure__)
    other.__qualname__, other.__module__, other.__doc__ = func.__qualname__, func.__module__, func.__doc__
    return other


def of_arrays(formula):
    """A formula for NumPy's arrays: each entry is a lane."""
    return rebuilt(formula.py_func, {"fma": lambda x, y, z: x * y + z})


def interpreted(dispatcher, modules, replaced):
    """The same source as Python: compiled functions of `modules` become Python too, and names in `replaced` mean their replacements."""
    names, made = {module.__name__ for module in modules}, {}

    def of(dispatcher):
        func = dispatcher.py_func
        if func not in made:
            made[func] = types.FunctionType(func.__code__, dict(func.__globals__), func.__name__, func.__defaults__)
            inside = made[func].__globals__
            for name, value in func.__globals__.items():
                if isinstance(value, Dispatcher) and value.py_func.__module__ in names:
                    inside[name] = of(value)
            inside.update((name, value) for name, value in replaced.items() if name in inside)
        return made[func]

    return of(dispatcher)


def serial_twin(dispatcher):
    """The same source for one thread, also stored as the kernel's `twin`: prange is range, and the name of a kernel with a twin means that twin."""
    func = dispatcher.py_func
    twins = {name: value.twin for name, value in func.__globals__.items() if isinstance(value, Dispatcher) and getattr(value, "twin", None)}
    twin = rebuilt(func, twins)
    twin.__name__, twin.__qualname__ = f"{func.__name__}_serial", f"{func.__qualname__}_serial"
    dispatcher.twin = part(twin) if dispatcher.targetoptions.get("inline") == "always" else serial(twin)
    return dispatcher.twin
