"""The command line: `fastrsx demo`, `fastrsx solve`, `fastrsx info`, `fastrsx cache`."""

import argparse
import csv
import importlib.metadata
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import __version__

OPTIONAL = ("tbb", "matplotlib", "pytest", "pytest-benchmark", "hypothesis", "mpmath", "threadpoolctl")


def demo() -> int:
    """Solve the bundled automobile market-share problem and show the fit."""
    from .data import load_automobiles
    from .problem import predict
    from .solver import newton

    cars = load_automobiles()
    print(f"Market shares of {len(cars.b)} US car models, 1971-1990, from {', '.join(cars.names)} (standardised).")
    print("Loading kernels (compiled on the first run, which takes about 30 seconds) ...", flush=True)
    start = time.perf_counter()
    newton(cars.A, cars.b, max_iter=0)
    print(f"... {time.perf_counter() - start:.2f} s\n")
    start = time.perf_counter()
    result = newton(cars.A, cars.b, verbose=2)
    seconds = time.perf_counter() - start
    print(f"\nSolved in {seconds * 1e3:.2f} ms by {result.kernel}.\n")
    print("Coefficients")
    for name, coefficient in zip(cars.names, result.x, strict=True):
        print(f"  {name:<6} {coefficient:>9.5f}")
    f = predict(cars.A, result.x)
    error = np.abs(f - cars.b)
    best, worst = np.argsort(error / cars.b)[:5], np.argsort(-error)[:5]
    for title, rows in (("Best fitted cars", best), ("Worst fitted cars", worst)):
        print(f"\n{title}\n  {'year':>4} {'model':>6} {'share':>9} {'fitted':>9}")
        for i in rows:
            print(f"  {cars.year[i]:>4} {cars.model_id[i]:>6} {cars.b[i]:>9.3e} {f[i]:>9.3e}")
    return 0 if result.success else 1


def read_csv(path: str, ndim: Literal[1, 2]) -> Any:
    """The numbers of a csv file; a header line above them names the columns, unless it has another number of fields."""
    from .frames import Labelled

    encoding = "utf-8-sig"  # with or without a byte order mark
    with open(path, encoding=encoding, newline="") as file:
        first = [field.strip() for field in next(csv.reader(file), [])]
    try:
        [float(field) for field in first]
        names = []
    except ValueError:
        names = [first[0].removeprefix("#").lstrip(), *first[1:]]  # as NumPy writes it
    array = np.loadtxt(path, delimiter=",", skiprows=int(bool(names)), ndmin=ndim, encoding=encoding)
    return Labelled(array, names) if ndim == 2 and len(names) == array.shape[1] else array


def read_array(source: str, name: str, ndim: Literal[1, 2]) -> Any:
    """An array from FILE.npy (memory-mapped), FILE.npz or FILE.npz:KEY, or FILE.csv (one header line may stand above the numbers)."""
    path, _, key = source.partition(":") if ".npz:" in source else (source, "", "")
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return np.load(path, mmap_mode="r")
    if suffix == ".npz":
        with np.load(path) as archive:
            key = key or (archive.files[0] if len(archive.files) == 1 else name)
            if key not in archive:
                raise ValueError(f"{name}: {path} has no array {key!r}, only {', '.join(archive.files)}; name one as {path}:KEY")
            return archive[key]
    if suffix == ".csv":
        return read_csv(path, ndim)
    raise ValueError(f"{name}: {source} ends in {suffix or 'nothing'}; give a .npy, .npz or .csv file")


def read_weights(source: str | None) -> Any:
    """None, a number, or an array from a file."""
    if source is None:
        return None
    try:
        return float(source)
    except ValueError:
        return read_array(source, "w", 1)


def solve(args: argparse.Namespace) -> int:
    """Solve from files; 0 only on success."""
    from .checkpoint import Checkpoint
    from .solver import newton

    try:
        A, b, w = read_array(args.A, "A", 2), read_array(args.b, "b", 1), read_weights(args.w)
        x0 = None if args.x0 is None else read_array(args.x0, "x0", 1)
        if args.output is not None and Path(args.output).suffix not in (".npy", ".csv"):
            raise ValueError(f"output: {args.output} must end in .npy or .csv")
        if args.resume and args.checkpoint is None:
            raise ValueError("resume: give the file to go on from with --checkpoint")
        kept = None if args.checkpoint is None else Checkpoint(args.checkpoint, A, b)
        if args.resume and kept is not None:
            saved = kept.load()
            print(f"{args.checkpoint} is not there: starting anew" if saved is None else f"Going on from {args.checkpoint}", file=sys.stderr)
            x0 = x0 if saved is None else saved
        verbose = 1 if args.quiet else 2
        result = newton(A, b, x0, w=w, tol=args.tol, max_iter=args.max_iter, num_threads=args.num_threads, callback=kept, verbose=verbose)
    except (OSError, ValueError, TypeError) as error:
        print(f"fastrsx solve: {error}", file=sys.stderr)
        return 2
    if args.output is None and result.names:
        print(result.table(".17g"))
    elif args.output is None:
        np.savetxt(sys.stdout, result.x, fmt="%.17g")
    elif Path(args.output).suffix == ".csv":
        np.savetxt(args.output, result.x, fmt="%.17g")
    else:
        np.save(args.output, result.x)
    return 0 if result.success else 1


def vector_width() -> str:
    """The registers that LLVM has on this machine."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for feature, width in (("avx512f", "512 bit (AVX-512)"), ("avx2", "256 bit (AVX2)"), ("avx", "256 bit (AVX)"), ("neon", "128 bit (NEON)")):
        if features.get(feature):
            return width
    return "128 bit"


def cache_state() -> str:
    """Where compiled kernels are kept."""
    from . import cache

    problem = cache.problem()
    return f"off: {problem}" if problem else "; ".join([*map(str, cache.folders()), *(f"not in {place}" for place in cache.unusable())])


def manage_cache(action: str) -> int:
    """Show, empty or fill the cache of compiled kernels; 1 if there is none, or files that cannot be removed."""
    from . import cache, warmup

    if problem := cache.problem():
        print(f"fastrsx cache: off: {problem}", file=sys.stderr)
        return 1
    if action == "warm":
        print("Loading kernels (compiled on the first run, which takes about a minute) ...", flush=True)
        print(f"... {warmup():.1f} s")
    left = 0
    for folder in cache.folders():
        print(f"directory  {folder.place}")
        if action == "clear":
            removed, left_here = cache.clear(folder.path)
            left += left_here
            print(f"removed    {removed} files" + (f", {left_here} cannot be" if left_here else ""))
        else:
            print(f"kernels    {folder.kernels}, {folder.megabytes:.1f} MB")
            print(f"stale      {folder.stale} (of another source, version or CPU)")
    for place in cache.unusable():
        print(f"not in     {place}")
    return 1 if left else 0


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def info() -> int:
    """What a bug report needs."""
    import numba
    import psutil
    from llvmlite import binding

    from . import threads

    count = numba.get_num_threads()  # starts the threading layer
    rows = [("fastrsx", __version__), ("python", f"{platform.python_version()} ({platform.platform()})")]
    rows += [(name, version_of(name)) for name in ("numba", "llvmlite", "numpy", "scipy", "psutil")]
    rows += [
        ("cpu", f"{binding.get_host_cpu_name()}, {psutil.cpu_count(logical=False)} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("registers", vector_width()),
        ("threads", f"{count} of {threads.available()}, layer {threads.layer()}"),
        ("cache", cache_state()),
        ("optional", ", ".join(f"{name} {version_of(name)}" for name in OPTIONAL)),
    ]
    for name, value in rows:
        print(f"{name:<10} {value}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastrsx", description="Minimise ||f(x) - b||^2 + 1/2 ||w * A x||^2, f = u / <u, 1>, u = exp(A x) + A x, by Newton's method."
    )
    parser.add_argument("--version", action="version", version=f"fastrsx {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="solve the bundled market-share problem and show the fit")
    commands.add_parser("info", help="print what a bug report needs")
    kept = commands.add_parser("cache", help="show, empty or fill the cache of compiled kernels")
    actions = kept.add_subparsers(dest="action", required=True)
    actions.add_parser("info", help="print its directories, how many kernels they hold, their size, and how many are stale")
    actions.add_parser("clear", help="remove its files")
    actions.add_parser("warm", help="compile the kernels that are not in it")
    files = "FILE.npy (memory-mapped), FILE.npz, FILE.npz:KEY or FILE.csv"
    solver = commands.add_parser("solve", help="solve from files", description="Exit status: 0 on success, 1 if the solve failed, 2 for bad input.")
    solver.add_argument("A", help=f"the data, n x d: {files}")
    solver.add_argument("b", help="the target, n: the same")
    solver.add_argument("--w", help="weights of the regulariser, n: the same, or a number")
    solver.add_argument("--x0", help="the start, d: the same (default: 0)")
    solver.add_argument("--checkpoint", metavar="FILE.npz", help="where to keep x after each step, for --resume")
    solver.add_argument("--resume", action="store_true", help="go on from the checkpoint, if it is there")
    solver.add_argument(
        "-o", "--output", help="where to write x: FILE.npy or FILE.csv (default: print it, with the names of columns where A.csv has a header)"
    )
    solver.add_argument("--tol", type=float, default=1e-10, help="relative tolerance (default: %(default)s)")
    solver.add_argument("--max-iter", type=int, default=100, help="the most steps (default: %(default)s)")
    solver.add_argument("--num-threads", type=int, help="threads for the kernels (default: all)")
    solver.add_argument("-q", "--quiet", action="store_true", help="print the summary line only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    args = build_parser().parse_args(argv)
    if args.command == "demo":
        return demo()
    if args.command == "info":
        return info()
    if args.command == "cache":
        return manage_cache(args.action)
    return solve(args)


if __name__ == "__main__":
    sys.exit(main())
