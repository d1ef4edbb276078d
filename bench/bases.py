"""Steps and losses of newton for columns that span the same space; fills tables of docs/theory.md. A minute; the same figures every time.

python bench/bases.py
"""

import numpy as np
from theory import fill

import fastrsx
from fastrsx.data import load_automobiles

CONDITIONS = tuple(10.0**k for k in range(0, 13, 2))
DRAWS = 50  # matrices T of each condition


def bell(times, centre=0.5):
    t = (times - times.min()) / np.ptp(times)
    shares = np.exp(-(((t - centre) / 0.25) ** 2))
    return shares / shares.sum()


def orthonormal(A):
    """An orthonormal basis of the same space, times sqrt(n)."""
    axes, sizes, _ = np.linalg.svd(A / np.abs(A).max(axis=0), full_matrices=False)
    return axes[:, sizes > 1e-11 * sizes[0]] * np.sqrt(len(A))


def condition(A):
    """The condition of the columns, scaled to unit RMS."""
    return np.linalg.cond(A / np.sqrt((A**2).mean(axis=0)))


def years(first, last, each=1, centre=0.5):
    times = np.repeat(np.arange(first, last + 1.0), each)
    return np.vander(times, 3), bell(times, centre)


def cars():
    """In the units in which cars are sold, with squares, a product and a constant."""
    table = load_automobiles()
    A = table.A * [8.6, 0.09, 0.5, 0.7, 0.22] + [11.8, 0.39, 0.3, 2.1, 1.25]
    return np.column_stack([A, A[:, [0, 1, 3, 4]] ** 2, A[:, :1] * A[:, 4:], np.ones(len(A))]), table.b


def ended(result):
    return f"{result.nit}, {result.fun:.4g}{'' if result.success else ' (' + result.status.name + ')'}"


def real_columns():
    problems = {
        "year^2, year, 1: 1971-1990, a bell": (*years(1971, 1990), None),
        "the same, 1990-2019": (*years(1990, 2019), None),
        "the same, 5 rows a year": (*years(1971, 1990, each=5), None),
        "the same, 1800-1999": (*years(1800, 1999), None),
        "a bell at 0.3 of the range": (*years(1971, 1990, centre=0.3), None),
        "cars in raw units, squares, a product, 1; w = 1e-4": (*cars(), 1e-4),
    }
    lines = ["| A | condition, scaled | A: steps, loss | Q: steps, loss |", "|---|---|---|---|"]
    for name, (A, b, w) in problems.items():
        raw, turned = (fastrsx.newton(columns, b, w=w, kernel="serial") for columns in (A, orthonormal(A)))
        lines.append(f"| {name} | {condition(A):.0e} | {ended(raw)} | {ended(turned)} |")
    return "\n".join(lines)


def times_any_matrix():
    lines = ["| condition of T | steps | success | largest difference of losses where it was one, relative |", "|---|---|---|---|"]
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((500, 6)), 0.5 * rng.standard_normal(6)
    b = fastrsx.predict(A, x) * rng.uniform(0.5, 1.5, 500)
    b /= b.sum()
    best = fastrsx.newton(orthonormal(A), b, kernel="serial")
    for size in CONDITIONS:
        found = []
        for _ in range(DRAWS):
            left, right = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
            found.append(fastrsx.newton(A @ ((left * np.geomspace(1, 1 / size, 6)) @ right), b, kernel="serial"))
        steps = sorted(result.nit for result in found)
        off = max(abs(result.fun / best.fun - 1) for result in found if result.success)
        lines.append(f"| {size:.0e} | {steps[0]} to {steps[-1]} | {sum(result.success for result in found)} of {DRAWS} | {off:.0e} |")
    lines.append(f"\nWith Q in place of A T: {best.nit} steps. From 1e10 on the rounding of A T itself changes the space that is spanned.")
    return "\n".join(lines)


def main():
    fill("bases", real_columns())
    fill("transformed", times_any_matrix())


if __name__ == "__main__":
    main()
