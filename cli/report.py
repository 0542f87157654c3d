"""The tables that several commands show: metrics beside references, recommendations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import TableWriter

if TYPE_CHECKING:
    from pyro_bmf.data import Split
    from pyro_bmf.evaluation import Comparison
    from pyro_bmf.posterior import Posterior


def evaluation_tables(
    posterior: Posterior, split: Split, tables: TableWriter, *, part: str = "test", **options: Any
) -> Comparison:
    """Measure a posterior beside the references, show the comparison, and return it."""
    from pyro_bmf.evaluation import evaluate_with_references

    fitted_on = posterior.info.get("trained_on", "train")
    comparison = evaluate_with_references(
        posterior, split, part=part, fitted_on=fitted_on, name="pyro-bmf", **options
    )
    rows = comparison.table().reset_index().to_dict("records")
    tables.show(
        f"{split.ratings.name}, {part} ratings of the {split.scheme} split (posterior-predictive mean)",
        [_main_columns(row) for row in rows],
        name="systems",
    )
    return comparison


def _main_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that fit a screen; the files hold all of them."""
    return row


def recommendation_rows(posterior: Posterior, user: str, *, n: int) -> tuple[str, list[dict[str, Any]]]:
    """Return a title and the rows of a user's recommendations; `user` is a raw id as typed."""
    user_id = posterior.user_vocabulary.parse(user)
    table = posterior.recommend([user_id], n=n)
    return (
        f"Recommendations for user {user} (mean and 90 % posterior-predictive interval)",
        table.drop(columns=["user_id"]).to_dict("records"),
    )
