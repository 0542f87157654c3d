"""Posteriors for ArviZ: the only module that knows it.

ArviZ 1 needs Python 3.12. On 3.11 its interface comes with ArviZ 0.23 as ``arviz.preview``, so `arviz_module`
gives one interface everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..data.splits import Split
from ..errors import SettingsError
from ..posterior.posterior import Posterior
from ..posterior.settling import LEAST_DRAWS
from ..systems.raw_ids import check_count
from .groups import GROUPS, GroupPlan
from .selection import Subset, select

__all__ = ["GROUPS", "arviz_module", "halves", "to_arviz", "tree_attributes"]

#: Bytes that `to_arviz` makes at most.
MAX_BYTES = 2_000_000_000


def arviz_module() -> ModuleType:
    """Return ArviZ with the interface of its version 1, on every Python."""
    arviz = import_module("arviz")
    if int(str(arviz.__version__).split(".")[0]) >= 1:
        return arviz
    return import_module("arviz.preview")


def to_arviz(
    posterior: Posterior,
    split: Split | None = None,
    *,
    part: str = "train",
    user_ids: Any = None,
    item_ids: Any = None,
    pairs: pd.DataFrame | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    groups: Sequence[str] = GROUPS,
    functionals: bool = True,
    rating_probability: bool = False,
    max_bytes: int = MAX_BYTES,
) -> xr.DataTree:
    """Draw a subset into memory as ArviZ's DataTree.

    Parameters
    ----------
    posterior : Posterior
    split : Split, optional
        The split that was fitted: its hash is noted, and its parts can be chosen.
    part : {"train", "valid", "test"}
        Whose ratings are the observed data. PSIS-LOO is about training ratings.
    user_ids, item_ids : raw id or sequence, optional
        Rows to draw, with the observed ratings between them. One side alone takes the other side's rows
        that it was rated with.
    pairs : DataFrame, optional
        Observed pairs instead, by columns ``user_id`` and ``item_id``. When nothing is given: the 50 users
        and the 50 items with most training ratings.
    num_samples, seed : int
        Draws; draw s of a row is the same in every subset. 400 when not given; of a chain, those it kept; of
        several as many of each, and as few more as that takes.
    groups : sequence of str
        Some of `GROUPS`.
    functionals : bool
        Whether ``posterior`` and ``prior`` hold ``uv`` (u.v) and ``eta`` (the predictor) of every pair: the
        identifiable quantities.
    rating_probability : bool
        Whether ``log_likelihood`` is the log-probability of the rating's level on a discrete scale, which may
        be compared between all likelihoods, rather than the likelihood's own log-density.
    max_bytes : int
        Refuse more than this.

    Returns
    -------
    DataTree
        Its attributes tell software, data, split and settings, whether the posterior is tempered, and what
        the draws are: independent ones of a guide, or those of chains: sweeps, burn-in, thinning and seed.
        Of a chain, ``posterior`` also holds the draws of noise, cut points and the rows' priors.

    Raises
    ------
    UnknownIdError, DataError
        For ids that are unknown, or pairs that were not observed.
    SettingsError
        If the groups would take more than `max_bytes`.
    """
    plan = GroupPlan(
        posterior,
        select(posterior, split, Subset(part, user_ids, item_ids, pairs), everything=False),
        posterior.number_of_draws(num_samples),
        seed,
        tuple(groups),
        functionals,
        rating_probability,
    )
    if plan.n_bytes() > max_bytes:
        raise SettingsError(
            f"these draws take {plan.n_bytes() / 1e9:.1f} GB, more than max_bytes ({max_bytes / 1e9:.1f} "
            "GB): ask for fewer rows, pairs, draws or groups, or stream them to disk with export_netcdf."
        )
    sink = _Memory(plan)
    plan.fill(sink)
    tree = xr.DataTree.from_dict({group: sink.dataset(group) for group in groups})
    tree.attrs = tree_attributes(plan, split)
    return tree


def halves(tree: xr.DataTree) -> xr.DataTree:
    """Return a chain's tree with the two halves of each chain as two chains, so that R-hat sees a drift.

    ArviZ wants two chains or more for R-hat and gives NaN for one: this is for one chain.

    Parameters
    ----------
    tree : DataTree
        Of `to_arviz`, of a chain; of an odd number of draws the first is left out.

    Returns
    -------
    DataTree
        The group ``posterior`` alone, with dimension ``chain`` twice as long.

    Raises
    ------
    SettingsError
        If the draws are independent ones of a guide: R-hat says nothing of those.
    """
    if "n_chains" not in tree.attrs:
        raise SettingsError(
            f"halves are of a chain, and these draws are {tree.attrs.get('sampling', 'of unknown origin')}: "
            "R-hat says nothing of them."
        )
    draws = tree["posterior"].to_dataset()
    half = draws.sizes["draw"] // 2
    draws = draws.isel(draw=slice(draws.sizes["draw"] - 2 * half, None))
    parts = [
        draws.isel(draw=slice(at * half, (at + 1) * half)).assign_coords(draw=np.arange(half))
        for at in (0, 1)
    ]
    joined = xr.concat(parts, "chain")
    joined = joined.assign_coords(chain=np.arange(joined.sizes["chain"]))
    found = xr.DataTree.from_dict({"posterior": joined})
    found.attrs = dict(tree.attrs)
    return found


def chain_diagnostics(posterior: Posterior, *, n_pairs: int = 200, seed: int = 0) -> pd.DataFrame:
    """Return R-hat and effective sample sizes of chains, on the predictors of random training pairs.

    The first and the second half of each chain stand for two chains, so that R-hat sees a drift. Predictors
    are looked at, as single factors have no identity.

    Parameters
    ----------
    posterior : Posterior
        Of Gibbs sweeps.
    n_pairs, seed : int
        How many training pairs, and which.

    Returns
    -------
    DataFrame
        One row a pair: ``user_id``, ``item_id``, ``r_hat``, ``ess_bulk``, ``ess_tail``.

    Raises
    ------
    SettingsError
        If the posterior is variational: independent draws of one q say nothing of convergence.
    """
    refusal = (
        "R-hat and effective sample sizes need the draws of a chain, eight or more: fit with Gibbs sweeps, "
        "and keep as many (kept_draws, --kept-draws)."
    )
    n_draws = posterior.sampling.chain_length(refusal)
    if n_draws < LEAST_DRAWS * posterior.sampling.chains:
        raise SettingsError(refusal)
    train = posterior.train
    rows = np.random.default_rng(seed).permutation(len(train))[: check_count("n_pairs", n_pairs)]
    eta = posterior.pairs.draw_eta(train.users[rows], train.items[rows], np.arange(n_draws), seed)
    chains = posterior.sampling.by_chain(eta.T.double().cpu().numpy())
    half = chains.shape[2] // 2
    values = np.concatenate([chains[:, :, :half], chains[:, :, half : 2 * half]], 1).transpose(1, 2, 0)
    # There may be more chains than draws of each, which is no mistake here.
    tree = arviz_module().from_dict({"posterior": {"eta": values}}, check_conventions=False)
    table = arviz_module().summary(tree, var_names=["eta"], kind="diagnostics", round_to="none")
    found = pd.DataFrame(
        {
            "user_id": posterior.user_vocabulary.raw(train.users[rows]),
            "item_id": posterior.item_vocabulary.raw(train.items[rows]),
        }
    )
    for name in ("r_hat", "ess_bulk", "ess_tail"):
        found[name] = table[name].astype(float).to_numpy()
    return found


def tree_attributes(plan: GroupPlan, split: Split | None) -> dict[str, Any]:
    """Return what a tree is of, in types that netCDF has."""
    posterior, info = plan.posterior, plan.posterior.info
    probability = plan.rating_probability
    return {
        "inference_library": "pyro_bmf",
        "inference_library_version": str(info.get("software_version", "unknown")),
        "data_name": posterior.train.name,
        "data_hash": str(split.ratings.data_hash if split is not None else info.get("data_hash", "unknown")),
        "split_hash": str(split.hash if split is not None else info.get("split_hash", "unknown")),
        "settings": json.dumps(info.get("settings", {})),
        "model": json.dumps(posterior.model.settings()),
        "tempered": int(posterior.tempered),
        "beta_user": posterior.beta[0],
        "beta_item": posterior.beta[1],
        **posterior.sampling.attributes(info),
        "log_likelihood_of": "probability of the rating's level"
        if probability
        else "likelihood's own density",
        "seed": plan.seed,
    }


class _Memory:
    """Keeps groups as arrays."""

    def __init__(self, plan: GroupPlan) -> None:
        self.plan = plan
        self.arrays: dict[tuple[str, str], NDArray[Any]] = {
            (group, name): np.empty([plan.sizes[dim] for dim in dims], dtype=dtype)
            for group in plan.groups
            for name, (dims, dtype) in plan.variables(group).items()
        }

    def put(
        self, group: str, name: str, draws: slice | None, values: NDArray[Any], pairs: slice | None = None
    ) -> None:
        """Store a block."""
        array = self.arrays[group, name]
        if draws is None:
            array[...] = values
        elif pairs is None:
            array[:, draws] = values
        else:
            array[:, draws, pairs] = values

    def dataset(self, group: str) -> xr.Dataset:
        """Return one group with its coordinates."""
        variables = self.plan.variables(group)
        return xr.Dataset(
            {name: (dims, self.arrays[group, name]) for name, (dims, _) in variables.items()},
            self.plan.coordinates(group),
        )
