"""Pictures of a result: what they show, and what they say where there is nothing to show."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import fastrsx
from fastrsx import plots

RNG = np.random.default_rng(0)


def solved(n=300, d=3):
    A = RNG.standard_normal((n, d))
    b = fastrsx.predict(A, np.full(d, 0.2)) * RNG.uniform(0.5, 1.5, n)
    return A, b / b.sum(), fastrsx.newton(A, b / b.sum(), kernel="serial")


def test_a_fit_shows_b_over_f():
    A, b, result = solved()
    ax = result.plot_fit(Figure().subplots())
    points, line = ax.get_lines()
    f = fastrsx.predict(A, result.x)
    np.testing.assert_allclose(points.get_xydata(), np.column_stack([f, b]), rtol=1e-12)
    low, high = min(f.min(), b.min()), max(f.max(), b.max())
    np.testing.assert_allclose(line.get_xydata(), [[low, low], [high, high]], rtol=1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("fitted f(x)", "b")
    assert ax.get_xscale() == ax.get_yscale() == ("log" if low > 0 else "linear")


def test_a_fit_with_entries_that_are_not_positive_is_on_linear_axes():
    A = RNG.standard_normal((50, 2))
    b = np.eye(1, 50)[0]
    ax = fastrsx.newton(A, b, w=0.1, kernel="serial").plot_fit(Figure().subplots())
    assert ax.get_xscale() == ax.get_yscale() == "linear"


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_many_rows_are_counted(scale):
    b, f = RNG.random((2, plots.MOST_POINTS + 1)) + 0.1
    if scale == "linear":
        f[0] = -0.1
    ax = plots.fit(Figure().subplots(), b, f)
    (hexagons,) = ax.collections
    assert hexagons.get_array().sum() == len(b)
    assert ax.get_xscale() == scale


def test_a_history_shows_each_step():
    _, _, result = solved()
    ax = result.history.plot(Figure().subplots())
    for line, name in zip(ax.get_lines(), ("grad_norm", "decrement"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(result.nit))
        np.testing.assert_array_equal(line.get_ydata(), result.history.column(name))
    assert ax.get_yscale() == "log"
    assert len(ax.get_legend().get_texts()) == 2


def test_what_cannot_be_drawn_says_why():
    _, _, result = solved()
    for other in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        with pytest.raises(ValueError, match="without the A and b"):
            other.plot_fit(Figure().subplots())
        other.history.plot(Figure().subplots())
    with pytest.raises(ValueError, match="no step to draw"):
        fastrsx.newton(np.eye(3, 2), np.full(3, 1 / 3), max_iter=0).history.plot()


def test_an_a_in_chunks_is_refused():
    da = pytest.importorskip("dask.array", reason="dask is an extra")
    A, b, _ = solved()
    with pytest.raises(ValueError, match=r"plot_fit needs A in memory: draw b over Problem.predict"):
        fastrsx.newton(da.from_array(A, chunks=(100, 3)), b).plot_fit(Figure().subplots())


def test_without_axes_pyplot_makes_them(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    code = "import fastrsx; r = fastrsx.newton([[1.0], [0.0]], [0.8, 0.2]); a, b = r.plot_fit(), r.history.plot(); assert a.figure is not b.figure"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_matplotlib_is_imported_when_a_picture_is_drawn_and_named_where_it_lacks():
    code = "import sys, fastrsx; fastrsx.newton([[1.0], [0.0]], [0.8, 0.2]); assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; sys.modules['matplotlib'] = None; import fastrsx; fastrsx.newton([[1.0], [0.0]], [0.8, 0.2]).plot_fit()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "a picture needs matplotlib: pip install 'fastrsx[plot]'" in ended.stderr
