"""How every network is trained: batches, early stopping on validation, the best state kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.checkpoint import FitState, load_checkpoint, save_checkpoint
from pyro_bmf.errors import FitError
from pyro_bmf.progress import Reporter

#: Seconds between two checkpoints at least; the last iteration always writes one.
_SECONDS = 10.0


class Task(Protocol):
    """What is trained."""

    network: nn.Module

    @property
    def figure(self) -> str:
        """What `validate` measures, as the records name it."""

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which end of that figure is better."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return a new optimizer of the network's weights."""

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return what a step minimises, as a mean over the ratings of these cases, and how many they are.

        `progress` is in passes over the ratings.
        """

    def validate(self) -> float | None:
        """Measure the network as it is on validation ratings; None where there are none."""


@dataclass(frozen=True, eq=False)
class Course:
    """How a training goes on outside its mathematics.

    Attributes
    ----------
    reporter : Reporter
    checkpoint : Path or None
        A file that holds the state after an iteration; where it exists, training goes on from it.
    identity : dict
        What must agree with the file to go on from it.
    """

    reporter: Reporter
    checkpoint: Path | None
    identity: dict[str, Any]


def train_network(task: Task, cases: Tensor, settings: NetworkSettings, course: Course) -> FitState:
    """Train, put the kept state into the network, and return what happened.

    Everything random in an iteration follows from the seed and the iteration's number, so that training which
    goes on from a checkpoint gives the same bits as one that was never interrupted.

    Parameters
    ----------
    task
    cases : Tensor, shape (n_cases,), int64
        Indices that batches are dealt from: ratings, or rows with ratings.
    settings
    course

    Raises
    ------
    FitError
        If the loss is no longer finite.
    SavedFileError
        If the checkpoint is damaged or of another training.
    """
    network = task.network
    optimizer = task.optimizer()
    state = FitState()
    if course.checkpoint is not None and course.checkpoint.is_file():
        state = load_checkpoint(course.checkpoint, network, optimizer, course.identity)
        course.reporter.note(f"Resumed after iteration {state.iteration}.")
    n_batches = -(-len(cases) // settings.step_size(len(cases)))
    course.reporter.start(settings.max_iterations, n_batches, state.iteration)
    written = time.perf_counter()
    try:
        while state.iteration < settings.max_iterations and not out_of_patience(state, settings.patience):
            _iteration(task, cases, settings, optimizer, state, course.reporter.block)
            last = state.iteration == settings.max_iterations or out_of_patience(state, settings.patience)
            if course.checkpoint is not None and (last or time.perf_counter() - written >= _SECONDS):
                save_checkpoint(course.checkpoint, network, optimizer, state, course.identity)
                written = time.perf_counter()
            course.reporter.iteration(state.history[-1])
    finally:
        course.reporter.close()
    assert state.best is not None
    network.load_state_dict(state.best)
    network.eval()
    return state


def out_of_patience(state: FitState, patience: int | None) -> bool:
    """Tell whether the validation figure has not improved for `patience` iterations."""
    if patience is None or not math.isfinite(state.best_rmse):
        return False
    return state.iteration - state.best_iteration >= patience


def rate_at(settings: NetworkSettings, progress: float) -> float:
    """Return the optimizer's rate after `progress` iterations: RProp reads the first alone."""
    start, end = settings.learning_rate, settings.final_learning_rate
    if end is None:
        return start
    share = min(1.0, progress / settings.max_iterations)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _iteration(
    task: Task,
    cases: Tensor,
    settings: NetworkSettings,
    optimizer: torch.optim.Optimizer,
    state: FitState,
    advance: Callable[[], None],
) -> None:
    """Pass over the ratings once, validate, and keep the state if it is the best."""
    started = time.perf_counter()
    number = state.iteration + 1
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    torch.manual_seed(seed)
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(seed))
    batches = torch.split(cases[order.to(cases.device)], settings.step_size(len(cases)))
    task.network.train()
    total = torch.zeros((), dtype=torch.float64, device=cases.device)
    n_total = 0
    for step, batch in enumerate(batches):
        progress = state.iteration + step / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, progress)
        loss, n = task.batch_loss(batch, progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += n * loss.detach()
        n_total += n
        advance()
    task.network.eval()
    measured = task.validate()
    loss_per_rating = float(total) / n_total
    if not math.isfinite(loss_per_rating) or (measured is not None and not math.isfinite(measured)):
        raise FitError(
            f"The loss became {loss_per_rating:g} a rating in iteration {number}: training diverged. Lower "
            f"learning_rate (now {settings.learning_rate:g})."
        )
    # Of a figure that should be high, the state remembers its negative: the lowest is the best there.
    height = measured if measured is None or task.better == "lower" else -measured
    if height is None or height < state.best_rmse:
        state.best = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
        state.best_iteration = number
        state.best_rmse = float("inf") if height is None else height
    record: dict[str, Any] = {"iteration": number, "loss_per_rating": loss_per_rating}
    record |= {task.figure: measured, "seconds": time.perf_counter() - started}
    state.history.append(record)
    state.iteration = number
