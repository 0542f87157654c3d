r"""Chains of Gibbs sweeps, from a fitted guide or from the prior, whose kept draws are the posterior.

`sweeps` holds the mathematics; here is the run: where it starts, what it keeps, how it goes on after an
interruption. Everything random in a sweep follows from (seed, sweep), so a resumed chain repeats the bits
of one that was never interrupted. Sweeps are counted through all chains: several are one run that starts
anew, which is why a single chain from the prior has the bits of the first of many. After a guide the first of
several has its factors reopened, and a single one goes on where the guide is.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import (
    CHAIN_CHECKPOINT,
    all_finite,
    checked,
    put_back,
    read_tensors,
    same_kinds,
    write_tensors,
)
from ...data.ratings import Ratings
from ...errors import FitError
from ...estimate import check_needs, estimate_chain
from ...model import FactorizationModel
from ...model.sides import SIDES, Sides
from ...numerics.room import hand_back
from ...progress import Reporter
from ..job import Handover
from ..recording import Recording
from ..training_feedback import training_feedback
from .chain_state import ChainState, SideState, start_precision
from .collapsed_means import Solver
from .kept_draws import Kept, RunningAverage
from .known_parts import conjugate_priors, latent_utilities
from .settings import Gibbs
from .sweeps import Sweeps

#: Sweeps before the precisions of rows and weights are drawn, and before an average is worth recording.
_SETTLE, _RECORD = 8, 4
#: How far apart chains after the first start: logarithms of the rows' scale (upwards) and of the noise (to
#: either side), and standard deviation of the logarithm of the cut points' scale, and of their shift.
_WIDER, _NOISE_APART, _CUTS_APART = 1.6, 0.7, 0.3


class Chain:
    """One chain, or several one after the other, over one set of training ratings.

    Parameters
    ----------
    model : FactorizationModel
        With conjugate priors, started.
    train : Ratings
    valid : tuple of Tensor or None
        Users, items and ratings to record the running validation RMSE of; they choose nothing.
    settings : Gibbs
    seed : int
    device : torch.device
    implicit : Ratings or None
        Whose pairs are the implicit feedback; those of `train` where there are none.
    """

    def __init__(
        self,
        model: FactorizationModel,
        train: Ratings,
        valid: tuple[Tensor, Tensor, Tensor] | None,
        settings: Gibbs,
        *,
        seed: int,
        device: torch.device,
        reporter: Reporter,
        implicit: Ratings | None = None,
    ) -> None:
        self.model, self.train, self.settings, self.seed = model.to(device), train, settings, seed
        self.device, self.reporter = device, reporter
        self._check_size()
        feedback = training_feedback(train, device, torch.float32)
        self.sweeps = Sweeps(
            model,
            feedback,
            feedback.values,
            solver=Solver(settings.solver_tolerance),
            scale_moves=settings.scale_moves,
            mask=None if implicit is None else training_feedback(implicit, device, torch.float32),
            recording=Recording.on(device, reporter.note),
        )
        self.average = None if valid is None else RunningAverage(valid)
        self.n_draws = settings.all_draws
        self.every = (settings.sweeps - settings.burn_in) // settings.kept_draws
        self.first = settings.sweeps - self.every * settings.kept_draws
        self.plain_sweeps = settings.plain_sweeps

    def _check_size(self) -> None:
        n, m, d = self.train.n_users, self.train.n_items, self.model.n_factors + self.model.biases
        needs = estimate_chain(
            len(self.train),
            n,
            m,
            d,
            self.settings.all_draws,
            implicit=self.model.implicit is not None,
            device=str(self.device),
        )
        check_needs(needs)
        chains = self.settings.chains
        times = f"{chains} times " if chains > 1 else ""
        self.reporter.note(
            f"{len(self.train):,} training ratings of {n:,} users on {m:,} items: {times}"
            f"{self.settings.sweeps} Gibbs "
            f"sweeps of {d} numbers a row, {self.settings.all_draws} draws kept, about "
            f"{needs.memory / 1e9:.2f} GB of memory ({needs.available / 1e9:.1f} GB free on {needs.device})."
        )

    def run(
        self,
        start: Handover | None,
        noise: float,
        anew: float,
        *,
        checkpoint: Path | None,
        every: int,
        resume: bool,
        identity: dict[str, Any],
        history: list[dict[str, Any]],
    ) -> Kept:
        """Do all sweeps, and return what was kept.

        The first chain starts from what a stage left, or the prior, with the standard deviation `noise`; all
        others start from about `anew`.
        """
        if resume and checkpoint is not None:
            # Nothing is made room for: the checkpoint's own tensors take the places.
            kept = self._room(torch.device("meta"))
            state, done = self._load(checkpoint, kept, identity, history)
            self.reporter.note(f"Resumed after sweep {done}.")
        else:
            # In this order: what the start was drawn from is let go of before room is made.
            state, done = self._start(start, noise), 0
            kept = self._room(self.device)
        offset, last = len(history) - done, self.settings.all_sweeps
        self.reporter.start(offset + last, 1, offset + done)
        for sweep in range(done + 1, last + 1):
            begun = time.perf_counter()
            hand_back(len(self.train))
            # Everything random in a sweep follows from its number.
            self._seed(sweep)
            if sweep > 1 and self._within(sweep) == 1:
                state = self._start_anew(anew)
            rmse, noise = self._one(sweep, state, kept)
            record = {
                "iteration": offset + sweep,
                "stage": "gibbs",
                "sweep": sweep,
                "valid_rmse": rmse,
                "noise": noise,
                "kept_draws": kept.count,
                "seconds": time.perf_counter() - begun,
            }
            history.append(record)
            self.reporter.iteration(record)
            if checkpoint is not None and sweep < last and sweep % every == 0:
                self._save(checkpoint, state, kept, identity, history, sweep)
        self._finish(kept)
        return kept

    def _seed(self, sweep: int) -> None:
        seed = seed_of(self.seed, sweep)
        if self.device.type == "cpu":
            # `torch.manual_seed` visits generators of every kind of device, in the time of a small draw.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _room(self, device: torch.device) -> Kept:
        return Kept.empty(self.model, self.train, self.n_draws, device, chains=self.settings.chains)

    def _within(self, sweep: int) -> int:
        """Return which sweep of its chain a sweep is, from one on."""
        return (sweep - 1) % self.settings.sweeps + 1

    def _start_anew(self, noise: float) -> ChainState:
        """Return where a chain after the first starts: rows and noise are far apart from chain to chain."""
        self.sweeps.drawing_cuts, self.plain_sweeps = False, self.settings.plain_sweeps
        far: list[float] = torch.rand(2).tolist()
        width, factor = math.exp(_WIDER * far[0]), math.exp(_NOISE_APART * (2.0 * far[1] - 1.0))
        return self.sweeps.start(*self._random_rows(width * self.settings.start_scale), factor * noise, noise)

    def _random_rows(self, scale: float) -> tuple[Tensor, Tensor]:
        width = self.model.n_factors + self.model.biases
        n, m = self.train.n_users, self.train.n_items
        users = torch.randn(n, width, device=self.device) * scale
        return users, torch.randn(m, width, device=self.device) * scale

    def _spread_cuts(self, state: ChainState) -> None:
        """Bring cut points away from where they are most likely, all together: they are what creeps."""
        stretch, shift = _CUTS_APART * torch.randn(2, dtype=torch.float64).to(state.cuts.device)
        centre = self.sweeps.centre
        state.cuts = centre + shift + stretch.exp() * (state.cuts - centre)

    def _start(self, start: Handover | None, noise: float) -> ChainState:
        self._seed(0)
        left = None if start is None else start.take()
        if left is not None and left.state is not None:
            # Cut points have been found; the utilities' spread there may be another than in this model.
            self.sweeps.drawing_cuts = self.sweeps.utilities.latent
            self.plain_sweeps = 0
            state: ChainState = left.state()
            if self.sweeps.drawing_cuts:
                self.sweeps.at_own_spread(state)
            if self.settings.chains > 1:
                self._reopen(state)
            return state
        if left is None or left.rows is None:
            return self.sweeps.start(*self._random_rows(self.settings.start_scale), noise)
        drawn = (rows.sample() for rows in left.rows)
        users, items = (u if b is None else torch.cat([u, b.unsqueeze(-1)], 1) for u, b in drawn)
        return self.sweeps.start(users, items, noise)

    def _reopen(self, state: ChainState) -> None:
        """Give factors the room to come back where a guide has pruned some that there are, as it does."""
        noise, k = float(state.noise_precision.rsqrt()), self.model.n_factors
        entries = self.sweeps.entries.user
        for side, own in ((one, state.of(one)) for one in SIDES):
            guess = self.sweeps.priors.of(side).factors.guess(k)
            own.precision = own.precision.clone()
            own.precision[:k, :k] = start_precision(noise, entries, k, guess).to(own.precision)

    def _one(self, sweep: int, state: ChainState, kept: Kept) -> tuple[float | None, float]:
        """Do a sweep and keep what is to be kept, and return validation RMSE and noise: read at once."""
        within = self._within(sweep)
        latent = within > self.plain_sweeps
        if latent and self.sweeps.utilities.latent and not self.sweeps.drawing_cuts:
            self.sweeps.begin_cuts(state)
            if sweep > within:
                self._spread_cuts(state)
        # Before, spreads have a way to go: they are drawn from how far out rows are, which these would keep.
        settled = within > max(self.plain_sweeps, 2 * _SETTLE, self.first)
        swept = self.sweeps.sweep(
            state,
            latent=latent,
            precisions=within > _SETTLE,
            overrelaxation=self.settings.overrelaxation if settled else 0.0,
        )
        found = self._keep(sweep, state, kept, *swept)
        rmse = state.noise_precision if found is None else found.to(state.noise_precision)
        finite = torch.isfinite(state.user.rows).all() & torch.isfinite(state.item.rows).all()
        read: list[float] = torch.stack([finite.double(), state.noise_precision.rsqrt(), rmse]).tolist()
        if not read[0]:
            raise FitError(
                f"The chain diverged in sweep {sweep}: rows are not finite. Use fewer factors, or a "
                "prior_scale nearer to that of the presets (0.1 in standard units of the ratings)."
            )
        return None if found is None else read[2], read[1]

    def _keep(
        self, sweep: int, state: ChainState, kept: Kept, utilities: Tensor, item_means: Tensor
    ) -> Tensor | None:
        """Keep a state that is to be kept, and return the validation RMSE where it is looked at."""
        within = self._within(sweep)
        keep = within > self.first and (within - self.first) % self.every == 0
        if not keep and (self.average is None or not _RECORD < sweep <= self.first):
            return None
        means = Sides(self.sweeps.conditional_mean("user", state, utilities), item_means)
        state, means = self.sweeps.anchored(state, means)
        if keep:
            kept.add(state, means)
        if self.average is None:
            return None
        if keep and kept.count == 1:
            self.average.reset()
        self.average.add(self.sweeps, state, means)
        last = within == self.settings.sweeps
        return self.average.rmse(self.sweeps, state) if last or sweep % 5 == 0 or sweep < 20 else None

    def _finish(self, kept: Kept) -> None:
        """Put the posterior means of the likelihood's unknowns into the model."""
        noise_sd = kept.guide.noise_precision[: kept.count].rsqrt().mean()
        self.sweeps.utilities.remember(kept.guide.cuts[: kept.count].mean(0), noise_sd)
        self.model.requires_grad_(False)

    # ---------------------------------------------------------------- interruption

    def _save(
        self,
        path: Path,
        state: ChainState,
        kept: Kept,
        identity: dict[str, Any],
        history: list[dict[str, Any]],
        sweep: int,
    ) -> None:
        tensors = {f"state.{name}": value for name, value in state.tensors().items()}
        tensors |= {f"kept.{name}": value for name, value in kept.tensors().items()}
        if self.average is not None:
            tensors |= self.average.tensors()
        header = {
            "identity": identity,
            "history": history,
            "sweep": sweep,
            "kept": kept.count,
            "averaged": 0 if self.average is None else self.average.count,
            "drawing_cuts": self.sweeps.drawing_cuts,
            "integrates": kept.guide.integrates,
            "uncertain_means": kept.guide.uncertain_means,
            "noise_spread": kept.has_noise_spread,
        }
        write_tensors(path, CHAIN_CHECKPOINT, tensors, header)

    def _load(
        self, path: Path, kept: Kept, identity: dict[str, Any], history: list[dict[str, Any]]
    ) -> tuple[ChainState, int]:
        header, tensors = read_tensors(path, CHAIN_CHECKPOINT, identity)
        tensors = {name: value.to(self.device) for name, value in tensors.items()}

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

        with put_back(path):
            flags = {"integrates": bool, "uncertain_means": bool, "noise_spread": bool}
            header = dict.fromkeys(flags, False) | header
            checked(header, history=list, sweep=int, kept=int, averaged=int, drawing_cuts=bool, **flags)
            all_finite(tensors)
            self._check_history(header)
            if not header["noise_spread"]:
                kept.without_noise_spread()
            same_kinds(part("kept."), kept.tensors(), "kept")
            kept.load(part("kept."), header["kept"])
            if self.average is not None:
                same_kinds(
                    part("average."),
                    {n.removeprefix("average."): v for n, v in self.average.tensors().items()},
                    "average",
                )
                self.average.load(tensors, header["averaged"])
            state = ChainState.from_tensors(part("state."))
            users, items = kept.sides.user.draws, kept.sides.item.draws
            state.check(len(users), len(items), users.shape[-1])
            if not 0 <= header["kept"] <= self.n_draws or header["sweep"] > self.settings.all_sweeps:
                raise ValueError(f"{header['kept']} draws kept in {header['sweep']} sweeps")
        self.sweeps.drawing_cuts = header["drawing_cuts"]
        if self.sweeps.drawing_cuts:
            self.plain_sweeps = 0  # cut points are drawn since then, or since the start: see `_start`
        # A chain of an earlier version goes on as it began.
        kept.guide.integrates, kept.guide.uncertain_means = header["integrates"], header["uncertain_means"]
        history[:] = header["history"]
        return state, header["sweep"]

    def _check_history(self, header: dict[str, Any]) -> None:
        """Refuse counts that the record of the last sweep does not tell."""
        last = header["history"][-1] if header["history"] else {}
        if (last.get("sweep"), last.get("kept_draws")) != (header["sweep"], header["kept"]):
            raise ValueError(f"{header['kept']} draws kept in {header['sweep']} sweeps, its history differs")
        if header["averaged"] > header["sweep"]:
            raise ValueError(f"a mean over {header['averaged']} of {header['sweep']} sweeps")
        if header["drawing_cuts"] and not self.sweeps.utilities.latent:
            raise ValueError("cut points are drawn, and the likelihood has none")
        within = self._within(header["sweep"])
        if within > self.plain_sweeps and self.sweeps.utilities.latent > header["drawing_cuts"]:
            raise ValueError(f"no cut points are drawn after sweep {header['sweep']}")


def seed_of(seed: int, sweep: int) -> int:
    """Return the seed of a sweep's generator: everything random in it follows from these two numbers."""
    return int(np.random.SeedSequence([seed, 0x61BB5, sweep]).generate_state(1)[0])


def check_gibbs(model: FactorizationModel) -> None:
    """Refuse a model whose conditionals the sweeps do not know.

    Raises
    ------
    SettingsError
        If a prior is not conjugate, or the likelihood has no utilities.
    """
    conjugate_priors(model)
    latent_utilities(model)


__all__ = ["Chain", "ChainState", "Kept", "SideState", "check_gibbs"]
