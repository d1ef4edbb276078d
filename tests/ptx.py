"""PTX of a kernel, run by Python: blocks of threads with shared memory, copies that arrive late, and products of a warp, for tests without a GPU.

It knows the instructions of the Gram kernels. Memory that nothing has written is NaN. Threads run one at a time, in a random order between barriers.
"""

import random
import re
import struct

import numpy as np

LANES, BASE, GUARD = 32, 1 << 20, 256  # of a warp; where memory begins; bytes between arrays
CODES = {"f64": "d", "f32": "f", "u64": "Q", "s64": "q", "b64": "Q", "u32": "I", "s32": "i", "b32": "I", "u16": "H", "b16": "H"}
BINARY = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def signed(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def as_float(x, bits):
    """The number whose bits these are."""
    return struct.unpack("<f" if bits == 32 else "<e", x.to_bytes(bits // 8, "little"))[0]


def quotient(x, y):
    """Rounded towards 0, as in PTX."""
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


class Program:
    """The instructions of the one kernel in `text`, as Python functions from one barrier, branch target or product to the next."""

    def __init__(self, text):
        self.registers, self.shared, self.static = {}, {}, 0
        for size, name in re.findall(r"\.shared \.align \d+ \.b8 (\w+)\[(\d*)\]", text):
            self.shared[size] = 0 if not name else self.static
            self.static += -(-int(name or 0) // 16) * 16
        external = [name for name, count in re.findall(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[(\d*)\]", text) if not count]
        self.shared |= dict.fromkeys(external, self.static)
        body = text[text.index(".entry") :]
        lines = [re.sub(r"//.*", "", line).strip() for line in body[body.index("{") + 1 : body.rindex("}")].splitlines()]
        self.labels, self.segments, self.source = {}, [], []
        for line in lines:
            if re.fullmatch(r"\$\w+:", line):
                self._end(f"return None, None, {len(self.segments) + 1}")
                self.labels[line[:-1]] = len(self.segments)
            elif line.endswith(";") and not line.startswith("."):
                self._add(line[:-1])
        self._end("return 'end', None, None")
        self.segments = [self._compiled(*each) for each in enumerate(self.segments)]

    def _compiled(self, number, source):
        names = {"signed": signed, "quotient": quotient, "as_float": as_float, "labels": self.labels}
        exec(compile(f"def segment(r, t):\n{source}", f"segment {number}", "exec"), names)
        return names["segment"]

    def _end(self, last):
        self.segments.append("".join(f"    {line}\n" for line in [*self.source, last]))
        self.source = []

    def _value(self, operand, kind=""):
        """The Python expression of an operand, of that type."""
        special = {"%tid.x": "t.thread", "%ctaid.x": "t.block", "%nctaid.x": "t.grid", "%ntid.x": "t.threads"}
        if operand in special:
            return special[operand]
        if operand.startswith("%"):
            place = f"r[{self.registers.setdefault(operand, len(self.registers))}]"
            return f"signed({place}, {kind[1:]})" if kind.startswith("s") else place
        if operand.startswith("0d"):
            return repr(struct.unpack(">d", bytes.fromhex(operand[2:]))[0])
        if operand in self.shared:
            return str(self.shared[operand])
        return operand if kind.startswith(("s", "f", "p")) or not kind else str(int(operand) % (1 << int(kind[1:])))

    def _address(self, operand):
        name, _, offset = operand.strip("[] ").partition("+")
        return f"{self._value(name)} + {offset or 0}"

    def _add(self, line):
        guard, op, rest = re.fullmatch(r"(?:@(!?%\w+)\s+)?(\S+)\s*(.*)", line).groups()
        args = [each.strip() for each in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,])+", rest)]
        if guard:
            name = self._value(guard.lstrip("!"))
            test = f"if {'not ' if guard[0] == '!' else ''}{name}: "
        else:
            test = ""
        kind, parts = op.split(".")[-1], op.split(".")
        name = parts[0]
        if op in ("bra", "bra.uni"):
            self.source.append(f"{test}return None, None, labels['{args[0]}']")
            return
        if name == "mma":
            places = [[self.registers.setdefault(x.strip(), len(self.registers)) for x in each.strip("{}").split(",")] for each in args]
            self._end(f"return 'product', {places}, {len(self.segments) + 1}")
            return
        if name in ("bar", "barrier"):
            self._end(f"return '{'warp' if 'warp' in op else 'block'}', None, {len(self.segments) + 1}")
            return
        if name == "ret":
            self.source.append(f"{test}return 'end', None, None")
            return
        self.source.append(test + self._statement(op, name, kind, parts, args))

    def _statement(self, op, name, kind, parts, args):
        if op.startswith("cp.async.c") and "commit" not in op:
            to, origin, size, count = args
            return f"t.copy({self._address(to)}, {self._address(origin)}, {size}, {self._value(count)})"
        if op == "cp.async.commit_group":
            return "t.commit()"
        if op.startswith("cp.async.wait_group"):
            return f"t.wait({args[0]})"
        if name == "ld" and "param" in parts:
            number = re.search(r"_param_(\d+)", args[1])[1]
            return f"{self._value(args[0])} = t.parameters[{number}]"
        if name == "ld":
            outs = [self._value(each.strip()) for each in args[0].strip("{}").split(",")]
            memory = "t.load" if "shared" in parts else "t.load_global"
            return f"{', '.join(outs)}, = {memory}({self._address(args[1])}, '{len(outs)}{CODES[kind]}')"
        if name == "st":
            memory = "t.store_shared" if "shared" in parts else "t.store"
            return f"{memory}({self._address(args[0])}, '{CODES[kind]}', {self._value(args[1])})"
        out, *inputs = args
        if op == "mov.b32" and out.startswith("{"):
            low, high = (self._value(each.strip()) for each in out.strip("{}").split(","))
            return f"{low}, {high} = {self._value(inputs[0])} & 0xFFFF, {self._value(inputs[0])} >> 16"
        x = [self._value(each, "" if kind.startswith("b") and each.startswith("%") else kind) for each in inputs]
        return f"{self._value(out)} = {self._expression(op, name, kind, parts, out, inputs, x)}"

    def _expression(self, op, name, kind, parts, out, inputs, x):
        bits = int(kind[1:]) if kind[1:].isdigit() else 0
        if name == "setp":
            return f"{x[0]} {COMPARED[parts[1]]} {x[1]}"
        if name == "selp":
            return f"{x[0]} if {self._value(inputs[2])} else {x[1]}"
        if name in ("mov", "cvta"):
            return f"as_float({x[0]}, 32)" if op == "mov.b32" and out.startswith("%f") else x[0]
        if name == "not":
            return f"not {x[0]}" if kind == "pred" else f"~{x[0]} & {(1 << bits) - 1}"
        if name == "cvt":
            to, origin = parts[-2], parts[-1]
            if origin == "f32":
                return x[0]
            if origin == "f16":
                return f"as_float({x[0]}, 16)"
            return (
                f"signed({self._value(inputs[0])}, {origin[1:]}) & {(1 << int(to[1:])) - 1}"
                if origin[0] == "s"
                else f"{x[0]} & {(1 << int(to[1:])) - 1}"
            )
        if kind in ("f64", "pred"):
            return f"{x[0]} {BINARY[name]} {x[1]}" if name != "fma" else f"{x[0]} * {x[1]} + {x[2]}"
        if name in ("shl", "shr"):
            found = f"{x[0]} {'<<' if name == 'shl' else '>>'} {self._value(inputs[1])}"
        elif name in ("min", "max"):
            found = f"{name}({x[0]}, {x[1]})"
        elif name == "div":
            found = f"quotient({x[0]}, {x[1]})"
        elif name == "rem":
            found = f"{x[0]} - quotient({x[0]}, {x[1]}) * {x[1]}"
        elif op == "mul.hi.u64":
            found = f"{x[0]} * {x[1]} >> 64"
        elif name == "mad":
            found = f"{x[0]} * {x[1]} + {x[2]}"
        else:
            found = f"{x[0]} {BINARY[name]} {x[1]}"
        return f"({found}) & {(1 << bits) - 1}"


class Thread:
    """A thread: its registers, and copies under way. `is_late` says whether these arrive when they are waited for, or at once."""

    def __init__(self, block, thread, registers):
        self.shared, self.memory, self.parameters, self.is_late = block.shared, block.memory, block.parameters, block.is_late
        self.block, self.grid, self.threads, self.thread = block.number, block.grid, block.threads, thread
        self.registers, self.segment, self.event = [0] * registers, 0, None
        self.open, self.groups = [], []

    def copy(self, to, origin, size, count):
        assert to % size == 0, "a copy to an address that its size does not divide"
        assert origin % size == 0, "a copy from an address that its size does not divide"
        assert 0 <= count <= size
        data = self.memory.read(origin, count) + bytes(size - count)
        if self.is_late:
            self.open.append((to, data))
        else:
            self.shared[to : to + size] = data

    def commit(self):
        self.groups.append(self.open)
        self.open = []

    def wait(self, most):
        while len(self.groups) > most:
            for to, data in self.groups.pop(0):
                self.shared[to : to + len(data)] = data

    def load(self, address, code):
        size = struct.calcsize(code)
        assert address % size == 0, "a load from an address that its size does not divide"
        assert 0 <= address <= len(self.shared) - size, "a load beyond shared memory"
        return struct.unpack_from(code, self.shared, address)

    def load_global(self, address, code):
        size = struct.calcsize(code)
        assert address % size == 0, "a load from an address that its size does not divide"
        return struct.unpack(code, self.memory.read(address, size))

    def store_shared(self, address, code, x):
        assert 0 <= address <= len(self.shared) - struct.calcsize(code)
        struct.pack_into(code, self.shared, address, x)

    def store(self, address, code, x):
        self.memory.write(address, struct.pack(code, x))


class Memory:
    """Arrays at addresses of their own; what is read or written must lie in one of them."""

    def __init__(self, arrays):
        self.arrays, address = [], BASE
        for array, shift in arrays:
            self.arrays.append((address + shift, array.ravel(order="K").view(np.uint8)))
            address += -(-array.nbytes // GUARD) * GUARD + 2 * GUARD

    def _find(self, address, size):
        for start, data in self.arrays:
            if start <= address and address + size <= start + len(data):
                return data, address - start
        raise AssertionError(f"{size} bytes at {address} lie in no array")

    def read(self, address, size):
        if not size:
            return b""
        data, at = self._find(address, size)
        return data[at : at + size].tobytes()

    def write(self, address, data):
        into, at = self._find(address, len(data))
        into[at : at + len(data)] = np.frombuffer(data, np.uint8)


def multiply(threads, places):
    """The product of a warp: fragments as the manual of PTX places them."""
    out, left, right, added = places
    rows, group, lane = 4 * len(out), np.arange(LANES) // 4, np.arange(LANES) % 4
    a, b, d = np.zeros((rows, 4)), np.zeros((4, 8)), np.zeros((rows, 8))
    for thread, g, k in zip(threads, group, lane, strict=True):
        for i, place in enumerate(left):
            a[g + 8 * i, k] = thread.registers[place]
        b[k, g] = thread.registers[right[0]]
        for i, place in enumerate(added):
            d[g + 8 * (i // 2), 2 * k + i % 2] = thread.registers[place]
    d += a @ b
    for thread, g, k in zip(threads, group, lane, strict=True):
        for i, place in enumerate(out):
            thread.registers[place] = float(d[g + 8 * (i // 2), 2 * k + i % 2])


class Block:
    """A block of threads, and its shared memory."""

    def __init__(self, program, number, grid, threads, shared, memory, parameters, is_late):
        self.number, self.grid, self.threads, self.memory, self.parameters, self.is_late = number, grid, threads, memory, parameters, is_late
        self.shared = bytearray(b"\xff" * (program.static + shared))  # NaN
        self.program, self.all = program, [Thread(self, t, len(program.registers)) for t in range(threads)]

    def _advance(self, thread):
        """To its next barrier or product."""
        while True:
            thread.event, thread.what, thread.segment = self.program.segments[thread.segment](thread.registers, thread)
            if thread.event:
                return

    def _advance_warp(self, warp, order):
        """To its next barrier of the block."""
        while True:
            for thread in order.sample(warp, LANES):
                self._advance(thread)
            (event,) = {thread.event for thread in warp}
            assert len({thread.segment for thread in warp}) == 1, "threads of a warp wait at different places"
            if event == "product":
                multiply(warp, warp[0].what)
            elif event != "warp":
                return event

    def run(self):
        order = random.Random(self.number)
        warps = [self.all[k : k + LANES] for k in range(0, self.threads, LANES)]
        while True:
            events = {self._advance_warp(warp, order) for warp in order.sample(warps, len(warps))}
            assert len(events) == 1, "some warps end and others wait"
            if events == {"end"}:
                return


def launch(text, grid, threads, shared, args, is_late=True):
    """Run the kernel of a PTX for arrays and numbers; an array as (array, bytes that its address is beyond a multiple of 256)."""
    arrays = [each for each in args if isinstance(each, tuple)]
    memory, parameters = Memory([(owner_of(array), shift) for array, shift in arrays]), []
    starts = iter(memory.arrays)
    for each in args:
        if isinstance(each, tuple):
            array = each[0]
            start = next(starts)[0] + array.ctypes.data - owner_of(array).ctypes.data
            parameters += [0, 0, array.size, array.itemsize, start, *array.shape, *array.strides]
        else:
            parameters.append(each)
    program = Program(text)
    for number in range(grid):
        Block(program, number, grid, threads, shared, memory, parameters, is_late).run()


def owner_of(array):
    """The contiguous array of which this one shows a part."""
    while array.base is not None:
        array = array.base
    return array
