"""Records: numbers with names, in a plain array of float64.

A call from Python takes 2 us to learn the type of each array of records among its arguments, and next to nothing for one of numbers.
"""

from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.extending import lower_builtin, type_callable


def record(**fields: Any) -> np.dtype[Any]:
    """The type of a record with these fields, each a dtype."""
    return np.dtype((np.record, np.dtype(list(fields.items()), align=True)))  # unaligned, a GPU would read it byte by byte


def room(dtype):
    """The numbers that hold a record."""
    return dtype.itemsize // 8


def reader(dtype):
    """The function that sees the first `room(dtype)` numbers of an array as a record, to read and to write; compiled, it costs nothing."""
    kind, numbers_of_one = from_dtype(dtype), room(dtype)

    def see(numbers):
        return numbers[:numbers_of_one].view(dtype)[0]

    @type_callable(see)
    def typed(context):
        return lambda numbers: kind

    @lower_builtin(see, types.Array)
    def lowered(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.bitcast(array.data, context.get_value_type(kind))

    return see
