"""A read from disk in chunks: the same answer as in memory, as many reads as steps, and little memory."""

import contextlib
import os

import numpy as np
import pytest

import fastrsx
from fastrsx import loading, planning
from fastrsx.engines import file

N, D = 5000, 12


@pytest.fixture(autouse=True)
def streamed(monkeypatch):
    """Every map counts as larger than memory, and has several chunks, the last one shorter."""
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading, "free", lambda: 0)
    monkeypatch.setattr(file, "CHUNK_BYTES", 1200 * D * 8)


def example(seed=0):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((N, D)).astype(np.float32).astype(float), rng.standard_normal(D)
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, N)
    return A, b / b.sum()


def mapped(tmp_path, A, **options):
    np.save(tmp_path / "A.npy", A)
    return np.load(tmp_path / "A.npy", mmap_mode="r", **options)


KINDS = {
    "C": np.array,
    "float32": lambda A: A.astype(np.float32),
    "F": np.asfortranarray,
    "float16 of whole numbers": lambda A: np.round(A).astype(np.float16),
    "big endian": lambda A: A.astype(">f8"),
}


@pytest.mark.parametrize("w", [None, 0.1])
@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_solve_is_that_in_memory(tmp_path, monkeypatch, kind, one_pass, w):
    monkeypatch.setattr(planning, "READ_ONCE_IN_PARTS_UP_TO", D if one_pass else D - 1)
    monkeypatch.setattr(planning, "READ_ONCE_FROM", 0 if one_pass else np.inf)
    A, b = example()
    A = KINDS[kind](A)
    found, expected = (fastrsx.newton(each, b, w=w, kernel="serial") for each in (mapped(tmp_path, A), np.array(A, dtype=float, order="C")))
    assert "A read from disk in chunks" in found.kernel
    assert (found.status, found.nit) == (expected.status, expected.nit)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-10)
    np.testing.assert_allclose(found.hess, expected.hess, rtol=0, atol=1e-12 * abs(expected.hess).max())
    assert found.fun == pytest.approx(expected.fun, rel=1e-12)


def test_a_step_takes_one_read_of_the_file(tmp_path):
    """With weights, this problem takes full steps; a step that the plane search moves takes a second read."""
    A, b = example()
    result = fastrsx.newton(mapped(tmp_path, A), b, w=0.1, kernel="serial")
    assert result.success
    assert result.npass == result.nit + 1


def test_an_exact_fit_is_found(tmp_path):
    """There the gradient from one read cancels, and a second read computes it from c."""
    A, _ = example()
    b = fastrsx.predict(A, np.full(D, 0.1))
    result = fastrsx.newton(mapped(tmp_path, A), b, kernel="serial")
    assert result.status is fastrsx.Status.EXACT_FIT
    np.testing.assert_allclose(result.x, 0.1, rtol=1e-9)


def test_parallel_kernels_give_the_same_bits(tmp_path):
    A, b = example()
    data = mapped(tmp_path, A)
    serial, parallel = (fastrsx.newton(data, b, w=0.1, kernel=kernel) for kernel in ("serial", "parallel"))
    assert serial.x.tobytes() == parallel.x.tobytes()
    assert serial.hess.tobytes() == parallel.hess.tobytes()


@pytest.mark.parametrize("hessian", ["sampled", "matrix-free"])
def test_other_hessians(tmp_path, hessian):
    A, b = example()
    found, expected = (fastrsx.newton(each, b, hessian=hessian, sample_rows=400, kernel="serial") for each in (mapped(tmp_path, A), A))
    assert found.success
    np.testing.assert_allclose(found.x, expected.x, atol=1e-6)


def test_a_problem_has_everything(tmp_path):
    A, b = example()
    rng = np.random.default_rng(1)
    x, p = 0.1 * rng.standard_normal(D), rng.standard_normal(D)
    streamed, plain = (fastrsx.Problem(each, b, w=0.5, kernel="serial") for each in (mapped(tmp_path, A), A))
    for ask in (
        lambda problem: problem.value(x),
        lambda problem: problem.value_and_grad(x)[1],
        lambda problem: problem.hess(x),
        lambda problem: problem.hess_vec(x, p),
        lambda problem: problem.factors(x).matvec(p),
        lambda problem: problem.factors(x).to_dense(),
        lambda problem: problem.predict(x),
        lambda problem: problem.jac_operator(x).rmatvec(b),
        lambda problem: problem._column_scale,
    ):
        expected = np.asarray(ask(plain))
        np.testing.assert_allclose(ask(streamed), expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_part_of_a_map_is_read_from_its_place(tmp_path):
    A, b = example()
    whole = mapped(tmp_path, np.vstack([A[:7], A]))
    assert file.file_place(whole[7:]) is not None
    np.testing.assert_array_equal(
        fastrsx.newton(whole[7:], b, w=0.1, kernel="serial").x, fastrsx.newton(mapped(tmp_path, A), b, w=0.1, kernel="serial").x
    )


def test_what_was_changed_in_a_copy_on_write_map_counts(tmp_path):
    A, b = example()
    np.save(tmp_path / "zero.npy", np.zeros_like(A))
    data = np.load(tmp_path / "zero.npy", mmap_mode="c")
    data[:] = A
    assert fastrsx.newton(data, b, w=0.1, kernel="serial").fun == fastrsx.newton(mapped(tmp_path, A), b, w=0.1, kernel="serial").fun


@pytest.mark.parametrize("entry", [np.nan, np.inf, 1e151])
def test_a_bad_entry_is_named(tmp_path, entry):
    A, b = example()
    A[4321, 5] = entry
    with pytest.raises(ValueError, match=r"A\[4321, 5\] is"):
        fastrsx.newton(mapped(tmp_path, A), b, kernel="serial")


def test_a_file_that_was_cut_is_an_error(tmp_path):
    A, b = example()
    data = mapped(tmp_path, A)
    os.truncate(tmp_path / "A.npy", 200_000)
    with pytest.raises(OSError, match=r"A\.npy ended at 200000 bytes, while A has rows beyond"):
        fastrsx.newton(data, b, kernel="serial")


def test_small_maps_stay_maps(tmp_path, monkeypatch):
    monkeypatch.undo()
    A, b = example()
    assert fastrsx.Problem(mapped(tmp_path, A), b).plan.loader == "in place"


def test_an_error_in_a_callback_leaves_no_reader_behind(tmp_path):
    A, b = example()

    def stop(x):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fastrsx.newton(mapped(tmp_path, A), b, kernel="serial", callback=stop)
    with contextlib.closing(iter(file.Chunks(mapped(tmp_path, A)))) as chunks:
        next(chunks)
