"""Networks over embeddings: against dense statements in float64 that share no code with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_bmf.baselines import CNNCF, NCF, CNNCFSettings, NCFSettings
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.errors import SettingsError


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 20, 250, n_factors=2, scale="1:5:1").ratings, seed=1)


def one_hot(index: Tensor, size: int) -> Tensor:
    return F.one_hot(index, size).to(torch.get_default_dtype())


def perceptron(parts: dict[str, Tensor], u: Tensor, v: Tensor) -> Tensor:
    """He et al. 2017: layers over the concatenation."""
    h = torch.cat([u, v], dim=1) @ parts["joined.weight"].T + parts["joined.bias"]
    for place in (1, 3):
        if f"rest.{place}.weight" in parts:
            h = torch.relu(h) @ parts[f"rest.{place}.weight"].T + parts[f"rest.{place}.bias"]
    return h[:, 0]


def convolutions(parts: dict[str, Tensor], u: Tensor, v: Tensor) -> Tensor:
    """He et al. 2018: torch's own convolutions over the outer product."""
    maps = torch.einsum("nk,nl->nkl", u, v).unsqueeze(1)
    place = 0
    while f"kernels.{place}.weight" in parts:
        weight = parts[f"kernels.{place}.weight"]
        kernel = weight.view(len(weight), 2, 2, -1).permute(0, 3, 1, 2)
        maps = torch.relu(F.conv2d(maps, kernel, parts[f"kernels.{place}.bias"], stride=2))
        place += 1
    flat = maps.permute(0, 2, 3, 1).flatten(1)
    return (flat @ parts["output.weight"].T + parts["output.bias"])[:, 0]


CASES: list[tuple[Any, Any, Any]] = [
    *((NCF, NCFSettings(n_factors=3, n_layers=n, n_units=4, l2=0.1), perceptron) for n in (0, 1, 2)),
    *((CNNCF, CNNCFSettings(n_factors=8, n_layers=n, n_channels=3, l2=0.1), convolutions) for n in (1, 2, 3)),
]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("kind", "settings", "literal"), CASES)
def test_loss_and_gradients_are_those_of_one_hot_rows(split, kind, settings, literal) -> None:
    train = split.train
    system = kind(settings)
    torch.manual_seed(3)
    system.network = system.build(train).to(system.device)
    with torch.no_grad():
        for p in system.network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    cases = system.read(train)[torch.tensor([3, 90, 17, 4, 5])]
    loss, n = system.batch_loss(cases, 0.0)
    assert n == 5
    weights = list(system.network.parameters())
    found = torch.autograd.grad(loss, weights)

    parts = dict(system.network.named_parameters())
    cases = cases.cpu()
    users, items = (
        torch.from_numpy(one.copy())[cases].to(system.device) for one in (train.users, train.items)
    )
    u = one_hot(users, 30) @ parts["users.weight"]
    v = one_hot(items, 20) @ parts["items.weight"]
    observed = torch.from_numpy(train.ratings.copy())[cases].to(system.device)
    error = (train.ratings.mean() + literal(parts, u, v) - observed) ** 2
    layers = [p for name, p in parts.items() if p.dim() == 2 and name not in ("users.weight", "items.weight")]
    norms = ((u**2).sum(1) + (v**2).sum(1)).mean() + sum((p**2).sum() for p in layers)
    expected = error.mean() + 0.05 * norms
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for one, other in zip(found, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)

    system.network.requires_grad_(False)
    system.refresh()
    wanted = train.ratings.mean() + literal(parts, u, v).detach()
    torch.testing.assert_close(system.pair_means(users, items), wanted, rtol=1e-12, atol=0)
    every = system.item_means(torch.tensor([4, 0], device=system.device))
    all_items = parts["items.weight"].detach()
    for row, user in zip(every, (4, 0), strict=True):
        same = parts["users.weight"][user].detach().expand(20, -1)
        wanted = train.ratings.mean() + literal(parts, same, all_items).detach()
        torch.testing.assert_close(row, wanted, rtol=1e-12, atol=0)


@pytest.mark.usefixtures("double")
def test_a_batch_in_parts_is_the_batch(split) -> None:
    system = CNNCF(CNNCFSettings(n_factors=8, n_layers=2, n_channels=3))
    torch.manual_seed(5)
    system.network = network = system.build(split.train).to(system.device)
    u, v = (torch.randn(7, 8, device=system.device, requires_grad=True) for _ in range(2))
    weights = [*list(network.kernels.parameters()), *network.output.parameters()]
    wanted = network.mean + convolutions(dict(network.named_parameters()), u, v)
    gradients = torch.autograd.grad(wanted.square().sum(), (u, v, *weights))
    for size in (0, 1, 3, 7):
        network._part = size
        found = network.of_embeddings(u, v)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
        again = torch.autograd.grad(found.square().sum(), (u, v, *weights))
        for one, other in zip(again, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_rows_without_ratings_have_the_embedding_zero(split) -> None:
    rows = split.train_rows[split.ratings.items[split.train_rows] != 3]
    rest = np.setdiff1d(np.arange(len(split.ratings)), rows)
    cut = Split(split.ratings, rows, rest[::2], rest[1::2], "given")
    for kind in (NCF, CNNCF):
        system = kind(kind.settings_class(max_iterations=2)).fit(cut)
        state = system.state()
        assert not state["network.items.weight"][3].any()
        assert state["network.items.weight"][4].any()


def test_maps_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(SettingsError, match="n_factors must be a multiple of 8"):
        CNNCFSettings(n_factors=12, n_layers=3)
    cells = list(CNNCFSettings.cells())
    assert {cell.n_layers for cell in cells if cell.n_factors == 8} == {1, 2, 3}
    assert {cell.n_layers for cell in cells if cell.n_factors == 128} == set(range(1, 7))
    assert len(cells) == 4 * (3 + 4 + 5 + 6 + 6)
