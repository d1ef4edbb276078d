"""The measurements of "The theorem, measured" in docs/theory.md: fills its tables. Two minutes; but for the times, the same figures every time.

python bench/convergence.py
"""

import itertools
import math
import time

import numpy as np
from report import duration
from scipy import sparse
from scipy.linalg import eigvalsh
from scipy.optimize import brentq, minimize
from theory import alpha, fill

import fastrsx
import problems
from fastrsx import converging

RUNS = 20
ROWS = (5, 20, 80)  # drawn, in multiples of d
PARTS = (1e-3, 1e-6, 1e-9)  # of ||x0 - x*||
PAPERS = 0.4
DRAWS, MOST_ROWS = 20_000, 6  # of the softmax
ALPHAS = (1.0, 0.1, 0.01, 0.001)
SIZES = ((100_000, 16), (100_000, 64), (50_000, 256), (20_000, 512))
DENSITY = 0.05  # of the sparse ones
PAIRS = 300
REPEATS = 30
FARTHEST = 100.0  # start


def coupled():
    """A problem with a large rank-2 term: a few rows carry f."""
    rng = np.random.default_rng(3)
    A, x = rng.standard_normal((20_000, 8)), rng.standard_normal(8)
    x *= 2.5 / np.std(A @ x)
    b = fastrsx.predict(A, x) * rng.uniform(0.8, 1.2, len(A))
    return A, b / b.sum(), x


def measured_problems():
    """Names, and A, b, x0, and the link and weight of each."""
    A, b, x0 = problems.automobiles()
    yield "automobiles", A, b, x0, {}
    yield "automobiles, softmax", A, b, x0, {"link": "softmax"}
    yield "the same, w^2 = 18", A, b, x0, {"link": "softmax", "w": math.sqrt(18)}  # the sandwich, by the proven range
    yield "noisy 20000 x 16", *problems.noisy(20_000, 16), {}
    yield "few rows carry f, 20000 x 8", *coupled(), {}


def log10_papers(A, x):
    """log10 of n^2 exp(40 R^2), R >= 10 a bound of ||A|| and ||x*||."""
    R = max(10.0, np.linalg.norm(A, 2), np.linalg.norm(x))
    return 2 * math.log10(len(A)) + 40 * R**2 / math.log(10)


def directions(d):
    rng = np.random.default_rng(0)
    return [u / np.linalg.norm(u) for u in rng.standard_normal((RUNS, d))]


def reach(problem, found):
    """The largest of the distances 2^k radius from which plain Newton steps converge along all directions."""
    distance = found.radius
    while distance < FARTHEST:
        for u in directions(len(found.x)):
            start = found.x + 2 * distance * u
            if not problem.value(start) < np.inf:
                return distance
            if converging._path(problem, problem.hess, start, found.x, found.floor, 60)[1] != "floor":
                return distance
        distance *= 2
    return math.inf


def good_start(all_found):
    lines = [
        "| problem | l | M seen | M, bound | papers' M | 0.1 l/M seen | by the bound | converges from | \\|\\|x0 - x*\\|\\| | steps |",
        "|---" * 10 + "|",
    ]
    for name, (problem, found) in all_found.items():
        exact = found.contractions["exact"]
        steps = exact.iterations(1e-9 * found.distance)
        cells = (
            f"{found.least_eigenvalue:.1e}",
            f"{found.lipschitz:.1e}",
            f"{found.lipschitz_bound:.1e}",
            f"10^{log10_papers(problem.A, found.x):.0f}",
            f"{found.radius:.1e}",
            f"{found.radius_bound:.1e}",
            f"{reach(problem, found):.1e}".replace("inf", "anywhere"),
            f"{found.distance:.2g}",
            f"{steps if exact.end == 'floor' else exact.end}",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    caption = (
        'M seen is from the run from x0. "Converges from": of the distances 2^k times 0.1 l/M, the largest one from which exact steps reach x* '
        f"along all of {RUNS} random directions. Steps: exact ones from x0, to 1e-9 of ||x0 - x*||. x0 = 0 for the automobiles, else the x of which "
        "b is an f(x) with errors of a fifth."
    )
    return "\n".join([*lines, "", caption])


def contraction(all_found):
    lines = [
        "| problem | Hessian | median | 90 % | largest | at most 0.4 | " + " | ".join(f"to {part:.0e}" for part in PARTS) + " |",
        "|---" * (6 + len(PARTS)) + "|",
    ]
    for name, (problem, near) in all_found.items():
        factors, steps = {}, {}
        for seed, u in enumerate(directions(len(near.x))):
            start = near.x + min(1.0, near.radius) * u
            found = fastrsx.convergence(problem.A, problem.b, start, w=problem._given_w, link=problem.link, rows=ROWS, seed=seed)
            for hessian, run in found.contractions.items():
                factors.setdefault(hessian, []).extend(run.factors)
                steps.setdefault(hessian, []).append([run.iterations(part * found.distance) or math.inf for part in PARTS])
        for hessian, values in factors.items():
            median, most = np.quantile(values, [0.5, 0.9])
            within = np.mean(np.array(values) <= PAPERS)
            counts = (f"{count:.0f}" if count < math.inf else "-" for count in np.quantile(steps[hessian], 0.5, axis=0, method="higher"))
            lines.append(f"| {name} | {hessian} | {median:.2g} | {most:.2g} | {max(values):.2g} | {within:.0%} | " + " | ".join(counts) + " |")
    lines.append("| | log(\\|\\|x0 - x*\\|\\|/eps) | | | | | " + " | ".join(f"{-math.log(part):.1f}" for part in PARTS) + " |")
    caption = (
        f"Factors ||x+ - x*||/||x - x*|| of all measurable steps of {RUNS} runs, each from another direction at the distance 0.1 l/M (at most 1), "
        "with rows drawn anew for each step; and the median number of steps to a part of ||x0 - x*||; a dash: not within 60 steps."
    )
    return "\n".join([*lines, "", caption])


def timed(function):
    function()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def step_time():
    lines = ["| A | nnz(A) + d^3 | exact | ns each | sampled, 20 d rows | ns each |", "|---" * 6 + "|"]
    cases = [(f"{n} x {d}", problems.noisy(n, d)[:2]) for n, d in SIZES]
    for n, d in SIZES[:2]:
        rng = np.random.default_rng(n + d)
        A = sparse.random_array((n, d), density=DENSITY, rng=rng, format="csr")
        cases.append((f"{n} x {d}, sparse", (A, np.full(n, 1 / n))))
    for name, (A, b) in cases:
        problem, d = fastrsx.Problem(A, b, kernel="serial"), A.shape[1]
        points = itertools.cycle(1e-3 * np.random.default_rng(0).standard_normal((4, d)))  # a Problem remembers the last x
        work = (A.nnz if hasattr(A, "nnz") else A.size) + d**3
        cells = []
        for hessian in ("exact", "sampled, 20 d rows"):
            hess = converging._hessians(problem, [20], 0)[hessian]

            def step(hess=hess, problem=problem, points=points):
                x = next(points)
                return converging._newton_step(problem, problem.grad(x), hess(x))

            seconds = timed(step)
            cells += [duration(seconds), f"{1e9 * seconds / work:.2g}"]
        lines.append(f"| {name} | {work:.1e} | " + " | ".join(cells) + " |")
    caption = (
        f"The time of one step, gradient and solve included, its kernels on one thread (the shortest of {REPEATS}), and of each of the nnz(A) + d^3 "
        "that the papers count."
    )
    return "\n".join([*lines, "", caption])


def template_hessian(a, b):
    """B of the template's Hessian A^T (B + W^2) A, whose loss is 1/2 ||c||^2."""
    return fastrsx.Problem(np.eye(len(a)), b, link="softmax", kernel="serial").hess(a) / 2


def simplex(y):
    y = np.exp(y - y.max())
    return y / y.sum()


def softmax_range():
    rng, ends, best = np.random.default_rng(0), [0.0, 0.0], {}
    for _ in range(DRAWS):
        n = int(rng.integers(2, MOST_ROWS + 1))
        a, b = rng.standard_normal(n) * rng.uniform(0.3, 4), rng.dirichlet(np.full(n, 10 ** rng.uniform(-1.5, 0.5)))
        eigenvalues = eigvalsh(template_hessian(a, b))
        for end, value in enumerate((eigenvalues[0], -eigenvalues[-1])):
            ends[end] = min(ends[end], value)
            best[end, n] = min(best.get((end, n), (0.0, None, None)), (value, tuple(a), tuple(b)))
    searched = [0.0, 0.0]
    for (end, n), (_, a, b) in best.items():
        start = np.concatenate([a, np.log(np.maximum(b, 1e-12))])

        def objective(y, n=n, end=end):
            eigenvalues = eigvalsh(template_hessian(y[:n], simplex(y[n:])))
            return eigenvalues[0] if end == 0 else -eigenvalues[-1]

        found = minimize(objective, start, method="Nelder-Mead", options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-7, "fatol": 1e-10})
        searched[end] = min(searched[end], found.fun)
    p = (9 + np.array([-1, 1]) * math.sqrt(33)) / 24
    two = 4 * p * (1 - p) ** 2 * (3 * p - 1)
    lines = [
        "| eigenvalues of B, softmax | least | largest | convex from w^2 = | within 10 % from w^2 = |",
        "|---" * 5 + "|",
        *(
            f"| {name} | {low:.4g} | {high:.4g} | {-low:.3g} | {max(9 * high, -11 * low):.3g} |"
            for name, low, high in (
                (f"{DRAWS} draws, n from 2 to {MOST_ROWS}", ends[0], -ends[1]),
                ("a search from the best of them, for each n", searched[0], -searched[1]),
                ("n = 2, b = (1, 0), exactly", *two),
                ("proven above, any n", -0.75, 1.0),
            )
        ),
        "| the template | | | 20 | 200 exp(R^2), R >= 10 |",
    ]
    return "\n".join(lines)


def pole():
    n = 5
    rng = np.random.default_rng(2)
    p, b = -rng.exponential(size=n), np.full(n, 1 / n)
    lines = [
        "| alpha | convex from w^2 = | times alpha^3 | its limit | within 10 % from w^2 = | times alpha^4 | its limit | psd_weights^2 |",
        "|---" * 8 + "|",
    ]
    far = brentq(lambda t: alpha(np.eye(n), t * p) + 1.0, 0.0, 20.0)  # beyond the pole

    def at(value):
        return brentq(lambda t: alpha(np.eye(n), t * p) - value, 0.0, far, xtol=1e-15) * p

    a = at(0.0)
    e = np.exp(a)
    u, v = e + a, e + 1
    P = np.eye(n) - np.outer(v, v) / (v @ v)
    limits = 2 * (u @ u) * eigvalsh(P @ np.diag(e) @ P)[-1], 9 * 6 * (u @ u) * (v @ v)
    for value in ALPHAS:
        a = at(value)
        low, high = eigvalsh(fastrsx.Problem(np.eye(n), b, kernel="serial").hess(a))[[0, -1]]
        sandwich = max(9 * high, -11 * low)
        weights = fastrsx.psd_weights(np.eye(n), b, a).max() ** 2
        cells = (-low, -low * value**3, limits[0], sandwich, sandwich * value**4, limits[1], weights)
        lines.append(f"| {value:g} | " + " | ".join(f"{cell:.3g}" for cell in cells) + " |")
    caption = f"A = I, n = {n}, b = 1/n; a on a random ray to the pole."
    return "\n".join([*lines, "", caption])


def bounds():
    A, b, _ = problems.automobiles()
    rng = np.random.default_rng(0)
    lines = [
        "| link | weight at x* | on the ball | everywhere | gradient: seen | bound | Hessian: seen | bound |",
        "|---" * 8 + "|",
    ]
    for link in ("rsx", "softmax"):
        x = fastrsx.newton(A, b, link=link).x
        radius = float(np.linalg.norm(x))
        problem = fastrsx.Problem(A, b, link=link)
        beta = float(len(A)) if link == "rsx" else None  # columns have mean 0: alpha >= n by Jensen's inequality
        at, ball = fastrsx.psd_weights(A, b, x, link=link).max(), fastrsx.psd_weights(A, b, radius=radius, beta=beta, link=link).max()
        everywhere = f"{fastrsx.psd_weights(A, b, link=link).max():.2g}" if link == "softmax" else "-"
        seen = np.zeros(2)
        for _ in range(PAIRS):
            y = rng.standard_normal(len(x))
            y *= radius * rng.random() ** 0.2 / np.linalg.norm(y)
            z = y + 1e-3 * radius * rng.standard_normal(len(x))
            z *= min(1.0, radius / np.linalg.norm(z))
            (_, grad_y, hess_y), (_, grad_z, hess_z) = problem.value_grad_hess(y), problem.value_grad_hess(z)
            slopes = np.linalg.norm(grad_y - grad_z), np.linalg.norm(hess_y - hess_z, 2)
            seen = np.maximum(seen, np.array(slopes) / np.linalg.norm(y - z))
        limits = fastrsx.lipschitz_bounds(A, b, radius, beta, link=link)
        cells = (f"{at:.2g}", f"{ball:.2g}", everywhere, *(f"{y:.2g}" for y in (seen[0], limits.gradient, seen[1], limits.hessian)))
        lines.append(f"| {link} | " + " | ".join(cells) + " |")
    caption = (
        f'Automobiles; the ball is ||x|| <= ||x*||; slopes of {PAIRS} pairs of points on it. The link "linear" has no domain here: the columns have '
        "mean 0, and so has A x."
    )
    return "\n".join([*lines, "", caption])


def main():
    all_found = {}
    for name, A, b, x0, options in measured_problems():
        all_found[name] = fastrsx.Problem(A, b, **options), fastrsx.convergence(A, b, x0, **options)
    for name, table in (
        ("good start", lambda: good_start(all_found)),
        ("contraction", lambda: contraction(all_found)),
        ("step time", step_time),
        ("softmax range", softmax_range),
        ("pole", pole),
        ("bounds", bounds),
    ):
        fill(name, table())


if __name__ == "__main__":
    main()
