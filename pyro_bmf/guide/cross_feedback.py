r"""The paper's guide: amortized posteriors of users and items that read each other's embeddings.

:math:`q(u_i \mid X_i, V_i)` and :math:`q(v_j \mid X_j, U_j)` are independent Normals whose parameters come
from the two sides' encoders. The embeddings U and V that they read are those sampled at the end of the
previous iteration: constants, kept here as buffers and saved with the weights, since they are part of what
defines q.
"""

from __future__ import annotations

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ..data.blocks import Block
from ..data.feedback import Feedback
from .encoder import Encoder
from .rows import RowPosterior
from .settings import GuideSettings

Side = Literal["user", "item"]


class CrossFeedbackGuide(nn.Module):
    """Both sides' encoders and the embeddings that are fed back to them.

    Parameters
    ----------
    settings : GuideSettings
    n_users, n_items, n_factors : int
    biases : bool
        Whether rows have a bias beside their factors.
    user_scales, item_scales : tuple of (float, float)
        Standard deviation of the prior of a side's factors and of its bias: the posterior's scale is at
        most that, as the sigmoid is at most one.
    mean_counts : tuple of (float, float)
        Mean number of ratings a user and an item; scales the starting weights.
    """

    user_factors: Tensor
    item_factors: Tensor
    user_scales: Tensor
    item_scales: Tensor

    def __init__(
        self,
        settings: GuideSettings,
        n_users: int,
        n_items: int,
        n_factors: int,
        *,
        biases: bool,
        user_scales: tuple[float, float] = (1.0, 1.0),
        item_scales: tuple[float, float] = (1.0, 1.0),
        mean_counts: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.guide_settings = settings
        self.n_users, self.n_items, self.n_factors, self.biases = n_users, n_items, n_factors, biases
        self.user_encoder = Encoder(settings, n_items, n_factors, bias=biases, mean_count=mean_counts[0])
        self.item_encoder = Encoder(settings, n_users, n_factors, bias=biases, mean_count=mean_counts[1])
        self.register_buffer("user_scales", torch.tensor(user_scales))
        self.register_buffer("item_scales", torch.tensor(item_scales))
        # Algorithm 1, line 2: the first feedback is drawn from the prior.
        self.register_buffer("user_factors", torch.randn(n_users, n_factors) * user_scales[0])
        self.register_buffer("item_factors", torch.randn(n_items, n_factors) * item_scales[0])

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "cross-feedback",
            "encoder": self.guide_settings.to_dict(),
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "biases": self.biases,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> CrossFeedbackGuide:
        """Build a guide of a saved shape; its weights, scales and embeddings are to be loaded into it."""
        return cls(
            GuideSettings(**settings["encoder"]),
            settings["n_users"],
            settings["n_items"],
            settings["n_factors"],
            biases=settings["biases"],
        )

    def encode_rows(
        self, side: Side, feedback: Feedback, other_factors: Tensor | None = None
    ) -> RowPosterior:
        """Return q of the rows of one side; the only builder of its parameters.

        Parameters
        ----------
        side : {"user", "item"}
        feedback : Feedback
            The rows' entries over all rows of the other side. New rows are welcome: nothing here depends on
            which row it is, only on what it has rated.
        other_factors : Tensor, shape (n_other, n_factors), optional
            The other side's embeddings; the kept ones when not given.
        """
        user = side == "user"
        if other_factors is None:
            other_factors = self.item_factors if user else self.user_factors
        encoder = self.user_encoder if user else self.item_encoder
        scales = self.user_scales if user else self.item_scales
        loc, relative_scale = encoder(feedback, other_factors)
        k = self.n_factors
        if not self.biases:
            return RowPosterior(loc, scales[0] * relative_scale)
        return RowPosterior(
            loc[:, :k], scales[0] * relative_scale[:, :k], loc[:, k], scales[1] * relative_scale[:, k]
        )

    def encode_side(self, side: Side, feedback: Feedback, *, chunk: int = 8192) -> RowPosterior:
        """Return q of all rows of one side, without gradients, a chunk of rows at a time."""
        with torch.no_grad():
            if feedback.n_rows <= chunk:
                return self.encode_rows(side, feedback)
            rows = torch.arange(feedback.n_rows, device=feedback.indptr.device)
            return RowPosterior.concatenate(
                [self.encode_rows(side, feedback.select(part)) for part in rows.split(chunk)]  # type: ignore[no-untyped-call]
            )

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        """Sample both sides' rows of a block from q, in the order of the model.

        Parameters
        ----------
        block : Block
            The rows' feedback and the weights of their KL.
        beta : tuple of float
            Weights of the users' and the items' KL (Eq. 7).
        """
        for side, plate, feedback, weight in (
            ("user", "users", block.user_feedback, beta[0] * block.user_weight),
            ("item", "items", block.item_feedback, beta[1] * block.item_weight),
        ):
            rows = self.encode_rows(side, feedback)  # type: ignore[arg-type]
            with pyro.plate(plate, len(rows)), poutine.scale(scale=weight):
                pyro.sample(f"{side}_factors", dist.Normal(rows.loc, rows.scale).to_event(1))  # type: ignore[no-untyped-call]
                if rows.bias_loc is not None and rows.bias_scale is not None:
                    pyro.sample(f"{side}_bias", dist.Normal(rows.bias_loc, rows.bias_scale))

    @torch.no_grad()
    def resample_feedback(self, users: RowPosterior, items: RowPosterior) -> None:
        """Draw the embeddings that the next iteration reads (Algorithm 1, line 15), users first."""
        self.user_factors.copy_(users.sample()[0])
        self.item_factors.copy_(items.sample()[0])
