"""The steps of an iteration: which blocks, in which order, and whose encoder each of them moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...model.blocks import Block, TrainingBlocks
from ...model.sides import Side
from .settings import CrossFeedback


class Step(NamedTuple):
    """A block, and the side whose encoder alone it moves; None for both."""

    blocks: TrainingBlocks
    user_batch: int
    item_batch: int
    side: Side | None = None

    def block(self) -> Block:
        """Return the block."""
        return self.blocks.block(self.user_batch, self.item_batch)

    def __str__(self) -> str:
        return f"({self.user_batch}, {self.item_batch})"


class Steps:
    """All steps of an iteration.

    Nested, as in Algorithm 1, there is one for each user batch and item batch, and it moves both sides. In
    sequence there is one for each user batch against all items, which moves the users' encoder, and then one
    for each item batch against all users: the ratings are read twice in fewer and larger steps.

    Parameters
    ----------
    settings : CrossFeedback
    build : callable
        Deals `TrainingBlocks` of so many users and items a batch.
    n_users, n_items : int
    seed : int
        Of the orders.
    """

    def __init__(
        self,
        settings: CrossFeedback,
        build: Callable[[int, int], TrainingBlocks],
        n_users: int,
        n_items: int,
        seed: int,
    ) -> None:
        users = settings.batch_size(settings.user_batch_size, n_users)
        items = settings.batch_size(settings.item_batch_size, n_items)
        self._passes: tuple[tuple[TrainingBlocks, Side | None], ...] = (
            ((build(users, items), None),)
            if settings.iteration_order == "nested"
            else ((build(users, n_items), "user"), (build(n_users, items), "item"))
        )
        self._shuffled, self._seed = settings.shuffle_blocks, seed

    def __len__(self) -> int:
        return sum(len(blocks) for blocks, _ in self._passes)

    @property
    def nested(self) -> TrainingBlocks | None:
        """The blocks of steps that move both sides; None in sequence."""
        (blocks, side), *others = self._passes
        return None if others or side is not None else blocks

    @property
    def share(self) -> float:
        """What a block's loss counts for in the iteration's, which is that of all ratings once."""
        return 1.0 / len(self._passes)

    def order(self, number: int) -> list[Step]:
        """Return the steps of an iteration by its number: item batches within user batches."""
        rng = np.random.default_rng([self._seed, number])
        found: list[Step] = []
        for blocks, side in self._passes:
            n_p, n_q = len(blocks.user_batches), len(blocks.item_batches)
            if self._shuffled:
                pairs = [(int(p), int(q)) for p in rng.permutation(n_p) for q in rng.permutation(n_q)]
            else:
                pairs = [(p, q) for p in range(n_p) for q in range(n_q)]
            found += [Step(blocks, p, q, side) for p, q in pairs]
        return found
