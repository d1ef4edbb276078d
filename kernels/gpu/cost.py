"""The time of a pass on a GPU, from its data sheet: by memory, flops or shared memory, whichever takes longest, kernel by kernel.

Formulas of the kernels in cuda.py; CUDA is not imported. A data sheet is optimistic: real kernels reach 70 to 90 % of a bandwidth.
"""

from typing import NamedTuple

LAUNCH = 5e-6  # seconds from one kernel to the next on a stream, about
TILE = 64  # of a Gram matrix, see gram.py
FUSED_UP_TO = 512  # columns up to which one pass serves rows and columns, see share.WIDEST
EXP = 40  # flops, about, of an exponential in float64


class Ceiling(NamedTuple):
    """A data sheet."""

    name: str
    bandwidth: float  # bytes a second
    flops: float  # of float64, a second, without tensor cores: Numba has none for it
    loads: float  # of a warp from shared memory, a second: one in each cycle of each multiprocessor


# NVIDIA's data sheets of the SXM modules.
H100, A100 = Ceiling("H100 SXM", 3.35e12, 34e12, 132 * 1.755e9), Ceiling("A100 80GB SXM", 2.04e12, 9.7e12, 108 * 1.41e9)
CEILINGS = (H100, A100)


class Work(NamedTuple):
    """The data that one kernel moves, and the work that it does."""

    name: str
    bytes: float
    flops: float
    loads: float = 0.0  # of warps, from shared memory

    def seconds(self, ceiling: Ceiling) -> dict[str, float]:
        """The time by each possible bound."""
        return {"bytes": self.bytes / ceiling.bandwidth, "flops": self.flops / ceiling.flops, "shared": self.loads / ceiling.loads}


COMBINE = Work("combine", 0.0, 0.0)  # the states of blocks: a launch


def losses(n: int) -> list[Work]:
    """The loss where a and the blocks' domains are known."""
    return [Work("fold_residuals", 16 * n, n * (EXP + 12)), COMBINE]


def sums(n: int, d: int, size: int, kinds: int) -> list[Work]:
    """The point at x, and the sums of columns for its gradient, of that many kinds: one read of A."""
    if d <= FUSED_UP_TO:
        return [Work("fold_sums", n * (size * d + 8 + 8 * (kinds > 0)), n * (2 * (1 + kinds) * d + EXP + 10)), *losses(n)]
    return [Work("fold_products", n * (size * d + 8), n * 2 * d), Work("fold_domain", 8 * n, n * (EXP + 10)), *losses(n)]


def gradient(n: int, d: int, size: int) -> list[Work]:
    """The three d-vectors where the point is known, and h."""
    return [Work("fold_gradient", n * (size * d + 24), n * (6 * d + EXP)), COMBINE]


def gram(n: int, d: int, size: int) -> list[Work]:
    """The triangle in tiles; those on the diagonal compute three quarters of theirs. What tiles share comes from L2.

    For a row of A each of the 8 warps of a tile loads 4 numbers of either factor.
    """
    tiles, loads = -(-d // TILE), 8 * (4 + 4)
    diagonal, below = tiles * 2 * 0.75 * TILE**2, tiles * (tiles - 1) * TILE**2
    works = [Work("fold_gram_diagonal", n * (size * d + 8), n * (diagonal + TILE * tiles), n * tiles * loads)]
    if tiles > 1:
        works.append(Work("fold_gram_below", n * (size * d + 8), n * below, n * tiles * (tiles - 1) / 2 * loads))
    return [*works, COMBINE]


def passes(n: int, d: int, size: int = 8) -> dict[str, list[Work]]:
    """{public kernel: what it runs} for A of n x d numbers of `size` bytes, without weights w."""
    fused = d <= FUSED_UP_TO
    value = sums(n, d, size, 0)
    value_grad = sums(n, d, size, 3) if fused else value + gradient(n, d, size)
    curvature = [Work("fold_curvature", n * ((1 if fused else 2) * size * d + 16), n * (4 * d + EXP)), COMBINE]
    return {
        "value": value,
        "value_grad": value_grad,
        "value_grad_hess": value + gradient(n, d, size) + gram(n, d, size),
        "hess_vec": value_grad + curvature,
        "weighted_gram": gram(n, d, size),
    }


def batch(k: int, n: int, d: int, size: int, steps: float, evaluations: float) -> list[Work]:
    """k small problems of n x d, of that many steps and evaluations each, whose records stay in shared memory: the work on rows.

    A load of 8 bytes in each lane counts twice. The d x d work, a lane's while others wait, is not counted.
    """
    sums = d * (d + 1) // 2 + 3 * d
    flops = evaluations * (2 * d + EXP + 25) + steps * (EXP + 30 + d + 2 * sums)
    loads = evaluations * (d + 7) + steps * (d + 5)
    return [Work("solve_batch", k * (n * (size * d + 8) + 8 * d + 20), k * n * flops, 2 * k * -(-n // 32) * loads)]


def seconds(works: list[Work], ceiling: Ceiling) -> float:
    """The sum over kernels of the longest time of each."""
    return sum(max(work.seconds(ceiling).values()) + LAUNCH for work in works)


def bound(works: list[Work], ceiling: Ceiling) -> str:
    """The bound of the kernel that takes longest."""
    longest = max((work.seconds(ceiling) for work in works), key=lambda by: max(by.values()))
    return max(longest, key=lambda what: longest[what])


def table(shapes: tuple[tuple[int, int], ...] = ((10_000_000, 64), (1_000_000, 512))) -> str:
    """Predictions as Markdown: milliseconds, and the bound of the longest kernel."""
    lines = [f"| kernel | n x d | A | {' | '.join(ceiling.name for ceiling in CEILINGS)} |", "|---|---|---|" + "---|" * len(CEILINGS)]
    for n, d in shapes:
        for size in (8, 4):
            for name, works in passes(n, d, size).items():
                cells = [f"{seconds(works, ceiling) * 1e3:.2f} ms, {bound(works, ceiling)}" for ceiling in CEILINGS]
                lines.append(f"| {name} | {n} x {d} | float{8 * size} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
