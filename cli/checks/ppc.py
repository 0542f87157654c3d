"""`pyro-bmf ppc`: does the model give data like those that there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pyro_bmf.files import write_json

from ..printing.output import TableWriter, note, table_options
from ..printing.outputs import OutputPath
from ..printing.progress import bar
from ..printing.report import split_words
from ..runs.folder import RUN, RunFolder
from ..shared_options import data_dir_option, moved_data_option, seed_option

if TYPE_CHECKING:
    from pyro_bmf.checking.predictive_check import PredictiveCheck


@click.command()
@click.argument("path", metavar="RUN", type=RUN)
@click.option(
    "--part",
    type=click.Choice(("test", "valid", "train")),
    default="test",
    show_default=True,
    help="Whose ratings to check. On train, which the model has seen, p-values crowd around a half.",
)
@click.option(
    "--draws",
    type=click.IntRange(50),
    metavar="S",
    help="Replicated data sets.  [default: 400; of a chain, those it kept]",
)
@click.option(
    "--prior-draws",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    metavar="S",
    help="Data sets drawn from the prior; 0 for none.",
)
@seed_option
@data_dir_option
@moved_data_option
@click.option(
    "--out",
    type=OutputPath(beside=(".png",)),
    metavar="FILE",
    help="Where all numbers go as JSON, the figure beside it.  [default: RUN/ppc.json]",
)
@table_options
def command(
    path: Path,
    part: Literal["test", "valid", "train"],
    draws: int | None,
    prior_draws: int,
    seed: int,
    data_dir: Path | None,
    data: str | None,
    out: Path | None,
    tables: TableWriter,
) -> None:
    """Check a run's predictions: data sets drawn from it, beside the ratings.

    Statistics of the held-out ratings are compared with those of data sets that the posterior gives at the
    same pairs. Under a correct model, one check in twenty has a statistic flagged. Data sets from the prior
    are shown beside them, then PIT and coverage, and the error that remains without the most uncertain
    predictions.

    \b
    Examples:
      pyro-bmf ppc runs/ml100k
      pyro-bmf ppc runs/ml100k --part train --draws 100 --out check.json
    """
    from pyro_bmf.checking.check_plot import plot_predictive_check
    from pyro_bmf.checking.predictive_check import check_predictive
    from pyro_bmf.evaluation.plain_values import json_ready

    folder = RunFolder.existing(path)
    posterior, split = folder.load_measured(part, data_dir, data)
    file = folder.path / "ppc.json" if out is None else out
    total = posterior.number_of_draws(draws) + prior_draws
    with bar("Replicated data sets", total, "sets") as advance:
        check = check_predictive(
            posterior,
            split,
            part=part,
            num_samples=draws,
            prior_samples=prior_draws,
            seed=seed,
            advance=advance,
        )
    name = path.resolve().name
    write_json(file, {"run": name, "split_hash": split.hash, "seed": seed, **json_ready(check.to_dict())})
    plot_predictive_check(check, f"{name}, {part} ratings of {check.data}", file.with_suffix(".png"))
    if check.tempered:
        note(f"{name} is tempered: its spread was chosen by beta, and p-values are not those of a posterior.")
    if part == "train":
        note("On training ratings p-values crowd around a half: only large discrepancies are seen.")
    if check.prior_overflows:
        note(
            f"{check.prior_overflows} of {prior_draws} data sets of the prior overflowed and are left "
            "out: the prior expects ratings without bound."
        )
    _show(check, tables, split_words(split))
    tables.say(
        f"All {len(check.statistics)} statistics are in {file}, the figure in {file.with_suffix('.png')}."
    )


#: What is shown of a check with nothing to complain of: one of each kind.
_USUAL = ("mean", "sd", "share of extreme ratings", "sd of user means", "sd of user sds", "sd of item means")
_USUAL_SHAPE = ("residual kurtosis", "residuals beyond 3 sd", "90 % by PIT", "PIT unevenness")


def _show(check: PredictiveCheck, tables: TableWriter, words: str) -> None:
    prior = {one.name: one for one in check.prior}
    usual = [one for one in check.statistics if one.name in (*_USUAL, *_USUAL_SHAPE)]
    flagged = list(check.flagged)
    shown = usual + [one for one in flagged[:12] if one not in usual]
    verdict = (
        "nothing is out of place"
        if not flagged
        else f"{len(flagged)} of {len(check.statistics)} statistics are out of place"
    )

    def line(one: Any) -> dict[str, object]:
        cells: dict[str, object] = {
            "statistic": one.name,
            "observed": one.observed,
            "replicated": one.mean,
            "90 % of replicates": f"{one.low:.4f} to {one.high:.4f}",
            "p-value": one.p_value,
            "adjusted": one.adjusted_p,
            "flagged": one.flagged,
        }
        if one.name in prior:
            cells["prior"] = f"{prior[one.name].low:.2f} to {prior[one.name].high:.2f}"
        return cells

    tables.show(
        f"{check.data}: {check.n_ratings:,} {check.part} ratings ({words}) beside {check.n_draws} replicated "
        f"data sets: {verdict}, joint p-value {check.joint_p:.3f}",
        [one.to_dict() for one in check.statistics],
        name="statistics",
        screen=[line(one) for one in shown],
    )
    calibration, risk = check.calibration, check.risk
    tables.show(
        "Shares of ratings by randomised PIT",
        [
            {
                "nominal": level,
                "by PIT": calibration.overall.pit_coverage[at],
                "lowest of 20 deciles": min(group.pit_coverage[at] for group in calibration.deciles),
                "highest": max(group.pit_coverage[at] for group in calibration.deciles),
                "mean width": calibration.overall.width[at],
            }
            for at, level in enumerate(calibration.levels)
        ],
        name="coverage",
    )
    tables.show(
        "Risk against coverage: RMSE of the predictions that are kept, the surest first "
        f"(sd against |error|: {calibration.sd_error_correlation:.3f})",
        [
            {"kept": share, "RMSE": rmse, "smallest possible": best}
            for share, rmse, best in zip(risk.coverage, risk.rmse, risk.best, strict=True)
        ],
        name="risk",
    )
