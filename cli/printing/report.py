"""The tables of figures that several commands show, beside references.

Programs get every column under its plain name (``--json``, ``--csv``); people get a selection in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import Row, TableWriter, note
from .progress import bar

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.evaluation import Comparison, Evaluation
    from pyro_bmf.evaluation.protocols import Part
    from pyro_bmf.posterior import Posterior

SYSTEMS = {
    "global-mean": "global mean",
    "bias-only": "user and item biases",
    "popularity": "popularity",
}
PROTOCOLS = {
    "full": "whole catalogue (full)",
    "rated": "own test items (rated)",
    "rated-precision": "own test items (rated-precision)",
}
_CANDIDATES = {
    "full": "all items but those the user rated elsewhere",
    "rated": "the items that the user rated in this part",
    "rated-precision": "the items that the user rated in this part, divided by min(N, all of them)",
}


def split_words(split: Split) -> str:
    """Return how the ratings were split, in words."""
    settings = split.settings
    if split.scheme == "random" and "fractions" in settings:
        shares = "/".join(f"{100 * share:g}" for share in settings["fractions"])
        return f"random split {shares}, seed {settings.get('seed', 0)}"
    if split.scheme == "leave-last":
        return f"split by each user's last {settings['n']} (leave-last)"
    if split.scheme == "time":
        return "split at points in time"
    if split.scheme == "k-fold":
        return f"fold {settings['fold']} of k = {settings['k']}, seed {settings['seed']}"
    if split.scheme == "subsample":
        return f"subsample of {settings['percent']:g} % to train on, seed {settings['seed']}"
    return f"{split.scheme} split"


def _part_in_the_fit(posterior: Posterior) -> str | None:
    """Return what validation ratings decided in a fit; a chain keeps its draws whatever they say."""
    settings = posterior.info.get("settings", {})
    if posterior.sampling.settles:
        return None
    if settings.get("coordinate-ascent", {}).get("patience") is not None:
        return "these ratings said when to stop"
    kept = settings.get("cross-feedback", {}).get("keep")
    return "these ratings chose the state that is kept" if kept == "best" else None


def evaluation_tables(
    posterior: Posterior,
    split: Split,
    tables: TableWriter,
    *,
    part: Part = "test",
    threshold: float | None = None,
    caveat: str | None = None,
    detail: bool = False,
    **options: Any,
) -> Comparison:
    """Measure a posterior beside the references, show the comparison, and return it.

    Parameters
    ----------
    threshold
        Above which rating an item is relevant; `pyro_bmf.evaluation.protocols.default_threshold` when None.
    caveat
        What makes the figures better or worse than they seem; it is put in the title.
    detail
        Whether to show the further tables as well.
    options
        Of `evaluate_with_references`.
    """
    from pyro_bmf.evaluation import evaluate_with_references
    from pyro_bmf.evaluation.protocols import default_threshold, evaluated_users
    from pyro_bmf.posterior.settling import settling_of

    relevant = default_threshold(split.ratings.scale) if threshold is None else threshold
    held_out = split.test if part == "test" else split.valid
    # The model and two references rank; the global mean scores all items alike.
    total = 3 * len(evaluated_users(held_out, relevant)) if options.get("protocols", PROTOCOLS) else None
    with bar("Measuring", total, "lists") as advance:
        comparison = evaluate_with_references(
            posterior,
            split,
            part=part,
            name="pyro-bmf",
            threshold=relevant,
            advance=advance,
            **options,
        )
    model = comparison.model
    trained = "train + validation" if model.fitted_on == "train+valid" else "train"
    if part == "valid":
        caveat = _part_in_the_fit(posterior)
    settling = settling_of(posterior)
    caveats = [text for text in (caveat, None if settling is None else settling["words"]) if text]
    title = (
        f"{split.ratings.name}: {model.n_ratings:,} {_PARTS[part]} ratings ({split_words(split)}), "
        f"posterior-predictive mean, fitted to {trained}{''.join(f'; {text}' for text in caveats)}"
    )
    shown = _headline(comparison)
    rows = comparison.table().reset_index().to_dict("records")
    screen = [_main_row(evaluation, shown) for evaluation in comparison.evaluations]
    tables.show(title, rows, name="systems", screen=screen)
    _tell_unknown(split, part, model.fitted_on)
    if not tables.json:
        normal = posterior.model.likelihood.predicts_normals()
        tables.say(_legend(comparison, shown, ends_are_levels=not normal))
    if detail:
        _detail_tables(comparison, tables)
    return comparison


def with_chain(content: dict[str, Any], settling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return figures with what is known of the chain that gave them, for programs."""
    return content | {"chain": None if settling is None else dict(settling)}


_PARTS = {"test": "test", "valid": "validation"}


def _tell_unknown(split: Split, part: Part, fitted_on: str) -> None:
    """Say how many of the ratings are of users, and of items, that were not trained on."""
    from pyro_bmf.data.overlap import unknown_ratings

    train = split.train_valid if fitted_on == "train+valid" else None
    found = [one for one in unknown_ratings(split, train=train) if one.part == part]
    for one in found:
        if not one.alarming(split.scheme):  # then it was warned of already
            note(f"{one}.")


def _headline(comparison: Comparison) -> tuple[str, int] | None:
    """Return protocol and length of the ranking figures in the main table: `full` at 20 if measured."""
    found = [(ranking.protocol, ranking.n) for ranking in comparison.model.ranking]
    best = [choice for choice in found if choice[0] == "full"] or found
    return next((choice for choice in best if choice[1] == 20), best[0] if best else None)


def _main_row(evaluation: Evaluation, shown: tuple[str, int] | None) -> Row:
    """Return the columns that fit a screen, in words."""
    columns: dict[str, object] = {"system": SYSTEMS.get(evaluation.system, evaluation.system)}
    columns |= {metric.label: value for metric, value in evaluation.named() if metric.screen == "main"}
    for ranking in evaluation.ranking:
        if (ranking.protocol, ranking.n) == shown:
            columns |= {
                metric.words(ranking.n): value
                for metric, value in ranking.named(evaluation.metrics)
                if metric.screen == "main"
            }
    return columns


def _legend(comparison: Comparison, shown: tuple[str, int] | None, *, ends_are_levels: bool) -> str:
    text = "RMSE and MAE unclipped; NLL in nats a rating."
    if comparison.model.nll is None:
        text += (
            "\n90 % by PIT: ratings in the middle 90 % of a Normal with the predictive mean and sd; interval "
            "holds: those inside the 90 % interval that is printed."
        )
    else:
        text += (
            "\n90 % by PIT: ratings in the middle 90 % of their predictive, a level's share of it drawn at "
            "random (0.90 is right);\ninterval holds: ratings inside the printed 90 % interval"
            + (", whose ends are whole levels (0.90 or more)." if ends_are_levels else ", a Normal's.")
        )
    if shown is not None:
        text += (
            f"\nRecall and NDCG: protocol {shown[0]}, {_CANDIDATES[shown[0]]}; relevant is a rating above "
            f"{comparison.model.threshold:g}."
        )
        text += _why_no_ranking(comparison)
    return text


def _why_no_ranking(comparison: Comparison) -> str:
    """Say why there is no ranking figure, where there is none."""
    ranking = comparison.model.ranking[0]
    if ranking.n_users:
        return ""
    alone, rest = ranking.n_users_one_rating, ranking.n_users_none_relevant
    reasons = []
    if alone:
        have = "user has" if alone == 1 else "users have"
        last = "; --n 2 leaves two a user" if comparison.model.split_scheme == "leave-last" else ""
        reasons.append(f"{alone:,} {have} one {_PARTS[comparison.model.part]} rating, of at least two{last}")
    if rest:
        reasons.append(f"of {rest:,} users none of the ratings is relevant (--threshold of evaluate)")
    return f"\nThere is none (–), as no user can be ranked for: {'; '.join(reasons)}."


def _detail_tables(comparison: Comparison, tables: TableWriter) -> None:
    found = comparison.tables()
    labels = {metric.name: metric.label for metric in comparison.model.metrics}
    records = {name: frame.to_dict("records") for name, frame in found.items()}
    tables.show("More figures", records["ratings"], name="ratings", screen=_more_figures(comparison))
    if "ranking" in records:
        tables.show(
            "Ranking figures by protocol", records["ranking"], name="ranking", screen=_by_protocol(comparison)
        )
    tables.show(
        "Difference from each reference, with a 95 % interval by paired bootstrap over users",
        records["differences"],
        name="differences",
        screen=[
            {
                "figure": labels[row["metric"]],
                "pyro-bmf less": SYSTEMS.get(row["b"], row["b"]),
                "difference": row["difference"],
                "lower": row["low"],
                "upper": row["high"],
            }
            for row in records["differences"]
        ],
    )
    own = [row for row in records["coverage"] if row["system"] == comparison.model.system]
    tables.show(
        "pyro-bmf: shares of ratings by randomised PIT, in the printed intervals and in the smallest sets",
        records["coverage"],
        name="coverage",
        screen=[
            {**_coverage_row({"interval": f"{100 * row['nominal']:g} %"}, row), **_set_columns(row)}
            for row in _overall(own)
        ],
    )
    for by in ("user", "item"):
        tables.show(
            f"pyro-bmf: by decile of the {by}'s number of training ratings",
            [row for row in records["deciles"] if row["by"] == by],
            name=f"{by}-deciles",
            screen=_decile_rows(comparison, by, own),
        )


def _overall(rows: Iterable[dict[Any, Any]]) -> list[dict[Any, Any]]:
    return [row for row in rows if row["by"] == "all"]


def _coverage_row(head: dict[str, object], row: Mapping[Any, Any]) -> Row:
    return {
        **head,
        "by PIT": row["pit_coverage"],
        "s.e.": row["se"],
        "within 2 s.e.": bool(row["within"]),
        "interval holds": row["interval_coverage"],
        "mean width": row["width"],
    }


def _set_columns(row: Mapping[Any, Any]) -> Row:
    if "set_size" not in row:
        return {}
    return {"set holds": row["set_coverage"], "levels in set": row["set_size"]}


def _decile_rows(comparison: Comparison, by: str, coverage: Sequence[dict[Any, Any]]) -> list[Row]:
    """Return one row a decile, with its 90 % interval."""
    ninety = {row["decile"]: row for row in coverage if row["by"] == by and row["nominal"] == 0.9}
    return [
        _coverage_row(
            {
                "decile": group.decile,
                "trained on": f"{group.count_low} to {group.count_high}",
                "ratings": group.n_ratings,
                "RMSE": group.rmse,
                "mean sd": group.mean_sd,
            },
            ninety[group.decile],
        )
        for group in comparison.model.calibration.deciles
        if group.by == by
    ]


def _more_figures(comparison: Comparison) -> list[Row]:
    """Return one row a figure, one column a system."""
    lines: dict[str, dict[str, object]] = {}
    for evaluation in comparison.evaluations:
        system = SYSTEMS.get(evaluation.system, evaluation.system)
        for metric, value in evaluation.named():
            if metric.screen == "more":
                lines.setdefault(metric.label, {})[system] = value
        lines.setdefault("ratings of unknown users or items", {})[system] = evaluation.n_cold
    return [{"figure": words, **values} for words, values in lines.items()]


def _by_protocol(comparison: Comparison) -> list[Row]:
    """Return one row a protocol, length and figure, one column a system."""
    lines: dict[tuple[str, str], dict[str, object]] = {}
    for evaluation in comparison.evaluations:
        system = SYSTEMS.get(evaluation.system, evaluation.system)
        for ranking in evaluation.ranking:
            name = PROTOCOLS.get(ranking.protocol, ranking.protocol)
            for metric, value in ranking.named(evaluation.metrics):
                lines.setdefault((name, metric.words(ranking.n)), {})[system] = value
    return [{"candidates": name, "figure": figure, **values} for (name, figure), values in lines.items()]
