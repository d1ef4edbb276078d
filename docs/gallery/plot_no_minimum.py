r"""
A loss without a minimum
========================

Three of twenty products are on sale. All buyers take one of the three, in equal parts. The larger
the coefficient of "on sale", the better the fit, and no coefficient is large enough: the loss falls
for ever, along a ray.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrsx

rng = np.random.default_rng(3)
on_sale = np.repeat([1.0, 0.0], [3, 17])
A = np.column_stack([on_sale, rng.standard_normal(20)])
b = on_sale / 3

result = fastrsx.newton(A, b)
print(result.status.name)
print(result.message)

# %%
# The message names the column. Weights w add :math:`\frac{1}{2} \lVert w * Ax \rVert^2` to the
# loss, which grows along every direction that A sees, so there is a minimum again. How large
# should w be? The smaller it is, the better the fit and the longer x.

weights = [0.003, 0.01, 0.03, 0.1]
solved = {w: fastrsx.newton(A, b, w=w) for w in weights}
for w, restored in solved.items():
    share = fastrsx.predict(A, restored.x)[:3].sum()
    print(
        f"w = {w:<5}  {restored.status.name}  x = {restored.x.round(3)}  fitted share: {share:.1%}"
    )

# %%
# The loss at x = (t, 0), which is the ray, for each w.

along = np.linspace(0, 11, 400)
figure, axes = plt.subplots()
axes.plot(along, [fastrsx.Problem(A, b).value([t, 0]) for t in along], color="C3", linewidth=2)
axes.annotate("w = 0", (11, 3.5e-9), (4, 0), textcoords="offset points", color="C3", va="center")
for k, (w, restored) in enumerate(solved.items()):
    problem, shade = fastrsx.Problem(A, b, w=w), plt.cm.Blues(0.45 + 0.15 * k)
    values = [problem.value([t, 0]) for t in along]
    axes.plot(along, values, color=shade)
    axes.plot(restored.x[0], restored.fun, "o", color=shade)
    axes.annotate(
        f"w = {w:g}", (11, values[-1]), (4, 0), textcoords="offset points", color=shade, va="center"
    )
axes.set(
    yscale="log",
    xlabel='coefficient of "on sale"',
    ylabel="loss",
    xlim=(0, 11),
    title="Without w the loss falls for ever; each w has a minimum",
)
plt.show()
