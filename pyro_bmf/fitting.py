r"""Algorithm 1: fit the cross-feedback guide by SVI over user x item blocks, then polish it by Gibbs sweeps.

An iteration visits every block once, each with one step on the block's share of Eq. 7; then U and V are
resampled and fed back to the encoders. What the other modules here do is not repeated: `objective` is the
loss, `checkpoint` the state between iterations, `settings` every choice, `polish` the chain.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .checkpoint import CHAIN_CHECKPOINT, FitState, State, load_checkpoint, save_checkpoint
from .data.ratings import Ratings
from .data.splits import Split
from .data.units import Units
from .errors import FitError, SettingsError
from .estimate import check_needs, estimate_needs, estimate_parameters
from .in_units import InRatings, posterior_in_ratings, record_in_ratings, settings_in, units_of
from .methods.build_model import build_model
from .methods.coordinate_ascent.ascent import CoordinateAscent
from .methods.cross_feedback.encoder import first_width
from .methods.cross_feedback.guide import CrossFeedbackGuide
from .methods.cross_feedback.objective import Objective
from .methods.cross_feedback.rating_histogram import style_edges
from .methods.cross_feedback.warm_start import carry_over
from .methods.gibbs.chain import Chain, check_gibbs
from .methods.reads import ASCENT, SVI, SWEEPS, Case, check_read, check_refit, in_force
from .methods.settings import Preset, preset
from .model import FactorizationModel
from .model.blocks import TrainingBlocks
from .model.feedback import Feedback
from .model.likelihoods.normal import NormalLikelihood
from .model.pair_terms import pair_terms
from .model.rows import RowPosterior
from .posterior import Posterior
from .posterior.predictive import PairPredictive
from .posterior.settling import check_settling
from .process import computing, pick_device
from .progress import Bar, Reporter, Silent
from .tensor_files import is_of_kind

#: A validation RMSE of so many standard deviations of the ratings is no fit any more.
_DIVERGED = 5.0


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a fit gives.

    Attributes
    ----------
    posterior : Posterior
        The fitted posterior, of the kept state.
    history : list of dict
        One record an iteration: every part of the objective by name (nats), validation RMSE, learning rate,
        betas, noise, seconds.
    best_iteration : int
        The iteration that was kept.
    preset : Preset
        All settings.
    device : str
    seconds : float
        Wall time of the iterations, those before a resume included.
    stopped : {"max-iterations", "patience", "diverged", "sweeps"}
    """

    posterior: Posterior
    history: list[dict[str, Any]]
    best_iteration: int
    preset: Preset
    device: str
    seconds: float
    stopped: str


class DivergenceError(FitError):
    """A fit whose loss or validation error left every bound; `result` is the last good state, if any."""

    def __init__(self, message: str, result: FitResult | None) -> None:
        super().__init__(message)
        self.result = result


def fit(
    split: Split,
    settings: Preset | None = None,
    *,
    model: FactorizationModel | None = None,
    warm_start: Posterior | None = None,
    refit: bool = False,
    device: str = "auto",
    threads: int | None = None,
    deterministic: bool = True,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    progress: bool | Reporter = True,
    units: Units | None = None,
) -> FitResult:
    """Fit the model to the train part of a split.

    Parameters
    ----------
    split : Split
        Validation ratings choose when to stop and what to keep; test ratings are never read.
    settings : Preset
        Settings of model, guide and inference; the default preset when not given.
    model : FactorizationModel, optional
        A model with priors and a likelihood of your own, in the place of the one that ``settings.model``
        describes; every stage of the fit is of this model.
    warm_start : Posterior, optional
        An earlier fit to start from: rows that it knows keep their weights, new ones start fresh.
    refit : bool
        Train on train and validation for the number of iterations that ``settings.fit.stop_after`` gives
        (see `chosen_iterations`); nothing is selected then, and the last state is kept.
    device : {"auto", "cpu", "cuda"} or a torch device name
    threads : int, optional
        Threads of the CPU; torch's own number when not given. Bits may differ between numbers of threads.
    deterministic : bool
        On CUDA, use only kernels that give the same bits at every run.
    checkpoint : path, optional
        File that takes the state every `checkpoint_every` iterations.
    resume : bool
        Go on from `checkpoint`, to the same bits as without the interruption.
    progress : bool or Reporter
        A bar on standard error, nothing, or a reporter of your own.
    units : Units, optional
        Standard units to work in; those of the training ratings when not given.

    Raises
    ------
    SettingsError
        If a setting was given that the method does not read, or one that says another thing than `model`; or
        if a stage of the fit does not know the model's priors or likelihood.
    DataError
        If a training rating is outside the likelihood's support.
    FitError
        If the fit is too large for the machine.
    DivergenceError
        If it diverges; what to change is in the text, the last good state in `result`.
    SavedFileError
        If `resume` is asked and the checkpoint is missing, damaged or of another fit.
    """
    settings = preset() if settings is None else settings
    if resume and checkpoint is None:
        raise SettingsError("resume needs a checkpoint: give the file to go on from.")
    if warm_start is not None and settings.fit.method != "svi":
        raise SettingsError(
            f"A fit by method {settings.fit.method!r} takes no warm start: leave the warm start "
            "out, or "
            "fit a guide first (method 'svi', as in the preset amortized)."
        )
    if refit:
        check_refit(settings)
        settings = _refitting(settings)
    reporter: Reporter = progress if not isinstance(progress, bool) else (Bar() if progress else Silent())
    split.warn_of_unknown()
    train = split.train_valid if refit else split.train
    valid = None if refit or len(split.valid) == 0 else split.valid
    case = Case.of(settings, levels=train.scale.levels, validated=refit or valid is not None, own=model)
    check_read(case)
    if resume and case.methods == (ASCENT,):
        raise SettingsError("Coordinate ascent writes no checkpoint to resume from: leave resume out.")
    if case.own is not None and case.own.implicit is not None and SVI in case.methods:
        raise SettingsError(
            "The model has implicit feedback, which encoders do not know: build it without, or sample from "
            "the start (method='none', with sweeps)."
        )
    units = units_of(settings.model, train, own=model, earlier=warm_start) if units is None else units
    case = replace(case, settings=replace(settings, model=settings_in(settings.model, units)))
    raw, train = train, units.of_ratings(train)
    valid = None if valid is None else units.of_ratings(valid)
    reporter = InRatings(reporter, units)

    def in_ratings(result: FitResult) -> FitResult:
        return replace(
            result,
            posterior=posterior_in_ratings(result.posterior, units, raw, settings.model),
            history=[record_in_ratings(record, units) for record in result.history],
            preset=settings,
        )

    sampled = _sampled_model(case, train) if SWEEPS in case.methods else None
    with computing(pick_device(device), threads=threads, deterministic=deterministic) as where:
        file = None if checkpoint is None else Path(checkpoint)
        chained = file is not None and is_of_kind(file, CHAIN_CHECKPOINT)
        in_chain = resume and chained and sampled is not None
        try:
            first: FitResult | None = None
            if ASCENT in case.methods and not in_chain:
                first = _ascend(split, train, valid, case, where, reporter)
            elif SVI in case.methods and not in_chain:
                run = _Run(split, train, valid, case, warm_start, where, reporter)
                first = run(file, checkpoint_every, resume=resume)
            if sampled is None:
                assert first is not None
                return in_ratings(first)
            polished = _polish(
                split,
                train,
                valid,
                case,
                sampled,
                first,
                where,
                reporter,
                checkpoint=file,
                every=checkpoint_every,
                resume=in_chain or (resume and case.methods == (SWEEPS,)),
            )
            return in_ratings(polished)
        except DivergenceError as error:
            last = None if error.result is None else in_ratings(error.result)
            raise DivergenceError(str(error), last) from error
        finally:
            reporter.close()


def _sampled_model(case: Case, train: Ratings) -> FactorizationModel:
    """Return the model of the sweeps, not yet started; refuse one that they do not know.

    A model of one's own is that of both stages where sweeps follow a guide: the sweeps then get a copy, as
    the guide's fit learns parameters of it.
    """
    if case.own is None:
        built = build_model(case.settings.model, train.scale.levels, gibbs=True, ends=_ends(train))
        check_gibbs(built)
        return built
    if ASCENT in case.methods:
        raise SettingsError(
            "Coordinate ascent needs Normal priors and Gibbs sweeps need Normal-Wishart ones: no model of "
            "your own is known to both. Leave out the sweeps (sweeps=0), or sample from the start "
            "(method='none')."
        )
    check_gibbs(case.own)
    return copy.deepcopy(case.own) if SVI in case.methods else case.own


def _ascend(
    split: Split,
    train: Ratings,
    valid: Ratings | None,
    case: Case,
    device: torch.device,
    reporter: Reporter,
) -> FitResult:
    """Run coordinate ascent until the bound, or validation RMSE, stops moving; the last state is kept."""
    settings, model = case.settings, case.own
    if model is None:
        # Rows' own noise is the sweeps' alone where these come after: the ascent has none.
        plain = replace(settings.model, row_noise="none")
        model = build_model(
            plain, train.scale.levels, ends=_ends(train), mean_rating=float(train.ratings.mean())
        )
    model.start(train.ratings)
    ascent = CoordinateAscent(model.to(device), train, seed=settings.fit.seed, device=device)
    reporter.note(
        f"{len(train):,} training ratings of {train.n_users:,} users on {train.n_items:,} items: coordinate "
        f"ascent, {model.n_factors} factors with full covariances."
    )
    last, history = settings.fit.last_iteration, list[dict[str, Any]]()
    reporter.start(last, 1, 0)
    best, since = math.inf, 0
    stopped = "max-iterations"
    for number in range(1, last + 1):
        begun = time.perf_counter()
        record: dict[str, Any] = {"iteration": number, "stage": "conjugate", **ascent.iteration()}
        rmse = None
        if valid is not None:
            rows = ascent.guide.known_rows("user"), ascent.guide.known_rows("item")
            ascent.remember()
            mean = PairPredictive(model, *rows).rating_moments(valid.users, valid.items)[0]
            rmse = float(np.sqrt(np.mean((mean - valid.ratings) ** 2)))
        record |= {"loss": -record["elbo"], "loss_per_rating": -record["elbo"] / len(train)}
        record |= {"valid_rmse": rmse, "seconds": time.perf_counter() - begun}
        history.append(record)
        reporter.iteration(record)
        if not math.isfinite(record["elbo"]):
            raise FitError(f"Coordinate ascent left every bound in iteration {number}: use fewer factors.")
        score = record["loss"] / len(train) if rmse is None else rmse
        best, since = (score, 0) if score < best - 1e-5 else (best, since + 1)
        if settings.fit.patience is not None and since >= settings.fit.patience:
            stopped = "patience"
            break
    ascent.finish()
    info = _info(split, train, case, device) | {
        "beta_user": 1.0,
        "beta_item": 1.0,
        "iterations": len(history),
        "kept_iteration": len(history),
    }
    rows = ascent.guide.known_rows("user"), ascent.guide.known_rows("item")
    return FitResult(
        posterior=Posterior.from_fit(model, ascent.guide, train, rows=rows, info=info),
        history=history,
        best_iteration=len(history),
        preset=settings,
        device=str(device),
        seconds=sum(record["seconds"] for record in history),
        stopped=stopped,
    )


def _polish(
    split: Split,
    train: Ratings,
    valid: Ratings | None,
    case: Case,
    model: FactorizationModel,
    first: FitResult | None,
    device: torch.device,
    reporter: Reporter,
    *,
    checkpoint: Path | None,
    every: int,
    resume: bool,
) -> FitResult:
    """Run the chain from the guide's posterior, or from the prior, and make the posterior of its draws."""
    settings = case.settings
    identity = _identity(split, train, case, model, device)
    model.start(train.ratings)
    pairs = None
    if valid is not None:
        pairs = (
            torch.from_numpy(np.array(valid.users, dtype=np.int64)).to(device),
            torch.from_numpy(np.array(valid.items, dtype=np.int64)).to(device),
            torch.from_numpy(valid.ratings.astype(np.float32)).to(device),
        )
    chain = Chain(
        model, train, pairs, settings.gibbs, seed=settings.fit.seed, device=device, reporter=reporter
    )
    history = [] if first is None else list(first.history)
    # Ratings that are all equal leave sums of squares of rounding, which no precision is to be read off.
    noise = 0.9 * max(float(train.ratings.std()), 0.05 if settings.model.standardised else 1e-3)
    if first is not None:
        noise = history[first.best_iteration - 1]["noise"] or noise
    elif isinstance(model.likelihood, NormalLikelihood) and not model.likelihood.learned:
        noise = float(model.likelihood.noise)
    kept = chain.run(
        None if first is None else cast(Any, (first.posterior.user_rows, first.posterior.item_rows)),
        noise,
        checkpoint=checkpoint,
        every=every,
        resume=resume,
        identity=identity,
        history=history,
    )
    info = _info(split, train, case, device) | {
        "beta_user": 1.0,
        "beta_item": 1.0,
        "iterations": 0 if first is None else len(first.history),
        "sweeps": settings.gibbs.sweeps,
        "kept_draws": kept.count,
    }
    posterior = Posterior.from_fit(model, kept.guide, train, rows=kept.rows(model), info=info)
    # Pairs of all parts, as predictions will be asked of any; what was rated in them is not read.
    settling = check_settling(
        posterior,
        (split.ratings.users, split.ratings.items),
        sweeps=settings.gibbs.sweeps,
        burn_in=settings.gibbs.burn_in,
    )
    posterior.info["chain"] = settling.to_dict()
    sentence = settling.sentence()
    if sentence is not None:
        reporter.note(sentence)
    return FitResult(
        posterior=posterior,
        history=history,
        best_iteration=len(history),
        preset=settings,
        device=str(device),
        seconds=sum(record["seconds"] for record in history),
        stopped="sweeps",
    )


def _identity(
    split: Split, train: Ratings, case: Case, model: FactorizationModel, device: torch.device
) -> dict[str, Any]:
    """Return what must agree with a checkpoint: what decides the result, not how often it is written."""
    settings = {part: content for part, content in in_force(case).items() if part != "preset"}
    return {
        "settings": _plain(settings),
        "model": _plain(model.settings()),
        "split_hash": split.hash,
        "refit": len(train) != len(split.train_rows),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _info(split: Split, train: Ratings, case: Case, device: torch.device) -> dict[str, Any]:
    """Return what a posterior remembers of its fit: of the settings, those that were read."""
    return {
        "data_name": split.ratings.name,
        "data_hash": split.ratings.data_hash,
        "split_hash": split.hash,
        "split_scheme": split.scheme,
        "trained_on": "train+valid" if len(train) != len(split.train_rows) else "train",
        "settings": in_force(case),
        "device": str(device),
    }


def chosen_iterations(result: FitResult) -> Preset:
    """Return the settings of a refit on train and validation: the schedule, stopped where it was best."""
    kept = max((r["iteration"] for r in result.history if r.get("stage") != "gibbs"), default=1)
    best = result.best_iteration if result.stopped != "sweeps" else kept
    return refit_settings(result.preset, max(1, best))


def refit_settings(settings: Preset, stop_after: int) -> Preset:
    """Return the settings of a refit that stops after so many iterations; a chain alone has none to stop."""
    if settings.fit.method == "none":
        return settings
    last = {"keep": "last"} if settings.fit.method == "svi" else {}
    return settings.replace(stop_after=stop_after, patience=None, **last)


def _refitting(settings: Preset) -> Preset:
    """Return the settings without what needs validation ratings."""
    forced: dict[str, Any] = {"patience": None} if settings.fit.method != "none" else {}
    if settings.fit.method == "svi":
        forced["keep"] = "last"
    settled = settings.settled | (forced.keys() - settings.given)
    return replace(settings, fit=replace(settings.fit, **forced), settled=settled)


class _Run:
    """One fit: everything that its iterations share."""

    def __init__(
        self,
        split: Split,
        train: Ratings,
        valid: Ratings | None,
        case: Case,
        warm_start: Posterior | None,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.split, self.train, self.case, self.device = split, train, case, device
        self.reporter = reporter
        settings, model = case.settings, case.own
        self.settings, self.fit = settings, settings.fit
        if model is None:
            model = build_model(
                settings.model, train.scale.levels, ends=_ends(train), mean_rating=float(train.ratings.mean())
            )
        self._check_size(model)
        torch.manual_seed(self.fit.seed)
        model.start(train.ratings)
        edges = _edges(model, train)
        guide = CrossFeedbackGuide(
            settings.guide,
            train.n_users,
            train.n_items,
            model.n_factors,
            biases=model.biases,
            user_scales=_scales(model.user_prior, model.user_bias_prior),
            item_scales=_scales(model.item_prior, model.item_bias_prior),
            origins=(model.user_prior.origin, model.item_prior.origin),
            mean_counts=(len(train) / train.n_users, len(train) / train.n_items),
            positive=(model.user_prior.positive, model.item_prior.positive),
            start=_positive_start(model, train),
            row_noise=_noisy_sides(model),
            n_cuts=0 if model.row_cuts is None else model.row_cuts.n_shifts,
            n_style_edges=0 if edges is None else len(edges),
        )
        if warm_start is not None:
            left = carry_over(warm_start, model, guide, train)
            if left:
                reporter.note(f"The warm start leaves behind {left}, which this fit has otherwise.")
        self.objective = Objective(model, guide, elbo=self.fit.elbo, num_particles=self.fit.num_particles).to(
            device
        )
        self.model, self.guide = model, guide
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        adam = torch.optim.AdamW if self.fit.weight_decay else torch.optim.Adam
        options: dict[str, Any] = {"lr": self.fit.learning_rate, "fused": True}
        if self.fit.weight_decay:
            options["weight_decay"] = self.fit.weight_decay
        self.optimizer = adam(self.parameters, **options)
        self._load_ratings(train, valid)
        for style, feedback in (
            (guide.user_style, self.user_feedback),
            (guide.item_style, self.item_feedback),
        ):
            if style is not None and edges is not None:
                style.start(edges.to(device), feedback)

    def _check_size(self, model: FactorizationModel) -> None:
        """Say what the fit needs, and refuse it if the machine has not got it."""
        encoder = self.settings.guide
        width = first_width(encoder)
        n_parameters = estimate_parameters(
            self.train.n_users, self.train.n_items, model.n_factors, encoder, biases=model.biases
        )
        needs = estimate_needs(
            n_parameters,
            len(self.train),
            self.train.n_users,
            self.train.n_items,
            width,
            average=self.fit.ema_decay > 0.0,
            device=str(self.device),
        )
        check_needs(needs)
        self.reporter.note(
            f"{len(self.train):,} training ratings of {self.train.n_users:,} users on "
            f"{self.train.n_items:,} items: {needs}."
        )

    def _load_ratings(self, train: Ratings, valid: Ratings | None) -> None:
        """Move the ratings to the device, once, and deal them into blocks."""

        def index(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(values, dtype=np.int64)).to(self.device)

        users, items = index(train.users), index(train.items)
        ratings = torch.from_numpy(train.ratings.astype(np.float32)).to(self.device)
        values = ratings - self.model.centre
        self.user_feedback = Feedback.from_coo(users, items, values, train.n_users, train.n_items)
        self.item_feedback = Feedback.from_coo(items, users, values, train.n_items, train.n_users)
        self.blocks = TrainingBlocks.build(
            self.user_feedback,
            self.item_feedback,
            users,
            items,
            ratings,
            user_batch_size=self.fit.batch_size(self.fit.user_batch_size, train.n_users),
            item_batch_size=self.fit.batch_size(self.fit.item_batch_size, train.n_items),
            kl_counting=self.fit.kl_counting,
            seed=self.fit.seed,
        )
        self.valid: tuple[Tensor, Tensor, Tensor] | None = None
        if valid is not None:
            observed = torch.from_numpy(valid.ratings.astype(np.float32)).to(self.device)
            self.valid = (index(valid.users), index(valid.items), observed)
        self.worst_rmse = _DIVERGED * max(float(train.ratings.std()), 1e-3)

    def __call__(self, checkpoint: Path | None, every: int, *, resume: bool) -> FitResult:
        """Run the iterations that are left and return the kept state's posterior."""
        identity = _identity(self.split, self.train, self.case, self.model, self.device)
        state = FitState()
        if resume and checkpoint is not None:
            state = load_checkpoint(checkpoint, self.objective, self.optimizer, identity)
            self.reporter.note(f"Resumed after iteration {state.iteration}.")
        last = self.fit.last_iteration
        self.reporter.start(last, len(self.blocks), state.iteration)
        if last < self.fit.warmup_iterations:
            self.reporter.note(
                f"The weights of the KL grow over {self.fit.warmup_iterations:g} iterations and the fit has "
                f"{last}: they end at {last / self.fit.warmup_iterations:.0%} of beta."
            )
        stopped = "max-iterations"
        while state.iteration < last:
            if self._out_of_patience(state):
                stopped = "patience"
                break
            problem = self._iteration(state)
            if problem:
                result = None if state.best is None else self._result(state, "diverged")
                raise DivergenceError(self._advice(problem, state, result), result)
            self.reporter.iteration(state.history[-1])
            if len(state.history) == 2 or (last == 1 and len(state.history) == 1):
                self._say_time(state, last)
            if checkpoint is not None and (state.iteration % every == 0 or state.iteration == last):
                save_checkpoint(checkpoint, self.objective, self.optimizer, state, identity)
        return self._result(state, stopped)

    def _say_time(self, state: FitState, last: int) -> None:
        seconds = state.history[-1]["seconds"]
        self.reporter.note(
            f"{seconds:.2f} s an iteration after the first: at most {seconds * last:.0f} s in all, "
            f"{len(self.blocks)} blocks each, on {self.device} with {torch.get_num_threads()} threads."
        )

    def _out_of_patience(self, state: FitState) -> bool:
        patience = self.fit.patience
        return (
            self.valid is not None
            and patience is not None
            and state.iteration - state.best_iteration >= patience
            and state.best is not None
        )

    def _iteration(self, state: FitState) -> str | None:
        """Do one iteration of Algorithm 1; return what went wrong, if anything did."""
        started = time.perf_counter()
        number = state.iteration + 1
        # Everything random in an iteration follows from its number: see `checkpoint`.
        torch.manual_seed(int(np.random.SeedSequence([self.fit.seed, number]).generate_state(1)[0]))
        record: dict[str, Any] = {"iteration": number}
        parts: dict[str, Tensor] = {}
        order = self._order(number)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        for step, (p, q) in enumerate(order):
            progress = state.iteration + step / len(order)
            beta = self.fit.beta(progress)
            rate = self.fit.learning_rate_at(progress)
            loss, named = self._step(p, q, beta, rate)
            loss_sum += loss
            for name, value in named.items():
                parts[name] = parts[name] + value if name in parts else value
            if self.device.type == "cpu" and not bool(torch.isfinite(loss)):
                return f"the loss became {float(loss)} in block ({p}, {q}) of iteration {number}"
            self.reporter.block()
        if not bool(torch.isfinite(loss_sum)):
            return f"the loss became {float(loss_sum)} in iteration {number}"
        rmse = self._finish(state, number)
        if rmse is not None and not rmse < self.worst_rmse:
            share = rmse / (self.worst_rmse / _DIVERGED)
            return (
                f"validation RMSE became {share:.4g} standard deviations of the ratings in iteration {number}"
            )
        record |= {name: float(value) for name, value in parts.items()}
        record["loss"] = float(loss_sum)
        record["loss_per_rating"] = float(loss_sum) / len(self.train)
        record["valid_rmse"] = rmse
        record["beta_user"], record["beta_item"] = beta
        record["learning_rate"] = rate
        record["noise"] = self._noise()
        record["seconds"] = time.perf_counter() - started
        state.history.append(record)
        state.iteration = number
        return None

    def _noise(self) -> float | None:
        noise = getattr(self.model.likelihood, "noise", None)
        return float(noise.detach()) if isinstance(noise, Tensor) and noise.ndim == 0 else None

    def _order(self, number: int) -> list[tuple[int, int]]:
        """Return the blocks in the order of this iteration: item batches within user batches."""
        n_p, n_q = len(self.blocks.user_batches), len(self.blocks.item_batches)
        if not self.fit.shuffle_blocks:
            return [(p, q) for p in range(n_p) for q in range(n_q)]
        rng = np.random.default_rng([self.fit.seed, number])
        return [(int(p), int(q)) for p in rng.permutation(n_p) for q in rng.permutation(n_q)]

    def _step(
        self, p: int, q: int, beta: tuple[float, float], rate: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Descend one block's share of the objective."""
        loss, parts = self.objective(self.blocks.block(p, q), beta=beta)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.fit.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.fit.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss.detach(), parts

    @torch.no_grad()
    def _finish(self, state: FitState, number: int) -> float | None:
        """Average, validate, keep the best state, and resample the embeddings that are fed back."""
        live = self._encode()
        if self.fit.ema_decay and number > self.fit.ema_start * self.fit.max_iterations:
            if state.average is None:
                state.average = {name: p.detach().clone() for name, p in self.objective.named_parameters()}
            else:
                for name, p in self.objective.named_parameters():
                    state.average[name].lerp_(p, 1.0 - self.fit.ema_decay)
        rmse = self._validate(state, live, number)
        self.guide.resample_feedback(*live)
        return rmse

    def _validate(
        self, state: FitState, live: tuple[RowPosterior, RowPosterior], number: int
    ) -> float | None:
        """Return validation RMSE of the averaged (else the live) weights, keeping them if they are best."""
        kept: State = {}
        if state.average is not None:
            for name, p in self.objective.named_parameters():
                kept[name] = p.detach().clone()
                p.copy_(state.average[name])
        rmse = None
        if self.valid is not None:
            users, items, observed = self.valid
            rows = self._encode() if kept else live
            rmse = float((self._mean(rows, users, items) - observed).double().square().mean().sqrt())
        if self.fit.keep == "last" or rmse is None or rmse < state.best_rmse:
            state.best = {name: value.clone() for name, value in self.objective.state_dict().items()}
            state.best_iteration = number
            state.best_rmse = float("inf") if rmse is None else rmse
        for name, p in self.objective.named_parameters():
            if kept:
                p.copy_(kept[name])
        return rmse

    def _encode(self) -> tuple[RowPosterior, RowPosterior]:
        return (
            self.guide.encode_side("user", self.user_feedback, known=True),
            self.guide.encode_side("item", self.item_feedback, known=True),
        )

    def _mean(self, rows: tuple[RowPosterior, RowPosterior], users: Tensor, items: Tensor) -> Tensor:
        """Return the mean rating of pairs whose predictor is at its mean."""
        u, v = rows
        eta = self.model.predictor(
            u.loc[users],
            v.loc[items],
            None if u.bias_loc is None else u.bias_loc[users],
            None if v.bias_loc is None else v.bias_loc[items],
        )
        noises = [side.noise[at] for side, at in ((u, users), (v, items)) if side.noise is not None]
        return self.model.likelihood.mean(eta, *pair_terms(noises, None if u.cuts is None else u.cuts[users]))

    def _advice(self, problem: str, state: FitState, result: FitResult | None) -> str:
        kept = (
            "No iteration was completed."
            if result is None
            else f"The state after iteration {state.best_iteration} is kept."
        )
        return (
            f"The fit diverged: {problem}. {kept} Lower the learning rate (now "
            f"{self.fit.learning_rate:g}), set clip_norm (now {self.fit.clip_norm}), or warm beta up over "
            f"more iterations (now {self.fit.warmup_iterations:g})."
        )

    def _result(self, state: FitState, stopped: str) -> FitResult:
        """Put the kept state back and make the posterior of it."""
        assert state.best is not None
        self.objective.load_state_dict(state.best)
        self.objective.requires_grad_(False)
        info = _info(self.split, self.train, self.case, self.device) | {
            "beta_user": self.fit.beta_user,
            "beta_item": self.fit.beta_item,
            "iterations": state.iteration,
            "kept_iteration": state.best_iteration,
        }
        return FitResult(
            posterior=Posterior.from_fit(self.model, self.guide, self.train, info=info),
            history=state.history,
            best_iteration=state.best_iteration,
            preset=self.settings,
            device=str(self.device),
            seconds=sum(record["seconds"] for record in state.history),
            stopped=stopped,
        )


def _noisy_sides(model: FactorizationModel) -> tuple[bool, bool]:
    sides = () if model.row_noise is None else model.row_noise.sides
    return "user" in sides, "item" in sides


def _edges(model: FactorizationModel, train: Ratings) -> Tensor | None:
    """Return the edges of the histograms that rows' noise and cut points are read from, centred."""
    if model.row_noise is None and model.row_cuts is None:
        return None
    levels = train.scale.levels
    return style_edges(
        torch.from_numpy(train.ratings.astype(np.float32)) - model.centre,
        None if levels is None else torch.from_numpy(levels.astype(np.float32)) - model.centre,
    )


def _ends(train: Ratings) -> tuple[float, float]:
    return float(train.scale.low), float(train.scale.high)


def _positive_start(model: FactorizationModel, train: Ratings) -> float:
    """Return the logarithm of factors whose products add up to the mean rating, or to one about a centre."""
    target = 1.0 if model.centred else max(float(train.ratings.mean()), 0.1)
    return 0.5 * math.log(target / model.n_factors)


def _scales(factors: Any, bias: Any) -> tuple[float, float]:
    return factors.scale, 1.0 if bias is None else bias.scale


def _plain(content: Any) -> Any:
    """Return JSON's view of nested settings, so that a saved copy compares equal."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return content


__all__ = ["DivergenceError", "FitResult", "build_model", "chosen_iterations", "fit", "refit_settings"]
