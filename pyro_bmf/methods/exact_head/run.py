"""A fit with an exact head: the iterations, their checkpoints, and what they give sweeps to go on from."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoint import (
    CHECKPOINT,
    all_finite,
    checked,
    put_back,
    read_tensors,
    same_kinds,
    write_tensors,
)
from ...errors import FitError
from ...estimate import Needs, check_needs, estimate_head
from ...model import FactorizationModel
from ...model.sides import SIDES, Side
from ...numerics.room import hand_back
from ..build_model import build_model
from ..gibbs.chain import check_gibbs
from ..gibbs.chain_state import ChainState, SideState
from ..job import Checkpoints, Fitted, Handover, Job
from ..recording import Recording, start_adam
from ..streamed import CHUNK
from .guide import ExactHeadGuide
from .settings import ExactHead
from .updates import HeadUpdates

#: Validation RMSE is a matter of seconds: it is looked at so often.
_WATCH = 5


class ExactHeadRun:
    """One fit; the last state is kept.

    Parameters
    ----------
    job : Job
    settings : ExactHead

    Raises
    ------
    SettingsError
        If a prior is not conjugate, or the likelihood has no Normal utilities.
    """

    def __init__(self, job: Job, settings: ExactHead) -> None:
        self.job, self.settings = job, settings
        model = job.own
        if model is None:
            model = build_model(job.settings.model, job.train.scale.levels, gibbs=True, ends=job.ends)
        check_gibbs(model)
        self.model: FactorizationModel = model

    def __call__(self, start: Handover | None, kept: Checkpoints) -> Fitted:
        """Run the iterations that are left."""
        job, settings, model, train = self.job, self.settings, self.model, self.job.train
        host_chunk = self._check_size()
        job.start(model)
        updates = HeadUpdates(
            model.to(job.device),
            train,
            settings,
            seed=job.settings.seed,
            device=job.device,
            implicit=job.implicit,
            host_chunk=host_chunk,
            recording=Recording.on(job.device, job.reporter.note),
        )
        history = list[dict[str, Any]]()
        if kept.resume and kept.file is not None:
            load(kept.file, updates, kept.identity, history)
            job.reporter.note(f"Resumed after iteration {updates.iterations}.")
        last = settings.max_iterations
        job.reporter.start(last, 1, updates.iterations)
        while updates.iterations < last:
            begun = time.perf_counter()
            hand_back(len(train))
            figures = updates.iteration()
            record: dict[str, Any] = {"iteration": updates.iterations, "stage": "exact-head", **figures}
            if not math.isfinite(figures["loss"]):
                raise FitError(
                    f"The fit diverged in iteration {updates.iterations}: its loss is {record['loss']}. Use "
                    f"fewer factors, or lower the learning rate (now {settings.learning_rate:g})."
                )
            record["loss_per_rating"] = record["loss"] / len(train)
            record["valid_rmse"] = self._validate(updates)
            record["seconds"] = time.perf_counter() - begun
            history.append(record)
            job.reporter.iteration(record)
            if kept.file is not None and updates.iterations < last and updates.iterations % kept.every == 0:
                save(kept.file, updates, kept.identity, history)
        updates.remember()
        model.requires_grad_(False)
        updates.guide.requires_grad_(False)
        guide = updates.guide
        rows = guide.known_rows("user"), guide.known_rows("item")
        info = {
            "beta_user": settings.beta_user,
            "beta_item": settings.beta_item,
            "iterations": last,
            "kept_iteration": last,
        }
        return Fitted(
            model,
            guide,
            rows,
            history,
            last,
            "max-iterations",
            info,
            # Of the guide alone: what else the iterations work on is let go of when they end.
            lambda: chain_state(guide),
        )

    def _check_size(self) -> int:
        """Say what the fit needs, and refuse it if the machine has not got it.

        Returns
        -------
        int
            How many pairs are on the device at a time; 0 for all.
        """
        train, model = self.job.train, self.model
        sizes = len(train), train.n_users, train.n_items, model.n_factors + model.biases
        needs, streamed = (
            estimate_head(*sizes, device=str(self.job.device), pairs_on_host=on_host)
            for on_host in (False, True)
        )
        stay = pairs_stay(needs, streamed)
        needs = streamed if stay else needs
        check_needs(needs)
        if stay:
            self.job.reporter.note(
                "The card has no room for all pairs: they stay in the host's memory, from where the card "
                f"gets {CHUNK:,} at a time. An iteration takes longer."
            )
        self.job.reporter.note(
            f"{len(train):,} training ratings of {train.n_users:,} users on {train.n_items:,} items: "
            f"{self.settings.max_iterations} iterations by SVI, then each row by its conditional, about "
            f"{needs.memory / 1e9:.2f} GB of memory ({needs.available / 1e9:.1f} GB free on {needs.device})."
        )

        return CHUNK if stay else 0

    def _validate(self, updates: HeadUpdates) -> float | None:
        done = updates.iterations
        if self.job.validate is None or (done % _WATCH and done != self.settings.max_iterations):
            return None
        updates.remember()
        return self.job.validate(
            self.model, (updates.guide.known_rows("user"), updates.guide.known_rows("item"))
        )


def pairs_stay(needs: Needs, streamed: Needs) -> bool:
    """Return whether the pairs are to stay with the host: on a card that has room without them alone."""
    return needs.on_card and streamed.memory <= needs.available < needs.memory


def chain_state(guide: ExactHeadGuide) -> ChainState:
    """Draw a state from the guide's q, from which sweeps go on; the weights of the encoder at their means."""

    def side_state(side: Side) -> SideState:
        own = guide.of(side)
        drawn = own.loc + (
            torch.linalg.cholesky(own.covariance) @ torch.randn_like(own.loc).unsqueeze(-1)
        ).squeeze(-1)
        noisy = side in guide.row_noise
        multipliers = own.row_shape / own.row_rate if noisy else torch.ones_like(own.row_shape)
        weights = (
            own.weights.detach()
            if guide.implicit
            else torch.zeros(
                len(guide.opposite(side).loc), own.loc.shape[1], dtype=own.loc.dtype, device=own.loc.device
            )
        )
        return SideState(
            rows=drawn,
            location=own.location.clone(),
            precision=own.precision.clone(),
            weights=weights.clone(),
            weights_precision=own.weights_precision.clone(),
            row_precision=multipliers.to(own.loc.dtype),
            row_precision_shape=own.row_precision_shape.clone(),
        )

    return ChainState(
        side_state("user"), side_state("item"), guide.noise_precision.clone(), guide.cuts.clone()
    )


def _tensors(updates: HeadUpdates) -> dict[str, Tensor]:
    """Return everything that the next iteration depends on, by name."""
    found = {f"guide.{name}": value for name, value in updates.guide.state_dict().items()}
    for side in SIDES:
        own = updates.guide.of(side)
        found |= {f"{side}.loc": own.loc, f"{side}.covariance": own.covariance}
        if updates.weight_steps is not None:
            state = updates.weight_steps.optimizers.of(side).state_dict()["state"].get(0, {})
            found |= {f"optimizer.{side}.{name}": value for name, value in state.items()}
    return found


def save(path: Path, updates: HeadUpdates, identity: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Write the state between two iterations."""
    header = {"identity": identity, "iteration": updates.iterations, "history": history}
    write_tensors(path, CHECKPOINT, _tensors(updates), header)


def load(path: Path, updates: HeadUpdates, identity: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Put a saved state back.

    Raises
    ------
    SavedFileError
        If the file is damaged, foreign, or of another fit.
    """
    header, tensors = read_tensors(path, CHECKPOINT, identity)
    with put_back(path):
        checked(header, iteration=int, history=list)
        if not 0 < header["iteration"] <= updates.settings.max_iterations:
            raise ValueError(f"it is of iteration {header['iteration']}")
        if len(header["history"]) != header["iteration"]:
            raise ValueError(f"{header['iteration']} iterations with {len(header['history'])} records")
        all_finite(tensors)
        if updates.weight_steps is not None:
            for _, optimizer in updates.weight_steps.optimizers.by_side():
                start_adam(optimizer)
        places = _tensors(updates)
        same_kinds(tensors, places, "state")
        with torch.no_grad():
            for name, value in tensors.items():
                places[name].copy_(value)
        updates.iterations = header["iteration"]
        history[:] = header["history"]
