"""What became of claims: by the paper's printed tables, and by the figures that were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.ledger.printed_cells import BASELINE_ROWS as BASELINES
from pyro_bmf.experiments.ledger.printed_cells import METRICS, OURS
from pyro_bmf.experiments.ledger.runs import Runs, title_of
from pyro_bmf.experiments.papers.judging import FAILS, HOLDS, OPEN, interval, judge, paired
from pyro_bmf.experiments.printed import MODELS, SETS, TABLE3, TABLE4
from pyro_bmf.experiments.scoring import USERS

USER_SIDE = ("u-rec", "dae-cf", "vae-cf")
AUTOENCODERS = ("u-rec", "i-rec", "dae-cf", "vae-cf")
#: Level of the paper's tests.
_ALPHA = 0.1
PRINTED, NOT_RUN = "printed tables", "not run"
#: Protocols under which ranking is judged, with the users who count.
_WAYS = (("full", USERS[0]), ("rated-precision", USERS[1]))


@dataclass(frozen=True)
class Outcome:
    """What became of a claim on a set, or in the paper's own printed tables.

    Attributes
    ----------
    where : str
    verdict : str
    told : str
        Differences, with intervals, or why it cannot be judged.
    """

    where: str
    verdict: str
    told: str


# ---------------------------------------------------------------- from Table 3


def _printed(holds: bool, told: str) -> Outcome:
    return Outcome(PRINTED, HOLDS if holds else FAILS, told)


def _measured_sets(runs: Runs) -> list[str]:
    return [] if "table3" not in runs.tables else [one for one in runs.sets("table3") if _any(runs, one)]


def _any(runs: Runs, data: str) -> bool:
    return any(_values(runs, data, model, "RMSE") for model in (*BASELINES, *OURS))


def _values(runs: Runs, data: str, model: str, metric: str, way: int = 0) -> tuple[float, ...]:
    protocol, users = ("", "") if metric in ("RMSE", "seconds") else _WAYS[way]
    return runs.figure("table3", metric, protocol=protocol, users=users, set=data, model=model).values


def _judged(data: str, key: str, differences: Sequence[float], told: str = "", missing: str = "") -> Outcome:
    found = judge(DataSet(data, title_of(data), data), key, "", differences, told=told, missing=missing)
    return Outcome(found.title, found.verdict, found.told)


def _unmeasured(known: Mapping[str, object]) -> str:
    left = [one for one in BASELINES if one not in known]
    return f"without {', '.join(left)}, not measured" if left else ""


def _closest(
    own: Sequence[float], others: Mapping[str, Sequence[float]], sign: float
) -> tuple[str, list[float]]:
    """Return whoever is nearest to a row, or furthest ahead of it, and by how much the row is better.

    Whoever was not measured on all of the row's seeds is left out; by nothing where that is everybody.
    """
    gaps = {
        name: [sign * gap for gap in differences]
        for name, values in others.items()
        if (differences := paired(values, own))
    }
    if not gaps:
        return ", ".join(others), []
    name = min(gaps, key=lambda one: float(np.mean(gaps[one])))
    return name, gaps[name]


def lowest_rmse(runs: Runs) -> Iterator[Outcome]:
    """Judge that ours has a lower RMSE than all six."""
    table = TABLE3["RMSE"]
    yield _printed(
        all(table["ours"][at] < min(table[one][at] for one in BASELINES) for at in range(len(SETS))),
        f"on all {len(SETS)} sets",
    )
    for data in _measured_sets(runs):
        others = {one: values for one in BASELINES if (values := _values(runs, data, one, "RMSE"))}
        for ours in OURS:
            own = _values(runs, data, ours, "RMSE")
            if not own or not others:
                continue
            name, gap = _closest(own, others, 1.0)
            told = "; ".join(filter(None, (f"{ours} against {name}", _unmeasured(others))))
            yield _judged(data, "lowest-rmse", gap, told)


def margins(runs: Runs) -> Iterator[Outcome]:
    """Judge by how much: what is printed on all sets, and 0.017 on ML-1M."""
    table = TABLE3["RMSE"]
    found = {
        title: round(min(table[one][at] for one in BASELINES) - table["ours"][at], 3)
        for at, title in enumerate(SETS)
    }
    told = ", ".join(f"{title} {gap:.3f}" for title, gap in found.items())
    least, most = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    right = (least, found[least], most, found[most]) == ("ML-1M", 0.017, "Amazon-Kindle", 0.032)
    yield _printed(right, told)
    others = {one: v for one in BASELINES if (v := _values(runs, "ml1m", one, "RMSE"))}
    for ours in OURS:
        own = _values(runs, "ml1m", ours, "RMSE")
        if own and others:
            name, gap = _closest(own, others, 1.0)
            told = "; ".join(filter(None, (f"{ours} against {name}, less 0.017", _unmeasured(others))))
            yield _judged("ml1m", "margin", [one - 0.017 + 0.0005 for one in gap], told)


def second(runs: Runs) -> Iterator[Outcome]:
    """Judge which of the six has the lowest RMSE."""
    table = TABLE3["RMSE"]
    best = {title: min(BASELINES, key=lambda one: table[one][at]) for at, title in enumerate(SETS)}
    yield _printed(
        all(name == ("ncf" if title.startswith("Amazon") else "i-rec") for title, name in best.items()),
        ", ".join(f"{title} {name}" for title, name in best.items()),
    )
    for data in _measured_sets(runs):
        wanted = "ncf" if data.startswith("amazon") else "i-rec"
        others = {one: values for one in BASELINES if (values := _values(runs, data, one, "RMSE"))}
        own = others.pop(wanted, ())
        if own and others:
            name, gap = _closest(own, others, 1.0)
            yield _judged(
                data,
                "second",
                gap,
                "; ".join(filter(None, (f"{wanted} against {name}", _unmeasured({**others, wanted: own})))),
            )


def sparse_autoencoders(runs: Runs) -> Iterator[Outcome]:
    """Judge that the autoencoders of rows and columns are above NCF on the sparse sets."""
    table = TABLE3["RMSE"]
    worse = all(
        table[one][at] > table["ncf"][at] for one in ("i-rec", "u-rec") for at in range(len(SETS)) if at > 2
    )
    yield _printed(worse, "I-Rec and U-Rec are above NCF on both Amazon sets")
    for data in _measured_sets(runs):
        if data.startswith("amazon"):
            gaps = paired(_values(runs, data, "i-rec", "RMSE"), _values(runs, data, "ncf", "RMSE"))
            if gaps:
                yield _judged(data, "sparse", gaps, "I-Rec less NCF")


def _printed_ranks(metric: str, models: Sequence[str]) -> dict[str, float]:
    """Return mean ranks of models over the paper's sets, ties shared; 1 is the best."""
    sign = 1.0 if metric == "RMSE" else -1.0
    ranks = stats.rankdata([[sign * value for value in TABLE3[metric][one]] for one in models], axis=0)
    return {one: float(rank) for one, rank in zip(models, ranks.mean(1), strict=True)}


def _top_four(metric: str) -> list[str]:
    """Return the four models of the best mean rank; VAE-CF before an equal one, as in the paper."""
    overall = _printed_ranks(metric, MODELS)
    return sorted(MODELS, key=lambda one: (round(overall[one], 6), one != "vae-cf"))[:4]


def _nemenyi(metric: str) -> dict[str, float]:
    """Return Nemenyi's p of our row against each other of the top four (Demsar 2006)."""
    models = _top_four(metric)
    ranks, k = _printed_ranks(metric, models), len(models)
    unit = np.sqrt(k * (k + 1) / (6.0 * len(SETS)))
    return {
        one: float(
            stats.studentized_range.sf(np.sqrt(2.0) * abs(ranks[one] - ranks["ours"]) / unit, k, np.inf)
        )
        for one in models
        if one != "ours"
    }


def mean_ranks(runs: Runs) -> Iterator[Outcome]:
    """Judge the mean ranks that the text gives, from the printed table."""
    ranks = _printed_ranks("RMSE", _top_four("RMSE"))
    told = ", ".join(f"{name} {rank:.1f}" for name, rank in sorted(ranks.items(), key=lambda one: one[1]))
    right = [round(ranks.get(name, 0.0), 2) for name in ("ours", "ncf", "i-rec")] == [1.0, 2.58, 2.79]
    yield _printed(right, f"{told}; a mean over five sets is a multiple of 0.1")
    if _measured_sets(runs):
        known = [title_of(one) for one in _measured_sets(runs) if title_of(one) in SETS]
        yield Outcome(
            "ours", OPEN, f"ranks need several sets, and of the five {', '.join(known) or 'none'} is run"
        )


def _apart(runs: Runs, data: str, metric: str, name: str) -> Outcome | None:
    """Judge whether ``paper`` and another differ on a set: by users where pairs are there, else by seeds."""
    for one in runs.paired():
        found = one["set"], one["metric"].lower(), {one["a"], one["b"]}
        if found == (data, metric.lower(), {"paper", name}):
            ends, mean = (one["low"], one["high"]), one["difference"]
            return _two_sided(data, f"{one['a']} less {one['b']}", mean, ends, "by users")
    gaps = paired(_values(runs, data, "paper", metric), _values(runs, data, name, metric))
    between = interval(gaps) if gaps else None
    if between is None:
        return None
    return _two_sided(data, f"paper less {name}", float(np.mean(gaps)), between, "by seeds")


def _two_sided(data: str, what: str, mean: float, ends: tuple[float, float], how: str) -> Outcome:
    apart = ends[0] > 0.0 or ends[1] < 0.0
    told = f"{what}: {mean:+.4f} [{ends[0]:+.4f}, {ends[1]:+.4f}], {how}"
    return Outcome(title_of(data), HOLDS if apart else OPEN, told)


def differs(metric: str, names: Sequence[str]) -> Callable[[Runs], Iterator[Outcome]]:
    """Return what judges that ours differs from others, all where none is named."""

    def judged(runs: Runs) -> Iterator[Outcome]:
        found = _nemenyi(metric)
        told = ", ".join(f"{name} p = {p:.3f}" for name, p in found.items())
        yield _printed(all(found[one] < _ALPHA for one in names or found), f"Nemenyi, top four: {told}")
        for data in _measured_sets(runs):
            for name in names or found:
                outcome = _apart(runs, data, metric, name)
                if outcome is not None:
                    yield outcome

    return judged


def no_worse_ranking(runs: Runs) -> Iterator[Outcome]:
    """Judge that no ranking figure is below that of a baseline."""
    gaps = {
        f"{metric} on {title} {one}": round(TABLE3[metric]["ours"][at] - TABLE3[metric][one][at], 6)
        for metric in METRICS[1:]
        for at, title in enumerate(SETS)
        for one in BASELINES
    }
    below = [where for where, gap in gaps.items() if gap < 0.0]
    equal = [where for where, gap in gaps.items() if gap == 0.0]
    told = f"below in {', '.join(below) or 'none'}; equal in {', '.join(equal) or 'none'}"
    yield _printed(not below, told)
    for data in _measured_sets(runs):
        for ours in OURS:
            for way, (protocol, _) in enumerate(_WAYS):
                yield from _ranking_of(runs, data, ours, way, protocol)


def _ranking_of(runs: Runs, data: str, ours: str, way: int, protocol: str) -> Iterator[Outcome]:
    worst: tuple[float, str, list[float]] | None = None
    for metric in METRICS[1:]:
        own = _values(runs, data, ours, metric, way)
        for one in BASELINES:
            gap = paired(own, _values(runs, data, one, metric, way))
            if gap and (worst is None or float(np.mean(gap)) < worst[0]):
                worst = float(np.mean(gap)), f"{ours}, {protocol}: {metric} against {one}", gap
    if worst is not None:
        yield _judged(data, "ranking", worst[2], worst[1])


def i_rec_last(runs: Runs) -> Iterator[Outcome]:
    """Judge that I-Rec ranks worst of the six."""
    last = [
        (metric, title)
        for metric in METRICS[1:]
        for at, title in enumerate(SETS)
        if min(BASELINES, key=lambda one: TABLE3[metric][one][at]) != "i-rec"
    ]
    yield _printed(not last, "lowest in every ranking figure" if not last else f"not in {last}")
    for data in _measured_sets(runs):
        for way, (protocol, _) in enumerate(_WAYS):
            others = {
                one: values
                for one in BASELINES
                if one != "i-rec" and (values := _values(runs, data, one, "NDCG@20", way))
            }
            own = _values(runs, data, "i-rec", "NDCG@20", way)
            if own and others:
                name, gap = _closest(own, others, 1.0)
                yield _judged(
                    data, "i-rec-last", gap, f"NDCG@20, {protocol}: {name}, the lowest other, less I-Rec"
                )


def user_side(runs: Runs) -> Iterator[Outcome]:
    """Judge that the users' autoencoders stand higher among the six in ranking than in RMSE."""
    rmse, ndcg = (_printed_ranks(metric, BASELINES) for metric in ("RMSE", "NDCG@20"))
    told = ", ".join(f"{one} {rmse[one]:.1f} to {ndcg[one]:.1f}" for one in USER_SIDE)
    yield _printed(all(ndcg[one] < rmse[one] for one in USER_SIDE), f"mean ranks: {told}")
    for data in _measured_sets(runs):
        known = [one for one in BASELINES if _values(runs, data, one, "RMSE")]
        if not set(USER_SIDE) <= set(known) or len(known) < len(BASELINES):
            continue
        for way, (protocol, _) in enumerate(_WAYS):
            by = {
                metric: sorted(
                    known, key=lambda one: sign * float(np.mean(_values(runs, data, one, metric, way)))
                )
                for metric, sign in (("RMSE", 1.0), ("NDCG@20", -1.0))
            }
            moved = {one: (by["RMSE"].index(one) + 1, by["NDCG@20"].index(one) + 1) for one in USER_SIDE}
            told = ", ".join(f"{one} {a} to {b}" for one, (a, b) in moved.items())
            word = HOLDS if all(b < a for a, b in moved.values()) else FAILS
            yield Outcome(title_of(data), word, f"places by means, {protocol}: {told}")


def times(models: Sequence[str], least: float, most: float) -> Callable[[Runs], Iterator[Outcome]]:
    """Return what judges that a fit takes `least` to `most` times as long as those of some models."""

    def judged(runs: Runs) -> Iterator[Outcome]:
        for data in _measured_sets(runs):
            own = _values(runs, data, "paper", "seconds")
            others = {one: values for one in models if (values := _values(runs, data, one, "seconds"))}
            if not own or not others:
                continue
            ratios = {one: float(np.mean(own) / np.mean(values)) for one, values in others.items()}
            told = ", ".join(f"{ratio:.1f} times {one}" for one, ratio in ratios.items())
            typical = float(np.exp(np.mean(np.log(list(ratios.values())))))
            word = HOLDS if least <= typical <= most else FAILS
            yield Outcome(title_of(data), word, f"paper takes {told}; {typical:.1f} in the geometric mean")

    return judged


# ---------------------------------------------------------------- from Table 4, as printed


def parts_printed(runs: Runs) -> Iterator[Outcome]:
    """Judge that every part is worth something, in the printed table."""
    del runs
    gains = {
        f"{part} in {metric} on {title}": sign * (figures[at] - TABLE4[metric]["full"][at])
        for metric in METRICS
        for sign in ((1.0,) if metric == "RMSE" else (-1.0,))
        for part, figures in TABLE4[metric].items()
        if part != "full"
        for at, title in enumerate(SETS)
    }
    without = [where for where, gain in gains.items() if round(gain, 6) <= 0.0]
    told = f"every part is worth something in {len(gains) - len(without)} of {len(gains)} cells"
    yield _printed(not without, f"{told}; none: {', '.join(without)}" if without else told)


def attention_surpasses(runs: Runs) -> Iterator[Outcome]:
    """Judge that attention brings the model above baselines that it is not above without."""
    needed = []
    for metric in METRICS:
        for at, title in enumerate(SETS):
            full, without = (TABLE4[metric][part][at] for part in ("full", "no-attention"))
            if _beaten(metric, at, full) > _beaten(metric, at, without):
                needed.append(f"{metric} on {title}")
    yield _printed(bool(needed), f"in {len(needed)} of {len(METRICS) * len(SETS)} cells: {', '.join(needed)}")
    for data in _measured_sets(runs):
        own, bare = (
            runs.figure("table4", "RMSE", part=part, set=data, base="paper", tuned=True).values
            for part in ("full", "no-attention")
        )
        if own and bare:
            means = {one: float(np.mean(v)) for one in BASELINES if (v := _values(runs, data, one, "RMSE"))}
            least, most = float(np.mean(own)), float(np.mean(bare))
            won = [one for one, mean in means.items() if least < mean <= most]
            told = f"RMSE {least:.4f}, without {most:.4f}; between them {', '.join(won) or 'none'}"
            yield Outcome(title_of(data), HOLDS if won else FAILS, told)


def _beaten(metric: str, at: int, figure: float) -> int:
    sign = 1.0 if metric == "RMSE" else -1.0
    return sum(sign * figure < sign * TABLE3[metric][one][at] for one in BASELINES)
