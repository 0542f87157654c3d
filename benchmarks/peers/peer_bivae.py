"""Cornac's BiVAE: a bilateral variational autoencoder of what was rated, mapped to ratings."""

from __future__ import annotations

from typing import Any

import numpy as np
from peer_sgd_als import cornac_data
from prediction import Clock, Fitted, Prediction
from split_arrays import SplitArrays


def fit(split: SplitArrays, settings: dict[str, Any], seed: int, clock: Clock) -> Fitted:
    """Fit BiVAE, which turns ratings into rated or not, and map its score to ratings.

    The map is a line through shrunken biases of train plus the score and its logit; its four coefficients are
    least squares on the validation ratings. Rankings use BiVAE's own score.
    """
    from cornac.models import BiVAECF

    data = cornac_data(split, seed)
    model = BiVAECF(
        k=settings["factors"],
        encoder_structure=[settings["units"]],
        act_fn="tanh",
        likelihood=settings["likelihood"],
        n_epochs=settings["epochs"],
        batch_size=128,
        learning_rate=settings["rate"],
        beta_kl=settings["beta"],
        seed=seed,
        use_gpu=False,
    )
    with clock:
        model.fit(data)
    theta = np.asarray(model.bivae.mu_theta.detach().cpu().numpy(), dtype=np.float32)
    beta = np.asarray(model.bivae.mu_beta.detach().cpu().numpy(), dtype=np.float32)
    mean = split.train.ratings.mean()
    bu, bi = shrunken_biases(split, mean)

    def columns(u: Any, i: Any) -> Any:
        logit = np.einsum("nk,nk->n", theta[u], beta[i])
        return np.column_stack([np.ones(len(u)), bu[u] + bi[i], 1.0 / (1.0 + np.exp(-logit)), logit])

    valid = split.valid
    line = np.linalg.lstsq(columns(valid.users, valid.items), valid.ratings - mean, rcond=None)[0]

    def predict(u: Any, i: Any) -> Prediction:
        return Prediction(mean + columns(u, i) @ line, None, None)

    return Fitted(predict, lambda: theta @ beta.T)


def shrunken_biases(split: SplitArrays, mean: float, weight: float = 5.0) -> tuple[Any, Any]:
    """Return biases of users and items, each shrunk as if by `weight` ratings of zero."""
    train = split.train
    bu, bi = np.zeros(split.n_users), np.zeros(split.n_items)
    n_of_users = np.bincount(train.users, minlength=split.n_users)
    n_of_items = np.bincount(train.items, minlength=split.n_items)
    for _ in range(10):
        left = train.ratings - mean - bu[train.users]
        bi = np.bincount(train.items, left, split.n_items) / (n_of_items + weight)
        left = train.ratings - mean - bi[train.items]
        bu = np.bincount(train.users, left, split.n_users) / (n_of_users + weight)
    return bu, bi
