"""Rows of any length are read where they lie, and no read goes beyond the last row of A."""

import ctypes
import mmap

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastrsx
from fastrsx.kernels.compiling.jit import serial
from fastrsx.kernels.layouts.panel import ROWS, is_in_place, load_panel, padded

DTYPES = [np.float64, np.float32]
RNG = np.random.default_rng(20261128)


class Fenced:
    """An array that ends where a page without any access begins."""

    def __init__(self, values):
        page = mmap.PAGESIZE
        whole = -(-values.nbytes // page) * page
        self.memory = mmap.mmap(-1, whole + page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.libc, self.fence, self.page = ctypes.CDLL(None, use_errno=True), self.start + whole, page
        assert self.libc.mprotect(ctypes.c_void_p(self.fence), page, 0) == 0, ctypes.get_errno()
        self.array = np.frombuffer(self.memory, values.dtype, values.size, whole - values.nbytes).reshape(values.shape)
        self.array[:] = values

    def open(self):
        """Allow access again, so that the mapping can be closed."""
        self.libc.mprotect(ctypes.c_void_p(self.fence), self.page, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.fixture
def fenced():
    if not hasattr(mmap, "PROT_READ"):
        pytest.skip("needs mprotect, which this system does not have")
    made = []

    def make(values):
        made.append(Fenced(values))
        return made[-1].array

    yield make
    for each in made:
        each.open()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, 5, 8, 13, 37])
@pytest.mark.parametrize("n", [7, 128, 131, 256, 300])
def test_nothing_beyond_the_last_row_is_read(fenced, n, d, dtype):
    A = RNG.standard_normal((n, d)).astype(dtype)
    b, x, p = RNG.random(n), RNG.standard_normal(d) / d, RNG.standard_normal(d)
    there, here = fastrsx.Problem(fenced(A), b, kernel="serial"), fastrsx.Problem(A.astype(float), b, kernel="serial")
    for name, args in (("value", (x,)), ("grad", (x,)), ("hess", (x,)), ("hess_vec", (x, p))):
        assert_allclose(getattr(there, name)(*args), getattr(here, name)(*args), rtol=1e-12, atol=1e-15)


@serial
def loaded(A, start, rows, buffer):
    """The shape of the panel, and whether its first row lies in the buffer."""
    panel = load_panel(A, start, rows, buffer)
    buffer[0, 0] += 1.0
    moved = panel[0, 0] != A[start, 0]
    buffer[0, 0] -= 1.0
    return panel.shape[0], panel.shape[1], moved


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 8, 13, 100])
def test_only_the_last_rows_are_packed(d, dtype):
    n = 3 * ROWS
    A, buffer = RNG.standard_normal((n, d)).astype(dtype), np.zeros((ROWS, padded(d)))
    for start in range(0, n, ROWS):
        is_last = start + ROWS == n
        rows, columns, moved = loaded(A, start, ROWS, buffer)
        assert (rows, columns) == (ROWS, padded(d))
        assert is_in_place(A, start, ROWS) == (not is_last or d % 8 == 0)
        assert moved == (is_last and d % 8 != 0) or dtype == np.float32


def test_rows_beside_each_other_do_not_mix():
    """The last register of a row runs into the next one, and its entries must count for nothing, however large."""
    n, d = 512, 5
    A = RNG.standard_normal((n, d))
    A[:, 0] *= 1e140
    b, x = RNG.random(n), np.array([0.0, 0.1, 0.2, -0.1, 0.3])
    aligned = np.zeros((n, 8))
    aligned[:, :d] = A
    odd, even = fastrsx.Problem(A, b, kernel="serial"), fastrsx.Problem(aligned, b, kernel="serial")
    wide = np.append(x, np.zeros(3))
    assert odd.value(x) == even.value(wide)
    assert_allclose(odd.grad(x), even.grad(wide)[:d], rtol=1e-13)
    assert_allclose(odd.hess(x), even.hess(wide)[:d, :d], rtol=1e-13)
