"""Networks that rank: against dense statements in float64 that share no code with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_bmf.baselines import (
    CDAE,
    NGCF,
    RANKING_BASELINES,
    RANKING_SETTINGS,
    CDAESettings,
    LightGCN,
    LightGCNSettings,
    NGCFSettings,
)
from pyro_bmf.baselines.neural.network_ranker import Negatives
from pyro_bmf.data import Ratings, Split, random_split, synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.progress import Silent

SMALL: dict[str, dict[str, Any]] = {
    "cdae": {"n_factors": 8, "batch_size": 10, "learning_rate": 0.05},
    "ngcf": {"n_factors": 8, "n_layers": 1, "batch_size": 64, "learning_rate": 0.02},
    "lightgcn": {"n_factors": 8, "n_layers": 2, "batch_size": 64, "learning_rate": 0.05},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings, seed=1)


@pytest.fixture(params=RANKING_BASELINES, ids=lambda one: one.name)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def small(kind: Any, **changed: Any) -> Any:
    return kind.settings_class(**{"max_iterations": 6} | SMALL[kind.name] | changed)


def weights(system: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in system.state().items()}


def started(system: Any, train: Ratings) -> Tensor:
    """Build a network with weights far from their start; returns the cases."""
    torch.manual_seed(3)
    system.network = system.build(train).to(system.device)
    with torch.no_grad():
        for p in system.network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return system.read(train)


def positives(train: Ratings, above: float | None) -> Tensor:
    """Return the 0/1 matrix of positive pairs."""
    matrix = torch.zeros(train.n_users, train.n_items)
    kept = np.ones(len(train), dtype=bool) if above is None else train.ratings > above
    matrix[train.users[kept], train.items[kept]] = 1.0
    return matrix


def dense_embeddings(system: Any, matrix: Tensor) -> Tensor:
    """Return E* of users and items by the literature's (I + J) x (I + J) Laplacian."""
    n_users, n_items = matrix.shape
    adjacency = matrix.new_zeros(n_users + n_items, n_users + n_items)
    adjacency[:n_users, n_users:], adjacency[n_users:, :n_users] = matrix, matrix.T
    inverse_root = torch.diag(adjacency.sum(1).clamp_min(1e-12) ** -0.5)
    laplacian = inverse_root @ adjacency @ inverse_root
    parts = dict(system.network.named_parameters())
    layers = [torch.cat([parts["users.weight"], parts["items.weight"]])]
    for layer in range(system.options.n_layers):
        e = layers[-1]
        if system.name == "lightgcn":
            layers.append(laplacian @ e)
            continue
        first, second = parts[f"of_sums.{layer}"], parts[f"of_products.{layer}"]
        both = (laplacian + torch.eye(len(e), device=e.device)) @ e @ first + ((laplacian @ e) * e) @ second
        both = torch.where(both > 0, both, 0.2 * both)
        norms = (both**2).sum(1, keepdim=True).sqrt()
        layers.append(torch.where(norms > 0, both / norms, both) if system.options.normalize_layers else both)
    return torch.stack(layers).mean(0) if system.name == "lightgcn" else torch.cat(layers, 1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("above", [None, 3.0])
@pytest.mark.parametrize(
    "system",
    [
        LightGCN(LightGCNSettings(n_factors=3, n_layers=3, l2=0.1)),
        LightGCN(LightGCNSettings(n_factors=3, n_layers=0, l2=0.0)),
        NGCF(NGCFSettings(n_factors=3, n_layers=2, l2=0.1, dropout=0.0)),
        NGCF(NGCFSettings(n_factors=3, n_layers=2, l2=0.1, dropout=0.0, normalize_layers=False)),
    ],
    ids=["lightgcn", "no layers", "ngcf", "ngcf without norms"],
)
def test_loss_and_gradients_of_graphs_are_those_of_a_dense_laplacian(split, system, above) -> None:
    settings = system.options.__class__(**system.settings() | {"positives_above": above})
    system = system.__class__(settings)
    cases = started(system, split.train)[torch.tensor([5, 2, 60, 11])]
    torch.manual_seed(8)
    loss, n = system.batch_loss(cases, 0.0)
    parameters = list(system.network.parameters())
    found = torch.autograd.grad(loss, parameters)

    matrix = positives(split.train, above).to(system.device)
    users, liked = (one[cases] for one in matrix.nonzero(as_tuple=True))
    torch.manual_seed(8)
    other = system._negatives.draw(users)[0]
    assert not matrix[users, other].any()
    e = dense_embeddings(system, matrix)
    margins = (e[users] * (e[len(matrix) + liked] - e[len(matrix) + other])).sum(1)
    own, l2 = system.network, settings.l2
    tables = (own.users.weight[users], own.items.weight[liked], own.items.weight[other])
    norms = sum((rows**2).sum(1).mean() for rows in tables)
    norms = norms + sum((p**2).sum() for name, p in own.named_parameters() if name.startswith("of_"))
    expected = -torch.log(1 / (1 + torch.exp(-margins))).mean() + l2 / 2 * norms
    assert n == 4
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for one, wanted in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("system", [LightGCN, NGCF])
def test_scores_are_products_of_the_dense_embeddings(split, system) -> None:
    system = system(small(system, max_iterations=2)).fit(split)
    e = dense_embeddings(system, positives(split.train, None).to(system.device)).detach().cpu().numpy()
    n_users = split.train.n_users
    expected = e[[4, 0, 7]] @ e[n_users:].T
    np.testing.assert_allclose(system.score_items(np.array([4, 0, 7])), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("double")
def test_loss_and_gradients_of_cdae_are_those_of_dense_matrices(split) -> None:
    system = CDAE(CDAESettings(n_factors=3, l2=0.1, dropout=0.0, n_negatives=2, positives_above=2.0))
    cases = started(system, split.train)[torch.tensor([5, 2, 11])]
    torch.manual_seed(8)
    loss, n = system.batch_loss(cases, 0.0)
    parameters = list(system.network.parameters())
    found = torch.autograd.grad(loss, parameters)

    matrix = positives(split.train, 2.0).to(system.device)
    x = matrix[cases]
    parts = dict(system.network.named_parameters())
    hidden = x @ parts["input.weight"] + parts["input.bias"] + parts["users"][cases]
    chance = torch.sigmoid(torch.sigmoid(hidden) @ parts["output"].T + parts["levels"])
    at = x.nonzero()[:, 0].repeat(2)
    torch.manual_seed(8)
    other = system._negatives.draw(cases[at])[0]
    total = -(x * torch.log(chance)).sum() - torch.log(1 - chance[at, other]).sum()
    norms = sum((p**2).sum() for p in parts.values() if p.dim() == 2)
    expected = total / (3 * x.sum()) + 0.05 * norms
    assert n == int(x.sum())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for one, wanted in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-12)
    full = torch.sigmoid(matrix @ parts["input.weight"] + parts["input.bias"] + parts["users"])
    system.refresh()
    torch.testing.assert_close(
        system.user_scores(torch.arange(4, device=system.device)).detach(),
        (full @ parts["output"].T + parts["levels"]).detach()[:4],
        rtol=1e-10,
        atol=0.0,
    )


def test_drawn_items_are_all_that_are_not_positive_and_equally_likely() -> None:
    torch.manual_seed(0)
    users, items = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), torch.tensor([1, 3, 4, 0, 1, 2, 3, 4])
    negatives = Negatives(users, items, 5)
    drawn, counted = negatives.draw(torch.zeros(4000, dtype=torch.int64))
    assert bool(counted.all())
    assert sorted(set(drawn.tolist())) == [0, 2]
    assert stats.binomtest(int((drawn == 0).sum()), 4000, 0.5).pvalue > 0.001
    assert not bool(negatives.draw(torch.ones(50, dtype=torch.int64))[1].any()), "rated everything"


def test_a_ranker_can_learn_a_tiny_set_by_heart(split, kind) -> None:
    free = {"l2", "dropout"} & RANKING_SETTINGS[kind.name]().to_dict().keys()
    settings = small(kind, max_iterations=60, n_factors=16, learning_rate=0.1, **dict.fromkeys(free, 0.0))
    system = kind(settings).fit(split, refit=True)
    train = split.train_valid
    scores = system.score_items(np.arange(train.n_users))
    rated = positives(train, None).numpy() > 0
    above = [(s[r][:, None] > s[~r][None]).mean() for s, r in zip(scores, rated, strict=True) if r.any()]
    assert np.mean(above) > 0.97


def test_the_state_with_the_best_validation_ndcg_is_kept(split, kind) -> None:
    system = kind(small(kind, max_iterations=25, patience=4, positives_above=2.0)).fit(split)
    curve = [record["valid_ndcg"] for record in system.info["history"]]
    assert system.info["kept_iteration"] == int(np.argmax(curve)) + 1
    train, valid = positives(split.train, None), positives(split.valid, 2.0).numpy()
    scores = system.score_items(np.arange(len(train)))
    scores[train.numpy() > 0] = -np.inf
    found = []
    for own, relevant in zip(scores, valid, strict=True):
        if relevant.any():
            # beside equal scores, which these have not
            places = np.flatnonzero(relevant[np.argsort(-own, kind="stable")][:20])
            best = (1 / np.log2(np.arange(2, 2 + min(20, int(relevant.sum()))))).sum()
            found.append((1 / np.log2(places + 2)).sum() / best)
    assert max(curve) == pytest.approx(np.mean(found), rel=1e-9)


class Interrupted(Silent):
    """Stops a fit after some iterations."""

    def iteration(self, record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_bits(split, kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pyro_bmf.baselines.neural.training._SECONDS", 0.0)
    whole = kind(small(kind)).fit(split)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        kind(small(kind), checkpoint=file, progress=Interrupted()).fit(split)
    rest = kind(small(kind), checkpoint=file).fit(split)
    assert weights(rest) == weights(whole)


#: Another value of each setting than `small` gives.
OTHER: dict[str, Any] = {
    "normalize_layers": False,
    **{"max_iterations": 4, "patience": 1, "batch_size": 7, "learning_rate": 0.03, "l2": 0.3, "seed": 3},
    **{"final_learning_rate": 1e-3, "positives_above": 3.0, "n_factors": 4, "n_layers": 3},
    **{"dropout": 0.3, "n_negatives": 1},
}


def test_every_setting_is_read(split, kind) -> None:
    given = {"max_iterations": 10, "learning_rate": 0.1}
    before = kind(small(kind, **given)).fit(split)
    for name in before.settings():
        other = kind(small(kind, **given | {name: OTHER[name]})).fit(split)
        same = weights(other) == weights(before) and other.info["iterations"] == before.info["iterations"]
        assert not same, name


def test_no_positive_pair_is_refused(split, kind) -> None:
    with pytest.raises(SettingsError, match=r"positives_above is 5 and the highest training rating 5"):
        kind(small(kind, positives_above=5.0)).fit(split)


def test_what_it_predicts_is_the_items_level(split, kind) -> None:
    system = kind(small(kind, max_iterations=1)).fit(split)
    means = system.predict_mean(np.arange(30), np.full(30, 4))
    assert len(set(means.tolist())) == 1, "of an item alone"


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.layout == torch.strided:
                self.numel = max(self.numel, one.numel())
        return found


def test_training_builds_nothing_of_the_size_of_users_times_items(kind) -> None:
    ratings = synthetic_ratings(300, 200, 1500, n_factors=2, scale="1:5:1").ratings
    wide = random_split(ratings, seed=1)
    few = {"n_factors": 2, "n_layers": 1, "n_negatives": 1}
    known = kind.settings_class().to_dict()
    settings = small(kind, max_iterations=1, **{name: few[name] for name in few if name in known})
    with Largest() as seen:
        kind(settings).fit(wide, refit=True)
    assert 300 < seen.numel <= 5 * len(ratings)
    assert seen.numel < 300 * 200 / 5
