"""The measurements of docs/theory.md: fills its tables, draws its picture and runs its examples. Three minutes; the same figures every time.

python bench/theory.py
"""

import doctest
import itertools
import math
from pathlib import Path

import numpy as np
from report import between_markers, svg_pyplot
from scipy.linalg import eigvalsh

import fastrsx
import fastrsx.planning
from fastrsx.result import inference

PAGE = Path(__file__).parent.parent / "docs" / "theory.md"
SPREADS = (0.03, 0.1, 0.3, 1.0, 3.0)  # std(A x)
SHAPES = ((12, 4), (100, 4), (100, 20), (1000, 4), (1000, 20))
TARGETS = {"spread": lambda rng, n: rng.dirichlet(np.ones(n)), "one-hot": lambda rng, n: np.eye(1, n, rng.integers(n))[0]}  # b
DRAWS = 300  # for each shape, b and spread
WEIGHTED = 1000  # problems with weights
RADII = tuple(float(radius) for radius in np.geomspace(0.01, 100, 13))
PROBLEMS, PAIRS = 20, 100  # for each radius, and for each of its problems and betas
BETAS = (1.0, 6.0)
DERIVATIVES = ("gradient", "Hessian")
KINDS = (
    "std(a) = 1",
    "std(a) = 2",
    "random b",
    "weights w",
    "softmax",
    "correlated columns",
    "heavy tails (t, 3 degrees)",
    "one-hot b",
)
INTERVALS = 2000  # draws of b for each row of the table
CLUSTERS = {  # the number of groups, the rows of each, and what their errors are
    "300 groups of 4, a shock in each": (300, 4, {"shocked": True}),
    "60 groups of 20, a shock in each": (60, 20, {"shocked": True}),
    "300 groups of 4, independent rows": (300, 4, {}),
    "the same, errors with the sum 0": (300, 4, {"tied": True}),
    "the same, with residual weights": (300, 4, {"tied": True, "weighted": True}),
    "300 pairs, softmax, errors with the sum 0": (300, 2, {"tied": True, "link": "softmax"}),
}
SOLVES = ((300, 3), (800, 5), (1000, 8), (5000, 13), (20_000, 16), (3000, 20), (5000, 24), (20_000, 31))


def draw(rng, n, d, spread, target="spread"):
    """Gaussian A, b with sum 1, an x in the domain with std(A x) = spread, and the number of x outside it drawn before."""
    A, b = rng.standard_normal((n, d)), TARGETS[target](rng, n)
    outside = 0
    while True:
        x = rng.standard_normal(d)
        x *= spread / np.std(A @ x)
        if alpha(A, x) > 0:
            return A, b, x, outside
        outside += 1


def alpha(A, x):
    with np.errstate(over="ignore"):
        return float(np.sum(np.exp(A @ x) + A @ x))


# -- tables -----------------------------------------------------------------------------------------------------


def counted_problems():
    """Kinds of problems and, of each, A, b and options of `newton`, eight sizes."""
    for kind, (n, d) in itertools.product(KINDS, SOLVES):
        rng = np.random.default_rng([n, d])
        A = rng.standard_t(3, (n, d)) if kind == "heavy tails (t, 3 degrees)" else rng.standard_normal((n, d))
        if kind == "correlated columns":
            A = (rng.standard_normal((n, 3)) @ rng.standard_normal((3, d)) + 0.1 * A) / 3
        x = rng.standard_normal(d) * (2.0 if kind == "std(a) = 2" else 1.0) / math.sqrt(d)
        options = {"link": "softmax"} if kind == "softmax" else {"w": rng.random(n) / n} if kind == "weights w" else {}
        b = rng.random(n) if kind == "random b" else fastrsx.predict(A, x, link=options.get("link", "rsx")) * rng.uniform(0.5, 1.5, n)
        yield kind, A, np.eye(1, n, rng.integers(n))[0] if kind == "one-hot b" else b / b.sum(), options


def one_read():
    """Steps, reads and Hessians of solves whose steps take two reads of A, and one."""
    kept, counts, ends = fastrsx.planning.READ_ONCE_FROM, {}, []
    for kind, A, b, options in counted_problems():
        results = []
        for least in (math.inf, 0):
            fastrsx.planning.READ_ONCE_FROM = least
            results.append(fastrsx.newton(A, b, kernel="serial", **options))
        two, one = results
        ends.append(two.status is one.status and (not two.success or abs(one.fun - two.fun) <= 1e-9 * two.fun))
        counts.setdefault(kind, []).append([[result.nit, result.npass, result.nhev] for result in results])
    fastrsx.planning.READ_ONCE_FROM = kept
    lines = ["| problems | steps | reads of A | Hessians |", "|---" * 4 + "|"]
    counts["all"] = [pair for pairs in counts.values() for pair in pairs]
    for kind, pairs in counts.items():
        (two, one), name = np.sum(pairs, axis=0), f"{kind} ({len(pairs)})"
        lines.append(f"| {name} | " + " | ".join(f"{before}, {after}" for before, after in zip(two, one, strict=True)) + " |")
    sizes = ", ".join(f"{n} x {d}" for n, d in SOLVES)
    caption = (
        f"Steps in two reads, then in one, with the read that scales columns: sums over problems of {sizes}. A is Gaussian unless said otherwise, "
        f"b an f(x) with errors of up to a half in each row. {sum(ends)} of {len(ends)} pairs ended with the same status and, where that is "
        "success, the same loss."
    )
    return "\n".join([*lines, "", caption])


def indefinite():
    """How often the Hessian, its diagonal part and the Gauss-Newton matrix have a negative eigenvalue."""
    lines = ["| n x d | b | " + " | ".join(f"std(a) = {spread:g}" for spread in SPREADS) + " |", "|---" * (2 + len(SPREADS)) + "|"]
    gauss_newton = outside = draws = 0
    for (n, d), target in itertools.product(SHAPES, TARGETS):
        rng = np.random.default_rng([n, d])
        cells = []
        for spread in SPREADS:
            hessian = diagonal = 0
            for _ in range(DRAWS):
                A, b, x, redrawn = draw(rng, n, d, spread, target)
                found = fastrsx.curvature(A, b, x, kernel="serial")
                hessian += not found.hessian.is_psd
                diagonal += not found.diagonal.is_psd
                gauss_newton += not found.gauss_newton.is_psd
                outside += redrawn
                draws += 1
            cells.append(f"{hessian / DRAWS:.0%} ({diagonal / DRAWS:.0%})")
        lines.append(f"| {n} x {d} | {target} | " + " | ".join(cells) + " |")
    caption = (
        f"Share of {DRAWS} draws in which the Hessian has a negative eigenvalue; in brackets, its diagonal part A^T diag(2D) A alone. A is Gaussian, "
        "b one-hot or spread (uniform on the simplex), x random with this std(a). An x outside the domain is drawn again "
        f"({outside} times in {draws + outside}). The Gauss-Newton matrix 2 J^T J had a negative eigenvalue in {gauss_newton} of {draws}."
    )
    return "\n".join([*lines, "", caption])


def weights():
    """psd_weights, at x and on a ball, over the smallest scalar weight that makes the Hessian at x positive semidefinite."""
    rng = np.random.default_rng(0)
    found = {spread: [] for spread in SPREADS[1:]}  # at the smallest spread, few Hessians need weights
    for i in range(WEIGHTED):
        spread = list(found)[i % len(found)]
        d = int(rng.integers(1, 6))
        n = int(rng.integers(d + 1, 25))
        A, b, x, _ = draw(rng, n, d, spread)
        needed = -float(eigvalsh(fastrsx.Problem(A, b, kernel="serial").hess(x), A.T @ A)[0])  # w^2
        if needed > 0:
            ball = {"radius": float(np.linalg.norm(x)), "beta": alpha(A, x)}
            found[spread].append([fastrsx.psd_weights(A, b, **where).max() / math.sqrt(needed) for where in ({"x": x}, ball)])
    lines = [
        "| std(a) | negative eigenvalue | at x, median | at x, 90 % | ball, median | ball, 90 % |",
        "|---" * 6 + "|",
    ]
    rows = [(f"{spread:g}", ratios) for spread, ratios in found.items()]
    rows.append(("all", [ratio for ratios in found.values() for ratio in ratios]))
    for name, ratios in rows:
        problems = WEIGHTED if name == "all" else WEIGHTED // len(found)
        (median, ball_median), (most, ball_most) = np.quantile(ratios, [0.5, 0.9], axis=0)
        lines.append(f"| {name} | {len(ratios)} of {problems} | {median:.2f} | {most:.2f} | {ball_median:.1f} | {ball_most:.1f} |")
    caption = (
        "What weights cost: the largest entry of psd_weights over the smallest scalar weight w0 that would do at x, w0^2 = -lambda_min of the "
        f"pencil (Hess, A^T A), for those of {WEIGHTED} random problems (d up to 5, n up to 24, b spread) whose Hessian has a negative eigenvalue. "
        "At x, and on the smallest set that holds x: radius = ||x||, beta = alpha(x)."
    )
    return "\n".join([*lines, "", caption])


def tightness():
    """For each radius and beta, the largest observed slope of gradient and of Hessian over the bound."""
    rng = np.random.default_rng(1)
    largest = np.zeros((len(RADII), len(BETAS), 2))
    n, d = 12, 3
    for k, radius in enumerate(RADII):
        for _ in range(PROBLEMS):
            A, b = np.column_stack([np.ones(n), rng.standard_normal((n, d - 1))]), rng.dirichlet(np.ones(n))
            problem = fastrsx.Problem(A, b, kernel="serial")
            for ratios, beta in zip(largest[k], BETAS, strict=True):
                bounds = fastrsx.lipschitz_bounds(A, b, radius, beta)[:2]
                for _ in range(PAIRS):
                    x, y = pair(rng, A, radius, beta)
                    (_, grad_x, hess_x), (_, grad_y, hess_y) = problem.value_grad_hess(x), problem.value_grad_hess(y)
                    slopes = np.array([np.linalg.norm(grad_x - grad_y), np.linalg.norm(hess_x - hess_y, 2)]) / np.linalg.norm(x - y)
                    ratios[:] = np.maximum(ratios, slopes / bounds)
    return largest


def pair(rng, A, radius, beta):
    """Two points of the ball with alpha >= beta, the first one where alpha is beta if there is such a point between two random ones."""
    while True:
        x, toward = (within(radius, radius * rng.standard_normal(A.shape[1])) for _ in range(2))
        if alpha(A, x) < beta <= alpha(A, toward):
            for _ in range(60):
                middle = (x + toward) / 2
                x, toward = (x, middle) if alpha(A, middle) >= beta else (middle, toward)
            x = toward
        y = within(radius, x + radius * 10 ** rng.uniform(-7, 0) * rng.standard_normal(A.shape[1]))
        if min(alpha(A, x), alpha(A, y)) >= beta and (x != y).any():
            return x, y


def within(radius, x):
    """x, shortened to the radius if it is longer."""
    return x * min(1.0, radius / np.linalg.norm(x))


def tightness_caption(largest):
    return (
        f"Largest observed slope over the bound, {largest.min():.1g} to {largest.max():.1g}: for each radius {PROBLEMS} problems of 12 x 3, A an "
        f"intercept and Gaussian columns, and {PAIRS} pairs of points of each, many of them with an alpha of about beta. At x = 0, alpha = 12."
    )


def clusters():
    x, kinds = np.array([0.5, -0.3, 0.0]), ("sandwich", "least-squares")
    lines = ["| errors of b | sandwich | least-squares |", "|---|---|---|"]
    for name, (T, size, how) in CLUSTERS.items():
        inside = covered(x, kinds, T, size, **how)
        lines.append(f"| {name} | " + " | ".join(", ".join(f"{share:.1%}" for share in inside[kind]) for kind in kinds) + " |")
    caption = (
        f"Shares of 95 % intervals that hold x = (0.5, -0.3, 0), an entry each, in {INTERVALS} draws. A is Gaussian with the variance 1/4; rows "
        "have errors of about a tenth of f, and a shock moves all rows of a group along the first column of A. The residual weights are one over "
        "the variances of rows."
    )
    return "\n".join([*lines, "", caption])


def covered(x, kinds, T, size, shocked=False, tied=False, weighted=False, link="rsx"):
    """Shares of intervals that hold the entries of x, by kind."""
    rng, starts, labels = np.random.default_rng(0), size * np.arange(T), np.repeat(np.arange(T), size)
    A = 0.5 * rng.standard_normal((T * size, len(x)))
    f = fastrsx.predict(A, x, groups=labels, link=link)
    variances = 1 / rng.uniform(0.5, 3, T * size) if weighted else np.ones(T * size)
    inside = dict.fromkeys(kinds, 0)
    for _ in range(INTERVALS):
        e = np.sqrt(variances) * rng.standard_normal(T * size)
        if shocked:
            e = e * (0.3 + abs(A[:, 1])) + 1.5 * rng.standard_normal(T)[labels] * A[:, 0]
        if tied:
            e -= variances * (np.add.reduceat(e, starts) / np.add.reduceat(variances, starts))[labels]
        weights = 1 / variances if weighted else None
        result = fastrsx.newton(A, f + 0.1 / size * e, x, groups=labels, residual_weights=weights, link=link, kernel="serial")
        for kind in kinds:
            found = inference(result.x, result.covariance(kind), 0.95)
            inside[kind] = inside[kind] + ((found.low <= x) & (x <= found.high)) / INTERVALS
    return inside


# -- the picture ------------------------------------------------------------------------------------------------


def draw_tightness(largest, path):
    figure, axes = svg_pyplot().subplots(figsize=(6, 4.2), layout="constrained")
    for (j, beta), (i, name) in itertools.product(enumerate(BETAS), enumerate(DERIVATIVES)):
        axes.plot(RADII, largest[:, j, i], "os"[i] + ("-", "--")[j], color=f"C{i}", label=f"{name}, beta = {beta:g}")
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(1e-3, 1),
        xlabel="radius of the ball",
        ylabel="largest observed slope / bound",
        title="Tightness of lipschitz_bounds",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


# -- the command ------------------------------------------------------------------------------------------------


def fill(name, text):
    """Put a table between the markers of that name on the page."""
    between_markers(PAGE, text, f"<!-- {name} -->", f"<!-- /{name} -->")


def main():
    fill("one read", one_read())
    fill("indefinite", indefinite())
    fill("weights", weights())
    fill("clusters", clusters())
    largest = tightness()
    fill("tightness", tightness_caption(largest))
    draw_tightness(largest, PAGE.parent / "lipschitz.svg")
    raise SystemExit(min(1, doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8").failed))


if __name__ == "__main__":
    main()
