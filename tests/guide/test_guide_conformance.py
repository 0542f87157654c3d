"""What every guide keeps to, whatever its settings: one suite over the variants, and over guides to come.

A case says how a guide is made and what a fit with it needs. What holds for any guide (`CASES`) asks for
`encode_side`, `settings`, `from_settings` and a state alone; what holds for guides that are sites of a Pyro
program (`PROGRAMS`) is about the objective too. Another guide class joins `CASES` with a `make` of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from literal import randomise
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_bmf import Posterior, fit, random_split
from pyro_bmf.data import Split, synthetic_ratings
from pyro_bmf.methods.coordinate_ascent.guide import ConjugateGuide
from pyro_bmf.methods.coordinate_ascent.settings import CoordinateAscent
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective, eta_moments
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.methods.exact_head.guide import ExactHeadGuide
from pyro_bmf.methods.exact_head.settings import ExactHead
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import TrainingBlocks
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.rows import RowPosterior

N_USERS, N_ITEMS, K = 9, 7, 3
SIDES = ("user", "item")
SIZES = {"user": N_USERS, "item": N_ITEMS}
PRIORS = {"user": (0.8, 0.4), "item": (0.6, 0.5)}
RAGGED = [(100, 100), (4, 3)]


@dataclass(frozen=True, eq=False)
class Case:
    """A guide under test.

    Attributes
    ----------
    make : callable
        From whether rows have biases to a guide with random content for `N_USERS` x `N_ITEMS` and K factors.
    fit : dict
        Settings of a fit that uses it, by name.
    likelihood : Likelihood
        By which a guide reads the ratings of new rows.
    folded : float
        How far a folded-in row may be from the training row of the same ratings: rounding, unless the
        training row is the fixed point of an iteration.
    """

    name: str
    make: Callable[[bool], nn.Module]
    fit: dict[str, Any] = field(default_factory=dict)
    folded: float = 1e-5
    likelihood: Likelihood = field(default_factory=NormalLikelihood)


def program(name: str, *, elbo: str = "mean-field", **changes: Any) -> Case:
    """A variant of the cross-feedback guide."""

    def make(biases: bool) -> nn.Module:
        torch.manual_seed(0)
        guide = CrossFeedbackGuide(
            EncoderSettings(**{"n_units": 5, "n_tower_outputs": 4, **changes}),
            N_USERS,
            N_ITEMS,
            K,
            biases=biases,
            user_scales=PRIORS["user"],
            item_scales=PRIORS["item"],
            mean_counts=(4.0, 5.0),
        )
        randomise(guide, 1, 0.3)
        return guide

    return Case(name, make, {"elbo": elbo, **changes})


PROGRAMS = [
    program("diagonal"),
    program("closed-form", elbo="closed-form"),
    program("residual", residual=True),
    program("low-rank", covariance="low-rank"),
    program("full", covariance="full"),
    program("bayesian input", bayesian_input=True),
    program("basis", n_bases=2),
    program("basis, bayesian input", n_bases=2, bayesian_input=True),
    program(
        "all at once",
        elbo="closed-form",
        residual=True,
        covariance="full",
        bayesian_input=True,
        n_tower_layers=0,
    ),
    program("all at once, low-rank", residual=True, covariance="low-rank", covariance_rank=1, n_bases=1),
]


def conjugate(name: str, *, ordered: bool) -> Case:
    """Coordinate ascent's guide: moments of the other side in place of an encoder's weights."""

    levels = [1.0, 2.0, 3.0, 4.0, 5.0]
    likelihood = OrderedProbitLikelihood(levels) if ordered else NormalLikelihood()

    def make(biases: bool) -> nn.Module:
        torch.manual_seed(0)
        guide = ConjugateGuide(N_USERS, N_ITEMS, K, biases=biases, n_cuts=4 if ordered else 0)
        for side, n in SIZES.items():
            width = K + biases
            root = 0.3 * torch.randn(n, width, width)
            rows = guide.of(side)
            rows.loc.copy_(torch.randn(n, width))
            rows.covariance.copy_(root @ root.mT + 0.1 * torch.eye(width))
            rows.prior_precision.copy_(torch.rand(width) + 0.5)
        guide.noise_precision.fill_(1.7)
        guide.attach(None, None, likelihood)
        if ordered:
            guide.cuts.copy_(torch.tensor([1.2, 2.6, 3.3, 4.9]))
            guide.centre.fill_(3.0)
        return guide

    word = "ordered-probit" if ordered else "normal"
    method = CoordinateAscent(max_iterations=120, patience=None)
    settings = {"method": method, "likelihood": word}
    return Case(name, make, settings, folded=1e-2, likelihood=likelihood)


def exact_head(name: str, *, ordered: bool) -> Case:
    """The guide with an exact head: an encoder of the mask, then the other side's moments."""

    levels = [1.0, 2.0, 3.0, 4.0, 5.0]
    likelihood = OrderedProbitLikelihood(levels) if ordered else NormalLikelihood()

    def make(biases: bool) -> nn.Module:
        torch.manual_seed(0)
        guide = ExactHeadGuide(
            *(N_USERS, N_ITEMS, K),
            biases=biases,
            implicit=True,
            row_noise=("user", "item") if ordered else (),
            n_cuts=4 if ordered else 0,
        )
        guide.requires_grad_(False)
        rows = []
        for side, n in SIZES.items():
            own, width = guide.of(side), K + biases  # type: ignore[arg-type]
            own.weights.copy_(0.3 * torch.randn(own.weights.shape))
            own.location.copy_(0.2 * torch.randn(width))
            own.precision.copy_(torch.diag(torch.rand(width) + 0.5))
            own.row_shape.copy_(3.0 + torch.rand(n))
            own.row_rate.copy_(3.0 + torch.rand(n))
            root = 0.3 * torch.randn(n, width, width)
            shape, rate = (own.row_shape, own.row_rate) if ordered else (None, None)
            covariance = root @ root.mT + 0.1 * torch.eye(width)
            rows.append(guide.posterior(torch.randn(n, width), covariance, shape, rate))
        guide.noise_precision.fill_(1.7)
        guide.attach(*rows, likelihood)
        if ordered:
            guide.cuts.copy_(torch.tensor([1.2, 2.6, 3.3, 4.9]))
            guide.centre.fill_(3.0)
        return guide

    word = "ordered-probit" if ordered else "normal"
    settings = {
        "method": ExactHead(max_iterations=120, plain_iterations=10),
        "likelihood": word,
        "implicit": True,
        "row_noise": "both" if ordered else "none",
    }
    return Case(name, make, settings, folded=2e-2, likelihood=likelihood)


CASES: list[Case] = [
    *PROGRAMS,
    exact_head("exact head", ordered=False),
    exact_head("exact head, ordered probit", ordered=True),
    conjugate("conjugate", ordered=False),
    conjugate("conjugate, ordered probit", ordered=True),
]

over_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
over_programs = pytest.mark.parametrize("case", PROGRAMS, ids=lambda case: case.name)


@dataclass(frozen=True, eq=False)
class Problem:
    """Ratings of a few users on a few items; user 0 and item 6 have none."""

    users: Tensor
    items: Tensor
    ratings: Tensor

    @classmethod
    def draw(cls, seed: int = 0) -> Problem:
        rng = np.random.default_rng(seed)
        seen = rng.random((N_USERS, N_ITEMS)) < 0.6
        seen[0] = seen[:, 6] = False
        users, items = (torch.from_numpy(x) for x in np.nonzero(seen))
        return cls(users, items, torch.from_numpy(rng.integers(1, 6, len(users)).astype(float)))

    def feedback(self, side: str) -> Feedback:
        own, other = (self.users, self.items) if side == "user" else (self.items, self.users)
        sizes = (N_USERS, N_ITEMS) if side == "user" else (N_ITEMS, N_USERS)
        return Feedback.from_coo(own, other, self.ratings - 3.0, *sizes)

    def blocks(self, user_batch_size: int = 100, item_batch_size: int = 100) -> TrainingBlocks:
        return TrainingBlocks.build(
            self.feedback("user"),
            self.feedback("item"),
            self.users,
            self.items,
            self.ratings,
            user_batch_size=user_batch_size,
            item_batch_size=item_batch_size,
        )


def assert_same_rows(ours: RowPosterior, theirs: RowPosterior, tolerance: float = 1e-11) -> None:
    assert ours.tensors().keys() == theirs.tensors().keys()
    for name, tensor in ours.tensors().items():
        torch.testing.assert_close(tensor, theirs.tensors()[name], rtol=0, atol=tolerance)


def assert_sound(rows: RowPosterior, n: int, biases: bool) -> None:
    """Shapes, positive scales, and a covariance whose marginals are the scales."""
    assert len(rows) == n
    assert rows.loc.shape == rows.scale.shape == (n, K)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in rows.tensors().values())
    assert all(not tensor.requires_grad for tensor in rows.tensors().values())
    assert bool((rows.scale > 0).all())
    assert (rows.bias_loc is not None) is (rows.bias_scale is not None) is biases
    if rows.bias_loc is not None:
        assert rows.bias_loc.shape == rows.bias_scale.shape == (n,)
        assert bool((rows.bias_scale > 0).all())
    if rows.tril is not None:
        assert rows.tril.shape == (n, K + biases, K + biases)
        assert not torch.triu(rows.tril, 1).any()
        assert bool((rows.tril.diagonal(dim1=-2, dim2=-1) > 0).all())
        marginal = rows.covariance().diagonal(dim1=-2, dim2=-1).sqrt()
        torch.testing.assert_close(marginal[:, :K], rows.scale)
        if rows.bias_scale is not None:
            torch.testing.assert_close(marginal[:, K], rows.bias_scale)


# ---------------------------------------------------------------- any guide


@over_cases
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_training_rows_and_new_rows_are_sound(case: Case, biases: bool, side: Any) -> None:
    guide, feedback = case.make(biases), Problem.draw().feedback(side)
    known = guide.training_rows(side, feedback)
    new = guide.encode_side(side, feedback)
    assert_sound(known, SIZES[side], biases)
    assert_sound(new, SIZES[side], biases)
    assert known.tensors().keys() == new.tensors().keys()


@over_cases
@pytest.mark.parametrize("side", SIDES)
def test_rows_without_ratings(case: Case, side: Any) -> None:
    guide, whole = case.make(True), Problem.draw().feedback(side)
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = Feedback.from_coo(nothing, nothing, torch.zeros(0), 3, whole.n_columns)
    rows = guide.encode_side(side, empty)
    assert_sound(rows, 3, True)
    place = 0 if side == "user" else 6
    assert float(whole.counts[place]) == 0.0
    among = guide.encode_side(side, whole).select(torch.tensor([place] * 3))
    assert_same_rows(rows, among)


@over_cases
@pytest.mark.parametrize("side", SIDES)
def test_new_rows_depend_on_their_ratings_alone(case: Case, side: Any) -> None:
    """Not on their company or order, nor on which training row has the same place."""
    guide, feedback = case.make(True), Problem.draw().feedback(side)
    guide.training_rows(side, feedback)
    rows = guide.encode_side(side, feedback)
    order = torch.randperm(len(rows))
    assert_same_rows(guide.encode_side(side, feedback.select(order)), rows.select(order))
    twins = torch.tensor([2, 2, 1])
    assert_same_rows(guide.encode_side(side, feedback.select(twins)), rows.select(twins))


@over_cases
def test_encoding_new_rows_changes_nothing(case: Case) -> None:
    guide, feedback = case.make(True), Problem.draw().feedback("user")
    known = guide.training_rows("user", feedback)
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    again = guide.encode_side("user", Problem.draw(5).feedback("user"))
    assert len(again) == N_USERS
    assert_same_rows(guide.training_rows("user", feedback), known, 0.0)
    for name, tensor in guide.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@over_cases
@pytest.mark.parametrize("biases", [False, True])
def test_settings_and_state_make_the_round_trip(case: Case, biases: bool) -> None:
    guide, problem = case.make(biases), Problem.draw()
    for side in SIDES:
        guide.training_rows(side, problem.feedback(side))  # type: ignore[arg-type]
    again = type(guide).from_settings(guide.settings())
    again.load_state_dict(guide.state_dict(), strict=True)
    rows = [guide.training_rows(side, problem.feedback(side)) for side in SIDES]  # type: ignore[arg-type]
    again.attach(*rows, case.likelihood)
    assert again.settings() == guide.settings()
    for side in SIDES:
        feedback = problem.feedback(side)
        assert_same_rows(again.encode_side(side, feedback), guide.encode_side(side, feedback), 0.0)
        known = guide.training_rows(side, feedback)  # type: ignore[arg-type]
        assert_same_rows(again.training_rows(side, feedback), known, 0.0)  # type: ignore[arg-type]


# ---------------------------------------------------------------- guides that are Pyro programs


def make_objective(case: Case, *, biases: bool = True, elbo: str | None = None) -> Objective:
    torch.manual_seed(0)
    model = FactorizationModel(
        K,
        user_prior=NormalPrior(0.3, PRIORS["user"][0]),
        item_prior=NormalPrior(-0.2, PRIORS["item"][0]),
        user_bias_prior=NormalPrior(0.1, PRIORS["user"][1]) if biases else None,
        item_bias_prior=NormalPrior(0.0, PRIORS["item"][1]) if biases else None,
        likelihood=NormalLikelihood("learned"),
        biases=biases,
    )
    model.start(Problem.draw().ratings.numpy())
    guide: Any = case.make(biases)
    return Objective(model, guide, elbo=elbo or case.fit["elbo"])


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of first-layer weights and of what they add up to are the same for every row and block."""

    def by_column(like: Tensor) -> Tensor:
        return torch.linspace(-1.2, 0.9, like.shape[-1]).expand_as(like)

    monkeypatch.setattr(torch, "randn_like", by_column)


def literal_parts(objective: Objective, problem: Problem) -> tuple[Tensor, dict[str, Tensor]]:
    """Each rating's expected log-likelihood and each row's KL, of q of all rows at once, in dense algebra."""
    model, rows, kl = objective.model, {}, {}
    for side in SIDES:
        places = torch.arange(SIZES[side])
        q = objective.guide.encode_rows(side, problem.feedback(side), rows=places, sample=True)  # type: ignore[arg-type]
        rows[side] = q
        covariance = q.covariance()
        priors = [(0, K, getattr(model, f"{side}_prior"), "factors", q.loc)]
        if q.bias_loc is not None:
            priors.append((K, K + 1, getattr(model, f"{side}_bias_prior"), "bias", q.bias_loc[:, None]))
        for start, stop, prior, part, loc in priors:
            width = stop - start
            mine = torch.distributions.MultivariateNormal(loc, covariance[:, start:stop, start:stop])
            other = torch.distributions.MultivariateNormal(
                prior.location.expand(width), prior.spread**2 * torch.eye(width)
            )
            kl[f"{side}_{part}"] = kl_divergence(mine, other)
    u, v = (rows[side].select(ids) for side, ids in (("user", problem.users), ("item", problem.items)))
    noise = model.likelihood.noise_sd
    mean = (u.loc * v.loc).sum(1) + model.centre
    su, sv = u.covariance(), v.covariance()
    second = torch.einsum(
        "nkl,nkl->n",
        su[:, :K, :K] + u.loc[:, :, None] * u.loc[:, None],
        sv[:, :K, :K] + v.loc[:, :, None] * v.loc[:, None],
    )
    variance = second - (u.loc * v.loc).sum(1) ** 2
    if u.bias_loc is not None and v.bias_loc is not None:
        mean = mean + u.bias_loc + v.bias_loc
        variance = variance + su[:, K, K] + sv[:, K, K]
    square = (problem.ratings - mean) ** 2 + variance
    return -square / (2 * noise**2) - noise.log() - 0.5 * math.log(2 * math.pi), kl


@over_programs
@pytest.mark.parametrize(("user_size", "item_size"), RAGGED)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.usefixtures("same_noise")
def test_blocks_sum_to_the_whole_for_every_row(
    case: Case, user_size: int, item_size: int, biases: bool
) -> None:
    """Each user's and item's KL, each rating's expectation, the weights' KL once; values and gradients."""
    problem, beta = Problem.draw(), (0.7, 1.9)
    objective = make_objective(case, biases=biases, elbo="closed-form")
    likelihood, kl = literal_parts(objective, problem)
    seen = {name: torch.zeros(len(value)) for name, value in kl.items()}
    of_users, total, sums = torch.zeros(N_USERS), torch.zeros(()), {}
    for block in problem.blocks(user_size, item_size):
        q = _traced(objective, block, beta)
        for name in kl:
            rows = block.users if name.startswith("user") else block.items
            weight = beta[0 if name.startswith("user") else 1]
            prior = getattr(objective.model, f"{name.removesuffix('_factors')}_prior")
            p = prior(name, K if "factors" in name else None)
            seen[name][rows] += (kl_divergence(q[name]["fn"], p) * q[name]["scale"]).detach() / weight
        if len(block.ratings):
            fns = {name: node["fn"] for name, node in q.items() if name in kl}
            moments = eta_moments(fns, objective.model.centre, block.rating_users, block.rating_items)
            share = objective.model.likelihood.expected_log_prob(block.ratings, *moments)
            of_users.index_add_(0, block.users[block.rating_users], share.detach())
        loss, parts = objective(block, beta=beta)
        total = total + loss
        sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
    for name, value in kl.items():
        torch.testing.assert_close(seen[name], value.detach(), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(sums[f"kl_{name}"], value.sum().detach(), rtol=1e-9, atol=1e-10)
    whole = torch.zeros(N_USERS).index_add_(0, problem.users, likelihood.detach())
    torch.testing.assert_close(of_users, whole)
    torch.testing.assert_close(sums["log_likelihood"], likelihood.sum().detach(), rtol=1e-10, atol=0)
    expected = -likelihood.sum()
    for name, value in kl.items():
        expected = expected + beta[0 if name.startswith("user") else 1] * value.sum()
    weights = objective.guide.weights_kl()
    assert (weights is not None) is ("kl_weights" in sums) is case.fit.get("bayesian_input", False)
    if weights is not None:
        torch.testing.assert_close(sums["kl_weights"], weights.detach(), rtol=1e-10, atol=0)
        expected = expected + weights
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    parameters = dict(objective.named_parameters())
    ours, theirs = (
        torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for value in (total, expected)
    )
    for name, mine, other in zip(parameters, ours, theirs, strict=True):
        assert other is not None, f"{name} has no effect"
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def _traced(objective: Objective, block: Any, beta: tuple[float, float]) -> dict[str, Any]:
    from pyro import poutine

    return dict(poutine.trace(objective.guide).get_trace(block, beta=beta).nodes)


@over_programs
@pytest.mark.parametrize("elbo", ["mean-field", "trace", "closed-form"])
def test_a_step_is_finite_and_the_same_for_the_same_seed(case: Case, elbo: str) -> None:
    problem, states = Problem.draw(), []
    for seed in (3, 3, 4):
        objective = make_objective(case, elbo=elbo)
        optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
        torch.manual_seed(seed)
        for block in problem.blocks(4, 3):
            loss, _ = objective(block, beta=(0.3, 0.3))
            optimizer.zero_grad()
            loss.backward()
            for name, parameter in objective.named_parameters():
                assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name
            optimizer.step()
        states.append(objective.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    noisy = elbo != "closed-form" or case.fit.get("bayesian_input", False)
    other = any(not torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert other is noisy, "without draws nothing depends on the seed"


# ---------------------------------------------------------------- fits


@pytest.fixture(scope="module")
def split() -> Split:
    ratings = synthetic_ratings(40, 30, 600, n_factors=2, noise=0.5, seed=0, scale="1:5:1").ratings
    return random_split(ratings, seed=0)


@pytest.fixture
def single_precision() -> Iterator[None]:
    """Fits compute in the precision that users have."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def run(split: Split, case: Case, **more: Any) -> Posterior:
    short: dict[str, Any] = {"n_factors": 3}
    if "method" not in case.fit:  # no other method has blocks
        short |= {"max_iterations": 3, "user_batch_size": 20, "item_batch_size": 15}
    settings = preset("amortized").replace(**{**short, **case.fit})
    return fit(split, settings, threads=1, progress=False, device="cpu", **more).posterior


@over_cases
@pytest.mark.usefixtures("single_precision")
def test_a_fit_is_saved_folds_in_and_is_started_from(case: Case, split: Split, tmp_path: Any) -> None:
    posterior = run(split, case)
    for rows in (posterior.user_rows, posterior.item_rows):
        assert all(bool(torch.isfinite(tensor).all()) for tensor in rows.tensors().values())
    test = split.test
    mean, sd = posterior.predict_mean(test.users, test.items), posterior.predict_sd(test.users, test.items)
    # Same seed, same bits; and so after saving.
    for again in (run(split, case), Posterior.load(posterior.save(tmp_path))):
        assert np.array_equal(again.predict_mean(test.users, test.items), mean)
        assert np.array_equal(again.predict_sd(test.users, test.items), sd)
    # A new user with the ratings of an old one: the same encoder's, and never surer than the old one.
    train, user = split.train, int(split.train.users[0])
    own = train.users == user
    items = train.item_vocabulary.raw(train.items[own]).tolist()
    folded = posterior.fold_in(dict(zip(items, train.ratings[own].tolist(), strict=True)))
    old = posterior.user_rows.select(torch.tensor([user]))
    new = folded.posterior
    assert new.tensors().keys() == old.tensors().keys()
    if not case.fit.get("residual"):
        assert_same_rows(new, old, case.folded)
    again = Posterior.load(tmp_path).fold_in(dict(zip(items, train.ratings[own].tolist(), strict=True)))
    assert_same_rows(again.posterior, new, 0.0)
    table = folded.recommend(n=3)
    assert bool(np.isfinite(table[["mean", "sd", "lower", "upper"]].to_numpy()).all())


@over_programs
@pytest.mark.usefixtures("single_precision")
def test_warm_start(case: Case, split: Split) -> None:
    """Known rows keep what is theirs on either side; new ones start fresh; all else is copied."""
    from pyro_bmf.methods.build_model import build_model
    from pyro_bmf.methods.cross_feedback.warm_start import carry_over

    earlier = run(split, case)
    old = earlier.guide
    grown = random_split(synthetic_ratings(50, 36, 900, n_factors=2, noise=0.5, seed=1).ratings, seed=0).train
    model = build_model(preset("amortized").replace(n_factors=3).model)
    torch.manual_seed(1)
    guide = CrossFeedbackGuide(old.guide_settings, grown.n_users, grown.n_items, 3, biases=True)
    fresh = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    carry_over(earlier, model, guide, grown)
    ids = {
        "user": (grown.user_vocabulary.ids.tolist(), earlier.user_vocabulary.ids.tolist()),
        "item": (grown.item_vocabulary.ids.tolist(), earlier.item_vocabulary.ids.tolist()),
    }
    before, compared = old.state_dict(), 0
    for name, tensor in guide.state_dict().items():
        side = name[:4]
        owner = side
        if any(f".{table}" in name for table in ("data_weight", "latent_weight", "latent_coeff")):
            owner = "item" if side == "user" else "user"
        if tensor.shape[:1] != (len(ids[owner][0]),) or "scales" in name or name.endswith("prior_scale"):
            if "scales" not in name:
                assert torch.equal(tensor, before[name]), name
            continue
        compared += 1
        for place, row in enumerate(ids[owner][0]):
            if row in ids[owner][1]:
                expected = before[name][ids[owner][1].index(row)]
            elif "encoder" in name and not name.endswith("log_scale"):
                expected = torch.zeros_like(tensor[place])
            else:
                expected = fresh[name][place]
            assert torch.equal(tensor[place], expected), name
    assert compared >= 6
    assert any(row not in ids["user"][1] for row in ids["user"][0])
    warm = run(split, case, warm_start=earlier)
    assert bool(torch.isfinite(warm.user_rows.loc).all())
