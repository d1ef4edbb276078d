"""The bundled real problem: market shares of cars."""

import gzip
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from .inputs import Matrix, Vector

COLUMNS = ("price", "hpwt", "air", "mpd", "space")


class Automobiles(NamedTuple):
    """2217 US car models, 1971-1990 (Berry, Levinsohn and Pakes 1995; `automobiles.txt` beside the data says more).

    Attributes
    ----------
    A : (2217, 5) array
        price, horsepower by weight, air conditioning, miles per dollar and space; mean 0 and standard deviation 1.
    b : (2217,) array
        Market shares, normalised to sum to 1.
    names : tuple of str
        The columns of A.
    year, model_id : (2217,) int arrays
        Which car.
    """

    A: Matrix
    b: Vector
    names: tuple[str, ...]
    year: np.ndarray
    model_id: np.ndarray


def load_automobiles() -> Automobiles:
    """The automobile market-share problem, ready for `newton`.

    Examples
    --------
    >>> from fastrsx.data import load_automobiles
    >>> cars = load_automobiles()
    >>> cars.A.shape, cars.names[0], round(float(cars.b.sum()), 12)
    ((2217, 5), 'price', 1.0)
    """
    lines = gzip.decompress(files("fastrsx").joinpath("automobiles.csv.gz").read_bytes()).decode().splitlines()
    table = dict(zip(lines[0].split(","), np.loadtxt(lines[1:], delimiter=",").T, strict=True))
    X = np.column_stack([table[name] for name in COLUMNS])
    A = (X - X.mean(axis=0)) / X.std(axis=0)
    b = table["share"] / table["share"].sum()
    return Automobiles(A, b, COLUMNS, table["year"].astype(int), table["model_id"].astype(int))
