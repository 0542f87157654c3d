"""A posterior written for other programs: draws as netCDF, streamed; parameters as parquet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.splits import Split
from ..data.units import Units
from ..errors import SettingsError
from ..files import atomic_write, reserve, write_json
from ..model.fitted import Rows
from ..posterior.hyperparameters import hyperparameter_draws
from ..posterior.posterior import Posterior
from .arviz import tree_attributes
from .groups import GROUPS, GroupPlan
from .rating_units import in_ratings
from .selection import Subset, select


def export_netcdf(
    posterior: Posterior,
    path: Path | str,
    split: Split | None = None,
    *,
    part: str = "train",
    user_ids: Any = None,
    item_ids: Any = None,
    pairs: pd.DataFrame | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    groups: Sequence[str] = GROUPS,
    functionals: bool = False,
    rating_probability: bool = False,
) -> Path:
    """Stream draws to a netCDF-4 file, a block at a time: memory does not grow with their number.

    `xarray.open_datatree` reads the file as what `to_arviz` gives, lazily. All users, items and observed
    ratings are written unless some are named; the other arguments are those of `to_arviz`. The file appears
    under its name when it is whole.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SettingsError
        If the disk has not enough room.
    """
    plan = GroupPlan(
        posterior,
        select(posterior, split, Subset(part, user_ids, item_ids, pairs), everything=True),
        posterior.number_of_draws(num_samples),
        seed,
        tuple(groups),
        functionals,
        rating_probability,
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if plan.n_bytes() > free:
        raise SettingsError(
            f"{target}: the draws take {plan.n_bytes() / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
            "free. Export fewer draws (num_samples) or fewer groups."
        )
    with atomic_write(target) as temporary:
        # A quota, or a limit on the size of a file, is met here: HDF5 may crash where a write fails.
        reserve(temporary, plan.n_bytes() * 51 // 50 + 65536)
        with h5netcdf.File(temporary, "w") as file:
            file.attrs.update(tree_attributes(plan, split))
            plan.fill(_NetCdf(file, plan))
    return target


class _NetCdf:
    """Puts blocks where they belong in a file; every group has its own dimensions and coordinates."""

    def __init__(self, file: h5netcdf.File, plan: GroupPlan) -> None:
        self.variables: dict[tuple[str, str], Any] = {}
        for name in plan.groups:
            group = file.create_group(name)
            described = plan.variables(name)
            used = {dim for dims, _ in described.values() for dim in dims}
            group.dimensions = {dim: size for dim, size in plan.sizes.items() if dim in used}
            coordinates = plan.coordinates(name)
            for coordinate, (dim, values) in coordinates.items():
                text = values.dtype == object
                variable = group.create_variable(
                    coordinate, (dim,), h5py.string_dtype() if text else values.dtype
                )
                variable[...] = values
            for variable_name, (dims, dtype) in described.items():
                variable = group.create_variable(variable_name, dims, np.dtype(dtype))
                if "pair" in dims and "user_id" in coordinates:
                    variable.attrs["coordinates"] = "user_id item_id"
                self.variables[name, variable_name] = variable

    def put(
        self, group: str, name: str, draws: slice | None, values: NDArray[Any], pairs: slice | None = None
    ) -> None:
        """Write a block."""
        variable = self.variables[group, name]
        if draws is None:
            variable[...] = values
        elif pairs is None:
            variable[:, draws] = values
        else:
            variable[:, draws, pairs] = values


def export_parquet(posterior: Posterior, folder: Path | str) -> Path:
    """Write the posterior's parameters as two tables, ``users.parquet`` and ``items.parquet``.

    One row a user (item): its raw id (and title), ``n_ratings`` in training, ``bias_loc`` and ``bias_scale``
    where there are biases, and ``loc_k`` and ``scale_k`` of every factor k: mean and standard deviation of
    independent Normals. Of a chain's draws, whose factors have no identity, the biases and noise multipliers
    alone, and a third table, ``chain.parquet``: one row a draw, in the chain's order (of several
    chains, with its number beside the draw's), of noise, cut points
    (``cut_1``, ...), locations and scales of the biases' priors and shapes of rows' noise.
    ``posterior.json`` tells what they are of.

    Returns
    -------
    Path
        The folder.
    """
    target = Path(folder)
    train = posterior.train
    users = {"user_id": train.user_vocabulary.ids, "n_ratings": train.user_counts}
    items: dict[str, NDArray[Any]] = {"item_id": train.item_vocabulary.ids}
    if train.item_titles is not None:
        items["title"] = train.item_titles
    items["n_ratings"] = train.item_counts
    for name, head, rows in (
        ("users", users, posterior.user_rows),
        ("items", items, posterior.item_rows),
    ):
        with atomic_write(target / f"{name}.parquet") as temporary:
            pd.DataFrame({**head, **_parameters(rows, posterior.model.units)}).to_parquet(
                temporary, index=False
            )
    draws = _chain_table(posterior)
    if draws is not None:
        with atomic_write(target / "chain.parquet") as temporary:
            draws.to_parquet(temporary, index=False)
    write_json(
        target / "posterior.json",
        {
            "model": posterior.model.settings(),
            "scale": posterior.scale.to_dict(),
            "info": posterior.info,
            **posterior.sampling.attributes(posterior.info),
        },
    )
    return target


def _chain_table(posterior: Posterior) -> pd.DataFrame | None:
    """Return what was drawn beside rows and has an identity from draw to draw; None of nothing."""
    every, n_chains = np.arange(posterior.number_of_draws(None)), posterior.sampling.chains
    draws = hyperparameter_draws(posterior, every)
    if not draws:
        return None
    columns: dict[str, NDArray[Any]] = {"chain": every % n_chains} if n_chains > 1 else {}
    columns["draw"] = every // n_chains
    for name, drawn in draws.items():
        values = in_ratings(name, drawn, posterior.model.units)
        if name == "cuts":
            columns |= {f"cut_{cut + 1}": values[:, cut] for cut in range(values.shape[1])}
        elif values.ndim == 1:
            columns[name] = values
    return pd.DataFrame(columns)


def _parameters(rows: Rows, units: Units) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    if rows.noise_factor is not None:
        columns["noise"] = rows.noise_factor.cpu().numpy()
    for name, tensor in rows.summaries().items():
        site = "user_bias" if name.startswith("bias") else "user_factors"
        values = in_ratings(site, tensor.cpu().numpy(), units)
        # Factors have a column each.
        named = {name: values} if values.ndim == 1 else {f"{name}_{k}": one for k, one in enumerate(values.T)}
        columns |= named
    return columns
