"""Starting a fit from an earlier one when new ratings, users or items have come."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.ratings import Ratings
from ...data.vocabulary import Vocabulary
from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.likelihoods.normal import Likelihood
from ...model.sides import SIDES, Sides
from ..job import EarlierFit
from ..setting import values_of
from .guide import CrossFeedbackGuide


@torch.no_grad()
def carry_over(
    earlier: EarlierFit, model: FactorizationModel, guide: CrossFeedbackGuide, train: Ratings
) -> str:
    """Put an earlier fit's weights and embeddings into a new guide, row by row of the raw ids.

    First-layer weights belong to rows of the other side: rows that the earlier fit knew keep theirs, new
    ones start at zero, so that what they add to a sum has to be learned; with posteriors, new ones have the
    width that they start with in any fit. Residuals belong to rows of their own side: new ones start fresh.
    Everything else is copied.

    Returns
    -------
    str
        What the earlier fit had learned and this one cannot take over, in words; empty if there is nothing.

    Raises
    ------
    SettingsError
        If the two fits differ in architecture or factors.
    """
    old = earlier.guide
    if not isinstance(old, CrossFeedbackGuide):
        raise SettingsError(
            "A warm start needs an earlier fit of this guide, and the given one has the guide "
            f"{old.settings()['kind']!r}: start from a fit of the same method."
        )
    was, now = _architecture(old), _architecture(guide)
    differing = [
        f"{name} is {was[name]} in the earlier fit and {now[name]} here"
        for name in was
        if was[name] != now[name]
    ]
    if differing:
        raise SettingsError(
            f"A warm start needs the same architecture: {', '.join(differing)}. Give the earlier fit's "
            "settings."
        )
    known = Sides(
        _matches(train.user_vocabulary, earlier.user_vocabulary),
        _matches(train.item_vocabulary, earlier.item_vocabulary),
    )
    left = []
    for side in SIDES:
        new_rows, old_rows = known.opposite(side)
        encoder, before = guide.encoders.of(side), old.encoders.of(side)
        values, mine = before.state_dict(), encoder.state_dict()
        for name in encoder.tables():
            for part in (name, f"posteriors.{name}.log_scale"):
                if part in values:
                    table = torch.zeros_like(mine[part]) if part == name else mine[part].clone()
                    table[new_rows] = values[part].to(table)[old_rows]
                    values[part] = table
        encoder.load_state_dict(values)
        residual, old_residual = guide.residuals.of(side), old.residuals.of(side)
        if residual is not None and old_residual is not None:
            own_new, own_old = known.of(side)
            values = old_residual.state_dict()
            for part in ("loc", "log_scale"):
                table = getattr(residual, part).detach().clone()
                table[own_new] = values[part].to(table)[own_old]
                values[part] = table
            residual.load_state_dict(values)
        style, old_style = guide.styles.of(side), old.styles.of(side)
        if style is None or old_style is None:
            pass
        elif style.edges.shape != old_style.edges.shape:
            left.append(f"what it read from the histograms of {side}s' ratings (another scale)")
        else:
            # Edges and means are taken from the new ratings; what the network has learned of them goes on.
            style.hidden.load_state_dict(old_style.hidden.state_dict())
            style.out.load_state_dict(old_style.out.state_dict())
        embeddings = guide.embeddings.opposite(side)
        embeddings[new_rows] = old.embeddings.opposite(side).to(embeddings)[old_rows]
    # The likelihood's learned parameters go on from where they were.
    likelihood, earlier_one = model.likelihood, earlier.model.likelihood
    if _shape(likelihood) == _shape(earlier_one):
        learned = {name: value for name, value in earlier_one.state_dict().items() if name != "levels"}
        likelihood.load_state_dict(learned, strict=False)
    elif earlier_one.state_dict():
        left.append(f"the parameters of its {type(earlier_one).__name__}")
    for own, known_by in (
        (model.row_noise, earlier.model.row_noise),
        (model.row_cuts, earlier.model.row_cuts),
    ):
        if own is not None and known_by is not None:
            own.load_state_dict(known_by.state_dict())
    return " and ".join(left)


def _architecture(guide: CrossFeedbackGuide) -> dict[str, Any]:
    """Return all that two guides must have in common, by name."""
    names = ("n_factors", "biases", "row_noise", "n_cuts")
    return dict(values_of(guide.guide_settings)) | {name: getattr(guide, name) for name in names}


def _shape(likelihood: Likelihood) -> dict[str, Any]:
    """Return a likelihood's settings; of levels only their number, as they are written in another unit."""
    settings = likelihood.settings()
    return settings | ({"levels": len(settings["levels"])} if "levels" in settings else {})


def _matches(new: Vocabulary, old: Vocabulary) -> tuple[Tensor, Tensor]:
    """Return positions of the ids that both vocabularies hold, in the new one and in the old one."""
    if new.ids.dtype != old.ids.dtype:
        raise SettingsError(
            f"A warm start needs ids of one type: the {new.kind} ids were "
            f"{'integers' if old.ids.dtype.kind == 'i' else 'text'} in the earlier fit and are "
            f"{'integers' if new.ids.dtype.kind == 'i' else 'text'} now."
        )
    _, in_new, in_old = np.intersect1d(new.ids, old.ids, assume_unique=True, return_indices=True)
    return torch.from_numpy(in_new), torch.from_numpy(in_old)
