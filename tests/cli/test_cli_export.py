"""`pyro-bmf export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pyro_bmf.cli.export import GROUPS
from pyro_bmf.export.groups import GROUPS as ALL_GROUPS
from pyro_bmf.posterior import Posterior

Run = Any


def test_groups_are_those_of_the_library() -> None:
    assert GROUPS == ALL_GROUPS


def test_parquet(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    outcome = cli("export", tiny_run, "--format", "parquet", "--out", "tables", "--json")
    assert outcome.code == 0, outcome.err
    files = [row["file"] for row in json.loads(outcome.out)["rows"]]
    assert files == ["tables/items.parquet", "tables/users.parquet", "tables/posterior.json"]
    posterior = Posterior.load(tiny_run / "model.safetensors")
    users = pd.read_parquet(tmp_path / "tables" / "users.parquet")
    # A product of two factors is in the unit of ratings.
    scale = posterior.model.units.scale**0.5
    np.testing.assert_allclose(users["loc_0"], scale * posterior.user_rows.loc[:, 0].numpy(), rtol=1e-6)
    beside = cli("export", tiny_run, "--format", "parquet", "--out", "t", "--csv", "t/users.parquet")
    assert beside.code == 1
    assert "--out and --csv would both write t/users.parquet: give two names." in beside.err
    assert not Path("t").exists()
    again = cli("export", tiny_run, "--format", "parquet", "--out", "tables")
    assert again.code == 1
    assert "tables exists: give another --out, or --overwrite" in again.err
    assert cli("export", tiny_run, "--format", "parquet", "--out", "tables", "--overwrite").code == 0


def test_netcdf(cli: Run, tiny_run: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id\n3\n5\n", encoding="utf-8")
    outcome = cli(
        *("export", tiny_run, "--format", "netcdf", "--out", "some.nc", "--draws", 6, "--seed", 1),
        *("--users", users, "--group", "posterior", "--group", "observed_data"),
    )
    assert outcome.code == 0, outcome.err
    with xr.open_datatree(tmp_path / "some.nc", engine="h5netcdf") as tree:
        assert set(tree.children) == {"posterior", "observed_data"}
        assert dict(tree["posterior"].sizes)["draw"] == 6
        assert tree["posterior"]["user"].values.tolist() == [3, 5]
    outcome = cli(
        "export", tiny_run, "--format", "netcdf", "--out", "test.nc", "--draws", 2, "--part", "test"
    )
    assert outcome.code == 0, outcome.err
    with xr.open_datatree(tmp_path / "test.nc", engine="h5netcdf") as tree:
        split = json.loads((tiny_run / "split-hash.json").read_text(encoding="utf-8"))
        assert tree.attrs["split_hash"] == split["hash"]
        assert tree["observed_data"].sizes["pair"] == split["n_test"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--format", "parquet", "--out", "x", "--draws", "3"), 2, "takes no options of draws"),
        (("--format", "netcdf", "--out", "."), 1, "is a folder: give a file"),
        (("--format", "xls", "--out", "x"), 2, "is not one of 'netcdf', 'parquet'"),
        (("--format", "netcdf"), 2, "Missing option '--out'"),
        (("--format", "netcdf", "--out", "x.nc", "--draws", "2000000000"), 1, "Export fewer draws"),
    ],
)
def test_wrong_exports(cli: Run, tiny_run: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    outcome = cli("export", tiny_run, *arguments)
    assert outcome.code == code
    assert words in outcome.err
    assert not Path("x.nc").exists()
