"""How a step of Algorithm 1 descends: a block's loss, its gradient, the optimizer.

`PlainDescent` goes by the model and the guide as Pyro programs, whatever they are. `JointDescent` computes
the same loss, from the same draws, for the common case: rows that are independent Normals under q and p, a
likelihood without unknowns but parameters, the mean-field ELBO. It takes about half of the operations; its
numbers are those of Pyro's to rounding. A fit keeps to one kind from its first iteration to its last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ...model import FactorizationModel
from ...model.blocks import TrainingBlocks, thinned
from ...model.feedback import Feedback
from ...model.prior_density import has_hyperparameters
from ...model.sides import SIDES, Side, Sides
from ...numerics.segment_sums import Segments, segment_gather
from .guide import CrossFeedbackGuide
from .joint_encoder import JointEncoder
from .objective import SMALLEST_BETA, Objective
from .optimizer import set_rate
from .steps import Step

#: What a step gives: the loss, and its parts by name, detached.
Loss: TypeAlias = tuple[Tensor, Mapping[str, Tensor]]
#: How the steps of a fit are computed; checkpoints remember it.
StepKind = Literal["plain", "joint"]


class Descent(Protocol):
    """The steps of a fit."""

    def begin(self) -> None:
        """Begin an iteration: the embeddings that are fed back are new."""

    def __call__(self, step: Step, beta: tuple[float, float], rate: float) -> Loss:
        """Descend the loss of a step's block."""


class PlainDescent:
    """Descent by Pyro's ELBO of the model and the guide.

    Parameters
    ----------
    objective : Objective
    optimizer : Optimizer
        Of the objective's parameters.
    clip_norm : float or None
        Largest norm of a gradient.
    """

    def __init__(
        self, objective: Objective, optimizer: torch.optim.Optimizer, clip_norm: float | None
    ) -> None:
        self.objective, self.optimizer = objective, optimizer
        self.clip_norm = clip_norm
        self.parameters = [p for p in objective.parameters() if p.requires_grad]

    def begin(self) -> None:
        """Do nothing: everything is computed anew in each step."""

    def __call__(self, step: Step, beta: tuple[float, float], rate: float) -> Loss:
        """Descend the loss of a block, by the encoder of one side where the step says so."""
        if step.side is not None:
            self.objective.guide.move_only(step.side)
        loss, parts = self.objective(step.block(), beta=beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        return loss.detach(), parts


@dataclass(frozen=True, eq=False)
class StepInput:
    """What a step reads of its block.

    Attributes
    ----------
    feedback : Sides of Feedback
    t_values : Sides of Tensor
        The feedback's values in the transpose's order.
    segments : Sides of Segments
        Users and items of the ratings.
    ratings : Tensor, shape (n,)
    weights : Sides of float or Tensor
        Weight of a row's KL in the block.
    beta : Sides of float or Tensor
    rows : Sides of Tensor, optional
        One for each row, zero for those that only fill a shape.
    seen : Tensor, optional
        The same of ratings.
    """

    feedback: Sides[Feedback]
    t_values: Sides[Tensor]
    segments: Sides[Segments]
    ratings: Tensor
    weights: Sides[Any]
    beta: Sides[Any]
    rows: Sides[Tensor] | None = None
    seen: Tensor | None = None


class JointDescent:
    """Descent of the common case, in few operations; parameters as of `PlainDescent`.

    Raises
    ------
    ValueError
        If the objective is not one of those that `has_joint_descent` tells.
    """

    def __init__(
        self,
        objective: Objective,
        blocks: TrainingBlocks,
        optimizer: torch.optim.Optimizer,
        clip_norm: float | None,
    ) -> None:
        if not has_joint_descent(objective):
            raise ValueError("This objective has no joint steps: take PlainDescent.")
        self.objective, self.blocks, self.optimizer = objective, blocks, optimizer
        self.clip_norm, self.model, self.guide = clip_norm, objective.model, objective.guide
        guide = self.guide
        self.encoders = Sides(
            JointEncoder(guide.user_encoder, guide.item_factors),
            JointEncoder(guide.item_encoder, guide.user_factors),
        )
        tables = {id(one.latent_weight) for one in (guide.user_encoder, guide.item_encoder)}
        self.small = [p for p in objective.parameters() if p.requires_grad and id(p) not in tables]
        k, biased = guide.n_factors, int(guide.biases)
        self.prior_scales = Sides(
            *(
                torch.cat([one[:1].expand(k), one[1 : 1 + biased]])
                for one in (guide.user_scales, guide.item_scales)
            )
        )
        self.t_values = Sides(
            *(
                [one.values.index_select(0, one.t_order) for one in batches]
                for batches in (blocks.user_feedback, blocks.item_feedback)
            )
        )
        self.begin()

    def begin(self) -> None:
        """Take what the embeddings of the iteration give once."""
        for _, encoder in self.encoders.by_side():
            encoder.begin()

    def input(self, p: int, q: int, beta: tuple[float, float]) -> StepInput:
        """Return what the step of a block reads."""
        block = self.blocks.block(p, q)
        return StepInput(
            feedback=Sides(block.user_feedback, block.item_feedback),
            t_values=Sides(self.t_values.user[p], self.t_values.item[q]),
            segments=block.rating_segments,
            ratings=block.ratings,
            weights=Sides(block.user_weight, block.item_weight),
            beta=Sides(max(beta[0], SMALLEST_BETA), max(beta[1], SMALLEST_BETA)),
        )

    def __call__(self, step: Step, beta: tuple[float, float], rate: float) -> Loss:
        """Descend the loss of a block."""
        set_rate(self.optimizer, rate)
        return self.descend(self.input(step.user_batch, step.item_batch, beta))

    def descend(self, given: StepInput) -> Loss:
        """Do the step of what is given, at the optimizer's own learning rate."""
        loss, parts = self.loss(given)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.finish_gradients()
        self.optimizer.step()
        return loss.detach(), parts

    def finish_gradients(self) -> None:
        """Clip the gradients, and write those of the first layers."""
        if self.clip_norm is not None:
            self._clip(self.clip_norm)
        for _, encoder in self.encoders.by_side():
            encoder.finish_gradient()

    @torch.no_grad()
    def _clip(self, most: float) -> None:
        leaves = [encoder.leaf for _, encoder in self.encoders.by_side() if encoder.leaf is not None]
        found = [p.grad for p in self.small if p.grad is not None]
        of_tables = [encoder.gradient_lengths() for _, encoder in self.encoders.by_side()]
        norms = torch._foreach_norm([*found, *(one for one in of_tables if one is not None)])
        total = torch.linalg.vector_norm(torch.stack(norms))
        share = (most / (total + 1e-6)).clamp(max=1.0)
        gradients = [*found, *(leaf.grad for leaf in leaves if leaf.grad is not None)]
        torch._foreach_mul_(gradients, share)

    # ---------------------------------------------------------------- the loss

    def loss(self, given: StepInput) -> Loss:
        """Return the differentiable loss and its parts, as `Objective` does."""
        share = self.guide.guide_settings.input_dropout
        feedback = given.feedback
        if share:
            feedback = Sides(thinned(feedback.user, share), thinned(feedback.item, share))
        rows: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {"log_likelihood": given.ratings.new_zeros(())}
        loss = given.ratings.new_zeros(())
        for side in SIDES:
            loss = loss + self._side(side, given, feedback.of(side), rows, parts)
        if len(given.ratings):
            log_likelihood = self._log_likelihood(given, rows)
            parts["log_likelihood"] = log_likelihood.detach()
            loss = loss - log_likelihood
        return loss, parts

    def _side(
        self,
        side: Side,
        given: StepInput,
        feedback: Feedback,
        rows: dict[str, Tensor],
        parts: dict[str, Tensor],
    ) -> Tensor:
        """Draw a side's rows, and return their KL as the loss weighs it."""
        encoded = self.encoders.of(side)(feedback, given.t_values.of(side))
        scale = self.prior_scales.of(side) * torch.exp(encoded.log_share)
        loc, k = encoded.loc, self.guide.n_factors
        sites: dict[str, Any] = {
            f"{side}_factors": dist.Normal(loc[:, :k], scale[:, :k]).to_event(1)  # type: ignore[no-untyped-call]
        }
        if self.guide.biases:
            sites[f"{side}_bias"] = dist.Normal(loc[:, k], scale[:, k])
        priors = {site: (prior, width) for site, prior, width in self.model.row_priors()}
        total = loc.new_zeros(())
        for site, q in sites.items():
            rows[site] = q.rsample()
            prior, width = priors[site]
            divergence = kl_divergence(q, prior(site, width))
            counted = divergence.sum() if given.rows is None else divergence @ given.rows.of(side)
            counted = given.weights.of(side) * counted
            parts[f"kl_{site}"] = counted.detach()
            total = total + given.beta.of(side) * counted
        return total

    def _log_likelihood(self, given: StepInput, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the log-probability of a block's ratings at the rows that were drawn."""
        i, j = given.segments.user, given.segments.item
        u, v = segment_gather(rows["user_factors"], i), segment_gather(rows["item_factors"], j)
        b = c = None
        if self.guide.biases:
            b, c = segment_gather(rows["user_bias"], i), segment_gather(rows["item_bias"], j)
        likelihood: Any = self.model.likelihood(self.model.predictor(u, v, b, c))
        each: Tensor = likelihood.log_prob(given.ratings)
        return each.sum() if given.seen is None else each @ given.seen.to(each.dtype)


def has_joint_descent(objective: Objective) -> bool:
    """Return whether `JointDescent` can take the steps of an objective."""
    model, guide = objective.model, objective.guide
    encoder = guide.guide_settings
    # Programs of a user's own are run as they are.
    as_here = (
        model.forward.__func__ is FactorizationModel.forward  # type: ignore[attr-defined]
        and guide.forward.__func__ is CrossFeedbackGuide.forward  # type: ignore[attr-defined]
        and guide.encode_rows.__func__ is CrossFeedbackGuide.encode_rows  # type: ignore[attr-defined]
    )
    plain_model = (
        as_here
        and model.implicit is None
        and model.row_noise is None
        and model.row_cuts is None
        and not model.likelihood.drawn
        and not any(has_hyperparameters(prior, site, width) for site, prior, width in model.row_priors())
    )
    plain_guide = (
        encoder.covariance == "diagonal"
        and not (encoder.residual or encoder.bayesian_input or encoder.held_out_input)
        and encoder.n_bases is None
        and encoder.latent_input == "concatenation"
        and not any(guide.positive)
        and guide.user_style is None
        and guide.item_style is None
    )
    plain = plain_model and plain_guide and objective.composite is None
    return plain and objective.elbo == "mean-field" and objective.num_particles == 1 and _analytic(objective)


def _analytic(objective: Objective) -> bool:
    """Return whether Normals have an analytic KL to each of the priors."""
    zero = objective.model.centre.new_zeros(1, objective.model.n_factors)  # on the device of the priors
    for site, prior, width in objective.model.row_priors():
        normal: Any = dist.Normal(zero, 1.0).to_event(1) if width else dist.Normal(zero[:, 0], 1.0)  # type: ignore[no-untyped-call]
        try:
            kl_divergence(normal, prior(site, width))
        except NotImplementedError:
            return False
    return True


def descent_of(
    kind: StepKind,
    objective: Objective,
    blocks: TrainingBlocks | None,
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
) -> Descent:
    """Return what takes the steps of a kind; joint ones need the blocks of an iteration of nested steps."""
    if kind == "joint" and blocks is not None:
        return JointDescent(objective, blocks, optimizer, clip_norm)
    return PlainDescent(objective, optimizer, clip_norm)
