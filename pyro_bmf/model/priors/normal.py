"""Priors of factors and biases: objects that a model is given.

A prior gives a distribution for the rows of one side. Hyperparameters, where it has any, are sampled inside
`forward`, before the factors and outside the rows' plate, and `guide` samples the same sites from their
variational posterior.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ...errors import SettingsError
from .conjugate import ConjugatePrior


class Prior(nn.Module):
    """What a model asks of a prior.

    A subclass gives `forward`, `scale` and `settings`; `guide` only where it has hyperparameters.
    """

    #: The density in one line, for listings.
    density: str = ""
    #: Whether factors are positive: the guide's q is then log-normal.
    positive: bool = False
    #: Whether the object holds a q of hyperparameters: then one object serves one side only.
    learned: bool = False

    def __init__(self) -> None:
        super().__init__()
        # Most priors have no tensor of their own: this one moves with the model, and is not saved.
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    _place: Tensor

    def __call__(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Run `forward`: the tensors that it makes are where the model is."""
        device = self._place.device
        with nullcontext() if device.type == "cpu" else device:
            return cast(TorchDistribution, super().__call__(side, n_factors))

    def prepare(self, n_factors: int | None) -> None:
        """Make what the hyperparameters' q needs for rows of this width: nothing by default."""

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row: event shape (n_factors,), or () for a bias (`n_factors` is None).

        Parameters
        ----------
        side : str
            Prefix of the names of hyperparameter sites, such as ``user_factors``.
        """
        raise TypeError(f"{type(self).__name__} is a prior without a forward method: give it one.")

    def guide(self, side: str, n_factors: int | None) -> None:
        """Sample the hyperparameter sites of `forward` from their variational posterior: none by default."""

    @property
    def origin(self) -> float:
        """Where q's means and the first embeddings start: the mean of one factor, where that is given."""
        return 0.0

    @property
    def scale(self) -> float:
        """Standard deviation of one factor (of its logarithm, if positive): what bounds q's scale."""
        raise TypeError(f"{type(self).__name__} is a prior without a scale: give it one.")

    @property
    def conjugate(self) -> ConjugatePrior | None:
        """What Gibbs sweeps draw the hyperparameters by: None where they cannot, as here."""
        return None

    def rescaled(self, scale: float) -> Prior | None:
        """Return independent Normals about the same mean with another standard deviation.

        As coordinate ascent learns it; None, as here, where the prior is something else.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this prior, as plain values."""
        raise TypeError(f"{type(self).__name__} is a prior without settings: give it some.")


class NormalPrior(Prior):
    r"""Independent Normals: :math:`p(u) = \prod_k N(u_k; \mathrm{loc}, \mathrm{scale}^2)`.

    Parameters
    ----------
    loc, scale : float
        Mean and standard deviation of every factor.

    Raises
    ------
    SettingsError
        If `scale` is not positive or either is not finite.
    """

    density = "N(u_k; loc, scale^2)"

    def __init__(self, loc: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(loc) and math.isfinite(scale) and scale > 0.0):
            raise SettingsError(
                f"A Normal prior with loc={loc} and scale={scale}: loc must be finite and scale positive."
            )
        self._loc, self._scale = float(loc), float(scale)
        self.register_buffer("location", torch.tensor(self._loc))
        self.register_buffer("spread", torch.tensor(self._scale))

    location: Tensor
    spread: Tensor

    def forward(self, side: str, n_factors: int | None) -> TorchDistribution:
        """Return the prior of one row; it has no hyperparameters, so `side` names nothing."""
        del side
        if n_factors is None:
            return dist.Normal(self.location, self.spread)
        rows = dist.Normal(self.location.expand(n_factors), self.spread.expand(n_factors))
        return cast(TorchDistribution, rows.to_event(1))  # type: ignore[no-untyped-call]

    @property
    def origin(self) -> float:
        """Mean of one factor."""
        return self._loc

    @property
    def scale(self) -> float:
        """Standard deviation of one factor."""
        return self._scale

    def rescaled(self, scale: float) -> NormalPrior:
        """Return the prior with another standard deviation."""
        return NormalPrior(self._loc, scale)

    def settings(self) -> dict[str, Any]:
        """Return the kind, loc and scale."""
        return {"kind": "normal", "loc": self._loc, "scale": self._scale}
