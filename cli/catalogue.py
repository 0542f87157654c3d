"""`pyro-bmf presets`, `priors` and `likelihoods`: what a name or a word may stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from pyro_bmf.methods.setting import ALWAYS, settings_of
from pyro_bmf.methods.settings import PRESETS, Settings, preset

from .printing.output import TableWriter, table_options


@click.command()
@click.argument("name", required=False, type=click.Choice(tuple(PRESETS)))
@table_options
def presets(name: str | None, tables: TableWriter) -> None:
    """List the presets; with NAME, every setting of one: its flag, its value and what it means.

    \b
    Examples:
      pyro-bmf presets
      pyro-bmf presets amortized
    """
    if name is None:
        tables.show("Presets: settings that belong together", [_preset(one) for one in PRESETS])
        return
    settings = preset(name)
    rows = [
        {
            "of": _part(part, settings),
            "setting": one.name,
            "flag": one.about.flag or f"--set {one.name}=",
            "value": _written(getattr(part, one.name)),
            "meaning": one.about.help,
            "read": "always" if one.about.when is ALWAYS else f"where {one.about.when.text}",
        }
        for part in settings.parts
        for one in settings_of(part.__class__)
    ]
    tables.show(f"Settings of the preset {name}", rows)


def _preset(name: str) -> dict[str, object]:
    settings = preset(name)
    summary = (PRESETS[name].__doc__ or "").strip().splitlines()[0].removeprefix("Return ")
    return {
        "name": name,
        "method": settings.method.word,
        "factors": settings.model.n_factors,
        "what": summary,
    }


def _part(part: object, settings: Settings) -> str:
    """Return what a setting is of: the model, the encoder, the method by its word, or the fit."""
    names = {id(settings.model): "model", id(settings): "fit"}
    names |= {id(stage): stage.word for stage in settings.stages}
    return names.get(id(part), "encoder")


def _written(value: object) -> str:
    """Return a value as ``--set`` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@click.command()
@table_options
def priors(tables: TableWriter) -> None:
    """List the priors of factors, with their arguments, densities and the presets that know them.

    \b
    Examples:
      pyro-bmf priors
      pyro-bmf fit --data ml100k --preset amortized --prior student-t:df=4,scale=0.7
    """
    from pyro_bmf.methods.build_model import SWEEP_PRIORS
    from pyro_bmf.model.catalogue import PRIORS

    _show("Priors of factors (u_k is one factor, u a row)", PRIORS, SWEEP_PRIORS, ("normal",), tables)


@click.command()
@table_options
def likelihoods(tables: TableWriter) -> None:
    """List the likelihoods of a rating, with their arguments, densities and the presets that know them.

    \b
    Examples:
      pyro-bmf likelihoods
      pyro-bmf fit --data ml100k --likelihood ordered-logistic
    """
    from pyro_bmf.methods.build_model import SWEEP_LIKELIHOODS
    from pyro_bmf.model.catalogue import LIKELIHOODS

    title = "Likelihoods of a rating x, given its predictor eta"
    _show(title, LIKELIHOODS, SWEEP_LIKELIHOODS, SWEEP_LIKELIHOODS, tables)


def _show(
    title: str,
    kinds: Mapping[str, type],
    sweeps: Iterable[str],
    conjugate: Iterable[str],
    tables: TableWriter,
) -> None:
    from pyro_bmf.model.spelling import arguments_of

    rows = []
    for name, kind in kinds.items():
        arguments = [
            f"{key}={'(of the scale)' if default is None else default}"
            for key, default in arguments_of(kind).items()
        ]
        presets = ["default", "guide", "gibbs"] * (name in sweeps) + ["conjugate"] * (name in conjugate)
        rows.append(
            {
                "name": name,
                "arguments": " ".join(arguments) or "none",
                "density": getattr(kind, "density", ""),
                "presets": ", ".join([*presets, "amortized", "paper", "literal"]),
            }
        )
    tables.show(title, rows)
