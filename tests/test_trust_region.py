"""The d x d subproblem against eigenvalues and bisection, and the routines that it uses."""

import numpy as np
import pytest

from fastrsx.kernels.layouts.panel import padded
from fastrsx.kernels.newton import cholesky, trust_region
from fastrsx.kernels.registers.gram import packed_blocks


def best_decrease(g, H, radius):
    """Minus the minimum of g.p + 1/2 p.H p over ||p|| <= radius, in the eigenvectors of H."""
    w, Q = np.linalg.eigh(H)
    c = Q.T @ g
    tiny = 1e-40 * max(abs(w).max(), np.linalg.norm(g) / radius, 1e-200)

    def solution(delta):
        """The solution for H + lam I, lam = delta - w[0]."""
        return -c / (w - w[0] + delta)

    low, high = max(w[0], tiny), max(w[0], tiny, np.linalg.norm(g) / radius)
    y = solution(low)
    if np.linalg.norm(y) > radius:
        for _ in range(400):  # bisects the ratio of the ends, so that a lam next to -w[0] is found, too
            middle = np.sqrt(low) * np.sqrt(high)
            low, high = (middle, high) if np.linalg.norm(solution(middle)) > radius else (low, middle)
        y = solution(high)
    elif w[0] <= 0:  # the hard case: the eigenvector of w[0] extends p to the radius
        y[0] = 0
        y[0] = np.sqrt(max(radius**2 - y @ y, 0))
    return -(c @ y + 0.5 * w @ y**2)


def lying_across(g, Q, w, remainder):
    """g with only this fraction of its component along the lowest eigenvector."""
    lowest = Q[:, np.argmin(w)]
    return g - (1 - remainder) * (lowest @ g) * lowest


def random_model(kind, seed):
    rng = np.random.default_rng([KINDS.index(kind), seed])
    d = 1 if kind == "one column" else int(rng.integers(2, 40))
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    w = rng.standard_normal(d) * 10 ** rng.uniform(-3, 3, d)
    g = rng.standard_normal(d) * 10 ** rng.uniform(-5, 2)
    radius = 10 ** rng.uniform(-3, 2)
    if kind == "definite":
        w = abs(w)
    elif kind in ("rank-deficient", "rank-deficient, g in the range"):
        w = abs(w)
        w[: (d + 1) // 2] = 0
    elif kind == "indefinite":
        w[0] = -abs(w[0])
    elif kind == "no curvature":
        w[:] = 0
    elif kind == "several lowest eigenvalues":
        w[: (d + 1) // 2] = w.min() - 1
    if kind in ("hard", "several lowest eigenvalues"):
        g = lying_across(g, Q, w, 0)
    elif kind == "nearly hard":
        g = lying_across(g, Q, w, 10 ** rng.uniform(-12, -2))
    elif kind == "no gradient":
        g = np.zeros(d)
    elif kind == "rank-deficient, g in the range":
        g = Q @ (w * g) / max(w.max(), 1)
    H = Q @ (w[:, None] * Q.T)
    return g, (H + H.T) / 2, radius


KINDS = [
    "definite",
    "indefinite",
    "hard",
    "nearly hard",
    "several lowest eigenvalues",
    "no gradient",
    "no curvature",
    "rank-deficient",
    "rank-deficient, g in the range",
    "one column",
]


def step(g, H, radius):
    p, z = np.full(len(g), np.nan), np.full(len(g), np.nan)
    decrease, newton, min_eig, _ = trust_region.step(g, H, radius, p, z)
    return p, z, decrease, newton, min_eig


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", KINDS)
def test_step(kind, seed):
    check_step(*random_model(kind, seed))


@pytest.mark.parametrize("d", [1, 2, 9])
@pytest.mark.parametrize("curvature", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("slope", [0.0, 1.0])
@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_step_of_a_multiple_of_the_identity(radius, slope, curvature, d):
    """Then the secular equation is linear, and its root is found in one step."""
    check_step(np.full(d, slope), curvature * np.eye(d), radius)


def check_step(g, H, radius):
    p, z, decrease, newton, min_eig = step(g, H, radius)
    eigenvalues = np.linalg.eigvalsh(H)
    size, length = abs(eigenvalues).max(), np.linalg.norm(p)
    rounding = 1e-13 * (np.linalg.norm(g) * radius + size * radius**2)
    assert length <= 1.06 * radius
    assert decrease == pytest.approx(-(g @ p + 0.5 * p @ H @ p), rel=1e-12, abs=rounding)
    assert decrease >= 0.9 * best_decrease(g, H, radius) - rounding
    assert min_eig >= eigenvalues[0] - 1e-12 * size
    assert np.linalg.norm(z) == pytest.approx(1)
    assert min_eig == pytest.approx(z @ H @ z, rel=1e-12, abs=1e-12 * size)
    if newton:
        assert eigenvalues[0] >= -1.01e-10 * size
        assert length <= radius
        assert np.linalg.norm(H @ p + g) <= 1e-9 * size * length + 1e-12 * np.linalg.norm(g)
    elif eigenvalues[0] > 1e-6 * size:
        assert np.linalg.norm(np.linalg.solve(H, g)) > 0.99 * radius  # otherwise it would have been Newton's step


def test_min_eig_is_near_the_smallest_eigenvalue_where_the_step_is_newtons():
    """Inverse iteration with H itself."""
    for seed in range(40):
        g, H, _ = random_model("definite", seed)
        *_, newton, min_eig = step(g, H, 1e9)
        assert newton
        assert min_eig == pytest.approx(np.linalg.eigvalsh(H)[0], rel=1, abs=1e-12 * np.linalg.norm(H))


# -- Cholesky ------------------------------------------------------------------------------------------------


SIZES = [1, 5, 31, 32, 33, 64, 100]


def definite(d):
    A = np.random.default_rng(d).standard_normal((2 * d, d))
    return A.T @ A / (2 * d) + 0.01 * np.eye(d)


def factor(H, lam=0.0):
    U = np.full((padded(len(H)),) * 2, np.nan)
    return cholesky.factor(H, lam, U, np.full(cholesky.BLOCK, -1.0), np.empty((packed_blocks(len(U)), cholesky.BLOCK, 8))), U


@pytest.mark.parametrize("d", SIZES)
def test_factor_matches_numpy(d):
    H = definite(d)
    before = H.copy()
    for lam in (0.0, 0.5):
        done, U = factor(H, lam)
        assert done
        U = np.triu(U[:d, :d])
        np.testing.assert_allclose(U, np.linalg.cholesky(H + lam * np.eye(d)).T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(U.T @ U, H + lam * np.eye(d), rtol=0, atol=1e-14 * d)
    np.testing.assert_array_equal(H, before)


@pytest.mark.parametrize("d", SIZES)
def test_solves_with_the_factor_match_numpy(d):
    H = definite(d)
    U = factor(H)[1]
    y = np.linspace(-1, 1, d) + 2
    z = y.copy()
    cholesky.solve_transposed(U, z)
    np.testing.assert_allclose(z, np.linalg.solve(np.triu(U[:d, :d]).T, y), rtol=1e-9)
    cholesky.solve_upper(U, z)
    np.testing.assert_allclose(z, np.linalg.solve(H, y), rtol=1e-9)


@pytest.mark.parametrize("d", SIZES)
def test_factor_of_an_indefinite_matrix_is_refused(d):
    """Wherever the negative pivot occurs; a shift that makes the matrix definite is accepted."""
    for place in {0, d // 2, d - 1}:
        H = definite(d)
        unit = np.eye(d)[place]
        H -= 1.5 / np.linalg.solve(H, unit)[place] * np.outer(unit, unit)  # 1 / (the inverse's entry) would make it singular
        lowest = np.linalg.eigvalsh(H)[0]
        assert lowest < 0
        assert not factor(H)[0]
        assert not factor(H, -0.99 * lowest)[0]
        assert factor(H, -1.01 * lowest)[0]


def test_factor_of_a_nan_is_refused():
    H = definite(40)
    H[35, 35] = np.nan
    assert not factor(H)[0]


# -- saturation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [0, 0.5, 1, 1 - 1e-12])
def test_saturation_is_the_part_of_the_terms_that_is_left(cancelled):
    rng = np.random.default_rng(0)
    v, q = rng.standard_normal((2, 6))
    scale = 10 ** rng.uniform(-3, 3, 6)
    R = 2 * (np.outer(v, q) + np.outer(q, v))
    G = cancelled * R + (1 - cancelled) * definite(6)
    H = G - R
    norm = np.linalg.norm
    assert trust_region.saturation(H, scale * v, scale * q, scale) == pytest.approx(norm(H) / (norm(H + R) + norm(R)), rel=1e-12)


def test_saturation_without_any_terms_is_1():
    assert trust_region.saturation(np.zeros((3, 3)), np.zeros(3), np.zeros(3), np.ones(3)) == 1


def test_no_step_where_the_model_is_not_finite():
    for g, H in (([np.nan, 1.0], np.eye(2)), ([1.0, 1.0], np.full((2, 2), 1e200))):
        p, z = np.full(2, 7.0), np.full(2, 7.0)
        assert trust_region.step(np.array(g), H, 1.0, p, z)[:2] == (0.0, False)
        assert not p.any()
        assert not z.any()
