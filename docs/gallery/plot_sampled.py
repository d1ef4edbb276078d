r"""
A Hessian from a few rows
=========================

With hundreds of columns most of a Newton step is the Gram matrix :math:`G = A^T
\mathrm{diag}(|h|) A`. A few rows give nearly the same matrix, if they are drawn well. How many
does it take, and which? The measure is eps: all eigenvalues of :math:`G^{-1} \tilde G` lie within
1 ± eps.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import eigh

import fastrsx

rng = np.random.default_rng(0)
n, d = 20_000, 32
A = rng.standard_t(3, (n, d)) / np.sqrt(d)  # heavy tails: some rows are far longer than others
x = rng.standard_normal(d)
b = fastrsx.predict(A, x) * rng.uniform(0.5, 1.5, n)
h = np.abs(2 * fastrsx.Problem(A, b / b.sum()).factors(x).D)
gram = A.T @ (h[:, None] * A)
leverage = (np.linalg.qr(A)[0] ** 2).sum(axis=1)


def probabilities(scores, rows):
    """min(1, k scores), with the k for which they sum to `rows`."""
    k = rows / scores.sum()
    for _ in range(50):
        p = np.minimum(1, k * scores)
        k *= (rows - (p == 1).sum()) / p[p < 1].sum()
    return np.minimum(1, k * scores)


def eps(scores, rows):
    """The error of one draw: probabilities lie end to end, each whole number takes a row."""
    p = probabilities(scores, rows)
    taken = np.diff(np.floor(np.cumsum(p) + rng.random()), prepend=0) > 0
    sampled = A[taken].T @ ((h / p)[taken, None] * A[taken])
    return np.abs(eigh(sampled, gram, eigvals_only=True) - 1).max()


multiples = np.array([3, 5, 10, 20, 40, 80, 160])
ways = {"by weight times leverage": h * leverage, "by weight": h, "uniformly": np.ones(n)}
found = {
    way: [[eps(scores, k * d) for _ in range(15)] for k in multiples]
    for way, scores in ways.items()
}
for way, draws in found.items():
    print(f"{way:<26}", "  ".join(f"{value:.2f}" for value in np.median(draws, axis=1)))

# %%
# Drawn by weight times leverage, 20 rows for each column, 640 of the 20,000, give an eps of about
# 0.2: that is what ``hessian="sampled"`` draws by default. Conjugate gradients on the exact
# Hessian, with such a matrix as preconditioner, need a few products for a step. Rows drawn
# uniformly are of no use here: a few long rows carry the matrix, and draws miss them, or count
# them for too many others.

figure, axes = plt.subplots()
for (way, draws), color in zip(found.items(), ("C3", "C0", "0.5"), strict=True):
    low, middle, high = np.quantile(draws, (0.25, 0.5, 0.75), axis=1)
    axes.fill_between(multiples, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(multiples, middle, "o-", color=color, label=f"drawn {way}")
axes.set(
    xscale="log",
    yscale="log",
    xlabel="rows drawn, over columns",
    ylabel="eps",
    title="Rows drawn well are few: median and quartiles of 15 draws",
)
axes.set_xticks(multiples, map(str, multiples))
axes.set_yticks([0.03, 0.1, 0.5, 1, 10, 100], ["0.03", "0.1", "0.5", "1", "10", "100"])
axes.minorticks_off()
axes.legend()
plt.show()
