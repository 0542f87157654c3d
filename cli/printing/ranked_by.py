"""Tables of what rankings by liked, rating and chosen are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import Row, TableWriter
from .progress import bar

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.evaluation import Comparison
    from pyro_bmf.evaluation.protocols import Part
    from pyro_bmf.selection import Horizon, Recommender

#: Length of the lists that are compared.
N = 20


def horizon_of(split: Split, part: Part, seen: float) -> Horizon:
    """Return what is chosen in a part of a split, of what is known when it is measured."""
    from pyro_bmf.selection import Horizon

    n = len(split.ratings)
    rows = split.test_rows if part == "test" else split.valid_rows
    known = (n - len(split.test_rows)) / n if part == "test" else seen
    return Horizon(known, len(rows) / n, f"the {_WORDS[part]} ratings, {100 * len(rows) / n:.3g} % of all")


_WORDS = {"test": "test", "valid": "validation"}


def ranked_by_table(
    recommender: Recommender,
    comparison: Comparison,
    split: Split,
    tables: TableWriter,
    *,
    part: Part = "test",
    threshold: float,
    detail: bool = False,
) -> list[dict[str, Any]]:
    """Measure lists by liked and by chosen, and show them beside those by rating and popularity.

    Returns
    -------
    list of dict
        One a ranking, for `metrics.json`.
    """
    from pyro_bmf.evaluation.protocols import evaluate_ranking, evaluated_users
    from pyro_bmf.selection import ProductRanker

    held_out = split.test if part == "test" else split.valid
    if not len(evaluated_users(held_out, threshold)):
        return []
    about = horizon_of(split, part, recommender.selection.seen)
    records: list[dict[str, Any]] = []
    with bar("Measuring rankings", 2 * len(evaluated_users(held_out, threshold)), "lists") as advance:
        for by in ("liked", "chosen"):
            ranker = ProductRanker(recommender, by, about)
            options: dict[str, Any] = {"part": part, "threshold": threshold, "advance": advance}
            found = evaluate_ranking(ranker, split, n=(N,), protocols=("full",), lists=True, **options)
            records.append({"ranked_by": by, **found[0].to_dict()})
    for words, system in (("rating", comparison.model.system), ("popularity", "popularity")):
        for evaluation in comparison.evaluations:
            if evaluation.system == system:
                records += [
                    {"ranked_by": words, **ranking.to_dict()}
                    for ranking in evaluation.ranking
                    if (ranking.protocol, ranking.n) == ("full", N)
                ]
    order = ("liked", "rating", "chosen", "popularity")
    records.sort(key=lambda record: order.index(record["ranked_by"]))
    tables.show(
        f"Rankings (full); chosen: among {about.words}; liked: chosen and above {threshold:g}",
        records,
        name="ranked-by",
        screen=[_row(record) for record in records],
    )
    return records


def _row(record: Mapping[str, Any]) -> Row:
    return {
        "ranked by": record["ranked_by"],
        f"recall@{N}": record["recall"],
        f"NDCG@{N}": record["ndcg"],
        f"share of items in a top {N}": record["catalogue_share"],
    }


def measured(
    recommender: Recommender | None,
    comparison: Comparison,
    split: Split,
    tables: TableWriter,
    *,
    part: Part = "test",
    protocols: Sequence[str] = ("full",),
    detail: bool = False,
) -> dict[str, Any]:
    """Return the figures of a comparison for `metrics.json`, those of the rankings among them."""
    content = comparison.to_dict()
    if recommender is not None and "full" in protocols:
        threshold = comparison.model.threshold
        content["ranked_by"] = ranked_by_table(
            recommender, comparison, split, tables, part=part, threshold=threshold, detail=detail
        )
    return content
