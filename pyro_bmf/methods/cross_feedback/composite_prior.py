r"""A prior that holds on to the last iteration: RecVAE's composite prior, on both sides.

.. math:: p(u_i) = (1 - \alpha) \, p_0(u_i) + \alpha \, q_\mathrm{old}(u_i),

with :math:`p_0` the model's own prior and :math:`q_\mathrm{old}` the row's posterior after the iteration
before, a constant. A step then pays for moving away from where a row was; no evidence is bounded. Shenbin et
al. (2020), arXiv 1912.11160, have it for users, with a third component. New rows have :math:`p_0` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ...data.ratings import Ratings
from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.blocks import Block
from ...model.rows import RowPosterior
from ...model.sides import Side, TwoSides


class Composite(TorchDistribution):
    """A mixture of a prior and of Normals, of one row each.

    Parameters
    ----------
    prior : TorchDistribution
        Of a row, event shape (K,).
    old : TorchDistribution
        Batch shape (n,), event shape (K,).
    share : float
        Weight of `old`, between 0 and 1.
    """

    has_enumerate_support = False
    arg_constraints = {}  # noqa: RUF012 (torch's own class attribute)
    support = constraints.real_vector

    def __init__(self, prior: TorchDistribution, old: TorchDistribution, share: float) -> None:
        self.prior, self.old, self.share = prior.expand(old.batch_shape), old, share
        super().__init__(old.batch_shape, old.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each row."""
        prior, old = (cast(Any, one).log_prob(value) for one in (self.prior, self.old))
        return torch.logaddexp(math.log1p(-self.share) + prior, math.log(self.share) + old)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rows."""
        with torch.no_grad():
            first, second = (cast(Any, one).sample(sample_shape) for one in (self.prior, self.old))
            taken = torch.rand(first.shape[:-1], device=first.device) < self.share
            return torch.where(taken.unsqueeze(-1), second, first)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TorchDistribution:
        """Return the same for more rows."""
        return Composite(self.prior, self.old.expand(batch_shape), self.share)


class _Rows(nn.Module):
    """Means and standard deviations of one side's factors."""

    loc: Tensor
    scale: Tensor

    def __init__(self, n_rows: int, n_factors: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(n_rows, n_factors))
        self.register_buffer("scale", torch.ones(n_rows, n_factors))


class CompositePriors(TwoSides[_Rows], nn.Module):
    """What both sides' rows were after the iteration before, as a part of their priors.

    Parameters
    ----------
    model : FactorizationModel
    n_users, n_items : int
    share : float
        Weight of the earlier posterior.

    Raises
    ------
    SettingsError
        If factors are positive.
    """

    def __init__(self, model: FactorizationModel, n_users: int, n_items: int, share: float) -> None:
        super().__init__()
        if model.user_prior.positive or model.item_prior.positive:
            raise SettingsError(
                f"composite_prior is {share:g}, and the factors are positive: what it holds on to is Normal. "
                "Set composite_prior to 0, or give a prior on all numbers."
            )
        self.share = share
        self.user, self.item = _Rows(n_users, model.n_factors), _Rows(n_items, model.n_factors)

    @torch.no_grad()
    def remember(self, users: RowPosterior, items: RowPosterior) -> None:
        """Take both sides' rows as they are now."""
        for rows, now in ((self.user, users), (self.item, items)):
            rows.loc.copy_(now.loc)
            rows.scale.copy_(now.scale)

    def mixed(self, side: Side, prior: TorchDistribution, rows: Tensor) -> Composite:
        """Return the prior of some rows of a side, as indices."""
        own = self.of(side)
        old = dist.Normal(own.loc[rows], own.scale[rows]).to_event(1)  # type: ignore[no-untyped-call]
        return Composite(prior, cast(TorchDistribution, old), self.share)

    @contextmanager
    def over(self, block: Block) -> Iterator[None]:
        """Put these priors in the place of the model's own, while it samples a block."""
        with _InPlace(self, block):
            yield


def composite_priors(model: FactorizationModel, train: Ratings, share: float) -> CompositePriors | None:
    """Return the priors of the rows of training ratings; None where the share is 0."""
    return CompositePriors(model, train.n_users, train.n_items, share) if share else None


class _InPlace(Messenger):
    """Mixes the priors of the sites of factors."""

    def __init__(self, priors: CompositePriors, block: Block) -> None:
        super().__init__()
        self._priors = priors
        self._rows: dict[str, tuple[Side, Tensor]] = {
            "user_factors": ("user", block.users), "item_factors": ("item", block.items),
        }  # fmt: skip

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._rows:
            side, rows = self._rows[msg["name"]]
            msg["fn"] = self._priors.mixed(side, msg["fn"], rows)
