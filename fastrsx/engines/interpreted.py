"""The solver's iteration as Python, for an engine whose n-vectors are not arrays in memory: it handles scalars between few calls of the engine."""

import weakref
from collections.abc import Callable
from typing import Any

from fastrsx.kernels.compiling.jit import interpreted
from fastrsx.kernels.newton import iteration, plane, verdict

NAMES = {
    "evaluate": "_evaluate_into",
    "evaluate_plane": "_evaluate_plane_into",
    "plane_derivatives": "_plane_derivatives_into",
    "largest": "largest",
    "is_penalised": "_is_penalised",
    "spread": "_spread",
}


def advance_of(engine: Any) -> Callable[..., Any]:
    """`fastrsx.kernels.newton.verdict.advance` with the engine's own passes over n-vectors, see `fastrsx.kernels.newton.passes`.

    It does not hold the engine, which would then wait for the garbage collector with all its memory.
    """
    there = weakref.ref(engine)

    def method(name: str) -> Callable[..., Any]:
        return lambda *args: getattr(there(), name)(*args)

    return interpreted(verdict.advance, (verdict, iteration, plane), {kernel: method(name) for kernel, name in NAMES.items()})
