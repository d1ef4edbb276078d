"""
What an attention head looks for
================================

A head of attention has a softmax for each token: row i of D(X)^-1 exp(A1 X A2^T) says how token i
divides its attention. Given that B, which X made it? This is the problem of
`arXiv:2307.02419 <https://arxiv.org/abs/2307.02419>`_: the least squared distance over X. Row by
row, the entries of A1 X A2^T are those of (A1 kron A2) vec(X), so it is one call with a group for
each token. Here X is planted, and B is counted: each token looks 300 times.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import fastrsx

rng = np.random.default_rng(0)
n = 40
position = np.arange(n)
stop = position % 9 == 8  # full stops
waves = [wave(2 * np.pi * position / period) for period in (13, 40) for wave in (np.cos, np.sin)]
tokens = np.column_stack([*waves, stop, np.ones(n)])
names = ("cos 13", "sin 13", "cos 40", "sin 40", "stop", "1")
d = len(names)

# %%
# The planted head looks at the token before (waves that are turned by one position), and at full
# stops. The last column of X adds a number to all of a row of A1 X A2^T, which no softmax shows.

planted = np.zeros((d, d))
for k, (period, strength) in enumerate(((13, 2.0), (40, 1.5))):
    turn = 2 * np.pi / period
    planted[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = strength * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
planted[5, 4], planted[4, 4] = 2.0, -1.5  # all tokens look at full stops, full stops less
planted[:, 5] = (1.0, -1.0, 0.5, 0.0, -0.5, 1.0)


def attention(X):
    """D(X)^-1 exp(A1 X A2^T)."""
    scores = tokens @ X @ tokens.T
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


B = rng.multinomial(300, attention(planted)) / 300

A, head = np.kron(tokens, tokens), np.repeat(position, n)
fastrsx.newton(A, B.ravel(), groups=head, link="softmax")  # loads the kernels
start = time.perf_counter()
result = fastrsx.newton(A, B.ravel(), groups=head, link="softmax")
seconds = time.perf_counter() - start
found = result.x.reshape(d, d)


def loss_and_gradient(x):
    """The same in plain NumPy, without the Kronecker product."""
    f = attention(x.reshape(d, d))
    c = f - B
    g = f * (c - (f * c).sum(axis=1, keepdims=True))
    return (c**2).sum(), 2 * (tokens.T @ g @ tokens).ravel()


start = time.perf_counter()
plain = minimize(loss_and_gradient, np.zeros(d * d), jac=True, method="L-BFGS-B", tol=1e-12)
plain_seconds = time.perf_counter() - start

fitted = fastrsx.predict(A, result.x, groups=head, link="softmax").reshape(n, n)
print(result.message)
print(f"{'':8} {'loss':>22} {'|gradient|':>11} {'steps':>6} {'ms':>7}")
for name, x, steps, t in (
    ("newton", result.x, result.nit, seconds),
    ("L-BFGS", plain.x, plain.nit, plain_seconds),
):
    loss, gradient = loss_and_gradient(x)
    print(f"{name:8} {loss:22.16e} {np.linalg.norm(gradient):11.1e} {steps:6} {1e3 * t:7.1f}")
print(f"largest difference to NumPy's attention: {abs(fitted - attention(found)).max():.1e}")

# %%
# Newton's method ends at rounding; L-BFGS, which never forms the Kronecker product, stops with a
# gradient of 1e-6. (A has n^2 rows and d^2 columns, so the product is for small shapes.) Counts of
# 300 looks give back what the head looks for. The hollow points are the last column of X: numbers
# that are constant within every group, so x is 0 there, and the message says so.

figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(8.4, 3.3), width_ratios=(1, 1, 1.05), layout="constrained"
)
for axes, image, title in ((left, B, "Observed: 300 looks each"), (middle, fitted, "Fitted")):
    axes.imshow(np.sqrt(image), cmap="Greys", vmin=0)
    axes.set(xticks=position[stop], yticks=(), title=title)
    axes.set_xticklabels(["stop"] * stop.sum(), fontsize="small")
    axes.set_xlabel("token that is looked at")
left.set_ylabel("token that looks")

right.axline((0, 0), slope=1, color="0.8", linewidth=1, zorder=0)
right.plot(planted[:, :5], found[:, :5], "o", color="C0", markersize=4)
right.plot(planted[:, 5], found[:, 5], "o", color="C3", markersize=5, markerfacecolor="none")
right.annotate("no softmax shows these", (-1, 0), (-1.5, 0.45), color="C3", fontsize="small")
right.set(xlabel="planted X", ylabel="recovered X", title="What the head looks for", aspect="equal")
plt.show()
