"""The time of a pass on a GPU, from its data sheet: by memory, flops or shared memory, whichever takes longest, kernel by kernel.

Formulas of the kernels in cuda.py; CUDA is not imported. A data sheet is optimistic: real kernels reach 70 to 90 % of a bandwidth.
"""

from typing import NamedTuple

LAUNCH = 5e-6  # seconds from one kernel to the next on a stream, about
TILE = 64  # of a Gram matrix without tensor cores, see gram.py
NARROW, PANEL = 64, 128  # columns of one on tensor cores, see tensor_gram.py
RIDERS = 3
PRODUCT = 2 * 16 * 8  # flops of a warp for a row, in a product of 16 x 8 entries on tensor cores
FUSED_UP_TO = 512  # columns up to which one pass serves rows and columns, see share.WIDEST
EXP = 40  # flops, about, of an exponential in float64


class Ceiling(NamedTuple):
    """A data sheet."""

    name: str
    bandwidth: float  # bytes a second
    flops: float  # of float64, a second, without tensor cores
    tensor: float  # the same on tensor cores; 0 where there are none for float64
    loads: float  # of 128 bytes from shared memory, a second: one in each cycle of each multiprocessor


# NVIDIA's data sheets, of the SXM modules; and of a GPU that has little float64.
H100 = Ceiling("H100 SXM", 3.35e12, 34e12, 67e12, 132 * 1.755e9)
A100 = Ceiling("A100 80GB SXM", 2.04e12, 9.7e12, 19.5e12, 108 * 1.41e9)
L40S = Ceiling("L40S", 0.864e12, 1.43e12, 0.0, 142 * 2.52e9)
CEILINGS = (H100, A100)


def ceiling_of(capability: tuple[int, int]) -> Ceiling:
    """The data sheet that is nearest to a GPU of this compute capability."""
    return A100 if capability == (8, 0) else H100 if capability in ((9, 0), (10, 0)) else L40S


class Work(NamedTuple):
    """The data that one kernel moves, and the work that it does."""

    name: str
    bytes: float
    flops: float
    loads: float = 0.0  # from shared memory
    products: float = 0.0  # flops on tensor cores

    def seconds(self, ceiling: Ceiling) -> dict[str, float]:
        """The time by each possible bound."""
        by = {"bytes": self.bytes / ceiling.bandwidth, "flops": self.flops / ceiling.flops, "shared": self.loads / ceiling.loads}
        return by | ({"tensor": self.products / ceiling.tensor} if self.products else {})


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


def tensor_gram(n: int, d: int, size: int, riders: int) -> list[Work]:
    """The triangle on tensor cores. A is read once: what several panels need of a row comes from L2. A copy writes to shared memory, too.

    Up to NARROW columns, of each 4 rows a warp has all tiles. Wider, a block of 8 warps has 16 tiles a warp for two panels that meet, and 20 on the
    diagonal, where the warps beside the triangles have the riders; the last panel alone takes half of its rows each.
    """
    bytes_, pair = n * (size * d + 8 * (1 + riders)), size // 2  # loads of two numbers of each lane
    if d <= NARROW:
        groups = 1
        while 16 * groups < d:
            groups *= 2
        products, loads, copies = groups * (groups + 1) + groups * (riders > 0), pair * groups + 1 + (riders > 0), size * 16 * groups / 128
    else:
        panels = -(-d // PANEL)
        below = panels * (panels - 1) // 2
        products = 8 * 16 * below + 8 * 20 * panels // 2
        loads = 8 * below * (6 * pair + 1) + 8 * panels * (5 * pair + 1 + (riders > 0)) // 2
        copies = size * 2 * PANEL / 128 * (below + panels / 2)
    return [Work("fold_narrow" if d <= NARROW else "fold_wide", bytes_, 0.0, n * (loads / 4 + copies), n * PRODUCT * products), COMBINE]


def plain_gram(n: int, d: int, size: int) -> list[Work]:
    """The triangle in tiles; those on the diagonal compute three quarters of theirs. What tiles share comes from L2.

    For a row of A each of the 8 warps of a tile loads 4 numbers of either factor.
    """
    tiles, loads = -(-d // TILE), 8 * (4 + 4)
    diagonal, below = tiles * 2 * 0.75 * TILE**2, tiles * (tiles - 1) * TILE**2
    works = [Work("fold_gram_diagonal", n * (size * d + 8), n * (diagonal + TILE * tiles), n * tiles * loads)]
    if tiles > 1:
        works.append(Work("fold_gram_below", n * (size * d + 8), n * below, n * tiles * (tiles - 1) / 2 * loads))
    return [*works, COMBINE]


def gram(n: int, d: int, size: int, ceiling: Ceiling) -> list[Work]:
    """A^T diag(h) A."""
    return tensor_gram(n, d, size, 0) if ceiling.tensor else plain_gram(n, d, size)


def derivatives(n: int, d: int, size: int, ceiling: Ceiling) -> list[Work]:
    """The d-vectors and the Gram matrix where the point is known: one read of A on tensor cores, and else two."""
    if ceiling.tensor:
        return [Work("weigh_rows", 48 * n, n * (EXP + 20)), *tensor_gram(n, d, size, RIDERS)]
    return gradient(n, d, size) + plain_gram(n, d, size)


def curvature(n: int, d: int, size: int) -> list[Work]:
    """A product with the Hessian where the point is known."""
    return [Work("fold_curvature", n * ((1 if d <= FUSED_UP_TO else 2) * size * d + 16), n * (4 * d + EXP)), COMBINE]


def scores(n: int, d: int, size: int) -> list[Work]:
    """The leverages from which rows are drawn, see sample.py."""
    if d <= FUSED_UP_TO:
        return [Work("fold_squares", n * (size * d + 8), n * 2 * 8 * d, n * 8 * d / 16)]
    return [Work("fold_products", n * (size * d + 24), n * 2 * d)] * 8


def draw(n: int, d: int, size: int, rows: int, ceiling: Ceiling) -> list[Work]:
    """About so many rows, after three rounds for their probabilities, and their Gram matrix."""
    rounds = [Work("fold_importance", 16 * n, 3 * n), COMBINE, COMBINE] * 3  # a round waits for its sums
    return [*rounds, *[Work("draw_rows", 16 * n, 6 * n)] * 2, Work("take_rows", 2 * size * rows * d, 0.0), *gram(rows, d, size, ceiling)]


def steps(n: int, d: int, rows: int, products: float, ceiling: Ceiling, size: int = 8) -> dict[str, float]:
    """Seconds of a Newton step of the GPU's: from the exact Hessian, and from one of so many rows that `products` with the exact one refine.

    The CPU's share is the same for both. A leverage serves about five steps.
    """
    exact = seconds([*sums(n, d, size, 0), *derivatives(n, d, size, ceiling)], ceiling)
    losses_alone = [Work("fold_domain", 24 * n, n * (EXP + 10)), *losses(n)]  # A p is known from the products
    drawn = seconds([*losses_alone, *gradient(n, d, size), *draw(n, d, size, rows, ceiling)], ceiling)
    drawn += products * seconds(curvature(n, d, size), ceiling) + seconds(scores(n, d, size), ceiling) / 5
    return {"exact": exact, "sampled": drawn}


def passes(n: int, d: int, size: int = 8, ceiling: Ceiling = H100) -> dict[str, list[Work]]:
    """{public kernel: what it runs} for A of n x d numbers of `size` bytes, without weights w."""
    value = sums(n, d, size, 0)
    value_grad = sums(n, d, size, 3) if d <= FUSED_UP_TO else value + gradient(n, d, size)
    return {
        "value": value,
        "value_grad": value_grad,
        "value_grad_hess": value + derivatives(n, d, size, ceiling),
        "hess_vec": value_grad + curvature(n, d, size),
        "weighted_gram": gram(n, d, size, ceiling),
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
            for name in passes(n, d, size):
                by = [(passes(n, d, size, ceiling)[name], ceiling) for ceiling in CEILINGS]
                cells = [f"{seconds(works, ceiling) * 1e3:.2f} ms, {bound(works, ceiling)}" for works, ceiling in by]
                lines.append(f"| {name} | {n} x {d} | float{8 * size} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
