"""`pyro-bmf stack`: the mixture of runs that predicts validation ratings best."""

from __future__ import annotations

from pathlib import Path

import click

from pyro_bmf.files import write_json

from ..printing.output import TableWriter, table_options
from ..printing.outputs import OutputPath
from ..printing.report import split_words
from ..runs.folder import RUN, RunFolder
from ..runs.several import common_split, names_of
from ..shared_options import data_dir_option, moved_data_option


@click.command()
@click.argument("paths", metavar="RUN RUN...", type=RUN, nargs=-1, required=True)
@data_dir_option
@moved_data_option
@click.option(
    "--out",
    type=OutputPath(),
    metavar="FILE",
    help="Write weights and figures to FILE as JSON; --csv writes the table.",
)
@table_options
def command(
    paths: tuple[Path, ...],
    data_dir: Path | None,
    data: str | None,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Mix the predictive distributions of runs with the weights that predict validation ratings best.

    Weights maximise the mean log-probability of the validation ratings; the mixture and each run are then
    scored on test ratings. All runs must have one split, whose validation part none was fitted to.

    \b
    Examples:
      pyro-bmf stack runs/normal runs/ordered
      pyro-bmf stack runs/normal runs/ordered --out stack.json
    """
    from pyro_bmf.evaluation import stack

    names = names_of(paths)
    folders = [RunFolder.existing(path) for path in paths]
    posteriors = [folder.load_posterior() for folder in folders]
    split = common_split(folders, names, data_dir, data)
    found = stack(dict(zip(names, posteriors, strict=True)), split)
    tables.show(
        f"{split.ratings.name}: stacking by {len(split.valid_rows):,} validation ratings, scored on "
        f"{len(split.test_rows):,} test ratings ({split_words(split)}); NLL of the {found.of}, nats",
        [row.to_dict() for row in found.rows],
        name="stack",
        screen=[
            {
                "run": row.name,
                "weight": None if row.weight is None else f"{row.weight:.3f}",
                "validation NLL": f"{row.valid_nll:.4f}",
                "validation RMSE": f"{row.valid_rmse:.4f}",
                "test NLL": f"{row.test_nll:.4f}",
                "test RMSE": f"{row.test_rmse:.4f}",
                "gain of the stack": None if row.test_gain is None else f"{row.test_gain:z.4f}",
                "se by user": None if row.test_gain_se is None else f"{row.test_gain_se:.4f}",
            }
            for row in found.rows
        ],
    )
    tables.say(
        "Weights were chosen on the validation ratings, where the stack's own figures are too good. No other "
        f"weights are better there by more than {found.gap:.1g} nats a rating."
    )
    if out is not None:
        content = {
            "data": split.ratings.name,
            "split_hash": split.hash,
            "runs": [str(path) for path in paths],
        }
        write_json(out, content | found.to_dict())
        tables.say(f"All figures are in {out}.")
