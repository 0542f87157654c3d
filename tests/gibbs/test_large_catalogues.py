"""Rows with few ratings against one dense matrix a row; draws kept in half precision; lists."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorders import StopsAt
from tiny_chain import K, draw_means, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_bmf import estimate, fit
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.evaluation import evaluate
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.gibbs.chain_state import ChainState
from pyro_bmf.methods.gibbs.collapsed_means import Solver
from pyro_bmf.methods.gibbs.mean_information import DenseRows, FewRows
from pyro_bmf.methods.gibbs.sweeps import Sweeps
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.posterior import Posterior

USERS, ITEMS = 40, 60
SMALL = preset("gibbs").replace(n_factors=3, sweeps=24, burn_in=16, kept_draws=8)


def heavy_tailed() -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of rows with none, one, two and many entries, and their ratings."""
    g = torch.Generator().manual_seed(3)
    mask = torch.rand(USERS, ITEMS, generator=g) < torch.rand(USERS, 1, generator=g) ** 3 * torch.rand(
        1, ITEMS, generator=g
    )
    mask[5] = False
    users, items = mask.nonzero(as_tuple=True)
    return users, items, torch.randn(len(users), dtype=torch.float64, generator=g)


def both() -> tuple[Sweeps, Sweeps]:
    """Sweeps that hold a matrix a row, and those of low rank, of the same ratings."""
    users, items, ratings = heavy_tailed()
    feedback = Feedback.from_coo(users, items, ratings, USERS, ITEMS)
    how: Any = {"dtype": torch.float64, "solver": Solver(1e-13, 500)}
    dense = Sweeps(tiny_model(), feedback, feedback.values, **how)
    few = Sweeps(tiny_model(), feedback, feedback.values, dense_cells=0, **how)
    assert all(isinstance(rows, DenseRows) for _, rows in dense.rows_of.by_side())
    for _, rows in few.rows_of.by_side():
        assert isinstance(rows, FewRows)
        assert rows.plan.n_many
        assert [r for r, _, _ in rows.plan.few] == [2, 1]
    return dense, few


def state_of(sweeps: Sweeps) -> ChainState:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    state = sweeps.start(normal(USERS, K + 1), normal(ITEMS, K + 1), 0.7)
    for side, n_other in ((state.user, ITEMS), (state.item, USERS)):
        root = normal(K, K)
        side.precision = torch.block_diag(root @ root.T + torch.eye(K), normal(1, 1).exp())
        side.location = normal(K + 1)
        side.weights = normal(n_other, K + 1) * 0.3
        side.weights_precision = normal(K + 1).exp() + 1.0
        side.row_precision = normal(len(side.rows)).mul(0.3).exp()
    return state


@pytest.mark.parametrize("side", ["user", "item"])
def test_low_rank_rows_are_the_dense_ones(side: str) -> None:
    dense, few = both()
    state, ratings = state_of(dense), dense.ratings
    whole, parts = (one.given_other(side, state, ratings).conditional for one in (dense, few))
    prior_mean = dense.prior_mean(side, state)
    torch.testing.assert_close(parts.mean(prior_mean), whole.mean(prior_mean), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(parts.covariance(), whole.covariance(), rtol=1e-10, atol=1e-10)
    # The spread is linear in the noise: its matrix times its transpose is the draws' covariance.
    units = torch.eye(K + 1, dtype=torch.float64)
    root = torch.stack([parts.spread(unit.expand(len(prior_mean), K + 1)) for unit in units], 2)
    torch.testing.assert_close(root @ root.mT, whole.covariance(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", ["user", "item"])
def test_weights_and_locations_are_the_dense_ones_given_the_same_normals(side: str) -> None:
    dense, few = both()
    drawn = []
    for sweeps in (dense, few):
        state = state_of(sweeps)
        own = state.of(side)
        torch.manual_seed(5)
        draw_means(sweeps, side, state, rescaled=False)
        information = sweeps.given_other(side, state, sweeps.ratings).information()
        drawn.append((own.weights, own.location, information.total(), information.apply(own.rows)))
    for expected, found in zip(*drawn, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    # The cheaper preconditioner costs few steps.
    assert few.means.of(side).steps <= dense.means.of(side).steps + 10


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor) and one.untyped_storage().nbytes() > 0:
                self.numbers = max(self.numbers, one.untyped_storage().nbytes() // one.element_size())
        return out


def test_no_table_of_a_sweep_grows_with_rows_times_the_square_of_their_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Chunks that are small beside this catalogue, as the real ones are beside a large one.
    for module in ("pyro_bmf.methods.few_entries", "pyro_bmf.methods.gibbs.mean_information"):
        monkeypatch.setattr(f"{module}._CELLS", 200_000)
    n_users, n_items, n_ratings = 300, 4_000, 6_000
    ratings = synthetic_ratings(n_users, n_items, n_ratings, scale="1:5:1", seed=0).ratings
    model = build_model(preset("gibbs").model, ratings.scale.levels, gibbs=True)
    model.start(ratings.ratings)
    width = model.n_factors + model.biases
    users, items = torch.from_numpy(ratings.users.copy()), torch.from_numpy(ratings.items.copy())
    values = torch.from_numpy(ratings.ratings.astype(np.float32))
    feedback = Feedback.from_coo(users, items, values, n_users, n_items)
    largest = {}
    for cells in (0, 10**12):
        sweeps = Sweeps(model, feedback, feedback.values, dense_cells=cells)
        state = sweeps.start(torch.randn(n_users, width) * 0.1, torch.randn(n_items, width) * 0.1, 1.0)
        with _Largest() as seen:
            sweeps.sweep(state, latent=False)
        largest[cells] = seen.numbers
    assert largest[10**12] >= n_items * width**2  # what the mode would see
    assert largest[0] < n_items * width * 6


@pytest.fixture(scope="module")
def stars() -> Split:
    ratings = synthetic_ratings(60, 90, 1_500, scale="1:5:1", seed=2, noise=0.8).ratings
    return random_split(ratings, seed=0)


def run(split: Split, **how: Any) -> Any:
    return fit(split, SMALL, threads=1, **{"progress": False, **how})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every catalogue for a large one."""
    monkeypatch.setattr(estimate, "SINGLE_NUMBERS", 0)
    monkeypatch.setattr(Sweeps, "__init__", functools.partialmethod(Sweeps.__init__, dense_cells=0))


def test_draws_in_half_precision_predict_the_same_to_its_rounding(
    stars: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = run(stars).posterior
    monkeypatch.setattr(estimate, "SINGLE_NUMBERS", 0)
    half: Posterior = run(stars).posterior
    assert half.user_rows.draws.dtype == half.guide.item.weights.dtype == torch.float16  # type: ignore[union-attr]
    users, items = stars.test.users.copy(), stars.test.items.copy()
    np.testing.assert_allclose(half.predict_mean(users, items), single.predict_mean(users, items), atol=2e-3)
    np.testing.assert_allclose(half.predict_sd(users, items), single.predict_sd(users, items), atol=2e-3)
    path = half.save(tmp_path / "half.safetensors")
    assert path.stat().st_size < 0.7 * single.save(tmp_path / "single.safetensors").stat().st_size
    loaded = Posterior.load(path)
    on_host = half.to("cpu")  # where files are read
    assert np.array_equal(loaded.predict_mean(users, items), on_host.predict_mean(users, items))
    new = {"1": 5.0, "2": 3.0} if not half.item_vocabulary.is_integer else {1: 5.0, 2: 3.0}
    few = list(half.item_vocabulary.ids[:3])
    np.testing.assert_allclose(
        loaded.fold_in(new).predict(few)["mean"],
        single.to("cpu").fold_in(new).predict(few)["mean"],
        atol=0.05,
    )


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("stop", [7, 21])
def test_a_large_chain_that_was_stopped_repeats_its_bits(stars: Split, tmp_path: Path, stop: int) -> None:
    whole = run(stars)
    file = tmp_path / "chain.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(stars, progress=StopsAt(stop), checkpoint=file, checkpoint_every=3)
    resumed = run(stars, checkpoint=file, checkpoint_every=3, resume=True)
    for one in ("user_rows", "item_rows"):
        for name, tensor in getattr(whole.posterior, one).tensors().items():
            assert torch.equal(getattr(resumed.posterior, one).tensors()[name], tensor), name
    assert torch.equal(resumed.posterior.guide.user.weights, whole.posterior.guide.user.weights)


def test_lists_of_a_large_catalogue_are_those_of_its_scores(
    stars: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior = run(stars).posterior
    expected = evaluate(posterior, stars, n=(5,))
    monkeypatch.setattr("pyro_bmf.evaluation.protocols.LARGE_CATALOGUE", 0)
    monkeypatch.setattr("pyro_bmf.posterior.screening.CANDIDATES", 20)
    found = evaluate(posterior, stars, n=(5,))
    assert posterior._screen  # it was asked
    assert found.ranking == expected.ranking


def test_scores_in_blocks_of_items_are_the_same(stars: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = run(stars).posterior
    whole = posterior.score_items(np.arange(7))
    monkeypatch.setattr("pyro_bmf.model.row_draws._TABLE", 500)
    np.testing.assert_allclose(posterior.score_items(np.arange(7)), whole, rtol=1e-5)


def test_the_estimate_and_its_advice_are_those_of_sweeps() -> None:
    def needs(n_users: int, n_items: int, n_train: int, draws: int = 100) -> estimate.Needs:
        return estimate.estimate_chain(n_train, n_users, n_items, 25, draws, implicit=True, device="cpu")

    large = needs(22_000, 296_000, 630_000)
    assert large.memory < 8e9
    assert needs(22_000, 296_000, 630_000, draws=50).memory < large.memory - 2e9
    with pytest.raises(estimate.FitError, match="Keep fewer draws") as error:
        estimate.check_needs(needs(10**8, 10**8, 10**9))
    assert "n_units" not in str(error.value)
    assert "feedback" not in str(error.value)
    assert estimate.kept_dtype(6_040 + 3_706, 25, 100, True) == torch.float32
    assert estimate.kept_dtype(22_000 + 296_000, 25, 100, True) == torch.float16
