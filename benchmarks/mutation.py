"""What was broken on purpose without a test that saw it: a table of a mutation run, of what mutmut leaves.

    make mutation MUTATE="pyro_bmf.methods.gibbs.hyper_draws*"

runs mutmut on the modules named (all that ``[tool.mutmut]`` of pyproject.toml lists, when none are) and then
this, which puts counts and surviving mutants by module into benchmarks/results/mutation.json. Modules that
were not run keep what stands there.

    python benchmarks/mutation.py --sample 5

prints mutants that mutmut has made, five of each module drawn at random, to be given to ``MUTATE``: hours
become minutes, and the table says how many of a module's mutants were run.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pyro_bmf.files import write_json

#: Why a surviving mutant is left: the first pair of patterns that the line before and after matches says it.
REASONS = (
    (r"tril\(.*, -1\)", r"tril\(.*, \)", "the diagonal is overwritten in the next line: the same numbers"),
    (
        r"\+ (noise|spread|torch.randn|torch.linalg.solve_tri)",
        r"- (noise|spread|torch)",
        "the sign of symmetric noise: the same distribution",
    ),
    (r"squeeze\(-1\)", r"squeeze\([+]?1\)", "the last of two dimensions either way: the same numbers"),
    (r"\+ step \* move", r"- step \* move", "the sign of a symmetric step: the same distribution"),
    (r"chance.* < new", r"chance.* <= new", "continuous numbers are equal with probability zero"),
    (r"strict=True", r"zip", "both are of one length: the check never speaks"),
    (r"\.to\(.*dtype\)", r"\.to\(None\)", "precision: tests of this module run in float64 throughout"),
    (r'kind="stable"', r'kind="STABLE"', "the library reads the word in capitals too"),
    (r"\* _TIE", r"/ _TIE", "another scale of numbers that are only put in order"),
    (
        r"(probability - _TIE|2\.0 \* by_user|_TINY|1e-6)",
        r"<=|>=|< 1e-6",
        "equal to the bound by rounding alone",
    ),
    (r"reshape\(-1\)", r"reshape\((None|-2)\)", "the library reads it as -1"),
    (r"astype\(", r"astype\(None\)", "the same numbers in another type"),
    (r'type == "cpu"', r"type", "torch's sort for NumPy's: the same order"),
    (r"1 / np.log2\(np.arange\(2, n \+ 2", r"", "a factor of gain and best gain alike, or a place beyond n"),
    (
        r"else np.zeros\(len",
        r"np.zeros\(None\)",
        "a list without places has no gain: nought for all, or for each",
    ),
    (
        r"isfinite\(k_hat\) &",
        r"isfinite\(k_hat\) \|",
        "neither is finite without the other in any row of the tests",
    ),
    (r"efficiency > 225|n_draws - 1\)", r"", "both lengths of the tail agree there, or it is never so long"),
    (r"values.sort\(1\)", r"", "a path for other devices than the CPU, which tests do not take"),
    (r"k == 0.0|sigma > 0.0", r"k == 1.0|sigma >= 0.0", "no number of the tests is exactly there"),
    (r"1e-300", r"", "a guard against the logarithm of zero: no test's draw is so small"),
)
_PLACE = re.compile(r"(, )?\b(device|dtype)=[^,()]*")
_AXIS = re.compile(r"(, )?\baxis=-?1\b")
_TEXT = re.compile(r"\"[^\"]*\"")
#: mutmut's exit codes of a mutant's tests.
OUTCOMES = {0: "survived", 1: "killed", 3: "killed", 33: "no tests", 36: "timed out", -24: "timed out"}


def changes(path: Path, mutants: list[str]) -> dict[str, list[str]]:
    """Return the changed lines of some mutants in a file that mutmut wrote."""
    source = path.read_text(encoding="utf-8")
    # Once for the file: `ast.get_source_segment` would split it anew for every function.
    lines = source.splitlines()
    bodies = {
        node.name: lines[node.lineno - 1 : node.end_lineno]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }
    found = {}
    for name in mutants:
        base = re.sub(r"__mutmut_\d+$", "__mutmut_orig", name)
        compared = difflib.unified_diff(bodies[base], bodies[name], n=0, lineterm="")
        changed = [line for line in compared if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        found[name] = [line for line in changed if "__mutmut_" not in line]
    return found


def why_left(changed: list[str]) -> str:
    """Return why a mutant with these changed lines is left."""
    before = " ".join(line[1:].strip() for line in changed if line[0] == "-")
    after = " ".join(line[1:].strip() for line in changed if line[0] == "+")
    if _PLACE.sub("", before).replace(", )", ")") == _PLACE.sub("", after).replace(", )", ")"):
        return "device or precision of a tensor: tests run on the CPU, and draws agree to what they resolve"
    for old, new, reason in REASONS:
        if re.search(old, before) and re.search(new, after):
            return reason
    if _AXIS.sub("", before).replace(", )", ")") == _AXIS.sub("", after).replace(", )", ")"):
        return "the last axis, which is the one by default"
    if _TEXT.sub("", before) == _TEXT.sub("", after):
        return "the words of a message, which tests do not spell out"
    return "not explained"


def module_result(meta: Path, root: Path) -> dict[str, Any] | None:
    """Return counts and survivors of one module; None where none of its mutants were run."""
    codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    run = {key: code for key, code in codes.items() if code is not None}
    if not run:
        return None
    left = [key.rpartition(".")[2] for key, code in run.items() if code == 0]
    survivors = [
        {"mutant": name, "change": changed, "why": why_left(changed)}
        for name, changed in changes(meta.with_suffix(""), left).items()
    ]
    outcomes = Counter(OUTCOMES.get(code, f"exit {code}") for code in run.values())
    return {
        "module": str(meta.with_suffix("").relative_to(root)),
        "mutants": len(codes),
        "run": len(run),
        **{name: outcomes[name] for name in sorted(outcomes)},
        "survivors": survivors,
    }


def sample(folder: Path, number: int, seed: int) -> list[str]:
    """Return the names of so many mutants of each module, drawn at random."""
    names = []
    for meta in sorted(folder.rglob("*.py.meta")):
        made = sorted(json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"])
        # Seeded by the module, so that a module's draw does not depend on which others are there.
        draw = random.Random(f"{seed} {meta.relative_to(folder)}")
        names += sorted(draw.sample(made, min(number, len(made))))
    return names


def main() -> None:
    """Read a run, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=Path, default=Path("mutants"), help="the folder that mutmut made")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mutation.json"))
    parser.add_argument("--sample", type=int, metavar="N", help="print N mutants of each module, and end")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    given = parser.parse_args()
    if given.sample is not None:
        print(" ".join(sample(given.mutants, given.sample, given.seed)))
        return
    table = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else []
    by_module = {row["module"]: row for row in table}
    for meta in sorted(given.mutants.rglob("*.py.meta")):
        row = module_result(meta, given.mutants)
        if row is not None:
            by_module[row["module"]] = row
    rows = [by_module[name] for name in sorted(by_module)]
    write_json(given.out, rows)
    for row in rows:
        print({name: value for name, value in row.items() if name != "survivors"})
        for one in row["survivors"]:
            print("  ", one["mutant"], "|", one["why"], "|", " ".join(one["change"]))


if __name__ == "__main__":
    main()
