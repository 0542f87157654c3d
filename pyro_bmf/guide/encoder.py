r"""One side's encoder (Eq. 8-10): towers over ratings and fed-back embeddings, a head, attention.

Means and variances come from *separate* networks of one form. Their first layers read the same sparse rows,
so those two weight tables are stored side by side and applied in one pass; every later layer is apart.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ..data.feedback import Feedback
from .attention import attend
from .settings import GuideSettings
from .sparse import feedback_sum, row_tables


class Network(nn.Module):
    """Everything after the first layer, for the means or for the variances of one side.

    Parameters
    ----------
    settings : GuideSettings
    n_factors : int
        K, the width of a fed-back embedding.
    n_outputs : int
        K, or K + 1 with a bias.
    """

    def __init__(self, settings: GuideSettings, n_factors: int, n_outputs: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_factors = n_factors
        self.data_tower = _tower(settings) if settings.data_input else None
        self.latent_tower = _tower(settings) if settings.feedback else None
        joined = settings.n_tower_outputs * (settings.data_input + settings.feedback) + settings.count_input
        widths = [joined, *[settings.n_units] * settings.n_head_layers, n_outputs]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Linear(before, after)] + ([nn.ReLU()] if index < len(widths) - 2 else [])
        self.head = nn.Sequential(*layers)
        self.attention_weight: nn.Parameter | None = None
        self.merge: nn.Linear | None = None
        if settings.attention != "none":
            self.attention_weight = nn.Parameter(torch.empty(n_factors, n_factors))
            nn.init.xavier_uniform_(self.attention_weight)
            if settings.attention_merge == "concat":
                self.merge = nn.Linear(n_outputs + n_factors, n_outputs)
                with torch.no_grad():
                    # Start as the network without attention: what attention adds has to be learned.
                    self.merge.weight.zero_()
                    self.merge.weight[:, :n_outputs].fill_diagonal_(1.0)
                    self.merge.bias.zero_()

    def forward(
        self,
        data: Tensor | None,
        latent: Tensor | None,
        log_counts: Tensor | None,
        feedback: Feedback,
        other_factors: Tensor,
    ) -> Tensor:
        """Map first-layer outputs (n_rows, width) to parameters (n_rows, n_outputs), before any link."""
        parts = []
        if self.data_tower is not None and data is not None:
            parts.append(self.data_tower(data))
        if self.latent_tower is not None and latent is not None:
            parts.append(self.latent_tower(latent))
        if log_counts is not None:
            parts.append(log_counts)
        output = cast(Tensor, self.head(torch.cat(parts, dim=-1)))
        if self.attention_weight is None:
            return output
        query = output[:, : self.n_factors] @ self.attention_weight
        attended = attend(
            query,
            other_factors,
            feedback,
            normalization=self.settings.attention,
            scope=self.settings.attention_scope,
        )
        if self.merge is not None:
            return cast(Tensor, self.merge(torch.cat([output, attended], dim=-1)))
        n_biases = output.shape[-1] - self.n_factors
        return output + nn.functional.pad(attended, (0, n_biases))


def _tower(settings: GuideSettings) -> nn.Sequential:
    """Layers 1..L' of a tower; layer 0 is the sparse one, and its ReLU comes first."""
    widths = [first_width(settings)]
    if settings.n_tower_layers:
        widths += [*[settings.n_units] * (settings.n_tower_layers - 1), settings.n_tower_outputs]
    layers: list[nn.Module] = [nn.ReLU()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def first_width(settings: GuideSettings) -> int:
    """Width of the first layer: M, or K' where it is also the last."""
    return settings.n_units if settings.n_tower_layers else settings.n_tower_outputs


@torch.no_grad()
def _soften(network: Network, start: float) -> None:
    """Start a network's outputs around one number, with half the spread of torch's own start.

    Products of large first means give residuals of hundreds; their gradients fill Adam's second moments, and
    learning crawls until those have faded. Means that start too small are drawn to zero by the KL instead.
    """
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(0.5)
    last.bias.fill_(start)


class Encoder(nn.Module):
    """Amortized posterior parameters of the rows of one side.

    Parameters
    ----------
    settings : GuideSettings
    n_other : int
        Number of rows of the other side: the columns that this side's feedback has.
    n_factors : int
        K.
    bias : bool
        Whether each row also has a bias, the (K + 1)-th output.
    mean_count : float
        Mean number of ratings a row, which scales the first layer's starting weights.
    """

    def __init__(
        self, settings: GuideSettings, n_other: int, n_factors: int, *, bias: bool, mean_count: float = 1.0
    ) -> None:
        super().__init__()
        self.settings = settings
        self.n_factors = n_factors
        self.bias = bias
        n_outputs = n_factors + bias
        width = first_width(settings)
        spread = 1.0 / math.sqrt(max(mean_count, 1.0))
        # Columns [:width] belong to the network of the means, the rest to that of the variances.
        self.data_weight: nn.Parameter | None = None
        self.latent_weight: nn.Parameter | None = None
        if settings.data_input:
            self.data_weight = nn.Parameter(torch.randn(n_other, 2 * width) * spread)
            self.data_bias = nn.Parameter(torch.zeros(2 * width))
        if settings.feedback:
            self.latent_weight = nn.Parameter(
                torch.randn(n_other, n_factors, 2 * width) * (spread / math.sqrt(n_factors))
            )
            self.latent_bias = nn.Parameter(torch.zeros(2 * width))
        self.log_mean_count: Tensor
        self.register_buffer("log_mean_count", torch.tensor(math.log1p(mean_count)))
        self.mean = Network(settings, n_factors, n_outputs)
        self.variance = Network(settings, n_factors, n_outputs)
        share = settings.initial_scale**2
        _soften(self.mean, 0.0)
        _soften(self.variance, math.log(share / (1.0 - share)))

    def forward(self, feedback: Feedback, other_factors: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the rows of `feedback`.

        Parameters
        ----------
        feedback : Feedback
            The rows' own entries over the other side's rows.
        other_factors : Tensor, shape (n_other, n_factors)
            The other side's fed-back embeddings: constants.

        Returns
        -------
        loc : Tensor, shape (n_rows, n_factors [+ 1])
            Means, linear.
        relative_scale : Tensor, shape (n_rows, n_factors [+ 1])
            Standard deviations as a share of the prior's: the root of the sigmoid, in (0, 1).
        """
        width = first_width(self.settings)
        log_counts = None
        sums: list[Tensor | None] = [None, None]
        if self.data_weight is not None:
            sums[0] = feedback_sum(feedback, self.data_weight, by_rating=True)
        if self.latent_weight is not None:
            sums[1] = feedback_sum(feedback, row_tables(self.latent_weight, other_factors))
        if self.settings.input_power:
            relative = (1.0 + feedback.counts) / self.log_mean_count.exp()
            shrink = relative.pow(-self.settings.input_power).unsqueeze(-1)
            sums = [None if part is None else part * shrink for part in sums]
        data = None if sums[0] is None else sums[0] + self.data_bias
        latent = None if sums[1] is None else sums[1] + self.latent_bias
        if self.settings.count_input:
            log_counts = (torch.log1p(feedback.counts) - self.log_mean_count).unsqueeze(-1)

        def run(network: Network, columns: slice) -> Tensor:
            return cast(
                Tensor,
                network(
                    None if data is None else data[:, columns],
                    None if latent is None else latent[:, columns],
                    log_counts,
                    feedback,
                    other_factors,
                ),
            )

        loc = run(self.mean, slice(None, width))
        logit = run(self.variance, slice(width, None))
        return loc, torch.exp(0.5 * nn.functional.logsigmoid(logit))
