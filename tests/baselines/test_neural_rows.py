"""Autoencoders of rows: against dense statements in float64 that share no code with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_bmf.baselines import DAECF, VAECF, AutoRecSettings, DAECFSettings, IRec, URec, VAECFSettings
from pyro_bmf.baselines.neural.pair_dots import pair_dots
from pyro_bmf.baselines.neural.row_autoencoder import RowAutoencoder
from pyro_bmf.data import Ratings, Split, random_split, synthetic_ratings
from pyro_bmf.model.feedback import Feedback


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings, seed=1)


def dense(train: Ratings, side: str) -> tuple[Tensor, Tensor]:
    """Return the matrix of ratings, zero where there is none, and the mask."""
    matrix, mask = torch.zeros(train.n_users, train.n_items), torch.zeros(train.n_users, train.n_items)
    users, items = torch.from_numpy(train.users.copy()), torch.from_numpy(train.items.copy())
    matrix[users, items] = torch.from_numpy(train.ratings.copy()).to(matrix.dtype)
    mask[users, items] = 1.0
    return (matrix, mask) if side == "user" else (matrix.T, mask.T)


def started(system: RowAutoencoder, train: Ratings) -> Tensor:
    """Build a network with weights far from their start; returns the cases."""
    torch.manual_seed(3)
    system.network = system.build(train).to(system.device)
    with torch.no_grad():
        for p in system.network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return system.read(train)


def hidden_of(system: RowAutoencoder, matrix: Tensor) -> Tensor:
    """Return the last hidden layer as the literature writes it: dense, layer by layer."""
    functions = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "identity": lambda x: x}
    g = functions[system.options.hidden]
    parts = dict(system.network.named_parameters())
    h = g(matrix @ parts["input.weight"] + parts["input.bias"])
    for name, weight in parts.items():
        if name.startswith("inner.") and name.endswith("weight"):
            h = g(h @ weight.T + parts[name.replace("weight", "bias")])
    return h


def ratings_of(system: RowAutoencoder, hidden: Tensor) -> Tensor:
    parts = dict(system.network.named_parameters())
    eta = hidden @ parts["output.weight"].T + parts["output.bias"]
    return 1 + 4 * torch.sigmoid(eta) if system.output == "sigmoid" else eta


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", [URec, IRec])
@pytest.mark.parametrize(
    ("n_layers", "hidden", "output", "l2"),
    [(0, "relu", "sigmoid", 0.0), (1, "sigmoid", "identity", 0.1), (2, "tanh", "sigmoid", 0.01)],
)
def test_loss_and_gradients_are_those_of_dense_matrices(split, kind, n_layers, hidden, output, l2) -> None:
    settings = AutoRecSettings(n_factors=3, n_layers=n_layers, n_units=4, hidden=hidden, output=output, l2=l2)
    system = kind(settings)
    cases = started(system, split.train)[torch.tensor([5, 2, 11])]
    loss, n = system.batch_loss(cases, 0.0)
    weights = list(system.network.parameters())
    found = torch.autograd.grad(loss, weights)

    matrix, mask = (one.to(system.device)[cases] for one in dense(split.train, system.side))
    error = mask * (ratings_of(system, hidden_of(system, matrix)) - matrix) ** 2
    norms = sum((p**2).sum() for name, p in system.network.named_parameters() if name.endswith("weight"))
    expected = error.sum() / mask.sum() + l2 / 2 * norms
    assert n == int(mask.sum())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    wanted = torch.autograd.grad(expected, weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", [URec, IRec])
def test_predictions_are_cells_of_the_dense_output(split, kind) -> None:
    system = kind(AutoRecSettings(n_factors=3, n_layers=1, n_units=4, max_iterations=2)).fit(split)
    matrix, _ = dense(split.train, system.side)
    full = ratings_of(system, hidden_of(system, matrix.to(system.device))).detach().cpu().numpy()
    full = full if system.side == "user" else full.T
    users, items = (one.ravel() for one in np.indices(full.shape))
    np.testing.assert_allclose(system.predict_mean(users, items), full.ravel(), rtol=1e-10)
    np.testing.assert_allclose(system.score_items(np.array([4, 0, 7])), full[[4, 0, 7]], rtol=1e-6)


@pytest.mark.usefixtures("double")
def test_dots_at_entries_pass_the_gradient_check() -> None:
    torch.manual_seed(0)
    at = torch.tensor([[0, 1], [0, 3], [2, 0], [2, 1], [2, 3]])
    entries = Feedback.from_coo(at[:, 0], at[:, 1], torch.ones(5), 3, 4)
    rows, columns = torch.randn(3, 2, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    expected = (rows @ columns.T)[at[:, 0], at[:, 1]]
    torch.testing.assert_close(pair_dots(rows, columns, entries), expected)
    assert torch.autograd.gradcheck(lambda a, b: pair_dots(a, b, entries), (rows, columns))


def test_a_new_user_with_a_users_ratings_is_that_user(split) -> None:
    system = URec(AutoRecSettings(n_factors=4, max_iterations=3)).fit(split)
    train = split.train
    own = train.users == 7
    items = train.item_vocabulary.raw(train.items[own])
    new = system.fold_in(dict(zip(items.tolist(), train.ratings[own].tolist(), strict=True)))
    ids = train.item_vocabulary.ids
    user = train.user_vocabulary.ids[7]
    np.testing.assert_allclose(new.predict(ids)["mean"], system.predict(user, ids)["mean"], rtol=1e-5)


def test_columns_without_ratings_are_predicted_at_the_mean(split) -> None:
    rows = split.train_rows[split.ratings.items[split.train_rows] != 3]
    rest = np.setdiff1d(np.arange(len(split.ratings)), rows)
    cut = Split(split.ratings, rows, rest[::2], rest[1::2], "given")
    system = URec(AutoRecSettings(n_factors=4, max_iterations=5)).fit(cut)
    means = system.predict_mean(np.arange(30), np.full(30, 3))
    np.testing.assert_allclose(means, cut.train.ratings.mean(), rtol=1e-5)


def read_by(matrix: Tensor, mask: Tensor, share: float, *, normalize: bool) -> Tensor:
    """Return what a denoising encoder reads; draws from torch's generator what dropout draws."""
    norm = matrix.norm(dim=1, keepdim=True) if normalize else matrix.new_ones(len(matrix), 1)
    kept = torch.zeros_like(mask)
    kept[mask.bool()] = (torch.rand(int(mask.sum()), device=mask.device) >= share).to(mask.dtype) / (
        1 - share
    )
    return kept * matrix / norm


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_denoising_autoencoder_is_its_dense_statement(split, n_layers, normalize) -> None:
    settings = DAECFSettings(
        n_factors=3, n_layers=n_layers, n_units=4, dropout=0.3, normalize_input=normalize, l2=0.05
    )
    system = DAECF(settings)
    cases = started(system, split.train)[torch.tensor([8, 1, 20])]
    weights = list(system.network.parameters())
    torch.manual_seed(11)
    loss, _ = system.batch_loss(cases, 0.0)

    matrix, mask = (one.to(system.device)[cases] for one in dense(split.train, "user"))
    torch.manual_seed(11)
    read = read_by(matrix, mask, 0.3, normalize=normalize)
    error = mask * (ratings_of(system, hidden_of(system, read)) - matrix) ** 2
    norms = sum((p**2).sum() for name, p in system.network.named_parameters() if name.endswith("weight"))
    expected = error.sum() / mask.sum() + 0.05 / 2 * norms
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    found, wanted = torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("n_layers", [0, 1])
def test_a_variational_autoencoder_is_its_dense_statement(split, n_layers) -> None:
    settings = VAECFSettings(
        n_factors=3, n_layers=n_layers, n_units=4, dropout=0.3, beta=0.2, anneal_iterations=10, l2=0.03
    )
    system = VAECF(settings)
    cases = started(system, split.train)[torch.tensor([8, 1, 20])]
    weights = list(system.network.parameters())
    torch.manual_seed(11)
    loss, _ = system.batch_loss(cases, 2.5)

    matrix, mask = (one.to(system.device)[cases] for one in dense(split.train, "user"))
    torch.manual_seed(11)
    read = read_by(matrix, mask, 0.3, normalize=True)
    parts = dict(system.network.named_parameters())
    h = read @ parts["input.weight"] + parts["input.bias"]
    if n_layers:
        h = torch.tanh(h) @ parts["encoder.2.weight"].T + parts["encoder.2.bias"]
    loc, scale = h[:, :3], (0.5 * h[:, 3:]).exp()
    drawn = loc + scale * torch.randn(3, 3, device=loc.device)
    out = drawn
    if n_layers:
        out = torch.tanh(drawn @ parts["decoder.0.weight"].T + parts["decoder.0.bias"])
    error = mask * (out @ parts["output.weight"].T + parts["output.bias"] - matrix) ** 2
    q, p = torch.distributions.Normal(loc, scale), torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(q, p).sum(1).mean()
    norms = sum((p**2).sum() for name, p in parts.items() if name.endswith("weight"))
    expected = error.sum() / mask.sum() + 0.2 * 0.25 * kl + 0.03 / 2 * norms
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    found, wanted = torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_weight_of_the_kl_grows_to_beta_and_stays() -> None:
    settings = VAECFSettings(beta=0.4, anneal_iterations=8)
    assert [settings.beta_at(at) for at in (0, 2, 8, 30)] == pytest.approx([0, 0.1, 0.4, 0.4])
    assert VAECFSettings(beta=0.4, anneal_iterations=0).beta_at(0) == 0.4


def test_prediction_hides_and_draws_nothing(split) -> None:
    for system in (
        VAECF(VAECFSettings(n_factors=3, max_iterations=2)),
        DAECF(DAECFSettings(n_factors=3, max_iterations=2)),
    ):
        system.fit(split)
        new = [system.fold_in({1: 4.0, 4: 2.0}).predict([5, 6])["mean"].tolist() for _ in range(2)]
        assert new[0] == new[1]
