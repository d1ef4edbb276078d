"""Operations of a lane and of its warp that numba.cuda has no function for, and straight-line code of them.

A routine is a Python function of `on`, the operations, and of its arguments. Its loops run while the kernel is compiled: what it leaves in a local
array is at constant places, and so stays in registers. `Emitted` writes LLVM and PTX; `Computed` computes, in Numba's simulator; a test gives the
same routine NumPy's arrays of 32 lanes.
"""

import inspect
from operator import itemgetter

from numba import config

from . import halves
from .block import ALL, WARP, cuda, device

if config.ENABLE_CUDASIM:
    passed = [0.0] * 1024  # by the threads of a block; the simulator runs one block at a time

    def exchange(value, read):
        """What `read` finds among the values that threads of the warp have passed."""
        passed[cuda.threadIdx.x] = value
        cuda.syncwarp()
        found = read(passed)
        cuda.syncwarp()
        return found

    class Computed:
        """The operations, as numbers of one thread."""

        fma = staticmethod(lambda x, y, z: x * y + z)
        multiply = staticmethod(lambda x, y: x * y)
        add = staticmethod(lambda x, y: x + y)
        larger = staticmethod(max)
        absolute = staticmethod(abs)
        pick = staticmethod(lambda flag, x, y: x if flag else y)
        has_bit = staticmethod(lambda lane, bit: lane & bit != 0)
        is_positive = staticmethod(lambda x: x > 0.0)
        is_below = staticmethod(lambda i, stop: i < stop)
        within = staticmethod(lambda i, stop: i if i < stop else 0)
        offset = staticmethod(lambda i, by: i + by)
        least = staticmethod(min)

        @staticmethod
        def swapped(x, bit):
            return swapped(x, bit)

        @staticmethod
        def swapped_within(lanes, x, bit):
            return swapped(x, bit)

        @staticmethod
        def taken(x, lane, width):
            return exchange(float(x), itemgetter(cuda.threadIdx.x // width * width + lane))

        @staticmethod
        def widened(x, number, count):
            return list(map(float, halves.unpaired(x, number, count))) if number in halves.HALVES else [float(x)]

        @staticmethod
        def words(A, base, row, column, count):
            found = [A[base + row, column + e] for e in range(count)]
            if A.dtype.itemsize > 2:
                return found
            return [halves.paired(x, y) for x, y in zip(found[::2], found[1::2] or found, strict=True)]

        @staticmethod
        def entry(array, i):
            return float(array[i])

        @staticmethod
        def store(flag, array, places, values):
            for i, x in zip(places, values, strict=True):
                if flag:
                    array[i] = x

    def straight(routine):
        """A device function of a routine."""
        return device(lambda *args: routine(Computed, *args))

    @device
    def swapped(x, bit):
        return exchange(float(x), itemgetter(cuda.threadIdx.x ^ bit))

    @device
    def swapped_within(lanes, x, bit):
        return swapped(x, bit)

    @device
    def wait_within(lanes):
        cuda.syncwarp()

    @device
    def any_of_warp(flag):
        """Whether the flag is set in a lane."""
        first = cuda.threadIdx.x // WARP * WARP
        return exchange(bool(flag), lambda flags: any(flags[first : first + WARP]))

else:
    from llvmlite import ir
    from numba.core import cgutils
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    I16, I32, I64, F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.DoubleType()

    class Array:
        """An array: its entries at constant places, and what `Emitted` needs for others."""

        def __init__(self, emitted, kind, value):
            self.emitted, self.kind, self.number, self.is_c = emitted, kind.dtype, emitted.context.get_data_type(kind.dtype), kind.layout == "C"
            self.struct = emitted.context.make_array(kind)(emitted.context, emitted.builder, value)

        def place(self, index):
            """The pointer to an entry."""
            pointer = self.emitted.builder.bitcast(self.struct.data, ir.PointerType(self.number))
            return self.emitted.builder.gep(pointer, [self.emitted.as_int(index, I64)], source_etype=self.number)

        def __getitem__(self, k):
            return self.emitted.builder.load(self.place(k), typ=self.number)

        def __setitem__(self, k, x):
            self.emitted.builder.store(x, self.place(k))

    class Emitted:
        """The operations, as code of a kernel."""

        def __init__(self, context, builder):
            self.context, self.builder = context, builder

        def asm(self, result, arguments, text, constraints, attributes=()):
            kind = ir.FunctionType(result, [each.type for each in arguments])
            return self.builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), arguments, attrs=attributes)

        # -- numbers ----------------------------------------------------------------------------------------------

        def fma(self, x, y, z):
            return self.builder.fma(x, y, z)

        def multiply(self, x, y):
            return self.builder.fmul(x, y)

        def add(self, x, y):
            return self.builder.fadd(x, y)

        def larger(self, x, y):
            return self.builder.select(self.builder.fcmp_ordered(">", y, x), y, x)

        def absolute(self, x):
            return self.builder.select(self.builder.fcmp_ordered("<", x, ir.Constant(F64, 0.0)), self.builder.fsub(ir.Constant(F64, 0.0), x), x)

        def widened(self, x, number, count):
            """The numbers in a register, in float64; by statements of their own, so that this one is kept, not the two of each conversion."""
            if number in halves.HALVES:
                return halves.emitted(self.builder, x, number, count)
            return [x if x.type == F64 else self.asm(F64, [x], "cvt.f64.f32 $0, $1;", "=d,f")]

        def pick(self, flag, x, y):
            return self.builder.select(flag, *(ir.Constant(F64, each) if isinstance(each, float) else each for each in (x, y)))

        def is_positive(self, x):
            return self.builder.fcmp_ordered(">", x, ir.Constant(F64, 0.0))

        # -- places -----------------------------------------------------------------------------------------------

        def has_bit(self, lane, bit):
            return self.builder.icmp_unsigned("!=", self.builder.and_(lane, ir.Constant(lane.type, bit)), ir.Constant(lane.type, 0))

        def as_int(self, x, kind):
            if isinstance(x, int):
                return ir.Constant(kind, x)
            same = x.type.width == kind.width
            return x if same else self.builder.sext(x, kind) if x.type.width < kind.width else self.builder.trunc(x, kind)

        def is_below(self, i, stop):
            return self.builder.icmp_signed("<", self.as_int(i, I64), self.as_int(stop, I64))

        def within(self, i, stop):
            """i, or 0 from `stop` on."""
            return self.builder.select(self.is_below(i, stop), i, ir.Constant(i.type, 0))

        def offset(self, i, by):
            return self.builder.add(i, ir.Constant(i.type, by)) if by else i

        def least(self, i, stop):
            i, stop = self.as_int(i, I32), self.as_int(stop, I32)
            return self.builder.select(self.builder.icmp_signed("<", i, stop), i, stop)

        # -- other lanes ------------------------------------------------------------------------------------------

        def _shuffled(self, kind, x, lane, width):
            each = f"shfl.sync.{kind}.b32 {{0}}, {{0}}, {lane}, {(32 - width) << 8 | 0x1F}, {ALL:#x}; "
            text = "{ .reg .b32 low, high; mov.b64 {low, high}, $1; " + each.format("low") + each.format("high") + "mov.b64 $0, {low, high}; }"
            return self.asm(F64, [x], text, "=d,d", ("convergent",))  # all lanes execute the same one: LLVM must not move it into a branch

        def swapped(self, x, bit):
            """x of the lane whose number differs in that bit."""
            return self._shuffled("bfly", x, bit, 32)

        def swapped_within(self, lanes, x, bit):
            """The same where those lanes, as bits, are the ones that execute it."""
            each = f"shfl.sync.bfly.b32 {{0}}, {{0}}, {bit}, 31, $2; "
            text = "{ .reg .b32 low, high; mov.b64 {low, high}, $1; " + each.format("low") + each.format("high") + "mov.b64 $0, {low, high}; }"
            return self.asm(F64, [x, self.as_int(lanes, I32)], text, "=d,d,r", ("convergent",))

        def taken(self, x, lane, width):
            """x of that lane of each `width`."""
            return self._shuffled("idx", x, lane, width)

        # -- memory -----------------------------------------------------------------------------------------------

        def words(self, A, base, row, column, count):
            """A[base + row, column : column + count] in one load, numbers of 16 bits in pairs; rows are counted in 32 bits from `base` on."""
            build, size = self.builder, self.context.get_abi_sizeof(A.number)
            across, along = cgutils.unpack_tuple(build, A.struct.strides, 2)
            if A.is_c or count > 1:
                along = ir.Constant(I64, size)
            where = build.add(build.ptrtoint(A.struct.data, I64), build.mul(self.as_int(base, I64), across))
            where = build.add(where, build.mul(self.as_int(column, I64), along))
            # a product of two numbers of 32 bits is one instruction
            where = build.add(where, build.mul(build.sext(self.as_int(row, I32), I64), build.sext(build.trunc(across, I32), I64)))
            result, kind, letter = A.number, f"f{8 * size}", "d" if A.number == F64 else "f"
            if size == 2:
                if count == 1:
                    return [build.zext(self.asm(I16, [where], "ld.global.nc.u16 $0, [$1];", "=h,l"), I32)]
                count, result, kind, letter = count // 2, I32, "b32", "r"
            places = [f"${k}" for k in range(count)]
            if count == 1:
                return [self.asm(result, [where], f"ld.global.nc.{kind} $0, [$1];", f"={letter},l")]
            text = f"ld.global.nc.L1::no_allocate.v{count}.{kind} {{{', '.join(places)}}}, [${count}];"
            found = self.asm(ir.LiteralStructType([result] * count), [where], text, ",".join([f"={letter}"] * count + ["l"]))
            return [build.extract_value(found, k) for k in range(count)]

        def entry(self, array, i):
            """An entry of a vector, in float64."""
            return halves.widened(self.builder, array.kind, array[i])

        def store(self, flag, array, places, values):
            """array[i] = x for places i and values x, where the flag is set."""
            with self.builder.if_then(flag):
                for i, x in zip(places, values, strict=True):
                    array[i] = x

    def straight(routine):
        """An intrinsic of a routine."""

        def definition(typingctx, *kinds):
            def codegen(context, builder, sig, args):
                on = Emitted(context, builder)
                routine(on, *(Array(on, *each) if isinstance(each[0], types.Array) else each[1] for each in zip(sig.args, args, strict=True)))
                return context.get_dummy_value()

            return types.void(*kinds), codegen

        names = inspect.signature(routine).parameters  # the first is `on`, for which Numba passes its own
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        definition.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(definition)

    @device
    def swapped(x, bit):
        return cuda.shfl_xor_sync(ALL, x, bit)

    @device
    def swapped_within(lanes, x, bit):
        """The same where those lanes, as bits, are the ones that execute it."""
        return cuda.shfl_xor_sync(lanes, x, bit)

    @device
    def wait_within(lanes):
        """A barrier of those lanes of a warp."""
        cuda.syncwarp(lanes)

    @device
    def any_of_warp(flag):
        """Whether the flag is set in a lane."""
        return cuda.any_sync(ALL, flag)
