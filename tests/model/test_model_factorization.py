"""The generative model as a Pyro model: sites, plates, moments of its prior predictive, settings."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive

from pyro_bmf import PyroBmfError
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import Block, TrainingBlocks
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.priors.normal import NormalPrior

N_USERS, N_ITEMS = 4, 3
USERS, ITEMS = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 1, 2])
RATINGS = torch.tensor([1.0, 2.0, 4.0, 5.0])


def block(*, user_batch_size: int = 10, item_batch_size: int = 10) -> TrainingBlocks:
    return TrainingBlocks.build(
        Feedback.from_coo(USERS, ITEMS, RATINGS, N_USERS, N_ITEMS),
        Feedback.from_coo(ITEMS, USERS, RATINGS, N_ITEMS, N_USERS),
        USERS,
        ITEMS,
        RATINGS,
        user_batch_size=user_batch_size,
        item_batch_size=item_batch_size,
    )


def whole() -> Block:
    return block().block(0, 0)


def make(*, biases: bool = True, centred: bool = True) -> FactorizationModel:
    model = FactorizationModel(
        2,
        user_prior=NormalPrior(0.5, 0.8),
        item_prior=NormalPrior(-0.25, 1.5),
        user_bias_prior=NormalPrior(0.1, 0.4) if biases else None,
        item_bias_prior=NormalPrior(-0.2, 0.3) if biases else None,
        likelihood=NormalLikelihood(0.7),
        biases=biases,
        centred=centred,
    )
    model.start(RATINGS.numpy())
    return model


@pytest.mark.parametrize("biases", [False, True])
def test_sites_and_plates(biases: bool) -> None:
    trace = poutine.trace(make(biases=biases)).get_trace(whole(), beta=(1.0, 1.0))
    sites = {
        name: [frame.name for frame in site["cond_indep_stack"]]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not name.startswith("_") and name not in ("users", "items", "ratings")
    }
    expected = {"user_factors": ["users"], "user_bias": ["users"], "item_factors": ["items"]}
    expected |= {"item_bias": ["items"], "rating": ["ratings"]}
    if not biases:
        del expected["user_bias"], expected["item_bias"]
    assert sites == expected
    assert list(sites) == list(expected), "the order of sampling"
    assert trace.nodes["user_factors"]["value"].shape == (N_USERS, 2)
    assert trace.nodes["item_factors"]["value"].shape == (N_ITEMS, 2)
    assert trace.nodes["rating"]["value"].shape == (4,)
    assert trace.nodes["rating"]["is_observed"]


@pytest.mark.parametrize("biases", [False, True])
def test_the_log_joint_is_the_models_density(biases: bool) -> None:
    """log p(u) + log p(v) + log p(x | u, v), written out for one draw."""
    torch.manual_seed(0)
    model, data = make(biases=biases), whole()
    trace = poutine.trace(model).get_trace(data, beta=(1.0, 1.0))
    values = {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}

    def normal(x: torch.Tensor, mean: float | torch.Tensor, sd: float) -> torch.Tensor:
        return (-0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)).sum()

    expected = normal(values["user_factors"], 0.5, 0.8) + normal(values["item_factors"], -0.25, 1.5)
    mean = torch.tensor(3.0)  # of the ratings
    for i, j, x in zip(USERS, ITEMS, RATINGS, strict=True):
        row, column = int((data.users == i).nonzero()), int((data.items == j).nonzero())
        eta = mean + values["user_factors"][row] @ values["item_factors"][column]
        if biases:
            eta = eta + values["user_bias"][row] + values["item_bias"][column]
        expected = expected + normal(x, eta, 0.7)
    if biases:
        expected = expected + normal(values["user_bias"], 0.1, 0.4) + normal(values["item_bias"], -0.2, 0.3)
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_plates_scale_nothing_and_block_weights_only_latents() -> None:
    blocks = block(user_batch_size=3, item_batch_size=1)
    model = make()
    for part in blocks:
        trace = poutine.trace(model).get_trace(part, beta=(0.5, 0.25))
        scales = {name: site["scale"] for name, site in trace.nodes.items() if site["type"] == "sample"}
        assert ("rating" in scales) == (len(part.ratings) > 0), "a block may have no ratings"
        assert scales.get("rating", 1.0) == 1.0
        for name in ("user_factors", "user_bias"):
            assert scales[name] == pytest.approx(0.5 / 3)
        for name in ("item_factors", "item_bias"):
            assert scales[name] == pytest.approx(0.25 / 2)


def test_the_prior_predictive_has_the_models_moments() -> None:
    pyro.set_rng_seed(0)
    model, n = make(), 20_000
    with torch.no_grad():
        # One draw a run is slow in Python; many rows a run are as good, since rows are independent.
        users = torch.arange(n)
        feedback = Feedback.from_coo(users, users, torch.zeros(n), n, n)
        blocks = TrainingBlocks.build(
            feedback, feedback, users, users, torch.zeros(n), user_batch_size=n, item_batch_size=n
        )
        trace = poutine.trace(poutine.uncondition(model)).get_trace(blocks.block(0, 0), beta=(0.1, 0.1))
        few = Predictive(poutine.uncondition(model), num_samples=5)(whole(), beta=(0.1, 0.1))
    assert few["user_factors"].shape == (5, N_USERS, 2)
    assert few["item_bias"].shape == (5, N_ITEMS)
    assert few["rating"].shape == (5, 4)

    def check(name: str, mean: float, sd: float) -> None:
        value = trace.nodes[name]["value"]
        error = sd / value.numel() ** 0.5
        assert abs(float(value.mean()) - mean) < 4 * error, name
        # A product of Normals has heavier tails than a Normal: eight errors of a Normal's sd.
        assert abs(float(value.std()) / sd - 1) < 8 / (2 * value.numel()) ** 0.5, name

    check("user_factors", 0.5, 0.8)
    check("item_factors", -0.25, 1.5)
    check("user_bias", 0.1, 0.4)
    check("item_bias", -0.2, 0.3)
    # eta = mean + sum of two products + biases; Var(uv) = m1^2 s2^2 + m2^2 s1^2 + s1^2 s2^2.
    product = 0.5**2 * 1.5**2 + 0.25**2 * 0.8**2 + 0.8**2 * 1.5**2
    check("rating", 3.0 - 2 * 0.125 + 0.1 - 0.2, (2 * product + 0.4**2 + 0.3**2 + 0.7**2) ** 0.5)


def test_raw_or_centred() -> None:
    u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    assert make(centred=False).predictor(u, v).tolist() == [1.0]
    assert make(centred=True).predictor(u, v).tolist() == [4.0]
    bias = torch.tensor([0.5])
    assert make(centred=False).predictor(u, v, bias, 2 * bias).tolist() == [2.5]
    draws = torch.randn(6, 5, 2)
    assert make().predictor(draws, draws, draws[..., 0], draws[..., 1]).shape == (6, 5)


@pytest.mark.parametrize("biases", [False, True])
def test_settings_make_the_round_trip(biases: bool) -> None:
    model = make(biases=biases)
    again = FactorizationModel.from_settings(model.settings())
    again.load_state_dict(model.state_dict())
    assert again.settings() == model.settings()
    assert float(again.centre) == 3.0
    assert again.user_prior.scale == 0.8
    assert again.item_prior.scale == 1.5


def test_errors() -> None:
    with pytest.raises(PyroBmfError, match="n_factors"):
        FactorizationModel(0)
    with pytest.raises(PyroBmfError, match="nan"):
        FactorizationModel(2).start(np.array([1.0, np.nan]))
