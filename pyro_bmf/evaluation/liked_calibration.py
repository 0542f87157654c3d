"""Whether what is said to be chosen and liked comes true that often, on a held-out part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_bmf.data import Split
from pyro_bmf.evaluation.event_calibration import (
    EventGroup,
    event_group,
    mass_groups,
    mean_log_score,
    thirds,
)
from pyro_bmf.evaluation.protocols import Part
from pyro_bmf.numerics.chunks import chunks
from pyro_bmf.selection.product import Product
from pyro_bmf.selection.rated_sets import RatedSets

#: Pairs that are looked at: all of whole users, drawn by the seed.
MOST_PAIRS = 2_000_000
#: Length of the lists whose events are counted.
TOP = 20
_THIRDS = ("few", "some", "many")


@dataclass(frozen=True)
class LikedCalibration:
    """Expected and observed events of the candidates of some users.

    Attributes
    ----------
    groups : tuple of EventGroup
        All pairs; ten groups of equal expected mass; the recommended top 20; thirds of users and of items
        by their numbers of training ratings.
    log_score, reference_log_score : float
        Mean log-probability of what happened, nats a pair: of the product, and of popularity times the mean
        probability to like.
    n_users : int
    """

    groups: tuple[EventGroup, ...]
    log_score: float
    reference_log_score: float
    n_users: int

    def to_dict(self) -> dict[str, Any]:
        """Return the content, ready for JSON."""
        return {
            "groups": [group.to_dict() for group in self.groups],
            "log_score": self.log_score,
            "reference_log_score": self.reference_log_score,
            "n_users": self.n_users,
        }


def liked_calibration(
    product: Product, split: Split, *, part: Part = "test", seed: int = 0
) -> LikedCalibration:
    """Compare a product's probabilities with the ratings of a part, over all pairs that are not known.

    `product` has the horizon of the part: it tells of the part given what is known when it is measured.
    """
    train = product.selection.train
    held_out = split.test if part == "test" else split.valid
    n = max(1, MOST_PAIRS // max(train.n_items, 1))
    users = np.random.default_rng([seed, 16]).permutation(train.n_users)[:n]
    users.sort()
    above = held_out.ratings > product.threshold
    shape = train.n_users, train.n_items
    liked = RatedSets.of_pairs(held_out.users[above], held_out.items[above], shape).matrix
    known = product.selection.rated.matrix
    if part == "test":
        known = known + RatedSets.of(split.valid).matrix
    p, like, true, own, items = [], [], [], [], []
    for some in chunks(len(users), max(1, 200_000 // max(train.n_items, 1))):
        here = users[some]
        row, column = np.nonzero(known[here].toarray() == 0)
        chosen, liking = product.chosen_and_liking(here[row], column)
        like.append(liking)
        p.append(chosen * liking)
        true.append(liked[here].toarray()[row, column] > 0)
        own.append(here[row])
        items.append(column)
    expected, event = np.concatenate(p), np.concatenate(true)
    user, item = np.concatenate(own), np.concatenate(items)
    groups = [event_group("all pairs", expected, event, user)]
    mass = mass_groups(expected)
    for number in range(10):
        inside = mass == number
        groups.append(event_group(f"mass {number + 1} of 10", expected[inside], event[inside], user[inside]))
    # The candidates of a user stand together, in the order of the users.
    order = np.lexsort((item, -expected, user))
    first = np.searchsorted(user[order], user[order])
    listed = order[np.arange(len(order)) - first < TOP]
    groups.append(event_group(f"top {TOP}", expected[listed], event[listed], user[listed]))
    of_user = thirds(train.user_counts[users], np.ones(len(users)))
    of_item = thirds(train.item_counts, train.item_counts)
    for what, third in (
        ("users", of_user[np.searchsorted(users, user)]),
        ("items", of_item[item]),
    ):
        for number, word in enumerate(_THIRDS):
            inside = third == number
            name = f"{what} with {word} ratings"
            groups.append(event_group(name, expected[inside], event[inside], user[inside]))
    popular = (train.item_counts + 0.5) / train.n_users * product.horizon.share / product.selection.seen
    reference = np.clip(popular, 0.0, 1.0)[item] * np.concatenate(like).mean()
    return LikedCalibration(
        tuple(groups), mean_log_score(expected, event), mean_log_score(reference, event), len(users)
    )
