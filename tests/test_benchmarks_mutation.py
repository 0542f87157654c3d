"""Mutants that are drawn for a short mutation run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from mutation import sample  # noqa: E402


def test_a_sample_has_so_many_mutants_of_each_module_and_does_not_depend_on_others(tmp_path: Path) -> None:
    for module, number in (("long", 30), ("short", 2)):
        names = {f"pyro_bmf.{module}.x_f__mutmut_{i}": None for i in range(number)}
        (tmp_path / f"{module}.py.meta").write_text(json.dumps({"exit_code_by_key": names}), encoding="utf-8")
    drawn = sample(tmp_path, 5, seed=0)
    of = [[name for name in drawn if f".{module}." in name] for module in ("long", "short")]
    assert [len(set(one)) for one in of] == [5, 2]
    assert sample(tmp_path, 5, seed=1) != drawn
    (tmp_path / "short.py.meta").unlink()
    assert sample(tmp_path, 5, seed=0) == of[0]
