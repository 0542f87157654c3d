"""The reference of figures in documents, made from the classes."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_bmf.evaluation.metrics import METRICS
from pyro_bmf.evaluation.metrics.base import Better, CatalogueMetric, Metric, RankingMetric

_BETTER: dict[Better, str] = {
    "lower": "lower",
    "higher": "higher",
    "nominal": "nearer to its nominal value",
    "neither": "–",
}


def metrics_table(metrics: Sequence[Metric] = METRICS) -> str:
    """Return a table in Markdown with one row a figure: name, what is better, unit, needs, definition."""
    head = (
        "| figure | in JSON and tables | better | unit | needs | definition |",
        "|---|---|---|---|---|---|",
    )
    return "\n".join((*head, *map(_row, metrics))) + "\n"


def _row(metric: Metric) -> str:
    name = f"`{metric.name}`"
    match metric:
        case RankingMetric() | CatalogueMetric():
            name += f"; `full:{metric.column(20)}`"
    source = f" ({metric.source})" if metric.source else ""
    cells = (
        metric.label,
        name,
        _BETTER[metric.better],
        metric.unit or "–",
        metric.needs,
        f"{metric.definition}{source}",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
