"""The measurements of sampled Hessians in docs/theory.md: their error by the number of rows drawn, and the work of a solve. Two minutes.

python bench/sampling.py
"""

import numpy as np
from report import svg_pyplot
from scipy.linalg import cholesky, eigvalsh, solve_triangular
from theory import PAGE, fill

import fastrsx
import problems
from fastrsx.planning import HESSIANS
from fastrsx.steps import approximate

FACTORS = (3, 5, 10, 20, 40, 80)  # rows drawn, in multiples of d
DRAWS = 5
SOLVES = (("noisy", 100_000, 64), ("noisy", 100_000, 256), ("vocabulary", 30522, 384))


def coherent(n, d):
    """Like "noisy", but every column has ten rows that are a hundred times larger than the others."""
    A, b, x = problems.noisy(n, d)
    A = A.copy()
    for j in range(d):
        A[10 * j : 10 * (j + 1), j] *= 100.0
    return A, b, x / 100


def spectral(problem, x):
    """For each number of rows, the median eps: all eigenvalues of G^-1 G~ are within 1 +- eps, with G = A^T diag(|h|) A and its sample G~."""
    A, scale, n = problem.A, problem._column_scale, len(problem.b)
    h = 2 * problem.factors(x).D
    root = cholesky(problem._passes.weighted_gram(np.abs(h)) / scale / scale[:, None])
    by = {"leverage": [], "uniform": []}
    for factor in FACTORS:
        if factor * A.shape[1] >= n:
            break
        sample = approximate.Sample(problem._passes, scale, factor * A.shape[1], seed=0)
        for name, weights in (("leverage", None), ("uniform", 1 / np.abs(h))):
            if weights is not None:
                sample.scores = weights
            found = []
            for _ in range(DRAWS):
                gram = sample.gram(np.abs(h)) / scale / scale[:, None]
                whitened = solve_triangular(root, solve_triangular(root, gram, trans="T").T, trans="T")
                found.append(np.abs(eigvalsh(whitened) - 1).max())
            by[name].append(float(np.median(found)))
    return by


def draw(curves, path):
    figure, axes = svg_pyplot().subplots(1, len(curves), figsize=(4 * len(curves), 3.8), layout="constrained", sharey=True)
    for axis, (name, (d, by)) in zip(axes, curves.items(), strict=True):
        factors = FACTORS[: len(by["uniform"])]
        axis.plot(factors, by["leverage"], "o-", color="C3", label="|h| x leverage")
        axis.plot(factors, by["uniform"], "x-", color="C7", label="uniform")
        axis.plot(FACTORS, np.sqrt(np.log(d) / np.array(FACTORS)), "k--", linewidth=1, label="$(d \\log d / rows)^{1/2}$")
        axis.set(xscale="log", yscale="log", xlabel="rows drawn / d", title=name)
        axis.set_xticks(FACTORS, [str(factor) for factor in FACTORS])
        axis.minorticks_off()
    axes[0].set(ylabel="eps", ylim=(0.01, 60))
    axes[0].set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes[-1].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def counts():
    """The work of each choice, to the same minimum."""
    lines = ["| problem | hessian | steps | passes | exact | sampled | reused | products |", "|---|---|---|---|---|---|---|---|"]
    for name, n, d in SOLVES:
        A, b, _ = problems.make(name, n, d)
        least = fastrsx.newton(A, b, hessian="exact").fun
        for hessian in HESSIANS:
            result = fastrsx.newton(A, b, hessian=hessian, max_iter=300)
            note = "" if result.success and result.fun <= least * (1 + 1e-8) else f" ({result.status.name}, {result.fun / least - 1:.0e} above)"
            cells = (result.nit, result.npass, result.nhev, result.nsampled, result.nreused, result.nproducts)
            lines.append(f"| {name} {n} x {d} | {hessian}{note} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    curves = {}
    for title, (A, b, x) in {
        "Gaussian, 50000 x 64": problems.noisy(50_000, 64),
        "coherent, 50000 x 64": coherent(50_000, 64),
        "vocabulary, 30522 x 384": problems.vocabulary(),
    }.items():
        problem = fastrsx.Problem(A, b)
        at = fastrsx.newton(A, b, hessian="exact").x if title.startswith("vocabulary") else x
        curves[title] = A.shape[1], spectral(problem, at)
        print(title, curves[title])
    draw(curves, PAGE.parent / "sampling.svg")
    fill("sampled", counts())


if __name__ == "__main__":
    main()
