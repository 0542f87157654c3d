r"""One iteration: each side's head, gradient steps of its encoder on the collapsed bound, and closed forms.

Algorithm 1 with one change: the items are given the users' *new* q, as in a Gibbs sweep or coordinate ascent.
For either side: the head from the other side's moments; the location; the means of the weights by steps of
`CollapsedELBO`; their variances

.. math:: 1 / s_{jk}^2 = \beta \sum_{i \in N(j)} C_{i,kk} / n_i + E[\lambda_k];

the rows' marginals; then Lambda, lambda and the rows' noise, each at its best q.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ...data.ratings import Ratings
from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.row_noise import SPREAD_RATE
from ...model.sides import SIDES, Side, Sides
from ...numerics import factorise, room
from ...numerics.normal_cells import LOG_DENSITY
from ...numerics.room import cells_on
from ..gibbs.chain_state import START_WIDTH, block_precision
from ..gibbs.known_parts import conjugate_priors, latent_utilities
from ..gibbs.sweeps import NOISE_PRIOR, WEIGHTS_START_WIDTH
from ..kernel import Entries
from ..recording import NOT_RECORDED, Looks, Recording
from ..training_feedback import training_feedback
from .guide import ExactHeadGuide, noise_squares
from .head import PAIR_CELLS, Head, Moments, head_of
from .hyperparameters import SidePriors, by_block, expected_precision, times_kappa
from .objective import Collapsed, CollapsedELBO
from .rating_terms import AtPredictors, RatingTerms, cuts_ahead, say
from .settings import ExactHead
from .weight_steps import WeightSteps

#: Iterations before precisions of weights and rows, and rows' noise, leave their guesses.
_HOLD = 2
#: Standard deviation of the starting factors.
_START = 0.1


class HeadUpdates:
    """The fit's state and its iterations.

    Parameters
    ----------
    model : FactorizationModel
        With conjugate priors and a likelihood of Normal utilities; started.
    train : Ratings
    settings : ExactHead
    seed : int
        Of the starting factors and weights.
    device : torch.device
    implicit : Ratings, optional
        Whose pairs are the implicit feedback; those of `train` when not given.
    host_chunk : int
        Entries on the device at a time, where the pairs stay with the host (`Entries.streaming`); 0 where all
        are on the device.
    recording : Recording
        How what is done again in every iteration is recorded.

    Attributes
    ----------
    guide : ExactHeadGuide
    weight_steps : WeightSteps, or None
        Of the weights, where the model has implicit feedback.
    iterations : int
        Number of iterations done.
    """

    def __init__(
        self,
        model: FactorizationModel,
        train: Ratings,
        settings: ExactHead,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        implicit: Ratings | None = None,
        host_chunk: int = 0,
        recording: Recording = NOT_RECORDED,
    ) -> None:
        self.model, self.settings, self.device, self.dtype = model, settings, device, dtype
        self.unknown = latent_utilities(model)
        place = torch.device("cpu") if host_chunk else device
        feedback = training_feedback(train, place, torch.float64)
        self.entries = self.mask = _both_views(feedback, dtype, device, host_chunk)
        if implicit is not None:
            mask = training_feedback(implicit, place, dtype)
            self.mask = _both_views(mask, dtype, device, host_chunk)
        self.item_order = feedback.t_order.to(device)
        self.centre = float(model.centre)
        given = feedback.values.to(device)
        values = (given - self.centre).to(dtype)
        self.observed = self.unknown.observe(given) if self.unknown.latent else values
        #: Ratings as utilities, by which an ordered likelihood begins.
        nothing = torch.zeros((), dtype=torch.float64, device=device)
        self.plain = RatingTerms(values, None, torch.zeros_like(values), nothing)
        self.guide = self._start(train, seed)
        self.priors = self.guide_priors()
        self.guide.know(self.priors)
        # Adam's steps do not depend on the scale; its guard against division by zero does.
        self.scale = len(train) / 100.0
        self.loss = CollapsedELBO(self.scale)(model, self.guide)
        self.weight_steps = None
        if model.implicit is not None:
            self.weight_steps = WeightSteps(self.guide, self.loss, settings, recording)
        self.looks = Looks(recording)
        unasked = self.unknown.latent and self.unknown.asks_nothing(self.observed)
        self._of_ratings = Looks(recording if unasked else NOT_RECORDED)
        self.iterations = 0
        #: Predictors of the present state, where it has not been put back from a file.
        self._eta: Tensor | None = None
        #: The next iteration's cut points, where they have been found with this one's figures.
        self._cuts: Tensor | None = None

    def guide_priors(self) -> Sides[SidePriors]:
        """Return the priors that the q of rows' hyperparameters are conjugate to."""
        scale = 1.0 if self.model.implicit is None else self.model.implicit.scale
        found = conjugate_priors(self.model)
        return Sides(*(SidePriors(own.factors, own.bias, scale) for own in (found.user, found.item)))

    def _start(self, train: Ratings, seed: int) -> ExactHeadGuide:
        model = self.model
        guide = ExactHeadGuide(
            train.n_users,
            train.n_items,
            model.n_factors,
            biases=model.biases,
            implicit=model.implicit is not None,
            row_noise=model.noisy_sides,
            n_cuts=self.unknown.n_cuts,
        ).to(self.device)
        generator = torch.Generator().manual_seed(seed)
        priors, k = conjugate_priors(model), model.n_factors
        for side in SIDES:
            own, prior = guide.of(side), priors.of(side)
            own.to(self.dtype)
            for name in ("row_shape", "row_rate", "row_precision_shape"):
                setattr(own, name, getattr(own, name).double())
            noise = torch.randn(own.loc.shape, generator=generator).to(self.device, self.dtype)
            own.loc.copy_(noise * _START)
            if model.biases:
                own.loc[:, k] = 0.0
            own.covariance.copy_(_START**2 * torch.eye(own.loc.shape[1]))
            factors = torch.eye(k, dtype=torch.float64) * (START_WIDTH * prior.factors.guess(k)) ** -2
            bias = None
            if prior.bias is not None:
                bias = torch.tensor((START_WIDTH * prior.bias.guess(None)) ** -2, dtype=torch.float64)
            own.precision.copy_(block_precision(factors, bias))
            if model.implicit is not None:
                own.weights_precision.fill_((WEIGHTS_START_WIDTH * model.implicit.scale) ** -2)
                weights = torch.randn(own.weights.shape, generator=generator).to(self.device, self.dtype)
                with torch.no_grad():
                    own.weights.copy_(weights * 0.01)
                    if model.biases:
                        own.weights[:, k] = 0.0
        given = None if self.unknown.learned_noise or self.unknown.latent else model.likelihood.noise_sd
        sd = 0.9 * max(float(train.ratings.std()), 1e-3) if given is None else float(given)
        guide.noise_precision.fill_(sd**-2)
        guide.centre.fill_(self.centre)
        if self.unknown.latent:
            guide.cuts.copy_(self.unknown.start_cuts())
        guide.attach_likelihood(model.likelihood)
        return guide

    # ---------------------------------------------------------------- one iteration

    @property
    def latent(self) -> bool:
        """Whether the ratings' own likelihood is in force, and not ratings as utilities."""
        return self.unknown.latent and self.iterations >= self.settings.plain_iterations

    def iteration(self) -> dict[str, float]:
        """Update everything once, and return figures of the state.

        They are read once, at the end: a card is asked for a whole iteration ahead. What is not finite, or
        could not be factorised, makes a loss of NaN.
        """
        if self.weight_steps is not None:
            self.weight_steps.set_rates(self.iterations)
        begun = self.latent and self.iterations == self.settings.plain_iterations
        for side in SIDES:
            terms = self._terms(fit_cuts=side == "user", begun=begun and side == "user")
            loss = self._update(side, terms if side == "user" else terms.reordered(self.item_order))
        self.iterations += 1
        ahead, found = self._cuts_ahead()
        noise = self.guide.noise_precision.rsqrt()
        read: list[float] = torch.stack([loss.double(), self._finite().double(), noise, found]).tolist()
        self._cuts = ahead if read[3] else None
        return {"loss": read[0] * self.scale if read[1] else math.nan, "noise": read[2]}

    def _finite(self) -> Tensor:
        """Return whether rows and their variances are finite, ()."""
        found = torch.isfinite(self.guide.noise_precision)
        for side in SIDES:
            own = self.guide.of(side)
            for tensor in (own.loc, own.covariance.diagonal(dim1=1, dim2=2), own.precision):
                found = found & torch.isfinite(tensor.sum())
        return found

    def remember(self) -> None:
        """Put learned noise and cut points into the model's likelihood."""
        self.unknown.remember(self.guide.cuts, self.guide.noise_precision.rsqrt())

    @torch.no_grad()
    def predictors(self) -> Tensor:
        """Return E[eta] less the centre of every rating, (nnz,), in the users' order."""
        user, item, k = self.guide.user.loc, self.guide.item.loc, self.model.n_factors
        entries = self.entries.user
        found = user.new_zeros(len(entries.rows))
        for part, rows, columns in entries.pairs(cells_on(user.device, PAIR_CELLS) // user.shape[1]):
            u, v = user[rows], item[columns]
            found[part] = (u[:, :k] * v[:, :k]).sum(-1)
            if self.model.biases:
                found[part] += u[:, k] + v[:, k]
        return found

    @torch.no_grad()
    def _terms(self, *, fit_cuts: bool, begun: bool) -> RatingTerms:
        """Return what ratings say at the present predictors, after a step of the cut points."""
        guide, unknown = self.guide, self.unknown
        eta = self._eta if self._eta is not None else self.predictors()
        precision = self._precision(eta.dtype)
        if unknown.latent and not self.latent:
            squares = (self.plain.target - eta) ** 2
            constant = (0.5 * precision.double().log() + LOG_DENSITY).sum()
            return RatingTerms(self.plain.target, None, squares, constant)
        if unknown.latent and fit_cuts:
            cuts = self._cuts
            if cuts is None:
                start, sd = guide.cuts - self.centre, precision.double().rsqrt()
                cuts = unknown.fit_cuts(start, eta.double(), sd, self.observed, steps=_cut_steps(begun))
            guide.cuts.copy_(cuts + self.centre)
        given = AtPredictors(guide.cuts - self.centre, eta, precision)
        return self._of_ratings("What ratings say", partial(say, unknown, self.observed), given)

    def _precision(self, dtype: torch.dtype) -> Tensor:
        """Return the precision of every rating's utility, (nnz,), in the users' order."""
        guide, pairs = self.guide, self.entries.user
        own = guide.noise_precision.to(dtype) * pairs.at_rows(guide.user.row_precision)
        return own * pairs.at_columns(guide.item.row_precision)

    @torch.no_grad()
    def _cuts_ahead(self) -> tuple[Tensor | None, Tensor]:
        """Return the next iteration's cut points about the centre, and whether these are they (1 or 0).

        Steps of cut points are taken back where they overshoot, which only the host can see to. Where it
        would wait they are taken beforehand, and whether all of them were good is read with the figures.
        """
        device, done = self.guide.cuts.device, self.iterations
        found = None
        if room.waits(device) and self.latent and done < self.settings.max_iterations:
            assert self._eta is not None
            sd = self._precision(self._eta.dtype).double().rsqrt()
            steps = _cut_steps(done == self.settings.plain_iterations)
            work = partial(cuts_ahead, self.unknown, self.observed, steps)
            given = AtPredictors(self.guide.cuts - self.centre, self._eta.double(), sd)
            found = self._of_ratings(f"{steps} steps of cut points", work, given)
        if found is None:
            return None, torch.zeros((), dtype=torch.float64, device=device)
        return found[0], found[1].double()

    def _update(self, side: Side, terms: RatingTerms) -> Tensor:
        own, entries, guide = self.guide.of(side), self.entries.of(side), self.guide
        mask = self.mask.of(side)
        beta = self.settings.beta_user if side == "user" else self.settings.beta_item
        with torch.no_grad():
            other = guide.moments(side)
            row_precision = guide.noise_precision.to(self.dtype) * own.row_precision
            head = head_of(
                other, entries, terms.target, terms.share, own.precision, row_precision / beta, checked=False
            )
            diagonals, total = head.mean_precision()
            self._update_location(side, head, total, beta)
            given = Collapsed.of(guide, side, entries, head, other, terms, beta, (diagonals, total), mask)
        loss = self._step_weights(side, given)
        with torch.no_grad():
            if self.model.implicit is not None:
                said = beta * mask.means_back(diagonals * mask.root_counts.unsqueeze(-1))
                own.weights_sd.copy_((said + own.weights_precision).rsqrt())
            loc, covariance = guide.rows(side, head, mask)
            if self.iterations >= _HOLD:
                self._update_precisions(side, head)
            own.loc.copy_(loc)
            own.covariance = covariance
            self._eta = self.predictors()
            self._update_noise(side, other, terms)
        return loss

    def _step_weights(self, side: Side, given: Collapsed) -> Tensor:
        """Move the means of a side's weights up the collapsed bound."""
        if self.weight_steps is None:
            with torch.no_grad():
                loss: Tensor = self.loss(given)
                return loss
        return self.weight_steps(side, given)

    def _update_location(self, side: Side, head: Head, total: Tensor, beta: float) -> None:
        """Put q(mu) at its best, given the weights."""
        own = self.guide.of(side)
        prior = times_kappa(self.priors.of(side), own.precision)
        precision = beta * total + prior
        mean, _ = self.guide.encode_means(side, self.mask.of(side))
        slope = beta * head.pull(mean).sum(0) - own.location @ prior
        own.location += factorise.solve(precision, slope)
        inverse = factorise.inverse(by_block(precision, biases=self.model.biases))
        own.location_covariance.copy_(inverse)

    def _update_precisions(self, side: Side, head: Head) -> None:
        """Put q of the rows' and the weights' precisions at their best."""
        own, priors = self.guide.of(side), self.priors.of(side)
        mean, variance = self.guide.encode_means(side, self.mask.of(side))
        squares = head.squares_about_prior(mean, variance, own.location_covariance)
        about = (torch.outer(own.location, own.location) + own.location_covariance).double()
        own.precision.copy_(expected_precision(priors, squares + times_kappa(priors, about), len(own.loc)))
        if self.model.implicit is not None:
            n = len(own.weights)
            total = (own.weights.double() ** 2 + own.weights_sd.double() ** 2).sum(0)
            own.weights_precision.copy_((1.0 + 0.5 * n) / (priors.weights_scale**2 + 0.5 * total))

    def _update_noise(self, side: Side, other: Moments, terms: RatingTerms) -> None:
        """Put q of the rows' multipliers at its best, and the noise's precision where it is unknown."""
        guide, own, entries = self.guide, self.guide.of(side), self.entries.of(side)
        learned = side == "item" and (self.unknown.learned_noise or (self.unknown.latent and not self.latent))
        noisy = side in guide.row_noise and self.iterations >= _HOLD
        if not (learned or noisy):
            return
        assert self._eta is not None
        eta = self._eta if side == "user" else self._eta.index_select(0, self.item_order)
        if terms.share is None:
            # A rating that is its own utility is as far from the predictor as the predictor now is.
            terms = RatingTerms(terms.target, None, (terms.target - eta) ** 2, self.plain.constant)
        squares = noise_squares(other, entries, terms, own.loc, own.covariance, eta)
        if noisy:
            counts = entries.indptr.diff().double()
            own.row_shape.copy_(own.row_precision_shape + 0.5 * counts)
            own.row_rate.copy_(own.row_precision_shape + 0.5 * guide.noise_precision * squares)
            given = own.row_shape, own.row_rate, own.row_precision_shape
            own.row_precision_shape.copy_(self.looks("The shape of noise", _best_noise_shape, given))
        if learned:
            total = (own.row_precision.double() * squares).sum()
            shape = NOISE_PRIOR[0] + 0.5 * entries.indices.numel()
            guide.noise_precision.copy_(shape / (NOISE_PRIOR[1] + 0.5 * total))


def _cut_steps(begun: bool) -> int:
    """Return how many steps cut points take: more when they leave where they start."""
    return 8 if begun else 2


def _best_noise_shape(given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return best_noise_shape(*given)


def best_noise_shape(shape: Tensor, rate: Tensor, a: Tensor) -> Tensor:
    """Return the shape a of the prior Gamma(a, a) of multipliers with q Gamma(shape, rate), by Newton steps.

    It maximises the expected log-density of the multipliers and of the logarithm of a.
    """
    n = len(shape)
    total = (torch.digamma(shape) - rate.log() - shape / rate).sum()
    x = a.log()
    for _ in range(5):
        a = x.exp()
        level = n * (x + 1.0 - torch.digamma(a)) + total
        pull = 0.5 * SPREAD_RATE * a.rsqrt()
        slope = a * level + pull - 0.5
        curve = a * level + a * n * (1.0 - a * torch.polygamma(1, a)) - 0.5 * pull
        step = torch.where(curve < 0.0, -slope / curve, slope.sign() * 0.1)
        x = x + step.clamp(-0.5, 0.5)
    return x.exp()


def _both_views(
    feedback: Feedback, dtype: torch.dtype, device: torch.device, host_chunk: int
) -> Sides[Entries]:
    views = Sides(Entries.of(feedback, dtype), Entries.of_transpose(feedback, dtype))
    if not host_chunk:
        return views
    return Sides(*(own.streaming(device, host_chunk) for own in (views.user, views.item)))
