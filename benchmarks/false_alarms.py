"""How often each check raises an alarm, on data that the model is right for and on planted heavy tails.

    python benchmarks/false_alarms.py --sets 40 --out benchmarks/results/false_alarms.json

Each set has 4,000 ratings of 120 users and 80 items, drawn from a matrix factorization of two factors with
Normal noise, or with Student-t noise of three degrees of freedom and the same standard deviation. To each are
fitted: Gibbs sweeps with Normal noise, for `ppc`; the encoders with Normal and with Student-t noise at
beta = 1, for `compare`; coordinate ascent with Normal noise, for `diagnose`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pyro_bmf.checking.held_out import held_out_log_prob
from pyro_bmf.checking.predictive_check import check_predictive
from pyro_bmf.checking.row_diagnosis import diagnose_rows
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.evaluation.elpd import compare_elpd
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.posterior import Posterior

TRUTHS = {"normal": None, "student-t": 3.0}
GIBBS: dict[str, Any] = {
    "implicit": False,
    "row_noise": "none",
    "likelihood": "normal",
    "sweeps": 150,
    "burn_in": 50,
    "kept_draws": 100,
}
ENCODERS: dict[str, Any] = {
    "beta_user": 1.0,
    "beta_item": 1.0,
    "max_iterations": 60,
    "learning_rate": 1e-2,
    "user_batch_size": 60,
    "item_batch_size": 40,
    "n_tower_outputs": 16,
}


def drawn(seed: int, noise_df: float | None) -> Split:
    """Draw one set, and split it."""
    made = synthetic_ratings(
        120, 80, 4000, n_factors=2, noise=1.0, mean=5.0, scale="-15:25:0.5", seed=seed, noise_df=noise_df
    )
    return random_split(made.ratings, seed=0)


def fitted(split: Split, name: str, **changes: Any) -> Posterior:
    """Fit two factors by a preset."""
    settings = preset(name).replace(n_factors=2, **changes)
    return fit(split, settings, threads=1, device="cpu", progress=False).posterior


def alarms(split: Split) -> dict[str, Any]:
    """Fit one set, and return what each check says of it."""
    checked = check_predictive(fitted(split, "default", **GIBBS), split, prior_samples=0)
    encoders = {word: fitted(split, "amortized", likelihood=word, **ENCODERS) for word in TRUTHS}
    values = [held_out_log_prob(posterior, split.test) for posterior in encoders.values()]
    rows = compare_elpd(list(encoders), values, split.test.users, ["probability"] * len(values))
    exact = fitted(split, "conjugate", likelihood="normal")
    sides = [diagnose_rows(exact, side).summary() for side in ("user", "item")]
    return {
        "joint_p": checked.joint_p,
        "flagged": [one.name for one in checked.flagged],
        "better": rows[0].name,
        "clear": rows[1].clear,
        "difference": rows[1].difference,
        "difference_se": rows[1].difference_se_by_user,
        "rows": sum(side["rows"] for side in sides),
        "rows_flagged": sum(side["flagged"] for side in sides),
    }


def summary(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the shares of alarms as a markdown table."""
    lines = [
        "| check | an alarm is | Normal noise: right | Student-t noise: planted misfit |",
        "|---|---|---|---|",
    ]

    def line(check: str, what: str, count: Any, of: Any) -> None:
        shares = [(sum(map(count, one)), sum(map(of, one))) for one in found.values()]
        cells = [f"{alarm} of {every} ({100 * alarm / max(every, 1):.1f} %)" for alarm, every in shares]
        lines.append(f"| `{check}` | {what} | {' | '.join(cells)} |")

    line("ppc", "joint p at most 0.05", lambda one: one["joint_p"] <= 0.05, lambda one: 1)
    line(
        "compare",
        "Student-t clearly better than Normal",
        lambda one: one["clear"] and one["better"] == "student-t",
        lambda one: 1,
    )
    line(
        "diagnose", "a row's k-hat above its limit", lambda one: one["rows_flagged"], lambda one: one["rows"]
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the sets that are missing, and print the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {truth: [] for truth in TRUTHS}
    if options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
    for seed in tqdm(range(options.sets), unit="set"):
        for truth, noise_df in TRUTHS.items():
            if seed >= len(found[truth]):
                found[truth].append(alarms(drawn(seed, noise_df)))
                write_json(options.out, found)
    print(summary(found))


if __name__ == "__main__":
    main()
