r"""Adam, with smaller steps for first layers that sum over very many numbers.

Adam moves every weight by about the learning rate. All weights of a first layer's unit move together, as one
gradient pulls them, so that the unit of a row with n ratings moves by about n times the rate, and K times
that where the weights multiply K factors. Beyond some size a step overshoots whatever it aims at: the fit
diverges in its first iteration. From there on a first layer's rate falls as its sums grow, which keeps the
steps of its units as large as they are at that size.
"""

from __future__ import annotations

from typing import Any

import torch

from ...model.sides import SIDES, Sides
from .objective import Objective
from .settings import CrossFeedback

#: Mean ratings a row, times the factors that each multiplies, up to which first layers have the full rate.
HEAVY = 4000.0


def adam_of(
    objective: Objective, settings: CrossFeedback, mean_counts: Sides[float], device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer of an objective's parameters.

    First layers that are heavy are groups of their own, after all others: the optimizers of fits that have
    none are as they always were, and so are their checkpoints.

    Parameters
    ----------
    objective : Objective
    settings : CrossFeedback
    mean_counts : Sides of float
        Mean number of ratings of a user and of an item.
    device : torch.device
        Of the parameters; on CUDA the steps can be recorded.
    """
    shares = table_shares(objective, mean_counts)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": [p for p in parameters if id(p) not in shares]}]
    groups += [{"params": [p], "share": shares[id(p)]} for p in parameters if id(p) in shares]
    options: dict[str, Any] = {"lr": settings.learning_rate, "fused": True}
    options["capturable"] = device.type == "cuda"
    if settings.weight_decay:
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, **options)
    return torch.optim.Adam(groups, **options)


def table_shares(objective: Objective, mean_counts: Sides[float]) -> dict[int, float]:
    """Return the share of the learning rate of each first layer that is heavy, by the parameter's id."""
    found: dict[int, float] = {}
    for side in SIDES:
        encoder = objective.guide.encoders.of(side)
        for weight, factors in ((encoder.latent_weight, encoder.n_factors), (encoder.data_weight, 1)):
            size = mean_counts.of(side) * factors
            if weight is not None and size > HEAVY:
                found[id(weight)] = HEAVY / size
    return found


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups, each at its share."""
    for group, own in zip(optimizer.param_groups, rates(optimizer, rate), strict=True):
        group["lr"] = own


def rates(optimizer: torch.optim.Optimizer, rate: float) -> list[float]:
    """Return each group's learning rate."""
    return [rate * group.get("share", 1.0) for group in optimizer.param_groups]
