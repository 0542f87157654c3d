"""Settings that follow others where they were not given themselves: `--sweeps 40` keeps fewer draws.

A preset's defaults go together; a change of one of them may leave another without sense. What the user gave
stays as it is: two given settings that contradict each other are refused where they are checked, in the
settings' own classes or here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..errors import SettingsError

Values = dict[str, Any]


def follow(values: Mapping[str, Any], given: Collection[str], *, sweeps: bool, ascent: bool) -> Values:
    """Return the settings that change with what was given, by name.

    Parameters
    ----------
    values : mapping
        All settings by name, the given ones among them.
    given : collection of str
        Names of those that the user gave.
    sweeps, ascent : bool
        Whether there are Gibbs sweeps, and whether the guide is fitted by coordinate ascent.

    Raises
    ------
    SettingsError
        If a given setting contradicts another that was given, or that does not follow it.
    """
    v = dict(values)
    rules: list[Callable[[], Values]] = [lambda: _model(v, sweeps=sweeps, ascent=ascent)]
    if "feedback" in v:
        rules += [lambda: _encoders(v), lambda: _growth(v, given)]
    if sweeps:
        rules.append(lambda: _chain(v, given))
    if "stop_after" in v:
        rules.append(lambda: _length(v))
    for rule in rules:
        v |= {name: value for name, value in rule().items() if name not in given}
    return {name: value for name, value in v.items() if value != values[name]}


def _encoders(v: Values) -> Values:
    """Without feedback there is nothing to attend to, and nothing to have bases of."""
    return {} if v["feedback"] else {"attention": "none", "n_bases": None}


def _chain(v: Values, given: Collection[str]) -> Values:
    """Fewer sweeps keep fewer draws after a shorter burn-in; more of these take more sweeps."""
    sweeps, burn_in, kept, plain = (v[name] for name in ("sweeps", "burn_in", "kept_draws", "plain_sweeps"))
    if "plain_sweeps" in given and "burn_in" not in given:
        burn_in = max(burn_in, plain)
    if "sweeps" not in given:
        sweeps = max(sweeps, burn_in + kept)
    elif burn_in + kept > sweeps:
        if "burn_in" not in given:
            least = plain if "plain_sweeps" in given else 0
            # A third, as in the preset; none at all, only where just so many draws are asked for.
            room = sweeps - kept if "kept_draws" in given else sweeps // 3
            burn_in = max(0, least, min(burn_in, room))
        if "kept_draws" not in given:
            kept = max(1, min(kept, sweeps - burn_in))
    if "plain_sweeps" not in given and plain > burn_in:
        plain = burn_in // 2
    return {"sweeps": sweeps, "burn_in": burn_in, "kept_draws": kept, "plain_sweeps": plain}


def _model(v: Values, *, sweeps: bool, ascent: bool) -> Values:
    """Take back what the preset's method knows of a model and the chosen one does not."""
    # Words need torch, and the command line reads these settings' declarations without it.
    from ..model.catalogue import PRIORS
    from ..model.spelling import parse_word

    found: Values = {}
    if not sweeps:
        found["implicit"] = False
        if ascent:
            found["row_noise"] = "none"
    if ascent or parse_word(v["prior"], PRIORS, "prior")[0] != "normal":
        found["prior_mean"] = 0.0
    return found


def _length(v: Values) -> Values:
    """Nothing stops after the end of a shorter schedule."""
    late = v["stop_after"] is not None and v["stop_after"] > v["max_iterations"]
    return {"stop_after": None} if late else {}


def _growth(v: Values, given: Collection[str]) -> Values:
    """Keep the form of a schedule of another length or height."""
    found: Values = {}
    if v["warmup_iterations"] > v["max_iterations"]:
        found["warmup_iterations"] = v["max_iterations"] // 2
    if v["final_learning_rate"] > v["learning_rate"] and "learning_rate" not in given:
        raise SettingsError(
            f"final_learning_rate is {v['final_learning_rate']:g} and learning_rate {v['learning_rate']:g}, "
            "which was not given: the rate would rise. Give learning_rate too, or a smaller final one."
        )
    if v["final_learning_rate"] > v["learning_rate"]:
        # A twentieth, as in the presets.
        found["final_learning_rate"] = v["learning_rate"] / 20
    return found
