"""Training ratings as the compressed entries that methods work on."""

from __future__ import annotations

import numpy as np
import torch

from ..data.ratings import Ratings
from ..model.feedback import Feedback


def training_feedback(ratings: Ratings, device: torch.device, dtype: torch.dtype) -> Feedback:
    """Return ratings compressed by user and by item, on a device.

    Parameters
    ----------
    ratings : Ratings
    device : torch.device
    dtype : torch.dtype
        Of the values.
    """
    users, items = (
        torch.from_numpy(np.array(column, dtype=np.int64)).to(device)
        for column in (ratings.users, ratings.items)
    )
    # Narrowed here, as a card is sent them.
    values = torch.from_numpy(ratings.ratings.astype(np.float64)).to(dtype).to(device)
    return Feedback.from_coo(users, items, values, ratings.n_users, ratings.n_items)
