r"""The objective of one block: Pyro's ELBO with weighted KL, and its parts by name.

Summed over the blocks of an iteration this is the negative of Eq. 7,

.. math::

   E_q[\log p(X \mid U, V)] - \beta_u \sum_i KL(q(u_i) \| p(u_i)) - \beta_v \sum_j KL(q(v_j) \| p(v_j)).

The weights sit on the latent sites of the model *and* of the guide: Pyro's mean-field ELBO multiplies the
analytic KL by the guide's scale alone, and the sampled one needs both.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..data.blocks import Block, drop_entries, hide_block
from ..guide import CrossFeedbackGuide
from ..model import FactorizationModel

ElboKind = Literal["mean-field", "trace"]

#: Smallest KL weight: a scale of zero is refused by Pyro, and a warm-up starts here.
SMALLEST_BETA = 1e-6

_SIDES = ("user", "item")
_PARTS = ("factors", "bias")


class Objective(nn.Module):
    """Negative ELBO of a block, divided by nothing: the blocks of an iteration sum to Eq. 7.

    Parameters
    ----------
    model : FactorizationModel
    guide : CrossFeedbackGuide
    elbo : {"mean-field", "trace"}
        Analytic KL, or log q - log p at the samples.
    num_particles : int
        Draws of the latent variables a step.
    """

    def __init__(
        self,
        model: FactorizationModel,
        guide: CrossFeedbackGuide,
        *,
        elbo: ElboKind = "mean-field",
        num_particles: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        kind = _MeanFieldParts if elbo == "mean-field" else _TraceParts
        self._elbo = kind(num_particles=num_particles)

    def forward(self, block: Block, *, beta: tuple[float, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the differentiable loss and its parts.

        Returns
        -------
        loss : Tensor, scalar
            Negative weighted ELBO of the block, in nats.
        parts : dict
            ``log_likelihood`` and one ``kl_…`` a latent site: in nats, KL with the block's weight but
            without beta, so that they sum over blocks to the parts of Eq. 7. Detached.
        """
        if torch.is_grad_enabled():
            block = self._training_input(block)
        beta = (max(beta[0], SMALLEST_BETA), max(beta[1], SMALLEST_BETA))
        self._elbo.parts = {"log_likelihood": block.ratings.new_zeros(())}
        loss = self._elbo.differentiable_loss(self._sample_model, self._sample_guide, block, beta)  # type: ignore[no-untyped-call]
        # The rows' own sites only: hyperparameters are not weighed by beta.
        undo = {f"kl_{side}_{part}": 1.0 / b for side, b in zip(_SIDES, beta, strict=True) for part in _PARTS}
        parts = {name: value * undo.get(name, 1.0) for name, value in self._elbo.parts.items()}
        return loss, parts

    def _training_input(self, block: Block) -> Block:
        """Hide from the encoders what they must not lean on while they are trained."""
        settings = self.guide.guide_settings
        if settings.held_out_input:
            block = hide_block(block, self.guide.n_users, self.guide.n_items)
        if settings.input_dropout:
            block = drop_entries(block, settings.input_dropout)
        return block

    def _sample_model(self, block: Block, beta: tuple[float, float]) -> None:
        self.model(block, beta=beta)

    def _sample_guide(self, block: Block, beta: tuple[float, float]) -> None:
        self.model.guide(block)
        self.guide(block, beta=beta)


class _Parts:
    """Keeps each site's share of the ELBO, averaged over particles; Pyro adds them up without names."""

    parts: dict[str, Tensor]
    num_particles: int

    def _add(self, name: str, value: Tensor) -> None:
        share = value.detach() / self.num_particles
        self.parts[name] = self.parts[name] + share if name in self.parts else share

    def _note(self, model_trace: Trace, guide_trace: Trace, *, analytic: bool) -> None:
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                if name == "rating":
                    self._add("log_likelihood", site["log_prob_sum"])
                continue
            other = guide_trace.nodes[name]
            if analytic:
                q, p = cast(Any, other["fn"]), cast(Any, site["fn"])
                divergence = kl_divergence(q, p).sum() * other["scale"]
            else:
                divergence = other["log_prob_sum"] - site["log_prob_sum"]
            self._add(f"kl_{name}", divergence)


class _MeanFieldParts(_Parts, TraceMeanField_ELBO):
    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        result = super()._differentiable_loss_particle(model_trace, guide_trace)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._note(model_trace, guide_trace, analytic=True)
        return result


class _TraceParts(_Parts, Trace_ELBO):
    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        result = super()._differentiable_loss_particle(model_trace, guide_trace)  # type: ignore[no-untyped-call]
        self._note(model_trace, guide_trace, analytic=False)
        return result
