"""The engines, which run the passes over A: kernels on arrays in memory, A in parts, in a file, on a GPU, on a cluster. The one list of engines.

A new engine is a class that implements `contract.Engine`, in a file of its own, and a line here or a call to `register`. Where A
comes in parts, it is a subclass of `parts.PartsPasses` with one method. A `Layout` of the same name recognises its A.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import Engine

_ENGINES: dict[str, tuple[str, str] | Any] = {  # by the name of a loader: a module here and its class, or the class
    "stream": ("file", "StreamedPasses"),
    "dask": ("dask", "DaskPasses"),
    "device": ("cuda", "CudaPasses"),
    "device copy": ("cuda", "CudaPasses"),
    "device sparse": ("cuda_sparse", "SparseCudaPasses"),
}


def register(loader: str, engine: Any) -> None:
    """Make `engine(data, b, w, plan, link)` run the passes over an A that the loader of this name loads."""
    _ENGINES[loader] = engine


def passes_over(data: Any, b: Any, w: Any, plan: Any, link: Any = None, grouped: tuple[Any, ...] = ()) -> "Engine":
    """The passes over data of any kind, by default for u = exp(a) + a; `grouped` has offsets, multiplicities and residual weights."""
    loader = data.loader.name
    engine = _ENGINES.get(loader, ("memory", "Passes"))
    if isinstance(engine, tuple):
        module, name = engine
        engine = getattr(importlib.import_module(f".{module}", __name__), name)
        register(loader, engine)
    if link is None:
        from fastrsx.kernels.formulas.links import RSX

        link = RSX
    if grouped:
        from .groups import grouped_version

        engine = grouped_version(engine)
    return engine(data, b, w, plan, link, *grouped)
