r"""Prior means from implicit feedback: which pairs were rated says something before any rating is read.

.. math::

   u_i \sim p\left(\cdot - \frac{1}{\sqrt{n_i}} \sum_{j \in N(i)} y_j\right), \qquad
   y_j \sim N(0, \mathrm{diag}(\lambda)^{-1}), \qquad \lambda_k \sim \mathrm{Gamma}(1, s^2),

and likewise for items from the users who rated them: SVD++ on both sides, as a linear encoder with Bayesian
weights. The weights have a last column for the bias where rows have one. Only the mask of the training
ratings is read, never a rating, so a row's own targets are not in its prior. Koren (2008), doi
10.1145/1401890.1401944; Rendle et al. (2019), arXiv 1905.01395.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.transforms import AffineTransform
from torch import Tensor, nn

from ..errors import SettingsError
from ..numerics.segment_sums import bag_sum
from .blocks import Block
from .feedback import Feedback


class ImplicitFeedback(nn.Module):
    """Prior means of both sides' rows that are linear in the mask of the ratings.

    Sites: ``user_weights`` (n_items, D) and ``item_weights`` (n_users, D), D = K + 1 with a bias, and their
    precisions ``user_weights_precision``, ``item_weights_precision`` (D,).

    Parameters
    ----------
    scale : float
        s: the prior's guess at the standard deviation of a weight.

    Raises
    ------
    SettingsError
        If it is not positive and finite.
    """

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0.0):
            raise SettingsError(f"implicit feedback with scale={scale}: give a positive number.")
        self.scale = float(scale)

    def shift(
        self, priors: dict[str, TorchDistribution], block: Block, n_factors: int
    ) -> dict[str, TorchDistribution]:
        """Sample both sides' weights and move the priors of a block's rows by the means that they give."""
        moved = dict(priors)
        for side, feedback in (("user", block.user_feedback), ("item", block.item_feedback)):
            bias = f"{side}_bias" in priors
            width = n_factors + bias
            ones = torch.ones(width, device=feedback.values.device)
            gamma = dist.Gamma(ones, self.scale**2).to_event(1)  # type: ignore[no-untyped-call]
            precision = pyro.sample(f"{side}_weights_precision", gamma)
            normal = dist.Normal(0.0, precision.rsqrt()).expand([feedback.n_columns, width]).to_event(2)  # type: ignore[no-untyped-call]
            means = feedback_means(feedback, pyro.sample(f"{side}_weights", normal))
            moved[f"{side}_factors"] = dist.TransformedDistribution(
                priors[f"{side}_factors"].expand([feedback.n_rows]),
                [AffineTransform(means[:, :n_factors], 1.0, event_dim=1)],
            )
            if bias:
                moved[f"{side}_bias"] = dist.TransformedDistribution(
                    priors[f"{side}_bias"].expand([feedback.n_rows]), [AffineTransform(means[:, -1], 1.0)]
                )
        return moved

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this, as plain values."""
        return {"scale": self.scale}


def feedback_means(feedback: Feedback, weights: Tensor) -> Tensor:
    """Return each row's sum of weights over its entries by the root of their number: (n_rows, width).

    Zero for a row without entries.
    """
    sums = bag_sum(weights.contiguous(), feedback.indices, feedback.indptr, feedback.mask, feedback.pieces)
    return sums * feedback.counts.clamp_min(1.0).rsqrt().to(sums).unsqueeze(-1)
