"""Matrix factorizations without a distribution: Surprise, Cornac, LensKit."""

from __future__ import annotations

from typing import Any

import numpy as np
from prediction import Clock, Fitted, biased
from split_arrays import SplitArrays


def surprise_svd(split: SplitArrays, settings: dict[str, Any], seed: int, clock: Clock) -> Fitted:
    """Fit Surprise's SVD: biased matrix factorization by stochastic gradient descent."""
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    train = split.train
    table = pd.DataFrame({"u": train.users, "i": train.items, "r": train.ratings})
    data = Dataset.load_from_df(table, Reader(rating_scale=(split.levels[0], split.levels[-1])))
    trainset = data.build_full_trainset()
    model = SVD(
        n_factors=settings["factors"],
        n_epochs=settings["epochs"],
        lr_all=settings["rate"],
        reg_all=settings["penalty"],
        random_state=seed,
    )
    with clock:
        model.fit(trainset)
    # Surprise numbers rows as it meets them; rows that were never seen keep zeros.
    pu, qi = np.zeros((split.n_users, model.pu.shape[1])), np.zeros((split.n_items, model.qi.shape[1]))
    bu, bi = np.zeros(split.n_users), np.zeros(split.n_items)
    for inner in trainset.all_users():
        raw = trainset.to_raw_uid(inner)
        pu[raw], bu[raw] = model.pu[inner], model.bu[inner]
    for inner in trainset.all_items():
        raw = trainset.to_raw_iid(inner)
        qi[raw], bi[raw] = model.qi[inner], model.bi[inner]
    return biased(trainset.global_mean, bu, bi, pu, qi)


def cornac_data(split: SplitArrays, seed: int) -> Any:
    """Return the train part as Cornac's data set, every row named so that its indices are ours."""
    from cornac.data import Dataset

    train = split.train
    users = {number: number for number in range(split.n_users)}
    items = {number: number for number in range(split.n_items)}
    triples = list(zip(train.users.tolist(), train.items.tolist(), train.ratings.tolist(), strict=True))
    return Dataset.build(triples, global_uid_map=users, global_iid_map=items, seed=seed)


def cornac_mf(split: SplitArrays, settings: dict[str, Any], seed: int, clock: Clock) -> Fitted:
    """Fit Cornac's MF: biased matrix factorization by stochastic gradient descent."""
    from cornac.models import MF

    data = cornac_data(split, seed)
    model = MF(
        k=settings["factors"],
        max_iter=settings["epochs"],
        learning_rate=settings["rate"],
        lambda_reg=settings["penalty"],
        use_bias=True,
        num_threads=1,
        seed=seed,
    )
    with clock:
        model.fit(data)
    return biased(float(model.global_mean), model.u_biases, model.i_biases, model.u_factors, model.i_factors)


def lenskit_als(split: SplitArrays, settings: dict[str, Any], seed: int, clock: Clock) -> Fitted:
    """Fit LensKit's biased matrix factorization by alternating least squares."""
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    train = split.train
    table = pd.DataFrame({"user_id": train.users, "item_id": train.items, "rating": train.ratings})
    data = from_interactions_df(table)
    model = BiasedMFScorer(
        features=settings["factors"],
        epochs=settings["epochs"],
        regularization=settings["penalty"],
        damping=settings["damping"],
    )
    with clock:
        model.train(data, TrainingOptions(rng=seed))

    def spread(ids: Any, values: Any, n: int) -> Any:
        full = np.zeros((n, *np.shape(values)[1:]))
        full[np.asarray(ids)] = np.asarray(values)
        return full

    pu = spread(model.users.ids(), model.user_embeddings, split.n_users)
    qi = spread(model.items.ids(), model.item_embeddings, split.n_items)
    bias = model.bias
    bi = spread(bias.items.ids(), bias.item_biases, split.n_items)
    bu = spread(bias.users.ids(), bias.user_biases, split.n_users)
    return biased(float(bias.global_bias), bu, bi, pu, qi)
