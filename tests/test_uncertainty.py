"""Standard errors: against plain NumPy, SciPy's curve_fit, and the coverage of intervals in simulations."""

import copy
import pickle

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import softmax
from scipy.stats import norm

import fastrsx
from fastrsx.cli import main
from fastrsx.result import inference

N, D = 400, 3


def example(seed=0, size=1e-4):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((N, D)), np.array([0.5, -0.3, 0.0])
    return A, x, fastrsx.predict(A, x) + size * rng.standard_normal(N)


def shares(A, x):
    a = A @ x
    u = np.exp(a) + a
    return u / u.sum()


def jacobian(A, x):
    """df/dx by differences."""
    h = 1e-5
    return np.column_stack([(shares(A, x + h * e) - shares(A, x - h * e)) / (2 * h) for e in np.eye(len(x))])


def hessian(A, b, x, w=0.0):
    def grad(x):
        return 2 * jacobian(A, x).T @ (shares(A, x) - b) + A.T @ (w**2 * (A @ x))

    h = 1e-4
    return np.column_stack([(grad(x + h * e) - grad(x - h * e)) / (2 * h) for e in np.eye(len(x))])


@pytest.mark.parametrize("w", [None, 2e-3])
def test_covariances_are_those_of_plain_numpy(w):
    A, _, b = example()
    result = fastrsx.newton(A, b, w=w)
    J, c = jacobian(A, result.x), shares(A, result.x) - b
    H = hessian(A, b, result.x, w or 0.0)
    factor = N / (N - D)
    np.testing.assert_allclose(result.covariance(), np.linalg.inv(H) @ (4 * (J.T * c**2) @ J) @ np.linalg.inv(H) * factor, rtol=2e-5)
    B = np.linalg.inv(J.T @ J + 0.5 * (w or 0.0) ** 2 * A.T @ A)
    np.testing.assert_allclose(result.covariance("least-squares"), (c @ c) / (N - D) * B @ J.T @ J @ B, rtol=2e-5)


def test_least_squares_is_that_of_curve_fit():
    A, _, _ = example()
    b = softmax(A @ [0.5, -0.3, 0.0]) + 1e-4 * np.random.default_rng(1).standard_normal(N)
    result = fastrsx.newton(A, b, link="softmax")

    def jac(A, *x):
        f = softmax(A @ np.array(x))
        return f[:, None] * (A - f @ A)

    popt, pcov = curve_fit(lambda A, *x: softmax(A @ np.array(x)), A, b, np.zeros(D), jac=jac, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(result.x, popt, atol=1e-7)
    np.testing.assert_allclose(result.covariance("least-squares"), pcov, rtol=1e-6)


def test_the_bootstrap_is_near_the_sandwich():
    A, _, b = example()
    result = fastrsx.newton(A, b)
    ratio = np.diagonal(result.covariance("bootstrap", resamples=1000)) / np.diagonal(result.covariance())
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)
    assert np.array_equal(result.covariance("bootstrap", resamples=10, seed=3), result.covariance("bootstrap", resamples=10, seed=3))


@pytest.mark.parametrize("errors", ["one variance", "many variances"])
def test_intervals_cover(errors):
    """95 % intervals cover x in 93 to 97 % of 2000 draws, where their assumptions hold."""
    rng, x = np.random.default_rng(0), np.array([0.5, -0.3, 0.0])
    n = N if errors == "one variance" else 2500  # the sandwich needs many rows
    A = rng.standard_normal((n, D))
    f = fastrsx.predict(A, x)
    size = 0.04 / n if errors == "one variance" else 0.08 / n * np.abs(A[:, 0])
    inside = dict.fromkeys(("sandwich", "least-squares") if errors == "one variance" else ("sandwich",), 0)
    for _ in range(2000):
        result = fastrsx.newton(A, f + size * rng.standard_normal(n), x)
        for kind in inside:
            found = inference(result.x, result.covariance(kind), 0.95)
            inside[kind] = inside[kind] + ((found.low <= x) & (x <= found.high))
    for kind, count in inside.items():
        assert np.all(np.abs(count / 2000 - 0.95) <= 0.02), (kind, count)


def test_statistics_are_normal():
    found = inference(np.array([1.96, -1.0]), np.diag([1.0, 4.0]), 0.95)
    np.testing.assert_allclose(found.z, [1.96, -0.5])
    np.testing.assert_allclose(found.p, 2 * norm.sf(np.abs(found.z)))
    np.testing.assert_allclose(found.high, [1.96 + norm.isf(0.025), -1.0 + 2 * norm.isf(0.025)])


@pytest.mark.parametrize("kind", ["in a basis", "reduced", "sparse", "float32"])
def test_every_way_to_solve_has_them(kind):
    A, _, b = example()
    expected = fastrsx.newton(A, b)
    T = np.array([[1.0, 0.999, 0.0], [0.0, 1e-2, 0.0], [0.0, 0.0, 1.0]])
    if kind == "in a basis":
        found = fastrsx.newton(A @ T, b)
        assert "orthonormal basis" in found.kernel
        np.testing.assert_allclose(T @ found.covariance() @ T.T, expected.covariance(), rtol=1e-6, atol=1e-12)
    elif kind == "reduced":
        with pytest.raises(ValueError, match=r"A has 3 rows for 400 columns, so nothing is left"):
            fastrsx.newton(A.T, np.full(3, 1 / 3), hessian="reduced").covariance()
    else:
        from scipy import sparse

        other = sparse.csr_array(A) if kind == "sparse" else A.astype(np.float32)
        np.testing.assert_allclose(fastrsx.newton(other, b).covariance(), expected.covariance(), rtol=1e-5)


def test_errors_say_why():
    A, _, b = example()
    with pytest.raises(ValueError, match=r"the solve ended as MAX_ITER, not at a minimum"):
        fastrsx.newton(A, b, max_iter=1).covariance()
    with pytest.raises(ValueError, match=r"kind is 'hc3'; it must be one of 'sandwich', 'least-squares', 'bootstrap'"):
        fastrsx.newton(A, b).covariance("hc3")
    with pytest.raises(ValueError, match=r"not positive definite along columns (0, 3|3, 0) of A; drop one of them"):
        fastrsx.newton(np.column_stack([A, A[:, 0]]), b).covariance()
    with pytest.raises(ValueError, match=r"level is 95; it must lie between 0 and 1"):
        fastrsx.newton(A, b).table(errors="sandwich", level=95)
    for other in (copy.copy, lambda result: pickle.loads(pickle.dumps(result))):
        result = other(fastrsx.newton(A, b))
        assert result.success
        with pytest.raises(ValueError, match=r"this result was copied or loaded, without the A and b"):
            result.covariance()


def test_a_pickled_result_has_no_data():
    A, _, b = example()
    assert len(pickle.dumps(fastrsx.newton(A, b))) < A.nbytes / 2


def test_tables_and_frames_have_names():
    pd = pytest.importorskip("pandas")
    A, _, b = example()
    result = fastrsx.newton(pd.DataFrame(A, columns=["price", "<size>", "hp"]), b)
    lines = result.table(".3f", errors="sandwich", level=0.9).splitlines()
    assert lines[0].split() == ["x", "std", "err", "z", "P>|z|", "5", "%", "95", "%"]
    assert [line.split()[0] for line in lines[1:]] == ["price", "<size>", "hp"]
    table = result.to_frame(errors="sandwich")
    assert list(table.index) == ["price", "<size>", "hp"]
    np.testing.assert_allclose(table["std err"], np.sqrt(np.diagonal(result.covariance())))
    assert list(result.to_frame().columns) == ["x"]
    shown = result._repr_html_()
    assert "<th>&lt;size&gt;</th>" in shown
    assert "CONVERGED" in shown


def test_the_command_line_prints_them(tmp_path, capsys):
    A, _, b = example()
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    arguments = ["solve", str(tmp_path / "A.npy"), str(tmp_path / "b.npy"), "-q", "--errors", "sandwich"]
    assert main(arguments) == 0
    assert "std err" in capsys.readouterr().out
    assert main([*arguments, "-o", str(tmp_path / "x.npy")]) == 0
    assert "std err" in capsys.readouterr().out
    assert np.load(tmp_path / "x.npy").shape == (D,)
    assert main([*arguments, "--max-iter", "1"]) == 1
    assert "not at a minimum" in capsys.readouterr().err
