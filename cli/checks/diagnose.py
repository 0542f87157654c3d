"""`pyro-bmf diagnose`: whose posterior can be trusted, and what to do where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SavedFileError
from pyro_bmf.files import write_json

from ..given import refuse_unread
from ..printing.output import TableWriter, note, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..runs.folder import RUN, RunFolder
from ..shared_options import seed_option

if TYPE_CHECKING:
    import pandas as pd

    from pyro_bmf.checking.row_diagnosis import RowDiagnosis
    from pyro_bmf.model.fitted import Side
    from pyro_bmf.posterior import Posterior


@dataclass(frozen=True)
class _Asked:
    """What a variational posterior is asked for."""

    draws: int
    worst: int
    searched: int
    seed: int


_COLUMNS = ("id", "n_ratings", "k_hat", "k_hat_beta_1", "amortization_gap", "approximation_gap")


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--draws",
    type=click.IntRange(100),
    default=400,
    show_default=True,
    metavar="S",
    help="Draws of each row's variational posterior.",
)
@click.option(
    "--worst", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="Rows listed a side."
)
@click.option(
    "--searched",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Rows a side whose gaps are searched for, where they have no closed form (variational posteriors).",
)
@seed_option
@click.option(
    "--out",
    type=OutputPath(beside=(".png", "-users.csv", "-items.csv")),
    metavar="FILE",
    help="Where all figures go as JSON; a figure and one CSV a side are put beside it. "
    "[default: RUN/diagnosis.json]",
)
@table_options
def command(
    path: Path, draws: int, worst: int, searched: int, seed: int, out: Path | None, tables: TableWriter
) -> None:
    """Say for every user and item whether its posterior can be trusted.

    A variational posterior: k-hat of each row against what its own ratings say, and whether the encoder or
    the family of q is at fault, in nats; the trace of the objective and the noise of its gradients. Draws of
    a chain: R-hat and effective sample sizes. The worst rows come with raw ids and what to do.

    \b
    Examples:
      pyro-bmf diagnose runs/ml100k
      pyro-bmf diagnose runs/amortized --draws 1000 --worst 20 --csv worst.csv
    """
    folder = RunFolder.existing(path)
    posterior = folder.load_posterior()
    file = folder.path / "diagnosis.json" if out is None else out
    name = path.resolve().name
    if posterior.sampling.settles:
        refuse_unread(
            ("draws", "searched"),
            f"of a variational posterior alone, and {name} holds {posterior.number_of_draws(None)} draws "
            "of a chain",
        )
        _chain(posterior, name, file, worst, seed, tables)
    else:
        _variational(folder, posterior, file, _Asked(draws, worst, searched, seed), tables)


def _chain(posterior: Posterior, name: str, file: Path, worst: int, seed: int, tables: TableWriter) -> None:
    from pyro_bmf.checking.chain_diagnosis import MANY_FLAGGED, PAIRS_A_ROW, diagnose_chain
    from pyro_bmf.evaluation.plain_values import json_ready

    with bar("Pairs", (posterior.n_users + posterior.n_items) * PAIRS_A_ROW, "pairs") as advance:
        found = diagnose_chain(posterior, seed=seed, advance=advance)
    summary = found.summary()
    whose = "a chain" if found.chains == 1 else f"{found.chains} chains"
    tables.show(
        f"{name}: {found.n_draws} draws of {whose}; R-hat and effective sample size of rows' predictors",
        summary,
        name="rows",
        screen=[
            {
                (f"R-hat > {found.r_hat_limit:g}" if key == "flagged" else key): value
                for key, value in line.items()
            }
            for line in summary
        ],
    )
    hyper: Any = found.hyperparameters.to_dict("records")
    tables.show("The same of hyperparameters", hyper, name="hyperparameters")
    for side, table in found.rows.items():
        listed = table.sort_values("r_hat", ascending=False).head(worst)
        tables.show(
            f"The {len(listed)} {side}s that have moved least freely",
            listed[["id", "n_ratings", "r_hat", "ess"]].to_dict("records"),
            name=f"{side}s",
        )
        _write(table, file, side)
    write_json(
        file,
        json_ready(
            {
                "run": name,
                "draws": found.n_draws,
                "chains": found.chains,
                "rows": summary,
                "hyperparameters": hyper,
            }
        ),
    )
    if found.largest_share > MANY_FLAGGED:
        tables.say(
            f"{found.largest_share:.0%} of a side's rows have R-hat above {found.r_hat_limit:g}: run the "
            "chain for longer (--sweeps, --burn-in, --kept-draws). Means are safe long before intervals are."
        )
    tables.say(f"Every row is in {file.with_name(file.stem + '-users.csv')} and its neighbour for items.")


def _variational(
    folder: RunFolder, posterior: Posterior, file: Path, asked: _Asked, tables: TableWriter
) -> None:
    from pyro_bmf.checking.diagnosis_plot import plot_diagnosis
    from pyro_bmf.checking.gradient_noise import gradient_noise
    from pyro_bmf.checking.remedies import REMEDIES, ObjectiveTrace, remedy
    from pyro_bmf.checking.row_diagnosis import diagnose_rows
    from pyro_bmf.evaluation.plain_values import json_ready

    history = _history(folder.history)
    name = folder.path.resolve().name
    # Every row twice: its k-hat, then its gaps.
    sides: tuple[Side, Side] = ("user", "item")
    with bar("Rows", 2 * (posterior.n_users + posterior.n_items), "rows") as advance:
        found = {
            side: diagnose_rows(
                posterior,
                side,
                num_samples=asked.draws,
                seed=asked.seed,
                searched=asked.searched,
                advance=advance,
            )
            for side in sides
        }
    summaries = [one.summary() for one in found.values()]
    limit = found["user"].good_k
    tables.show(
        f"{name}: k-hat of every row against its own target, flagged above {limit:.2f}; gaps in nats",
        summaries,
        name="rows",
        screen=[
            {
                "side": line["side"],
                "rows": line["rows"],
                "flagged": f"{line['flagged']:,} ({line['share_flagged']:.1%})",
                "at beta 1": line["flagged_at_beta_1"],
                "beta": line["beta"],
                "median k-hat": line["median_k"],
                "encoder's gap, mean": line["mean_amortization_gap"],
                "family's gap, mean": line["mean_approximation_gap"],
                "rows searched": line["rows_searched"],
            }
            for line in summaries
        ],
    )
    residuals = posterior.guide.has_residuals
    said = set()
    for side, one in found.items():
        listed = one.table.sort_values("k_hat", ascending=False).head(asked.worst)
        tables.show(
            f"The {len(listed)} {side}s least to be trusted",
            lines := [
                {
                    **{column: line[column] for column in _COLUMNS},
                    "what to do": remedy(line, one, residuals=residuals),
                }
                for line in listed.to_dict("records")
            ],
            name=f"{side}s",
        )
        said |= {str(line["what to do"]) for line in lines}
        _write(one.table, file, side)
    content: dict[str, Any] = {
        "run": name,
        "draws": asked.draws,
        "seed": asked.seed,
        "rows": summaries,
    }
    if posterior.guide.has_gradients:
        noise = gradient_noise(posterior, folder.settings(folder.read_config()), seed=asked.seed)
        content["gradient_noise"] = noise.to_dict()
        tables.show(
            "Gradients where the fit ended, over blocks and draws",
            [noise.to_dict()],
            name="gradients",
            screen=[
                {
                    "blocks": noise.n_blocks,
                    "noise scale": noise.noise_scale,
                    "from drawing rows": f"{noise.share_of_draws:.0%}",
                }
            ],
        )
    trace = ObjectiveTrace.of(history)
    if trace is not None:
        content["trace"] = trace.to_dict()
        tables.say(trace.words())
    write_json(file, json_ready(content))
    plot_diagnosis(found, history, name, file.with_suffix(".png"))
    _advise(found, tables)
    words = {what: text for what, text in REMEDIES.items() if what in said}
    for what, text in words.items():
        tables.say(f"{what}: {text}")
    tables.say(
        f"Every row is in {file.with_name(file.stem + '-users.csv')} and its neighbour for items, the figure "
        f"in {file.with_suffix('.png')}. Joint R-hat says nothing of a variational posterior."
    )


def _history(file: Path) -> pd.DataFrame:
    """Return what a fit recorded of its iterations, nothing where there is no file.

    Raises
    ------
    SavedFileError
        If the file is damaged.
    """
    import pandas as pd

    from pyro_bmf.tensor_files import first_line

    if not file.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(file)
        for name in ("iteration", "loss_per_rating", "valid_rmse"):
            if name in table:
                table[name] = pd.to_numeric(table[name])
        if len(table) and "iteration" not in table:
            raise ValueError("it has no column iteration")
    except (OSError, ValueError) as error:  # pandas' own errors among them
        raise SavedFileError(
            f"{file} is damaged ({first_line(error)}): take it from a copy, or delete it; the diagnosis then "
            "does without the course of the objective."
        ) from error
    return table


def _write(table: pd.DataFrame, file: Path, side: str) -> None:
    from pyro_bmf.files import atomic_write

    with atomic_write(file.with_name(f"{file.stem}-{side}s.csv")) as temporary:
        table.to_csv(temporary, index=False)


def _advise(found: Mapping[Side, RowDiagnosis], tables: TableWriter) -> None:
    from pyro_bmf.checking.remedies import blame

    for side, one in found.items():
        if one.beta != 1.0:
            note(
                f"The {side}s' posterior is tempered (beta {one.beta:g}): k-hat is against the tempered "
                "target, and beside it against beta 1."
            )
        fault = blame(one)
        if fault is not None:
            tables.say(
                f"{fault.share:.0%} of the {side}s are flagged; the {fault.part} has the larger part in it "
                f"({fault.larger:.2f} nats against {fault.smaller:.2f})."
            )
