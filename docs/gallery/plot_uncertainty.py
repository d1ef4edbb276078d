"""
How sure is x?
==============

Shares are measured with errors, which are larger where shares are larger. Here the truth is
known, so the errors can be drawn a thousand times, and `fastrsx.newton_batch` solves all thousand
problems. The ellipses are what one of these problems says of itself.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrsx

rng = np.random.default_rng(0)
n, truth = 2000, np.array([0.5, -0.3])
A = rng.standard_normal((n, 2))
f = fastrsx.predict(A, truth)
draws = f * rng.normal(1, 0.4, (1000, n))  # an error of 40 % in each row

spread = fastrsx.newton_batch(np.broadcast_to(A, (1000, n, 2)).copy(), draws)
one = fastrsx.newton(A, draws[0])
print(f"{'':14} {'std of x[0]':>12} {'std of x[1]':>12}")
print(f"{'1000 solves':14}", *(f"{s:12.4f}" for s in spread.x.std(axis=0)))
covariances = {kind: one.covariance(kind) for kind in ("sandwich", "bootstrap", "least-squares")}
for kind, covariance in covariances.items():
    print(f"{kind:14}", *(f"{s:12.4f}" for s in np.sqrt(np.diagonal(covariance))))

# %%
# The sandwich and the bootstrap take the error of each row from its own residual, and their
# ellipses have the size and the tilt of the cloud. The least-squares form assumes one variance
# for all rows. That is not so here, and its errors are less than half of the true ones.

turn = np.linspace(0, 2 * np.pi, 200)
figure, axes = plt.subplots(figsize=(8.2, 4.6))
axes.plot(
    *spread.x.T,
    ".",
    color="0.7",
    markersize=4,
    markeredgewidth=0,
    label="x of 1000 draws of the errors",
)
for (kind, covariance), color, line in zip(
    covariances.items(), ("C3", "C1", "C0"), ("-", "--", ":"), strict=True
):
    ellipse = np.linalg.cholesky(covariance) @ (
        2.448 * np.array([np.cos(turn), np.sin(turn)])
    )  # 95 % of a normal distribution
    axes.plot(*(truth[:, None] + ellipse), line, color=color, linewidth=2, label=f"95 % by {kind}")
axes.plot(*truth, "k+", markersize=12, label="the truth")
axes.set(xlabel="x[0]", ylabel="x[1]", title="What one solve says of its errors, and what they are")
figure.legend(loc="outside right upper")
axes.set_aspect("equal")
plt.show()
