"""The inner loops of the kernels as machine code, for the CPU that NUMBA_CPU_NAME names, or for CPUs of another architecture: a process each.

    NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES= FASTRSX_CACHE=0 python tests/assembly.py [TRIPLE CPU ...]

prints, for each CPU and kernel, a JSON line for each innermost loop that multiplies, adds or calls: instructions, multiply-adds by the width of their
registers, registers stored to the stack, and calls. For another architecture, Numba's code for this one is translated once more.
"""

import json
import re
import sys

from llvmlite import binding
from numba import njit, typeof, types
from numba.core.registry import cpu_target
from numba.np.numpy_support import from_dtype

OTHERS = list(zip(sys.argv[1::2], sys.argv[2::2], strict=True)) if __name__ == "__main__" else []
if OTHERS:  # before the kernels choose their shapes
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    cpu_target.target_context.codegen().magic_tuple = lambda: (*OTHERS[0], "")

from fastrsx.kernels.compiling.jit import FLAGS  # noqa: E402
from fastrsx.kernels.cpu import ahead, mixed, vectors  # noqa: E402
from fastrsx.kernels.formulas.links import LINKS  # noqa: E402
from fastrsx.kernels.formulas.records import POINT, STATE  # noqa: E402
from fastrsx.kernels.newton import cholesky  # noqa: E402
from fastrsx.kernels.registers import gram, products, shapes, sums  # noqa: E402

MATRIX, VECTOR, INT = types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C"), types.int64
PANEL = types.Array(types.float64, 2, "A", readonly=True)
PACKED, PACKED32 = types.Array(types.float64, 3, "C"), types.Array(types.float32, 3, "C")
LINK, BOOL = typeof(LINKS["rsx"]), types.boolean
AHEAD = (types.Array(types.float64, 2, "C", readonly=True), INT)
COMING = types.NamedTuple((*AHEAD, INT), mixed.Coming)
TRIAL = types.NamedTuple((VECTOR,) * 5, ahead.Trial)
WIDE = (PACKED32, INT, INT, INT, INT, MATRIX, MATRIX, COMING)

TILES, CORNERS = (PACKED, PANEL, INT, INT, INT, MATRIX, *AHEAD, INT), (PACKED, PANEL, INT, INT, MATRIX, *AHEAD, INT)
KERNELS = {
    "gram": dict.fromkeys(("_gram_tile_3", "_gram_tile_2", "_gram_tile_1", "_tall_tile", "_short_tile"), TILES) | {"_gram_corner": CORNERS},
    "sums": {
        "add_row_sums": (PANEL, MATRIX, INT, MATRIX, *AHEAD, BOOL),
        "add_row_sum": (PANEL, MATRIX, INT, MATRIX, *AHEAD, BOOL),
        "add_sums_and_gram": (PANEL, VECTOR, MATRIX, INT, MATRIX, PACKED, MATRIX, *AHEAD),
        "add_row_sums_and_pack": (PANEL, VECTOR, MATRIX, INT, MATRIX, PACKED),
        "add_columns": (PANEL, INT, MATRIX),
    },
    "packing": {"pack": (PANEL, VECTOR, INT, PACKED)},
    "products": {
        "row_products": (PANEL, VECTOR, INT, VECTOR, INT, *AHEAD, BOOL),
        "row_squares": (PANEL, MATRIX, INT, VECTOR, INT, *AHEAD),
    },
    "mixed": dict.fromkeys(("_wide_tile_3", "_wide_tile_2", "_wide_tile_1", "_tall_tile", "_short_tile"), WIDE)
    | dict.fromkeys(("_wide_corner", "_half_corners"), WIDE[:4] + WIDE[5:]),
    "exp": {
        "add_domain": (LINK, VECTOR, VECTOR, INT, INT, from_dtype(STATE)),
        "add_with_shift": (LINK, VECTOR, types.none, VECTOR, INT, INT, from_dtype(STATE), MATRIX, INT),
        "fold_residuals": (LINK, VECTOR, VECTOR, VECTOR, from_dtype(POINT), INT, INT, from_dtype(STATE)),
        "panel_weights": (LINK, VECTOR, VECTOR, VECTOR, from_dtype(POINT), INT, INT, MATRIX),
    },
    "ahead": {"weigh_ahead": (LINK, TRIAL, from_dtype(POINT), INT, INT, from_dtype(STATE), MATRIX)},
    "cholesky": {"dot": (VECTOR, VECTOR, INT), "add_multiple": (VECTOR, types.float64, VECTOR, INT)},
}
MODULES = {"gram": gram, "packing": gram, "sums": sums, "products": products, "mixed": mixed, "exp": vectors, "ahead": ahead, "cholesky": cholesky}


def compiled(kernel, signature):
    """The kernel, compiled again: those from the disk cache have no assembly."""
    again = njit(**FLAGS)(kernel.py_func)
    again.compile(signature)
    return again


def retargeted(code, triple, cpu):
    """The assembly that LLVM makes of optimised code for another CPU."""
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    code = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', code)
    code = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', code)
    code = re.sub(r"(?:tail )?call i8 @llvm\.x86\.atomic\.\w+\.cc\.i64\(.*", "add i8 0, 0", code)
    return machine.emit_assembly(binding.parse_assembly(code))


def blocks_of(assembly):
    """The basic blocks of the kernel: their instructions, and the numbers of the blocks that may follow each."""
    kernel = re.split(r"\n\S*func_end0", assembly)[0]  # behind it are the wrappers for calls from Python
    blocks, labels, targets = [[]], {}, [[]]
    for line in kernel.splitlines():
        line = re.split(r"\s(?:#|//|;)\s", line)[0].rstrip()
        if label := re.match(r"^([.\w$]+):", line):
            labels[label[1]] = len(blocks)
            blocks.append([])
            targets.append([])
        elif re.match(r"^\t[a-z]", line):
            blocks[-1].append(line.strip())
            if jump := re.match(r"^\t(?:j\w+|b\.\w+|b|cbn?z|tbn?z)\t.*?([.\w$]+)$", line):
                targets[-1].append(jump[1])
                blocks.append([])
                targets.append([])
    last = [block[-1].split("\t")[0] if block else "" for block in blocks]
    follow = [
        {labels[name] for name in names if name in labels} | ({i + 1} if end not in ("jmp", "b", "ret", "retq") and i + 1 < len(blocks) else set())
        for i, (names, end) in enumerate(zip(targets, last, strict=True))
    ]
    return blocks, follow


def cycles(nodes, follow):
    """The strongly connected components of these blocks that contain a cycle."""
    reach = {i: set(follow[i]) & nodes for i in nodes}
    for k in nodes:  # Warshall
        for i in nodes:
            if k in reach[i]:
                reach[i] |= reach[k]
    return {frozenset(j for j in nodes if j in reach[i] and i in reach[j]) for i in nodes if i in reach[i]}


def loops(assembly):
    """The instructions of each innermost loop."""
    blocks, follow = blocks_of(assembly)
    waiting = list(cycles(set(range(len(blocks))), follow))
    while waiting:
        loop = waiting.pop()
        entries = {j for i in range(len(blocks)) if i not in loop for j in follow[i] & loop}
        if inner := cycles(set(loop) - entries, follow):
            waiting.extend(inner)
        else:
            yield [line for i in sorted(loop) for line in blocks[i]]


FMA = re.compile(r"^(?:vfn?m(?:add|sub)\w*p[sd]|fml[as])\b.*?(zmm|ymm|xmm|v)\d")
ARITHMETIC = re.compile(r"^(?:call|vfn?m|v?mulp|v?addp|v?subp|fml[as]|fmul|fadd|fsub)")
SPILL = re.compile(r"%[xyz]mm\d+, -?\w*\((?:%rsp|%rbp)|^st[rup]+\t[qd]\d.*\[(?:sp|x29)")  # reloads alone are those of constants


def summary(loop):
    """The counts of one loop."""
    widths = [match[1] for match in map(FMA.match, loop) if match]
    return {
        "instructions": len(loop),
        "fmas": {width: widths.count(width) for width in sorted(set(widths))},
        "spills": sum(bool(SPILL.search(line)) for line in loop),
        "calls": sum(line.startswith(("call", "bl\t")) for line in loop),
        "prefetches": sum(line.startswith(("prefetch", "prfm")) for line in loop),
    }


def main(others):
    """Print the loops of all kernels, for this CPU and for (triple, cpu) pairs."""
    print(json.dumps({"shapes": shapes.SHAPES._asdict()}), flush=True)
    for group, kernels in KERNELS.items():
        for name, signature in kernels.items():
            kernel = getattr(MODULES[group], name, None)
            if kernel is None:  # of another shape
                continue
            made = compiled(kernel, signature)
            found = {"": made.inspect_asm(made.signatures[0])} if not others else {}
            code = made.inspect_llvm(made.signatures[0])
            found |= {cpu: retargeted(code, triple, cpu) for triple, cpu in others}
            for cpu, assembly in found.items():
                for loop in loops(assembly):
                    if any(ARITHMETIC.match(line) for line in loop):
                        print(json.dumps({"cpu": cpu, "group": group, "name": name} | summary(loop)), flush=True)


if __name__ == "__main__":
    main(OTHERS)
