"""The command line: `fastrsx demo`, `fastrsx solve`, `fastrsx info`, `fastrsx cache`."""

import argparse
import contextlib
import importlib.metadata
import io
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from . import __version__, files, stores
from .files import read_array

LINKS = ("rsx", "softmax", "linear")  # those of `newton`, which is not imported for a command's help
OPTIONAL = ("tbb", "matplotlib", "pytest", "pytest-benchmark", "hypothesis", "mpmath", "threadpoolctl")
CSV = """\
csv files:
  Fields are separated by commas and decimals by points; numbers may be quoted.
  The text is UTF-8, or UTF-16 with its mark. Lines that begin with # may stand
  above the rows; the last may name the columns. A title, one field above lines
  of three or more, is skipped with a note. The first other line is
    a header   where every field is a word, which has a letter;
    a row      where every field is a number.
  A line that may be either is refused until --header says which:
    words beside numbers;
    whole numbers that go up by one, as years, or pandas' 0,1,2; a 0 alone;
    whole numbers above columns that all have fractions.
  A header names every column, each by a name of its own. An unnamed column
  that numbers the rows is refused: write the file without it (pandas:
  index=False, R: row.names=FALSE). b, w and x0 are one column, or one row.
"""


def demo() -> int:
    """Solve the bundled market shares, within each year, and show the fit."""
    from .data import load_automobiles
    from .problem import predict
    from .solver import newton

    cars = load_automobiles()
    A, b, years = cars.A, cars.share_of_year, cars.year
    print(f"Shares of {len(b)} US car models in the market of their year, from {', '.join(cars.names)} (standardised).")
    print("f sums to 1 in each of the years 1971 to 1990, and all years share x: newton(A, b, groups=years).")
    print("Loading kernels (compiled on the first run, which takes about 30 seconds) ...", flush=True)
    start = time.perf_counter()
    newton(A, b, groups=years)
    print(f"... {time.perf_counter() - start:.2f} s\n")
    start = time.perf_counter()
    result = newton(A, b, groups=years, verbose=2)
    seconds = time.perf_counter() - start
    print(f"\nSolved in {seconds * 1e3:.2f} ms by {result.kernel}.\n")
    print("Coefficients")
    for name, coefficient in zip(cars.names, result.x, strict=True):
        print(f"  {name:<6} {coefficient:>9.5f}")
    f = predict(A, result.x, groups=years)
    error = np.abs(f - b)
    best, worst = np.argsort(error / b)[:5], np.argsort(-error)[:5]
    for title, rows in (("Best fitted cars", best), ("Worst fitted cars", worst)):
        print(f"\n{title}\n  {'year':>4} {'model':>6} {'share':>9} {'fitted':>9}")
        for i in rows:
            print(f"  {years[i]:>4} {cars.model_id[i]:>6} {b[i]:>9.3e} {f[i]:>9.3e}")
    return 0 if result.success else 1


class Stdout(io.TextIOBase):
    """The standard output, which does not stop the work where it is closed, full, or cannot encode a letter."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None  # the error that ended it

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        self._try(lambda: self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            action()
        except OSError as error:
            self.failure = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # Python writes the rest of the buffer when it ends


def complain(text: str) -> None:
    """Print a note on the files, or an error, in one line."""
    print("fastrsx solve:", *text.splitlines(), file=sys.stderr)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse outputs that cannot be written, before any work."""
    taken = {name: files.path_of(source) for name in ("A", "b", "w") if (source := getattr(args, name)) is not None}
    if args.groups is not None and files.is_file(args.groups):
        taken["groups"] = files.path_of(args.groups)
    if args.output is not None:
        if Path(args.output).suffix not in (".npy", ".csv"):
            raise ValueError(f"output: {args.output} must end in .npy or .csv")
        files.check_output("output", args.output, taken)
        taken["the output"] = args.output
    if args.checkpoint is not None:
        files.check_output("checkpoint", args.checkpoint, taken)
    elif args.resume:
        raise ValueError("resume: give the file to go on from with --checkpoint")


def read_inputs(args: argparse.Namespace) -> list[Any]:
    """A, b, w, x0 and the labels of groups; None where one is not given."""
    if args.groups is not None and on_cluster(args) and not files.is_file(args.groups):
        raise ValueError(f"groups: {args.groups} is no file; on a cluster, give a file of labels, whose groups lie together")
    headers = {name: answer == "yes" for name, answer in (spec.split("=") for spec in args.header)}
    notes: list[str] = []
    values: list[Any] = []
    groups = args.groups
    for name in ("A", "b", "w", "x0"):
        source = getattr(args, name)
        if name == "A" and on_cluster(args):
            source = stores.read(source)
        elif name == "A" and groups is not None and not files.is_file(groups):
            source, groups = files.read_apart(source, groups, headers.get(name), notes.append)
        elif source is not None and not (name == "w" and files.is_number(source)):
            source = read_array(source, name, 2 if name == "A" else 1, headers.get(name), notes.append)
        values.append(float(source) if isinstance(source, str) else source)
    if isinstance(groups, str):
        groups = files.read_labels(groups, len(values[1]), headers.get("groups"))
    for note in notes:  # only now, because an error stands alone
        complain(note)
    return [*values, groups]


def on_cluster(args: argparse.Namespace) -> bool:
    return args.dask is not None or args.workers is not None


def saving(checkpoint: Any) -> Callable[[Any], None]:
    """A callback that saves the checkpoint, and continues where that fails."""

    def callback(intermediate_result: Any) -> None:
        try:
            checkpoint(intermediate_result)
        except OSError as error:
            complain(f"checkpoint: {checkpoint.path} could not be written: {files.reason(error)}; the solve goes on")

    return callback


def solve(args: argparse.Namespace) -> int:
    """Solve from files; 0 only on success."""
    try:
        check_outputs(args)
        with stores.cluster(args.dask, args.workers) if on_cluster(args) else contextlib.nullcontext():
            result = solve_inputs(args)
    except (OSError, ValueError, TypeError, MemoryError) as error:
        complain(str(error) or type(error).__name__)
        return 2
    return deliver(result, args.output, args.errors)


def solve_inputs(args: argparse.Namespace) -> Any:
    """The result of the solve."""
    from .checkpoint import Checkpoint
    from .solver import newton

    A, b, w, x0, groups = read_inputs(args)
    callback = None
    if args.checkpoint is not None:
        kept = Checkpoint(args.checkpoint, A, b, groups)
        callback = saving(kept)
        if args.resume:
            saved = kept.load()
            print(f"{args.checkpoint} is not there: starting anew" if saved is None else f"Going on from {args.checkpoint}", file=sys.stderr)
            x0 = x0 if saved is None else saved
    return newton(
        A,
        b,
        x0,
        w=w,
        groups=groups,
        link=args.link,
        tol=args.tol,
        max_iter=args.max_iter,
        num_threads=args.num_threads,
        callback=callback,
        verbose=1 if args.quiet else 2,
    )


def deliver(result: Any, output: str | None, errors: str | None = None) -> int:
    """Write x, or print it where no file is given or it cannot be written, and its standard errors; the exit status."""
    if errors is not None:
        try:
            print(result.table(errors=errors))
        except ValueError as error:
            complain(str(error))
        else:
            if output is None:
                return 0 if result.success else 1
    plain = "\n".join(map(repr, result.x.tolist())) + "\n"  # a 0 is "0.0", which is not mistaken for a header
    if output is not None:
        try:
            files.replace(output, lambda file: np.save(file, result.x) if output.endswith(".npy") else file.write(plain.encode()))
        except OSError as error:
            complain(f"output: {output} could not be written: {files.reason(error)}; x is printed instead")
        else:
            return 0 if result.success else 1
    print(result.table(".17g") + "\n" if result.names else plain, end="")
    return 0 if result.success and output is None else 1


def vector_width() -> str:
    """The registers that LLVM uses on this machine."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for feature, width in (("avx512f", "512 bit (AVX-512)"), ("avx2", "256 bit (AVX2)"), ("avx", "256 bit (AVX)"), ("neon", "128 bit (NEON)")):
        if features.get(feature):
            return width
    return "128 bit"


def cache_state() -> str:
    """Where compiled kernels are kept."""
    from .system import cache

    problem = cache.problem()
    return f"off: {problem}" if problem else "; ".join([*map(str, cache.folders()), *(f"not in {place}" for place in cache.unusable())])


def manage_cache(action: str) -> int:
    """Show, empty or fill the cache of compiled kernels; 1 if there is none, or files that cannot be removed."""
    from . import warmup
    from .system import cache

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


def gpus() -> str:
    """The GPUs that the kernels can use, or why there is none."""
    from .system import device

    return device.why_none() or "; ".join(device.describe(index) for index in range(device.count()))


def info() -> int:
    """What a bug report needs."""
    import numba
    import psutil
    from llvmlite import binding

    from .system import threads

    count = numba.get_num_threads()  # starts the threading layer
    rows = [("fastrsx", __version__), ("python", f"{platform.python_version()} ({platform.platform()})")]
    rows += [(name, version_of(name)) for name in ("numba", "llvmlite", "numpy", "scipy", "psutil")]
    rows += [
        ("cpu", f"{binding.get_host_cpu_name()}, {psutil.cpu_count(logical=False)} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"),
        ("registers", vector_width()),
        ("gpu", gpus()),
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
    commands.add_parser("demo", help="solve the bundled market shares of cars, within each year, and show the fit")
    commands.add_parser("info", help="print what a bug report needs")
    kept = commands.add_parser("cache", help="show, empty or fill the cache of compiled kernels")
    actions = kept.add_subparsers(dest="action", required=True)
    actions.add_parser("info", help="print its directories, how many kernels they hold, their size, and how many are stale")
    actions.add_parser("clear", help="remove its files")
    actions.add_parser("warm", help="compile the kernels that are not in it")
    kinds = "FILE.npy (memory-mapped), FILE.npz, FILE.npz:KEY, FILE.csv or FILE.csv.gz"
    solver = commands.add_parser(
        "solve",
        help="solve from files",
        description="Exit status: 0 on success, 1 if the solve failed or x could not be written, 2 for bad input.",
        epilog=CSV,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    solver.add_argument("A", help=f"the data, n x d: {kinds}; or what scipy.sparse.save_npz wrote")
    solver.add_argument("b", help="the target, n: the same, but not sparse")
    solver.add_argument("--w", help="weights of the regulariser, n: the same as b, or a number")
    solver.add_argument(
        "--groups",
        metavar="NAME|FILE",
        help="labels of groups of rows, such as years, in each of which f sums to 1: a column of A's csv file, which is then left out of A; "
        "or a file with a label for each row",
    )
    solver.add_argument(
        "--link",
        choices=LINKS,
        default="rsx",
        help="u = exp(a) + a, a = A x; or, for comparison, exp(a), or a, which needs --x0 (default: %(default)s)",
    )
    solver.add_argument("--x0", help="the start, d: the same as b (default: 0)")
    answers = [f"{name}={answer}" for name in ("A", "b", "w", "x0", "groups") for answer in ("yes", "no")]
    solver.add_argument(
        "--header",
        action="append",
        default=[],
        choices=answers,
        metavar="NAME=yes|no",
        help="whether the first line of the csv file of A, b, w or x0 is a header (default: see below); once for each file",
    )
    solver.add_argument("--checkpoint", metavar="FILE.npz", help="where to keep x after each step, for --resume")
    solver.add_argument("--resume", action="store_true", help="go on from the checkpoint, if it is there")
    solver.add_argument(
        "-o",
        "--output",
        help="where to write x: FILE.npy or FILE.csv, a number in each line (default: print it, with the names of columns where A has a header)",
    )
    solver.add_argument("--tol", type=float, default=1e-10, help="relative tolerance (default: %(default)s)")
    solver.add_argument("--max-iter", type=int, default=100, help="the most steps (default: %(default)s)")
    solver.add_argument("--num-threads", type=int, help="threads for the kernels (default: all)")
    solver.add_argument(
        "--errors",
        choices=("sandwich", "least-squares", "bootstrap"),
        help="print each coefficient with its standard error, z, P>|z| and 95 %% interval, in place of x alone",
    )
    where = solver.add_mutually_exclusive_group()
    where.add_argument("--dask", metavar="ADDRESS", help=f"solve on the dask cluster whose scheduler is there; A is then {stores.KINDS}")
    where.add_argument("--workers", type=int, metavar="N", help="the same on so many processes of this machine")
    solver.add_argument("-q", "--quiet", action="store_true", help="print the summary line only")
    return parser


def run(args: argparse.Namespace) -> int:
    if args.command == "demo":
        return demo()
    if args.command == "info":
        return info()
    if args.command == "cache":
        return manage_cache(args.action)
    return solve(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    if sys.stdout is None:  # closed by the shell
        return run(build_parser().parse_args(argv))
    out = Stdout(sys.stdout)
    with contextlib.redirect_stdout(out):
        try:
            status = run(build_parser().parse_args(argv))
        except RuntimeError as error:  # a fault of the environment, such as NUMBA_DISABLE_JIT or a missing driver
            print(f"fastrsx: {error}", file=sys.stderr)
            status = 2
        finally:
            out.flush()
    if out.failure is None or isinstance(out.failure, BrokenPipeError):  # as `| head` ends it
        return status
    print(f"fastrsx: the output could not be printed: {files.reason(out.failure)}", file=sys.stderr)
    return max(status, 1)


if __name__ == "__main__":
    sys.exit(main())
