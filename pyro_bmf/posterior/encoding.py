"""From ratings to what an encoder reads, and what a posterior keeps of rows and of its fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.ratings import Ratings
from ..errors import FitError, SettingsError
from ..model import FactorizationModel
from ..model.feedback import Feedback
from ..model.fitted import Guide, Rows
from ..tensor_files import is_finite

Indices = NDArray[np.int64]
_LARGE = 1_000_000  # bytes


def feedback_of(
    rows: Indices,
    columns: Indices,
    ratings: NDArray[np.float64],
    n_rows: int,
    n_columns: int,
    model: FactorizationModel,
) -> Feedback:
    """Return what an encoder reads of these ratings: centred as the model is, in its dtype, on its device."""
    centre = model.centre
    standard = model.units.standard(ratings)
    values = torch.tensor(standard, dtype=centre.dtype, device=centre.device) - centre
    return Feedback.from_coo(
        torch.tensor(rows, device=centre.device),
        torch.tensor(columns, device=centre.device),
        values,
        n_rows,
        n_columns,
    )


def side_feedback(train: Ratings, model: FactorizationModel, side: str) -> Feedback:
    """Return the feedback of all users, or of all items."""
    if side == "user":
        return feedback_of(train.users, train.items, train.ratings, train.n_users, train.n_items, model)
    return feedback_of(train.items, train.users, train.ratings, train.n_items, train.n_users, model)


def compact(rows: Rows) -> Rows:
    """Return the rows without gradients and each tensor on its own, as they are after saving and loading.

    A large tensor that already is all of its memory is not copied: draws of a chain may fill half of the
    machine's.
    """

    def alone(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
        return tensor if whole and tensor.nbytes > _LARGE else tensor.clone().contiguous()

    return rows.with_each(alone)


def kept_rows(
    model: FactorizationModel, guide: Guide, train: Ratings, rows: tuple[Rows, Rows] | None
) -> tuple[Rows, Rows]:
    """Return users and items as a posterior keeps them: those given, or what the guide says of its own.

    Raises
    ------
    FitError
        If they hold numbers that are not finite.
    """
    if rows is None:
        users = guide.training_rows("user", side_feedback(train, model, "user"))
        items = guide.training_rows("item", side_feedback(train, model, "item"))
    else:
        users, items = rows
    users, items = compact(users), compact(items)
    for name, part in (("users", users), ("items", items)):
        if not all(is_finite(tensor) for tensor in part.tensors().values()):
            remedy = "a smaller learning rate" if rows is None else "another seed or a prior of smaller scale"
            raise FitError(
                f"the posterior of the {name} holds numbers that are not finite: the fit diverged. "
                f"Fit again with {remedy}."
            )
    return users, items


def plain_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return `info` as JSON would give it back, so that a saved posterior is the same as a new one.

    Raises
    ------
    SettingsError
        If it holds what JSON cannot.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(info), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"info must hold plain values (numbers, text, lists, dicts): {error}") from None
    return plain
