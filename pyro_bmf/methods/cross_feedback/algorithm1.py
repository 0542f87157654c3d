r"""Algorithm 1: fit the cross-feedback guide by stochastic variational inference over user x item blocks.

An iteration visits every block once, each with one step on the block's share of Eq. 7; then U and V are
resampled and fed back to the encoders (line 15). The loss is `objective`'s, the state between iterations
`checkpoint`'s, every choice `settings`'. The lines of the paper: the first U and V (2) are drawn in the
guide's constructor, the batches (3-4) dealt by `TrainingBlocks.build`, the loop over them (5-14) is
`_iteration`.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import FitState, State, load_checkpoint, save_checkpoint
from ...data.ratings import Ratings
from ...errors import SettingsError
from ...estimate import check_needs, estimate_needs
from ...model import FactorizationModel
from ...model.blocks import TrainingBlocks
from ...model.feedback import Feedback
from ...model.pair_terms import pair_terms
from ...model.rows import RowPosterior
from ...model.sides import Sides
from ..build_model import build_model
from ..job import Checkpoints, Diverged, Fitted, Handover, Job
from .composite_prior import composite_priors
from .descent import descent_of, has_joint_descent
from .guide import CrossFeedbackGuide
from .network import first_width
from .objective import Objective
from .optimizer import adam_of
from .rating_histogram import style_edges
from .recorded import descent_on
from .settings import CrossFeedback
from .size import estimate_parameters
from .steps import Step, Steps
from .warm_start import carry_over

#: A validation RMSE so many times that of predicting the model's centre everywhere, as a fit begins by, is
#: no fit any more. Where ratings are raw that is 0, and far more than a standard deviation from them.
_DIVERGED = 5.0


class Algorithm1:
    """One fit: everything that its iterations share.

    Parameters
    ----------
    job : Job
    settings : CrossFeedback

    Raises
    ------
    SettingsError
        If the model has implicit feedback, which encoders do not know.
    """

    def __init__(self, job: Job, settings: CrossFeedback) -> None:
        self.job, self.settings, self.seed = job, settings, job.settings.seed
        self.train, self.device, self.reporter = job.train, job.device, job.reporter
        model = job.own
        if model is None:
            model = build_model(job.settings.model, self.train.scale.levels, **job.built_from())
        if model.implicit is not None:
            raise SettingsError(
                "The model has implicit feedback, which encoders do not know: build it without, or sample "
                "from the start (method=Gibbs())."
            )
        self.model = model

    def _begin(self) -> None:
        """Start the model, and make the guide, its optimizer and the blocks."""
        model, train, settings = self.model, self.train, self.settings
        self._check_size()
        torch.manual_seed(self.seed)
        self.job.start(model)
        edges = _edges(model, train)
        guide = CrossFeedbackGuide(
            settings.encoder,
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
        if self.job.warm_start is not None:
            left = carry_over(self.job.warm_start, model, guide, train)
            if left:
                self.reporter.note(f"The warm start leaves behind {left}, which this fit has otherwise.")
        objective = Objective(model, guide, elbo=settings.elbo, num_particles=settings.num_particles)
        objective.composite = composite_priors(model, train, settings.composite_prior)
        self.objective, self.guide = objective.to(self.device), guide
        counts = Sides(len(train) / train.n_users, len(train) / train.n_items)
        self.optimizer = adam_of(self.objective, settings, counts, self.device)
        self._load_ratings()
        for style, feedback in (
            (guide.user_style, self.user_feedback),
            (guide.item_style, self.item_feedback),
        ):
            if style is not None and edges is not None:
                style.start(edges.to(self.device), feedback)
        if self.objective.composite is not None:
            self.objective.composite.remember(*self._encode())

    def _check_size(self) -> None:
        """Say what the fit needs, and refuse it if the machine has not got it."""
        encoder, model = self.settings.encoder, self.model
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
            average=self.settings.ema_decay > 0.0,
            device=str(self.device),
        )
        check_needs(needs)
        self.reporter.note(
            f"{len(self.train):,} training ratings of {self.train.n_users:,} users on "
            f"{self.train.n_items:,} items: {needs}."
        )

    def _load_ratings(self) -> None:
        """Move the ratings to the device, once, and deal them into blocks."""
        train = self.train

        def index(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.array(values, dtype=np.int64)).to(self.device)

        users, items = index(train.users), index(train.items)
        ratings = torch.from_numpy(train.ratings.astype(np.float32)).to(self.device)
        values = ratings - self.model.centre
        self.user_feedback = Feedback.from_coo(users, items, values, train.n_users, train.n_items)
        self.item_feedback = Feedback.from_coo(items, users, values, train.n_items, train.n_users)

        def build(user_batch_size: int, item_batch_size: int) -> TrainingBlocks:
            return TrainingBlocks.build(
                self.user_feedback,
                self.item_feedback,
                users,
                items,
                ratings,
                user_batch_size=user_batch_size,
                item_batch_size=item_batch_size,
                kl_counting=self.settings.kl_counting,
                seed=self.seed,
            )

        self.steps = Steps(self.settings, build, train.n_users, train.n_items, self.seed)

        def pairs(part: Ratings | None) -> tuple[Tensor, Tensor, Tensor] | None:
            if part is None:
                return None
            observed = torch.from_numpy(part.ratings.astype(np.float32)).to(self.device)
            return index(part.users), index(part.items), observed

        self.valid, self.watched = pairs(self.job.valid), pairs(self.job.watched)
        about = train.ratings.astype(np.float64) - float(self.model.centre)
        self.worst_rmse = _DIVERGED * max(float(np.sqrt(np.mean(about**2))), 1e-3)

    def __call__(self, start: Handover | None, kept: Checkpoints) -> Fitted:
        """Run the iterations that are left and return the kept state."""
        self._begin()
        state = FitState()
        if kept.resume and kept.file is not None:
            state = load_checkpoint(kept.file, self.objective, self.optimizer, kept.identity)
            self.reporter.note(f"Resumed after iteration {state.iteration}.")
        elif self.steps.nested is not None and has_joint_descent(self.objective):
            state.steps = "joint"
        descend = descent_of(
            state.steps, self.objective, self.steps.nested, self.optimizer, self.settings.clip_norm
        )
        self.descend = descent_on(self.device, descend, self.reporter.note)
        last = self.settings.last_iteration
        self.reporter.start(last, len(self.steps), state.iteration)
        if last < self.settings.warmup_iterations:
            self.reporter.note(
                f"The weights of the KL grow over {self.settings.warmup_iterations:g} iterations and the fit "
                f"has {last}: they end at {last / self.settings.warmup_iterations:.0%} of beta."
            )
        stopped = "max-iterations"
        while state.iteration < last:
            if self._out_of_patience(state):
                stopped = "patience"
                break
            problem = self._iteration(state)
            if problem:
                fitted = None if state.best is None else self._result(state, "diverged")
                raise Diverged(self._advice(problem, state), fitted)
            self.reporter.iteration(state.history[-1])
            if len(state.history) == 2 or (last == 1 and len(state.history) == 1):
                self._say_time(state, last)
            if kept.file is not None and (state.iteration % kept.every == 0 or state.iteration == last):
                save_checkpoint(kept.file, self.objective, self.optimizer, state, kept.identity)
        return self._result(state, stopped)

    def _say_time(self, state: FitState, last: int) -> None:
        seconds = state.history[-1]["seconds"]
        self.reporter.note(
            f"{seconds:.2f} s an iteration after the first: at most {seconds * last:.0f} s in all, "
            f"{len(self.steps)} blocks each, on {self.device} with {torch.get_num_threads()} threads."
        )

    def _out_of_patience(self, state: FitState) -> bool:
        patience = self.settings.patience
        return (
            self.valid is not None
            and patience is not None
            and state.iteration - state.best_iteration >= patience
            and state.best is not None
        )

    def _iteration(self, state: FitState) -> str | None:
        """Do one iteration of Algorithm 1; return what went wrong, if anything did."""
        started, worked = time.perf_counter(), time.process_time()
        number = state.iteration + 1
        # Everything random in an iteration follows from its number: see `checkpoint`.
        torch.manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        record, parts = dict[str, Any](iteration=number), dict[str, Tensor]()
        order = self.steps.order(number)
        self.descend.begin()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        for done, step in enumerate(order):
            progress = state.iteration + done / len(order)
            own = self._block(step, progress, loss_sum, parts)
            if self.device.type == "cpu" and not bool(torch.isfinite(own)):
                return f"the loss became {float(own)} in block {step} of iteration {number}"
            self.reporter.block()
        if not bool(torch.isfinite(loss_sum)):
            return f"the loss became {float(loss_sum)} in iteration {number}"
        rmse, watched = self._finish(state, number)
        if rmse is not None and not rmse < self.worst_rmse:
            share = rmse / (self.worst_rmse / _DIVERGED)
            return (
                f"validation RMSE became {share:.4g} times that of predicting where the fit begins, "
                f"in iteration {number}"
            )
        record |= {name: float(value) for name, value in parts.items()}
        loss = float(loss_sum)
        record |= {"loss": loss, "loss_per_rating": loss / len(self.train), "valid_rmse": rmse}
        if watched is not None:
            record["watched_rmse"] = watched
        record["beta_user"], record["beta_item"] = self.settings.beta(progress)
        record["learning_rate"] = self.settings.learning_rate_at(progress)
        record["noise"] = self._noise()
        record["seconds"] = time.perf_counter() - started
        record["processor_seconds"] = time.process_time() - worked
        state.history.append(record)
        state.iteration = number
        return None

    def _block(self, step: Step, progress: float, loss_sum: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Descend the loss of a block, add it and its parts up, and return it."""
        beta, rate = self.settings.beta(progress), self.settings.learning_rate_at(progress)
        loss, named = self.descend(step, beta, rate)
        loss_sum += self.steps.share * loss
        for name, value in named.items():
            parts[name] = parts.get(name, 0.0) + self.steps.share * value
        return loss

    def _noise(self) -> float | None:
        return None if (sd := self.model.likelihood.noise_sd) is None else float(sd.detach())

    @torch.no_grad()
    def _finish(self, state: FitState, number: int) -> tuple[float | None, float | None]:
        """Average, keep the best state, resample what is fed back; return both RMSEs of `_validate`."""
        live = self._encode()
        if self.settings.ema_decay and number > self.settings.ema_start * self.settings.max_iterations:
            if state.average is None:
                state.average = {name: p.detach().clone() for name, p in self.objective.named_parameters()}
            else:
                for name, p in self.objective.named_parameters():
                    state.average[name].lerp_(p, 1.0 - self.settings.ema_decay)
        found = self._validate(state, live, number)
        if self.objective.composite is not None:
            self.objective.composite.remember(*live)
        self.guide.resample_feedback(*live)
        return found

    def _validate(
        self, state: FitState, live: tuple[RowPosterior, RowPosterior], number: int
    ) -> tuple[float | None, float | None]:
        """Return RMSE of the averaged (else the live) weights, keeping them if they are best.

        Of the validation ratings, and of those that are watched alone.
        """
        kept: State = {}
        if state.average is not None:
            for name, p in self.objective.named_parameters():
                kept[name] = p.detach().clone()
                p.copy_(state.average[name])
        measured = self.valid is not None or self.watched is not None
        rows = self._encode() if kept and measured else live
        rmse, watched = (self._rmse(rows, pairs) for pairs in (self.valid, self.watched))
        if self.settings.keep == "last" or rmse is None or rmse < state.best_rmse:
            state.best = {name: value.clone() for name, value in self.objective.state_dict().items()}
            state.best_iteration = number
            state.best_rmse = float("inf") if rmse is None else rmse
        for name, p in self.objective.named_parameters():
            if kept:
                p.copy_(kept[name])
        return rmse, watched

    def _rmse(
        self, rows: tuple[RowPosterior, RowPosterior], pairs: tuple[Tensor, Tensor, Tensor] | None
    ) -> float | None:
        if pairs is None:
            return None
        users, items, observed = pairs
        return float((self._mean(rows, users, items) - observed).double().square().mean().sqrt())

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
        sides = ((u.noise_factor, users), (v.noise_factor, items))
        factors = [factor[at] for factor, at in sides if factor is not None]
        return self.model.likelihood.mean(
            eta, *pair_terms(factors, None if u.cuts is None else u.cuts[users])
        )

    def _advice(self, problem: str, state: FitState) -> str:
        kept = (
            "No iteration was completed."
            if state.best is None
            else f"The state after iteration {state.best_iteration} is kept."
        )
        return (
            f"The fit diverged: {problem}. {kept} Lower the learning rate (now "
            f"{self.settings.learning_rate:g}), set clip_norm (now {self.settings.clip_norm}), or warm beta "
            f"up over more iterations (now {self.settings.warmup_iterations:g})."
        )

    def _result(self, state: FitState, stopped: str) -> Fitted:
        """Put the kept state back."""
        assert state.best is not None
        self.objective.load_state_dict(state.best)
        self.objective.requires_grad_(False)
        info = {
            "beta_user": self.settings.beta_user,
            "beta_item": self.settings.beta_item,
            "iterations": state.iteration,
            "kept_iteration": state.best_iteration,
        }
        return Fitted(self.model, self.guide, None, state.history, state.best_iteration, stopped, info)


def _noisy_sides(model: FactorizationModel) -> tuple[bool, bool]:
    sides = model.noisy_sides
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


def _positive_start(model: FactorizationModel, train: Ratings) -> float:
    """Return the logarithm of factors whose products add up to the mean rating, or to one about a centre."""
    target = 1.0 if model.centred else max(float(train.ratings.mean()), 0.1)
    return 0.5 * math.log(target / model.n_factors)


def _scales(factors: Any, bias: Any) -> tuple[float, float]:
    return factors.scale, 1.0 if bias is None else bias.scale
