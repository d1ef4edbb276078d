"""
Market shares of cars
=====================

The demo of the package: 2217 models sold in the United States from 1971 to 1990, and the share of
the market that each of them had. Five numbers describe a car. Which of them sell it?
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrsx
from fastrsx.data import load_automobiles

cars = load_automobiles()
result = fastrsx.newton(cars.A, cars.b)
fitted = fastrsx.predict(cars.A, result.x)
uniform = fastrsx.Problem(cars.A, cars.b).value(np.zeros(5))

print(result.summary())
print(f"squared distance that the fit removes: {1 - result.fun / uniform:.0%}")
for name, x in zip(cars.names, result.x, strict=True):
    print(f"{name:<6} {x:+.3f}")

# %%
# The columns are standardised, so the coefficients compare: a low price and space sell a car, and
# the other three count little. Five numbers do not know a single model: four fifths of the
# squared distance remain. But they order the market, as the tenths on the left show. For the
# dearest cars the fit falls below 0, which f may do; ``link="softmax"`` would not.

tenths = np.array_split(np.argsort(fitted), 10)
by_price = np.array_split(np.argsort(cars.A[:, 0]), 10)


def means(values, parts):
    """In thousandths, of each part."""
    return [1000 * values[part].mean() for part in parts]


figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.2))
left.plot(1000 * fitted, 1000 * cars.b, ".", color="C0", alpha=0.2, markersize=4, markeredgewidth=0)
left.plot(
    means(fitted, tenths),
    means(cars.b, tenths),
    "o",
    color="C3",
    label="mean of a tenth of the models",
)
left.axline((0, 0), slope=1, color="0.5", linewidth=1)
left.set(
    xlabel="fitted share, in thousandths",
    ylabel="observed share, in thousandths",
    xlim=(-0.4, 1.05),
    ylim=(-0.1, 2.2),
)
left.legend(loc="upper left")
left.set_title("Single models scatter, means follow")

right.plot(range(1, 11), means(cars.b, by_price), "o", color="C3", label="observed")
right.plot(range(1, 11), means(fitted, by_price), "-", color="C0", label="fitted")
right.set(
    xlabel="tenth of the models, by price",
    ylabel="mean share, in thousandths",
    xticks=(1, 4, 7, 10),
)
right.legend()
right.axhline(0, color="0.8", linewidth=1, zorder=0)
right.set_title("Cheap cars sell")
plt.show()
