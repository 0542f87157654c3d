"""Write measured figures and tables into README.md and docs/, from the files in which they were measured.

    python benchmarks/write_figures.py           # writes the pages that are out of date
    python benchmarks/write_figures.py --check   # says which are, and writes none

A page marks the place. A figure stands between two comments, with its name in the first (`FIGURES`)::

    test RMSE <!--=default ml1m rmse-->0.8275<!--/-->

A table stands between two as well, with blank lines around it (`TABLES`)::

    <!-- table: scaling -->

    <!-- end of table -->

Figures that no benchmark writes are in ``benchmarks/results/single_runs.json``, with the command of each.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURE = re.compile(r"<!--=(?P<name>[^>]+?)-->(?P<text>[^<]*)<!--/-->")
TABLE = re.compile(
    r"(?P<open><!-- table: (?P<name>[^>]+?) -->\n\n)(?P<text>.*?)(?P<close><!-- end of table -->)", re.S
)


@cache
def read(name: str) -> Any:
    """Read a file of results."""
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


def peer(data: str, system: str) -> dict[str, Any]:
    """Return a system's figures on a data set, means over seeds."""
    return read(f"peers/results/{data}.json")["systems"][system]["pooled"]


def paired(data: str, system: str) -> dict[str, Any]:
    """Return the differences between ours and a peer, pooled over seeds."""
    return read(f"peers/results/{data}.json")["paired"]["pyro-bmf"][system]["pooled"]


def simulated(name: str, kind: str) -> dict[str, Any] | None:
    """Return what a calibration by simulation found of a kind of quantity, where it ranked any."""
    entries = read(f"results/sbc_{name}.json")["summary"]
    return next((entry for entry in entries if entry["kind"] == kind), None)


def single(name: str) -> dict[str, Any]:
    """Return the figures of a run that no benchmark script writes."""
    return read("results/single_runs.json")[name]


def papers(figure: str) -> list[float]:
    """Return a figure of the preset `paper` on MovieLens 1M, by seed."""
    return [float(one[figure]) for one in single("paper ml1m")["seeds"].values()]


def papers_mean(figure: str) -> float:
    """Return its mean over seeds."""
    found = papers(figure)
    return sum(found) / len(found)


def papers_trials_table() -> str:
    """Return single fits of the preset `paper` with other towers, hidden shares and lengths."""
    rows = [
        [
            *(str(one["n_tower_outputs"]), f"{one['input_dropout']:g}", str(one["max_iterations"])),
            *(str(one["kept_iteration"]), f"{one['valid_rmse']:.4f}", str(one["seconds"])),
        ]
        for one in single("paper trials ml1m")["trials"]
    ]
    header = [
        "`--tower-outputs`",
        "`--set input_dropout=`",
        "`--iterations`",
        "best after",
        "validation RMSE",
    ]
    return table([*header, "seconds"], rows, 0)


def scaled(name: str) -> float:
    """Return a figure of the default with twenty million ratings."""
    return float(read("results/scaling.json")["2e+07 default 24 2"][name])


def first_fit() -> dict[str, Any]:
    """Return the figures of what `make fit` prints."""
    return read("results/first_fit.json")


def leaderboard(data: str, row: str) -> dict[str, Any]:
    """Return a row of a leaderboard."""
    return read(f"results/leaderboard_{data}.json")["rows"][row]


def encoders(data: str, figure: str) -> float:
    """Return a figure of the preset `amortized`, the mean over seeds 0, 1 and 2."""
    rows = [read(f"results/{data}.json")[f"full model, seed {seed}"] for seed in (0, 1, 2)]
    return fmean(row[figure] if figure in row else row["systems"][0][figure] for row in rows)


def interval(difference: dict[str, Any]) -> str:
    """Return a difference with its 95 % interval."""
    return "{difference:.4f} [{low:.4f}, {high:.4f}]".format(**difference)


def held(entry: dict[str, Any] | None) -> str:
    """Return the coverage of 90 % intervals with two standard errors."""
    return "no draws" if entry is None else f"{entry['coverage_90']:.3f} ± {2 * entry['coverage_90_se']:.3f}"


def seconds_to(data: str, system: str) -> str:
    """Return our seconds to a peer's final validation RMSE and its own, by seed."""
    report = read(f"peers/results/{data}.json")["seconds_to"]
    rows = [row for row in report if (row["ours"], row["peer"]) == ("pyro-bmf", system)]
    return ", ".join(f"{row['seconds']:.1f} of {row['peer_seconds']:.1f}" for row in rows)


def seeds_of(data: str, system: str, figure: str) -> str:
    """Return a figure of each seed."""
    seeds = read(f"peers/results/{data}.json")["systems"][system]["seeds"]
    *most, last = (f"{entry[figure]:.4f}" for entry in seeds.values())
    return f"{', '.join(most)} and {last}"


def behind(data: str, system: str, figure: str) -> str:
    """Return by what part of it a peer's figure is above ours."""
    ours, theirs = peer(data, "pyro-bmf")[figure], peer(data, system)[figure]
    return f"{100 * (theirs / ours - 1):.1f} %"


def deciles_covered(within: str) -> str:
    """Return in how many of our twenty deciles a seed 90 % intervals hold 0.90: the fewest to the most."""
    seeds = [
        one["coverage"]
        for data in ("ml1m", "ml100k")
        for one in read(f"peers/results/{data}.json")["systems"]["pyro-bmf"]["seeds"].values()
    ]
    counts = [sum(one[side][within] for side in ("user", "item")) for one in seeds]
    if all(sum(one[side]["groups"] for side in ("user", "item")) == min(counts) for one in seeds):
        return "all"
    return f"{min(counts)} to {max(counts)}"


def printed_test(what: str) -> list[float]:
    """Return figures of the tests on the paper's printed RMSE, of the first four models."""
    with (ROOT / "benchmarks/results/significance/significance.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["source"], row["metric"]) == ("printed", "RMSE")]
    first = [row for row in rows if row["models"] == rows[0]["models"]]
    return [float(row["value"]) for row in first if row["what"].startswith(what)]


#: Sweeps from the prior among the rows of `starts.py`, and what others are held against, with the heading.
_PRIOR = "c prior"
_AGAINST = {_PRIOR: "test RMSE less that of `c prior`", "d shuffled": "less that of `d shuffled`"}


def starts(name: str, figure: str, of: str = "starts_ml1m") -> list[float]:
    """Return a figure of a row of `starts.py` on MovieLens 1M, by seed."""
    rows = read(f"results/{of}.json")["rows"]
    return [found[figure] for key, found in sorted(rows.items()) if key.rpartition(" ")[0] == name]


def listed(values: list[str]) -> str:
    """Return words as a sentence lists them."""
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def starts_by_seed(name: str, of: str = "starts_ml1m") -> str:
    """Return the test RMSE of a row of `starts.py` for each seed, and which seeds there are."""
    rows = read(f"results/{of}.json")["rows"]
    seeds = sorted(key.rpartition(" ")[2] for key in rows if key.rpartition(" ")[0] == name)

    told = listed([f"{value:.4f}" for value in starts(name, "rmse", of)])
    return f"{told} (seed{'s' if len(seeds) > 1 else ''} {listed(seeds)})"


def starts_mean(name: str, figure: str, of: str = "starts_ml1m") -> float:
    """Return the mean over seeds of a figure of a row of `starts.py`."""
    found = starts(name, figure, of)
    return sum(found) / len(found)


def default_mean(figure: str) -> float:
    """Return the mean over seeds of a figure of the default as it ships, on MovieLens 1M."""
    return starts_mean("b default", figure, "default_ml1m")


def starts_table() -> str:
    """Return guides and sweeps of about equal time, and their differences in pairs."""
    content = read("results/starts_ml1m.json")
    names = list(dict.fromkeys(key.rpartition(" ")[0] for key in content["rows"]))
    by_name = {name: [key[-1] for key in sorted(content["rows"]) if key[:-2] == name] for name in names}
    rows = [
        [
            *(f"`{name}`", " ".join(by_name[name])),
            *(f"{starts_mean(name, figure):.4f}" for figure in ("valid_rmse", "rmse", "nll", "rps")),
            f"{starts_mean(name, 'pit_coverage_90'):.3f}",
            f"{starts_mean(name, 'seconds'):.0f}",
            *(
                "" if pair is None else f"{pair['mean']:+.5f} ({pair['low']:+.5f} to {pair['high']:+.5f})"
                for pair in (content["paired"].get(f"{name} less {other}") for other in _AGAINST)
            ),
        ]
        for name in sorted(names)
    ]
    header = ["row", "seeds", "validation RMSE", "test RMSE", "NLL", "RPS", "90 % by PIT", "seconds"]
    return table([*header, *_AGAINST.values()], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """Return a Markdown table; columns from `numbers_from` on are set to the right."""
    rule = ["---" if n < numbers_from else "---:" for n in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def peers_table(data: str) -> str:
    """Return all systems on a data set, best RMSE first."""
    report = read(f"peers/results/{data}.json")
    rows = []
    for name, entry in sorted(report["systems"].items(), key=lambda pair: pair[1]["pooled"]["rmse"]):
        own = entry["pooled"]
        star = "" if own["own_distribution"] else " *"
        ours = report["paired"]["pyro-bmf"].get(name, {}).get("pooled")
        rows.append(
            [
                *(name, " ".join(map(str, own["seeds"])), f"{own['rmse']:.4f}"),
                *(f"{own['nll']:.4f}{star}", f"{own['rps']:.4f}{star}"),
                f"{own['coverage']['all']['coverage'][0]:.3f}",
                *(f"{own['fit_seconds']:.1f}", f"{own['peak_memory_gb']:.2f}"),
                *(["–", "–"] if ours is None else [interval(ours["rmse"]), interval(ours["nll"])]),
            ]
        )
    header = ["system", "seeds", "RMSE", "NLL", "RPS", "coverage of 90 %", "fit, s", "memory, GB"]
    return table([*header, "our RMSE less its", "our NLL less its"], rows, 2)


def leaderboard_table(data: str) -> str:
    """Return priors and likelihoods side by side, best ELPD first."""
    rows = sorted(read(f"results/leaderboard_{data}.json")["rows"].values(), key=lambda row: -row["elpd"])
    cells = [
        [
            *(row["preset"] + (" (tempered)" if row["tempered"] else ""), row["prior"], row["likelihood"]),
            *(f"{row['elpd']:.0f}", f"{row['elpd'] - rows[0]['elpd']:.0f}", f"{row['nll']:.4f}"),
            *(f"{row['rps']:.4f}", f"{row['rmse']:.4f}", f"{row['pit_coverage_90']:.3f}"),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    header = ["preset", "prior", "likelihood", "ELPD", "less the best", "NLL", "RPS", "RMSE"]
    return table([*header, "coverage of 90 %", "s"], cells, 3)


def paper_tuned(what: str) -> str:
    """Return what tuning `paper` on ML-1M, which Table 3 does not take up, came to, or what it takes up."""
    folder = ROOT / "benchmarks" / "results" / "table3" / "cells"

    def results(pattern: str) -> list[dict[str, Any]]:
        paths = sorted(folder.glob(pattern))
        return [json.loads(path.read_text(encoding="utf-8"))["result"] for path in paths]

    (study,) = results("tuning-paper-ml1m-*")
    tuned = what != "taken"
    finals = [one for one in results("final-paper-ml1m-*") if (one["iterations"] == 30) == tuned]
    if what == "valid":
        return f"{study['value']:.4f}"
    rmse = [one["figures"]["rmse"] for one in finals]
    return f"{statistics.mean(rmse):.4f} ± {statistics.stdev(rmse) / len(rmse) ** 0.5:.4f}"


def loo_ranking_table(name: str) -> str:
    """Return what held-out ratings and PSIS-LOO say of models, best held-out first."""
    found = read(f"results/{name}.json")["rows"]
    rows = [
        [
            *(f"`{name}`", f"{row['held_out']:.4f}", f"{row['left_out']:.4f}"),
            *(f"{100 * row['share_high_k']:.1f} %", str(row["n_draws"]), f"{row['efficiency']:.2f}"),
            *("integrated out" if row["integrated"] else "as drawn", f"{row['loo_seconds']:.0f}"),
        ]
        for name, row in sorted(found.items(), key=lambda item: -item[1]["held_out"])
    ]
    header = ["preset / prior / likelihood", "held out", "left out", "bad k-hats", "draws", "efficiency"]
    return table([*header, "rows", "s"], rows)


def loo_pairs(name: str) -> str:
    """Return in how many pairs PSIS-LOO ranks as held-out ratings do, in words."""
    content = read(f"results/{name}.json")
    pairs, rows = content["pairs"], content["rows"]

    def counted(chosen: list[dict[str, Any]]) -> str:
        return f"{sum(pair['agree'] for pair in chosen)} of {len(chosen)}"

    chains = [pair for pair in pairs if all(rows[name]["integrated"] for name in pair["rows"])]
    one = [pair for pair in pairs if pair not in chains and any(rows[n]["integrated"] for n in pair["rows"])]
    guides = [pair for pair in pairs if pair not in chains and pair not in one]
    wrong = [pair for pair in guides if not pair["agree"] and all(pair["clear"])]
    return (
        f"those of two chains are in the same order both ways in {counted(chains)}, those of a chain and a "
        f"guide in {counted(one)}, those of two guides in {counted(guides)}, with {len(wrong)} clearly the "
        "wrong way round"
    )


def simulation_table() -> str:
    """Return calibration by simulation of each configuration."""
    configurations = {
        "default_priors": "the guide, then eight chains of 150 sweeps",
        "default": "the guide, then one chain of 520 sweeps, priors of before",
        "default_ml1m": "eight chains of 200 sweeps, 600 × 400 rows of MovieLens 1M",
        "default_from": "eight chains of 200 sweeps, about the posterior of 1,500 generated stars",
        "gibbs": "Gibbs sweeps from the prior, 700",
        "conjugate": "conjugate",
        "residual": "encoders, closed form, residual, β = 1",
    }
    titles = {"uv": "u·v", "user bias": "user bias", "item bias": "item bias", "noise": "noise"}
    rows = []
    for name, title in configurations.items():
        found = {kind: simulated(name, kind) for kind in titles}
        entries = read(f"results/sbc_{name}.json")["summary"]
        flagged = [titles.get(one["kind"], one["kind"]) for one in entries if one["flagged"]]
        uv = found["uv"]
        assert uv is not None
        rows.append(
            [
                title,
                str(uv["n_refits"]),
                *map(held, found.values()),
                f"{uv['spread']:.2f}",
                ", ".join(flagged) or "nothing",
            ]
        )
    header = ["configuration", "fits", "90 % interval holds: u·v", "user bias", "item bias", "noise"]
    return table([*header, "spread of u·v", "flagged"], rows)


def scaling_table() -> str:
    """Return seconds and memory by size, guide and factors; the default's two stages are two rows."""
    rows = sorted(
        read("results/scaling.json").values(),
        key=lambda row: (row["n_ratings"], row["guide"], row["n_factors"]),
    )
    cells = []
    for row in rows:
        whole = row["guide"] == "whole"
        stages = {"default, to its end" if whole else row["guide"]: row["seconds_an_iteration"]}
        if "seconds_an_iteration_of_the_guide" in row:
            stages = {
                "default: its guide": row["seconds_an_iteration_of_the_guide"],
                "default: its sweeps": row["seconds_an_iteration"],
            }
        for guide, seconds in stages.items():
            cells.append(
                [
                    *(f"{row['n_ratings']:,}", f"{row['n_users']:,}", f"{row['n_items']:,}", guide),
                    *(str(row["n_factors"]), f"{seconds:.2f}", f"{row['peak_gb']:.2f}", str(row["threads"])),
                ]
            )
    header = ["ratings", "users", "items", "guide", "K", "seconds an iteration", "peak memory, GB", "threads"]
    return table(header, cells, 0)


def large_table() -> str:
    """Return fits of large catalogues."""
    rows = [
        [
            f"{row['n_users']:,} × {row['n_items']:,}",
            *(f"{row['n_ratings']:,}", str(row["sweeps"])),
            *(f"{row[step]['peak_gb']:.2f}" for step in ("fit", "evaluate")),
            *(f"{row[step]['cpu_seconds']:,.0f}" for step in ("fit", "evaluate")),
            f"{row['model_file_gb']:.2f}",
        ]
        for row in read("results/large_catalogue.json").values()
    ]
    header = ["users × items", "ratings", "sweeps", "fit: peak GB", "evaluate: peak GB"]
    return table([*header, "fit, s", "evaluate, s", "saved model, GB"], rows)


def launches_table() -> str:
    """Return what a step of the encoders asks a device for."""
    rows = []
    for name, kinds in read("results/launches.json").items():
        for kind in ("plain", "joint", "recorded"):
            row = kinds[kind]
            counts = [f"{row[of]:.0f}" for of in ("operations", "launches")]
            time = f"{row['processor_ms']:.0f}" if "processor_ms" in row else f"{row['host_ms']:.2f}"
            said = name.removesuffix(f" {kinds['threads']}").replace(" hidden", ", a hidden layer a tower")
            rows.append([said, kind, *counts, time])
    return table(["preset", "steps", "operations", "launches", "ms of the processor"], rows, 1)


def waits_table() -> str:
    """Return what an iteration of the exact head and a sweep ask a card for."""
    rows = [
        [name, *(f"{row[of]:.0f}" for of in ("operations", "launches", "recorded", "waits"))]
        for name, row in read("results/waits.json").items()
        if isinstance(row, dict)
    ]
    return table(["", "operations", "launches", "with recordings", "waits"], rows, 1)


def fold_in_table() -> str:
    """Return rows folded in beside a refit."""
    found = read("results/fold_in.json")
    rows = []
    for side, both in found["mean"].items():
        for of in ("folded", "refit"):
            row = both[of]
            seeds = [cell[of]["rmse"] for cell in found["cells"] if cell["side"] == side]
            rows.append(
                [
                    *(f"{side}s", "folded in" if of == "folded" else "a refit"),
                    *(f"{value:.4f}" for value in (row["rmse"], *seeds)),
                    *(f"{row['nll']:.4f}", f"{row['coverage']:.3f}", f"{row['squares']:.2f}"),
                ]
            )
    n = max(sum(cell["side"] == side for cell in found["cells"]) for side in found["mean"])
    seeds = [f"seed {seed}" for seed in range(n)]
    header = [
        "hidden",
        "predicted by",
        "RMSE",
        *seeds,
        "NLL",
        "coverage of 90 %",
        "squared error by variance",
    ]
    return table(header, rows, 2)


def gpu_steps_table() -> str:
    """Return what a step of the encoders takes on a card."""
    rows = [
        [
            *name.split(", "),
            *(f"{row[of]:.1f}" for of in ("step_ms", "host_ms", "device_ms")),
            *(f"{row['launches']:.0f}", f"{row['blocks']:,}", f"{row['iteration_s']:.2f}"),
        ]
        for name, row in read("results/gpu.json")["steps"].items()
    ]
    header = ["preset", "steps", "a step, ms", "its host, ms", "its card, ms", "launches", "blocks"]
    return table([*header, "an iteration, s"], rows, 2)


def gpu_iterations_table() -> str:
    """Return what an iteration of the exact head and a sweep take on a card."""
    found = read("results/gpu.json")
    rows = [
        [
            f"{name.removeprefix('one ')}, {said}",
            *(f"{row[of]:.0f}" for of in ("ms", "device_ms", "launches")),
        ]
        for key, said in (("iterations before", "before"), ("iterations", "sweeps recorded"))
        for name, row in found[key].items()
    ]
    return table(["", "ms", "the card's, ms", "launches"], rows)


def gpu_fits_table() -> str:
    """Return fits on a card that other work shared."""
    rows = [
        [
            name if name.startswith("20 M") else f"ML-1M: {name}",
            *(f"{row['seconds']:.1f}", f"{row['iteration_s']:.2f}", f"{row['peak_gb']:.2f}"),
        ]
        for name, row in read("results/gpu.json")["beside tests"].items()
    ]
    return table(["fit", "in all, s", "an iteration, s", "peak memory, GB"], rows)


def iteration_table() -> str:
    """Return what an iteration of the encoders costs."""
    rows = [
        [
            *(row["encoder"], f"{row['train_ratings']:,}", str(row["threads"])),
            *(f"{row[name]:.2f}" for name in ("first_s", "median_s", "max_s", "peak_gb")),
        ]
        for row in read("results/iteration.json")
    ]
    header = ["encoder", "training ratings", "threads", "first, s", "median, s", "slowest, s"]
    return table([*header, "peak memory, GB"], rows)


def allocator_table() -> str:
    """Return sweeps with and without freed memory that is kept."""
    rows = [
        [
            *(kind, f"{row['seconds']:.1f}", f"{row['system_s']:.1f}"),
            *(f"{row['faults']:,.0f}", f"{row['peak_mb']:,.0f}"),
        ]
        for kind, row in read("results/allocator.json")["medians"].items()
    ]
    return table(["freed memory", "seconds", "of the system", "page faults", "peak memory, MB"], rows)


def solver_table() -> str:
    """Return how many steps a draw of the implicit weights takes by its preconditioner."""
    rows = []
    for data, title in (("ml1m", "MovieLens 1M"), ("ml100k", "MovieLens 100K")):
        for n_modes, sides in read("results/solver_steps.json")[data].items():
            both = [sides["user"], sides["item"]]
            rows.append(
                [
                    *(title, n_modes, *(str(side["steps"]) for side in both)),
                    *(f"{sum(side[part] for side in both):.0f}" for part in ("preparing_ms", "solving_ms")),
                ]
            )
    header = ["data", "directions", "steps, users", "steps, items", "preparing both, ms", "solving both, ms"]
    return table(header, rows, 1)


def splits_table() -> str:
    """Return the default on the splits of published tables, beside what was published."""
    found = read("results/splits_ml1m_default.json")
    rows = [
        ["pyro-bmf, default preset", f"{found['rmse']:.4f} ± {found['rmse_se']:.4f}", "settings untouched"]
    ]
    rows += [[one["system"], f"{one['ml1m']:g}", one["selected"]] for one in found["published"]]
    return table(["system", "RMSE", "how it was selected"], rows)


def u_splits_table() -> str:
    """Return the default on u1 to u5 of MovieLens 100K, beside what was published on u1."""
    found = read("results/splits_ml100k_default.json")
    rows = [
        [
            f"pyro-bmf, default preset, u{number}",
            *(f"{one[of]:.4f}" for of in ("rmse", "nll")),
            "settings untouched",
        ]
        for number, one in found["splits"].items()
    ]
    nll = sum(one["nll"] for one in found["splits"].values()) / found["n_splits"]
    mean = [f"{found['rmse']:.4f} ± {found['rmse_se']:.4f}", f"{nll:.4f}", "settings untouched"]
    rows.append(["the same, mean of the five", *mean])
    for one in found["published"]:
        if one["ml100k"] is not None:
            rows.append([f"{one['system']}, u1", f"{one['ml100k']:g}", "–", one["selected"]])
    return table(["system and split", "RMSE", "NLL", "how it was selected"], rows)


def units_table() -> str:
    """Return fits of the same ratings in other units."""
    found = read("results/rating_units.json")
    rows = []
    for name in dict.fromkeys(key.split("; ")[0] for key in found["fits"]):
        spread = [found["spread"][f"{name}; {figure}"] for figure in ("rmse", "nll")]
        first = found["fits"][f"{name}; 1 to 5; seed 0"]
        others = [
            one for key, one in found["fits"].items() if key.startswith(name) and "; 1 to 5;" not in key
        ]
        rows.append(
            [
                *(name, f"{first['rmse']:.4f}", f"{first['nll']:.4f}"),
                *(f"{one['five seeds']:.4f}" for one in spread),
                f"{max(abs(one[of] - first[of]) for one in others for of in ('rmse', 'nll')):.0e}",
            ]
        )
    header = ["fit", "RMSE", "NLL", "span of five seeds, RMSE", "the same, NLL"]
    return table([*header, "other units: largest difference from it"], rows)


def heavy_table() -> str:
    """Return encoders on rows of thousands of ratings."""
    rows = [
        [
            "the same for all" if row["heavy"] is None else f"falls from {row['heavy']:,.0f}",
            *(f"{value:.3f}" for value in row["rmse"]),
        ]
        for row in read("results/heavy_rows.json")
    ]
    return table(["learning rate of first layers", "1 iteration", "2 iterations"], rows)


def bases_table() -> str:
    """Return first layers from a few matrices."""
    rows = [
        [
            *(str(row["n_bases"] or "one a row"), f"{row['valid_rmse']:.4f}", f"{row['guide_parameters']:,}"),
            *(f"{row['gb_more']:.2f}", str(row["iterations"]), f"{row['seconds_an_iteration']:.1f}"),
        ]
        for row in read("results/bases_ml100k.json").values()
    ]
    header = ["matrices", "validation RMSE", "parameters", "memory beside the rest, GB", "iterations"]
    return table([*header, "seconds an iteration"], rows)


def encoders_table(data: str) -> str:
    """Return the encoders' fits, by seed and without one component each."""
    rows = []
    for name, row in read(f"results/{data}.json").items():
        own = row["systems"][0]
        rows.append(
            [
                *(name, f"{row['valid_rmse']:.4f}", f"{own['rmse']:.4f}", f"{own['mae']:.4f}"),
                *(f"{own['nll']:.4f}", f"{own['rps']:.4f}", f"{own['pit_coverage_90']:.3f}"),
                *(f"{own['sd_error_correlation']:.3f}", f"{own['full:ndcg@20']:.4f}"),
                *(str(row["iterations"]), f"{row['seconds']:.0f}"),
            ]
        )
    header = ["fit", "validation RMSE", "test RMSE", "MAE", "NLL", "RPS", "coverage of 90 %"]
    return table([*header, "corr(sd, abs. error)", "NDCG@20 `full`", "iterations", "seconds"], rows)


def references_table() -> str:
    """Return the encoders beside trivial references."""
    rows = []
    for data, title in (("ml1m", "MovieLens 1M"), ("ml100k", "MovieLens 100K")):
        for own in read(f"results/{data}.json")["full model, seed 0"]["systems"]:
            ndcg = own.get("full:ndcg@20")
            rows.append(
                [
                    *(title, own["system"], f"{own['rmse']:.4f}", f"{own['mae']:.4f}", f"{own['nll']:.4f}"),
                    *(
                        f"{own['rps']:.4f}",
                        f"{own['pit_coverage_90']:.3f}",
                        "–" if ndcg is None else f"{ndcg:.4f}",
                    ),
                ]
            )
    return table(
        ["data", "system", "test RMSE", "MAE", "NLL", "RPS", "coverage of 90 %", "NDCG@20 `full`"], rows, 2
    )


def presets_table() -> str:
    """Return the presets side by side on MovieLens 1M."""
    conjugate = peer("ml1m", "pyro-bmf-conjugate")

    def row(title: str, figures: dict[str, Any], coverage: float, name: str | None) -> list[str]:
        uv = None if name is None else simulated(name, "uv")
        return [
            *(title, f"{figures['rmse']:.4f}", f"{figures['nll']:.3f}", f"{figures['rps']:.3f}"),
            *(f"{coverage:.3f}", f"{figures['fit_seconds']:.0f}", "not measured" if uv is None else held(uv)),
        ]

    amortized = {figure: encoders("ml1m", figure) for figure in ("rmse", "nll", "rps")}
    rows = [
        *(
            row(
                f"`{name}`",
                {
                    **{figure: starts_mean(key, figure, of) for figure in ("rmse", "nll", "rps")},
                    "fit_seconds": starts_mean(key, "seconds", of),
                },
                starts_mean(key, "pit_coverage_90", of),
                simulation,
            )
            for name, key, of, simulation in (
                ("default", "b default", "default_ml1m", "default_priors"),
                ("guide", "guide", "starts_ml1m", None),
                ("gibbs", _PRIOR, "starts_ml1m", "gibbs"),
            )
        ),
        row(
            "`amortized`",
            {**amortized, "fit_seconds": encoders("ml1m", "seconds")},
            encoders("ml1m", "pit_coverage_90"),
            None,
        ),
        row("`conjugate` (seed 0)", conjugate, conjugate["coverage"]["all"]["coverage"][0], "conjugate"),
        row(
            "`paper`",
            {
                **{figure: papers_mean(figure) for figure in ("rmse", "nll", "rps")},
                "fit_seconds": papers_mean("seconds"),
            },
            papers_mean("coverage_90"),
            None,
        ),
    ]
    header = ["preset", "RMSE", "NLL", "RPS", "90 % by PIT", "seconds"]
    return table([*header, "share of true u·v inside 90 % (simulation)"], rows)


def arviz_table() -> str:
    """Return the seconds of ArviZ's functions."""
    runs = read("results/arviz.json")
    sizes = list(runs.values())
    rows = [
        [f"`{name}`", *(f"{run['calls'][name]['seconds']:.1f}" for run in sizes)]
        for name in sizes[0]["calls"]
        if not any(run["calls"][name]["failed"] for run in sizes)
    ]
    return table(["function", *(f"{run['pairs']:,} pairs (s)" for run in sizes)], rows)


def alarms_table() -> str:
    """Return how often checks raise an alarm, rightly and wrongly."""
    sets = [read("results/false_alarms.json")[name] for name in ("normal", "student-t")]

    def share(found: int, of: int) -> str:
        return f"{found} of {of} ({100 * found / of:.1f} %)"

    rows = [
        [
            "`ppc`",
            "joint p at most 0.05",
            *(share(sum(one["joint_p"] <= 0.05 for one in ones), len(ones)) for ones in sets),
        ],
        [
            *("`compare`", "Student-t clearly better than Normal"),
            *(
                share(sum(one["clear"] and one["better"] == "student-t" for one in ones), len(ones))
                for ones in sets
            ),
        ],
        [
            *("`diagnose`", "a row's k-hat above its limit"),
            *(
                share(sum(one["rows_flagged"] for one in ones), sum(one["rows"] for one in ones))
                for ones in sets
            ),
        ],
    ]
    return table(["check", "an alarm is", "Normal noise: right", "Student-t noise: planted misfit"], rows, 2)


def mutation_table() -> str:
    """Return what became of the mutants of each module."""
    rows = [
        [
            f"`{one['module'].removeprefix('pyro_bmf/')}`",
            f"{one['run']} of {one['mutants']}" if one["run"] < one["mutants"] else str(one["mutants"]),
            *(str(one["killed"]), str(one["survived"])),
        ]
        for one in read("results/mutation.json")
    ]
    return table(["module", "mutants", "killed", "left"], rows)


def autorec_table() -> str:
    """Return the autoencoders beside what was published of them."""
    names = {"i-autorec": "`IRec`", "u-autorec": "`URec`", "u-autorec-rprop": "`URec`"}
    names |= {"i-rec": "`IRec`", "u-rec": "`URec`"}
    found = read("results/autorec.json")
    rows = []
    for cell, name in names.items():
        if cell not in found:
            continue
        row, settings = found[cell], found[cell]["settings"]
        units = f"{settings['n_factors']} {settings['hidden']} units"
        # Rows from before there was RProp do not say.
        steps = ", RProp from a small start" if settings.get("optimizer") == "rprop" else ""
        rows.append(
            [
                name,
                f"{row['of']}: {units}, {settings['output']} output{steps}",
                "not published" if row["published"] is None else f"{row['published']:.3f}",
                *(f"{row['rmse']:.4f}", f"{row['valid_rmse']:.4f}", str(row["iterations"])),
                *(f"{settings['l2']:g}", f"{row['seconds']:.0f}"),
            ]
        )
    header = ["network", "configuration", "published", "test RMSE", "validation RMSE", "iterations", "L2"]
    return table([*header, "seconds"], rows, 2)


def systems_table() -> str:
    """Return the systems of section 2 on MovieLens 100K; a ranker's RMSE is that of item means."""
    rows = []
    for name, row in read("results/systems.json").items():
        ratings = (f"{row['rmse']:.4f}", f"{row['nll']:.3f}") if row["rates"] else ("", "")
        lists = (f"{row['ndcg@20']:.4f}", f"{row['recall@20']:.4f}")
        rows.append([f"`{name}`", *ratings, *lists, str(row["iterations"]), f"{row['seconds']:.0f}"])
    return table(["system", "RMSE", "NLL", "NDCG@20", "Recall@20", "iterations", "seconds"], rows)


def rankers_table() -> str:
    """Return our networks beside another library's, by figure of the test part."""
    words = {"ndcg@20": "NDCG@20", "recall@20": "Recall@20", "rmse": "RMSE"}
    rows = []
    for name, row in read("results/rankers.json").items():
        own = row["ours"]
        for peer_name, other in row["peers"].items():
            for figure, gap in other["ours less theirs"].items():
                both = [f"{one[part][figure]:.4f}" for part in ("valid", "test") for one in (own, other)]
                less = f"{gap['difference']:.4f} ({gap['low']:.4f} to {gap['high']:.4f})"
                last = [f"{own[what]:.0f}, {other[what]:.0f}" for what in ("epoch", "seconds")]
                rows.append([f"`{name}`", peer_name, words[figure], *both, less, *last])
    parts = [f"{who}, {part}" for part in ("validation", "test") for who in ("ours", "theirs")]
    header = ["ours", "RecBole's", "figure", *parts, "test, ours less theirs (95 %)", "epoch kept", "seconds"]
    return table(header, rows, 3)


def fits_of(name: str, whose: str) -> str:
    """Return mean and standard deviation over seeds of a network's best validation RMSE."""
    row = read("results/rankers.json")[name]
    own = row["ours"] if whose == "ours" else row["peers"][whose]
    values = [own["valid"]["rmse"], *(one[whose] for one in row["other fits"].values())]
    return f"{fmean(values):.4f} (standard deviation {stdev(values):.4f})"


def ranking_table(name: str) -> str:
    """Return what rankings are worth, and how far each is behind ours by liked."""
    words = {"ease": "EASE on", "ours": "ours,"}
    rows = []
    for system, row in sorted(
        read(f"results/ranking_{name}.json")["summary"].items(), key=lambda r: -r[1]["ndcg"]
    ):
        first, _, rest = system.partition(" ")
        less = row.get("less ours")
        gap = "" if less is None else f"{less['difference']:.4f} ({less['upper_95']:.4f})"
        rows.append(
            [
                f"{words[first]} {rest}" if first in words else system,
                f"{row['ndcg']:.4f}",
                f"{row['recall']:.4f}",
                gap,
            ]
        )
    return table(["ranked by", "NDCG@20", "Recall@20", "less ours by liked (upper 95 % bound)"], rows)


def small_data_table(name: str = "small_data") -> str:
    """Return the default on small sets beside the best trivial reference of each."""
    sets = read(f"results/{name}.json")["sets"]
    rows = []
    for name, one in sets.items():
        cells = [f"`{name}`", str(len(one["cells"]))]
        for metric in ("nll", "rmse"):
            own = one["summary"][metric]
            digits = 4 if own["model"] < 10 else 2
            cells += [f"{own['model']:.{digits}f}", f"{own['reference']:.{digits}f} ({own['best']})"]
            cells.append(f"{own['difference']:+.{digits}f} ± {own['reach']:.{digits}f}")
            cells.append(f"{own['truth']:.{digits}f}" if "truth" in own else "")
        rows.append(cells)
    header = ["set", "seeds", "NLL", "best reference", "difference", "truth"]
    header += ["RMSE", "best reference", "difference", "truth"]
    return table(header, rows, 1)


def small_data_parts_table() -> str:
    """Return what each part of the model loses on a set of noise."""
    rows = []
    for part, sets in read("results/small_data_parts.json")["parts"].items():
        line = [part]
        for metric in ("nll", "rmse"):
            own = sets["noise-800"]["summary"][metric]
            line += [f"{own['model']:.4f}", f"{own['difference']:+.4f} ± {own['reach']:.4f}"]
        rows.append(line)
    header = ["the default", "NLL", "less the best reference's", "RMSE", "less the best reference's"]
    return table(header, rows, 1)


def ratings_a_row_table() -> str:
    """Return the default with and without implicit feedback by ratings a row, fewest first."""
    rows = []
    for name, cells in read("results/ratings_a_row.json").items():
        found = list(cells.values())
        density = fmean(2 * one["n_train"] / (one["users"] + one["items"]) for one in found)
        line = [name, f"{fmean(one['n_train'] for one in found):,.0f}", f"{density:.1f}"]
        for metric in ("rmse", "nll"):
            both = [fmean(one[how][metric] for one in found) for how in ("with", "without")]
            line += [f"{value:.4f}" for value in both] + [f"{both[1] - both[0]:+.4f}"]
        rows.append((density, line))
    header = ["set", "training ratings", "a row", "RMSE with", "without", "difference"]
    header += ["NLL with", "without", "difference"]
    return table(header, [line for _, line in sorted(rows)], 1)


def factors_a_row_table() -> str:
    """Return the default as it is beside 24 factors by ratings a row, fewest first, where there are fewer."""
    from pyro_bmf.methods.settings import IMPLICIT_FROM

    rows = []
    for name, cells in read("results/ratings_a_row.json").items():
        found = list(cells.values())
        density = fmean(2 * one["n_train"] / (one["users"] + one["items"]) for one in found)
        # As it is, there is implicit feedback from that density on.
        usual = "with" if density >= IMPLICIT_FROM else "without"
        numbers = sorted({one["as it is"]["n_factors"] for one in found})
        line = [name, f"{density:.1f}", " and ".join(map(str, numbers))]
        for metric, digits in (("rmse", 4), ("nll", 4), ("seconds", 0)):
            both = [fmean(one[how][metric] for one in found) for how in (usual, "as it is")]
            line += [f"{value:.{digits}f}" for value in both]
        rows.append((density, line))
    header = ["set", "a row", "factors", "RMSE of 24", "as it is", "NLL of 24", "as it is"]
    return table([*header, "seconds of 24", "as it is"], [line for _, line in sorted(rows)], 1)


def mixing(part: str, name: str, spelled: str) -> str:
    """Return a figure of how well the default's first seed mixes."""
    (cell,) = (one for one in read("results/mixing.json")["cells"] if "against_reference" in one)
    return format(cell[part][name], spelled)


def chains_table() -> str:
    """Return one chain, and several from starts that are far apart, on MovieLens 100K."""
    kinds: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for cell in read("results/chains.json")["cells"]:
        kinds.setdefault((cell.get("chains", 1), cell["sweeps"]), []).append(cell)
    rows = []
    for (chains, sweeps), cells in sorted(kinds.items()):
        worst = max((one["r_hat"], name) for cell in cells for name, one in cell["hyperparameters"].items())
        pairs = [cell["test_pairs"] for cell in cells]
        alone = [next(one for one in kinds[1, 560] if one["seed"] == cell["seed"]) for cell in cells]
        less = {
            name: fmean(cell[name] - one[name] for cell, one in zip(cells, alone, strict=True))
            for name in ("valid_rmse", "valid_nll")
        }
        rows.append(
            [
                f"{chains} of {sweeps} sweeps",
                " ".join(str(cell["seed"]) for cell in cells),
                str(cells[0]["kept_draws"]),
                f"{fmean(one['share_r_hat_good'] for one in pairs):.1%}".replace("%", " %"),
                f"{fmean(one['median_ess'] for one in pairs):.0f}",
                f"{worst[0]:.2f} ({worst[1]})",
                *("" if alone == cells else f"{value:+.4f}" for value in less.values()),
                f"{fmean(cell['processor_seconds'] for cell in cells):.0f}",
            ]
        )
    header = ["chains", "seeds", "draws", "pairs with R-hat at most 1.05"]
    header += ["effective draws of a pair's predictor, median", "worst R-hat of a hyperparameter"]
    header += ["validation RMSE less that of one chain", "validation NLL less that of one chain", "seconds"]
    return table(header, rows, 2)


def mixing_table() -> str:
    """Return how the default mixes on MovieLens 1M, a seed a row."""
    rows = []
    for cell in read("results/mixing_ml1m_default.json")["cells"]:
        pairs, hyper = cell["test_pairs"], cell["hyperparameters"]
        fewest, worst = (
            min(hyper, key=lambda name: hyper[name]["ess"]),
            max(hyper, key=lambda name: hyper[name]["r_hat"]),
        )
        shares = (f"{pairs[name]:.1%}".replace("%", " %") for name in ("share_r_hat_good", "share_ess_100"))
        rows.append(
            [
                *(
                    f"{cell['seed']}",
                    f"{cell['kept_draws']}",
                    next(shares),
                    f"{pairs['median_ess']:.0f}",
                    next(shares),
                ),
                *(f"{hyper[worst]['r_hat']:.2f} ({worst})", f"{hyper[fewest]['ess']:.0f} ({fewest})"),
                *(
                    f"{cell['valid_rmse']:.4f}",
                    f"{cell['valid_nll']:.4f}",
                    f"{cell['processor_seconds']:.0f}",
                ),
            ]
        )
    header = [
        "seed",
        "draws",
        "pairs with R-hat at most 1.05",
        "effective draws of a pair's predictor, median",
    ]
    header += [
        "pairs with a hundred or more",
        "worst R-hat of a hyperparameter",
        "fewest effective draws of one",
    ]
    return table([*header, "validation RMSE", "validation NLL", "seconds"], rows, 0)


def overrelaxation_table() -> str:
    """Return how the default mixes by how much its rows are overrelaxed."""
    rows = []
    for name, title in (("ml1m", "MovieLens 1M"), ("ml100k", "MovieLens 100K")):
        cells = read(f"results/mixing_{name}.json")["cells"]
        for cell in sorted(cells, key=lambda one: (one["seed"], one["overrelaxation"])):
            pairs = cell["test_pairs"]
            slowest, found = min(cell["hyperparameters"].items(), key=lambda named: named[1]["ess"])
            worst = max(one["r_hat"] for one in cell["hyperparameters"].values())
            rows.append(
                [
                    *(title, f"{cell['overrelaxation']:g}", f"{cell['kept_draws']}"),
                    *(f"{pairs['median_ess']:.0f}", f"{pairs['share_r_hat_good']:.1%}".replace("%", " %")),
                    *(f"{found['ess']:.0f} ({slowest})", f"{worst:.2f}", f"{cell['valid_rmse']:.4f}"),
                    *(f"{cell['valid_nll']:.4f}", f"{cell['processor_seconds']:.0f}"),
                ]
            )
    header = ["data", "overrelaxation", "draws", "effective draws of a pair's predictor, median"]
    header += ["pairs with R-hat at most 1.05", "fewest effective draws of a hyperparameter"]
    header += ["their worst R-hat", "validation RMSE", "validation NLL", "seconds"]
    return table(header, rows, 1)


def thinned_table() -> str:
    """Return how small chains mix by how much rows are overrelaxed, and how many sweeps make a draw."""
    chains = read("results/small_chains_thinned.json")["chains"]
    rows = [
        [str(one["every"]), f"{one['overrelaxation']:g}", *(f"{ess:.0f}" for ess in one["mean"].values())]
        for one in chains
    ]
    return table(["sweeps a draw", "overrelaxation", *chains[0]["mean"]], rows, 0)


def hidden_users_table(data: str) -> str:
    """Return rankings for users who came after the fit, best first."""
    content = read(f"results/hidden_users_{data}.json")
    rows = []
    for name, row in sorted(content["summary"].items(), key=lambda item: -item[1]["ndcg"]):
        low, high = row["interval"]
        less = "" if name == "ours by liked" else f"{row['less_ours']:+.4f} ({low:+.4f} to {high:+.4f})"
        rows.append([name, f"{row['ndcg']:.4f}", f"{content['recall'][name]:.4f}", less])
    return table(["ranked by", "NDCG@20", "Recall@20", "NDCG@20 less ours by liked"], rows)


def ranking_peers(name: str) -> str:
    """Return how other libraries' rankers were tuned, and how long a fit takes."""
    seeds = read(f"results/ranking_peers_{name}.json")["seeds"]
    rows = []
    for system in next(iter(seeds.values()))["cells"]:
        cells = [own["cells"][system] for own in seeds.values() if "chosen" in own["cells"].get(system, {})]
        if cells:
            rows.append(
                [
                    system,
                    cells[0]["package"],
                    " ".join(str(cell["n_trials"]) for cell in cells),
                    f"{fmean(cell['valid_ndcg'] for cell in cells):.4f}",
                    f"{fmean(cell['fit_seconds'] for cell in cells):.1f}",
                ]
            )
    columns = ["peer", "package", "trials, by seed", "NDCG@20 on validation", "seconds of a fit"]
    return table(columns, rows)


def ranking_calibration(name: str) -> str:
    """Return whether liked comes true, by group of pairs and seed."""
    seeds = read(f"results/ranking_{name}.json")["seeds"]
    found = [own["cells"]["calibration"]["groups"] for own in seeds.values()]
    rows = [
        [same[0]["group"], f"{sum(one['expected'] for one in same):.0f}"]
        + [f"{sum(one['observed'] for one in same):.0f}"]
        + [f"{one['ratio']:.3f} ({one['se']:.3f})" for one in same]
        for same in zip(*found, strict=True)
    ]
    ratios = [f"ratio, seed {seed}" for seed in seeds]
    return table(["pairs", "expected", "came true", *ratios], rows)


def selection_scaling_table() -> str:
    """Return time and memory of the selection model and of lists for everybody, over ratings."""
    content = read("results/selection_scaling.json")
    rows = []
    for cells in sorted(content["sizes"].values(), key=lambda one: one["fit"]["n_ratings"]):
        fit, lists = cells["fit"], cells["lists"]
        line = [f"{fit['n_ratings']:,}", f"{fit['n_users']:,} × {fit['n_items']:,}", fit["head"]]
        for stage in (fit, lists):
            line += [f"{stage['seconds'] / 60:.1f}", f"{stage['peak_gb']:.1f}"]
        rows.append(line)
    if content["exponents"]:
        powers = [f"{content['exponents'][stage]:.2f}" for stage in ("fit", "lists")]
        rows.append(["exponent of the last two", "", "", powers[0], "", powers[1], ""])
    header = ["ratings", "users × items", "head", "fit, minutes", "peak GB", "lists, minutes", "peak GB"]
    return table(header, rows)


def metrics_reference() -> str:
    """Return every metric by name, from its class."""
    from pyro_bmf.evaluation.metrics.reference import metrics_table

    return metrics_table()


TABLES: dict[str, Callable[[], str]] = {
    "ranking ml100k": lambda: ranking_table("ml100k_default"),
    "ranking ml1m": lambda: ranking_table("ml1m_default"),
    "ranking peers": lambda: ranking_peers("ml100k"),
    "ranking peers ml1m": lambda: ranking_peers("ml1m"),
    "ranking calibration": lambda: ranking_calibration("ml100k_default"),
    "ranking calibration ml1m": lambda: ranking_calibration("ml1m_default"),
    "selection scaling": selection_scaling_table,
    "small data": small_data_table,
    "small data, parts": small_data_parts_table,
    "small data, other seeds": lambda: small_data_table("small_data_other_seeds"),
    "ratings a row": ratings_a_row_table,
    "factors a row": factors_a_row_table,
    "hidden users ml100k": lambda: hidden_users_table("ml100k"),
    "metrics": metrics_reference,
    "loo ranking": lambda: loo_ranking_table("loo_ranking"),
    "loo ranking ml1m": lambda: loo_ranking_table("loo_ranking_ml1m"),
    "peers ml1m": lambda: peers_table("ml1m"),
    "peers ml100k": lambda: peers_table("ml100k"),
    "leaderboard ml1m": lambda: leaderboard_table("ml1m"),
    "leaderboard ml100k": lambda: leaderboard_table("ml100k"),
    "simulation": simulation_table,
    "scaling": scaling_table,
    "autorec": autorec_table,
    "systems": systems_table,
    "rankers": rankers_table,
    "large catalogues": large_table,
    "bases": bases_table,
    "launches": launches_table,
    "waits": waits_table,
    "fold in": fold_in_table,
    "gpu steps": gpu_steps_table,
    "gpu iterations": gpu_iterations_table,
    "gpu fits": gpu_fits_table,
    "iteration": iteration_table,
    "allocator": allocator_table,
    "solver steps": solver_table,
    "splits ml100k": u_splits_table,
    "splits ml1m": splits_table,
    "rating units": units_table,
    "heavy rows": heavy_table,
    "encoders ml1m": lambda: encoders_table("ml1m"),
    "encoders ml100k": lambda: encoders_table("ml100k"),
    "references": references_table,
    "presets": presets_table,
    "starts ml1m": starts_table,
    "mixing ml1m": mixing_table,
    "chains": chains_table,
    "paper trials": papers_trials_table,
    "overrelaxation": overrelaxation_table,
    "overrelaxation, few ratings": thinned_table,
    "arviz": arviz_table,
    "false alarms": alarms_table,
    "mutation": mutation_table,
}

_NEAREST = "myfm-svdpp-probit-32"
FIGURES: dict[str, Callable[[], str]] = {
    "first fit valid rmse": lambda: f"{first_fit()['valid_rmse']:.4f}",
    "splits ml1m": lambda: f"{read('results/splits_ml1m_default.json')['rmse']:.4f}",
    "splits ml1m each": lambda: ", ".join(
        f"{one['rmse']:.4f}" for one in read("results/splits_ml1m_default.json")["splits"].values()
    ),
    "default whole": lambda: f"{read('results/scaling.json')['2e+07 whole 24 1']['peak_gb']:.2f}",
    "default whole minutes": lambda: (
        f"{read('results/scaling.json')['2e+07 whole 24 1']['fit_seconds'] / 60:.0f}"
    ),
    "default more draws": lambda: f"{scaled('more_draws_gb'):.1f}",
    "mixing good": lambda: mixing("test_pairs", "share_r_hat_good", ".1%").replace("%", " %"),
    "mixing ess": lambda: mixing("test_pairs", "median_ess", ".0f"),
    "mixing ess 100": lambda: mixing("test_pairs", "share_ess_100", ".0%").replace("%", " %"),
    "mixing mean": lambda: mixing("against_reference", "median_mean_apart", ".3f"),
    "mixing sd": lambda: mixing("against_reference", "median_sd_ratio", ".3f"),
    "mixing reference": lambda: mixing("reference_r_hat", "share_r_hat_good", ".0%").replace("%", " %"),
    "first fit test rmse": lambda: f"{first_fit()['rmse']:.4f}",
    "paper tuned ml1m valid": lambda: paper_tuned("valid"),
    "paper tuned ml1m test": lambda: paper_tuned("test"),
    "paper table ml1m test": lambda: paper_tuned("taken"),
    "loo pairs": lambda: loo_pairs("loo_ranking"),
    "loo pairs ml1m": lambda: loo_pairs("loo_ranking_ml1m"),
    "first fit r-hat": lambda: f"{first_fit()['worst_rhat']:.2f}",
    "first fit coverage by pit": lambda: f"{first_fit()['pit_coverage_90']:.2f}",
    "first fit interval holds": lambda: f"{first_fit()['interval_coverage_90']:.3f}",
    "default sbc user noise": lambda: held(simulated("default", "user noise spread")),
    "default sbc item noise": lambda: held(simulated("default", "item noise spread")),
    "default ml1m rmse by seed": lambda: starts_by_seed("b default", "default_ml1m"),
    "default ml1m coverage": lambda: f"{default_mean('pit_coverage_90'):.3f}",
    "default ml1m nll": lambda: f"{default_mean('nll'):.4f}",
    "default ml1m rps": lambda: f"{default_mean('rps'):.4f}",
    "default ml1m seconds": lambda: f"{default_mean('seconds'):.0f}",
    "default ml1m minutes": lambda: f"{default_mean('seconds') / 60:.0f}",
    "guide ml1m rmse by seed": lambda: starts_by_seed("guide"),
    "guide ml1m seconds": lambda: f"{starts_mean('guide', 'seconds'):.0f}",
    "nearest ml1m rmse by seed": lambda: seeds_of("ml1m", _NEAREST, "rmse"),
    "nearest ml1m seconds": lambda: f"{peer('ml1m', _NEAREST)['fit_seconds']:.0f}",
    "nearest ml1m rmse difference": lambda: interval(paired("ml1m", _NEAREST)["rmse"]),
    "nearest ml1m nll behind": lambda: behind("ml1m", _NEAREST, "nll"),
    "nearest ml1m rps behind": lambda: behind("ml1m", _NEAREST, "rps"),
    "deciles covered": lambda: deciles_covered("within_2se"),
    "deciles covered nearly": lambda: deciles_covered("within_2se_and_allowance"),
    "arviz memory": lambda: listed(
        [f"{run['gb_at_most']:.1f}" for run in read("results/arviz.json").values()]
    ),
    "printed ranks": lambda: listed([f"{rank:.1f}" for rank in printed_test("mean rank of ")]),
    "printed p": lambda: f"{min(printed_test('Nemenyi')):.3f}",
    "seconds to myfm-bmf-10": lambda: seconds_to("ml1m", "myfm-bmf-10"),
    "conjugate ml100k valid rmse": lambda: (
        f"{leaderboard('ml100k', 'conjugate normal ordered-probit')['valid_rmse']:.4f}"
    ),
    "amortized ml100k valid rmse": lambda: (
        f"{read('results/ml100k.json')['full model, seed 0']['valid_rmse']:.4f}"
    ),
    "elpd ml100k normal": lambda: f"{leaderboard('ml100k', 'amortized normal normal')['elpd']:.0f}",
    "elpd ml100k ordered": lambda: (
        f"{leaderboard('ml100k', 'amortized normal ordered-logistic')['elpd']:.0f}"
    ),
    "elpd ml100k own cuts": lambda: str(single("own cuts ml100k")["elpd"]),
    "elpd ml100k row noise": lambda: str(single("row noise ml100k")["elpd"]),
    "elpd ml1m ordered": lambda: f"{leaderboard('ml1m', 'amortized normal ordered-logistic')['elpd']:.0f}",
    "elpd ml1m own cuts": lambda: (
        f"{leaderboard('ml1m', 'amortized normal ordered-logistic:cuts=user')['elpd']:.0f}"
    ),
    "fits dae-cf ours": lambda: fits_of("dae-cf", "ours"),
    "fits dae-cf theirs": lambda: fits_of("dae-cf", "MultiDAE"),
    "paper ml1m rmse": lambda: f"{papers_mean('rmse'):.4f}",
    "paper ml1m rmse by seed": lambda: listed([f"{one:.4f}" for one in papers("rmse")]),
    "paper ml1m valid rmse": lambda: f"{papers_mean('valid_rmse'):.4f}",
}


def written(page: str) -> str:
    """Return a page with its figures and tables as they were measured."""

    def known(names: dict[str, Callable[[], str]], name: str) -> str:
        if name not in names:
            raise KeyError(f"there is no {name!r}; there are {', '.join(sorted(names))}")
        return names[name]()

    page = FIGURE.sub(lambda found: f"<!--={found['name']}-->{known(FIGURES, found['name'])}<!--/-->", page)
    return TABLE.sub(lambda found: f"{found['open']}{known(TABLES, found['name'])}\n{found['close']}", page)


def pages() -> list[Path]:
    """Return the pages that may hold figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is out of date"
    )
    options = parser.parse_args()
    late = [page for page in pages() if written(text := page.read_text(encoding="utf-8")) != text]
    for page in late:
        if not options.check:
            page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{page.relative_to(ROOT)} {'is out of date' if options.check else 'is written'}")
    sys.exit(1 if options.check and late else 0)


if __name__ == "__main__":
    main()
