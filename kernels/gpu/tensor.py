"""The float64 tensor cores of a GPU, and copies to shared memory that run beside them: what numba.cuda has no function for.

A routine is a Python function of `on`, the operations of a lane, and of its arguments. Its loops run while a kernel is compiled, so that what it
keeps in a local array stays in registers. `Emitted` writes LLVM and PTX. In Numba's simulator `Warp` computes with NumPy for all lanes of the warp at
once, since their products need each other's numbers, and the thread keeps those of its lane.

A product adds a 16 x 4 matrix times a 4 x 8 matrix to one of 16 x 8. A lane has two numbers of the first, one of the second and four of the third;
PTX calls lane // 4 its group, and lane % 4 its thread in the group.
"""

import inspect

import numpy as np
from numba import config

from . import halves
from .block import device

LANES = 32

if config.ENABLE_CUDASIM:

    class Warp:
        """The operations, for arrays of the numbers of all lanes."""

        def __init__(self, lane):
            self.own, lanes = lane, np.arange(LANES)
            self.lane, self.group, self.thread = lanes, lanes // 4, lanes % 4

        def _of_lane(self, x):
            return x[self.own] if np.ndim(x) else x

        def get(self, numbers, k):
            return numbers[k]

        def set(self, numbers, k, x):
            numbers[k] = self._of_lane(x)

        def load(self, array, place):
            return array[place].astype(np.float64)

        def load_pair(self, array, place):
            return self.load(array, place), self.load(array, place + 1)

        def write(self, array, place, x):
            array[self._of_lane(place)] = self._of_lane(x)

        def put(self, flag, array, places, x):
            if self._of_lane(flag):
                array[tuple(map(self._of_lane, places))] = self._of_lane(x)

        def only(self, flag, x):
            return np.where(flag, x, 0.0)

        def product(self, a, b, c):
            """As the manual of PTX places the numbers of the three matrices."""
            left, right = np.zeros((16, 4)), np.zeros((4, 8))
            left[self.group, self.thread], left[self.group + 8, self.thread] = a
            right[self.thread, self.group] = b
            out = left @ right
            return [out[self.group + 8 * (k // 2), 2 * self.thread + k % 2] + c[k] for k in range(4)]

        def copy(self, size, there, place, array, places, count):
            *row, j = places
            for k in range(size // there.dtype.itemsize):
                there[place + k] = array[(*row, j + k)] if k * there.dtype.itemsize < count else 0.0

        def commit(self):
            pass

        def wait(self, most):
            pass

    def straight(routine):
        """A device function (lane, *arguments) of a routine."""
        return device(lambda lane, *args: routine(Warp(lane), *args))

    @device
    def afresh(number):
        return number

else:
    from llvmlite import ir
    from numba.core import cgutils
    from numba.cuda import types
    from numba.cuda.core.targetconfig import ConfigStack
    from numba.cuda.extending import intrinsic

    HOPPER = (9, 0)  # from this compute capability on, one instruction multiplies 16 rows

    I16, I32, I64, F64, VOID = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.DoubleType(), ir.VoidType()

    class Value:
        """A number in a register: operators write the code that computes with it."""

        def __init__(self, builder, it):
            self.builder, self.it = builder, it

        def _new(self, instruction, other):
            other = other.it if isinstance(other, Value) else ir.Constant(self.it.type, other)
            return Value(self.builder, instruction(self.it, other))

        def __add__(self, other):
            return self._new(self.builder.fadd if self.it.type == F64 else self.builder.add, other)

        def __mul__(self, other):
            return self._new(self.builder.fmul if self.it.type == F64 else self.builder.mul, other)

        def __le__(self, other):
            return self._new(lambda x, y: self.builder.icmp_signed("<=", x, y), other)

        def __lt__(self, other):
            return self._new(lambda x, y: self.builder.icmp_signed("<", x, y), other)

        def __and__(self, other):
            return self._new(self.builder.and_, other)

        def __floordiv__(self, other):
            return self._new(self.builder.udiv, other)

        def __mod__(self, other):
            return self._new(self.builder.urem, other)

        __radd__, __rmul__ = __add__, __mul__

    class Array:
        """An array, of any strides."""

        def __init__(self, context, builder, kind, value):
            self.builder, self.kind, self.number = builder, kind.dtype, context.get_data_type(kind.dtype)
            self.struct = context.make_array(kind)(context, builder, value)
            self.ndim = kind.ndim

        def element(self, place, space=0):
            """The pointer to an element of a vector, in that address space: 3 is shared memory."""
            pointer = self.builder.bitcast(self.struct.data, ir.PointerType(self.number))
            index = place.it if isinstance(place, Value) else ir.Constant(I64, place)
            pointer = self.builder.gep(pointer, [index], source_etype=self.number)
            return self.builder.addrspacecast(pointer, ir.PointerType(self.number, space)) if space else pointer

        def address(self, places):
            """The address of an element."""
            address = self.builder.ptrtoint(self.struct.data, I64)
            for place, stride in zip(places, cgutils.unpack_tuple(self.builder, self.struct.strides, self.ndim), strict=True):
                address = self.builder.add(address, self.builder.mul(place.it, stride))
            return address

    class Emitted:
        """The operations, as code of a kernel."""

        def __init__(self, builder, lane):
            self.builder, self.lane, self.group, self.thread = builder, lane, lane // 4, lane % 4

        def _asm(self, result, arguments, text, constraints, side_effect=True):
            kind = ir.FunctionType(result, [each.type for each in arguments])
            return self.builder.call(ir.InlineAsm(kind, text, constraints, side_effect=side_effect), arguments)

        def _widened(self, array, x):
            return Value(self.builder, halves.widened(self.builder, array.kind, x))

        # -- numbers of this lane, in registers -------------------------------------------------------------------

        def get(self, numbers, k):
            return Value(self.builder, self.builder.load(numbers.element(k), typ=F64))

        def set(self, numbers, k, x):
            self.builder.store(x.it if isinstance(x, Value) else ir.Constant(F64, x), numbers.element(k))

        def only(self, flag, x):
            """x where the flag is set, else 0."""
            return Value(self.builder, self.builder.select(flag.it, x.it, ir.Constant(F64, 0.0)))

        # -- shared memory ----------------------------------------------------------------------------------------

        def load(self, array, place):
            return self._widened(array, self.builder.load(array.element(place, 3), typ=array.number))

        def load_pair(self, array, place):
            """Two numbers side by side, from an even place."""
            if array.number == I16:
                both = self.builder.load(self.builder.bitcast(array.element(place, 3), ir.PointerType(I32, 3)), typ=I32)
                both.align = 4
                return [Value(self.builder, x) for x in halves.emitted(self.builder, both, halves.NAMES[array.kind], 2)]
            pair = ir.VectorType(array.number, 2)
            both = self.builder.load(self.builder.bitcast(array.element(place, 3), ir.PointerType(pair, 3)), typ=pair)
            both.align = 16 if array.number == F64 else 8
            return [self._widened(array, self.builder.extract_element(both, ir.Constant(I32, k))) for k in range(2)]

        def write(self, array, place, x):
            self.builder.store(x.it, array.element(place, 3))

        # -- memory -----------------------------------------------------------------------------------------------

        def put(self, flag, array, places, x):
            """array[places] = x where the flag is set."""
            with self.builder.if_then(flag.it):
                self.builder.store(x.it, self.builder.inttoptr(array.address(places), ir.PointerType(F64)))

        def copy(self, size, there, place, array, places, count):
            """Start to copy `size` bytes, 4, 8 or 16, from array[places] on: the first `count` of them, and zeros. Both ends are on as many bytes.

            cp.async has no copy of 2 bytes: a thread loads them and waits for them.
            """
            if size == 2:
                x = self._asm(I16, [array.address(places)], "ld.global.nc.u16 $0, [$1];", "=h,l")
                self.builder.store(self.builder.select((count <= 0).it, ir.Constant(I16, 0), x), there.element(place, 3))
                return
            to = self.builder.ptrtoint(there.element(place, 3), I32)
            text = f"cp.async.{'cg' if size == 16 else 'ca'}.shared.global [$0], [$1], {size}, $2;"
            self._asm(VOID, [to, array.address(places), self.builder.trunc(count.it, I32)], text, "r,l,r,~{memory}")

        def commit(self):
            """What was copied since the last call is a group."""
            self._asm(VOID, [], "cp.async.commit_group;", "~{memory}")

        def wait(self, most):
            """Until at most that many groups of this thread are under way."""
            self._asm(VOID, [], f"cp.async.wait_group {most};", "~{memory}")

        # -- tensor cores -----------------------------------------------------------------------------------------

        def _mma(self, rows, a, b, c):
            place = lambda first, count: "{" + ", ".join(f"${k}" for k in range(first, first + count)) + "}"  # noqa: E731
            na, nc = len(a), len(c)
            places = place(0, nc), place(nc, na), place(nc + na, 1), place(nc + na + 1, nc)
            text = f"mma.sync.aligned.m{rows}n8k4.row.col.f64.f64.f64.f64 {', '.join(places)};"
            arguments = [each.it for each in (*a, b, *c)]
            out = self._asm(ir.LiteralStructType([F64] * nc), arguments, text, ",".join(["=d"] * nc + ["d"] * len(arguments)), side_effect=False)
            return [Value(self.builder, self.builder.extract_value(out, k)) for k in range(nc)]

        def product(self, a, b, c):
            """c + a b: one instruction, and two of half the rows before Hopper, which place the numbers alike."""
            if ConfigStack().top().compute_capability >= HOPPER:
                return self._mma(16, a, b, c)
            return self._mma(8, a[:1], b, c[:2]) + self._mma(8, a[1:], b, c[2:])

    def straight(routine):
        """An intrinsic (lane, *arguments) of a routine."""

        def definition(typingctx, *kinds):
            def codegen(context, builder, sig, args):
                pairs = zip(sig.args, args, strict=True)
                lane, *rest = (Array(context, builder, *each) if isinstance(each[0], types.Array) else Value(builder, each[1]) for each in pairs)
                routine(Emitted(builder, lane), *rest)
                return context.get_dummy_value()

            return types.void(*(kind if isinstance(kind, types.Array) else types.int64 for kind in kinds)), codegen

        names = ["typingctx", "lane", *list(inspect.signature(routine).parameters)[1:]]
        vars(definition)["__signature__"] = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names])
        return intrinsic(definition)

    @intrinsic
    def afresh(typingctx, number):
        """The same number, hidden from the compiler: it computes anew what depends on it, and keeps no register for that."""

        def codegen(context, builder, sig, args):
            kind = ir.FunctionType(I64, [I64])
            return builder.call(ir.InlineAsm(kind, "mov.b64 $0, $1;", "=l,l", side_effect=True), args)

        return types.int64(types.int64), codegen
