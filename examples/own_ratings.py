"""Fit a CSV file of your own, then recommend to somebody who was not in it, without training again."""

from __future__ import annotations

import csv
import random
import tempfile
from pathlib import Path

import pyro_bmf

# Any file with a column each for user, item and rating will do; ids may be text. This one is made up: two
# tastes, and people who share one.
folder = Path(tempfile.mkdtemp())
films = [f"{kind} {number}" for kind in ("thriller", "musical") for number in range(1, 31)]
chance = random.Random(0)
with open(folder / "ratings.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["user", "film", "stars"])
    for number in range(200):
        liked = ("thriller", "musical")[number % 2]
        for film in chance.sample(films, 25):
            table.writerow(
                [f"person {number}", film, chance.choice((4, 5) if film.startswith(liked) else (1, 2))]
            )

ratings = pyro_bmf.load_ratings(folder / "ratings.csv", columns=("user", "film", "stars"), scale="1:5:1")
split = pyro_bmf.random_split(ratings)
settings = pyro_bmf.preset().replace(n_factors=2, sweeps=80, burn_in=40, kept_draws=40)
posterior = pyro_bmf.fit(split, settings, progress=False).posterior

# One file holds everything that predicting needs.
posterior.save(folder / "mine.safetensors")
posterior = pyro_bmf.Posterior.load(folder / "mine.safetensors")

# A newcomer's ratings give a posterior at once; the more there are, the surer it is.
few = posterior.fold_in({"musical 3": 5})
more = posterior.fold_in({"musical 3": 5, "musical 7": 4, "thriller 1": 1, "thriller 9": 2})
for newcomer in (few, more):
    sure = newcomer.predict(["musical 20", "thriller 20"])
    print(newcomer, sure[["item_id", "mean", "mean_sd"]].round(2).to_dict("records"))
print(more.recommend(n=5).round(2))
