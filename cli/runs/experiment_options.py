"""What the commands of experiments are given: options read into what a process can be sent, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyro_bmf.errors import SettingsError
from pyro_bmf.files import read_json

from ..named_values import plain_value
from ..printing.text import shell_word

if TYPE_CHECKING:
    from pyro_bmf.experiments.datasets import DataSet
    from pyro_bmf.experiments.experiment import Experiment
    from pyro_bmf.experiments.papers.convergence import Convergence
    from pyro_bmf.experiments.papers.ours import Ours
    from pyro_bmf.experiments.papers.sparsity import Sparsity
    from pyro_bmf.experiments.papers.table4 import Table4
    from pyro_bmf.experiments.significance import Significance
    from pyro_bmf.experiments.table3 import Table3
    from pyro_bmf.experiments.table3_rows import Choices


@dataclass(frozen=True)
class DataSpec:
    """Data sets, seeds and where to compute: nothing in it is loaded yet."""

    data: tuple[str, ...]
    sets: Path | None
    data_dir: Path | None
    seeds: int
    device: str
    threads: int | None
    command: str

    def data_sets(self) -> tuple[DataSet, ...]:
        """Return the columns."""
        from pyro_bmf.experiments.datasets import named_set, sets_of_file

        described = () if self.sets is None else sets_of_file(self.sets)
        return (*(named_set(name, self.data_dir) for name in self.data), *described)

    def open(self) -> Experiment:
        """Return the experiment."""
        raise NotImplementedError


@dataclass(frozen=True)
class RowsSpec(DataSpec):
    """What an experiment of tuned rows by data sets is made of."""

    models: tuple[str, ...]
    choices: Mapping[str, Any]

    def chosen(self) -> Choices:
        """Return what was chosen of tuning."""
        from pyro_bmf.experiments.table3_rows import Choices

        return Choices(**self.choices)


class Table3Spec(RowsSpec):
    """What Table 3 is made of."""

    def open(self) -> Table3:
        """Return the experiment."""
        from pyro_bmf.experiments.table3 import Table3

        return Table3(
            self.models, self.data_sets(), self.seeds, self.chosen(), device=self.device, threads=self.threads
        )


class Table4Spec(RowsSpec):
    """What Table 4 is made of."""

    def open(self) -> Table4:
        """Return the experiment."""
        from pyro_bmf.experiments.papers.table4 import Table4

        return Table4(
            self.models, self.data_sets(), self.seeds, self.chosen(), device=self.device, threads=self.threads
        )


@dataclass(frozen=True)
class SparsitySpec(RowsSpec):
    """What Figure 3 is made of."""

    percents: Mapping[str, tuple[float, ...]]

    def open(self) -> Sparsity:
        """Return the experiment."""
        from pyro_bmf.experiments.papers.sparsity import Sparsity

        return Sparsity(
            self.models,
            self.data_sets(),
            self.percents,
            self.seeds,
            self.chosen(),
            device=self.device,
            threads=self.threads,
        )


@dataclass(frozen=True)
class ConvergenceSpec(DataSpec):
    """What Figure 4 is made of."""

    choices: Mapping[str, Any]

    def open(self) -> Convergence:
        """Return the experiment."""
        from pyro_bmf.experiments.papers.convergence import Convergence

        return Convergence(
            self.data_sets(), self.seeds, **self.choices, device=self.device, threads=self.threads
        )


@dataclass(frozen=True)
class SignificanceSpec:
    """What the tests are made of."""

    n: int
    alpha: float
    command: str
    table: Path | None = None
    paired: bool = True
    sets: Path | None = None
    data_dir: Path | None = None
    device: str = "auto"
    threads: int | None = None

    def open(self) -> Significance:
        """Return the experiment."""
        from pyro_bmf.experiments.significance import Significance

        return Significance(self.n, self.alpha, self._ours())

    def _ours(self) -> Ours | None:
        if self.table is None:
            return None
        from pyro_bmf.data.sources import SOURCES
        from pyro_bmf.experiments.datasets import named_set, sets_of_file
        from pyro_bmf.experiments.papers.ours import Ours

        described = () if self.sets is None else sets_of_file(self.sets)
        known = {one.name: one for one in (*(named_set(n, self.data_dir) for n in SOURCES), *described)}
        return Ours(self.table, known, self.n, self.paired, self.device, self.threads)


def numbers_by_model(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, int]:
    """Read ``N`` (of all models, under the name ``*``) and ``MODEL=N``."""
    found: dict[str, int] = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        if not number.strip().isdecimal() or (equals and not name.strip()):
            raise click.BadParameter(f"{text!r}: write a whole number, or MODEL=NUMBER", param=parameter)
        found[name.strip() if equals else "*"] = int(number)
    return found


def cuts_by_model(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Read ``MODEL[@SET]:NAME=V[,V]``."""
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    for text in given:
        model, colon, rest = text.partition(":")
        name, equals, values = rest.partition("=")
        if not (colon and equals and model.strip() and name.strip() and values.strip()):
            raise click.BadParameter(
                f"{text!r}: write MODEL:NAME=VALUE,VALUE, or MODEL@SET:NAME=VALUE,VALUE", param=parameter
            )
        axis = tuple(plain_value(value.strip()) for value in values.split(","))
        found.setdefault(model.strip(), {})[name.strip()] = axis
    return found


def numbers_by_set(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """Read ``P,P`` (of every set, under the name ``*``) and ``SET=P,P``, each number once."""
    found: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, equals, values = text.rpartition("=")
        try:
            listed = tuple(dict.fromkeys(float(part) for part in values.split(",")))
        except ValueError as error:
            message = f"{text!r}: write numbers with commas between, or SET=NUMBER,NUMBER"
            raise click.BadParameter(message, param=parameter) from error
        found[name.strip() if equals else "*"] = listed
    return found


def listed(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read names with commas between, each once."""
    return None if value is None else tuple(dict.fromkeys(part.strip() for part in value.split(",")))


def spread(given: Mapping[str, int], models: list[str]) -> dict[str, int]:
    """Return numbers by model; what is said of all is of the tuned ones that are not named."""
    every = {} if "*" not in given else dict.fromkeys(models, given["*"])
    return {**every, **{name: number for name, number in given.items() if name != "*"}}


def chosen_settings(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Read chosen settings, by set (``*``: any) and model."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--settings {path} is not JSON ({error}): give a table3-chosen.json.") from error
    whole = isinstance(content, dict) and all(
        isinstance(by_model, dict) and all(isinstance(values, dict) for values in by_model.values())
        for by_model in content.values()
    )
    if not whole:
        raise SettingsError(
            f"--settings {path}: settings by set and model are needed, as in a table3-chosen.json: "
            '{"ml1m": {"i-rec": {"n_factors": 100}}}.'
        )
    return dict(content)


def command_line() -> str:
    """Return the command line that was given, without what decides how it is run and where."""
    context = click.get_current_context()
    words = ["pyro-bmf", "experiment", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) != click.core.ParameterSource.COMMANDLINE:
            continue
        if name in _UNSAID or not isinstance(parameter, click.Option):
            continue
        value = context.params[name]
        if parameter.is_flag:
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
            continue
        texts = [",".join(value)] if name in _LISTED else _written(value)
        words += [f"{parameter.opts[0]} {shell_word(text)}" for text in texts]
    return " ".join(words)


#: Options of names with commas between.
_LISTED = frozenset(("models", "variants", "literal_variants"))
_UNSAID = frozenset(
    {"out", "jobs", "timeout", "quiet", "as_json", "csv_path", "csv_safe", "data_dir", "earlier"}
)


def _written(value: Any) -> list[str]:
    """Return an option's value as it was typed, once for each time that it was given."""
    if isinstance(value, Mapping):
        found: list[str] = []
        for name, inner in value.items():
            if isinstance(inner, Mapping):
                found += [f"{name}:{key}={','.join(map(str, axis))}" for key, axis in inner.items()]
                continue
            text = ",".join(f"{one:g}" for one in inner) if isinstance(inner, tuple) else str(inner)
            found.append(text if name == "*" else f"{name}={text}")
        return found
    if isinstance(value, tuple):
        return [str(one) for one in value]
    # Where a machine keeps its files says nothing to others.
    return [value.name if isinstance(value, Path) and value.is_absolute() else str(value)]
