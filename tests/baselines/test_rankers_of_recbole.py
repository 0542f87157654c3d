"""What networks compute from given weights is what RecBole computes, by numbers kept from it.

`benchmarks/peers/recbole_forward.py` wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_bmf.baselines import CDAE, DAECF, NCF, NGCF, VAECF, LightGCN
from pyro_bmf.data import Ratings
from pyro_bmf.data.validation import ratings_from_arrays

FILE = Path(__file__).parents[1] / "fixtures" / "recbole_forward.json"
KEPT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
USERS, ITEMS = np.array(KEPT["users"]), np.array(KEPT["items"])

KINDS: dict[str, Any] = {
    "LightGCN": LightGCN,
    "NGCF": NGCF,
    "NGCF without norms": NGCF,
    "CDAE": CDAE,
    "MultiVAE": VAECF,
    "MultiDAE": DAECF,
    "NeuMF": NCF,
}
#: Ours by theirs, of weights that stand as they are; the rest is in `ours`.
NAMES = {
    "user_embedding.weight": "users.weight",
    "item_embedding.weight": "items.weight",
    "user_mlp_embedding.weight": "users.weight",
    "item_mlp_embedding.weight": "items.weight",
    "h_user.weight": "users",
    "h_item.bias": "input.bias",
    "out_layer.weight": "output",
    "out_layer.bias": "levels",
    "encoder.0.bias": "input.bias",
    "encoder.2.weight": "encoder.2.weight",
    "encoder.2.bias": "encoder.2.bias",
    "decoder.0.weight": "decoder.0.weight",
    "decoder.0.bias": "decoder.0.bias",
    "decoder.2.weight": "output.weight",
    "decoder.2.bias": "output.bias",
    "encoder.mlp_layers.1.bias": "input.bias",
    "encoder.mlp_layers.4.weight": "inner.0.weight",
    "encoder.mlp_layers.4.bias": "inner.0.bias",
    "mlp_layers.mlp_layers.1.weight": "joined.weight",
    "mlp_layers.mlp_layers.1.bias": "joined.bias",
    "mlp_layers.mlp_layers.4.weight": "rest.1.weight",
    "mlp_layers.mlp_layers.4.bias": "rest.1.bias",
    "predict_layer.weight": "rest.3.weight",
    "predict_layer.bias": "rest.3.bias",
}
#: The same of those that stand transposed here.
TURNED = {
    "h_item.weight": "input.weight",
    "encoder.0.weight": "input.weight",
    "encoder.mlp_layers.1.weight": "input.weight",
    **{f"GNNlayers.{layer}.linear.weight": f"of_sums.{layer}" for layer in range(2)},
    **{f"GNNlayers.{layer}.interActTransform.weight": f"of_products.{layer}" for layer in range(2)},
}


#: Where the two autoencoders differ in their names.
OF_DAE = {"decoder.0.weight": "inner.2.weight", "decoder.0.bias": "inner.2.bias"}


@pytest.fixture(scope="module")
def train() -> Ratings:
    """The pairs, over users and items of which some are in none."""
    n_users, n_items = KEPT["n_users"], KEPT["n_items"]
    values = np.full((n_users, n_items), 3.0)
    values[USERS, ITEMS] = KEPT["ratings"]
    users, items = (one.ravel() for one in np.indices(values.shape))
    every = ratings_from_arrays(users, items, values.ravel(), scale="1:5:1")
    return every.take(USERS * n_items + ITEMS)


def system_of(name: str, train: Ratings) -> Any:
    """Return ours with their weights, and the pairs read."""
    case, kind = KEPT["cases"][name], KINDS[name]
    options = case["settings"] | ({"normalize_layers": False} if name == "NGCF without norms" else {})
    system = kind(kind.settings_class(**options))
    system.network = system.build(train).to(system.device)
    names = NAMES | (OF_DAE if name == "MultiDAE" else {})
    given = {theirs: torch.tensor(value) for theirs, value in case["weights"].items()}
    state = {names[theirs]: value for theirs, value in given.items() if theirs in names}
    state |= {TURNED[theirs]: value.T for theirs, value in given.items() if theirs in TURNED}
    if name in ("MultiVAE", "MultiDAE"):
        # Theirs are deviations from the mean rating.
        state["output.bias"] = state["output.bias"] + float(train.ratings.mean())
    system.network.load_state_dict(state)
    system.cases = system.read(train)
    return system


@pytest.mark.parametrize("name", KINDS)
def test_scores_of_all_pairs_are_theirs(name: str, train: Ratings) -> None:
    system = system_of(name, train)
    system.network.eval()
    with torch.no_grad():
        system.refresh()
        users = torch.arange(train.n_users, device=system.device)
        scores: Tensor = (
            system.user_scores(users) if system.figure == "valid_ndcg" else system.item_means(users)
        )
    found = torch.sigmoid(scores) if name == "CDAE" else scores
    wanted = np.array(KEPT["cases"][name]["scores"])
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["LightGCN", "NGCF", "NGCF without norms"])
def test_the_loss_of_triples_is_theirs(name: str, train: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of(name, train)
    system.network.eval()  # no dropout, as theirs was
    users, above, below = (np.array(column) for column in zip(*KEPT["triples"], strict=True))
    drawn = torch.tensor(below).to(system.device), torch.ones(len(below), dtype=torch.bool).to(system.device)
    monkeypatch.setattr(system._negatives, "draw", lambda _: drawn)
    places = np.searchsorted(USERS * train.n_items + ITEMS, users * train.n_items + above)
    loss, n = system.batch_loss(system.cases[torch.tensor(places)], 0.0)
    assert n == 3
    assert float(loss.detach()) == pytest.approx(KEPT["cases"][name]["loss"], rel=1e-5)
