"""The collaborative VAE: a dense statement in float64, items known by content alone, content from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_bmf.baselines import CollaborativeVAE, CollaborativeVAESettings, ItemContent
from pyro_bmf.data import Ratings, Split, random_split, synthetic_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.data.vocabulary import Vocabulary
from pyro_bmf.errors import DataError, SavedFileError, SettingsError
from pyro_bmf.progress import Silent

SMALL: dict[str, Any] = {
    **{"n_factors": 4, "n_units": 5, "max_iterations": 6, "batch_size": 16, "learning_rate": 0.02},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings, seed=1)


@pytest.fixture(scope="module")
def content() -> ItemContent:
    rng = np.random.default_rng(0)
    return ItemContent.of_features([[f"f{f}" for f in range(6) if rng.random() < 0.4] for _ in range(20)])


def small(**changed: Any) -> CollaborativeVAESettings:
    return CollaborativeVAESettings(**SMALL | changed)


def weights(system: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in system.state().items()}


def dense_content(content: ItemContent) -> Tensor:
    matrix = torch.zeros(content.n_items, len(content.features))
    for item in range(content.n_items):
        matrix[item, content.indices[content.indptr[item] : content.indptr[item + 1]]] = 1.0
    return matrix


def encoded(system: CollaborativeVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    p = dict(system.network.named_parameters())
    hidden = torch.tanh(x @ p["input.weight"] + p["input.bias"])
    both = hidden @ p["to_latent.weight"].T + p["to_latent.bias"]
    return both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]


@pytest.mark.usefixtures("double")
def test_loss_and_gradients_are_those_of_the_published_objective(split: Split, content: ItemContent) -> None:
    system = CollaborativeVAE(
        small(n_factors=3, n_units=4, l2=0.2, offset_l2=0.3, content_weight=0.7), content=content
    )
    torch.manual_seed(3)
    system.network = system.build(split.train).to(system.device)  # type: ignore[assignment]
    with torch.no_grad():
        for one in system.network.parameters():
            one.add_(0.3 * torch.randn_like(one))
    cases = system.read(split.train)[torch.tensor([5, 2, 60, 11, 61])]
    torch.manual_seed(8)
    loss, n = system.batch_loss(cases, 0.0)
    parameters = list(system.network.parameters())
    found = torch.autograd.grad(loss, parameters)

    train, p = split.train, dict(system.network.named_parameters())
    users, items, ratings = (
        torch.from_numpy(one[cases.cpu().numpy()].copy()).to(system.device)
        for one in (train.users, train.items, train.ratings)
    )
    unique = torch.tensor(sorted(set(items.tolist())))
    x = dense_content(content)[unique].to(system.device)
    loc, log_variance = encoded(system, x)
    torch.manual_seed(8)
    z = loc + torch.exp(log_variance / 2) * torch.randn_like(loc)
    at = torch.tensor([unique.tolist().index(item) for item in items.tolist()])
    u, d = p["users.weight"][users], p["items.weight"][items]
    error = train.ratings.mean() + (u * (z[at] + d)).sum(1) - ratings
    chance = torch.sigmoid(
        torch.tanh(z @ p["from_latent.weight"].T + p["from_latent.bias"]) @ p["output"].T + p["levels"]
    )
    log_p = (x * chance.log() + (1 - x) * (1 - chance).log()).sum()
    q = torch.distributions.Normal(loc, torch.exp(log_variance / 2))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum()
    layers = ("input.weight", "to_latent.weight", "from_latent.weight", "output")
    expected = (error**2).mean() + 0.7 * (kl - log_p) / len(unique)
    expected = expected + 0.1 * ((u**2).sum(1).mean() + sum((p[name] ** 2).sum() for name in layers))
    expected = expected + 0.15 * (d**2).sum(1).mean()
    assert n == 5
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    for one, wanted in zip(found, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.usefixtures("double")
def test_predictions_are_products_with_encoded_content(split: Split, content: ItemContent) -> None:
    system = CollaborativeVAE(small(), content=content).fit(split)
    p = dict(system.network.named_parameters())
    factors = encoded(system, dense_content(content).to(system.device))[0] + p["items.weight"]
    full = (split.train.ratings.mean() + p["users.weight"] @ factors.T).detach().cpu().numpy()
    users, items = (one.ravel() for one in np.indices(full.shape))
    np.testing.assert_allclose(system.predict_mean(users, items), full.ravel(), rtol=1e-10)
    np.testing.assert_allclose(system.score_items(np.array([4, 0])), full[[4, 0]], rtol=1e-6)


def test_it_can_learn_a_tiny_set_by_heart(split: Split, content: ItemContent) -> None:
    few = Split(split.ratings, np.arange(40), np.arange(0), np.arange(40, 80), "given")
    free = {"l2": 0.0, "offset_l2": 0.0, "content_weight": 0.0, "n_factors": 8}
    system = CollaborativeVAE(small(max_iterations=150, learning_rate=0.05, **free), content=content).fit(few)
    error = system.predict_mean(few.train.users, few.train.items) - few.train.ratings
    assert np.sqrt(np.mean(error**2)) < 0.15


def planted() -> tuple[Ratings, ItemContent]:
    """Ratings that two genres decide, of which half of the users like the one and half the other."""
    rng = np.random.default_rng(1)
    users, items = np.nonzero(rng.random((60, 40)) < 0.5)
    liked = (users % 2) == (items % 2)
    ratings = np.where(liked, 5, 1)
    made = ratings_from_arrays(users, items, ratings, scale="1:5:1")
    return made, ItemContent.of_features([[f"genre:{item % 2}"] for item in range(40)])


def test_an_item_without_ratings_is_known_by_its_content() -> None:
    ratings, content = planted()
    cold = ratings.items >= 30
    rows = np.arange(len(ratings))
    split = Split(ratings, rows[~cold], rows[:0], rows[cold], "given")
    settings = small(max_iterations=30, batch_size=50, offset_l2=0.1, content_weight=0.01)
    system = CollaborativeVAE(settings, content=content).fit(split)
    error = system.predict_mean(split.test.users, split.test.items) - split.test.ratings
    assert np.sqrt(np.mean(error**2)) < 0.8, "at the mean rating it would be 2"


def test_another_seed_and_the_content_decide(split: Split, content: ItemContent) -> None:
    first, again, other = (CollaborativeVAE(small(seed=s), content=content).fit(split) for s in (0, 0, 1))
    assert weights(first) == weights(again)
    assert weights(first) != weights(other)
    turned = ItemContent.of_features([[f"f{item % 3}"] for item in range(20)])
    assert weights(CollaborativeVAE(small(), content=turned).fit(split)) != weights(first)


OTHER: dict[str, Any] = {
    **{"max_iterations": 4, "patience": 1, "batch_size": 7, "learning_rate": 0.05, "l2": 0.3, "seed": 3},
    **{"final_learning_rate": 1e-3, "n_factors": 3, "n_units": 4, "offset_l2": 1.0, "content_weight": 0.1},
}


def test_every_setting_is_read(split: Split, content: ItemContent) -> None:
    given = {"learning_rate": 0.1, "max_iterations": 10, "batch_size": 64}
    before = CollaborativeVAE(small(**given), content=content).fit(split)
    for name in before.settings():
        other = CollaborativeVAE(small(**given | {name: OTHER[name]}), content=content).fit(split)
        same = weights(other) == weights(before) and other.info["iterations"] == before.info["iterations"]
        assert not same, name


class Interrupted(Silent):
    """Stops a fit after some iterations."""

    def iteration(self, record: dict[str, Any]) -> None:
        if record["iteration"] == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_with_the_same_content(
    split: Split, content: ItemContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_bmf.baselines.neural.training._SECONDS", 0.0)
    whole = CollaborativeVAE(small(), content=content).fit(split)
    file = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        CollaborativeVAE(small(), content=content, checkpoint=file, progress=Interrupted()).fit(split)
    assert weights(CollaborativeVAE(small(), content=content, checkpoint=file).fit(split)) == weights(whole)
    names = tuple(f"g{at}" for at in range(len(content.features)))
    renamed = ItemContent(content.indptr, content.indices, names)
    with pytest.raises(SavedFileError, match="a checkpoint of another fit"):
        CollaborativeVAE(small(), content=renamed, checkpoint=file).fit(split)


def test_it_takes_its_content_along(split: Split, content: ItemContent, tmp_path: Path) -> None:
    system = CollaborativeVAE(small(), content=content).fit(split)
    again = CollaborativeVAE.load(system.save(tmp_path / "cvae.safetensors"))
    assert again.content.features == content.features
    np.testing.assert_array_equal(
        again.predict_mean(np.arange(20), np.arange(20)), system.predict_mean(np.arange(20), np.arange(20))
    )


def test_what_does_not_fit_is_refused(split: Split) -> None:
    with pytest.raises(SettingsError, match="the ratings have no titles"):
        CollaborativeVAE(small()).fit(split)
    short = ItemContent.of_features([["a"], ["a"]])
    with pytest.raises(SettingsError, match="content is of 2 items and the ratings of 20"):
        CollaborativeVAE(small(), content=short).fit(split)
    with pytest.raises(DataError, match="No feature is of 2 items or more"):
        ItemContent.of_features([["a"], ["b"]])


def test_content_is_read_from_files_of_movielens(tmp_path: Path) -> None:
    items = Vocabulary(np.array([1, 2, 7]), "item")
    (tmp_path / "u.genre").write_text("Action|0\nDrama|1\n\n", encoding="latin-1")
    (tmp_path / "u.item").write_text(
        "1|Star Wars (1977)|01-Jan-1977||http://x|1|0\n2|Star Trek, Là (1979)|||http://y|1|1\n", "latin-1"
    )
    (tmp_path / "movies.dat").write_text(
        "1::Star Wars (1977)::Action\n2::Star Trek, Là (1979)::Action|Drama\n", "latin-1"
    )
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n1,Star Wars (1977),Action\n2,"Star Trek, Là (1979)",Action|Drama\n', "utf-8"
    )
    for name in ("u.item", "movies.dat", "movies.csv"):
        found = ItemContent.read(tmp_path / name, items)
        assert found.features == ("genre:Action", "word:star")
        assert found.indptr.tolist() == [0, 2, 4, 4], "the file does not name item 7"
        every = ItemContent.read(tmp_path / name, items, min_count=1)
        assert every.features == (
            "genre:Action", "genre:Drama", "word:là", "word:star", "word:trek", "word:wars",
        )  # fmt: skip
        assert every.indices.tolist() == [0, 3, 5, 0, 1, 2, 3, 4]
    (tmp_path / "u.item").write_text("1|Star Wars|||http://x|1\n", "latin-1")
    with pytest.raises(DataError, match=r"u\.item, line 1: 6 fields"):
        ItemContent.read(tmp_path / "u.item", items)
    with pytest.raises(DataError, match=r"may be \.item, \.dat, \.csv"):
        ItemContent.read(tmp_path / "movies.parquet", items)
    with pytest.raises(DataError, match="cannot be read"):
        ItemContent.read(tmp_path / "nothing.csv", items)
