"""A cell's saved predictions as a `pyro_bmf.systems.contract.Predictor`: one code measures every system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cells
import numpy as np

from pyro_bmf.data import Split
from pyro_bmf.evaluation import Evaluation, evaluate
from pyro_bmf.systems.contract import BasePredictor


class SavedPredictor(BasePredictor):
    """Answers for the pairs that a cell holds, looked up by user and item."""

    def __init__(
        self, name: str, arrays: dict[str, Any], part: str, n_items: int, scores: Any | None
    ) -> None:
        self.name, self._n_items, self._scores = name, n_items, scores
        keys = arrays[f"{part}_users"] * n_items + arrays[f"{part}_items"]
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._mean, self._sd, self._pmf = (arrays[f"{part}_{kind}"] for kind in ("mean", "sd", "pmf"))

    def _rows(self, users: Any, items: Any) -> Any:
        asked = users * self._n_items + items
        places = np.minimum(np.searchsorted(self._keys, asked), len(self._keys) - 1)
        if not np.array_equal(self._keys[places], asked):
            raise ValueError(f"{self.name} holds no prediction of some pairs: it is of another split")
        return self._order[places]

    def predict_mean(self, users: Any, items: Any) -> Any:
        """Return the (n,) means."""
        return self._mean[self._rows(users, items)]

    def predict_sd(self, users: Any, items: Any) -> Any:
        """Return the (n,) standard deviations."""
        return self._sd[self._rows(users, items)]

    def predict_pmf(self, users: Any, items: Any, levels: Any) -> Any:
        """Return the (n, L) probability of each level."""
        return self._pmf[self._rows(users, items)]

    def score_items(self, users: Any) -> Any:
        """Return (len(users), n_items) ranking scores."""
        if self._scores is None:
            raise ValueError(f"{self.name} has no scores of all pairs")
        return np.asarray(self._scores[users])


def evaluate_cell(folder: Path, split: Split, *, part: str = "test", draws: int = 1000) -> Evaluation:
    """Measure a finished cell, with the protocol `full` where it has scores.

    Raises
    ------
    ValueError
        When the cell is of another split.
    """
    about = cells.about(folder)
    if about is None or about["request"]["split_hash"] != split.hash:
        raise ValueError(f"{folder} is not finished, or of another split")
    scores = cells.read_scores(folder)
    name = about["request"]["system"]
    arrays = cells.read_predictions(folder)
    predictor = SavedPredictor(name, arrays, part, split.train.n_items, scores)
    protocols = () if scores is None else ("full",)
    return evaluate(predictor, split, part=part, protocols=protocols, draws=draws)
