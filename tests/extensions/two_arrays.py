"""An engine from outside: the rows of A lie in two arrays, which are never joined."""

import numpy as np

from fastrsx import engines
from fastrsx.engines.parts import PartsPasses
from fastrsx.kernels.layouts.registry import Layout, register


class TwoArrays:
    """The rows of `top`, then those of `bottom`."""

    ndim, dtype = 2, np.dtype(np.float64)

    def __init__(self, top, bottom):
        self.top, self.bottom = top, bottom
        self.shape = len(top) + len(bottom), top.shape[1]

    def __getitem__(self, rows):
        numbers = np.arange(self.shape[0])[rows]
        inside = numbers < len(self.top)
        out = np.empty((len(numbers), self.shape[1]))
        out[inside] = self.top[numbers[inside]]
        out[~inside] = self.bottom[numbers[~inside] - len(self.top)]
        return out


class TwoArraysPasses(PartsPasses):
    """Passes over one array, then over the other."""

    def __init__(self, data, b, w, plan, link):
        longer = max(data.A.top, data.A.bottom, key=len)
        super().__init__(data, b, w, plan, link, longer)

    def parts(self):
        A = self.data.A
        yield slice(0, len(A.top)), A.top
        yield slice(len(A.top), A.shape[0]), A.bottom


register(Layout(name="two arrays", words="A read from two arrays", recognises=lambda A: isinstance(A, TwoArrays), in_parts=True))
engines.register("two arrays", TwoArraysPasses)
