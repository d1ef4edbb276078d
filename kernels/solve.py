"""Public: a whole solve of a small problem in one call, and the outcome of its iterations."""

from .newton.small import SmallResult, SmallWorkspace, alloc_small, newton_small
from .newton.verdict import (
    EXACT_FIT,
    GO_ON,
    MINIMUM,
    NEAR_POLE,
    NEEDS_EXACT,
    NEEDS_IMAGE,
    NEEDS_NULL_SPACE,
    NO_DESCENT,
    NONFINITE,
    ON_A_RAY,
    SATURATED_ROWS,
    advance,
    advance_serial,
    verdict_at,
)

__all__ = [
    "EXACT_FIT",
    "GO_ON",
    "MINIMUM",
    "NEAR_POLE",
    "NEEDS_EXACT",
    "NEEDS_IMAGE",
    "NEEDS_NULL_SPACE",
    "NONFINITE",
    "NO_DESCENT",
    "ON_A_RAY",
    "SATURATED_ROWS",
    "SmallResult",
    "SmallWorkspace",
    "advance",
    "advance_serial",
    "alloc_small",
    "newton_small",
    "verdict_at",
]
