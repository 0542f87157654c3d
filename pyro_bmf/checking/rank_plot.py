"""A figure of simulated truths' ranks: flat and inside the band when the posterior is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from pyro_bmf.checking.simulated_ranks import RankSummary
from pyro_bmf.files import atomic_write

_BINS = 20


def plot_ranks(
    ranks: Mapping[str, Sequence[Sequence[float]]],
    summaries: Sequence[RankSummary],
    title: str,
    file: Path,
) -> None:
    """Draw one histogram a kind of quantity, with the band that 95 % of independent ranks stay in.

    A hump in the middle means intervals that are too wide, a valley ones that are too narrow, a slope a bias.

    Parameters
    ----------
    ranks : mapping
        By kind, one sequence of ranks in (0, 1) a refit.
    summaries : sequence of RankSummary
        Of the same kinds.
    title : str
    file : Path
        Of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(summaries), 3.0), layout="constrained")
    every = figure.subplots(1, len(summaries), squeeze=False)[0]
    for axes, summary in zip(every, summaries, strict=True):
        found = np.concatenate([np.asarray(one) for one in ranks[summary.kind]])
        bins = min(_BINS, max(4, len(found) // 10))
        low, high = stats.binom.ppf([0.025, 0.975], len(found), 1 / bins) * bins / len(found)
        axes.hist(found, bins=bins, range=(0, 1), density=True, color="tab:blue", alpha=0.7)
        axes.axhspan(low, high, color="0.6", alpha=0.35, lw=0)
        axes.axhline(1.0, color="0.3", lw=0.8)
        axes.set_title(f"{summary.kind}{': FLAGGED' if summary.flagged else ''}", fontsize=10)
        axes.set_xlabel(
            f"rank of the truth; 90 % interval holds {summary.coverage_90:.0%}, spread {summary.spread:.2f}",
            fontsize=7,
        )
        axes.set_yticks([])
    figure.suptitle(title, fontsize=10)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
