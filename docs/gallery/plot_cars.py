"""
Market shares of cars, within each year
=======================================

The demo of the package: 2217 models sold in the United States from 1971 to 1990. A car competes
with the cars of its year, so its share is that of the year's market, and ``groups=`` lets the
shares sum to 1 in each of the twenty markets. Five numbers describe a car. Which of them sell it?
"""

import matplotlib.pyplot as plt
import numpy as np

import fastrsx
from fastrsx.data import load_automobiles

cars = load_automobiles()
A, b, year = cars.A, cars.share_of_year, cars.year
result = fastrsx.newton(A, b, groups=year)
fitted = fastrsx.predict(A, result.x, groups=year)
equal = fastrsx.Problem(A, b, groups=year).value(np.zeros(5))

pooled = fastrsx.newton(A, cars.b)  # all models of all years in one market
alone = [fastrsx.newton(A[year == t], b[year == t]) for t in result.groups]

print(result.summary())
print(f"squared distance that the fit removes: {1 - result.fun / equal:.0%}")
print(f"years that have no minimum alone: {sum(not each.success for each in alone)} of 20")
print(f"{'':6} {'within years':>12} {'pooled':>8}")
for name, x, x_pooled in zip(cars.names, result.x, pooled.x, strict=True):
    print(f"{name:<6} {x:>+12.3f} {x_pooled:>+8.3f}")

# %%
# The columns are standardised, so the coefficients compare: a low price and space sell a car. Miles
# per dollar count more within a year than in the pooled market: there, cheap petrol makes all cars
# of a year thrifty, and sells none of them at the cost of another. Two years have no minimum alone;
# with the others they have one.
#
# Five numbers do not know a single model: most of the squared distance remains. But they order the
# market. On the left a tenth of the models of each year, by price; 1 is an equal share. On the
# right the market of each year in thirds. One x for all years fits the eighties. In the seventies
# the dear third sold less than it says, and it does not see that buyers turned to cheap cars when
# oil was dear, in 1980 and 1981. For the dearest cars the fit falls below 0, which f may do;
# ``link="softmax"`` would not.

order = np.lexsort((A[:, 0], year))
place = np.empty(len(b))  # of a model in its year, by price, from 0 to 1
for t in result.groups:
    models = order[year[order] == t]
    place[models] = (np.arange(len(models)) + 0.5) / len(models)
size = np.bincount(year)[year]
tenth, third = (10 * place).astype(int), (3 * place).astype(int)


def by_tenth(shares):
    """Relative to an equal share, the mean of each tenth over all years."""
    return np.bincount(tenth, shares * size) / np.bincount(tenth)


def by_third(shares, k):
    """In percent, what the k-th third of the models has in each year."""
    return [100 * shares[(year == t) & (third == k)].sum() for t in result.groups]


figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.2))
left.axhline(1, color="0.8", linewidth=1, zorder=0)
left.plot(range(1, 11), by_tenth(b), "o", color="C3", label="observed")
left.plot(range(1, 11), by_tenth(fitted), "-", color="C0", label="fitted")
left.set(
    xlabel="tenth of the models of a year, by price",
    ylabel="mean share, over an equal share",
    xticks=(1, 4, 7, 10),
    ylim=(0, 2),
)
left.legend()
left.set_title("Cheap cars sell")

for k, (name, color) in enumerate((("cheap", "C2"), ("middle", "C1"), ("dear", "C4"))):
    right.plot(result.groups, by_third(b, k), "o", color=color, markersize=4)
    right.plot(result.groups, by_third(fitted, k), "-", color=color)
    right.annotate(
        name,
        (1990.4, by_third(fitted, k)[-1]),
        color=color,
        va="center",
        annotation_clip=False,
    )
right.set(ylabel="% of the market", xticks=(1971, 1975, 1980, 1985, 1990), ylim=(0, 60))
right.set_title("Thirds of the models by price, year by year")
plt.show()
