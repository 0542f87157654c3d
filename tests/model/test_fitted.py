"""What every fitted method answers: guides, rows, pairs of rows and draws keep to their interfaces."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.coordinate_ascent.guide import ConjugateGuide
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.exact_head.guide import ExactHeadGuide
from pyro_bmf.methods.gibbs.guide import ChainGuide
from pyro_bmf.model import NormalLikelihood, OrderedLogisticLikelihood, OrderedProbitLikelihood
from pyro_bmf.model.fitted import Guide, NormalRowsGuide, RowPairs, Rows
from pyro_bmf.model.row_draws import DrawnPairs, RowDraws
from pyro_bmf.model.rows import NormalPairs, RowPosterior
from pyro_bmf.model.sampling import ChainDraws, IndependentDraws, Sampling
from pyro_bmf.numerics.keyed_draws import Stream


def members(interface: type) -> set[str]:
    """Return the names that an interface declares."""
    return {name for name in vars(interface) if not name.startswith("_")} | {
        name for name in vars(interface) if name == "__len__"
    }


@pytest.mark.parametrize(
    ("interface", "filled_by"),
    [
        (Guide, (CrossFeedbackGuide, ConjugateGuide, ExactHeadGuide, ChainGuide)),
        (Rows, (RowPosterior, RowDraws)),
        (RowPairs, (NormalPairs, DrawnPairs)),
        (Sampling, (IndependentDraws, ChainDraws)),
    ],
)
def test_each_answers_every_question(interface: type, filled_by: tuple[type, ...]) -> None:
    asked = members(interface)
    assert 5 <= len(asked) <= 20
    for one in filled_by:
        # Attributes of a dataclass stand among its annotations.
        annotated = {name for base in one.__mro__ for name in inspect.get_annotations(base)}
        assert asked <= set(dir(one)) | annotated, f"{one.__name__} lacks {asked - set(dir(one)) - annotated}"


def test_an_own_guide_has_two_methods_to_give() -> None:
    class Own(NormalRowsGuide):
        def settings(self) -> dict[str, Any]:
            return {"kind": "own"}

    own = Own()
    assert members(Guide) - {"settings"} <= set(dir(own))
    with pytest.raises(TypeError, match="Own is a guide without encode_side"):
        own.encode_side("user", None)  # type: ignore[arg-type]
    assert own.row_priors("user", None) is None  # type: ignore[arg-type]
    assert own.hyperparameters() == {}


def test_a_chain_has_the_draws_that_it_kept() -> None:
    chain, free = ChainDraws(40), IndependentDraws()
    assert (chain.number(None), chain.number(30), free.number(None), free.number(None, 7)) == (40, 30, 400, 7)
    assert free.number(900) == 900
    with pytest.raises(SettingsError, match="is 41, but the chain kept 40 draws"):
        chain.number(41)
    assert (chain.at_most(100), chain.at_most(10), free.at_most(100)) == (40, 10, 100)
    assert {chain.one(seed) for seed in range(400)} == set(range(40))
    assert {free.one(seed) for seed in range(9)} == {0}
    assert chain.chain_length("no") == 40
    with pytest.raises(SettingsError, match=r"^no$"):
        free.chain_length("no")


def test_only_a_chain_looks_at_likelihoods_for_its_efficiency() -> None:
    def never() -> NDArray[np.float64]:
        raise AssertionError

    assert IndependentDraws().efficiency(never) == 1.0
    rng = np.random.default_rng(0)
    # An autoregression of coefficient 0.8: its sample of size S is worth S (1 - 0.8) / (1 + 0.8).
    values = rng.normal(size=(200, 2000))
    for s in range(1, 2000):
        values[:, s] = 0.8 * values[:, s - 1] + 0.6 * values[:, s]
    assert ChainDraws(2000).efficiency(lambda: values) == pytest.approx(0.2 / 1.8, rel=0.05)


def test_tables_of_pairs_are_the_moments_of_each_pair() -> None:
    generator = torch.Generator().manual_seed(1)

    def draws(n: int) -> RowDraws:
        drawn, means = (torch.randn(n, 12, 3, generator=generator) for _ in range(2))
        return RowDraws(drawn, means, torch.tensor(True))

    def normals(n: int) -> RowPosterior:
        loc, bias = torch.randn(n, 2, generator=generator), torch.randn(n, generator=generator)
        scale = torch.rand(n, 2, generator=generator)
        return RowPosterior(loc, scale, bias, torch.rand(n, generator=generator))

    i, j = np.arange(4), np.arange(5)
    for rows in (draws, normals):
        users: Any = rows(4)
        pairs = users.pairs_with(rows(5), torch.tensor(0.3), (Stream.USERS, Stream.ITEMS))
        mean, variance = (one.view(4, 5) for one in pairs.moments(np.repeat(i, 5), np.tile(j, 4)))
        for a, b, found_mean, found_variance in pairs.table(i, j):
            torch.testing.assert_close(found_mean.double(), mean[a, b], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found_variance.double(), variance[a, b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("biased", [True, False])
def test_moments_of_rows_with_full_covariances_are_those_of_a_quadratic_form(
    biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    k, width = 3, 3 + biased
    monkeypatch.setattr("pyro_bmf.model.rows._CELLS", 4 * width**2)  # four pairs at a time
    generator = torch.Generator().manual_seed(2)

    def normals(n: int) -> RowPosterior:
        loc, tril = (torch.randn(n, *shape, generator=generator) for shape in ((k,), (width, width)))
        tril = tril.tril()
        bias = torch.randn(n, generator=generator) if biased else None
        scale = tril.square().sum(-1).sqrt()
        return RowPosterior(loc, scale[:, :k], bias, scale[:, k] if biased else None, tril=tril)

    users, items = normals(5), normals(4)
    pairs = users.pairs_with(items, torch.tensor(0.7), (Stream.USERS, Stream.ITEMS))
    i, j = np.array([4, 0, 4, 2, 2, 1, 4, 0, 3, 3]), np.array([0, 3, 0, 1, 2, 3, 1, 3, 0, 2])
    mean, variance = pairs.moments(i, j)
    # x = [u, b, v, c] has independent halves, and eta = x^T M x / 2 + l^T x + centre.
    form, linear = np.zeros((2 * width, 2 * width)), np.zeros(2 * width)
    form[:k, width : width + k] = form[width : width + k, :k] = np.eye(k)
    if biased:
        linear[[k, width + k]] = 1.0

    def joined(rows: RowPosterior, at: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert rows.tril is not None
        bias = [] if rows.bias_loc is None else [rows.bias_loc[at].double().numpy()]
        tril = rows.tril[at].double().numpy()
        return np.array([*rows.loc[at].double().numpy(), *bias]), tril @ tril.T

    for place, (a, b) in enumerate(zip(i, j, strict=True)):
        (left, own), (right, other) = joined(users, a), joined(items, b)
        x, covariance = np.concatenate([left, right]), np.zeros((2 * width, 2 * width))
        covariance[:width, :width], covariance[width:, width:] = own, other
        slope = form @ x + linear
        product = form @ covariance
        expected = slope @ covariance @ slope + np.trace(product @ product) / 2
        assert mean[place].item() == pytest.approx(x @ form @ x / 2 + linear @ x + 0.7, rel=1e-6)
        assert variance[place].item() == pytest.approx(expected, rel=1e-12)
    assert [len(one) for one in pairs.moments(i[:0], j[:0])] == [0, 0]


@pytest.mark.parametrize("kind", ["normal", "probit", "logistic"])
def test_levels_are_drawn_with_their_probabilities(kind: str) -> None:
    levels = torch.tensor([1.0, 2.0, 4.0, 5.0], dtype=torch.float64)
    likelihood: Any = {
        "normal": NormalLikelihood(0.9),
        "probit": OrderedProbitLikelihood(levels.tolist()),
        "logistic": OrderedLogisticLikelihood(levels.tolist()),
    }[kind]
    eta = torch.tensor([1.2, 3.1, 5.5], dtype=torch.float64)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        n = 20_000
        drawn = likelihood.sample_levels(eta.repeat(n), levels).view(n, 3)
        expected = likelihood.log_prob_rating(eta, levels).exp()
        share = torch.stack([(drawn == level).double().mean(0) for level in levels], 1)
        torch.testing.assert_close(share, expected.double(), rtol=0, atol=4 * 0.5 / n**0.5)
        if kind != "normal":  # of levels the log-probability is that of the distribution itself
            observed = torch.tensor([[2.0], [5.0]], dtype=torch.float64)
            of = likelihood.log_prob_of(observed, eta.expand(2, 3))
            torch.testing.assert_close(of, likelihood(eta.expand(2, 3)).log_prob(observed.expand(2, 3)))
