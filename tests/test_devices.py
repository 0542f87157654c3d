"""The device that a test run chooses (`--device`): products, steps and every method against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf import process
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.errors import FitError, SettingsError
from pyro_bmf.estimate import Needs, check_needs
from pyro_bmf.fitting import fit
from pyro_bmf.methods.recording import CudaRecorder, Recording
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.feedback_sums import feedback_sum
from pyro_bmf.numerics.segment_sums import Segments, class_sums, segment_sum
from pyro_bmf.posterior import Posterior
from pyro_bmf.process import LEAST_FREE, computing, pick_device

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "exact head": ("guide", {"n_factors": 4, "max_iterations": 3}),
    "gibbs": ("gibbs", {"n_factors": 4, "sweeps": 6, "burn_in": 3, "kept_draws": 3}),
    "coordinate ascent": ("conjugate", {"n_factors": 4, "max_iterations": 3}),
    "encoders": ("amortized", {"n_factors": 4, "max_iterations": 2}),
    "paper": ("paper", {"n_factors": 4, "max_iterations": 2}),
}


@pytest.fixture(scope="module")
def split() -> Split:
    shape = {"n_users": 90, "n_items": 60, "n_ratings": 1500}
    return random_split(synthetic_ratings(**shape, n_factors=3, scale="1:5:0.5", seed=0).ratings, seed=0)


@pytest.mark.parametrize("width", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_segment_sums(device: torch.device, dtype: torch.dtype, width: int | None) -> None:
    """Against the CPU in double precision, a segment of thousands of entries among them; twice the same."""
    generator = torch.Generator().manual_seed(0)
    index = torch.cat([torch.full((6000,), 3), torch.randint(0, 50, (4000,), generator=generator)])
    shape = (10_000,) if width is None else (10_000, width)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = torch.zeros(50, *shape[1:], dtype=torch.float64).index_add_(0, index, values)
    segments = Segments.of_index(index.to(device), 50)
    given = values.to(device, dtype)
    found = segment_sum(given, segments)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=tolerance)
    assert torch.equal(found, segment_sum(given, segments))


def test_class_sums(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(0, 5, (20_000,), generator=generator)
    values = torch.randn(20_000, generator=generator, dtype=torch.float64)
    expected = torch.zeros(5, dtype=torch.float64).index_add_(0, classes, values)
    zero = torch.zeros(5, dtype=torch.float64, device=device)
    found = class_sums(values.to(device), classes.to(device), zero)
    torch.testing.assert_close(found.cpu(), expected)


def test_feedback_sums_and_their_gradient(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(2)
    pairs = torch.randperm(300 * 40, generator=generator)[:5000]
    rows, columns = pairs // 40, pairs % 40
    values = torch.randn(5000, generator=generator, dtype=torch.float64)
    dense = torch.zeros(300, 40, dtype=torch.float64)
    dense[rows, columns] = values
    table = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    pull = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    feedback = Feedback.from_coo(rows, columns, values, 300, 40).to(device)
    leaf = table.to(device).requires_grad_()
    found = feedback_sum(feedback, leaf, by_rating=True)
    torch.testing.assert_close(found.detach().cpu(), dense @ table)
    found.backward(pull.to(device))  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.cpu(), dense.T @ pull)


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, device: torch.device, split: Split, tmp_path: Any) -> None:
    """Fitted twice it gives the same bits; it predicts as well as on a CPU, and is read again there."""
    chosen, changes = METHODS[name]
    settings = preset(chosen).replace(**changes)
    once, again = (
        fit(split, settings, threads=1, device=str(device), progress=False).posterior for _ in range(2)
    )
    users, items = split.test.users, split.test.items
    predicted = once.predict_mean(users, items)
    np.testing.assert_array_equal(predicted, again.predict_mean(users, items))
    known = split.train.ratings
    # Draws differ by device: both are far better than the mean, and about as good as each other.
    rmse = float(np.sqrt(np.mean((predicted - split.test.ratings) ** 2)))
    on_cpu = fit(split, settings, threads=1, device="cpu", progress=False).posterior
    expected = float(np.sqrt(np.mean((on_cpu.predict_mean(users, items) - split.test.ratings) ** 2)))
    assert rmse < 1.15 * float(known.std())
    assert rmse == pytest.approx(expected, rel=0.08)
    once.save(tmp_path / "model.safetensors")
    read = Posterior.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(read.predict_mean(users, items), predicted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "prior",
    ["hierarchical-normal", "lkj", "normal-wishart", "normal-half-t", "student-t", "laplace", "horseshoe"],
)
def test_every_prior(prior: str, device: torch.device, split: Split) -> None:
    """Of encoders, which sample them: what a prior makes for itself is where the model is."""
    settings = preset("amortized").replace(n_factors=3, max_iterations=1, prior=prior)
    fitted = fit(split, settings, threads=1, device=str(device), progress=False)
    assert np.isfinite(fitted.posterior.predict_mean(split.test.users, split.test.items)).all()


def test_positive_priors(device: torch.device) -> None:
    settings = preset("amortized").replace(
        n_factors=3,
        max_iterations=1,
        prior="gamma",
        likelihood="poisson:link=identity",
        biases=False,
        centred=False,
    )
    counts = synthetic_ratings(n_users=30, n_items=20, n_ratings=250, scale="1:5:1", seed=0).ratings
    counted = random_split(counts, seed=0)
    fitted = fit(counted, settings, threads=1, device=str(device), progress=False)
    assert np.isfinite(fitted.posterior.predict_mean(counts.users, counts.items)).all()


# ---------------------------------------------------------------- which device


def test_auto_takes_a_card_with_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(process.ENVIRONMENT, raising=False)
    notes: list[str] = []
    found = [pick_device("auto", note=notes.append, free=lambda n=n: n) for n in (None, LEAST_FREE)]
    assert [one.type for one in found] == ["cpu", "cuda"]
    assert notes == []
    assert pick_device("auto", note=notes.append, free=lambda: 700_000_000).type == "cpu"
    assert len(notes) == 1
    assert "0.7 GB free" in notes[0]
    assert "--device cuda" in notes[0]
    with pytest.warns(RuntimeWarning, match="the CPU is taken"):
        pick_device("auto", free=lambda: 0)


def test_the_environment_says_what_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(process.ENVIRONMENT, "cpu")
    assert pick_device("auto", free=lambda: 10**12).type == "cpu"
    monkeypatch.setenv(process.ENVIRONMENT, "abacus")
    with pytest.raises(SettingsError, match="abacus"):
        pick_device("auto")


def test_what_is_too_large_for_a_card_may_go_to_the_cpu() -> None:
    needs = Needs(n_parameters=10, memory=10**12, available=10**9, device="cuda:0")
    with pytest.raises(FitError, match="--device cpu"):
        check_needs(needs)


def test_deterministic_kernels_are_put_back(device: torch.device) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with computing(device, threads=1, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled() == (device.type == "cuda")
        # Filling new tensors before they are written would be a launch more for most operations.
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.are_deterministic_algorithms_enabled() == before
    assert torch.utils.deterministic.fill_uninitialized_memory == filled


def test_a_recording_that_fails_leaves_the_device_in_order(device: torch.device) -> None:
    """Work that waits for the host cannot be recorded; what comes after it is drawn and recorded as ever."""
    if device.type != "cuda" or torch.version.cuda is None:
        pytest.skip("CUDA graphs need a card that is there")
    told: list[str] = []
    recording = Recording.on(device, told.append)
    at = (torch.ones(3, device=device),)
    with torch.random.fork_rng(devices=[device]):
        torch.manual_seed(4)
        expected = torch.randn(5, device=device)
        torch.manual_seed(4)
        assert recording.of("Work", at, lambda given: float(given[0].sum())) is None
        assert torch.equal(torch.randn(5, device=device), expected)
    assert len(told) == 1
    recorded = recording.of("Work", at, lambda given: given[0].mul_(2.0))
    assert recorded is not None
    recorded.fill((torch.full((3,), 5.0, device=device),))
    recorded.replay()
    assert recorded.place[0].tolist() == [10.0] * 3


#: Fits whose later recordings come when earlier ones have run, and run in turn with them.
LONG: dict[str, dict[str, Any]] = {
    "exact head": {"n_factors": 4, "max_iterations": 9},
    "gibbs": {
        **{"n_factors": 4, "sweeps": 60, "burn_in": 45, "kept_draws": 15, "overrelaxation": 0.8},
        "implicit": True,
    },
}


@pytest.mark.parametrize("method", list(LONG))
def test_what_is_recorded_has_the_same_bits(
    device: torch.device, split: Split, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As steps that are taken one after the other; nothing is recorded on a CPU."""
    if device.type != "cuda" or torch.version.cuda is None:
        pytest.skip("CUDA graphs need a card that is there")
    settings = preset(METHODS[method][0]).replace(likelihood="ordered-probit", **LONG[method])
    ends = []
    for recorder in (None, CudaRecorder(device)):
        monkeypatch.setattr(
            Recording, "on", classmethod(lambda cls, device, note, own=recorder: cls(own, pytest.fail))
        )
        result = fit(split, settings, device=str(device), progress=False)
        ends.append(result.posterior.predict_mean(split.test.users, split.test.items))
    assert np.array_equal(ends[0], ends[1])
