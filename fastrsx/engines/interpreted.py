"""The solver's iteration as Python, for an engine whose n-vectors are not arrays in memory: it handles scalars between few calls of the engine."""

from collections.abc import Callable
from typing import Any

from fastrsx.kernels.compiling.jit import interpreted
from fastrsx.kernels.newton import iteration, plane, verdict


def advance_of(engine: Any) -> Callable[..., Any]:
    """`fastrsx.kernels.newton.verdict.advance` with the engine's own passes over n-vectors, see `fastrsx.kernels.newton.passes`."""
    passes = {
        "evaluate": engine._evaluate_into,
        "evaluate_plane": engine._evaluate_plane_into,
        "plane_derivatives": engine._plane_derivatives_into,
        "largest": engine.largest,
        "is_penalised": engine._is_penalised,
        "spread": engine._spread,
    }
    return interpreted(verdict.advance, (verdict, iteration, plane), passes)
