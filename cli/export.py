"""`pyro-bmf export`: a saved run's posterior for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pyro_bmf.errors import SettingsError

from .given import refuse_unread
from .id_files import FILE, parse_ids, read_table
from .printing.option_groups import SEED
from .printing.output import TableWriter, table_options
from .printing.outputs import OutputPath
from .printing.progress import bar
from .runs.folder import RUN, RunFolder
from .shared_options import moved_data_option

# As `pyro_bmf.export.groups.GROUPS`, which brings torch.
GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "log_prior",
    "observed_data",
    "constant_data",
)

#: What is written as parquet, into one folder.
PARQUET = ("users.parquet", "items.parquet", "chain.parquet", "posterior.json")


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("netcdf", "parquet")),
    required=True,
    help="netcdf: draws of everything, in ArviZ's groups. parquet: means and standard deviations of every "
    "user's and item's factors, as tables; of a chain, biases and the draws of noise and cut points.",
)
@click.option(
    "--out",
    type=OutputPath(folder=True),
    required=True,
    metavar="PATH",
    help="A file for netcdf, a folder for parquet.",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    metavar="N",
    help="Draws from the posterior (netcdf), of several chains as many of each, and as few more as that "
    "takes. [default: 400; of a chain, those it kept, and no more]",
)
@click.option("--seed", type=SEED, metavar="S", help="Of the draws (netcdf). [default: 0]")
@click.option(
    "--users",
    type=FILE,
    metavar="FILE",
    help="Only these users: one id a line, or column user_id (netcdf).",
)
@click.option(
    "--items",
    type=FILE,
    metavar="FILE",
    help="Only these items: one id a line, or column item_id (netcdf).",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=click.Choice(GROUPS),
    help="Only this group of draws; may be given again (netcdf). [default: all]",
)
@click.option(
    "--part",
    type=click.Choice(("train", "valid", "test")),
    help="Whose ratings are the observed data (netcdf). [default: train]",
)
@click.option(
    "--functionals", is_flag=True, help="Also write u.v and the predictor of every observed pair (netcdf)."
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that holds the named set (--part valid or test).",
)
@moved_data_option
@table_options
def command(
    path: Path,
    kind: str,
    out: Path,
    draws: int | None,
    seed: int | None,
    users: Path | None,
    items: Path | None,
    groups: tuple[str, ...],
    part: str | None,
    functionals: bool,
    overwrite: bool,
    data_dir: Path | None,
    data: str | None,
    tables: TableWriter,
) -> None:
    """Write a saved run's posterior as netCDF, for ArviZ and xarray, or as parquet tables.

    netCDF is streamed: memory does not grow with the number of draws. Read it with
    xarray.open_datatree, or arviz.from_netcdf.

    \b
    Examples:
      pyro-bmf export runs/ml100k --format netcdf --out ml100k.nc --draws 50
      pyro-bmf export runs/ml100k --format netcdf --out some.nc --users some_users.csv --group posterior
      pyro-bmf export runs/ml100k --format parquet --out ml100k-factors
    """
    options: dict[str, Any] = {
        "num_samples": draws,
        "seed": seed,
        "groups": groups or None,
        "part": part,
        "functionals": functionals or None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if kind == "parquet" and (options or users is not None or items is not None):
        raise click.UsageError(
            "--format parquet writes the parameters of all users and items: it takes no options of draws, "
            "rows or groups (those are for --format netcdf)."
        )
    if part not in ("valid", "test"):
        refuse_unread(("data", "data_dir"), "with --part valid or test alone")
    _check_target(out, kind, overwrite)
    if kind == "parquet" and tables.csv is not None:
        _check_csv(tables.csv, out)
    folder = RunFolder.existing(path)
    posterior = folder.load_posterior()
    from pyro_bmf.export.files import export_netcdf, export_parquet

    if kind == "parquet":
        export_parquet(posterior, out)
        written = [*sorted(out.glob("*.parquet")), out / "posterior.json"]
    else:
        split = None
        if part in ("valid", "test"):
            posterior, split = folder.load_measured("train", data_dir, data)
        for name, file, vocabulary in (
            ("user_ids", users, posterior.user_vocabulary),
            ("item_ids", items, posterior.item_vocabulary),
        ):
            if file is not None:
                column = f"{vocabulary.kind}_id"
                options[name] = parse_ids(read_table(file, (column,))[column], vocabulary, file)
        with bar("export", None):
            written = [export_netcdf(posterior, out, split, **options)]
    tables.show(
        f"{kind} export of {path}",
        [{"file": str(file), "bytes": file.stat().st_size} for file in written],
    )


def _check_csv(csv: Path, out: Path) -> None:
    """Refuse a table of what was written that would replace a file just written."""
    own = os.path.split(os.path.realpath(csv))
    if own[0] == os.path.realpath(out) and own[1] in PARQUET:
        raise SettingsError(f"--out and --csv would both write {csv}: give two names.")


def _check_target(out: Path, kind: str, overwrite: bool) -> None:
    """Refuse a target that is of the wrong kind, or that holds something, before anything is computed."""
    if kind == "netcdf" and out.is_dir():
        raise SettingsError(f"{out} is a folder: give a file for netcdf, as in {out / 'posterior.nc'}.")
    if kind == "parquet" and out.is_file():
        raise SettingsError(f"{out} is a file: give a folder for parquet.")
    there = out.exists() if kind == "netcdf" else (out / "users.parquet").exists()
    if there and not overwrite:
        raise SettingsError(f"{out} exists: give another --out, or --overwrite.")
