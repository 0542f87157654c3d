"""Algorithm 1 as a whole: recovery, seeds, resuming, what it reads, what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import tensor_files
from pyro_bmf.checkpoint import CHECKPOINT
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import FitError, SavedFileError, SettingsError
from pyro_bmf.estimate import Needs, check_needs
from pyro_bmf.fit_result import DivergenceError, FitResult
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.refitting import chosen_iterations

SMALL = preset("amortized").replace(
    n_factors=3,
    n_tower_outputs=8,
    user_batch_size=30,
    item_batch_size=25,
    max_iterations=6,
    warmup_iterations=2,
    patience=None,
)


@pytest.fixture(scope="module")
def split() -> Split:
    ratings = synthetic_ratings(
        n_users=80, n_items=60, n_ratings=1500, n_factors=3, noise=0.5, seed=3
    ).ratings
    return random_split(ratings, seed=0)


def run(split: Split, settings: Settings = SMALL, **how: object) -> FitResult:
    return fit(split, settings, threads=1, progress=False, **how)  # type: ignore[arg-type]


def tensors_of(result: FitResult) -> dict[str, torch.Tensor]:
    posterior = result.posterior
    rows = {
        "user_loc": posterior.user_rows.loc,
        "user_scale": posterior.user_rows.scale,
        "item_loc": posterior.item_rows.loc,
        "item_scale": posterior.item_rows.scale,
    }
    return rows | dict(posterior.guide.state_dict()) | dict(posterior.model.state_dict())


def assert_same_bits(one: FitResult, other: FitResult) -> None:
    a, b = tensors_of(one), tensors_of(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_planted_truth_is_recovered() -> None:
    # Continuous ratings from the model itself; what has an identity is eta = mu + b + c + u.v and the noise.
    data = synthetic_ratings(
        n_users=250, n_items=160, n_ratings=16_000, n_factors=2, noise=0.4, seed=11, biases=True
    )
    split = random_split(data.ratings, seed=1)
    settings = preset("amortized").replace(
        n_factors=2,
        n_tower_outputs=32,
        user_batch_size=50,
        item_batch_size=40,
        max_iterations=25,
        learning_rate=3e-3,
        beta_user=1.0,
        beta_item=1.0,
        patience=None,
    )
    result = run(split, settings)
    rows = split.test_rows
    truth = data.truth.eta[rows]
    predicted = result.posterior.predict_mean(data.ratings.users[rows], data.ratings.items[rows])
    # The part of eta that biases and mean cannot give is what the factors recover.
    error = np.sqrt(np.mean((predicted - truth) ** 2))
    assert np.corrcoef(predicted, truth)[0, 1] > 0.9
    assert error < 0.5 * truth.std()
    assert 0.36 < result.history[-1]["noise"] < 0.55


def test_same_seed_same_bits_other_seed_other_bits(split: Split) -> None:
    first = run(split)
    torch.manual_seed(12345)  # what the process drew before must not matter
    again = run(split)
    assert_same_bits(first, again)
    other = run(split, SMALL.replace(seed=1))
    assert not torch.equal(tensors_of(first)["user_loc"], tensors_of(other)["user_loc"])


def test_a_fit_leaves_the_process_as_it_was(split: Split) -> None:
    torch.manual_seed(7)
    expected = torch.randn(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    run(split, SMALL.replace(max_iterations=1))
    assert torch.equal(torch.randn(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_embeddings_are_resampled_and_fed_back_every_iteration(split: Split) -> None:
    fed = [
        tensors_of(run(split, SMALL.replace(keep="last", stop_after=n)))["user_factors"] for n in (1, 2, 3)
    ]
    # Algorithm 1: the first iteration reads draws from the prior, each later one draws from q before it.
    assert float(fed[0].std()) == pytest.approx(SMALL.model.prior_scale, rel=0.2)
    assert not torch.equal(fed[0], fed[1])
    assert not torch.equal(fed[1], fed[2])


def with_changed_ratings(split: Split, rows: np.ndarray) -> Split:
    """Return the same split with the ratings of `rows` changed to others of the scale."""
    ratings = split.ratings.ratings.copy()
    ratings[rows] = ratings.min() + ratings.max() - ratings[rows]
    return replace(split, ratings=replace(split.ratings, ratings=ratings))


def test_test_ratings_are_never_read(split: Split) -> None:
    assert_same_bits(run(split), run(with_changed_ratings(split, split.test_rows)))


def test_validation_ratings_only_select(split: Split) -> None:
    changed = with_changed_ratings(split, split.valid_rows)
    last = SMALL.replace(keep="last")
    assert_same_bits(run(split, last), run(changed, last))
    # The check can fail: training ratings do matter.
    other = with_changed_ratings(split, split.train_rows)
    assert not torch.equal(tensors_of(run(split, last))["user_loc"], tensors_of(run(other, last))["user_loc"])


def test_history_names_every_part_and_adds_up(split: Split) -> None:
    result = run(split)
    assert [record["iteration"] for record in result.history] == list(range(1, 7))
    for record in result.history[2:]:  # after the warm-up beta is one number all through
        weighted = sum(
            record[f"beta_{side}"] * (record[f"kl_{side}_factors"] + record[f"kl_{side}_bias"])
            for side in ("user", "item")
        )
        assert record["loss"] == pytest.approx(weighted - record["log_likelihood"], rel=1e-4)
        assert record["valid_rmse"] > 0
        assert record["noise"] > 0


def test_best_state_is_kept_and_patience_stops(split: Split) -> None:
    settings = SMALL.replace(max_iterations=40, patience=3, learning_rate=0.02, ema_decay=0.0)
    result = run(split, settings)
    rmse = [record["valid_rmse"] for record in result.history]
    assert result.stopped == "patience"
    assert result.best_iteration == 1 + int(np.argmin(rmse))
    assert len(rmse) == result.best_iteration + 3
    valid = split.valid
    predicted = result.posterior.predict_mean(valid.users, valid.items)
    assert np.sqrt(np.mean((predicted - valid.ratings) ** 2)) == pytest.approx(min(rmse), rel=1e-5)


def test_averaged_weights_are_what_is_kept(split: Split) -> None:
    averaged = run(split, SMALL.replace(ema_decay=0.5, ema_start=0.0, keep="last"))
    plain = run(split, SMALL.replace(ema_decay=0.0, keep="last"))
    # Averaging is read-only: the live weights, which feed the next iteration, take the same path.
    assert [r["loss"] for r in averaged.history] == [r["loss"] for r in plain.history]
    assert not torch.equal(tensors_of(averaged)["user_loc"], tensors_of(plain)["user_loc"])
    assert [r["valid_rmse"] for r in averaged.history][1:] != [r["valid_rmse"] for r in plain.history][1:]


def test_resume_repeats_the_uninterrupted_fit_to_the_bit(split: Split, tmp_path: Path) -> None:
    whole = run(split)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(split, SMALL, threads=1, progress=_Interrupt(after=4), checkpoint=file, checkpoint_every=1)
    assert file.is_file()
    resumed = run(split, checkpoint=file, resume=True)
    assert_same_bits(whole, resumed)
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]


class _Interrupt:
    """A reporter that interrupts in the middle of an iteration, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.after, self.done = after, 0

    def note(self, text: str) -> None: ...
    def start(self, n_iterations: int, n_blocks: int, done: int) -> None: ...
    def close(self) -> None: ...

    def block(self) -> None:
        if self.done == self.after:
            raise KeyboardInterrupt

    def iteration(self, record: dict[str, object]) -> None:
        self.done += 1


def test_resume_refuses_another_fit_and_damaged_files(split: Split, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(SavedFileError, match="no checkpoint"):
        run(split, checkpoint=file, resume=True)
    run(split, checkpoint=file, checkpoint_every=3)
    with pytest.raises(SavedFileError, match="settings"):
        run(split, SMALL.replace(learning_rate=0.5), checkpoint=file, resume=True)
    with pytest.raises(SavedFileError, match="split_hash"):
        run(random_split(split.ratings, seed=9), checkpoint=file, resume=True)
    whole = file.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(SavedFileError, match=r"a damaged one .* Delete it and start over"):
            run(split, checkpoint=file, resume=True)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (*rng.integers(8, header, 30), *rng.integers(header, len(whole), 30)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        with pytest.raises(SavedFileError, match=r"checkpoint\.safetensors"):
            run(split, checkpoint=file, resume=True)
    with pytest.raises(SettingsError, match="resume needs a checkpoint"):
        run(split, resume=True)


_KILLED = """
import sys
from pathlib import Path
from typing import Any
from pyro_bmf.data import read_split
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import Settings
import json
split = read_split(Path(sys.argv[1]))
settings = Settings.from_dict(json.loads(Path(sys.argv[2]).read_text()))
file = Path(sys.argv[3])
how = dict(threads=1, progress=False, checkpoint=file, checkpoint_every=1)
result = fit(split, settings, resume=file.exists(), **how)
result.posterior.save(Path(sys.argv[4]))
"""


def test_resume_after_kill_at_random_times(split: Split, tmp_path: Path) -> None:
    import json

    from pyro_bmf.data import write_split
    from pyro_bmf.posterior import Posterior

    settings = SMALL.replace(max_iterations=25)
    write_split(split, tmp_path / "split")
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_dict()))
    file, out = tmp_path / "checkpoint.safetensors", tmp_path / "posterior.safetensors"
    paths = [tmp_path / "split", tmp_path / "settings.json", file, out]
    command = [sys.executable, "-c", _KILLED, *map(str, paths)]
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(command)
        # From the first checkpoint on, at any moment: in an iteration, or in the middle of a write.
        deadline = time.monotonic() + 120
        seen = file.stat().st_mtime_ns if file.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if file.exists() and file.stat().st_mtime_ns != seen:
                time.sleep(float(rng.uniform(0.0, 0.12)))
                break
            time.sleep(0.002)
        if process.poll() is None and kills < 3:
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.wait()
            continue
        assert process.wait(timeout=120) == 0
        break
    assert kills >= 1
    expected = run(split, settings).posterior.to("cpu")
    found = Posterior.load(out)
    assert torch.equal(found.user_rows.loc, expected.user_rows.loc)
    assert torch.equal(found.item_rows.scale, expected.item_rows.scale)
    assert all(
        torch.equal(value, found.guide.state_dict()[name])
        for name, value in expected.guide.state_dict().items()
    )


def test_divergence_says_what_to_change_and_keeps_the_last_good_state(split: Split) -> None:
    with pytest.raises(DivergenceError, match=r"Lower the learning rate .* clip_norm") as caught:
        run(split, SMALL.replace(learning_rate=1e6, final_learning_rate=1e6, max_iterations=30, noise=1.0))
    result = caught.value.result
    if result is not None:
        assert torch.isfinite(result.posterior.user_rows.loc).all()
    # A fit that goes wrong late keeps what was good.
    settings = SMALL.replace(keep="last")
    with pytest.raises(DivergenceError, match="after iteration 3 is kept") as caught:
        fit(split, settings, threads=1, progress=_Poison(3), model=_poisoned())
    assert caught.value.result is not None
    assert torch.isfinite(caught.value.result.posterior.user_rows.loc).all()


_LIKELIHOODS: list[_PoisonedNormal] = []


class _PoisonedNormal(NormalLikelihood):
    """Normal noise until it is told to be broken."""

    broken = False

    def forward(self, eta: torch.Tensor) -> torch.distributions.Distribution:
        return super().forward(eta * float("nan") if self.broken else eta)


def _poisoned() -> FactorizationModel:
    likelihood = _PoisonedNormal()
    _LIKELIHOODS.append(likelihood)
    return FactorizationModel(3, likelihood=likelihood)


class _Poison(_Interrupt):
    def block(self) -> None: ...

    def iteration(self, record: dict[str, object]) -> None:
        self.done += 1
        if self.done == self.after:
            _LIKELIHOODS[-1].broken = True


def test_ratings_far_from_zero_are_no_divergence_of_a_fit_to_raw_ratings() -> None:
    # Most are 5: the RMSE of predicting 0, as the encoders' literal fit begins by, is 12 standard deviations.
    rng = np.random.default_rng(3)
    users, items = np.divmod(rng.permutation(60 * 40)[:900], 40)
    ratings = ratings_from_arrays(users, items, rng.choice([4.0, 5.0], 900, p=[0.2, 0.8]), scale="1:5:1")
    assert np.sqrt(np.mean(ratings.ratings**2)) > 10 * ratings.ratings.std()
    small = preset("literal").replace(
        n_factors=4, user_batch_size=1000, item_batch_size=1000, max_iterations=2, patience=None
    )
    found = fit(random_split(ratings, seed=0), small, progress=False)
    first, second = (record["valid_rmse"] for record in found.history)
    assert 5 * ratings.ratings.std() < second < first


def test_refit_uses_validation_ratings_for_the_chosen_iterations(split: Split) -> None:
    chosen = run(split)
    again = run(split, chosen_iterations(chosen), refit=True)
    assert len(again.history) == chosen.best_iteration
    assert again.best_iteration == chosen.best_iteration
    assert all(record["valid_rmse"] is None for record in again.history)
    assert again.posterior.info["trained_on"] == "train+valid"
    changed = run(with_changed_ratings(split, split.valid_rows), chosen_iterations(chosen), refit=True)
    assert not torch.equal(tensors_of(again)["user_loc"], tensors_of(changed)["user_loc"])


def test_warm_start_knows_old_rows_and_takes_new_ones(split: Split) -> None:
    ratings = split.ratings
    old_rows = np.flatnonzero((ratings.users < 70) & (ratings.items < 50))
    old = random_split(
        ratings_from_arrays(
            ratings.user_vocabulary.raw(ratings.users[old_rows]),
            ratings.item_vocabulary.raw(ratings.items[old_rows]),
            ratings.ratings[old_rows],
            scale=ratings.scale,
        ),
        seed=0,
    )
    settings = SMALL.replace(max_iterations=12, keep="last")
    earlier = run(old, settings)
    short = settings.replace(
        max_iterations=1, warmup_iterations=0, learning_rate=1e-5, final_learning_rate=1e-5
    )
    warm = run(split, short, warm_start=earlier.posterior)
    cold = run(split, short)
    assert warm.history[0]["valid_rmse"] < cold.history[0]["valid_rmse"] - 0.02
    # Known rows keep their first-layer weights (one step of 1e-5 moves them by no more), new rows had none.
    new = warm.posterior.guide.user_encoder.data_weight
    before = earlier.posterior.guide.user_encoder.data_weight
    kept = split.ratings.item_vocabulary.index(old.ratings.item_vocabulary.ids)
    assert torch.allclose(new[kept], before, atol=2e-4)
    fresh = np.setdiff1d(np.arange(split.ratings.n_items), kept)
    assert len(fresh) > 0
    assert float(new[fresh].abs().max()) < 2e-4
    with pytest.raises(SettingsError, match="same architecture"):
        run(split, short.replace(n_factors=4), warm_start=earlier.posterior)


def test_what_cannot_fit_is_refused_with_advice() -> None:
    needs = Needs(n_parameters=10**12, memory=10**14, available=10**9, device="cpu")
    with pytest.raises(FitError, match=r"would need .* Use fewer factors"):
        check_needs(needs)
    check_needs(replace(needs, memory=10**8))


def test_devices_are_checked(split: Split) -> None:
    with pytest.raises(SettingsError, match="no device"):
        run(split, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="sees no CUDA device"):
            run(split, device="cuda")


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "none", "feedback": False},
        {"data_input": False},
        {"attention": "none"},
        {"attention": "softmax"},
        {"attention": "softmax", "attention_scope": "global"},
        {"attention_scope": "global"},
        {"attention": "softmax", "attention_merge": "add"},
        {"biases": False, "centred": False, "noise": 1.0},
        {"elbo": "trace", "num_particles": 2},
        {"held_out_input": True, "input_dropout": 0.3},
        {"n_tower_layers": 2, "n_head_layers": 2, "clip_norm": 5.0, "weight_decay": 0.01},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_every_ablation_is_a_setting_that_learns(split: Split, changes: dict[str, object]) -> None:
    settings = SMALL.replace(max_iterations=16, warmup_iterations=0, learning_rate=3e-3, **changes)
    result = run(split, settings)
    losses = [record["loss"] for record in result.history]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]


def test_settings_refuse_what_they_cannot_mean() -> None:
    with pytest.raises(SettingsError, match="is not a setting"):
        preset().replace(n_factor=3)
    with pytest.raises(SettingsError, match="there are default, guide, gibbs, conjugate"):
        preset("best")
    for name, value in {
        "max_iterations": 0,
        "learning_rate": float("nan"),
        "beta_user": -1.0,
        "ema_decay": 1.0,
        "keep": "first",
        "attention": "hard",
        "input_dropout": 1.0,
    }.items():
        with pytest.raises(SettingsError, match=name):
            preset("amortized").replace(**{name: value})
    # Settings that exclude each other may be changed together, in either order.
    for changes in ({"feedback": False, "attention": "none"}, {"attention": "none", "feedback": False}):
        assert not preset("amortized").replace(**changes).method.encoder.feedback
    assert Settings.from_dict(preset("paper").to_dict()) == preset("paper")


@pytest.mark.parametrize("part", ["live", "best", "optimizer"])
def test_resume_refuses_tensors_that_do_not_fit(split: Split, tmp_path: Path, part: str) -> None:
    file = tmp_path / "checkpoint.safetensors"
    run(split, checkpoint=file, checkpoint_every=3)
    header, tensors = tensor_files.read_tensors(file, CHECKPOINT)
    name = next(n for n, t in sorted(tensors.items()) if n.startswith(f"{part}.") and t.ndim == 2)
    for other in (None, tensors[name].long(), tensors[name].reshape(-1), tensors[name].half()):
        changed = {n: t for n, t in tensors.items() if n != name}
        if other is not None:
            changed[name] = other
        tensor_files.write_tensors(file, CHECKPOINT, header, changed)
        with pytest.raises(SavedFileError, match="does not fit this model"):
            run(split, checkpoint=file, resume=True)


FORGED: dict[str, tuple[dict[str, float | None], str]] = {
    "a better figure": ({"best_rmse": 0.001}, "its best figure is 0.001"),
    "no figure": ({"best_rmse": None}, "its best figure is None"),
    "a later iteration": ({"best_iteration": 99}, "its best iteration is 99"),
    "none": ({"best_iteration": 0}, "its best iteration is 0"),
}


@pytest.mark.parametrize("case", FORGED)
def test_resume_refuses_a_best_state_that_the_history_does_not_tell(
    case: str, split: Split, tmp_path: Path
) -> None:
    changes, message = FORGED[case]
    file = tmp_path / "checkpoint.safetensors"
    run(split, checkpoint=file, checkpoint_every=3)
    header, tensors = tensor_files.read_tensors(file, CHECKPOINT)
    tensor_files.write_tensors(file, CHECKPOINT, header | changes, tensors)
    with pytest.raises(SavedFileError, match=message):
        run(split, checkpoint=file, resume=True)


@pytest.mark.parametrize("threads", ["2", 2.5, True, 0])
def test_threads_that_are_no_whole_number_are_refused(split: Split, threads: Any) -> None:
    with pytest.raises(SettingsError, match=r"threads is .*: give a whole number, 1 or more"):
        fit(split, SMALL, threads=threads, progress=False)


def test_coordinate_ascent_that_would_not_fit_is_refused_before_it_starts(split: Split) -> None:
    with pytest.raises(FitError, match=r"n_factors"):
        fit(split, preset("conjugate").replace(n_factors=10**9), progress=False)
