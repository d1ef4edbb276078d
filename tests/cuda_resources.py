"""The compiled GPU kernels, without a GPU: PTX from numba-cuda, machine code and resources from ptxas.

`python tests/cuda_resources.py` prints the table.
"""

import re
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numba import typeof, types
from numba.cuda import compile_ptx, dispatcher

from fastrsx.kernels.formulas import links, records
from fastrsx.kernels.gpu import batch, gram, loop, merge, plane, rows, sample, sparse, tensor_gram, vectors
from fastrsx.kernels.gpu.block import THREADS, WARP
from fastrsx.kernels.gpu.halves import STORED
from fastrsx.kernels.gpu.scalar import ByLink
from fastrsx.kernels.gpu.share import ROW_WARPS, share_for
from fastrsx.kernels.newton.passes import Plane

TARGETS = {(8, 0): (164, 64), (9, 0): (228, 64)}  # KB of shared memory of a multiprocessor, and warps that it holds
REGISTERS, GRANULE, BLOCK_KB = 65536, 256, 1  # of a multiprocessor; a warp's unit of them; KB reserved for a block

_f8, _i8 = types.float64, types.int64
_indices, _places = types.int32[::1], types.int64[::1]
_v, _m, _c = _f8[::1], _f8[:, ::1], _f8[:, :, ::1]
_three, _link = types.UniTuple(_f8, 3), typeof(links.RSX)
_point, _states = typeof(np.zeros(1, records.POINT)), typeof(np.zeros(1, records.STATE))
_plane = types.NamedUniTuple(_v, 3, Plane)


def signatures(number):
    """{kernel: its argument types}, with the caller's arrays (A, x, b, w and h) in float64 or float32."""
    A, x = number[:, ::1], number[::1]
    return {
        vectors.fold_residuals: (_link, _v, x, x, _point, _states),
        vectors.weigh_products: (_link, _v, _v, x, x, _point, _v),
        vectors.fold_diagonal: (_link, _v, x, x, _point, _v),
        vectors.fold_extremes: (x, _m),
        gram.fold_gram_diagonal: (A, x, _c),
        gram.fold_gram_below: (A, x, _c),
        tensor_gram.weigh_rows: (_link, _v, x, x, _point, _v),
        tensor_gram.widen: (x, _v),
        plane.fold_plane: (_link, _plane, _v, x, x, _point, _m),
        sparse.products(8): (x, _indices, _indices, _v, _v),
        sparse.transposed(8): (x, _indices, _places, _v, _m),
        sparse.gradient(8): (x, _indices, _places, _v, _m),
        sparse.columns(8): (x, _places, _m),
        sparse.weigh_sparse_rows: (_link, _v, x, x, _point, _v),
        sparse.permute: (x, _places, x),
        sparse.scatter_column: (x, _indices, _places, _places, _i8, _v),
        sparse.scatter_rows: (x, _indices, _indices, _places, _m),
    }


# Some of the shares for which there are kernels of `rows`: each number of columns in a lane, small rows, rows that do not begin on 16 bytes.
SHARES = {
    "2 columns": share_for("<f8", 2, 2),
    "64 columns": share_for("<f8", 2, 64),
    "65 columns": share_for("<f8", 1, 65),
    "256 columns": share_for("<f8", 2, 256),
    "512 columns": share_for("<f8", 2, 512),
    "64 columns, float32": share_for("<f4", 4, 64),
    "512 columns, float32": share_for("<f4", 4, 512),
    "64 columns, F-ordered": share_for("<f8", 1, 64, True),
    "64 columns, float16": share_for("<f2", 8, 64),
    "65 columns, float16": share_for("<f2", 1, 65),
    "256 columns, float16": share_for("<f2", 8, 256),
    "512 columns, float16": share_for("<f2", 8, 512),
    "64 columns, bfloat16": share_for("bfloat16", 8, 64),
}


def row_signatures():
    """{name: (share, kernel, its argument types)} of the kernels of `rows`: for all shares those with most registers, for one share all."""
    found = {}
    for columns, share in SHARES.items():
        A = types.Array(STORED[share.number], 2, "A" if "F-ordered" in columns else "C")
        x = types.float32[::1] if share.number == "<f4" else _v
        sums = (_link, A, x, x, x, _v, _states, _c)
        several = {"sums": (rows.sums(share, 3), sums), "weighted sums": (rows.sums(share, 4), sums)}
        several["ahead"] = (loop.ahead(share), (_link, A, _v, _v, _v, _v, _states))
        several["squares"] = (sample.squares(share), (A, _m, _v))
        several["curvature"] = (rows.curvature(share), (_link, A, x, _v, x, x, _point, _c, _v))
        if columns == "64 columns":
            several |= {
                "value": (rows.sums(share, 0), sums),
                "products": (rows.products(share), (A, x, _v)),
                "gradient": (rows.gradient(share), (_link, A, _v, x, x, _point, _v, _c)),
                "transposed": (rows.transposed(share), (A, _v, _c)),
                "columns": (rows.columns(share), (A, _c)),
            }
        found |= {f"{name} of {columns}": (share, *each) for name, each in several.items()}
    share = share_for("<f8", 2, 1024)
    A = types.Array(_f8, 2, "C")
    found["products of 1024 columns"] = share, rows.products(share), (A, _v, _v)
    found["ahead of 1024 columns"] = share, loop.ahead(share), (_link, A, _v, _v, _v, _v, _states)
    found["gradient of 1024 columns"] = share, rows.gradient(share), (_link, A, _v, _v, _v, _point, _v, _c)
    return found


def foldings():
    """{name: (how a Gram kernel on tensor cores is launched, its argument types)}."""
    h, gram_type, found = _v, _c, {}

    def add(name, number, copy, is_down, A, riders, widths):
        source = tensor_gram.Source(number.bitwidth // 8, copy, is_down, number == STORED["bfloat16"])
        for groups in widths:
            found[f"fold_narrow, {16 * groups} columns{name}"] = tensor_gram.narrow(groups, source, riders), (A, h, gram_type)
        found[f"fold_wide{name}"] = tensor_gram.wide(source, riders), (A, h, _i8, _i8, _i8, gram_type)

    for riders, what in ((0, ""), (tensor_gram.RIDERS, " and riders")):
        add(what, _f8, 16, False, _f8[:, ::1], riders, (1, 2, 4))
    single, riders = types.float32, tensor_gram.RIDERS
    add(" and riders, float32", single, 16, False, single[:, ::1], riders, (4,))
    for number, copy, how in ((types.float16, 16, "float16"), (STORED["bfloat16"], 16, "bfloat16"), (types.float16, 2, "float16 on 2 bytes")):
        add(f" and riders, {how}", number, copy, False, number[:, ::1], riders, (4,))
    add(" and riders, by element", _f8, 8, False, _f8[:, :], riders, (4,))
    add(" and riders, down columns", single, 4, True, single[::1, :], riders, (4,))
    add(" and riders, float64 down columns", _f8, 8, True, _f8[::1, :], riders, (4,))
    add(" and riders, float32 by two", single, 8, False, single[:, ::1], riders, (4,))
    add(" and riders, float32 by element", single, 4, False, single[:, :], riders, (4,))
    return found


def other_signatures():
    """The same for kernels that read only the output of others."""
    return {
        vectors.fold_domain: (_link, _v, _v, _f8, _v, _states),
        vectors.merge_residuals: (_states, _point),
        merge.merge_vectors: (_c, _i8, _i8, _i8, _m),
        merge.finish_gradient: (_states, _point, _c, _i8, _m),
        merge.finish_columns: (_c, _m),
        vectors.fold_predictions: (_link, _v, _point, _v, _v),
        merge.finish_hess_vec: (_c, _m, _v, _v),
        vectors.fold_fill: (_v, _f8),
        vectors.add_scaled: (_v, _f8, _v),
        vectors.multiply: (_v, _v),
        vectors.take_column: (_m, _i8, _v),
        vectors.copy_matrix: (types.Array(_f8, 2, "A"), _m),
        vectors.combine_extremes: (_m,),
        gram.merge_hessian: (_c, _m, _m),
        loop.merge_derivatives: (_c, _c, _i8, _m, _m),
        plane.merge_plane: (_m, _v),
        sparse.merge(8, False): (_m, _places, _i8, _c),
        sparse.merge(8, True): (_m, _places, _i8, _c),
        sample.add_square: (_v, _v),
        sample.fold_importance: (_v, _v, _f8, _m),
        sample.merge_importance: (_m,),
        sample.fold_probabilities: (_v, _v, _f8, _m),
        sample.draw_rows: (_v, _v, _f8, _f8, _m, types.int64[::1], _v),
        sample.take_rows: (_m, types.int64[::1], _m),
        plane.fold_combination: (_link, _plane, _three, _v, _states),
    }


BATCHES = {  # some of the shapes of small problems: few sums, as many as fit, and in sweeps; with as few lanes as there may be
    "solve_batch, 2 columns": batch.Shape(2, 8, False, True),
    "solve_batch, 5 columns": batch.Shape(5, 32, False, True),
    "weighted solve_batch, 8 columns": batch.Shape(8, 32, True, True),
    "weighted solve_batch, 16 columns": batch.Shape(16, 32, True, False),
}


def batches(number=_f8):
    """{name: (kernel, its argument types)} of the kernels for small problems."""
    m, c = number[:, ::1], number[:, :, ::1]
    signature = (_link, c, m, m, _m, _f8, _i8, _v, _m, _v, types.int32[:, ::1])
    return {name: (batch.solve(shape, links.Rsx), signature) for name, shape in BATCHES.items()}


@contextmanager
def pretended(target):
    """numba-cuda compiles a function that is not inlined for the GPU at hand: for one of that compute capability."""
    found, dispatcher.get_current_device = dispatcher.get_current_device, lambda: SimpleNamespace(compute_capability=target)
    try:
        yield
    finally:
        dispatcher.get_current_device = found


class Resources(NamedTuple):
    """The resources of one kernel for one target."""

    registers: int
    shared: int  # bytes
    spilled: int  # bytes stored and loaded
    occupancy: float  # fraction of the warps that a multiprocessor holds
    fma_share: float  # fraction of float64 multiply-adds in the instructions of the loop that has most of them
    ptx: str


def linked(kernel):
    """The kernel; of one that asks its link, that for exp(a) + a."""
    return kernel.of(links.Rsx) if isinstance(kernel, ByLink) else kernel


def most_registers(kernel):
    """How many registers it may take."""
    return linked(kernel).targetoptions.get("max_registers", 255)


def name_of(kernel):
    """The kernel's name; it tells apart those that are made from one function."""
    which = {gram.fold_gram_diagonal: " on the diagonal", gram.fold_gram_below: " below it", sparse.merge(8, True): " of columns' sizes"}
    return linked(kernel).py_func.__name__ + which.get(kernel, "")


def atomics(ptx):
    """The atomic instructions, such as additions whose order is not fixed; a `bar.red` is a barrier."""
    return re.findall(r"(?<![\w.])(?:atom|red)\.\S+", ptx)


def single_arithmetic(ptx):
    """The additions and multiplications in float32; float32 data must be widened first."""
    return re.findall(r"\b(?:add|sub|mul|fma)\.\S*f32", ptx)


def ptxas():
    """The assembler of the package nvidia-cuda-nvcc; None without it."""
    try:
        found = [file for file in files("nvidia-cuda-nvcc") or () if file.name == "ptxas"]
    except ModuleNotFoundError:
        return None
    return str(found[0].locate()) if found else None


def occupancy(registers, shared, target, threads):
    """The occupancy that registers and shared memory allow to blocks of that many threads."""
    shared_kb, most_warps = target
    warps = threads // WARP
    of_a_warp = -(-registers * WARP // GRANULE) * GRANULE
    blocks = min(REGISTERS // (of_a_warp * warps), int(shared_kb / (shared / 1024 + BLOCK_KB)), most_warps // warps)
    return blocks * warps / most_warps


def fma_share(ptx):
    """The share of multiply-adds in the innermost loop that has most of them."""
    best = (0, 0.0)
    for _, lines in loops(ptx):
        body = [each for each in lines if each.endswith(";")]
        if any(re.search(r"\bbra", each) for each in body[:-1]):
            continue  # not the innermost
        count = sum("fma.rn.f64" in each for each in body)
        best = max(best, (count, count / len(body)))
    return best[1]


def resources(kernel, signature, target, threads=THREADS, dynamic=0):
    """Compile a kernel for a target, (8, 0) or (9, 0), for blocks of that size; one with `dynamic` bytes of shared memory may have all registers."""
    with pretended(target):
        ptx, _ = compile_ptx(linked(kernel).py_func, signature, cc=target, launch_bounds=(threads, 1) if dynamic else None)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [
            ptxas(),
            "-v",
            f"-arch=sm_{target[0]}{target[1]}",
            *([] if dynamic else [f"--maxrregcount={most_registers(kernel)}"]),
            str(source),
            "-o",
            str(source.with_suffix(".cubin")),
        ]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    shared = dynamic + sum(map(int, re.findall(r"(\d+) bytes smem", said)))
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    return Resources(registers, shared, spilled, occupancy(registers, shared, TARGETS[target], threads), fma_share(ptx), ptx)


def tensor_products(ptx):
    """The instructions for tensor cores in float64."""
    return re.findall(r"mma\.sync\.aligned\.m(?:8|16)n8k4\.row\.col\.f64\.f64\.f64\.f64", ptx)


def loops(ptx):
    """The lines of each loop of the PTX, which goes from a label to the branch back to it."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\$\w+:", line)}
    for i, line in enumerate(lines):
        branch = re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line)
        if branch and labels.get(branch[1], i) < i:
            yield range(labels[branch[1]], i + 1), lines[labels[branch[1]] : i + 1]


def looped_products(ptx):
    """How many instructions for tensor cores are in loops."""
    places = {at[k] for at, body in loops(ptx) for k, line in enumerate(body) if tensor_products(line)}
    return len(places)


def line(name, target, it):
    """A row of the table."""
    count = looped_products(it.ptx)
    share = f"{it.fma_share:.0%}" if it.fma_share else f"{count} on tensor cores" if count else ""
    cells = (name, "sm_{}{}".format(*target), it.registers, f"{it.shared} B", f"{it.spilled} B", f"{it.occupancy:.0%}", share)
    return f"| {' | '.join(map(str, cells))} |"


def table():
    """Markdown, for float64 A and both targets; of the kernels of `rows`, for all shares."""
    lines = ["| kernel | target | registers | shared | spilled | occupancy | FMA share of the inner loop |", "|---|---|---|---|---|---|---|"]
    for name, (_, kernel, signature) in row_signatures().items():
        lines += [line(name, target, resources(kernel, signature, target, ROW_WARPS * WARP)) for target in TARGETS]
    for name, (kernel, signature) in batches().items():
        lines += [line(name, target, resources(kernel, signature, target, WARP)) for target in TARGETS]
    for kernel, signature in {**signatures(_f8), **other_signatures()}.items():
        lines += [line(name_of(kernel), target, resources(kernel, signature, target)) for target in TARGETS]
    for name, (folding, signature) in foldings().items():
        for target in TARGETS:
            lines.append(line(name, target, resources(folding.kernel, signature, target, folding.threads, folding.shared)))
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
