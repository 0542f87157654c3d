"""Fit ratings, measure the fit beside trivial references, and recommend with intervals.

Run it with ``python examples/quickstart.py``. The ratings are drawn from the model itself, so that it needs
no download; ``load_ratings("ml100k")`` gets MovieLens 100K instead.
"""

from __future__ import annotations

import pyro_bmf

# Ratings of 500 users on 400 items, split 70/15/15.
ratings = pyro_bmf.load_ratings("synthetic")
split = pyro_bmf.random_split(ratings, seed=0)

# A few sweeps, to be done in seconds: `preset()` alone is the full fit.
settings = pyro_bmf.preset().replace(n_factors=4, sweeps=40, burn_in=20, kept_draws=20)
posterior = pyro_bmf.fit(split, settings, progress=False).posterior

rmse = pyro_bmf.evaluate(posterior, split).rmse
print(f"{posterior}: test RMSE {rmse:.3f}; the ratings' own spread is {split.test.ratings.std():.3f}")

# Raw ids in, raw ids out. sd, lower and upper are of a rating; mean_sd is of the mean rating alone.
print(posterior.predict(1, [10, 20, 30])[["item_id", "mean", "lower", "upper", "mean_sd"]].round(2))
print(posterior.recommend(1, n=5).round(2))
