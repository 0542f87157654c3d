r"""One side's encoder as a training step computes it: both networks together, in few operations.

Means and variances have networks of one form. Here they stand beside each other in one batched product a
layer, and local `sum` attention reads moments instead of scores: with
:math:`S_i = \sum_j m_{ij} v_j v_j^T` and :math:`f_i = \sum_j m_{ij} v_j`, the numerator is
:math:`q_i S_i` and the denominator :math:`q_i f_i`, one product over the row's entries for both networks and
for their gradients (see `attention`).

The first layer of the fed-back embeddings is a table :math:`P_j = v_j \Phi_{0j}`, a leaf of the step's graph:
its gradient :math:`g_j` gives :math:`\partial \Phi_{0j} = v_j g_j^T`, of norm :math:`|v_j| |g_j|`, which is
written once, into memory that is kept, after it has been clipped.

The outputs are those of `Encoder`, to rounding.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ...model.feedback import Feedback
from ...model.feedback_sums import Layout, row_tables, sparse_product
from ...numerics.packed_symmetric import pack, unpack
from ...numerics.segment_sums import bag_sum
from .attention import attend, guarded_denominator
from .encoder import LOWEST_LOGIT, Encoder
from .network import first_width

#: Factors up to which moments take less work than scores: they grow with the square of the factors.
MOMENT_FACTORS = 24


class JointlyEncoded(NamedTuple):
    """What an encoder says of rows: means (n, D), and the logarithm of the shares of the prior's scale."""

    loc: Tensor
    log_share: Tensor


class JointEncoder:
    """One side's encoder, for training steps of an iteration.

    Parameters
    ----------
    encoder : Encoder
        With known first-layer weights and independent outputs.
    other_factors : Tensor, shape (n_other, n_factors)
        The embeddings that it reads: a buffer, whose values an iteration leaves as they are.
    """

    def __init__(self, encoder: Encoder, other_factors: Tensor) -> None:
        self.encoder, self.settings = encoder, encoder.settings
        self.networks = (encoder.mean, encoder.variance)
        self.other_factors = other_factors
        self.n_factors = encoder.n_factors
        self.local_sum = (self.settings.attention, self.settings.attention_scope) == ("sum", "local")
        self.by_moments = self.local_sum and self.n_factors <= MOMENT_FACTORS
        self.leaf: Tensor | None = None
        weight = encoder.latent_weight
        #: Where the gradient of Phi_0 is written: its memory is kept from step to step.
        self.gradient = None if weight is None else torch.zeros_like(weight)
        self.largest = other_factors.new_zeros(())
        self.lengths = other_factors.new_zeros(len(other_factors), 1)
        n_moments = self.n_factors * (self.n_factors + 3) // 2
        self.moments = other_factors.new_zeros(len(other_factors), n_moments) if self.by_moments else None
        places = torch.arange(n_moments - self.n_factors, device=other_factors.device)
        self.place = unpack(places.unsqueeze(0), self.n_factors).flatten()
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Take what an iteration's embeddings give once, in place."""
        v = self.other_factors
        self.largest.copy_(v.abs().amax())
        self.lengths.copy_(torch.linalg.vector_norm(v, dim=1, keepdim=True))
        if self.moments is not None:
            self.moments.copy_(torch.cat([pack(v.unsqueeze(2) * v.unsqueeze(1)), v], dim=1))

    # ---------------------------------------------------------------- forward

    def __call__(self, feedback: Feedback, t_values: Tensor) -> JointlyEncoded:
        """Encode the rows of a batch.

        Parameters
        ----------
        feedback : Feedback
        t_values : Tensor, shape (nnz,)
            Its values in the transpose's order.
        """
        settings, mask = self.settings, feedback.mask
        t_mask = None if mask is None else mask.index_select(0, feedback.t_order)
        columns = (feedback.t_indices, feedback.t_indptr)
        sums: list[Tensor] = []
        biases: list[Tensor] = []
        encoder = self.encoder
        if encoder.data_weight is not None:
            weights = feedback.values if mask is None else feedback.values * mask
            t_weights = t_values if t_mask is None else t_values * t_mask
            rows: Layout = (feedback.indices, feedback.indptr, weights, feedback.pieces)
            back: Layout = (*columns, t_weights, feedback.t_pieces)
            sums.append(sparse_product(encoder.data_weight, rows, back))
            biases.append(encoder.data_bias)
        if encoder.latent_weight is not None:
            self.leaf = row_tables(encoder.latent_weight.detach(), self.other_factors).requires_grad_()
            rows = (feedback.indices, feedback.indptr, mask, feedback.pieces)
            sums.append(sparse_product(self.leaf, rows, (*columns, t_mask, feedback.t_pieces)))
            biases.append(encoder.latent_bias)
        counts = feedback.counts
        first = torch.stack(sums)
        if settings.input_power:
            relative = (1.0 + counts) / encoder.log_mean_count.exp()
            first = first * relative.pow(-settings.input_power).unsqueeze(-1)
        first = torch.relu(first + torch.stack(biases).unsqueeze(1))
        units = self._joined(first)
        if settings.count_input:
            log_counts = (torch.log1p(counts) - encoder.log_mean_count).view(1, -1, 1).expand(2, -1, 1)
            units = torch.cat([units, log_counts], -1)
        heads = [_linears(network.head) for network in self.networks]
        for index, layers in enumerate(zip(*heads, strict=True)):
            units = _apply(layers, units if index == 0 else torch.relu(units))
        loc, logit = self._attended(units, feedback, counts).unbind(0)
        return JointlyEncoded(loc, 0.5 * nn.functional.logsigmoid(logit.clamp_min(LOWEST_LOGIT)))

    def _joined(self, first: Tensor) -> Tensor:
        """Return what the heads read, (2, n, joined), of rectified sums (n_towers, n, 2 width)."""
        width, n_towers, n = first_width(self.settings), len(first), first.shape[1]
        # (n_towers, networks, n, width)
        units = first.view(n_towers, n, 2, width).transpose(1, 2)
        if self.settings.n_tower_layers:
            towers = [
                _linears(tower)
                for tower in (
                    *(network.data_tower for network in self.networks),
                    *(network.latent_tower for network in self.networks),
                )
                if tower is not None
            ]
            flat = units.reshape(2 * n_towers, n, width)
            for layers in zip(*towers, strict=True):
                flat = torch.relu(_apply(layers, flat))
            units = flat.view(n_towers, 2, n, -1)
        return units.permute(1, 2, 0, 3).reshape(2, n, -1)

    def _attended(self, output: Tensor, feedback: Feedback, counts: Tensor) -> Tensor:
        """Let the outputs of both networks (2, n, D) attend to the embeddings."""
        settings, k = self.settings, self.n_factors
        if settings.attention == "none":
            return output
        weights = [network.attention_weight for network in self.networks]
        query = output[..., :k] @ torch.stack([weight for weight in weights if weight is not None])
        if self.moments is not None:
            layout = (feedback.indices, feedback.indptr, feedback.mask, feedback.pieces)
            sums = bag_sum(self.moments, *layout)
            second, first = sums.index_select(1, self.place).view(-1, k, k), sums[:, -k:]
            numerator = (query.transpose(0, 1) @ second).transpose(0, 1)
            attended = numerator / guarded_denominator(query, numerator, first, counts, self.largest)
        else:
            how = {"normalization": settings.attention, "scope": settings.attention_scope}
            attended = torch.stack([attend(one, self.other_factors, feedback, **how) for one in query])
        merges = [network.merge for network in self.networks]
        if all(merge is None for merge in merges):
            return output + nn.functional.pad(attended, (0, output.shape[-1] - k))
        joined = torch.cat([output, attended], -1)
        return _apply(tuple(merge for merge in merges if merge is not None), joined)

    # ---------------------------------------------------------------- backward

    @torch.no_grad()
    def gradient_lengths(self) -> Tensor | None:
        """Return a matrix of the norm that the gradient of Phi_0 has; None where there is no Phi_0."""
        if self.leaf is None or self.leaf.grad is None:
            return None
        return self.leaf.grad * self.lengths

    @torch.no_grad()
    def finish_gradient(self) -> None:
        """Write the gradient of Phi_0, after the backward pass, from that of its table."""
        weight, leaf = self.encoder.latent_weight, self.leaf
        if weight is None or leaf is None or leaf.grad is None or self.gradient is None:
            return
        torch.mul(self.other_factors.unsqueeze(2), leaf.grad.unsqueeze(1), out=self.gradient)
        weight.grad = self.gradient
        self.leaf = None


def _linears(layers: nn.Sequential) -> list[nn.Linear]:
    return [cast(nn.Linear, layer) for layer in layers if list(layer.parameters())]


def _apply(layers: tuple[nn.Linear, ...], units: Tensor) -> Tensor:
    """Apply one linear layer of each network to its own units (n_networks, n, width)."""
    weight = torch.stack([layer.weight for layer in layers])
    return torch.baddbmm(torch.stack([layer.bias for layer in layers]).unsqueeze(1), units, weight.mT)
