"""User x item blocks of the training ratings: what one step of Algorithm 1 sees.

Users and items are dealt into batches once, at random. Block (p, q) holds the ratings of the users of batch
p on the items of batch q, the two batches' whole feedback, and the weights that make the blocks of an
iteration *sum* to the objective (Eq. 7) exactly: a rating belongs to one block and weighs 1, a user belongs
to the blocks of every item batch and its KL weighs one over their number. Ragged batches need no care.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..numerics.segment_sums import Segments, device_pieces
from .feedback import Feedback
from .sides import Sides


@dataclass(frozen=True, eq=False)
class Block:
    """The ratings of one user batch on one item batch.

    Attributes
    ----------
    users, items : Tensor, shape (n_users,), (n_items,)
        Which rows these are.
    rating_users, rating_items : Tensor, shape (n_ratings,)
        Position of each rating's user in `users` and of its item in `items`.
    ratings : Tensor, shape (n_ratings,)
        Raw ratings.
    user_feedback, item_feedback : Feedback
        All training entries of these users (over all items) and of these items (over all users).
    user_weight, item_weight, global_weight : float
        Weight of the KL of a user, an item and of global parameters in this block.
    segments : Sides of Segments, optional
        `rating_segments`, where they are known already.
    """

    users: Tensor
    items: Tensor
    rating_users: Tensor
    rating_items: Tensor
    ratings: Tensor
    user_feedback: Feedback
    item_feedback: Feedback
    user_weight: float
    item_weight: float
    global_weight: float
    segments: Sides[Segments] | None = None

    @cached_property
    def rating_segments(self) -> Sides[Segments]:
        """The users and the items as segments of the ratings."""
        if self.segments is not None:
            return self.segments
        return Sides(
            Segments.of_index(self.rating_users, len(self.users)),
            Segments.of_index(self.rating_items, len(self.items)),
        )


@dataclass(frozen=True, eq=False)
class TrainingBlocks:
    """All blocks of an iteration, prepared once.

    Attributes
    ----------
    user_batches, item_batches : list of Tensor
        Which rows each batch holds.
    user_feedback, item_feedback : list of Feedback
        The feedback of each batch.
    """

    user_batches: list[Tensor]
    item_batches: list[Tensor]
    user_feedback: list[Feedback]
    item_feedback: list[Feedback]
    rating_users: Tensor
    rating_items: Tensor
    ratings: Tensor
    starts: list[int]
    kl_counting: str
    segments: list[Sides[Segments]]

    @classmethod
    def build(
        cls,
        user_feedback: Feedback,
        item_feedback: Feedback,
        users: Tensor,
        items: Tensor,
        ratings: Tensor,
        *,
        user_batch_size: int,
        item_batch_size: int,
        kl_counting: str = "once",
        seed: int = 0,
    ) -> TrainingBlocks:
        """Deal rows into batches and sort the ratings by block.

        Parameters
        ----------
        user_feedback, item_feedback : Feedback
            All rows of either side.
        users, items, ratings : Tensor, shape (n_ratings,)
            The training ratings, raw.
        user_batch_size, item_batch_size : int
            Rows a batch; the last one may be smaller.
        kl_counting : {"once", "per_block"}
            ``per_block`` counts a row's KL again in every block, as Algorithm 1 to the letter does.
        seed : int
            Of the dealing.
        """
        device = ratings.device
        rng = np.random.default_rng([seed, 0xB10C])
        n_users, n_items = user_feedback.n_rows, item_feedback.n_rows

        def deal(n: int, size: int) -> tuple[list[Tensor], Tensor, Tensor]:
            order = torch.from_numpy(rng.permutation(n)).to(device)
            place = torch.empty(n, dtype=torch.int64, device=device)
            place[order] = torch.arange(n, device=device)
            # Equal sizes up to one row, so that no batch is a crumb.
            n_batches = -(-n // size)
            batches = [b.clone() for b in torch.tensor_split(order, n_batches)]
            lengths = torch.tensor([len(b) for b in batches], device=device)
            batch_of_place = torch.repeat_interleave(torch.arange(n_batches, device=device), lengths)
            first = torch.cumsum(lengths, 0) - lengths
            batch = batch_of_place[place]
            return batches, batch, place - first[batch]

        user_batches, user_batch, user_place = deal(n_users, user_batch_size)
        item_batches, item_batch, item_place = deal(n_items, item_batch_size)
        block = user_batch[users] * len(item_batches) + item_batch[items]
        # Within a block in the order of (user, item): the order is the data's, not the file's.
        order = torch.argsort(block, stable=True)
        edges = torch.arange(len(user_batches) * len(item_batches) + 1, device=device)
        starts = torch.searchsorted(block[order], edges)
        rating_users, rating_items = user_place[users[order]], item_place[items[order]]
        n_q = len(item_batches)
        of_users = _segments(rating_users, starts, [len(b) for b in user_batches for _ in range(n_q)])
        of_items = _segments(rating_items, starts, [len(b) for b in item_batches] * len(user_batches))
        return cls(
            user_batches=user_batches,
            item_batches=item_batches,
            user_feedback=[user_feedback.select(b) for b in user_batches],
            item_feedback=[item_feedback.select(b) for b in item_batches],
            rating_users=rating_users,
            rating_items=rating_items,
            ratings=ratings[order],
            starts=starts.tolist(),
            kl_counting=kl_counting,
            segments=[Sides(*both) for both in zip(of_users, of_items, strict=True)],
        )

    def __len__(self) -> int:
        return len(self.user_batches) * len(self.item_batches)

    def block(self, p: int, q: int) -> Block:
        """Return the block of user batch p and item batch q."""
        index = p * len(self.item_batches) + q
        part = slice(self.starts[index], self.starts[index + 1])
        once = self.kl_counting == "once"
        return Block(
            users=self.user_batches[p],
            items=self.item_batches[q],
            rating_users=self.rating_users[part],
            rating_items=self.rating_items[part],
            ratings=self.ratings[part],
            user_feedback=self.user_feedback[p],
            item_feedback=self.item_feedback[q],
            user_weight=1.0 / len(self.item_batches) if once else 1.0,
            item_weight=1.0 / len(self.user_batches) if once else 1.0,
            global_weight=1.0 / len(self),
            segments=self.segments[index],
        )

    def __iter__(self) -> Iterator[Block]:
        """Give the blocks in the order of Algorithm 1: item batches within user batches."""
        for p in range(len(self.user_batches)):
            for q in range(len(self.item_batches)):
                yield self.block(p, q)


def _segments(places: Tensor, starts: Tensor, n_rows: list[int]) -> list[Segments]:
    """Return the rows of every block as segments of its ratings.

    Parameters
    ----------
    places : Tensor, shape (nnz,)
        Place of each rating's row in its batch; ratings are sorted by block.
    starts : Tensor, shape (n_blocks + 1,)
        First rating of each block.
    n_rows : list of int
        Rows of each block.
    """
    widest, numbers = max(n_rows), torch.arange(len(n_rows), device=places.device)
    block = torch.repeat_interleave(numbers, starts.diff(), output_size=len(places))
    key = block * widest + places
    order = torch.argsort(key, stable=True)
    edges = numbers.unsqueeze(1) * widest + torch.arange(widest + 1, device=places.device)
    indptr = (torch.searchsorted(key[order], edges) - starts[:-1].unsqueeze(1)).int()
    order = (order - starts[block]).int()
    found, begins = [], starts.tolist()
    for number, n in enumerate(n_rows):
        own, edge = slice(begins[number], begins[number + 1]), indptr[number, : n + 1].clone()
        found.append(Segments(places[own], edge, order[own], device_pieces(edge)))
    return found


def hide_block(block: Block, n_users: int, n_items: int) -> Block:
    """Return the block with its own ratings hidden from both encoders: they read all but their target."""
    hidden_items = torch.zeros(n_items, dtype=torch.bool, device=block.items.device)
    hidden_items[block.items] = True
    hidden_users = torch.zeros(n_users, dtype=torch.bool, device=block.users.device)
    hidden_users[block.users] = True
    return replace(
        block,
        user_feedback=block.user_feedback.hide_columns(hidden_items),
        item_feedback=block.item_feedback.hide_columns(hidden_users),
    )


def drop_entries(block: Block, share: float) -> Block:
    """Return the block with a random share of each row's entries hidden, and the rest scaled up.

    Sums over a row's entries keep their expectation. Draws from torch's current generator.
    """
    return replace(
        block,
        user_feedback=thinned(block.user_feedback, share),
        item_feedback=thinned(block.item_feedback, share),
    )


def thinned(feedback: Feedback, share: float) -> Feedback:
    """Return rows with a random share of their entries hidden, and the rest scaled up."""
    kept = torch.rand(feedback.nnz, device=feedback.values.device) >= share
    return feedback.hide(kept.to(feedback.values.dtype) / (1.0 - share))
