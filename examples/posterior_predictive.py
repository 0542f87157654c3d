"""Check a fit with ArviZ: whether the model draws ratings like those that were seen."""

from __future__ import annotations

import pyro_bmf
from pyro_bmf.export.arviz import arviz_module, to_arviz

split = pyro_bmf.random_split(pyro_bmf.load_ratings("synthetic"), seed=0)
settings = pyro_bmf.preset().replace(n_factors=4, sweeps=240, burn_in=40, kept_draws=200)
posterior = pyro_bmf.fit(split, settings, progress=False).posterior

# Draws of the 50 users and the 50 items with most ratings, in ArviZ's DataTree. Everything at once would go
# to disk: pyro_bmf.export.files.export_netcdf.
tree = to_arviz(posterior, split, num_samples=200)
print(tree["posterior"].dataset.sizes)

# Posterior-predictive checks: a statistic of the ratings, seen and drawn.
seen = tree["observed_data"]["rating"]
drawn = tree["posterior_predictive"]["rating"]
for name in ("mean", "std", "min", "max"):
    value = float(getattr(seen, name)())
    replicates = getattr(drawn, name)("pair")
    p_value = float((replicates >= value).mean())
    print(
        f"{name:>4}: seen {value:.2f}, drawn {float(replicates.mean()):.2f}, Bayesian p-value {p_value:.2f}"
    )

# ArviZ's own functions work on the tree; this is the interface of ArviZ 1, on Python 3.11 too.
az = arviz_module()
print(az.summary(tree, var_names=["eta"], coords={"pair": range(5)}, kind="stats"))
