"""Has a chain settled: a sentence where it has not, silence where it has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.checking.chain_diagnosis import diagnose_chain
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs.guide import ChainGuide
from pyro_bmf.methods.settings import preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.row_draws import RowDraws
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.hyperparameters import identified_draws
from pyro_bmf.posterior.settling import (
    LEAST_ESS,
    Quantity,
    Settling,
    _sampled,
    check_settling,
    settling_of,
)

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
    assert {q.name for q in good.quantities} >= {"cut point 1", "sd of user effects", "interactions of pairs"}


def test_effects_stand_still_where_biases_and_factors_trade(split: Split) -> None:
    """Factors of users rise by d and items' biases fall by v.d: no predictor changes, nor any effect."""
    posterior = posterior_of(split, 40)
    users, items = posterior.user_rows, posterior.item_rows
    assert isinstance(users, RowDraws)
    assert isinstance(items, RowDraws)
    before, pairs = identified_draws(posterior), (split.ratings.users, split.ratings.items)
    judged = check_settling(posterior, pairs, sweeps=90, burn_in=50)
    bias = items.draws[..., -1].clone()
    shift = torch.randn(1, 40, 2, generator=torch.Generator().manual_seed(3))
    items.draws[..., -1] -= (items.draws[..., :2] * shift).sum(-1)
    users.draws[..., :2] += shift
    after = identified_draws(posterior)
    assert items.draws[..., -1].std(0).sub(bias.std(0)).abs().max() > 0.05
    np.testing.assert_allclose(after["sd of item effects"], before["sd of item effects"], rtol=1e-5)
    again = check_settling(posterior, pairs, sweeps=90, burn_in=50)
    for one, other in zip(judged.quantities, again.quantities, strict=True):
        assert (one.r_hat, one.ess) == pytest.approx((other.r_hat, other.ess), rel=0.02), one.name
    # By hand, of one draw.
    own, other = items.draws[:, 7].double().numpy(), users.draws[:, 7].double().numpy()
    effects = own[:, 2] + own[:, :2] @ other[:, :2].mean(0)
    assert after["sd of item effects"][7] == pytest.approx(effects.std(ddof=1), rel=1e-9)


def rank_r_hat(values: np.ndarray) -> float:
    """Rank-normalised split R-hat of one chain, by the formulas of Vehtari et al. (2021), section 3 and 4."""

    def of(draws: np.ndarray) -> float:
        z = stats.norm.ppf((stats.rankdata(draws) - 3 / 8) / (draws.size + 1 / 4)).reshape(2, -1)
        m = z.shape[1]
        within = np.mean([half.var(ddof=1) for half in z])
        between = m * np.var(z.mean(1), ddof=1)
        return float(np.sqrt(((m - 1) / m * within + between / m) / within))

    return max(of(values), of(np.abs(values - np.median(values))))


def by_definition(posterior: Posterior, pairs: np.ndarray) -> dict[str, tuple[float, float, bool]]:
    """R-hat, ESS (ArviZ's) and verdict of everything that is looked at, one quantity at a time."""
    from arviz_stats.base import array_stats

    def ess(draws: np.ndarray) -> float:
        return float(array_stats.ess(draws[None], chain_axis=0, draw_axis=1))

    # Of an even number of draws the two middle ones are equally far from the median but for rounding.
    u, v = posterior.user_rows.draws.numpy(), posterior.item_rows.draws.numpy()
    most = 1.05 if u.shape[1] >= 400 else 1.1
    cuts = posterior.guide.cuts.numpy()
    uv = np.stack([u[i, :, 0] * v[j, :, 0] + u[i, :, 1] * v[j, :, 1] for i, j in pairs.T]).astype(float)
    biases = np.stack([u[i, :, 2].astype(float) + v[j, :, 2] for i, j in pairs.T])
    named = {f"cut point {k + 1}": cuts[:, k] for k in range(N_CUTS)}
    for side, rows, others in (("user", u, v), ("item", v, u)):
        mean = others[..., :2].astype(float).mean(0)
        effects = rows[..., 2].astype(float) + np.einsum("nsk,sk->ns", rows[..., :2].astype(float), mean)
        named[f"sd of {side} effects"] = effects.std(0, ddof=1)
    about = [rows[..., :2].astype(float) - rows[..., :2].astype(float).mean(0) for rows in (u, v)]
    between = np.stack([(about[0][i] * about[1][j]).sum(-1) for i, j in pairs.T])
    named["spread of interactions"] = between.std(0)
    found = {}
    for name, draws in named.items():
        r_hat, size = rank_r_hat(draws), ess(draws)
        found[name] = (r_hat, size, r_hat <= most and size >= 25)
    for name, many in (("predictors of pairs", uv + biases), ("interactions of pairs", between)):
        r_hats, sizes = [rank_r_hat(one) for one in many], [ess(one) for one in many]
        typical = float(np.median(sizes))
        fine = np.mean(np.array(r_hats) > most) <= 0.05 and typical >= 25
        found[name] = (float(np.quantile(r_hats, 0.95)), typical, bool(fine))
    return found


def wave(n: int, periods: int) -> torch.Tensor:
    """The same in both halves, and so of an R-hat of one, but of few effective draws."""
    return torch.sin(2 * np.pi * periods * (torch.arange(n, dtype=torch.float64) + 0.5) / n)


@pytest.mark.parametrize("n_draws", [100, 398, 400])
def test_the_verdict_is_the_definitions(split: Split, n_draws: int) -> None:
    """One at a time: R-hats on both sides of both limits, few effective draws, and pairs of some users."""
    posterior = posterior_of(split, n_draws)
    train, guide = split.train, posterior.guide
    pairs = np.stack([train.users, train.items])[:, :: len(train) // 60]
    late = (torch.arange(n_draws) >= n_draws // 2).double()
    noise = guide.cuts[:, 0].clone()
    guide.cuts[:, 3] = wave(n_draws, 4)
    verdicts = []
    for share, wider in ((0.0, 0.0), (0.05, 0.5), (0.3, 0.7), (1.0, 1.2)):
        more = wider if n_draws == 100 else 1.4 * wider
        guide.cuts[:, 0] = noise * (1.0 + more * late)  # another spread, not another mean
        rows = posterior.user_rows.draws.clone()
        held = torch.arange(len(rows)) < share * len(rows)
        moved = late if share < 1.0 else wave(n_draws, 4)
        rows[held] = 0.2 * rows[held] + 0.6 * moved.float()[:, None]
        own = Posterior(
            posterior.model, guide, RowDraws(rows, rows, torch.tensor(True)), posterior.item_rows, train, {}
        )
        expected = by_definition(own, pairs)
        found = check_settling(own, (pairs[0], pairs[1]), sweeps=n_draws + 50, burn_in=50)
        assert [one.name for one in found.quantities] == list(expected)
        for one in found.quantities:
            r_hat, ess, fine = expected[one.name]
            assert (one.r_hat, one.ess) == pytest.approx((r_hat, ess), rel=5e-3), one.name
            assert one.settled == fine, one.name
        verdicts.append(found.quantities)
    # All that decides is there: R-hat alone, effective draws alone, and either side of the limit.
    first = [one[0] for one in verdicts]
    assert {one.settled for one in first} == {True, False}
    assert any(1.05 < one.r_hat < 1.1 and one.settled == (n_draws < 400) for one in first)
    assert any(1.1 < one.r_hat < 1.3 and not one.settled and one.ess > 40 for one in first)
    assert all(one[3].r_hat < 1.0 and not one[3].settled for one in verdicts)
    predictors = [one[-2] for one in verdicts]
    assert [one.settled for one in predictors] == [True, True, False, False]
    assert predictors[2].ess > 40
    assert predictors[3].r_hat < 1.05


def test_a_longer_chain_is_longer() -> None:
    """Twice to ten times the sweeps, by what the least effective quantity lacks of a hundred draws."""

    def longer(ess: float, sweeps: int, burn_in: int) -> tuple[int, int]:
        bad = Quantity("a", 1.2, ess, False)
        better = Quantity("b", 1.3, 2.0 * ess, False)
        good = Quantity("c", 1.0, 0.5 * ess, True)  # what has settled is not asked
        return Settling(100, 1.1, (good, better, bad), sweeps, burn_in).longer()

    assert longer(1.0, 150, 50) == (1500, 750)
    assert longer(0.1, 150, 50) == (1500, 750)
    assert longer(30.0, 150, 50) == (800, 400)
    assert longer(90.0, 150, 50) == (400, 200)
    assert longer(40.0, 1234, 34) == (7200, 3600)
    assert longer(1.0, 26, 10) == (260, 130)
    # Nearly all sweeps were burn-in: the next chain is no shorter for that.
    assert longer(90.0, 100, 90) == (200, 100)
    lengths = [longer(ess, 150, 50)[0] for ess in (200, 60, 30, 20, 12, 11, 9, 2)]
    assert lengths == sorted(lengths)


def test_what_is_said_and_written() -> None:
    worst, least = Quantity("noise", 1.456, 12.3, False), Quantity("cut point 1", 1.2, 8.76, False)
    more = [Quantity(f"q{n}", 1.11 + n / 1000, 30.0, False) for n in range(4)]
    found = Settling(100, 1.1, (least, Quantity("fine", 1.0, 90.0, True), worst, *more), 150, 50)
    assert [one.name for one in found.unsettled] == ["noise", "cut point 1", "q3", "q2", "q1", "q0"]
    assert found.words() == "the chain has not settled (R-hat of noise 1.46)"
    assert found.sentence() == (
        "The chain has not settled: noise, cut point 1, q3, q2 and 2 more (worst R-hat 1.46, noise, where "
        "1.1 is the most; fewest effective draws 9 of 100, cut point 1, where 25 is the least). Means are "
        "hardly touched, intervals and hyperparameters are: fit longer, --sweeps 1500 --burn-in 750 instead "
        "of 150 and 50."
    )
    several = Settling(300, 1.1, found.quantities, 150, 50, chains=3)
    # Without a number of chains whoever gives a length has one, whose starts nothing compares.
    assert str(several.sentence()).endswith(
        "fit longer, --chains 3 --sweeps 1500 --burn-in 750 instead of 150 and 50."
    )
    written = found.to_dict()
    assert written["settled"] is False
    assert (written["words"], written["sentence"]) == (found.words(), found.sentence())
    assert (written["n_draws"], written["r_hat_limit"], written["least_ess"]) == (100, 1.1, 25.0)
    assert (written["sweeps"], written["burn_in"]) == (150, 50)
    assert written["quantities"][0] == {"name": "cut point 1", "r_hat": 1.2, "ess": 8.8, "settled": False}
    fine = Settling(100, 1.1, (Quantity("fine", 1.0, 90.0, True),), 150, 50)
    assert (fine.settled, fine.words(), fine.sentence(), fine.unsettled) == (True, None, None, ())
    few = Settling(7, float("nan"), (), 57, 50)
    assert few.settled is None
    assert few.words() == "7 draws of the chain are too few to tell whether it has settled"
    assert few.to_dict()["r_hat_limit"] is None


def test_the_same_five_hundred_pairs_are_looked_at() -> None:
    assert _sampled(500).tolist() == list(range(500))
    some = _sampled(40_000)
    assert len(np.unique(some)) == 500
    assert (np.diff(some) > 0).all()
    assert np.array_equal(some, _sampled(40_000))
    assert some.mean() == pytest.approx(20_000, rel=0.1)


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
    assert "interactions of pairs" in names
    pairs = next(one for one in found.quantities if one.name == "predictors of pairs")
    assert pairs.ess < LEAST_ESS


def test_few_draws_are_said_to_be_few(split: Split) -> None:
    found = settling(split, 7)
    assert found.settled is None
    assert "too few" in str(found.sentence())
    assert found.to_dict()["r_hat_limit"] is None
    assert settling(split, 8).settled is not None


def test_a_fit_remembers_what_its_chain_was(split: Split, tmp_path: object) -> None:
    short = preset("gibbs").replace(n_factors=2, sweeps=26, burn_in=10, kept_draws=16, plain_sweeps=4)
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


@pytest.mark.parametrize(("n_draws", "limit"), [(60, 1.1), (400, 1.05)])
def test_a_row_is_judged_by_the_same_limit_as_the_chain(split, n_draws, limit):
    posterior = posterior_of(split, n_draws, sticky=0.8)
    found = diagnose_chain(posterior)
    train = split.train
    assert found.r_hat_limit == limit
    assert check_settling(posterior, (train.users, train.items), sweeps=100, burn_in=0).r_hat_limit == limit
    for table in found.rows.values():
        assert 0 < table["flagged"].sum() < len(table)
        assert (table["flagged"] == (table["r_hat"] > limit)).all()
        assert (table["r_hat"].between(1.05, 1.1) & ~table["flagged"]).any() == (limit == 1.1)
