"""Whether a fitted system belongs to the split that it is measured on, and has not read its test ratings."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_bmf.data import Ratings, Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.systems.contract import Predictor


def check_provenance(
    system: Predictor,
    split: Split,
    *,
    part: str = "test",
    fitted_on: str | None = None,
    name: str = "the model",
) -> str:
    """Refuse a system that was fitted to another split, or to the part that it is to be measured on.

    A system tells the hash of the split that it was fitted to, and of which parts (`Predictor.fitted_to`);
    one of train and validation may be measured on test alone. One without a hash is taken where its own
    training ratings are the split's train part, or its train and validation parts. Where it tells nothing,
    nothing is checked.

    Parameters
    ----------
    system : Predictor
    split : Split
    part : {"train", "valid", "test"}
        That is to be measured.
    fitted_on : {"train", "train+valid"}, optional
        What the caller says; None for what the system says, else train.
    name
        What messages call it.

    Returns
    -------
    str
        ``"train"`` or ``"train+valid"``.

    Raises
    ------
    SettingsError
        If it was fitted to something else.
    """
    fitted = system.fitted_to
    if fitted is None:
        return fitted_on or "train"
    known = fitted.split_hash
    if known is not None:
        if known != split.hash:
            raise SettingsError(
                f"{name} was fitted to another split (hash {str(known)[:12]}) than the one that it is to be "
                f"measured on ({split.hash[:12]}): it may have read these ratings. Give the ratings and the "
                "split of its own fit."
            )
        own = fitted.trained_on
    elif _same(fitted.train, split.train):
        own = "train"
    elif len(split.valid_rows) and _same(fitted.train, split.train_valid):
        own = "train+valid"
    else:
        raise SettingsError(
            f"{name} does not say which split it was fitted to, and its training ratings are not the "
            "split's: it may have read those that it is to be measured on. Give the split of its own fit."
        )
    if fitted_on not in (None, own):
        raise SettingsError(f"fitted_on is {fitted_on!r}, but {name} was fitted to {own}: leave it out.")
    if part == "valid" and own == "train+valid":
        raise SettingsError(f"{name} was fitted to the validation ratings too: measure it on test.")
    return own


def _same(one: Ratings, other: Ratings) -> bool:
    """Tell whether two sets of ratings are the same: ids, pairs and values, in whatever order."""
    if len(one) != len(other) or (one.n_users, one.n_items) != (other.n_users, other.n_items):
        return False
    for mine, its in (
        (one.user_vocabulary.ids, other.user_vocabulary.ids),
        (one.item_vocabulary.ids, other.item_vocabulary.ids),
    ):
        if not np.array_equal(mine, its):
            return False
    return all(np.array_equal(mine, its) for mine, its in zip(_sorted(one), _sorted(other), strict=True))


def _sorted(ratings: Ratings) -> tuple[Any, ...]:
    order = np.lexsort((ratings.items, ratings.users))
    return ratings.users[order], ratings.items[order], ratings.ratings[order]
