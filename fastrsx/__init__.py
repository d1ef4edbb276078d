"""fastrsx: regression on f = u / <u, 1>, u = exp(A x) + A x, by Newton's method with fused Numba kernels.

Names are loaded on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .system import forks as forks

if TYPE_CHECKING:
    from .batch import BatchResult, newton_batch
    from .bounds import LipschitzBounds, lipschitz_bounds
    from .checkpoint import Checkpoint
    from .converging import Contraction, Convergence, convergence
    from .convexity import Curvature, EigenvalueRange, curvature, psd_weights
    from .linking import Link, LinkCheck, check_link
    from .planning import Plan, plan
    from .problem import Factors, Problem, predict
    from .result import History, NewtonResult, Record, Status
    from .solver import newton
    from .warming import warmup

__version__ = "0.1.0"

# No submodule has the name of a function here: importing it would hide the function.
_MODULE_OF = {
    "BatchResult": "batch",
    "newton_batch": "batch",
    "Checkpoint": "checkpoint",
    "Link": "linking",
    "LinkCheck": "linking",
    "check_link": "linking",
    "Contraction": "converging",
    "Convergence": "converging",
    "convergence": "converging",
    "Curvature": "convexity",
    "LipschitzBounds": "bounds",
    "EigenvalueRange": "convexity",
    "curvature": "convexity",
    "lipschitz_bounds": "bounds",
    "psd_weights": "convexity",
    "newton": "solver",
    "Plan": "planning",
    "plan": "planning",
    "Factors": "problem",
    "Problem": "problem",
    "predict": "problem",
    "History": "result",
    "NewtonResult": "result",
    "Record": "result",
    "Status": "result",
    "warmup": "warming",
}

__all__ = [
    "BatchResult",
    "Checkpoint",
    "Contraction",
    "Convergence",
    "Curvature",
    "EigenvalueRange",
    "Factors",
    "History",
    "Link",
    "LinkCheck",
    "LipschitzBounds",
    "NewtonResult",
    "Plan",
    "Problem",
    "Record",
    "Status",
    "check_link",
    "convergence",
    "curvature",
    "lipschitz_bounds",
    "newton",
    "newton_batch",
    "plan",
    "predict",
    "psd_weights",
    "warmup",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fastrsx' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
