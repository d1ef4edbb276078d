"""The naive reference with groups of rows, multiplicities and residual weights: against finite differences, and against algebra."""

import numpy as np
import pytest

from naive import Naive, five_point_gradient, numbered

LINKS = pytest.mark.parametrize("link", ["rsx", "softmax", "linear"])
N, D = 23, 4
STRUCTURES = {
    "none": None,
    "one": np.zeros(N, int),
    "of one row": np.arange(N),
    "in turn": np.arange(N) % 3,
    "ragged": np.array([*"abbbcccccddddd", *"eabcddddd"]),
    "one huge": np.where(np.arange(N) < N - 5, 0, np.arange(N)),
}
GROUPS = pytest.mark.parametrize("groups", STRUCTURES.values(), ids=STRUCTURES)
TOL = 1e-12 if np.finfo(np.longdouble).eps > 1e-18 else 1e-15  # a few hundred eps of longdouble


def example(seed, positive=False):
    """(A, b, x, w, m, r), with alpha > 0 in all groups: rows above -0.567 for rsx, positive ones for the linear link."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.2, 0.6, D)
    A = rng.uniform(0.1, 1.5, (N, D)) if positive else rng.normal(0.3, 0.3, (N, D))
    return A, 2 * rng.random(N) / N, x, 0.4 * rng.random(N), 3 * rng.random(N), 2 * rng.random(N)


def is_kept(groups):
    """Without every third row, except the last row of a group, which needs one."""
    last = {label: i for i, label in enumerate([0] * N if groups is None else groups.tolist())}
    return (np.arange(N) % 3 > 0) | np.isin(np.arange(N), list(last.values()))


def assert_close(found, expected, tol=TOL):
    """Arrays of equal shapes, up to rounding in longdouble of their largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= tol * max(abs(expected).max(), 1)


def assert_same(one, other, tol=TOL):
    for name in ("value", "grad", "hess"):
        assert_close(getattr(one, name), getattr(other, name), tol)


# -- finite differences -------------------------------------------------------------------------------------------


@LINKS
@GROUPS
@pytest.mark.parametrize("zeros", ["", "m", "r", "m and r"])
def test_derivatives_match_five_point_differences(groups, link, zeros):
    A, b, x, w, m, r = example(0, link == "linear")
    if "m" in zeros:
        m = np.where(is_kept(groups), m, 0)
    if "r" in zeros:
        r[1::3] = 0

    def at(y):
        return Naive(A, b, y, w=w, link=link, groups=groups, m=m, r=r)

    here, x = at(x), x.astype(np.longdouble)
    assert (here.alpha > 0).all()
    assert_close(five_point_gradient(lambda y: at(y).value, x, 1e-3), here.grad, 1e-10)
    assert_close(five_point_gradient(lambda y: at(y).grad, x, 1e-3), here.hess, 1e-10)
    log_alpha = five_point_gradient(lambda y: np.log(at(y).alpha), x, 1e-3)  # its gradient is V, to which f and so all else leads
    assert_close(log_alpha if groups is None else log_alpha.T, here.V[0], 1e-10)


@GROUPS
def test_a_link_of_one_s_own(groups):
    A, b, x, w, m, r = example(1)

    def cosh(a):
        return np.cosh(a), np.sinh(a), np.cosh(a)

    def at(y):
        return Naive(A, b, y, w=w, link=cosh, groups=groups, m=m, r=r)

    x = x.astype(np.longdouble)
    assert_close(five_point_gradient(lambda y: at(y).grad, x, 1e-3), at(x).hess, 1e-10)


# -- shapes, and what changes nothing -----------------------------------------------------------------------------


@LINKS
def test_ones_and_one_group_change_nothing(link):
    A, b, x, w, _, _ = example(2, link == "linear")
    plain, one = Naive(A, b, x, w=w, link=link), Naive(A, b, x, w=w, link=link, groups=["all"] * N, m=np.ones(N), r=np.ones(N))
    for name in ("u", "v", "e", "f", "f_scale", "c", "D", "D_scale", "q", "q_scale", "kappa", "value", "value_scale", "grad", "grad_scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(plain, name), err_msg=name)
    for name in ("alpha", "s", "F"):
        np.testing.assert_array_equal(getattr(one, name), [getattr(plain, name)], err_msg=name)
    for name in ("V", "V_scale", "V_split_scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(plain, name)[:, None], err_msg=name)
    for name in ("hess", "hess_scale", "grad_split_scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(plain, name), err_msg=name)


@GROUPS
def test_quantities_of_groups_are_arrays(groups):
    A, b, x, w, m, r = example(3)
    found = Naive(A, b, x, w=w, groups=groups, m=m, r=r)
    shape = () if groups is None else (len(set(groups.tolist())),)
    assert np.shape(found.alpha) == np.shape(found.s) == np.shape(found.F) == shape
    assert found.V.shape == found.V_scale.shape == found.V_split_scale.shape == (2, *shape, D)
    assert np.shape(found.kappa) == np.shape(found.value) == ()
    assert found.f.shape == (N,)
    assert_close(found.in_groups(np.sum, found.f), np.ones(shape))


def test_groups_come_in_the_order_of_first_appearance():
    labels = ["d", (1, 2), "d", 7, (1, 2)]
    np.testing.assert_array_equal(numbered(labels), [0, 1, 0, 2, 1])
    a = np.log(np.arange(1.0, 6.0))
    np.testing.assert_allclose(Naive(np.eye(5), np.zeros(5), a=a, link="softmax", groups=labels).alpha.astype(float), [4, 7, 4], rtol=1e-15)


@LINKS
@GROUPS
def test_magnitudes_bound_their_quantities(groups, link):
    found = Naive(*example(4, link == "linear")[:3], link=link, groups=groups, m=example(4)[4], r=example(4)[5])
    for name in ("f", "D", "q", "V", "value", "grad", "hess"):
        assert (abs(getattr(found, name)) <= getattr(found, f"{name}_scale") * (1 + TOL)).all(), name
    assert (found.grad_scale <= found.grad_split_scale * (1 + TOL)).all()
    assert (found.V_scale <= found.V_split_scale * (1 + TOL)).all()
    assert found.kappa >= 1 - TOL


# -- algebra ------------------------------------------------------------------------------------------------------


@LINKS
@pytest.mark.parametrize("structure", ["one", "of one row", "in turn", "ragged", "one huge"])
def test_the_loss_is_the_sum_over_groups(structure, link):
    """Each group is a problem of its own in the same x; what groups share is only the sum."""
    A, b, x, w, m, r = example(5, link == "linear")
    groups = STRUCTURES[structure]
    whole = Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r)
    rows = [groups == label for label in dict.fromkeys(groups.tolist())]
    parts = [Naive(A[i], b[i], x, w=w[i], link=link, m=m[i], r=r[i]) for i in rows]
    for name in ("value", "value_scale", "grad", "grad_scale", "grad_split_scale", "hess", "hess_scale"):
        assert_close(getattr(whole, name), sum(getattr(part, name) for part in parts))
    for name in ("alpha", "s", "F"):
        assert_close(getattr(whole, name), [getattr(part, name) for part in parts])
    for name in ("V", "V_scale", "V_split_scale"):
        assert_close(getattr(whole, name), np.stack([getattr(part, name) for part in parts], axis=1))
    for name in ("f", "c", "D", "q", "D_scale", "q_scale"):
        for i, part in zip(rows, parts, strict=True):
            assert_close(getattr(whole, name)[i], getattr(part, name))
    assert whole.kappa == max(part.kappa for part in parts)


@LINKS
@GROUPS
def test_the_order_of_rows_does_not_count(groups, link):
    A, b, x, w, m, r = example(6, link == "linear")
    order = np.random.default_rng(6).permutation(N)
    one = Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r)
    other = Naive(A[order], b[order], x, w=w[order], link=link, groups=None if groups is None else groups[order], m=m[order], r=r[order])
    assert_same(one, other)
    assert_close(other.f, one.f[order])


@LINKS
@GROUPS
def test_a_multiplicity_stands_for_equal_rows(groups, link):
    """Row i with m_i = k is k copies of it, each with b_i/k, k r_i and w_i/sqrt(k).

    Each copy has f_i/k, so k r_i (f_i/k - b_i/k)^2, k times, is r_i (f_i - b_i)^2.
    """
    A, b, x, w, _, r = example(7, link == "linear")
    k = np.random.default_rng(7).integers(1, 4, N)
    one = Naive(A, b, x, w=w, link=link, groups=groups, m=k, r=r)
    copies = [np.repeat(y, k, axis=0) for y in (A, b / k, w / np.sqrt(k.astype(np.longdouble)), r * k)]
    many = Naive(*copies[:2], x, w=copies[2], link=link, groups=None if groups is None else np.repeat(groups, k), r=copies[3])
    assert_same(one, many, 100 * np.finfo(float).eps)  # b/k is rounded to double
    assert_close(many.alpha, one.alpha)
    assert_close(many.f, np.repeat(one.f / k, k))


@LINKS
@GROUPS
def test_multiplicities_of_a_group_count_up_to_a_factor(groups, link):
    A, b, x, w, m, r = example(8, link == "linear")
    factors = 2.0 ** np.random.default_rng(8).integers(-9, 9, N)
    scaled = m * (factors[0] if groups is None else factors[numbered(groups)])
    assert_same(Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r), Naive(A, b, x, w=w, link=link, groups=groups, m=scaled, r=r))


@LINKS
@GROUPS
def test_a_row_without_a_residual_takes_its_share(groups, link):
    """With r_i = 0 the row is in alpha, and its b_i is in nothing: L is the sum over the other rows."""
    A, b, x, _, m, _ = example(9, link == "linear")
    r = np.arange(N) % 3 > 0
    one, other = (Naive(A, y, x, link=link, groups=groups, m=m, r=r) for y in (b, np.where(r, b, 100.0)))
    for name in ("value", "grad", "hess"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    f = Naive(A, b, x, link=link, groups=groups, m=m).f
    assert_close(one.value, ((f - b)[r] ** 2).sum())
    jacobian = five_point_gradient(lambda y: Naive(A, b, y, link=link, groups=groups, m=m).f, x.astype(np.longdouble), 1e-3)
    assert_close(2 * jacobian[:, r] @ (f - b)[r], one.grad, 1e-10)


@LINKS
@GROUPS
def test_a_multiplicity_of_0_is_a_row_left_out(groups, link):
    """Where b_i and w_i are 0. A b_i adds r_i b_i^2 to the loss and nothing to its derivatives; a w_i keeps its penalty."""
    A, b, x, w, m, r = example(10, link == "linear")
    kept = is_kept(groups)
    m = np.where(kept, m, 0)
    left = None if groups is None else groups[kept]
    out = Naive(A[kept], b[kept], x, w=w[kept], link=link, groups=left, m=m[kept], r=r[kept])
    masked = Naive(A, np.where(kept, b, 0), x, w=np.where(kept, w, 0), link=link, groups=groups, m=m, r=r)
    assert_same(masked, out)
    assert (masked.f[~kept] == 0).all()
    with_b = Naive(A, b, x, w=np.where(kept, w, 0), link=link, groups=groups, m=m, r=r)
    assert_close(with_b.value, out.value + (r * b.astype(np.longdouble) ** 2)[~kept].sum())
    np.testing.assert_array_equal(with_b.grad, masked.grad)
    np.testing.assert_array_equal(with_b.hess, masked.hess)


@GROUPS
def test_a_constant_of_a_group_does_not_count_in_softmax(groups):
    A, b, x, _, m, r = example(11)
    a = (A @ x).astype(np.longdouble)
    shift = np.random.default_rng(11).normal(0, 3, N)
    shift = shift[0] if groups is None else shift[numbered(groups)]
    one, other = (Naive(A, b, a=y, link="softmax", groups=groups, m=m, r=r) for y in (a, a + shift))
    assert_same(one, other)
    assert_close(other.f, one.f)


@GROUPS
def test_weights_of_residuals_scale_the_loss(groups):
    A, b, x, w, m, r = example(12)
    one, other = Naive(A, b, x, w=w, groups=groups, m=m, r=r), Naive(A, b, x, w=2 * w, groups=groups, m=m, r=4 * r)
    for name in ("value", "grad", "hess"):
        assert_close(getattr(other, name), 4 * getattr(one, name))
