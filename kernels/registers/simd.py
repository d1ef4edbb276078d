"""A SIMD register as a Numba type: eight float64 lanes, and the operations kernels are written in.

The type is eight lanes wide whatever the host: LLVM maps it to one AVX-512 register, two AVX ones or four NEON
ones. So a sum has one written order on every machine, and no fastmath flag is needed to vectorise it: the
source is computed as written, bit for bit, in serial, parallel and inlined code alike.

Arrays are addressed by their strides, without wrap-around or bounds check; the last axis must be contiguous. Loads widen
float32; stores go to float64 only.
Tuples of registers (`UniTuple(f64x8, k)`) stay in registers too, which is how `tile` holds its tile.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, models, overload, register_model

LANES = 8

_DOUBLE, _FLOAT, _INT32, _INT64 = ir.DoubleType(), ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTEGERS = ir.VectorType(_DOUBLE, LANES), ir.VectorType(_INT64, LANES)
_LANE_NUMBERS = ir.Constant(_INTEGERS, list(range(LANES)))


class F64x8(types.Type):
    """The Numba type of a register; its values live only inside compiled code."""

    def __init__(self) -> None:
        super().__init__(name="f64x8")


f64x8 = F64x8()


@register_model(F64x8)
class _F64x8Model(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


# -- pieces of IR, for the intrinsics here and in tile -------------------------------------------------------


def broadcast(builder, scalar, lanes=LANES):
    """The scalar in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, _INT32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def shuffle(builder, x, y, lanes):
    """Lanes picked from x (0-7) and y (8-15)."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes)))


def llvm_call(builder, name, result, args):
    """A call of an LLVM intrinsic."""
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}"), args)


def multiply_add(builder, x, y, z):
    """x * y + z, rounded once, of float64 or float32 registers of any width."""
    bits = 64 if x.type.element == _DOUBLE else 32
    return llvm_call(builder, f"fma.v{x.type.count}f{bits}", x.type, [x, y, z])


def pointer(context, builder, array_type, array, indices, kind=_DOUBLE):
    """The address of array[indices]."""
    array = context.make_array(array_type)(context, builder, array)
    offset = builder.mul(indices[-1], _INT64(array_type.dtype.bitwidth // 8))
    for index, stride in zip(indices[:-1], cgutils.unpack_tuple(builder, array.strides), strict=False):
        offset = builder.add(offset, builder.mul(index, stride))
    start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(start, [offset]), kind.as_pointer())


def load_lanes(context, builder, array_type, array, indices, count):
    """array[..., j : j + count], widened."""
    number, size = (_DOUBLE, 8) if array_type.dtype == types.float64 else (_FLOAT, 4)
    x = builder.load(pointer(context, builder, array_type, array, indices, ir.VectorType(number, count)), align=size)
    return x if size == 8 else builder.fpext(x, ir.VectorType(_DOUBLE, count))


def load_vector(context, builder, array_type, array, indices):
    """array[..., j : j + 8], widened."""
    return load_lanes(context, builder, array_type, array, indices, LANES)


def load_number(context, builder, array_type, array, indices):
    """array[..., j], widened."""
    if array_type.dtype == types.float64:
        return builder.load(pointer(context, builder, array_type, array, indices))
    return builder.fpext(builder.load(pointer(context, builder, array_type, array, indices, _FLOAT)), _DOUBLE)


def _require(operation, array, *dtypes):
    """Refuse, at compile time, an array that would be read or written as another type."""
    if not isinstance(array, types.Array) or array.dtype not in dtypes or (array.ndim == 1 and array.layout != "C"):
        raise TypingError(
            f"{operation} takes contiguous arrays of {' or '.join(map(str, dtypes))}, got {array}; np.ascontiguousarray and astype make one"
        )


def _first(builder, count):
    """The mask of the first `count` lanes."""
    return builder.icmp_signed("<", _LANE_NUMBERS, broadcast(builder, count))


# -- the operations, as kernels call them --------------------------------------------------------------------


@intrinsic
def splat(typingctx, scalar):
    """The scalar in every lane; a register unchanged."""

    def codegen(context, builder, sig, args):
        return args[0] if sig.args[0] == f64x8 else broadcast(builder, args[0])

    return f64x8(f64x8 if scalar == f64x8 else types.float64), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z: rounded once for registers, after each operation for three numbers."""

    def codegen(context, builder, sig, args):
        if sig.return_type == f64x8:
            return multiply_add(builder, *args)
        return builder.fadd(builder.fmul(args[0], args[1]), args[2])

    kind = f64x8 if f64x8 in (x, y, z) else types.float64
    return kind(kind, kind, kind), codegen


def _lanewise(name, emit):
    """An intrinsic of two registers."""

    @intrinsic
    def operation(typingctx, x, y):
        if x != f64x8 or y != f64x8:
            raise TypingError(f"{name} takes two registers (f64x8), got {x} and {y}; splat() makes one of a scalar")

        def codegen(context, builder, sig, args):
            return emit(builder, *args)

        return f64x8(f64x8, f64x8), codegen

    return operation


_add = _lanewise("+", lambda builder, x, y: builder.fadd(x, y))
_subtract = _lanewise("-", lambda builder, x, y: builder.fsub(x, y))
_multiply = _lanewise("*", lambda builder, x, y: builder.fmul(x, y))
_divide = _lanewise("/", lambda builder, x, y: builder.fdiv(x, y))
# A NaN in x is ignored: maxima find the shift, and the NaN shows in the sums.
maximum = _lanewise("maximum", lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))


def named(name, function):
    """A function made for an overload, under a name of its own.

    Compiled code is identified by name, types and a number that restarts in each process: with two functions of one name and one type, kernels
    cached by two processes could use either.
    """
    function.__name__ = function.__qualname__ = name
    return function


def _overload_operator(symbol, operation):
    @overload(symbol)
    def typed(x, y):
        if f64x8 not in (x, y):
            return None
        if x == y:
            return named(f"{symbol.__name__}_registers", lambda x, y: operation(x, y))
        if x == f64x8:
            return named(f"{symbol.__name__}_register_and_scalar", lambda x, y: operation(x, splat(y)))
        return named(f"{symbol.__name__}_scalar_and_register", lambda x, y: operation(splat(x), y))


for _symbols, _operation in (
    ((operator.add, operator.iadd), _add),
    ((operator.sub, operator.isub), _subtract),
    ((operator.mul, operator.imul), _multiply),
    ((operator.truediv, operator.itruediv), _divide),
):
    for _symbol in _symbols:
        _overload_operator(_symbol, _operation)


@intrinsic
def absolute(typingctx, x):
    """|x|."""

    def codegen(context, builder, sig, args):
        return llvm_call(builder, "fabs.v8f64", _VECTOR, args)

    return f64x8(f64x8), codegen


@intrinsic
def lane(typingctx, x, i):
    """Lane i."""

    def codegen(context, builder, sig, args):
        return builder.extract_element(*args)

    return types.float64(f64x8, types.int64), codegen


@intrinsic
def with_lane(typingctx, x, i, value):
    """x with the value in lane i."""

    def codegen(context, builder, sig, args):
        return builder.insert_element(args[0], args[2], args[1])

    return f64x8(f64x8, types.int64, types.float64), codegen


@overload(operator.neg)
def _negative(x):
    return (lambda x: splat(-0.0) - x) if x == f64x8 else None


@overload(abs)
def _absolute(x):
    return (lambda x: absolute(x)) if x == f64x8 else None


@intrinsic
def sqrt(typingctx, x):
    """The square root."""

    def codegen(context, builder, sig, args):
        return llvm_call(builder, "sqrt.v8f64", _VECTOR, args)

    return f64x8(f64x8), codegen


@intrinsic
def where_less(typingctx, x, y, yes, no):
    """`yes` where x < y, else `no` (also where either is NaN)."""

    def codegen(context, builder, sig, args):
        x, y, yes, no = args
        return builder.select(builder.fcmp_ordered("<", x, y), yes, no)

    return f64x8(f64x8, f64x8, f64x8, f64x8), codegen


@intrinsic
def add_exponent(typingctx, x, shifted):
    """x * 2^n for n the integer in the low bits of `shifted` = n + 1.5 * 2^52; no check of range."""

    def codegen(context, builder, sig, args):
        x, shifted = (builder.bitcast(arg, _INTEGERS) for arg in args)
        exponent = builder.shl(shifted, ir.Constant(_INTEGERS, [52] * LANES))
        return builder.bitcast(builder.add(x, exponent), _VECTOR)

    return f64x8(f64x8, f64x8), codegen


@intrinsic
def first(typingctx, x, count):
    """x in the first `count` lanes, 0 in the others."""

    def codegen(context, builder, sig, args):
        return builder.select(_first(builder, args[1]), args[0], ir.Constant(_VECTOR, [0.0] * LANES))

    return f64x8(f64x8, types.int64), codegen


@intrinsic
def load_first(typingctx, array, i, j, count):
    """array[i, j : j + count] and zeros after it; reads nothing beyond. A vector is its own row i = 0."""
    _require("load_first", array, types.float64, types.float32)
    number, size = (_DOUBLE, 8) if array.dtype == types.float64 else (_FLOAT, 4)
    vector = ir.VectorType(number, LANES)

    def codegen(context, builder, sig, args):
        indices = args[1:3] if array.ndim == 2 else args[2:3]
        start = pointer(context, builder, array, args[0], indices, vector)
        zero = ir.Constant(vector, [0.0] * LANES)
        x = llvm_call(builder, f"masked.load.v8f{8 * size}.p0", vector, [start, _INT32(size), _first(builder, args[3]), zero])
        return x if size == 8 else builder.fpext(x, _VECTOR)

    return f64x8(array, types.int64, types.int64, types.int64), codegen


@intrinsic
def register(typingctx, X, i, j):
    """The j-th register of row i."""

    def codegen(context, builder, sig, args):
        return load_vector(context, builder, X, args[0], (args[1], builder.mul(args[2], _INT64(LANES))))

    return f64x8(X, types.int64, types.int64), codegen


@intrinsic
def store(typingctx, array, i, j, x):
    """array[i, j : j + 8] = x; a vector is its own row i = 0."""
    _require("store", array, types.float64)

    def codegen(context, builder, sig, args):
        indices = args[1:3] if array.ndim == 2 else args[2:3]
        builder.store(args[3], pointer(context, builder, array, args[0], indices, _VECTOR), align=8)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, f64x8), codegen


@intrinsic
def store_first(typingctx, array, i, j, count, x):
    """array[i, j : j + count] = x; writes nothing beyond. A vector is its own row i = 0."""
    _require("store_first", array, types.float64)

    def codegen(context, builder, sig, args):
        indices = args[1:3] if array.ndim == 2 else args[2:3]
        start = pointer(context, builder, array, args[0], indices, _VECTOR)
        llvm_call(builder, "masked.store.v8f64.p0", ir.VoidType(), [args[4], start, _INT32(8), _first(builder, args[3])])
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64, types.int64, f64x8), codegen


@intrinsic
def read_only(typingctx, array):
    """The array as read-only: another type to Numba, for which kernels may have been compiled already."""

    def codegen(context, builder, sig, args):
        return impl_ret_borrowed(context, builder, sig.return_type, args[0])

    return array.copy(readonly=True)(array), codegen


@intrinsic
def uniform(typingctx, array):
    """A matrix as read-only and of any strides, so that functions of it are compiled once; what is no array, unchanged."""

    def codegen(context, builder, sig, args):
        return impl_ret_borrowed(context, builder, sig.return_type, args[0])

    kind = array.copy(readonly=True, layout="A") if isinstance(array, types.Array) else array
    return kind(array), codegen


def _line(context, builder, source_type, source, row, line):
    """The address of a line after the start of a row, for `prefetch`."""
    if isinstance(source_type, types.Array):
        return pointer(context, builder, source_type, source, (row, builder.mul(line, _INT64(LANES))), ir.IntType(8))
    address, stride, run, over_run, near, far = (
        builder.extract_value(source, source_type.fields.index(name)) for name in ("address", "row", "run", "over_run", "near", "far")
    )
    runs = builder.lshr(builder.mul(line, over_run), _INT64(32))
    within = builder.sub(line, builder.mul(runs, run))
    offset = builder.add(builder.mul(within, near), builder.mul(runs, far))
    return builder.inttoptr(builder.add(builder.add(address, builder.mul(row, stride)), offset), ir.IntType(8).as_pointer())


def _to_l2(builder, start):
    llvm_call(builder, "prefetch.p0", ir.VoidType(), [start, _INT32(0), _INT32(2), _INT32(1)])  # to read, L2, data


@intrinsic(prefer_literal=True)
def prefetch(typingctx, source, row, line, count):
    """Prefetch `count` lines (a literal integer) of eight numbers into L2, from the line-th after the start of source[row] on.

    They may lie beyond the source. The out-of-order window does not reach the next panel, so without prefetch memory would idle while the current one
    is processed. L1 has no room. Lines of a `Strided` are numbered in prefetch order; a source without lines has no panels.
    """
    stride = 2 if isinstance(source, types.Array) and source.dtype == types.float32 else 1  # two lines of eight share 64 bytes

    def codegen(context, builder, sig, args):
        if isinstance(source, types.Array) or "near" in source.fields:
            for c in range(0, count.literal_value, stride):
                start = _line(context, builder, source, args[0], args[1], builder.add(args[2], _INT64(c)))
                _to_l2(builder, start)
        return context.get_dummy_value()

    return types.none(source, types.int64, types.int64, count), codegen


@intrinsic
def address_of(typingctx, source, row):
    """The address of source[row], for `prefetch_at`; 0 of what is no array."""

    def codegen(context, builder, sig, args):
        if not isinstance(source, types.Array):
            return _INT64(0)
        return builder.ptrtoint(_line(context, builder, source, args[0], args[1], _INT64(0)), _INT64)

    return types.int64(source, types.int64), codegen


@intrinsic(prefer_literal=True)
def prefetch_at(typingctx, address, line, count):
    """`prefetch` of lines of 64 bytes from an address on."""

    def codegen(context, builder, sig, args):
        for c in range(count.literal_value):
            start = builder.add(args[0], builder.shl(builder.add(args[1], _INT64(c)), _INT64(6)))
            _to_l2(builder, builder.inttoptr(start, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, count), codegen


def _fold_lanes(name, combine):
    """An intrinsic that combines the lanes of a register in a fixed tree: 0+4, 1+5, ...; then 0+2, 1+3; then 0+1."""

    @intrinsic
    def operation(typingctx, x):
        def codegen(context, builder, sig, args):
            x = args[0]
            for half in (4, 2, 1):
                x = combine(builder, shuffle(builder, x, x, range(half)), shuffle(builder, x, x, range(half, 2 * half)))
            return builder.extract_element(x, _INT32(0))

        return types.float64(f64x8), codegen

    operation.__doc__ = name
    return operation


sum_lanes = _fold_lanes("The sum of the lanes.", lambda builder, x, y: builder.fadd(x, y))
max_lanes = _fold_lanes("The largest lane.", lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))


@intrinsic(prefer_literal=True)
def zeros(typingctx, count):
    """A tuple of `count` zero registers (a literal integer)."""
    registers = types.UniTuple(f64x8, count.literal_value)

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, registers, [ir.Constant(_VECTOR, [0.0] * LANES)] * len(registers))

    return registers(count), codegen


def transposed(builder, rows, size):
    """Registers whose lanes are rows of matrices `size` wide, each matrix transposed."""
    for width in (1, 2, 4):  # swap the off-diagonal blocks of that width
        if width < size:
            lower = [(lane & ~width) + LANES * bool(lane & width) for lane in range(LANES)]
            upper = [lane + width for lane in lower]
            pairs = [(r & ~width, r | width, upper if r & width else lower) for r in range(size)]
            rows = [shuffle(builder, rows[x], rows[y], lanes) for x, y, lanes in pairs]
    return rows


def sum_lanes_of_each(builder, rows):
    """The sums of eight registers, as the lanes of one."""
    for width in (1, 2, 4):  # halve the number of registers: x in the lanes without bit `width`, y in the others
        lower = [(lane & ~width) + LANES * bool(lane & width) for lane in range(LANES)]
        upper = [lane + width for lane in lower]
        rows = [builder.fadd(shuffle(builder, x, y, lower), shuffle(builder, x, y, upper)) for x, y in zip(rows[::2], rows[1::2], strict=True)]
    return rows[0]


def sums_of_lanes(builder, registers):
    """The sums of any number of registers, as numbers."""
    zero, sums = ir.Constant(_VECTOR, [0.0] * LANES), []
    for start in range(0, len(registers), LANES):
        some = registers[start : start + LANES]
        total = sum_lanes_of_each(builder, some + [zero] * (LANES - len(some)))
        sums += [builder.extract_element(total, _INT32(i)) for i in range(len(some))]
    return sums


@intrinsic
def transpose(typingctx, registers):
    """Eight registers as the rows of a matrix, transposed."""

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, registers, transposed(builder, cgutils.unpack_tuple(builder, args[0]), LANES))

    return registers(registers), codegen


@intrinsic
def sum_each(typingctx, registers):
    """The sums of eight registers, as the lanes of one."""
    if registers != types.UniTuple(f64x8, LANES):
        raise TypingError(f"sum_each takes a tuple of {LANES} registers, got {registers}")

    def codegen(context, builder, sig, args):
        return sum_lanes_of_each(builder, cgutils.unpack_tuple(builder, args[0]))

    return f64x8(registers), codegen
