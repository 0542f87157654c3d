r"""Cut points of their own for users: some keep the highest rating for few, others do not.

With shared cuts :math:`c_1 < \dots < c_{L-1}`, user i has gaps

.. math::

   c_{i,k+1} - c_{i,k} = (c_{k+1} - c_k) \, e^{z_{ik}}, \qquad z_{ik} \sim N(0, t_k^2),
   \qquad t_k \sim N^+(0, 0.5^2),

about the middle cut, which stays where it is: the user's bias moves all of them. A user with three ratings
stays near the shared cuts. Koren and Sill (2011), doi 10.1145/2043932.2043956, have thresholds by user
without the hierarchy.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import nn
from torch.distributions import constraints

from .priors.hierarchical import Hyperparameter

#: Scale of the half-Normal prior of t.
SPREAD_PRIOR = 0.5
_START = 0.4


class RowCuts(nn.Module):
    """Shifts of the logarithms of users' gaps, and the q of their spreads.

    Sites: ``user_cuts_spread`` (n_shifts,) and, in the plate of users, ``user_cuts`` (n_shifts,).

    Parameters
    ----------
    n_shifts : int
        Number of gaps: levels less two.
    """

    def __init__(self, n_shifts: int) -> None:
        super().__init__()
        self.n_shifts = n_shifts
        self.spread = Hyperparameter(torch.full((n_shifts,), _START), constraints.positive)

    def priors(self) -> dict[str, TorchDistribution]:
        """Sample the spreads, and return the prior of a user's shifts given them, by site."""
        like = self.spread.loc
        prior: Any = dist.HalfNormal(torch.full_like(like, SPREAD_PRIOR))
        spreads = pyro.sample("user_cuts_spread", prior.to_event(1))
        shifts: Any = dist.Normal(torch.zeros_like(spreads), spreads)
        return {"user_cuts": shifts.to_event(1)}

    def guide(self) -> None:
        """Sample the spreads from their q."""
        pyro.sample("user_cuts_spread", self.spread.q())
