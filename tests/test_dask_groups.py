"""Groups of rows in chunks of dask: the answer in memory wherever chunks end, and the same bits on any scheduler."""

import numpy as np
import pytest
from scipy import sparse
from test_groups import STRUCTURES, example, or_none

import fastrsx
from fastrsx.kernels.groups import units

dask = pytest.importorskip("dask", reason="needs dask")
da = pytest.importorskip("dask.array", reason="needs dask[array]")
pd = pytest.importorskip("pandas", reason="needs pandas")

pytestmark = pytest.mark.filterwarnings("ignore:A's chunks are small")

N, D = 700, 5
CHUNKS = {"four": (300, 1, 250, 149), "one": (700,), "an empty one": (300, 0, 251, 149), "single rows": (1,) * 5 + (695,)}
KINDS = {
    "dense": lambda A: A,
    "float32": lambda A: A.astype(np.float32),
    "sparse": lambda A: A.map_blocks(sparse.csr_matrix),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of one panel, so that groups have pieces within a chunk too; in this process alone."""
    monkeypatch.setattr(units, "MOST_ROWS", 128)


@pytest.fixture
def here(monkeypatch):
    """Tasks run in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


def weights(w, m, omega):
    return {"w": or_none(w), "multiplicity": or_none(m), "residual_weights": or_none(omega)}


def in_chunks(A, sizes=CHUNKS["four"]):
    return da.from_array(A, chunks=(sizes, A.shape[1]))


def on_dask(value):
    return da.from_array(value, chunks=77) if isinstance(value, np.ndarray) else value


def assert_same_solve(found, expected):
    assert (found.status, found.nit, found.message) == (expected.status, expected.nit, expected.message)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found.alpha, expected.alpha, rtol=1e-8)
    np.testing.assert_allclose(found.log_alpha, expected.log_alpha, rtol=0, atol=1e-8)
    assert list(found.groups) == list(expected.groups)


@pytest.mark.parametrize(("weighted", "kind"), [(False, "dense"), (True, "dense"), ("dask", "float32"), (True, "sparse")])
@pytest.mark.parametrize("sizes", CHUNKS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_solve_is_that_in_memory(rng, here, structure, sizes, weighted, kind):
    A, b, _, labels, *rows = example(rng, structure, weighted=bool(weighted))
    A, b = A.astype(np.float32).astype(float), 0.9 * b  # so that a group of one row is not fitted to rounding
    expected = fastrsx.newton(A, b, groups=labels, **weights(*rows), kernel="serial")
    given = {"groups": labels, **weights(*rows)}
    if weighted == "dask":
        b, given = on_dask(b), {name: on_dask(value) for name, value in given.items()}
    found = fastrsx.newton(KINDS[kind](in_chunks(A, CHUNKS[sizes])), b, **given)
    assert_same_solve(found, expected)
    np.testing.assert_allclose(found.hess, expected.hess, rtol=0, atol=1e-9 * max(0.01, abs(expected.hess).max()))


@pytest.mark.parametrize("options", [{"hessian": "matrix-free"}, {"link": "softmax"}, {"x0": [0.03, -0.02, 0.01, 0.04, -0.03]}])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_other_solves_are_those_in_memory(rng, here, structure, options):
    A, b, _, labels, *rows = example(rng, structure, weighted=True)
    given = {"groups": labels, **weights(*rows), **options}
    assert_same_solve(fastrsx.newton(in_chunks(A), b, **given), fastrsx.newton(A, b, **given, kernel="serial"))


@pytest.mark.parametrize("structure", ["large and tiny", "ragged"])
def test_the_methods_of_a_problem_are_those_in_memory(rng, here, structure):
    A, b, _, labels, *rows = example(rng, structure, weighted=True)
    x, p = 0.05 * rng.standard_normal(D), rng.standard_normal(D)
    given = {"groups": labels, **weights(*rows)}
    there, here = fastrsx.Problem(in_chunks(A), b, **given), fastrsx.Problem(A, b, **given, kernel="serial")
    assert there.value(x) == pytest.approx(here.value(x), rel=1e-13)
    for method in ("grad", "hess"):
        np.testing.assert_allclose(getattr(there, method)(x), getattr(here, method)(x), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(there.hess_vec(x, p), here.hess_vec(x, p), rtol=1e-9)
    found, expected = there.factors(x), here.factors(x)
    for name in ("v", "q"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found.matvec(p), here.hess(x) @ p, rtol=1e-9)
    np.testing.assert_allclose(found.to_dense(), here.hess(x), rtol=1e-9, atol=1e-12)
    f = there.predict(x)
    assert isinstance(f, da.Array)
    np.testing.assert_allclose(f.compute(), here.predict(x), rtol=1e-12)
    f = fastrsx.predict(in_chunks(A), x, groups=labels, multiplicity=given["multiplicity"])
    np.testing.assert_allclose(f.compute(), here.predict(x), rtol=1e-12)
    jac, expected = there.jac_operator(x), here.jac_operator(x)
    np.testing.assert_allclose(jac.matvec(p), expected.matvec(p), rtol=1e-9, atol=1e-13)


def test_multiplicities_without_groups(rng, here):
    A, b, _, _, _, m, omega = example(rng, "one", weighted=True)
    expected = fastrsx.newton(A, b, multiplicity=m, residual_weights=omega, kernel="serial")
    found = fastrsx.newton(in_chunks(A), b, multiplicity=on_dask(m), residual_weights=omega)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-8)
    assert found.alpha == pytest.approx(expected.alpha, rel=1e-10)
    twice = fastrsx.newton(in_chunks(A), b, multiplicity=2, residual_weights=3.0)
    np.testing.assert_allclose(twice.x, fastrsx.newton(A, b).x, rtol=1e-7)


def test_softmax_does_not_see_what_is_constant_within_groups(rng, here):
    A, b, _, labels, *_ = example(rng, "large and tiny")
    A = np.column_stack([A, labels * 0.1])
    found, expected = (fastrsx.newton(each, b, groups=labels, link="softmax") for each in (in_chunks(A), A))
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6, atol=1e-12)
    assert found.message == expected.message
    assert "Column 5 of A, constant within every group" in found.message


def test_a_step_does_not_cross_the_pole_of_a_group(here):
    """As in test_groups; the first group lies in one chunk, in two, or each of its rows in one of its own."""
    A, b, labels = np.array([[0.0], [0.1], [1.0], [-0.2]]), np.full(4, 0.5), [0, 0, 1, 1]
    for sizes in ((4,), (2, 2), (3, 1), (1, 1, 1, 1)):
        passes = fastrsx.Problem(in_chunks(A, sizes), b, groups=labels)._passes
        a, da_of, out = (passes.empty() for _ in range(3))
        passes.products(np.array([-12.0]), da_of)
        assert passes.evaluate(a, da_of, 1.0, out).fun == np.inf
        assert passes.evaluate(a, da_of, 0.05, out).fun < np.inf
        assert passes.project(np.array([-12.0])).fun == pytest.approx(fastrsx.Problem(A, b, groups=labels).value([-12.0]), rel=1e-14)
        with pytest.raises(ValueError, match=r"x0 lies outside the domain alpha = <u, 1> > 0 of group 1"):
            fastrsx.newton(in_chunks(A, sizes), b, [-4.0], groups=labels)


# -- labels -----------------------------------------------------------------------------------------------------

LABELS = {
    "array": lambda labels: da.from_array(labels, chunks=77),
    "words": lambda labels: da.from_array(np.char.add("g", labels.astype(str)), chunks=77),
    "Series": lambda labels: pytest.importorskip("dask.dataframe").from_pandas(pd.Series(labels), npartitions=5),
    "Series of words": lambda labels: pytest.importorskip("dask.dataframe").from_pandas(pd.Series(labels).astype(str), npartitions=5),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_may_lie_on_dask(rng, here, kind):
    A, b, _, labels, *_ = example(rng, "ragged")
    found = fastrsx.newton(in_chunks(A), b, groups=LABELS[kind](labels))
    expected = fastrsx.newton(A, b, groups=labels, kernel="serial")
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-8)
    assert [str(label).removeprefix("g") for label in found.groups] == [str(label) for label in expected.groups]


def spoilt(array, row, value):
    array = array.copy()
    array[row] = value
    return array


BAD = {
    "labels that lie apart": (lambda labels: {"groups": labels[::-1] % 3}, r"rows of one group that lie apart, and A is in chunks of dask: sort"),
    "the same on dask": (lambda labels: {"groups": on_dask(labels % 3)}, r"rows of one group that lie apart, and A is in chunks of dask: sort"),
    "a missing label": (lambda labels: {"groups": on_dask(spoilt(labels * 1.0, 200, np.nan))}, r"groups\[200\] is nan; 1 of 700 labels are missing"),
    "a short one": (lambda labels: {"groups": on_dask(labels[1:])}, r"groups has 699 entries; it must have 700, one for each row of A"),
    "a masked group": (lambda labels: {"groups": labels, "multiplicity": on_dask(1.0 * (labels != 2))}, r"multiplicity is 0 in every row of group 2"),
    "a negative multiplicity": (
        lambda labels: {"groups": labels, "multiplicity": on_dask(spoilt(np.ones(N), 301, -1.0))},
        r"multiplicity\[301\] is -1\.0, in row 0 of chunk 2; weights must be at least 0",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_grouping_is_refused(rng, here, what):
    A, b, _, labels, *_ = example(rng, "ragged")
    make, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(in_chunks(A), b, **make(labels))


# -- bits -------------------------------------------------------------------------------------------------------


def bits(result):
    return result.x.tobytes(), np.float64(result.fun).tobytes(), result.hess.tobytes(), result.alpha.tobytes(), result.nit


@pytest.mark.parametrize("workers", [1, 3])
def test_every_scheduler_gives_the_same_bits(rng, monkeypatch, workers):
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    monkeypatch.undo()  # workers have units of their own
    A, b, _, labels, *rows = example(rng, "large and tiny", 4000, weighted=True)
    given, found = {"groups": labels, **weights(*rows)}, {}
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            found[scheduler] = bits(fastrsx.newton(in_chunks(A, (1500, 1000, 700, 800)), b, **given))
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50) as made,
        distributed.Client(made) as client,
        client.as_current(),
    ):
        found["processes"] = bits(fastrsx.newton(in_chunks(A, (1500, 1000, 700, 800)), b, **given))
    assert len(set(found.values())) == 1


def test_only_the_groups_outside_the_domain_have_no_shares(here):
    a, of = np.array([-4.0, -3.5, -3.0, 1.0, 2.0, 0.5, -2.0, -1.9]), np.array([0, 0, 0, 1, 1, 2, 3, 3])
    expected = fastrsx.predict(a[:, None], [1.0], groups=of)
    np.testing.assert_array_equal(np.isnan(expected), np.isin(of, [0, 3]))
    found = fastrsx.predict(da.from_array(a[:, None], chunks=(2, 1)), [1.0], groups=of).compute()
    np.testing.assert_allclose(found, expected, rtol=1e-14)
