"""A layout, an engine and a link from outside, each in one file of tests/extensions, through the registries; see CONTRIBUTING.md."""

from typing import NamedTuple

import numpy as np
import pytest
from extensions import scaled_int8, softplus, two_arrays

import fastrsx
from fastrsx.kernels.lanes import batch
from fastrsx.kernels.layouts import registry

RNG = np.random.default_rng(17)
N, D = 900, 7
A = RNG.standard_normal((N, D))
X = RNG.standard_normal(D) / 2
HESSIANS = ("exact", "sampled", "matrix-free")


def target(A, noise=0.1):
    b = fastrsx.predict(A, X) * RNG.uniform(1 - noise, 1 + noise, len(A))
    return b / b.sum()


def assert_same_solve(found, expected, A):
    assert found.status == expected.status
    assert found.fun == pytest.approx(expected.fun, rel=1e-9)
    np.testing.assert_allclose(A @ found.x, A @ expected.x, atol=1e-6 * np.abs(A @ expected.x).max())


@pytest.mark.parametrize("hessian", ["exact", "matrix-free"])
def test_a_layout_in_one_file(hessian):
    stored = scaled_int8.ScaledInt8(A)
    b = target(stored[:])
    given = {"hessian": hessian, "kernel": "serial"}
    found = fastrsx.newton(stored, b, **given)
    assert "int8 times a scale" in found.kernel
    assert_same_solve(found, fastrsx.newton(stored[:], b, **given), stored[:])
    problem, x = fastrsx.Problem(stored, b, w=0.01, kernel="serial"), X / 3
    dense = fastrsx.Problem(stored[:], b, w=0.01)
    np.testing.assert_allclose(problem.hess(x), dense.hess(x), rtol=1e-12, atol=1e-16)


def test_a_source_without_a_shape_is_refused():
    class Bare(NamedTuple):
        values: np.ndarray

    with pytest.raises(TypeError, match=r"layout 'bare' has the fields \('values',\); it must have n and d"):
        registry.register(registry.Layout("bare", "A as it is", lambda A: False, source=Bare))


@pytest.mark.parametrize("split", [1, 130, 600])
@pytest.mark.parametrize("hessian", HESSIANS)
def test_an_engine_in_one_file(hessian, split):
    stored, b = two_arrays.TwoArrays(A[:split].copy(), A[split:].copy()), target(A)
    found = fastrsx.newton(stored, b, hessian=hessian, sample_rows=300)
    assert "A read from two arrays" in found.kernel
    assert_same_solve(found, fastrsx.newton(A, b, hessian=hessian, sample_rows=300), A)
    near = np.column_stack([A, A.sum(axis=1) + 1e-3 * A[:, 0] ** 2])  # nearly dependent: steps in an orthonormal basis
    stored = two_arrays.TwoArrays(near[:split].copy(), near[split:].copy())
    assert_same_solve(fastrsx.newton(stored, b, hessian=hessian), fastrsx.newton(near, b, hessian=hessian), near)


def test_a_link_in_one_file():
    """In lanes; by rows: test_own_links.py; on a GPU: test_cuda.py."""
    small, b = A[:60, :3].copy(), target(A[:60])
    nine, sizes = np.arange(9), np.full(9, 60)
    places = batch.Places(sizes, np.full(9, 3), 180 * nine, 60 * nine, 3 * nine)
    out = batch.Outcomes(np.empty(9, np.int64), np.empty(9), np.empty(9, np.int64), np.empty(9, np.int64))
    x = np.zeros(27)
    batch.solve_each(softplus.LINK.compiled, np.tile(small.ravel(), 9), x, np.tile(b, 9), np.empty(0), places, 1e-10, 100, out)
    assert set(out.status) <= {0, 1}
    u = np.log1p(np.exp(small @ x.reshape(9, 3).T))
    np.testing.assert_allclose(out.fun, ((u / u.sum(axis=0) - b[:, None]) ** 2).sum(axis=0), rtol=1e-10)
    steps = 1e-4 * np.eye(3)
    for step in (*steps, *-steps):
        u = np.log1p(np.exp(small @ (x[:3] + step)))
        assert ((u / u.sum() - b) ** 2).sum() > out.fun[0]
