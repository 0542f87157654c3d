"""Steps of the means of each side's implicit weights up the collapsed bound, by Adam.

On a card all steps of a side in one iteration are recorded and run again (`pyro_bmf.methods.recording`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...model.sides import SIDES, Side, Sides
from ..kernel import Entries
from ..recording import NOT_RECORDED, Recorded, Recording, start_adam
from .guide import ExactHeadGuide
from .objective import Collapsed
from .settings import ExactHead


class WeightSteps:
    """The optimizers of both sides' weights, and their steps.

    Parameters
    ----------
    guide : ExactHeadGuide
        With implicit weights.
    loss : callable
        Returns the loss of a side, which has a gradient in its weights.
    settings : ExactHead
    recording : Recording

    Attributes
    ----------
    optimizers : Sides of torch.optim.Adam
    """

    def __init__(
        self,
        guide: ExactHeadGuide,
        loss: Callable[[Collapsed], Tensor],
        settings: ExactHead,
        recording: Recording,
    ) -> None:
        self.loss, self.settings, self.recording = loss, settings, recording
        self.optimizers = Sides(*(_adam(guide.of(side).weights, settings) for side in SIDES))
        self._recorded: dict[Side, Recorded[Collapsed]] = {}
        self._last: dict[Side, Tensor] = {}

    def set_rates(self, done: int) -> None:
        """Let the steps' length fall along half a cosine."""
        settings = self.settings
        fall = 0.5 * (1.0 + math.cos(math.pi * done / settings.max_iterations))
        rate = settings.learning_rate * (0.005 + 0.995 * fall)
        for _, optimizer in self.optimizers.by_side():
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # where a recording reads it
            else:
                group["lr"] = rate

    def __call__(self, side: Side, given: Collapsed) -> Tensor:
        """Take all steps of an iteration, and return the loss before the last."""
        if side not in self._recorded and self.recording.recorder is not None:
            self._record(side, given)
        recorded = self._recorded.get(side)
        if recorded is not None and recorded.usable:
            recorded.fill(given)
            recorded.replay()
        else:
            self._descend(side, given)
        # Of its own memory: the next iteration's steps write to the same place.
        return self._last[side].clone()

    def _record(self, side: Side, given: Collapsed) -> None:
        start_adam(self.optimizers.of(side))
        found = self.recording.of(
            "Steps of the encoders' weights",
            given,
            lambda own: self._descend(side, own),
            warm_up=lambda own: self._descend(side, own, moving=False),
            fixed=(Entries,),
        )
        if found is None:
            self.recording = NOT_RECORDED
        else:
            self._recorded[side] = found

    def _descend(self, side: Side, given: Collapsed, *, moving: bool = True) -> None:
        """Take all steps of a side's weights; or one that moves nothing, to warm up."""
        optimizer = self.optimizers.of(side)
        for _ in range(self.settings.weight_steps if moving else 1):
            optimizer.zero_grad()
            loss = self.loss(given)
            loss.backward()  # type: ignore[no-untyped-call]
            if moving:
                optimizer.step()
        optimizer.zero_grad()
        self._last[side] = loss.detach()


def _adam(weights: nn.Parameter, settings: ExactHead) -> torch.optim.Optimizer:
    """Return the optimizer of a side's weights: on a card, one whose steps can be recorded."""
    options: dict[str, Any] = {"lr": settings.learning_rate}
    if weights.device.type == "cuda":
        rate = torch.tensor(settings.learning_rate, device=weights.device)
        options = {"lr": rate, "fused": True, "capturable": True}
    return torch.optim.Adam([weights], **options)
