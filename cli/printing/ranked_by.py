"""Tables of what rankings by liked, rating and chosen are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import Row, TableWriter
from .progress import bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pyro_bmf.data import Split
    from pyro_bmf.evaluation import Comparison
    from pyro_bmf.evaluation.protocols import Part
    from pyro_bmf.selection import Horizon, Recommender
    from pyro_bmf.systems.contract import Ranker

#: Length of the lists that are compared.
N = 20
#: Pairs of users and items that lists are made of: minutes. Of more, some users are drawn.
MOST_PAIRS = 1_000_000_000


def horizon_of(split: Split, part: Part, seen: float) -> Horizon:
    """Return what is chosen in a part of a split, of what is known when it is measured."""
    from pyro_bmf.selection import Horizon

    n = len(split.ratings)
    rows = split.test_rows if part == "test" else split.valid_rows
    known = (n - len(split.test_rows)) / n if part == "test" else seen
    period = split.period(part)
    when = "" if period is None else f", {period}"
    words = f"the {_WORDS[part]} ratings, {100 * len(rows) / n:.3g} % of all{when}"
    return Horizon(known, len(rows) / n, words)


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
    users = evaluated_users(held_out, threshold)
    if not len(users):
        return []
    users, sampled = _drawn(users, held_out.n_items)
    about = horizon_of(split, part, recommender.selection.seen)
    records: list[dict[str, Any]] = []
    with bar("Measuring rankings", 2 * len(users), "lists") as advance:
        for by in ("liked", "chosen"):
            ranker = ProductRanker(recommender, by, about)
            options: dict[str, Any] = {"part": part, "threshold": threshold, "advance": advance}
            options["among"] = users
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
        f"Rankings (full); chosen: among {about.words}; liked: chosen and above {threshold:g}"
        + (sampled and f"; liked and chosen of {sampled}"),
        records,
        name="ranked-by",
        screen=[_row(record) for record in records],
    )
    if detail:
        _lists_table(recommender, about, comparison, split, tables, part=part, threshold=threshold)
        records[0]["calibration"] = _calibration_table(recommender, about, split, tables, part=part)
    return records


def _lists_table(
    recommender: Recommender,
    about: Horizon,
    comparison: Comparison,
    split: Split,
    tables: TableWriter,
    *,
    part: Part,
    threshold: float,
) -> None:
    """Show what lists are like."""
    import numpy as np

    from pyro_bmf.baselines import Popularity
    from pyro_bmf.evaluation.list_figures import list_figures
    from pyro_bmf.evaluation.protocols import evaluated_users
    from pyro_bmf.numerics.ranked_lists import Exclusion
    from pyro_bmf.selection import ProductRanker

    held_out = split.test if part == "test" else split.valid
    users, sampled = _drawn(evaluated_users(held_out, threshold), held_out.n_items)
    known = split.train_valid if part == "test" else split.train
    exclusion = Exclusion.of_pairs(known.users, known.items, known.n_users)
    refit = comparison.model.fitted_on == "train+valid"
    rankers: list[tuple[str, Ranker]] = [
        ("liked", ProductRanker(recommender, "liked", about)),
        ("rating", recommender.posterior),
        ("chosen", ProductRanker(recommender, "chosen", about)),
        ("popularity", Popularity().fit(split, refit=refit)),
    ]
    records = []
    with bar("Measuring lists", len(rankers) * len(users), "lists") as advance:
        for by, ranker in rankers:
            lists = np.asarray(ranker.best_items(users, N, exclusion, advance))
            records.append({"ranked_by": by, **list_figures(lists, recommender.posterior.train).to_dict()})
    screen = [
        {
            "ranked by": record["ranked_by"],
            "share of items": record["catalogue_share"],
            "Gini": record["gini"],
            "novelty, bits": record["novelty"],
            "similarity within lists": record["intra_list_similarity"],
        }
        for record in records
    ]
    title = f"Lists of {N}: what they are like" + (sampled and f"; of {sampled}")
    tables.show(title, records, name="lists", screen=screen)


def _drawn(users: NDArray[np.int64], n_items: int) -> tuple[NDArray[np.int64], str]:
    """Return users to make lists for, and where they are a sample, words for that."""
    import numpy as np

    most = max(1, MOST_PAIRS // n_items)
    if len(users) <= most:
        return users, ""
    drawn = np.sort(np.random.default_rng(0).choice(users, most, replace=False))
    return drawn, f"{most:,} of {len(users):,} users, drawn at random"


def _calibration_table(
    recommender: Recommender, about: Horizon, split: Split, tables: TableWriter, *, part: Part
) -> dict[str, Any]:
    """Show whether what is liked comes true as often as it is said to."""
    from pyro_bmf.evaluation.liked_calibration import liked_calibration

    with bar("Measuring calibration", None):
        found = liked_calibration(recommender.product(horizon=about), split, part=part)
    records = [group.to_dict() for group in found.groups]
    screen = [
        {
            "pairs": group.group,
            "number": group.n_pairs,
            "expected": f"{group.expected:.1f}",
            "came true": group.observed,
            "ratio": group.ratio,
            "s.e.": group.se,
            "0.9 to 1.1 or within 2 s.e.": group.within,
        }
        for group in found.groups
    ]
    tables.show(
        f"Calibration of liked: pairs of {found.n_users:,} users, log score {1000 * found.log_score:.3f} "
        f"nats a thousand pairs (popularity times the mean: {1000 * found.reference_log_score:.3f})",
        records,
        name="calibration-of-liked",
        screen=screen,
    )
    return found.to_dict()


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
    from pyro_bmf.evaluation.plain_values import json_ready

    content = comparison.to_dict()
    if recommender is not None and "full" in protocols:
        threshold = comparison.model.threshold
        rows = ranked_by_table(
            recommender, comparison, split, tables, part=part, threshold=threshold, detail=detail
        )
        content["ranked_by"] = json_ready(rows)  # one user has no standard error
    return content
