"""Every field of every settings class: its method reads it, and bits change, or it is refused by its name."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.data import RatingScale, Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.coordinate_ascent.settings import CoordinateAscent
from pyro_bmf.methods.cross_feedback.settings import CrossFeedback, EncoderSettings
from pyro_bmf.methods.exact_head.settings import ExactHead
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.model_settings import ModelSettings
from pyro_bmf.methods.reading import Case
from pyro_bmf.methods.setting import settings_of
from pyro_bmf.methods.settings import Settings, preset

SVI = {"n_tower_outputs": 3, "max_iterations": 3, "warmup_iterations": 2, "user_batch_size": 6}
SWEEPS = {"sweeps": 12, "burn_in": 5, "kept_draws": 3}
#: Settings of each method, small; where sweeps follow, the model is one that both stages know.
METHODS: dict[str, Settings] = {
    "cross-feedback": preset("amortized").replace(n_factors=2, item_batch_size=6, **SVI),
    "exact-head": preset("guide").replace(n_factors=2, max_iterations=5, plain_iterations=2),
    "coordinate-ascent": preset("conjugate").replace(n_factors=2, max_iterations=6),
    "gibbs": preset("gibbs").replace(n_factors=2, **SWEEPS),
    "exact-head, then gibbs": preset("guide").replace(
        n_factors=2, max_iterations=5, plain_iterations=2, then=Gibbs(), **SWEEPS
    ),
    "cross-feedback, then gibbs": preset("amortized").replace(
        n_factors=2, item_batch_size=6, then=Gibbs(), **SVI, **SWEEPS
    ),
    "coordinate-ascent, then gibbs": preset("conjugate").replace(
        n_factors=2, max_iterations=6, then=Gibbs(), **SWEEPS
    ),
}
#: Another value of every setting, than any of those above has.
OTHER: dict[str, Any] = {
    # the model
    **{"n_factors": 3, "biases": False, "centred": False, "prior_scale": 0.7, "bias_scale": 0.9},
    **{"prior_mean": 0.2, "noise": 0.6, "prior": "normal:scale=2", "likelihood": "ordered-probit"},
    **{"implicit": True, "row_noise": "user", "standardised": False},
    # the encoders
    **{"n_tower_layers": 1, "n_head_layers": 1, "n_units": 5, "n_tower_outputs": 4, "attention": "softmax"},
    **{"attention_scope": "global", "attention_merge": "add", "data_input": False, "feedback": False},
    **{"count_input": False, "held_out_input": True, "input_dropout": 0.1, "input_power": 0.3},
    **{"initial_scale": 0.2, "residual": True, "covariance": "low-rank", "covariance_rank": 1},
    **{"bayesian_input": True, "input_prior_scale": 0.5, "n_bases": 2, "latent_input": "average"},
    # the fit
    **{"user_batch_size": 4, "item_batch_size": 4, "kl_counting": "per_block"},
    **{"shuffle_blocks": False, "beta_user": 0.5, "beta_item": 0.5, "warmup_iterations": 1, "elbo": "trace"},
    **{"num_particles": 2, "learning_rate": 0.01, "final_learning_rate": 1e-5, "weight_decay": 0.5},
    **{"clip_norm": 0.1, "max_iterations": 4, "stop_after": 2, "patience": 1, "keep": "last"},
    **{"ema_decay": 0.5, "ema_start": 0.1, "seed": 3, "iteration_order": "sequential"},
    **{"composite_prior": 0.4},
    # coordinate ascent
    **{"point": True},
    # the exact head
    **{"weight_steps": 3, "plain_iterations": 1},
    # the sweeps
    **{"sweeps": 14, "burn_in": 8, "kept_draws": 2, "plain_sweeps": 4, "solver_tolerance": 1e-6},
    **{"start_scale": 0.3, "scale_moves": True, "overrelaxation": 0.3, "chains": 2},
}
#: What must stand beside a setting for its value to matter, where the methods above have it not.
BESIDE: dict[str, dict[str, Any]] = {
    "n_units": {"n_tower_layers": 1},
    "covariance_rank": {"covariance": "low-rank"},
    "input_prior_scale": {"bayesian_input": True},
    "prior_mean": {"centred": False},
    "scale_moves": {"likelihood": "ordered-probit"},
    "solver_tolerance": {"implicit": True},
    "overrelaxation": {"sweeps": 20},  # the first sweeps draw rows anew
    "patience": {"learning_rate": 0.05, "max_iterations": 8},
    "keep": {"learning_rate": 0.03, "max_iterations": 8},
    "attention_merge": {"attention": "softmax"},
    "ema_decay": {"keep": "last"},
    "ema_start": {"keep": "last"},
}


@cache
def ratings() -> Split:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((14, 11)) < 0.7)
    values = 3.3 + (rng.normal(0, 0.8, (14, 2)) @ rng.normal(0, 0.8, (2, 11)))[users, items]
    values = np.clip(np.round(values), 1, 5)
    return random_split(ratings_from_arrays(users, items, values, scale=RatingScale(1, 5, 1)))


_DONE: dict[str, str] = {}


def bits(settings: Settings) -> str:
    """Return a digest of a fit: all tensors of the posterior, and the number of iterations."""
    key = repr(settings)
    if key in _DONE:
        return _DONE[key]
    result = fit(ratings(), settings, threads=1, progress=False, device="cpu")
    posterior, digest = result.posterior, hashlib.sha256()
    tensors = [*posterior.model.state_dict().values(), *posterior.guide.state_dict().values()]
    for rows in (posterior.user_rows, posterior.item_rows):
        tensors += [value for value in vars(rows).values() if isinstance(value, torch.Tensor)]
    for tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    digest.update(str(len(result.history)).encode())
    _DONE[key] = digest.hexdigest()
    return _DONE[key]


def unasked(settings: Settings, **changes: Any) -> Settings:
    """Return the settings with changes that nobody asked for: what is not read is then not refused."""
    changed = settings.replace(**changes)
    return replace(changed, given=settings.given, unasked=changed.values())


def case(settings: Settings) -> Case:
    return Case.of(settings, levels=ratings().ratings.scale.levels)


def other(settings: Settings, name: str) -> Any:
    """Return a value that the settings do not have."""
    now, value = settings.values()[name], OTHER[name]
    if name == "likelihood" and now == "auto":
        return "normal"  # auto is the ordered probit here
    return value if value != now else not value


def refusal(settings: Settings) -> str:
    with pytest.raises(SettingsError) as error:
        fit(ratings(), settings, threads=1, progress=False, device="cpu")
    return str(error.value)


CLASSES = (ModelSettings, EncoderSettings, CrossFeedback, ExactHead, CoordinateAscent, Gibbs, Settings)
FIELDS = [(kind.__name__, one.name) for kind in CLASSES for one in settings_of(kind)]


def test_every_field_of_every_class_has_another_value_here() -> None:
    assert set(OTHER) == {name for _, name in FIELDS}
    # What is no setting holds other settings, or says of them where they come from.
    others = {
        (kind.__name__, one.name)
        for kind in CLASSES
        for one in fields(kind)
        if (kind.__name__, one.name) not in FIELDS
    }
    assert others == {
        ("ModelSettings", "in_rating_units"),
        ("CrossFeedback", "encoder"),
        *((kind.__name__, "unasked") for kind in CLASSES),
        *(("Settings", name) for name in ("model", "method", "then", "name", "given", "recorded")),
    }


def beside(start: Settings, name: str) -> Settings:
    """Return the settings with what must stand beside a setting, as far as the method reads it."""
    for one, value in BESIDE.get(name, {}).items():
        try:
            wanted = start.replace(**{one: value})
        except SettingsError:
            continue
        start = wanted if case(wanted).reads(one) else start
    return start


@pytest.mark.parametrize("name", sorted(OTHER))
@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[pytest.mark.slow] * ("then" in name)) for name in METHODS],
)
def test_a_setting_is_read_or_refused_by_its_name(method: str, name: str) -> None:
    start = beside(METHODS[method], name)
    if name not in start.values():
        with pytest.raises(SettingsError, match=f"{name}=.*: read by .* alone; choose with"):
            start.replace(**{name: OTHER[name]})
        return
    try:
        changed = start.replace(**{name: other(start, name)})
        read = case(changed).reads(name)
        new = bits(changed) if read else None
    except SettingsError as error:
        if name not in str(error):
            raise
        return
    if read:
        assert new != bits(start)
        return
    assert f"{name}=" in refusal(changed)
    # And rightly so: in force without being asked for, it changes nothing.
    if name != "prior_mean":  # which the sweeps' and the ascent's models refuse in any case
        assert bits(unasked(start, **{name: other(start, name)})) == bits(start)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        *(
            ("cross-feedback", name)
            for name in ("n_units", "covariance_rank", "input_prior_scale", "prior_mean")
        ),
        *(("gibbs", name) for name in ("scale_moves", "solver_tolerance")),
    ],
)
def test_a_setting_whose_condition_fails_is_refused_with_the_condition(method: str, name: str) -> None:
    start = METHODS[method]
    value = other(start, name)
    if method == "gibbs":
        start = start.replace(implicit=False, likelihood="normal")
    if name == "prior_mean":
        value = "ratings"  # about a centre it is zero
    (beside,) = BESIDE[name]
    told = refusal(start.replace(**{name: value}))
    assert f"{name}={value!r}: read only where" in told
    assert beside in told or name == "prior_mean"
    assert bits(unasked(start, **{name: value})) == bits(start)


@pytest.mark.parametrize("method", METHODS)
def test_the_condition_of_a_noise_names_the_methods_that_read_it(method: str) -> None:
    """Of an ordered probit they are the first stages that do not find its noise themselves."""
    settings = METHODS[method].replace(likelihood="ordered-probit")
    (noise,) = (one for one in settings_of(ModelSettings) if one.name == "noise")
    assert case(settings).reads("noise") == (settings.method.word in noise.about.when.text)


def test_numbers_of_the_model_are_in_the_unit_that_is_said() -> None:
    model = ModelSettings(n_factors=2, likelihood="normal", bias_scale=0.9)
    settings = Settings(model, METHODS["coordinate-ascent"].method)
    in_ratings = replace(settings, model=replace(model, in_rating_units=("bias_scale",)))
    assert bits(in_ratings) != bits(settings)
    with pytest.raises(SettingsError, match="'in_rating_units' is not a setting"):
        settings.replace(in_rating_units=("noise",))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda: preset().replace(sweeps="12"), "sweeps is '12': give a whole number of 1 or more"),
        (lambda: preset("amortized").replace(max_iterations="9"), "max_iterations is '9'"),
        (lambda: preset("amortized").replace(learning_rate="x"), "learning_rate is 'x'"),
        (lambda: preset().replace(prior=3), "prior is 3: give a word"),
        (lambda: preset().replace(model=3), r"model is 3: give ModelSettings\(...\)"),
        (lambda: CrossFeedback(3), r"encoder is 3: give EncoderSettings\(...\)"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(asked: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        asked()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("ml100k",), "'ml100k': give a Split, as from random_split"),
        (("split", "default"), "'default': give Settings, as from preset"),
        (("split", None, 3), "3: give a FactorizationModel"),
    ],
)
def test_an_argument_of_another_class_is_refused_with_what_to_give(
    arguments: tuple[Any, ...], told: str
) -> None:
    values = [ratings() if one == "split" else one for one in arguments]
    with pytest.raises(SettingsError, match=told):
        fit(*values[:2], model=values[2] if len(values) > 2 else None, progress=False)
