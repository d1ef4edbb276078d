"""Watches for forks, from the import of the package on, so without Numba, which is imported later."""

import functools
import os
import sys
from typing import Any

is_after_launch = False  # whether this process is a child forked after its parent started a threading layer


def layer() -> str | None:
    """Numba's threading layer, or None before the first launch of threads."""
    try:
        return str(sys.modules["numba"].threading_layer())
    except (KeyError, AttributeError, ValueError):  # not imported, or not completely, or not started
        return None


def _refuse(*args: Any) -> None:
    """The replacement of parallel kernels in a forked child, for direct calls."""
    raise RuntimeError(
        "OpenMP cannot launch threads in a forked child of a process that has used it: start the child by spawn or forkserver, "
        "or call the kernel's serial twin (the same name and _serial)"
    )


def _refusing(kernel: Any) -> Any:
    """The replacement of one parallel kernel there, with the same twin."""
    refusing = functools.partial(_refuse)
    refusing.twin = kernel.twin  # type: ignore[attr-defined]
    return refusing


def _after_fork_in_child() -> None:
    """Such a child has none of its parent's OpenMP workers, and a launch would kill it: it keeps to the serial twins."""
    global is_after_launch
    is_after_launch = layer() is not None
    if layer() == "omp":
        for name, module in list(sys.modules.items()):
            if name.startswith("fastrsx.kernels."):
                vars(module).update({name: _refusing(value) for name, value in vars(module).items() if getattr(value, "twin", None)})


def _is_forked_pool_worker() -> bool:
    """Whether multiprocessing forked this process."""
    import multiprocessing.context

    fork = getattr(multiprocessing.context, "ForkProcess", ())  # Windows has none
    return isinstance(multiprocessing.current_process(), fork)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
if layer() is not None:  # by others, and perhaps by a parent that had not imported this
    is_after_launch = _is_forked_pool_worker()
