"""What encoders read (Feedback) and what a step sees (Block), against dense matrices."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_bmf.model.blocks import Block, TrainingBlocks, drop_entries, hide_block
from pyro_bmf.model.feedback import Feedback

Dense = tuple[np.ndarray, np.ndarray]


def dense(feedback: Feedback) -> Dense:
    """Mask and ratings that a feedback stands for, entry by entry from its rows; hidden entries are zero."""
    mask = np.zeros((feedback.n_rows, feedback.n_columns))
    ratings = np.zeros_like(mask)
    weights = np.ones(feedback.nnz) if feedback.mask is None else feedback.mask.numpy()
    for row in range(feedback.n_rows):
        for entry in range(int(feedback.indptr[row]), int(feedback.indptr[row + 1])):
            column = int(feedback.indices[entry])
            assert mask[row, column] == 0.0 == ratings[row, column]
            mask[row, column] = weights[entry]
            ratings[row, column] = weights[entry] * float(feedback.values[entry])
    return mask, ratings


def dense_of_transpose(feedback: Feedback) -> Dense:
    """The same, read off the stored transpose."""
    mask = np.zeros((feedback.n_columns, feedback.n_rows))
    ratings = np.zeros_like(mask)
    _, t_mask = feedback.weights(by_rating=False)
    _, t_ratings = feedback.weights(by_rating=True)
    assert t_ratings is not None
    for column in range(feedback.n_columns):
        for entry in range(int(feedback.t_indptr[column]), int(feedback.t_indptr[column + 1])):
            row = int(feedback.t_indices[entry])
            mask[column, row] = 1.0 if t_mask is None else float(t_mask[entry])
            ratings[column, row] = float(t_ratings[entry])
    return mask.T, ratings.T


def assert_reads(feedback: Feedback, mask: np.ndarray, ratings: np.ndarray) -> None:
    for ours in (dense(feedback), dense_of_transpose(feedback)):
        np.testing.assert_array_equal(ours[0], mask)
        np.testing.assert_array_equal(ours[1], ratings)
    np.testing.assert_array_equal(feedback.counts.numpy(), mask.sum(1))
    stored = np.repeat(np.arange(feedback.n_rows), np.diff(feedback.indptr.numpy()))
    np.testing.assert_array_equal(feedback.row_of_entry.numpy(), stored)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Feedback]:
    """A mask, ratings on it (zero among them), and the feedback made of them in a random order."""
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 5)))
    mask = draw(hnp.arrays(np.bool_, shape))
    ratings = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([-1.5, 0.0, 0.5, 2.0]))) * mask
    rows, columns = np.nonzero(mask)
    order = np.array(draw(st.permutations(range(len(rows)))), dtype=np.int64)
    rows, columns = rows[order], columns[order]
    feedback = Feedback.from_coo(
        torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(ratings[rows, columns]), *shape
    )
    return mask.astype(float), ratings, feedback


@settings(deadline=None, max_examples=120, derandomize=True)
@given(case=matrices(), data=st.data())
def test_feedback_is_its_matrix_whatever_is_selected_and_hidden(case: Any, data: st.DataObject) -> None:
    mask, ratings, feedback = case
    assert_reads(feedback, mask, ratings)
    n_rows, n_columns = mask.shape
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            rows = data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=6))
            feedback = feedback.select(torch.tensor(rows))
            mask, ratings = mask[rows], ratings[rows]
            n_rows = len(rows)
        else:
            hidden = data.draw(hnp.arrays(np.bool_, n_columns))
            feedback = feedback.hide_columns(torch.from_numpy(hidden))
            mask, ratings = mask * ~hidden, ratings * ~hidden
        assert_reads(feedback, mask, ratings)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=matrices())
def test_the_order_of_the_entries_does_not_matter(case: Any) -> None:
    mask, ratings, feedback = case
    rows, columns = np.nonzero(mask)
    sorted_one = Feedback.from_coo(
        torch.from_numpy(rows),
        torch.from_numpy(columns),
        torch.from_numpy(ratings[rows, columns]),
        *mask.shape,
    )
    for name in ("indptr", "indices", "values", "t_indptr", "t_indices", "t_order"):
        assert torch.equal(getattr(feedback, name), getattr(sorted_one, name)), name


def test_selecting_no_row() -> None:
    feedback = Feedback.from_coo(
        torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([1.0, 2.0]), n_rows=2, n_columns=2
    )
    nothing = feedback.select(torch.zeros(0, dtype=torch.int64))
    assert nothing.nnz == 0
    assert nothing.counts.shape == (0,)


def test_dtype_is_kept_and_changed_on_request() -> None:
    feedback = Feedback.from_coo(
        torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([1.0, 2.0]), n_rows=2, n_columns=2
    ).hide(torch.tensor([0.0, 1.0]))
    assert feedback.values.dtype == torch.float32
    moved = feedback.to("cpu", torch.float64)
    assert moved.values.dtype == moved.counts.dtype == moved.mask.dtype == torch.float64
    assert moved.indices.dtype == torch.int32
    assert moved.counts.tolist() == [0.0, 1.0]


# ---- blocks


def problem(
    n_users: int = 11, n_items: int = 7, *, user_batch_size: int = 4, item_batch_size: int = 3, **more: Any
) -> tuple[TrainingBlocks, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(x) for x in np.nonzero(rng.random((n_users, n_items)) < 0.5))
    ratings = torch.from_numpy(rng.integers(1, 6, len(users)).astype(float))
    blocks = TrainingBlocks.build(
        Feedback.from_coo(users, items, ratings - 3.0, n_users, n_items),
        Feedback.from_coo(items, users, ratings - 3.0, n_items, n_users),
        users,
        items,
        ratings,
        user_batch_size=user_batch_size,
        item_batch_size=item_batch_size,
        **more,
    )
    return blocks, users, items, ratings


def entries(block: Block) -> list[tuple[int, int, float]]:
    """The ratings of a block by the rows' own numbers."""
    users, items = block.users[block.rating_users], block.items[block.rating_items]
    return list(zip(users.tolist(), items.tolist(), block.ratings.tolist(), strict=True))


@pytest.mark.parametrize(("user_batch_size", "item_batch_size"), [(4, 3), (11, 7), (1, 2), (100, 100)])
def test_every_rating_is_in_one_block_and_every_row_in_one_batch(
    user_batch_size: int, item_batch_size: int
) -> None:
    blocks, users, items, ratings = problem(user_batch_size=user_batch_size, item_batch_size=item_batch_size)
    everything = sorted(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True))
    assert sorted(entry for block in blocks for entry in entries(block)) == everything
    assert sorted(torch.cat(blocks.user_batches).tolist()) == list(range(11))
    assert sorted(torch.cat(blocks.item_batches).tolist()) == list(range(7))
    assert len(blocks) == -(-11 // user_batch_size) * -(-7 // item_batch_size) == len(list(blocks))
    sizes = [len(batch) for batch in blocks.user_batches]
    assert max(sizes) <= user_batch_size
    assert max(sizes) - min(sizes) <= 1


def test_a_block_brings_the_whole_feedback_of_its_rows() -> None:
    blocks, users, items, ratings = problem()
    whole = np.zeros((11, 7))
    whole[users, items] = ratings - 3.0
    seen = np.zeros((11, 7))
    seen[users, items] = 1.0
    for block in blocks:
        mask, values = dense(block.user_feedback)
        np.testing.assert_array_equal(mask, seen[block.users])
        np.testing.assert_array_equal(values, whole[block.users])
        mask, values = dense(block.item_feedback)
        np.testing.assert_array_equal(mask, seen.T[block.items])
        np.testing.assert_array_equal(values, whole.T[block.items])


def test_the_order_is_algorithm_1s() -> None:
    blocks, *_ = problem()
    batches = [(p, q) for p in range(len(blocks.user_batches)) for q in range(len(blocks.item_batches))]
    for (p, q), block in zip(batches, blocks, strict=True):
        assert torch.equal(block.users, blocks.user_batches[p])
        assert torch.equal(block.items, blocks.item_batches[q])


def test_the_weights_of_a_row_sum_to_one_or_to_its_number_of_blocks() -> None:
    for kl_counting in ("once", "per_block"):
        blocks, *_ = problem(kl_counting=kl_counting)
        n_p, n_q = len(blocks.user_batches), len(blocks.item_batches)
        user_weight, item_weight = torch.zeros(11), torch.zeros(7)
        global_weight = 0.0
        for block in blocks:
            user_weight[block.users] += block.user_weight
            item_weight[block.items] += block.item_weight
            global_weight += block.global_weight
        once = kl_counting == "once"
        torch.testing.assert_close(user_weight, torch.full((11,), 1.0 if once else float(n_q)))
        torch.testing.assert_close(item_weight, torch.full((7,), 1.0 if once else float(n_p)))
        assert global_weight == pytest.approx(1.0)


def test_the_dealing_follows_the_seed_and_not_the_order_of_the_ratings() -> None:
    first, second, other = (problem(seed=seed)[0] for seed in (3, 3, 4))
    for ours, same in zip(first.user_batches, second.user_batches, strict=True):
        assert torch.equal(ours, same)
    assert any(not torch.equal(a, b) for a, b in zip(first.user_batches, other.user_batches, strict=True))
    assert not torch.equal(torch.cat(first.user_batches), torch.arange(11)), "rows are dealt at random"


def test_hiding_a_block_hides_its_ratings_and_nothing_else() -> None:
    blocks, users, items, _ = problem()
    seen = np.zeros((11, 7))
    seen[users, items] = 1.0
    for block in blocks:
        hidden = hide_block(block, 11, 7)
        expected = seen.copy()
        expected[np.ix_(block.users.numpy(), block.items.numpy())] = 0.0
        np.testing.assert_array_equal(dense(hidden.user_feedback)[0], expected[block.users])
        np.testing.assert_array_equal(dense(hidden.item_feedback)[0], expected.T[block.items])
        assert torch.equal(hidden.ratings, block.ratings), "what is hidden from encoders is still predicted"


def test_dropped_entries_are_gone_from_both_inputs_and_the_rest_make_up_for_them() -> None:
    torch.manual_seed(0)
    blocks, *_ = problem()
    block = blocks.block(1, 1)
    mask, ratings = dense(block.user_feedback)
    masks, values = [], []
    for _ in range(400):
        thinned = drop_entries(block, 0.25)
        kept, seen = dense(thinned.user_feedback)
        assert set(np.unique(kept)) <= {0.0, 1.0 / 0.75}
        np.testing.assert_allclose(seen, ratings * kept)
        np.testing.assert_array_equal(dense_of_transpose(thinned.user_feedback)[0], kept)
        masks.append(kept)
        values.append(dense(thinned.item_feedback)[1])
    # An entry's weight has mean 1 and standard deviation sqrt(0.25 / 0.75): five standard errors.
    error = 5 * (0.25 / 0.75 / 400) ** 0.5
    np.testing.assert_allclose(np.mean(masks, axis=0), mask, atol=error)
    np.testing.assert_allclose(np.mean(values, axis=0), dense(block.item_feedback)[1], atol=2 * error)
    assert torch.equal(drop_entries(block, 0.25).ratings, block.ratings)
