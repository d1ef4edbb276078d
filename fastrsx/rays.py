"""Where the infimum is not attained: rays x + t p along which the loss falls for ever.

Rows saturate along such a ray: with an intercept, f tends to the plain softmax as exp(a) outgrows a; for a one-hot b,
to b itself. The loss then has an exponential tail, on which Newton's method takes steps of constant length for ever.
"""

from typing import NamedTuple

import numpy as np

from .inputs import Vector
from .passes import Passes, Point

AHEAD = 64  # units looked at ahead, one by one
BEHIND = 64  # and behind, by quarters


class Ray(NamedTuple):
    """A direction to look along."""

    direction: Vector  # in columns of unit RMS
    image: Vector  # A times it
    unit: float  # of length along it

    @classmethod
    def of(cls, direction: Vector, image: Vector) -> "Ray":
        """With max |A p| as the unit."""
        return cls(direction, image, float(np.abs(image).max()))


def falls_ahead(passes: Passes, a: Vector, point: Point, ray: Ray, by: float) -> bool:
    """Whether the loss never rises on the ray as far as we look, and is less by this part of itself at the end."""
    if not ray.unit > 0:
        return False
    scratch = np.empty_like(a)
    lowest = point.fun
    for tau in range(1, AHEAD + 1):
        fun = passes.evaluate(a, ray.image, tau / ray.unit, scratch).fun
        if not fun <= lowest + point.noise:
            return False
        lowest = min(lowest, fun)
    return lowest <= (1 - by) * point.fun


def lowest_behind(passes: Passes, a: Vector, point: Point, ray: Ray) -> float:
    """The t < 0 with a clearly lower loss than here, or 0: a ray may have been entered by one long step over the minimum.

    Looks no further than the pole.
    """
    scratch = np.empty_like(a)
    best, lowest = 0.0, point.fun - 10 * point.noise
    for quarters in range(1, 4 * BEHIND + 1):
        t = -0.25 * quarters / ray.unit
        fun = passes.evaluate(a, ray.image, t, scratch).fun
        if not fun < np.inf:
            break
        if fun < lowest:
            best, lowest = t, fun
    return best
