"""Whether what the paper says of Table 3 holds for what was run: each claim with its differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.reports import mean_and_se, with_se
from pyro_bmf.experiments.scoring import USERS

BASELINES = ("ncf", "cnn-cf", "u-rec", "i-rec", "dae-cf", "vae-cf")
_RANKING = ("NDCG@20", "NDCG@50", "Recall@20", "Recall@50")


class Measured(Protocol):
    """A row with the values of its seeds."""

    @property
    def name(self) -> str:
        """Of the model."""

    def values(self, metric: str, protocol: str, users: str) -> list[float]:
        """Return a metric of every seed; empty where it was not measured."""


def verdicts(
    by_set: Sequence[tuple[DataSet, Sequence[Measured]]], ours: Sequence[str]
) -> list[dict[str, str]]:
    """Return a line a claim, set and row of ours: does it hold, and by how much.

    Differences are paired by seed: a negative one in RMSE, and a positive one in ranking, is in our favour.
    """
    lines = []
    for data, rows in by_set:
        if data.missing is not None:
            continue
        known = {one.name: one for one in rows}
        for name in ours:
            if name not in known:
                continue
            lines.append(_below_all(data, known, name))
            lines += [_ranks(data, known, name, protocol, users) for protocol, users in _WAYS]
        lines.append(_best_of_six(data, known))
    return lines


_WAYS = (("full", USERS[0]), ("rated-precision", USERS[1]))


def _below_all(data: DataSet, known: dict[str, Measured], name: str) -> dict[str, str]:
    claim = f"{name} has a lower RMSE than all six"
    own = known[name].values("RMSE", *_WAYS[0])
    others = _others(known, "RMSE", *_WAYS[0])
    if not own or not others:
        return _line(data, claim, "cannot be judged", _unmeasured(known, [name, *BASELINES], "RMSE"))
    gaps = {
        one: mean_and_se([a - b for a, b in zip(own, values, strict=True)]) for one, values in others.items()
    }
    worst = max(gaps, key=lambda one: gaps[one][0])
    told = f"against {worst}: {_signed(*gaps[worst])}"
    lost = sorted(one for one, (gap, _) in gaps.items() if gap >= 0)
    missing = _unmeasured(known, list(BASELINES), "RMSE")
    if lost:
        return _line(data, claim, "does not hold", f"not below {', '.join(lost)}; {told}")
    if missing:
        return _line(data, claim, "holds for those measured", f"{told}; {missing}")
    return _line(data, claim, "holds", told)


def _best_of_six(data: DataSet, known: dict[str, Measured]) -> dict[str, str]:
    amazon = data.name.startswith("amazon")
    best = "ncf" if amazon else "i-rec"
    where = "its Amazon sets" if amazon else "MovieLens"
    claim = f"{best} has the lowest RMSE of the six (the paper: on {where})"
    others = _others(known, "RMSE", *_WAYS[0])
    own = others.pop(best, None)
    if own is None or not others:
        return _line(data, claim, "cannot be judged", _unmeasured(known, list(BASELINES), "RMSE"))
    gaps = {
        one: mean_and_se([a - b for a, b in zip(own, values, strict=True)]) for one, values in others.items()
    }
    worst = max(gaps, key=lambda one: gaps[one][0])
    place = 1 + sum(gap >= 0 for gap, _ in gaps.values())
    missing = _unmeasured(known, list(BASELINES), "RMSE")
    word = "holds" if place == 1 else f"does not hold: place {place} of {len(gaps) + 1}"
    return _line(
        data, claim, word, f"against {worst}: {_signed(*gaps[worst])}" + (f"; {missing}" if missing else "")
    )


def _ranks(data: DataSet, known: dict[str, Measured], name: str, protocol: str, users: str) -> dict[str, str]:
    claim = f"{name} is no worse in ranking ({protocol}, {users})"
    lost, measured = [], 0
    for metric in _RANKING:
        own = known[name].values(metric, protocol, users)
        if not own:
            continue
        for one, values in _others(known, metric, protocol, users).items():
            measured += 1
            gap, se = mean_and_se([a - b for a, b in zip(own, values, strict=True)])
            if gap < 0:
                lost.append(f"{metric} of {one} ({_signed(gap, se)})")
    if not measured:
        return _line(data, claim, "cannot be judged", _unmeasured(known, [name, *BASELINES], "RMSE"))
    if lost:
        return _line(data, claim, f"does not hold in {len(lost)} of {measured}", "below " + ", ".join(lost))
    missing = _unmeasured(known, list(BASELINES), "RMSE")
    return _line(data, claim, "holds for those measured" if missing else "holds", missing)


def _others(known: dict[str, Measured], metric: str, protocol: str, users: str) -> dict[str, list[float]]:
    found = {name: known[name].values(metric, protocol, users) for name in BASELINES if name in known}
    return {name: values for name, values in found.items() if values}


def _unmeasured(known: dict[str, Measured], names: list[str], metric: str) -> str:
    missing = [name for name in names if name not in known or not known[name].values(metric, *_WAYS[0])]
    return f"not measured: {', '.join(missing)}" if missing else ""


def _signed(value: float, se: float | None) -> str:
    return ("+" if value >= 0 else "") + with_se(value, se)


def _line(data: DataSet, claim: str, verdict: str, told: str) -> dict[str, str]:
    return {"set": data.title, "claim": claim, "verdict": verdict, "difference": told or "–"}
