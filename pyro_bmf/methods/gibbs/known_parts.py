"""What sweeps know of a model: its priors, where they are conjugate, and its utilities, where it has some."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.likelihoods.normal_utilities import Utilities
from ...model.priors.conjugate import ConjugatePrior
from ...model.priors.normal import Prior
from ...model.sides import Sides


class SidePriors(NamedTuple):
    """The priors of one side's factors and biases."""

    factors: ConjugatePrior
    bias: ConjugatePrior | None

    def location_precision(self, precision: Tensor) -> Tensor:
        """Return the prior precision of a side's location given that of its rows, both (D, D)."""
        kappas = torch.full_like(precision[0], self.factors.kappa)
        if self.bias is not None:
            kappas[-1].fill_(self.bias.kappa)
        return precision * kappas  # block-diagonal, so that rows and columns have the same kappa


def conjugate_priors(model: FactorizationModel) -> Sides[SidePriors]:
    """Return the priors that sweeps draw the hyperparameters by.

    Raises
    ------
    SettingsError
        If a prior is not conjugate.
    """

    def of(prior: Prior) -> ConjugatePrior:
        if prior.conjugate is None:
            raise SettingsError(
                f"Gibbs sweeps need Normal half-t or Normal-Wishart priors, and there is a "
                f"{type(prior).__name__}: give one of those, or fit without sweeps (another "
                "method, or then=None)."
            )
        return prior.conjugate

    user_bias, item_bias = model.user_bias_prior, model.item_bias_prior
    return Sides(
        SidePriors(of(model.user_prior), None if user_bias is None else of(user_bias)),
        SidePriors(of(model.item_prior), None if item_bias is None else of(item_bias)),
    )


def latent_utilities(model: FactorizationModel) -> Utilities:
    """Return the utilities that sweeps draw.

    Raises
    ------
    SettingsError
        If the likelihood has none.
    """
    found = model.likelihood.utilities()
    if model.row_cuts is not None:
        raise SettingsError(
            "Gibbs sweeps have shared cut points only: leave out cuts=user, or fit without sweeps (another "
            "method, or then=None)."
        )
    if found is None:
        raise SettingsError(
            "Gibbs sweeps need a Normal or an ordered probit likelihood, not "
            f"{type(model.likelihood).__name__}: give one of those, or fit without sweeps "
            "(another method, or then=None)."
        )
    return found
