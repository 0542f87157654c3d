"""Has a chain settled: a sentence where it has not, silence where it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.data import Split, random_split
from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.guide import ChainGuide
from pyro_bmf.guide.rows import RowDraws
from pyro_bmf.inference import fit, preset
from pyro_bmf.model import FactorizationModel, NormalLikelihood
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.settling import LEAST_ESS, Settling, check_settling, settling_of

N_CUTS = 4


@pytest.fixture(scope="module")
def split() -> Split:
    made = synthetic_ratings(40, 30, 600, n_factors=2, scale="1:5:1", seed=2)
    return random_split(made.ratings, seed=0)


def posterior_of(
    split: Split, n_draws: int, *, drift: float = 0.0, sticky: float = 0.0, seed: int = 0
) -> Posterior:
    """Return a chain's posterior of independent draws; `drift` moves its cut points, `sticky` holds rows."""
    generator = torch.Generator().manual_seed(seed)
    train = split.train

    def rows(n: int) -> RowDraws:
        noise = torch.randn(n, n_draws, 3, generator=generator)
        draws = noise.clone()
        for s in range(1, n_draws):
            draws[:, s] = sticky * draws[:, s - 1] + (1 - sticky**2) ** 0.5 * noise[:, s]
        return RowDraws(0.3 * draws, 0.3 * draws, torch.tensor(True))

    guide = ChainGuide(train.n_users, train.n_items, 2, n_draws, biases=True, n_cuts=N_CUTS, implicit=False)
    cuts = torch.randn(n_draws, N_CUTS, generator=generator, dtype=torch.float64)
    cuts[:, 1] += drift * torch.linspace(0, 1, n_draws, dtype=torch.float64)
    guide.cuts.copy_(cuts)
    model = FactorizationModel(2, likelihood=NormalLikelihood(0.9))
    return Posterior(model, guide, rows(train.n_users), rows(train.n_items), train, {})


def settling(split: Split, n_draws: int, **how: float) -> Settling:
    posterior = posterior_of(split, n_draws, **how)
    pairs = split.ratings.users, split.ratings.items
    return check_settling(posterior, pairs, sweeps=n_draws + 50, burn_in=50)


def test_a_chain_that_has_settled_is_left_alone(split: Split) -> None:
    """Of twenty chains of independent draws at most one says a word: the limits allow for chance."""
    found = [settling(split, 100, seed=seed) for seed in range(20)]
    assert sum(one.sentence() is not None for one in found) <= 1
    good = next(one for one in found if one.settled)
    assert good.to_dict()["sentence"] is None
    assert {q.name for q in good.quantities} >= {"cut point 1", "sd of user biases", "u.v of pairs"}


def rank_r_hat(values: np.ndarray) -> float:
    """Rank-normalised split R-hat of one chain, by the formulas of Vehtari et al. (2021), section 3 and 4."""

    def of(draws: np.ndarray) -> float:
        z = stats.norm.ppf((stats.rankdata(draws) - 3 / 8) / (draws.size + 1 / 4)).reshape(2, -1)
        m = z.shape[1]
        within = np.mean([half.var(ddof=1) for half in z])
        between = m * np.var(z.mean(1), ddof=1)
        return float(np.sqrt(((m - 1) / m * within + between / m) / within))

    return max(of(values), of(np.abs(values - np.median(values))))


def test_drifting_cut_points_are_named(split: Split) -> None:
    found = settling(split, 100, drift=6.0)
    assert [one.name for one in found.unsettled] == ["cut point 2"]
    values = posterior_of(split, 100, drift=6.0).guide.cuts[:, 1].numpy()
    worst = found.unsettled[0]
    assert worst.r_hat == pytest.approx(rank_r_hat(values), rel=1e-9)
    assert worst.r_hat > 1.5
    sentence = found.sentence()
    assert sentence is not None
    assert f"cut point 2 (worst R-hat {worst.r_hat:.2f}" in sentence
    sweeps, burn_in = found.longer()
    assert f"--sweeps {sweeps} --burn-in {burn_in}" in sentence
    assert sweeps > 150
    assert sweeps > burn_in > 50


def test_pairs_that_hardly_move_are_seen(split: Split) -> None:
    found = settling(split, 200, sticky=0.97)
    names = [one.name for one in found.unsettled]
    assert "predictors of pairs" in names
    assert "u.v of pairs" in names
    pairs = next(one for one in found.quantities if one.name == "predictors of pairs")
    assert pairs.ess < LEAST_ESS


def test_few_draws_are_said_to_be_few(split: Split) -> None:
    found = settling(split, 7)
    assert found.settled is None
    assert "too few" in str(found.sentence())
    assert found.to_dict()["r_hat_limit"] is None
    assert settling(split, 8).settled is not None


def test_a_fit_remembers_what_its_chain_was(split: Split, tmp_path: object) -> None:
    short = preset("default").replace(n_factors=2, sweeps=26, burn_in=10, kept_draws=16, plain_sweeps=4)
    lines: list[str] = []

    class Listener:
        def note(self, text: str) -> None:
            lines.append(text)

        def start(self, n_iterations: int, n_blocks: int, done: int) -> None: ...
        def block(self) -> None: ...
        def iteration(self, record: dict[str, object]) -> None: ...
        def close(self) -> None: ...

    posterior = fit(split, short, threads=1, device="cpu", progress=Listener()).posterior
    said = posterior.info["chain"]
    assert said["settled"] is False
    assert lines[-1] == said["sentence"]
    assert "--sweeps" in said["sentence"]
    assert said["sweeps"] == 26
    assert settling_of(posterior) == said
    # A run that was made before fits said it is looked at when it is opened.
    old = Posterior(
        posterior.model,
        posterior.guide,
        posterior.user_rows,
        posterior.item_rows,
        posterior.train,
        {name: value for name, value in posterior.info.items() if name != "chain"},
    )
    again = settling_of(old)
    assert again is not None
    assert again["sweeps"] == 26
    assert again["settled"] is False


def test_a_variational_posterior_has_no_chain(posterior: Posterior) -> None:
    assert settling_of(posterior) is None
    with pytest.raises(SettingsError, match="asked of a chain"):
        check_settling(posterior, (posterior.train.users, posterior.train.items), sweeps=1, burn_in=0)
