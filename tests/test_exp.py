"""The exponential of a register against mpmath."""

import mpmath
import numpy as np
import pytest
from numba import njit

from fastrsx.kernels.exp import exp
from fastrsx.kernels.registers.simd import LANES, load_first, store_first


@njit
def exp_each(x, out):
    for i in range(0, x.shape[0], LANES):
        count = x.shape[0] - i
        store_first(out, 0, i, count, exp(load_first(x, 0, i, count)))


def vector_exp(x):
    x = np.array(x, dtype=float)
    out = np.empty_like(x)
    exp_each(x, out)
    return out


def ulps(x):
    """The error of each exp(x) in units of the last place."""
    with mpmath.workprec(150):
        exact = [mpmath.exp(mpmath.mpf(float(y))) for y in x]
        return np.array([float(abs(mpmath.mpf(float(y)) - z) / float(np.spacing(float(z)))) for y, z in zip(vector_exp(x), exact, strict=True)])


RNG = np.random.default_rng(0)
HALVES = (np.arange(-1021, 1023) + 0.5) * np.log(2)  # where the reduction goes from one power of 2 to the next

SAMPLES = {
    "everywhere": RNG.uniform(-708, 709, 20000),
    "near 0": RNG.uniform(-1, 1, 5000),
    "tiny": RNG.choice([-1, 1], 500) * 10 ** RNG.uniform(-320, -1, 500),
    "small results": RNG.uniform(-708, -700, 1000),
    "large results": RNG.uniform(700, 709, 1000),
    "reduction": np.concatenate([HALVES, np.nextafter(HALVES, -np.inf), np.nextafter(HALVES, np.inf)]),
    "integers": np.arange(-708.0, 710.0),
    "ends": np.array([-708.0, np.nextafter(-708, 0), np.nextafter(709, 0), 709.0]),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_within_one_ulp(sample):
    x = SAMPLES[sample]
    assert x.min() >= -708
    assert x.max() <= 709
    error = ulps(x)
    worst = int(error.argmax())
    assert error[worst] <= 1, f"{error[worst]} ulp at {x[worst]!r}"


def test_zero_is_exact():
    np.testing.assert_array_equal(vector_exp([0.0, -0.0, 5e-324, -5e-324]), 1.0)


def test_flushes_to_zero_below_708():
    """No clamp: a clamped exp times a large number would not be small."""
    x = [np.nextafter(-708, -np.inf), -708.5, -709.0, -709.5, -745.0, -746.0, -1e4, -1e9, -1e17, -1e300, -np.finfo(float).max, -np.inf]
    np.testing.assert_array_equal(vector_exp(x), 0.0)


NANS = [0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8DEADBEEF0001, 0xFFFFFFFFFFFFFFFF, 0x7FF0000000000001, 0xFFF4000000000000]


@pytest.mark.parametrize("bits", NANS, ids=hex)
def test_nan_stays_nan(bits):
    """Of any sign and payload, also a signalling one; the other lanes are not affected."""
    x = np.zeros(11)
    x[[0, 5, 10]] = np.array(bits, dtype=np.uint64).view(float)
    np.testing.assert_array_equal(np.isnan(vector_exp(x)), np.isnan(x))
    np.testing.assert_array_equal(vector_exp(x)[~np.isnan(x)], 1.0)


def test_result_does_not_depend_on_the_lane():
    x = RNG.uniform(-708, 709, 100)
    np.testing.assert_array_equal(vector_exp(x)[3:], vector_exp(x[3:]))
