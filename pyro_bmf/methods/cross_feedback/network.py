"""The layers of Eq. 8 after the first, the head, and where attention (`attention`) joins it."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ...model.feedback import Feedback
from .attention import attend
from .settings import EncoderSettings


class Network(nn.Module):
    """Everything after the first layer, for the means or for the variances of one side.

    Parameters
    ----------
    settings : EncoderSettings
    n_factors : int
        K, the width of a fed-back embedding.
    n_outputs : int
        K, or K + 1 with a bias; more where correlations are wanted too.
    """

    def __init__(self, settings: EncoderSettings, n_factors: int, n_outputs: int) -> None:
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
        n_more = output.shape[-1] - self.n_factors
        return output + nn.functional.pad(attended, (0, n_more))

    def linear_variance(self, units: list[Tensor]) -> Tensor | None:
        """Carry variances of independent first-layer units to the outputs, where the way is linear.

        Parameters
        ----------
        units : list of Tensor, shape (n_rows, width)
            Variances of the towers' units, in the order in which towers are joined.

        Returns
        -------
        Tensor or None, shape (n_rows, n_outputs)
            None with hidden layers, through which there is no closed form. What attention gives is taken as
            known: only the direct way counts.
        """
        if self.settings.n_tower_layers or self.settings.n_head_layers:
            return None
        way = cast(nn.Linear, self.head[-1]).weight
        if self.merge is not None:
            way = self.merge.weight[:, : way.shape[0]] @ way
        variance = torch.cat(units, dim=-1)
        return variance @ way[:, : variance.shape[-1]].square().T


def _tower(settings: EncoderSettings) -> nn.Sequential:
    """Layers 1..L' of a tower; layer 0 is the sparse one, and its ReLU comes first."""
    widths = [first_width(settings)]
    if settings.n_tower_layers:
        widths += [*[settings.n_units] * (settings.n_tower_layers - 1), settings.n_tower_outputs]
    layers: list[nn.Module] = [nn.ReLU()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers)


def first_width(settings: EncoderSettings) -> int:
    """Width of the first layer: M, or K' where it is also the last."""
    return settings.n_units if settings.n_tower_layers else settings.n_tower_outputs


@torch.no_grad()
def soften(network: Network, start: float, n_outputs: int) -> None:
    """Start a network's first outputs around one number, with half the spread of torch's own start.

    Products of large first means give residuals of hundreds; their gradients fill Adam's second moments, and
    learning crawls until those have faded. Means that start too small are drawn to zero by the KL instead.
    """
    last = cast(nn.Linear, network.head[-1])
    last.weight.mul_(0.5)
    last.bias[:n_outputs] = start
    # Correlations start near none.
    last.bias[n_outputs:] = 0.0
