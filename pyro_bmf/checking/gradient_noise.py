r"""The noise of the gradients that a fit descends.

With :math:`g_b` the gradient of the objective's share of a random block (and draw), the noise scale is
:math:`\mathrm{tr}\,\mathrm{cov}(g_b) / |E g_b|^2`: near one, blocks agree on where to go; in the hundreds,
steps are mostly noise, and a smaller learning rate, larger blocks, more particles, or a closed-form
expectation would still help (McCandlish et al. 2018, arXiv 1812.06162).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingsError
from ..methods.cross_feedback.guide import CrossFeedbackGuide
from ..methods.cross_feedback.objective import Objective
from ..methods.cross_feedback.settings import CrossFeedback
from ..methods.settings import Settings
from ..model.blocks import TrainingBlocks
from ..posterior import Posterior
from ..posterior.encoding import side_feedback


@dataclass(frozen=True)
class GradientNoise:
    """Noise of a fit's gradients where it ended.

    Attributes
    ----------
    n_blocks : int
        Blocks drawn, two draws of the rows each.
    noise_scale : float
        Trace of the covariance over the squared length of the mean; infinite where the mean is not told
        from zero.
    share_of_draws : float
        Share of that trace that comes from drawing rows, the block being given: 0 of a closed form.
    """

    n_blocks: int
    noise_scale: float
    share_of_draws: float

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values."""
        return asdict(self)


@contextmanager
def _trainable(parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    """Let parameters have gradients for a while: those of a fit that has ended have none."""
    before = [one.requires_grad for one in parameters]
    for one in parameters:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for one, was in zip(parameters, before, strict=True):
            one.requires_grad_(was)


def gradient_noise(
    posterior: Posterior, settings: Settings, *, n_blocks: int = 12, seed: int = 0
) -> GradientNoise:
    """Measure the gradient noise of a fitted encoder at its own blocks.

    Parameters
    ----------
    posterior : Posterior
        With a cross-feedback guide.
    settings : Settings
        What it was fitted with.
    n_blocks, seed : int

    Raises
    ------
    SettingsError
        If there is no encoder whose gradients these could be.
    """
    model, train = posterior.model, posterior.train
    method = settings.method
    if not posterior.guide.has_gradients or not isinstance(method, CrossFeedback):
        raise SettingsError("only encoders are fitted by gradients: this posterior has none.")
    users, items = side_feedback(train, model, "user"), side_feedback(train, model, "item")
    device = model.centre.device
    blocks = TrainingBlocks.build(
        users,
        items,
        torch.tensor(train.users, device=device),
        torch.tensor(train.items, device=device),
        torch.tensor(train.ratings, dtype=model.centre.dtype, device=device),
        user_batch_size=method.batch_size(method.user_batch_size, train.n_users),
        item_batch_size=method.batch_size(method.item_batch_size, train.n_items),
        kl_counting=method.kl_counting,
        seed=settings.seed,
    )
    guide = cast(CrossFeedbackGuide, posterior.guide)
    objective = Objective(model, guide, elbo=method.elbo, num_particles=method.num_particles)
    parameters = list(objective.parameters())
    rng = np.random.default_rng([seed, 0x6A])
    n_q = len(blocks.item_batches)
    picks = rng.choice(len(blocks), min(n_blocks, len(blocks)), replace=False)
    beta = method.beta(float(method.last_iteration))
    total: list[Tensor] = []
    within = 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _trainable(parameters):
        torch.manual_seed(seed)
        for pick in picks.tolist():
            pair = []
            for _ in range(2):
                loss, _ = objective(blocks.block(pick // n_q, pick % n_q), beta=beta)
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
                # A block without ratings says nothing of the noise: its gradient is zero there.
                known = [
                    torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
                ]
                pair.append(torch.cat([one.flatten() for one in known]).double())
            within += float(((pair[0] - pair[1]) ** 2).sum()) / 2.0 / len(picks)
            total.append((pair[0] + pair[1]) / 2.0)
    stacked = torch.stack(total)
    mean = stacked.mean(0)
    n = len(stacked)
    # Means of two draws have half of the draws' variance: the other half is added back.
    averaged = float(((stacked - mean) ** 2).sum()) / max(n - 1, 1)
    between = max(averaged - within / 2.0, 0.0)
    trace = between + within
    length = float((mean**2).sum()) - (averaged / n if n > 1 else within / 2.0)
    scale = trace / length if length > 0 else float("inf")
    return GradientNoise(n, scale, within / trace if trace > 0 else 0.0)
