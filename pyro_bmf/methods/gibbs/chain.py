r"""A chain of Gibbs sweeps, from a fitted guide or from the prior, whose kept draws are the posterior.

`sweeps` holds the mathematics; here is the run: where it starts, what it keeps, how it goes on after an
interruption. Everything random in a sweep follows from (seed, sweep), so a resumed chain repeats the bits
of one that was never interrupted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
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
from ...errors import FitError, SettingsError
from ...estimate import check_needs, estimate_chain, kept_dtype
from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.likelihoods.normal import NormalLikelihood
from ...model.likelihoods.ordered_probit import OrderedProbitLikelihood
from ...model.rows import RowDraws, RowPosterior, Rows
from ...numerics.normal_cells import midway
from ...progress import Reporter
from ..settings import GibbsSettings
from .chain_state import ChainState, SideState
from .guide import ChainGuide
from .sweeps import Sweeps, seed_of

#: Sweeps before the precisions of implicit weights are drawn, and before an average is worth recording.
_SETTLE, _RECORD = 8, 4


@dataclass(eq=False)
class Kept:
    """What a chain keeps: draws of rows and hyperparameters, and sums for averages.

    Draws of rows and of implicit weights are in half precision where there are many (`kept_dtype`).
    """

    user: Tensor
    item: Tensor
    user_means: Tensor
    item_means: Tensor
    guide: ChainGuide
    user_noise: Tensor
    item_noise: Tensor
    count: int = 0

    @classmethod
    def empty(cls, model: FactorizationModel, train: Ratings, n_draws: int, device: torch.device) -> Kept:
        """Make room for `n_draws` draws."""
        width = model.n_factors + model.biases
        dtype = kept_dtype(train.n_users + train.n_items, width, n_draws, model.implicit is not None)

        def room(n: int) -> Tensor:
            return torch.zeros(n, n_draws, width, device=device, dtype=dtype)

        likelihood = model.likelihood
        guide = ChainGuide(
            train.n_users,
            train.n_items,
            model.n_factors,
            n_draws,
            biases=model.biases,
            n_cuts=len(likelihood.levels) - 1 if isinstance(likelihood, OrderedProbitLikelihood) else 0,
            implicit=model.implicit is not None,
            row_noise=() if model.row_noise is None else model.row_noise.sides,
            weights_dtype=dtype,
        ).to(device)
        if isinstance(likelihood, OrderedProbitLikelihood):
            guide.middles.copy_(midway(likelihood.levels))
        guide.centre.copy_(model.centre)
        return cls(
            room(train.n_users),
            room(train.n_items),
            room(train.n_users),
            room(train.n_items),
            guide,
            torch.zeros(train.n_users, dtype=torch.float64, device=device),
            torch.zeros(train.n_items, dtype=torch.float64, device=device),
        )

    def add(self, state: ChainState, means: tuple[Tensor, Tensor]) -> None:
        """Keep a state and the rows' conditional means at it."""
        s = self.count
        self.user[:, s], self.item[:, s] = state.user.rows, state.item.rows
        self.user_means[:, s], self.item_means[:, s] = means
        for name, side in (("user", state.user), ("item", state.item)):
            getattr(self.guide, f"{name}_location")[s] = side.location
            getattr(self.guide, f"{name}_precision")[s] = side.precision
            getattr(self.guide, f"{name}_noise_shape")[s] = side.noise_shape
            if self.guide.implicit:
                getattr(self.guide, f"{name}_weights")[s] = side.weights
        self.guide.noise[s] = state.noise
        if self.guide.n_cuts:
            self.guide.cuts[s] = state.cuts
        self.user_noise += state.user.noise.double().rsqrt()
        self.item_noise += state.item.noise.double().rsqrt()
        self.count += 1

    def rows(self, model: FactorizationModel) -> tuple[RowDraws, RowDraws]:
        """Return both sides' draws."""
        biased = torch.tensor(model.biases, device=self.user.device)
        sides = () if model.row_noise is None else model.row_noise.sides
        noise = {
            "user": (self.user_noise / self.count).float() if "user" in sides else None,
            "item": (self.item_noise / self.count).float() if "item" in sides else None,
        }
        return (
            RowDraws(self.user[:, : self.count], self.user_means[:, : self.count], biased, noise["user"]),
            RowDraws(self.item[:, : self.count], self.item_means[:, : self.count], biased, noise["item"]),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a checkpoint."""
        named = {
            name: getattr(self, name)
            for name in ("user", "item", "user_means", "item_means", "user_noise", "item_noise")
        }
        return {**named, **{f"guide.{name}": value for name, value in self.guide.state_dict().items()}}

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Take what `tensors` gave in the places of what there is."""
        for name in ("user", "item", "user_means", "item_means", "user_noise", "item_noise"):
            if tensors[name].shape != getattr(self, name).shape:
                raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}")
            setattr(self, name, tensors[name])
        prefix = "guide."
        self.guide.load_state_dict(
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
            assign=True,
        )
        self.count = count


class _Average:
    """The running mean rating of the validation pairs."""

    def __init__(self, valid: tuple[Tensor, Tensor, Tensor]) -> None:
        self.users, self.items, self.observed = valid
        self.reset()

    def reset(self) -> None:
        self.mean = torch.zeros(len(self.users), dtype=torch.float64, device=self.users.device)
        self.total, self.square = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        self.count = 0

    def add(self, sweeps: Sweeps, state: ChainState, means: tuple[Tensor, Tensor]) -> None:
        drawn = sweeps.pair_predictors(state.user.rows, state.item.rows, self.users, self.items).double()
        self.total += drawn
        self.square += drawn**2
        left = sweeps.pair_predictors(means[0], state.item.rows, self.users, self.items)
        right = sweeps.pair_predictors(state.user.rows, means[1], self.users, self.items)
        self.mean += 0.5 * (left + right).double()
        self.count += 1

    def rmse(self, sweeps: Sweeps, state: ChainState) -> float:
        """Return validation RMSE of the mean rating so far."""
        mean = self.mean / self.count
        likelihood = sweeps.model.likelihood
        if isinstance(likelihood, OrderedProbitLikelihood) and sweeps.drawing_cuts:
            centre = self.total / self.count
            variance = (self.square / self.count - centre**2).clamp_min(0.0)
            likelihood.set_cuts(state.cuts, state.noise.rsqrt())
            relative = (state.user.noise.double()[self.users] * state.item.noise.double()[self.items]).rsqrt()
            mean = likelihood.predictive_moments(mean, variance, relative)[0]
        return float((mean - self.observed.double()).square().mean().sqrt().detach())

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {"average.mean": self.mean, "average.total": self.total, "average.square": self.square}

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Take the sums from what `tensors` gave."""
        self.mean, self.total = tensors["average.mean"], tensors["average.total"]
        self.square, self.count = tensors["average.square"], count


class Chain:
    """One chain over one set of training ratings.

    Parameters
    ----------
    model : FactorizationModel
        With Normal-Wishart priors, started.
    train : Ratings
    valid : tuple of Tensor or None
        Users, items and ratings to record the running validation RMSE of; they choose nothing.
    settings : GibbsSettings
    seed : int
    device : torch.device
    """

    def __init__(
        self,
        model: FactorizationModel,
        train: Ratings,
        valid: tuple[Tensor, Tensor, Tensor] | None,
        settings: GibbsSettings,
        *,
        seed: int,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.model, self.train, self.settings, self.seed = model.to(device), train, settings, seed
        self.device, self.reporter = device, reporter
        self._check_size()
        users, items = (
            torch.from_numpy(np.array(column, dtype=np.int64)).to(device)
            for column in (train.users, train.items)
        )
        ratings = torch.from_numpy(train.ratings.astype(np.float32)).to(device)
        feedback = Feedback.from_coo(users, items, ratings, train.n_users, train.n_items)
        self.sweeps = Sweeps(
            model,
            feedback,
            feedback.values,
            tolerance=settings.solver_tolerance,
            scale_moves=settings.scale_moves,
        )
        self.average = None if valid is None else _Average(valid)
        self.n_draws = settings.kept_draws
        self.every = (settings.sweeps - settings.burn_in) // self.n_draws
        self.first = settings.sweeps - self.every * self.n_draws

    def _check_size(self) -> None:
        n, m, d = self.train.n_users, self.train.n_items, self.model.n_factors + self.model.biases
        needs = estimate_chain(
            len(self.train),
            n,
            m,
            d,
            self.settings.kept_draws,
            implicit=self.model.implicit is not None,
            device=str(self.device),
        )
        check_needs(needs)
        self.reporter.note(
            f"{len(self.train):,} training ratings of {n:,} users on {m:,} items: {self.settings.sweeps} "
            "Gibbs "
            f"sweeps of {d} numbers a row, {self.settings.kept_draws} draws kept, about "
            f"{needs.memory / 1e9:.2f} GB of memory ({needs.available / 1e9:.1f} GB free on {needs.device})."
        )

    def run(
        self,
        start: tuple[Rows, Rows] | None,
        noise: float,
        *,
        checkpoint: Path | None,
        every: int,
        resume: bool,
        identity: dict[str, Any],
        history: list[dict[str, Any]],
    ) -> Kept:
        """Do all sweeps, from given rows or from the prior, and return what was kept."""
        if resume and checkpoint is not None:
            # Nothing is made room for: the checkpoint's own tensors take the places.
            kept = Kept.empty(self.model, self.train, self.n_draws, torch.device("meta"))
            state, done = self._load(checkpoint, kept, identity, history)
            self.reporter.note(f"Resumed after sweep {done}.")
        else:
            kept = Kept.empty(self.model, self.train, self.n_draws, self.device)
            state, done = self._start(start, noise), 0
        offset = len(history) - done
        self.reporter.start(offset + self.settings.sweeps, 1, offset + done)
        for sweep in range(done + 1, self.settings.sweeps + 1):
            begun = time.perf_counter()
            # Everything random in a sweep follows from its number.
            torch.manual_seed(seed_of(self.seed, sweep))
            rmse = self._one(sweep, state, kept)
            record = {
                "iteration": offset + sweep,
                "stage": "gibbs",
                "sweep": sweep,
                "valid_rmse": rmse,
                "noise": float(state.noise.rsqrt()),
                "kept_draws": kept.count,
                "seconds": time.perf_counter() - begun,
            }
            history.append(record)
            self.reporter.iteration(record)
            if checkpoint is not None and sweep < self.settings.sweeps and sweep % every == 0:
                self._save(checkpoint, state, kept, identity, history, sweep)
        self._finish(kept)
        return kept

    def _start(self, start: tuple[Rows, Rows] | None, noise: float) -> ChainState:
        torch.manual_seed(seed_of(self.seed, 0))
        width = self.model.n_factors + self.model.biases
        rows = []
        for place, n in enumerate((self.train.n_users, self.train.n_items)):
            if start is None:
                rows.append(torch.randn(n, width, device=self.device) * self.settings.start_scale)
                continue
            given = start[place]
            assert isinstance(given, RowPosterior)
            factors, bias = given.sample()
            rows.append(factors if bias is None else torch.cat([factors, bias.unsqueeze(-1)], 1))
        return self.sweeps.start(rows[0], rows[1], noise)

    def _one(self, sweep: int, state: ChainState, kept: Kept) -> float | None:
        ordered = sweep > self.settings.plain_sweeps
        if ordered and self.sweeps.place is not None and not self.sweeps.drawing_cuts:
            self.sweeps.to_probit(state)
        utilities = self.sweeps.sweep(state, ordered=ordered, weights_precision=sweep > _SETTLE)
        if not all(bool(torch.isfinite(rows).all()) for rows in (state.user.rows, state.item.rows)):
            raise FitError(
                f"The chain left every bound in sweep {sweep}: rows are not finite. Use fewer factors, or "
                "a smaller "
                "prior_scale."
            )
        keep = sweep > self.first and (sweep - self.first) % self.every == 0
        if not keep and (self.average is None or sweep <= _RECORD or sweep > self.first):
            return None
        means = self.sweeps.conditional_means(state, utilities)
        if keep:
            kept.add(state, means)
        if self.average is None:
            return None
        if keep and kept.count == 1:
            self.average.reset()
        self.average.add(self.sweeps, state, means)
        last = sweep == self.settings.sweeps
        return self.average.rmse(self.sweeps, state) if last or sweep % 5 == 0 or sweep < 20 else None

    def _finish(self, kept: Kept) -> None:
        """Put the posterior means of the likelihood's unknowns into the model."""
        noise = kept.guide.noise[: kept.count].rsqrt().mean()
        likelihood = self.model.likelihood
        if isinstance(likelihood, OrderedProbitLikelihood):
            likelihood.set_cuts(kept.guide.cuts[: kept.count].mean(0), noise)
        elif isinstance(likelihood, NormalLikelihood) and likelihood.learned:
            likelihood.set_noise(noise)
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
            checked(header, history=list, sweep=int, kept=int, averaged=int, drawing_cuts=bool)
            all_finite(tensors)
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
            state.check(len(kept.user), len(kept.item), kept.user.shape[-1])
            if not 0 <= header["kept"] <= self.n_draws or header["sweep"] > self.settings.sweeps:
                raise ValueError(f"{header['kept']} draws kept in {header['sweep']} sweeps")
        self.sweeps.drawing_cuts = header["drawing_cuts"]
        history[:] = header["history"]
        return state, header["sweep"]


def check_gibbs(model: FactorizationModel) -> None:
    """Refuse a model whose conditionals the sweeps do not know.

    Raises
    ------
    SettingsError
        If a prior is not Normal-Wishart, or the likelihood neither Normal nor an ordered probit.
    """
    from ...model.priors.normal_wishart import NormalWishartPrior

    priors = [model.user_prior, model.item_prior, model.user_bias_prior, model.item_bias_prior]
    for prior in priors:
        if prior is not None and not isinstance(prior, NormalWishartPrior):
            raise SettingsError(
                f"Gibbs sweeps need Normal-Wishart priors, and there is a {type(prior).__name__}: give "
                "one of "
                "those, or fit without sweeps (sweeps=0)."
            )
    if not isinstance(model.likelihood, NormalLikelihood | OrderedProbitLikelihood):
        raise SettingsError(
            "Gibbs sweeps need a Normal or an ordered probit likelihood, not "
            f"{type(model.likelihood).__name__}: "
            "give one of those, or fit without sweeps (sweeps=0)."
        )
    if model.row_cuts is not None:
        raise SettingsError(
            "Gibbs sweeps have shared cut points only: leave out cuts=user, or fit without sweeps (sweeps=0)."
        )


__all__ = ["Chain", "ChainState", "Kept", "SideState", "check_gibbs"]
