"""The options that set model, guide and inference: each changes one setting of the chosen preset."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

# Option, name of the setting, click's keywords. None means that the user said nothing.
_OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("--factors", "n_factors", {"type": click.IntRange(1), "metavar": "K", "help": "Number of factors."}),
    ("--biases/--no-biases", "biases", {"help": "Whether users and items have biases."}),
    ("--centred/--raw", "centred", {"help": "Whether ratings are centred by the train mean."}),
    (
        "--prior-scale",
        "prior_scale",
        {"type": float, "metavar": "S", "help": "Standard deviation of the factors' prior."},
    ),
    (
        "--bias-scale",
        "bias_scale",
        {"type": float, "metavar": "S", "help": "Standard deviation of the biases' prior."},
    ),
    ("--noise", "noise", {"metavar": "S|learned", "help": "Standard deviation of a rating, or 'learned'."}),
    (
        "--attention",
        "attention",
        {"type": click.Choice(("none", "sum", "softmax")), "help": "Weights of the attention (Eq. 9)."},
    ),
    (
        "--attention-scope",
        "attention_scope",
        {"type": click.Choice(("local", "global")), "help": "Attend to the rated rows, or to all."},
    ),
    (
        "--attention-merge",
        "attention_merge",
        {"type": click.Choice(("concat", "add")), "help": "How attention joins the parameters."},
    ),
    (
        "--data-input/--no-data-input",
        "data_input",
        {"help": "Whether the encoders read the ratings."},
    ),
    (
        "--feedback/--no-feedback",
        "feedback",
        {"help": "Whether the encoders read the other side's embeddings; without, no attention either."},
    ),
    (
        "--tower-layers",
        "n_tower_layers",
        {"type": click.IntRange(0), "metavar": "L'", "help": "Hidden layers of each tower."},
    ),
    (
        "--head-layers",
        "n_head_layers",
        {"type": click.IntRange(0), "metavar": "L", "help": "Hidden layers after the towers."},
    ),
    ("--units", "n_units", {"type": click.IntRange(1), "metavar": "M", "help": "Width of hidden layers."}),
    (
        "--tower-outputs",
        "n_tower_outputs",
        {"type": click.IntRange(1), "metavar": "K'", "help": "Width of a tower's last layer."},
    ),
    (
        "--iterations",
        "max_iterations",
        {"type": click.IntRange(1), "metavar": "N", "help": "Length of the schedule."},
    ),
    (
        "--batch-users",
        "user_batch_size",
        {"type": click.IntRange(1), "metavar": "N", "help": "Users a block."},
    ),
    (
        "--batch-items",
        "item_batch_size",
        {"type": click.IntRange(1), "metavar": "N", "help": "Items a block."},
    ),
    ("--learning-rate", "learning_rate", {"type": float, "metavar": "R", "help": "Adam's, at the start."}),
    (
        "--final-learning-rate",
        "final_learning_rate",
        {"type": float, "metavar": "R", "help": "Adam's, at the end of the schedule."},
    ),
    ("--beta-user", "beta_user", {"type": float, "metavar": "B", "help": "Weight of the users' KL (Eq. 7)."}),
    ("--beta-item", "beta_item", {"type": float, "metavar": "B", "help": "Weight of the items' KL (Eq. 7)."}),
    (
        "--warmup",
        "warmup_iterations",
        {"type": float, "metavar": "N", "help": "Iterations over which both betas grow."},
    ),
    ("--weight-decay", "weight_decay", {"type": float, "metavar": "W", "help": "Decoupled weight decay."}),
    ("--clip-norm", "clip_norm", {"type": float, "metavar": "G", "help": "Largest norm of a gradient."}),
    (
        "--patience",
        "patience",
        {"type": click.IntRange(1), "metavar": "N", "help": "Iterations without a better validation RMSE."},
    ),
    ("--keep", "keep", {"type": click.Choice(("best", "last")), "help": "Which state is the result."}),
    ("--seed", "seed", {"type": click.IntRange(0), "metavar": "S", "help": "Of the fit."}),
)


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options above, and one argument `changes`, the settings that were given."""
    names = [name for _, name, _ in _OPTIONS]

    @wraps(function)
    def with_changes(*args: Any, beta: float | None, more: tuple[tuple[str, Any], ...], **kwargs: Any) -> Any:
        taken = {name: kwargs.pop(name) for name in names}
        changes = {name: value for name, value in taken.items() if value is not None}
        if beta is not None:
            changes = {"beta_user": beta, "beta_item": beta, **changes}
        if changes.get("noise") not in (None, "learned"):
            changes["noise"] = _number(changes["noise"], "--noise")
        if changes.get("feedback") is False:
            changes.setdefault("attention", "none")
        return function(*args, changes={**changes, **dict(more)}, **kwargs)

    decorated: Callable[..., Any] = with_changes
    decorated = click.option(
        "--set",
        "more",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Any other setting by its Python name, as in ema_decay=0.9; may be given again.",
    )(decorated)
    decorated = click.option("--beta", type=float, metavar="B", help="Both KL weights at once.")(decorated)
    for declaration, name, keywords in reversed(_OPTIONS):
        decorated = click.option(declaration, name, default=None, **keywords)(decorated)
    return decorated


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a number nor 'learned'", param_hint=option) from error


def _settings(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Read ``name=value`` pairs; a value is a JSON scalar, or else text."""
    import json

    pairs = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE", param=parameter)
        try:
            parsed = json.loads(
                {"none": "null", "None": "null", "True": "true", "False": "false"}.get(text, text)
            )
        except ValueError:
            parsed = text
        pairs.append((name.strip().replace("-", "_"), parsed))
    return tuple(pairs)
