"""Levels of a discrete rating scale: what a likelihood checks, and probabilities of them from counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError, SettingsError
from ...numerics.chunks import CELLS, chunks
from ...numerics.normal_cells import midway


def check_levels(ratings: np.ndarray, levels: Sequence[float], owner: str) -> None:
    """Raise DataError for the first rating that is none of the levels."""
    known = np.array(levels)
    for part in chunks(len(ratings), CELLS // len(known)):
        near = np.abs(ratings[part, None] - known).min(axis=1)
        if not (near > 1e-6).any():
            continue
        bad = ratings[part][near > 1e-6][0]
        shown = ", ".join(f"{level:g}" for level in known)
        raise DataError(
            f"A rating of {bad:g} is not a level of {owner} ({shown}): declare the scale of the ratings, "
            "or choose the Normal likelihood."
        )


def same_levels(levels: Tensor, given: Sequence[float], owner: str) -> None:
    """Raise SettingsError unless the levels asked for are the likelihood's own."""
    own = torch.tensor(given, dtype=torch.float64, device=levels.device)
    if len(levels) != len(own) or not torch.allclose(levels.double(), own):
        raise SettingsError(
            f"Probabilities of the levels {levels.tolist()} were asked for, but {owner} was made for "
            f"{list(given)}: use the scale that it was fitted on."
        )


def variance_of_levels(shares: Tensor, levels: Tensor, mean: Tensor) -> Tensor:
    """Return the variance of a rating, shape (*batch,), from the probabilities of levels (*batch, n_levels).

    Where nearly all probability is on one level, the difference of second moment and squared mean has no
    digits left: deviations from the mean are then summed.
    """
    second = (shares * levels**2).sum(-1)
    plain = second - mean**2
    few = plain <= 1e-6 * second
    if not bool(few.any()):
        return plain
    exact = (shares[few] * (levels - mean[few].unsqueeze(-1)) ** 2).sum(-1)
    return plain.masked_scatter(few, exact)


def cells_of_counts(log_pmf: Tensor, levels: Tensor) -> Tensor:
    """Return the log-probability of each level's cell, (..., n_levels), of a distribution over counts.

    Cuts are midway between levels, and tails go to the end levels, as for continuous likelihoods.

    Parameters
    ----------
    log_pmf : Tensor, shape (..., n)
        Of 0, 1, …, n - 1, where n - 1 is at least the last cut.
    levels : Tensor, shape (n_levels,)
    """
    cuts = midway(levels)
    last = torch.floor(cuts).long()
    below = log_pmf.double().exp().cumsum(-1)
    at = torch.where(last.unsqueeze(0) < 0, 0.0, below[..., last.clamp_min(0)])
    at = at.reshape(*below.shape[:-1], len(cuts))
    zero, one = torch.zeros_like(at[..., :1]), torch.ones_like(at[..., :1])
    return torch.cat([zero, at, one], dim=-1).diff(dim=-1).clamp_min(1e-300).log()
