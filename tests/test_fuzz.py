"""For any arguments the outcome is true: an error that names the argument, or a result in which `oracle` finds no fault.

FASTRSX_FUZZ=10000 pytest tests/test_fuzz.py generates that many problems of each test, different ones on every run.
"""

import os
import re
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import fastrsx
import oracle

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 is a dtype of ml_dtypes")
if np.finfo(np.longdouble).eps >= np.finfo(float).eps:
    pytest.skip("the oracle needs a longdouble that is longer than double", allow_module_level=True)

EXAMPLES = int(os.environ.get("FASTRSX_FUZZ", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 200,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)

DTYPES = [np.float64] * 6 + [np.float32, np.float16, ml_dtypes.bfloat16, np.longdouble, np.int8, np.int64, np.uint8, np.bool_]
NAMES = re.compile(r"(A|b|w|x0|multiplicity|residual_weights)\b")
HESSIANS = ["auto"] * 4 + ["exact", "sampled", "sampled-only", "matrix-free"]
GROUPED_HESSIANS = HESSIANS


def unaligned(A):
    return np.frombuffer(b"." + A.tobytes(), dtype=A.dtype, offset=1).reshape(A.shape)


def sparse(A):
    return scipy.sparse.csr_array(A.astype(np.float64))  # kernels are compiled for each dtype; test_layouts.py has the others


def shuffled(A):
    out = sparse(A)
    for start, stop in zip(out.indptr[:-1], out.indptr[1:], strict=True):
        out.indices[start:stop], out.data[start:stop] = out.indices[start:stop][::-1].copy(), out.data[start:stop][::-1].copy()
    out.has_sorted_indices = False
    return out


def duplicated(A):
    one = sparse(A)
    out = scipy.sparse.csr_array((np.repeat(one.data / 2, 2), np.repeat(one.indices, 2), 2 * one.indptr), shape=one.shape)
    out.has_canonical_format = False
    return out


def coo_duplicated(A):
    one = sparse(A).tocoo()
    return scipy.sparse.coo_matrix((np.tile(one.data / 2, 2), (np.tile(one.coords[0], 2), np.tile(one.coords[1], 2))), shape=one.shape)


def swapped(A):
    return A.astype(A.dtype.newbyteorder()) if A.dtype.kind in "fi" else A


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda A: np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "unaligned": unaligned,
    "byte-swapped": swapped,
    "list": lambda A: A.tolist(),
    "csr": sparse,
    "csr shuffled": shuffled,
    "csr duplicates": duplicated,
    "csc": lambda A: scipy.sparse.csc_array(A.astype(np.float64)),
    "coo duplicates": coo_duplicated,
}
SPARSE = ("csr", "csc", "coo")
VECTORS = ["C", "strided", "reversed", "unaligned", "byte-swapped", "list", "float32", "longdouble"]

SPOILT = ["intercept", "equal rows", "equal columns", "zero column", "zero row", "sum of columns", "near copy", "near dummies"]
exponents = st.sampled_from([0] * 6 + [-8, -3, 1, 2, 3, 6, 20, -20, 100, -100, -155, 149, 150, 151, -300, -308, -320, 300])
specials = st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, -1e150, 1e151, np.nan, np.inf, -np.inf])


@st.composite
def matrices(draw, rng, n, d):
    """n x d numbers of one kind, some of them then spoilt."""
    kind = draw(st.sampled_from(["normal", "normal", "uniform", "whole", "one-hot", "constant", "exponential", "years"]))
    years = rng.integers(1500, 2100) + np.sort(rng.integers(0, draw(st.sampled_from([5, 20, 200])), n)) * 1.0
    A = {
        "normal": rng.standard_normal((n, d)),
        "uniform": rng.random((n, d)),
        "whole": rng.integers(-3, 4, (n, d)) * 1.0,
        "one-hot": np.eye(d)[rng.integers(0, d, n)],
        "constant": np.ones((n, d)),
        "years": years[:, None] ** np.arange(d)[::-1],  # raw powers
        "exponential": rng.standard_normal((n, d)) * 10.0 ** rng.integers(-3, 4, (n, d)),
    }[kind]
    for spoil in draw(st.lists(st.sampled_from(SPOILT), max_size=2)):
        i, j = rng.integers(0, n, 2), rng.integers(0, d, 2)
        if spoil == "intercept":
            A[:, j[0]] = 1.0
        elif spoil == "equal rows":
            A[: n // 2 + 1] = A[i[0]]
        elif spoil == "equal columns":
            A[:, j[0]] = A[:, j[1]]
        elif spoil == "zero column":
            A[:, j[0]] = 0.0
        elif spoil == "zero row":
            A[i[0]] = 0.0
        elif spoil == "sum of columns":
            A[:, j[0]] = A.sum(axis=1)
        elif spoil == "near copy":
            A[:, j[0]] = A[:, j[1]] * (1 + 10.0 ** -rng.integers(2, 14) * rng.standard_normal(n))
        elif spoil == "near dummies":
            A[:, : d - 1], A[:, d - 1] = np.eye(d)[rng.integers(0, d, n)][:, : d - 1], 1.0
            A[i[0], j[0]] += 10.0 ** -rng.integers(2, 14)
    with np.errstate(all="ignore"):
        if draw(st.booleans()):
            A = A * 10.0 ** draw(exponents)
        if draw(st.integers(0, 3)) == 0:
            A = A * 10.0 ** np.array([draw(exponents) for _ in range(d)])
    if draw(st.integers(0, 5)) == 0:
        A = A.copy()
        A[rng.integers(0, n), rng.integers(0, d)] = draw(specials)
    return A


@st.composite
def targets(draw, rng, n):
    b = rng.random(n) * draw(st.sampled_from([1.0, 1.0, 1e-3, 1e-9]))
    kind = draw(st.sampled_from(["normalised"] * 4 + ["sharp", "unnormalised", "zero", "signed", "one-hot", "uniform"]))
    if kind == "normalised":
        b = b / b.sum()
    elif kind == "sharp":
        b = b**8 / (b**8).sum()
    elif kind == "zero":
        b = 0 * b
    elif kind == "signed":
        b = rng.standard_normal(n)
    elif kind == "one-hot":
        b = np.eye(n)[0]
    elif kind == "uniform":
        b = np.full(n, 1 / n)
    with np.errstate(all="ignore"):
        if draw(st.integers(0, 4)) == 0:
            b = b * 10.0 ** draw(exponents)
    if draw(st.integers(0, 15)) == 0:
        b[rng.integers(0, n)] = draw(specials)
    return b


@st.composite
def weights(draw, rng, n):
    w = draw(st.sampled_from([None, None, None, 0.0, 1.0, "small", "zeros", "vector", "scaled"]))
    if not isinstance(w, str):
        return w
    if w == "small":
        return 10.0 ** draw(st.integers(-12, -1))
    if w == "scaled":
        return rng.random(n) * 10.0 ** draw(exponents)
    w = rng.random(n) if w == "vector" else rng.random(n) * rng.integers(0, 2, n)
    if draw(st.integers(0, 15)) == 0:
        w[rng.integers(0, n)] = draw(specials)
    return w


@st.composite
def groupings(draw, rng, n):
    """A label of each row's group, and the group's number; or None twice."""
    kind = draw(st.sampled_from(["none", "one", "of one row", "one huge", "ragged", "ragged", "ragged", "sorted"]))
    if kind == "none":
        return None, None
    ragged = rng.integers(0, draw(st.integers(1, n)), n)
    group = {
        "one": np.zeros(n, int),
        "of one row": np.arange(n),
        "one huge": np.where(rng.random(n) < 0.7, 0, np.arange(n)),
        "ragged": ragged,
        "sorted": np.sort(ragged),
    }[kind]
    names = rng.permutation(n)[group]  # their order is not that of the groups
    labels = {
        "integers": lambda: names * 1000 - 7,
        "list": lambda: names.tolist(),
        "strings": lambda: np.array([f"group {name}" for name in names]),
        "list of strings": lambda: [f"group {name}" for name in names],
        "tuples": lambda: [("group", int(name)) for name in names],
    }[draw(st.sampled_from(["integers", "integers", "list", "strings", "list of strings", "tuples"]))]()
    return labels, group


@st.composite
def multiplicities(draw, rng, n, group):
    kind = draw(st.sampled_from(["none"] * 3 + ["random", "random", "whole", "wide", "mask", "booleans"]))
    m = {
        "none": None,
        "random": 3 * rng.random(n),
        "whole": rng.integers(1, 5, n),
        "wide": 10.0 ** rng.integers(-6, 7, n),
        "mask": np.where(rng.random(n) < draw(st.sampled_from([0.1, 0.5])), 0.0, 1.0),
        "booleans": rng.random(n) < 0.8,
    }[kind]
    if kind in ("mask", "booleans") and draw(st.integers(0, 3)) > 0:
        m[[0] if group is None else np.unique(group, return_index=True)[1]] = 1  # no group loses all its rows
    if kind == "random" and draw(st.integers(0, 3)) == 0:
        m[rng.integers(0, n)] = draw(st.sampled_from([0.0, -0.0, -1.0, -1e-300, np.nan, np.inf]))
    return m


@st.composite
def residual_weights(draw, rng, n):
    kind = draw(st.sampled_from(["none"] * 3 + ["random", "random", "zeros", "wide"]))
    r = {
        "none": None,
        "random": 2 * rng.random(n),
        "zeros": rng.random(n) * rng.integers(0, 2, n),
        "wide": rng.random(n) * 10.0 ** draw(st.integers(-12, 12)),
    }[kind]
    if kind == "random" and draw(st.integers(0, 3)) == 0:
        r[rng.integers(0, n)] = draw(st.sampled_from([0.0, -0.0, -1.0, -1e-300, np.nan, -np.inf]))
    return r


def normalised(b, group, m):
    """Targets that sum to 1 in each group, as f does, with none where a row has no share."""
    b = b if m is None else np.where(m == 0, 0.0, b)
    group = np.zeros(len(b), int) if group is None else group
    totals = np.bincount(group, b)[group]
    return np.where(totals > 0, b / np.where(totals > 0, totals, 1), b)


def laid_out(draw, vector):
    """A vector in another layout or dtype, and its values."""
    how = draw(st.sampled_from(VECTORS))
    if how in ("float32", "longdouble"):
        with np.errstate(all="ignore"):
            out = vector.astype(how)
    else:
        out = LAYOUTS[how](vector.reshape(1, -1))[0] if how != "C" else vector
    return out, np.asarray(out, np.longdouble)


@st.composite
def problems(draw, grouped=False):
    """Arguments of newton; A, b, w and x0 as arrays of longdouble; and the structure of the rows: groups, m and r, likewise."""
    n, d = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    link = draw(st.sampled_from(["rsx"] * 4 + ["softmax"] * 2 + ["linear"] if grouped else ["rsx"] * 8 + ["softmax", "linear"]))
    dtype = draw(st.sampled_from(DTYPES))
    # The other links are compiled only for dense A.
    layout = draw(st.sampled_from(list(LAYOUTS) if link == "rsx" else [name for name in LAYOUTS if not name.startswith(SPARSE)]))
    numbers = draw(matrices(rng, n, d))
    if grouped and link == "linear":
        numbers = abs(numbers)  # so that alpha > 0 in every group, with x0 > 0
    with np.errstate(all="ignore"):
        A = LAYOUTS[layout](numbers.astype(dtype))
        plain = np.asarray(A.toarray() if scipy.sparse.issparse(A) else A, dtype=np.longdouble)
    labels, group = draw(groupings(rng, n)) if grouped else (None, None)
    m = draw(multiplicities(rng, n, group)) if grouped else None
    r = draw(residual_weights(rng, n)) if grouped else None
    b = draw(targets(rng, n))
    if grouped and draw(st.integers(0, 3)) > 0:
        with np.errstate(all="ignore"):
            b = normalised(b, group, m)
    b, plain_b = laid_out(draw, b)
    w = draw(weights(rng, n)) if link != "linear" else None
    plain_w = None if w is None else np.zeros(n, np.longdouble) + np.asarray(w, np.longdouble)
    if isinstance(w, np.ndarray):
        w, plain_w = laid_out(draw, w)
    x0 = plain_x0 = None
    start = draw(st.sampled_from(["none"] * 5 + ["zero", "near", "far", "scaled"]))
    if start == "none" and link == "linear":
        start = "near"
    if start != "none":
        x0 = rng.standard_normal(d) * {"zero": 0.0, "near": 0.3, "far": 30.0, "scaled": 10.0 ** draw(exponents)}[start]
        with np.errstate(all="ignore"):
            size = np.abs(plain).max(axis=0)
            scale = np.where(np.isfinite(size) & (size > 1e-300), size, 1.0).astype(float)
            x0 = x0 / scale
            if link == "linear" and grouped:
                x0 = abs(x0)
            elif link == "linear" and (plain @ x0).sum() < 0:
                x0 = -x0
        x0, plain_x0 = laid_out(draw, x0)
    reduced = d > n and not grouped and not layout.startswith(SPARSE)
    hessian = draw(st.sampled_from(GROUPED_HESSIANS if grouped else HESSIANS + ["reduced"] * reduced))
    arguments, structure = {"A": A, "b": b, "x0": x0, "w": w, "link": link, "hessian": hessian}, {"groups": group}
    if labels is not None:
        arguments["groups"] = labels
    for name, letter, values in (("multiplicity", "m", m), ("residual_weights", "r", r)):
        structure[letter] = None
        if values is not None:
            arguments[name], structure[letter] = laid_out(draw, values) if values.dtype == float else (values, values.astype(np.longdouble))
    given_too = {name: type(arguments[name]).__name__ for name in ("groups", "multiplicity", "residual_weights") if name in arguments}
    note(f"{n} x {d}, {layout}, {np.dtype(dtype)}, {link}, {hessian}, {given_too}")
    return arguments, (plain, plain_b, plain_w, plain_x0), structure


def content(value):
    """Everything in which a caller could see a change."""
    if scipy.sparse.issparse(value):
        return [np.asarray(part).tobytes() for part in vars(value).values() if isinstance(part, np.ndarray)]
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


def outcome(arguments):
    """A result, or the error; with warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return fastrsx.newton(**arguments)
        except (ValueError, TypeError) as error:
            return error


def is_judged(arguments, b):
    """Whether a reported minimum or ray must be one; otherwise it is a known limitation.

    With a sampled Hessian the remaining decrement is judged by the rows drawn, or by rows drawn up to 0.3 units of max |A step| ago, and may be
    a hundred times tol; the same is true of the direction of a ray. With a linear u and a huge b, long steps do not show in the loss, which then
    counts as constant.
    """
    return arguments["hessian"] not in ("sampled", "sampled-only") and not (arguments["link"] == "linear" and abs(b).max() > 1e6)


def wrong_arguments(groups, m, r):
    """Which of m and r must be refused whatever the other arguments are."""
    names = {"multiplicity": m, "residual_weights": r}
    wrong = [name for name, values in names.items() if values is not None and not ((values >= 0) & (values < np.inf)).all()]
    if m is not None and "multiplicity" not in wrong and oracle.is_empty(groups, m):
        wrong.append("multiplicity")
    return wrong


def check(problem):
    arguments, (A, b, w, x0), structure = problem
    before = {name: content(value) for name, value in arguments.items()}
    found = outcome(arguments)
    assert before == {name: content(value) for name, value in arguments.items()}
    with np.errstate(all="ignore"):
        refused = oracle.is_refused(A, b, w, x0, arguments["link"], **structure)
        if isinstance(found, Exception):
            assert NAMES.match(str(found)), found
            assert refused is not False, found
            wrong = wrong_arguments(**structure)
            if wrong and oracle.is_refused(A, b, w, x0, arguments["link"]) is False:
                assert NAMES.match(str(found))[0] in wrong, found
        else:
            note(found.summary())
            assert refused is not True
            complaint = oracle.complaint(A, b, w, x0, found, arguments["link"], second_order=is_judged(arguments, b), **structure)
            assert complaint is None, complaint


@fuzz
@given(problems())
def test_the_outcome_is_true(problem):
    check(problem)


@fuzz
@given(problems(grouped=True))
def test_any_grouped_problem(problem):
    check(problem)
