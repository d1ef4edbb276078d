"""The convergence theorem measured, against the naive formulas in longdouble."""

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx.converging import Contraction

LINKS = ("rsx", "softmax")


def noisy(n=300, d=4, link="rsx", seed=0):
    """Gaussian A, an f(x) with errors of up to a fifth in each row, and the x."""
    rng = np.random.default_rng([seed, n, d])
    A, x = rng.standard_normal((n, d)), rng.standard_normal(d)
    x /= np.std(A @ x)
    b = fastrsx.predict(A, x, link=link) * rng.uniform(0.8, 1.2, n)
    return A, b / b.sum(), x


def newton_step(ref):
    """H^-1 g, with one refinement for the digits beyond double."""
    H, g = ref.hess.astype(float), ref.grad
    step = np.linalg.solve(H, g.astype(float)).astype(np.longdouble)
    return step + np.linalg.solve(H, (g - ref.hess @ step).astype(float))


def minimum(A, b, x, **options):
    """The minimum near x, in longdouble."""
    x = np.asarray(x, np.longdouble)
    for _ in range(6):
        x = x - newton_step(naive.Naive(A, b, x, **options))
    return x


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_the_minimum_and_l_are_those_of_the_formulas(link, weighted):
    A, b, x0 = noisy(link=link)
    w = np.linspace(0, 2e-2, len(b)) if weighted else None
    found = fastrsx.convergence(A, b, x0, w=w, link=link)
    x = minimum(A, b, x0, w=w, link=link)
    assert np.linalg.norm((found.x - x).astype(float)) <= found.floor < 1e-12
    expected = np.linalg.eigvalsh(naive.Naive(A, b, x, w=w, link=link).hess.astype(float))
    assert found.least_eigenvalue == pytest.approx(expected[0], rel=1e-10)
    assert found.distance == pytest.approx(np.linalg.norm((x0 - x).astype(float)), rel=1e-9)


@pytest.mark.parametrize("link", LINKS)
def test_exact_steps_are_those_of_the_formulas_and_contract_quadratically(link):
    A, b, x0 = noisy(link=link)
    found = fastrsx.convergence(A, b, x0 + 0.05, link=link)
    run, x = found.contractions["exact"], x0 + np.longdouble(0.05)
    to = minimum(A, b, x0, link=link)
    errors = [np.linalg.norm((x - to).astype(float))]
    while errors[-1] > 1e-11:
        x = x - newton_step(naive.Naive(A, b, x, link=link))
        errors.append(np.linalg.norm((x - to).astype(float)))
    np.testing.assert_allclose(run.errors[: len(errors) - 1], errors[:-1], rtol=1e-3)
    assert run.end == "floor"
    assert len(run.factors) >= 3
    assert (np.diff(np.log(run.factors)) < -1).all()  # each is less than a third of the one before


def slope(A, b, x, y, **options):
    change = naive.Naive(A, b, x, **options).hess - naive.Naive(A, b, y, **options).hess
    return np.linalg.norm(change.astype(float), 2) / np.linalg.norm(x - y)


@pytest.mark.parametrize("link", LINKS)
def test_m_is_between_what_occurs_and_its_bound(link):
    A, b, x0 = noisy(link=link)
    found = fastrsx.convergence(A, b, x0, link=link)
    middle = (x0 + found.x) / 2
    slopes = [slope(A, b, x, y, link=link) for x, y in ((x0, found.x), (x0, middle), (middle, found.x))]
    assert max(slopes) * (1 - 1e-9) <= found.lipschitz <= found.lipschitz_bound
    assert found.lipschitz <= 3 * max(slopes)
    assert found.radius == pytest.approx(0.1 * found.least_eigenvalue / found.lipschitz)
    assert found.radius_bound == pytest.approx(0.1 * found.least_eigenvalue / found.lipschitz_bound)


@pytest.mark.parametrize("seed", range(5))
def test_the_theorem_holds_within_its_radius(seed):
    A, b, x0 = noisy(n=2000, seed=seed)
    first = fastrsx.convergence(A, b, x0)
    direction = np.random.default_rng(seed).standard_normal(len(x0))
    start = first.x + 0.25 * first.radius * direction / np.linalg.norm(direction)  # M may be larger along other directions
    found = fastrsx.convergence(A, b, start, rows=(80,))
    M, least = found.lipschitz, found.least_eigenvalue
    assert M * found.distance <= 0.1 * least
    exact = found.contractions["exact"]
    e = exact.errors[:-1][exact.errors[1:] > exact.floor]
    assert (exact.factors <= 1.01 * M * e / (2 * (least - M * e)) + exact.floor / e).all()
    assert (exact.factors <= 0.056).all()
    assert np.median(found.contractions["sampled, 80 d rows"].factors) < 0.4  # the papers'


def strongly_coupled():
    """A problem whose rank-2 term is not small: few rows carry f."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((500, 3))
    x = np.array([1.5, -1.0, 1.0])
    b = fastrsx.predict(A, x) * rng.uniform(0.9, 1.1, 500)
    return A, b / b.sum(), x


def test_without_the_rank_2_term_steps_contract_no_faster_than_its_share():
    A, b, x0 = strongly_coupled()
    found = fastrsx.convergence(A, b, x0 + 1e-3, rows=(80,), max_iter=100)
    ref = naive.Naive(A, b, found.x)
    rank_2 = 2 * (np.outer(*ref.V) + np.outer(*ref.V[::-1])).astype(float)
    share = np.abs(np.linalg.eigvals(np.linalg.solve(ref.hess.astype(float) + rank_2, rank_2))).max()
    assert share > 0.2
    runs = found.contractions
    tail = runs["diagonal"].factors[-4:-1]
    np.testing.assert_allclose(tail, share, rtol=0.02)
    assert runs["exact"].factors[-1] < 0.01 * share
    means = {name: np.exp(np.log(run.factors).mean()) for name, run in runs.items()}
    assert means["diagonal, 80 d rows"] > 0.7 * share > means["sampled, 80 d rows"]


def test_with_the_weights_of_the_theorem_the_rank_2_term_is_negligible():
    A, b, _ = noisy(n=2000, link="softmax")
    found = fastrsx.convergence(A, b, np.full(A.shape[1], 0.1), w=np.sqrt(18.0), link="softmax")  # the sandwich, for a loss without 1/2
    assert found.distance < found.radius_bound
    assert found.contractions["diagonal"].factors.max() < 0.01
    assert fastrsx.predict(A, found.x, link="softmax") == pytest.approx(1 / 2000, rel=0.01)  # whatever b is


def test_draws_follow_the_seed():
    A, b, x0 = noisy()
    first, again, other = (fastrsx.convergence(A, b, x0, seed=seed).contractions for seed in (1, 1, 2))
    for name, run in first.items():
        np.testing.assert_array_equal(run.errors, again[name].errors)
        assert ("rows" in name) == (len(run.errors) != len(other[name].errors) or (run.errors != other[name].errors).any())


def test_as_many_rows_as_there_are_are_not_drawn():
    A, b, x0 = noisy(n=100, d=4)
    assert list(fastrsx.convergence(A, b, x0, rows=(5, 25, 80)).contractions) == ["exact", "sampled, 5 d rows", "diagonal", "diagonal, 5 d rows"]


def test_a_step_that_ends_below_the_floor_is_not_measured():
    run = Contraction(np.array([1.0, 1e-1, 1e-4, 1e-16]), 1e-14, "floor")
    np.testing.assert_allclose(run.factors, [1e-1, 1e-3])
    assert [run.iterations(eps) for eps in (2.0, 1e-2, 1e-13, 1e-15)] == [0, 2, 3, None]


def test_a_run_from_too_far_away_says_how_it_ended():
    """With an intercept the pole is near, and plain Newton steps lead across it or to saturated rows."""
    rng = np.random.default_rng(0)
    A, x = np.column_stack([np.ones(30), rng.standard_normal((30, 1))]), np.full(2, 0.5)
    b = fastrsx.predict(A, x) * rng.uniform(0.9, 1.1, 30)
    b /= b.sum()
    ends = set()
    for _ in range(60):
        x0 = x + 1.5 * rng.random() * rng.standard_normal(2)
        if fastrsx.Problem(A, b).value(x0) < np.inf:
            found = fastrsx.convergence(A, b, x0)
            exact = found.contractions["exact"]
            assert f"  {exact.end}" in str(found)
            assert exact.end == "floor" or found.distance > found.radius
            assert exact.end != "floor" or exact.errors[-1] <= found.floor
            ends.add(exact.end)
    assert ends == {"floor", "diverged", "left the domain", "singular", "max_iter"}


def test_print_shows_all():
    A, b, x0 = noisy()
    found = fastrsx.convergence(A, b, x0)
    lines = str(found).splitlines()
    for word, number in (("l, the", found.least_eigenvalue), ("M, seen", found.lipschitz), ("good start", found.radius), ("||x0", found.distance)):
        assert any(line.startswith(word) and f"{number:.3e}" in line for line in lines)
    table = {line[:22].strip(): line for line in lines[6:]}
    assert set(found.contractions) <= set(table)
    exact = found.contractions["exact"]
    assert table["exact"].split()[1:7] == [
        *(f"{x:.2e}" for x in (exact.factors[0], np.median(exact.factors), exact.factors.max())),
        *(str(exact.iterations(part * found.distance)) for part in (1e-3, 1e-6, 1e-9)),
    ]


def softmax_hessian(rng):
    """The template's B at a random a, of 1/2 ||c||^2, for b >= 0 with a sum of at most 1; and a."""
    n = int(rng.integers(2, 30))
    a = rng.standard_normal(n) * 10.0 ** rng.uniform(-1, 1)
    b = (rng.dirichlet(np.full(n, 10.0 ** rng.uniform(-2, 1))), np.eye(1, n, int(np.argsort(a)[-2]))[0], np.zeros(n))[rng.integers(3)]
    return naive.Naive(np.eye(n), b, a, link="softmax").hess.astype(float) / 2, a


def test_the_hessian_of_the_softmax_stays_within_a_constant_of_0():
    rng, extremes = np.random.default_rng(0), np.zeros(2)
    for _ in range(2000):
        eigenvalues = np.linalg.eigvalsh(softmax_hessian(rng)[0])
        assert -0.75 <= eigenvalues[0] <= eigenvalues[-1] <= 1  # proven
        extremes = np.array([min(extremes[0], eigenvalues[0]), max(extremes[1], eigenvalues[-1])])
    p = (9 + np.array([-1, 1]) * np.sqrt(33)) / 24
    attained = 4 * p * (1 - p) ** 2 * (3 * p - 1)
    assert (np.abs(extremes) <= np.abs(attained) + 1e-12).all()
    assert (np.abs(extremes) >= 0.9 * np.abs(attained)).all()
    for share, value, end in zip(p, attained, (0, -1), strict=True):
        B = naive.Naive(np.eye(2), [1.0, 0.0], np.log([share, 1 - share]), link="softmax").hess.astype(float) / 2
        assert np.linalg.eigvalsh(B)[end] == pytest.approx(value, rel=1e-12)


def is_within_a_tenth(B, squared_weight):
    """Whether W^2 is B + W^2 up to 10 %."""
    W2 = squared_weight * np.eye(len(B))
    return all(np.linalg.eigvalsh(matrix)[0] >= 0 for matrix in (W2 - 0.9 * (B + W2), 1.1 * (B + W2) - W2))


def test_the_templates_weights_are_enough_and_a_constant_is():
    rng = np.random.default_rng(1)
    for _ in range(300):
        B, a = softmax_hessian(rng)
        assert np.linalg.eigvalsh(B + 0.75 * np.eye(len(a)))[0] >= 0  # the template: 20
        assert is_within_a_tenth(B, 9.0)
        radius_2 = max(100.0, abs(a).max())  # ||a|| <= R^2, R >= 10
        scale = np.exp(-radius_2)
        assert is_within_a_tenth(scale * (B + np.diag(np.exp(a))), 200.0)  # with the term <exp(a), 1> of its loss


def test_beside_the_pole_no_constant_is():
    """The least eigenvalue of B grows like 1/alpha^3, the largest like 1/alpha^4, with the constants of docs/theory.md."""
    b = np.full(2, 0.5)
    t = 3.0
    for alpha, tol in ((1e-2, 0.05), (1e-4, 5e-4)):
        s = np.longdouble(np.log(t))
        for _ in range(10):
            s -= (np.exp(s) + s + np.exp(-np.longdouble(t)) - t - alpha) / (np.exp(s) + 1)
        ref = naive.Naive(np.eye(2), b, a=[s, -np.longdouble(t)])
        u, v, e = (y.astype(float) for y in (ref.u, ref.v, ref.e))
        across = np.array([v[1], -v[0]]) / np.linalg.norm(v)
        least, largest = np.linalg.eigvalsh(ref.hess.astype(float))
        assert float(ref.alpha) == pytest.approx(alpha, rel=1e-9)
        assert least * alpha**3 == pytest.approx(-2 * (u @ u) * (e @ across**2), rel=tol)
        assert largest * alpha**4 == pytest.approx(6 * (u @ u) * (v @ v), rel=tol)


def with_intercept(A):
    return np.column_stack([A, np.ones(len(A))])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A, b: fastrsx.convergence(A, b, link="linear"), "^link is 'linear': f does not depend on the length of x"),
        (lambda A, b: fastrsx.convergence(with_intercept(A), b, link="softmax"), "eigenvalue .* 0 or less to rounding.*drop columns"),
        (lambda A, b: fastrsx.convergence(np.repeat(A, 2, axis=1), b), "0 or less to rounding"),
        (lambda A, b: fastrsx.convergence(A, np.eye(1, len(b))[0]), "newton finds no minimum from x0"),
        (lambda A, b: fastrsx.convergence(A, b, fastrsx.convergence(A, b).x), "^x0 is .* away from the minimum"),
        (lambda A, b: fastrsx.convergence(A, b, np.zeros(3)), "^x0 has 3 entries"),
        (lambda A, b: fastrsx.convergence(A, b, rows=(20, 0)), r"^rows\[1\] is 0"),
        (lambda A, b: fastrsx.convergence(A, b, max_iter=0), "^max_iter is 0"),
        (lambda A, b: fastrsx.convergence(A, b, seed=-1), "^seed is -1"),
        (lambda A, b: fastrsx.convergence(A, b, kernel="cuda"), "^kernel is 'cuda'"),
        (lambda A, b: fastrsx.convergence(A, b[:-1]), "^b has 299 entries"),
    ],
)
def test_bad_arguments(call, message):
    A, b, _ = noisy()
    with pytest.raises(ValueError, match=message):
        call(A, b)


@pytest.mark.parametrize(("options", "message"), [({"rows": 20}, "^rows is 20"), ({"rows": (2.5,)}, r"^rows\[0\]"), ({"seed": "a"}, "^seed")])
def test_bad_types(options, message):
    with pytest.raises(TypeError, match=message):
        fastrsx.convergence(*noisy()[:2], **options)


def test_nothing_of_the_callers_is_changed():
    A, b, x0 = noisy()
    before = [array.copy() for array in (A, b, x0)]
    fastrsx.convergence(A, b, x0)
    for array, copy in zip((A, b, x0), before, strict=True):
        np.testing.assert_array_equal(array, copy)
