"""Tables of predictions and recommendations, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .output import Row, TableWriter

if TYPE_CHECKING:
    import pandas as pd

    from pyro_bmf.data import RatingScale
    from pyro_bmf.posterior import Posterior
    from pyro_bmf.selection import Recommender

#: Rows of a table that are printed; files and --json hold all.
SHOWN = 40


def limited(table: pd.DataFrame, scale: RatingScale) -> pd.DataFrame:
    """Return predictions with means and intervals cut to a scale that has steps; others as they are.

    No rating lies off such a scale, and an interval holds the same ratings with its ends cut.
    """
    if scale.step is None:
        return table
    ends = ("mean", "lower", "upper", "mean_lower", "mean_upper")
    return table.assign(**{name: scale.clip(table[name]) for name in ends if name in table})


def rating_rows(table: pd.DataFrame, interval: float) -> list[Row]:
    """Return predictions as people read them: few decimals, intervals in one column, no empty titles."""
    columns: dict[str, list[object]] = {}
    for name, words in (("user_id", "user"), ("rank", "rank"), ("item_id", "item"), ("title", "title")):
        if name in table and not (name == "title" and (table[name] == "").all()):
            columns[words] = table[name].tolist()
    if "score" in table:
        # A score is a rating or, of the product and of places in lists, a probability.
        worded = probabilities if table["score"].between(0.0, 1.0).all() else fixed
        columns["score"] = worded(table["score"])
    for name in ("liked", "chosen", "liked_if_chosen"):
        if name in table:
            columns[name.replace("_", " ")] = probabilities(table[name])
    columns["rating"] = fixed(table["mean"])
    columns["sd"] = fixed(table["sd"])
    columns[f"{100 * interval:g} % interval"] = spans(table["lower"], table["upper"])
    if "smallest_set" in table:
        held = zip(table["smallest_set"], table["set_probability"], strict=True)
        columns[f"smallest {100 * interval:g} % set"] = [f"{words} ({share:.2f})" for words, share in held]
    if "mean_sd" in table:
        columns["sd of mean"] = fixed(table["mean_sd"])
        columns[f"{100 * interval:g} % interval of mean"] = spans(table["mean_lower"], table["mean_upper"])
    if "because_of" in table:
        columns["because of"] = table["because_of"].tolist()
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def show_ratings(
    tables: TableWriter,
    title: str,
    table: pd.DataFrame,
    interval: float,
    *,
    hidden: str | None = None,
    name: str | None = None,
    people: bool = True,
) -> None:
    """Show predictions or recommendations; a long table is cut on the screen, and says so.

    `hidden` is a column that the title tells already; programs get it all the same. Without `people` only
    they get the table.
    """
    if not people:
        tables.show(title, table.to_dict("records"), name=name, people=False)
        return
    shown = table.head(SHOWN)
    shown = shown if hidden is None else shown.drop(columns=hidden)
    tables.show(title, table.to_dict("records"), name=name, screen=rating_rows(shown, interval))
    if len(table) > SHOWN and not tables.json:
        tables.say(f"… and {len(table) - SHOWN:,} more rows: write all with --out FILE or --csv FILE.")


def recommendations(
    posterior: Posterior, recommender: Recommender | None, user: str, tables: TableWriter, *, n: int = 10
) -> None:
    """Show a user's recommendations, by liked where that can be told; `user` is a raw id as typed."""
    users = [posterior.user_vocabulary.parse(user)]
    table = posterior.recommend(users, n=n) if recommender is None else recommender.recommend(users, n)
    show_ratings(
        tables,
        recommendation_title(
            f"user {user}",
            0.9,
            seen="not rated in training",
            scale=posterior.scale,
            by=None if recommender is None else by_words(recommender, "liked"),
        ),
        limited(table, posterior.scale),
        0.9,
        hidden="user_id",
        name="recommendations",
    )


def recommendation_title(
    whom: str,
    interval: float,
    *,
    seen: str | None = None,
    scale: RatingScale | None = None,
    by: str | None = None,
    score: str | None = None,
) -> str:
    """Return the title of a table of recommendations, whose values are cut to `scale` if it is given.

    `seen` tells what is left out, `by` what decides other than the mean, `score` what a strategy's score is.
    """
    told = "".join(f"{words}; " for words in (by, score) if words is not None)
    return (
        f"Recommendations for {whom}{'' if seen is None else f', {seen}'} ({told}"
        f"posterior-predictive mean and {100 * interval:g} % interval{cut_words(scale)})"
    )


def score_words(strategy: str, quantile: float, n: int, by: str, seed: int) -> str | None:
    """Return what the scores of a strategy are, in words; None for means."""
    what = "the predictor, before it becomes a rating" if by == "rating" else f"the probability to be {by}"
    if strategy == "lower":
        return f"score: the {100 * quantile:g} % quantile of {what}"
    if strategy == "thompson":
        return f"score: one draw of {what}, seed {seed}"
    return f"score: the probability to be among the {n} best" if strategy == "prob-top" else None


def cut_words(scale: RatingScale | None) -> str:
    """Return what `limited` did, for a title; nothing when it was not called or did nothing."""
    return "" if scale is None or scale.step is None else f", cut to {scale.low:g} to {scale.high:g}"


def by_words(recommender: Recommender, by: str) -> str:
    """Return what decides, in words: what is chosen, and what is liked."""
    about = recommender.selection.horizon if recommender.horizon is None else recommender.horizon
    chosen = f"chosen: among {about.words}"
    if by == "chosen":
        return f"by chosen; {chosen}"
    return f"by {by}; {chosen}; liked: chosen, and rated above {recommender.liked_above:g}"


def probabilities(values: Iterable[float]) -> list[object]:
    """Return probabilities with three decimals, the smallest as they are."""
    texts = [f"{value:.3f}" if value >= 0.001 else f"{value:.0e}" for value in values]
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def fixed(values: Iterable[float]) -> list[object]:
    """Return numbers with two decimals, ending below each other."""
    texts = [f"{value:.2f}" for value in values]
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def spans(lower: Iterable[float], upper: Iterable[float]) -> list[object]:
    """Return intervals as text."""
    return [f"{low} to {high}" for low, high in zip(fixed(lower), fixed(upper), strict=True)]
