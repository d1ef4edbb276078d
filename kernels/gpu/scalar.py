"""Formulas for a thread of a GPU: the same source as for registers, for one number. And kernels by link.

x * y + z stands for the multiply-add of registers, math.exp for their exponential; a number is a register of one lane.
"""

import functools
import math
import types
from collections.abc import Hashable

from numba.core.dispatcher import Dispatcher

from ..compiling.jit import rebuilt
from ..formulas import links
from ..registers import exp as exponential
from ..registers import simd
from .block import device, kernel, kernel_of


@device
def _multiply_add(x, y, z):
    return x * y + z


@device
def _itself(x):
    return x


_MEANINGS = {
    exponential.exp: math.exp,
    simd.fma: _multiply_add,
    simd.splat: _itself,
    simd.absolute: abs,
    simd.maximum: max,
    simd.sqrt: math.sqrt,
}


def _meaning(value):
    """The meaning of a formula's global or free variable here."""
    if isinstance(value, Hashable) and value in _MEANINGS:
        return _MEANINGS[value]
    return scalar(value) if isinstance(value, Dispatcher) else value


@functools.cache
def scalar(formula):
    """A formula, or a jitted function, for one number."""
    func = formula.py_func if isinstance(formula, Dispatcher) else formula
    names = {name: _meaning(func.__globals__[name]) for name in func.__code__.co_names if name in func.__globals__}
    cells = func.__closure__ and tuple(types.CellType(_meaning(cell.cell_contents)) for cell in func.__closure__)
    return device(rebuilt(func, names, cells))


def _terms(kind):
    """u, u', u'' and the size of the summands of u, each times k = exp(-shift), for the links of this type."""
    if not hasattr(kind, "functions"):
        return scalar(kind.terms)
    function = scalar(kind.functions[0])

    @device
    def terms(link, a, shift, k):
        u, v, e = function(a, shift)
        return u, v, e, abs(u)

    return terms


def _growth(kind):
    """m(a) for the links of this type."""
    if not hasattr(kind, "functions"):
        return device(lambda link, a: a)
    if kind.functions[1] is None:
        return device(lambda link, a: 0.0)
    function = scalar(kind.functions[1])
    return device(lambda link, a: function(a))


class ByLink:
    """A kernel, or a part of one, for each type of link: the same source, where `terms` and `growth` are those of the link."""

    def __init__(self, func, make):
        self.func, self.make, self.made = func, make, {}

    def of(self, kind):
        """For the links of this type; compiled at its first launch."""
        if kind not in self.made:
            self.made[kind] = self._build(kind)
        return self.made[kind]

    def _build(self, kind):
        meanings = {}
        for name in self.func.__code__.co_names:
            value = self.func.__globals__.get(name)
            if isinstance(value, ByLink):
                meanings[name] = value.of(kind)
            elif value is links.terms or value is links.growth:
                meanings[name] = of_link(value, kind)
        return self.make(rebuilt(self.func, meanings))


@functools.cache
def of_link(function, kind):
    """`terms` or `growth` for the links of this type."""
    return (_terms if function is links.terms else _growth)(kind)


def linked_kernel(func):
    """A kernel that uses u, u', u'' or m(a) of its link."""
    return ByLink(func, kernel)


def linked_kernel_of(registers):
    """The same with at most that many registers a thread."""
    return lambda func: ByLink(func, kernel_of(registers))


def linked_device(func):
    """A part of such kernels."""
    return ByLink(func, device)
