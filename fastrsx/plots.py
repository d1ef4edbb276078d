"""Pictures of a result, by matplotlib, which is imported when one is drawn."""

from typing import Any

import numpy as np

from .inputs import Vector

MOST_POINTS = 20_000  # beyond, rows are counted in hexagons
INSTALL = "a picture needs matplotlib: pip install 'fastrsx[plot]'"


def axes(ax: Any) -> Any:
    """The caller's axes, or new ones of pyplot."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ModuleNotFoundError(INSTALL, name="matplotlib") from None
    return pyplot.subplots()[1]


def fit(ax: Any, b: Vector, f: Vector) -> Any:
    """b over f, and the line on which they are equal; logarithmic where all are positive."""
    ax = axes(ax)
    low, high = min(b.min(), f.min()), max(b.max(), f.max())
    scale = "log" if low > 0 else "linear"
    if len(b) > MOST_POINTS:
        ax.hexbin(f, b, gridsize=60, bins="log", mincnt=1, xscale=scale, yscale=scale)
    else:
        ax.plot(f, b, ".", markersize=4, alpha=0.5)
    ax.plot([low, high], [low, high], color="0.5", linewidth=1)
    ax.set(xscale=scale, yscale=scale, xlabel="fitted f(x)", ylabel="b")
    return ax


def history(ax: Any, grad_norm: Vector, decrement: Vector) -> Any:
    """The norm of the gradient and the promised decrease of each step; zeros, which have no logarithm, are left out."""
    ax = axes(ax)
    for name, values, mark in (("norm of the gradient", grad_norm, "o-"), ("decrease that the model promised", decrement, "s--")):
        ax.plot(np.arange(len(values)), np.where(values > 0, values, np.nan), mark, markersize=4, label=name)
    ax.set(yscale="log", xlabel="step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax
