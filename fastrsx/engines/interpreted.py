"""The solver's iteration as Python, for an engine whose n-vectors are not arrays in memory: it handles scalars between few calls of the engine."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from fastrsx.kernels.compiling.jit import interpreted
from fastrsx.kernels.newton import iteration, plane, verdict

METHODS = {  # of an engine, for the passes of `advance`
    "evaluate": "_evaluate_into",
    "evaluate_plane": "_evaluate_plane_into",
    "plane_derivatives": "_plane_derivatives_into",
    "largest": "largest",
    "is_penalised": "_is_penalised",
    "spread": "_spread",
}


def advance_of(engine: Any) -> Callable[..., Any]:
    """`fastrsx.kernels.newton.verdict.advance` with the engine's own passes over n-vectors, see `fastrsx.kernels.newton.passes`.

    The engine keeps it, so it does not keep the engine: in a cycle, n-vectors on a GPU or a cluster would wait for a collection of garbage.
    """
    there = weakref.proxy(engine)
    passes = {kernel: partial(getattr(type(engine), method), there) for kernel, method in METHODS.items()}
    return interpreted(verdict.advance, (verdict, iteration, plane), passes)
