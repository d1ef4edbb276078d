"""
The loss as a landscape
=======================

With two coefficients the loss can be drawn: here an intercept and a slope, for fourteen things.
It is not convex, and it is not defined everywhere. Where alpha, the sum of u = exp(Ax) + Ax, is
not above 0 there is no loss, and towards that region rises a pole.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrsx

rng = np.random.default_rng(11)
A = np.column_stack([np.ones(14), rng.standard_normal(14)])
b = rng.dirichlet(np.full(14, 0.3))
problem = fastrsx.Problem(A, b)

path = [np.zeros(2)]
result = fastrsx.newton(A, b, callback=lambda x: path.append(x.copy()))
path = np.array(path)
bent = np.array([not fastrsx.curvature(A, b, x).hessian.is_psd for x in path])
print(result.summary())
print(f"x = {result.x.round(3)}; {bent.sum()} of {len(path)} points have an indefinite Hessian")

# %%
# The Hessian is indefinite at x = 0 and at the next points, where a plain Newton step may lead to
# a saddle point. Within its trust region the method follows the negative curvature, first towards
# the pole and then beside it, and comes into the valley that holds the minimum.

first, second = np.linspace(-1.5, 4.0, 221), np.linspace(-3.0, 2.5, 221)
loss = np.array([[problem.value([x, y]) for x in first] for y in second])
outside = ~np.isfinite(loss)
levels = result.fun + np.geomspace(2e-4, 1.0, 24)

figure, axes = plt.subplots(figsize=(7.2, 5.2))
filled = axes.contourf(
    first,
    second,
    np.where(outside, np.nan, np.log10(loss - result.fun + 2e-4)),
    40,
    cmap="Blues_r",
    vmax=0.3,
)
filled.set_edgecolor("face")
axes.contour(
    first,
    second,
    np.where(outside, np.nan, loss),
    levels,
    colors="white",
    linewidths=0.5,
    alpha=0.6,
)
axes.contourf(first, second, outside, [0.5, 1.5], colors="0.85", hatches=["///"])
axes.contour(first, second, outside, [0.5], colors="0.3", linewidths=1)
axes.plot(*path.T, "-", color="C1", linewidth=1.5)
axes.plot(
    *path[bent].T, "o", color="white", markeredgecolor="C1", label="the Hessian is indefinite"
)
axes.plot(*path[~bent].T, "o", color="C1", label="it is positive")
axes.text(-1.02, -0.2, "alpha ≤ 0:\nno loss", ha="center", backgroundcolor="0.85")
axes.annotate("x = 0", path[0], (6, -12), textcoords="offset points")
axes.annotate("minimum", path[-1], (8, -4), textcoords="offset points", color="white")
axes.set(xlabel="intercept", ylabel="slope", title="Newton's path from 0 to the minimum")
axes.legend(loc="lower right", frameon=True, framealpha=0.9)
plt.show()
