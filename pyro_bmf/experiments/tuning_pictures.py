"""What mattered in a study: Optuna's pictures of the importance of settings, and of values by setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_bmf.experiments.reports import save_figure
from pyro_bmf.experiments.studies import quiet
from pyro_bmf.experiments.tuning import OBJECTIVES, Tuning

#: Completed trials below which importances say nothing.
LEAST_TRIALS = 5
_UNREAD = "not read"
_WORDS = {"rmse": "RMSE", "nll": "NLL (nats)", "ndcg": "NDCG@20"}


def plot_study(tuning: Tuning) -> list[Path]:
    """Draw the importance of each setting, and the objective by its values, as PNG and as SVG.

    Importances are those of PED-ANOVA among the completed trials. A setting that a combination does not read
    counts as a value of its own.

    Returns
    -------
    list of Path
        In the study's folder; none where fewer than `LEAST_TRIALS` trials were completed, or all are alike.
    """
    import matplotlib.pyplot as plt
    import optuna
    from matplotlib import rc_context

    study = _by_values(tuning)
    tuned = [name for name in tuning.grid.names if len({trial.params[name] for trial in study.trials}) > 1]
    if len(study.trials) < LEAST_TRIALS or not tuned:
        return []
    word = f"validation {_WORDS[tuning.plan.objective]}"
    files: list[Path] = []
    with quiet(), rc_context():
        axes = optuna.visualization.matplotlib.plot_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            params=tuned,
            target_name=word,
        )
        axes.set_title(_title(tuning, f"what decided the {word}"), loc="left", fontsize=10)
        axes.set_xlabel("importance (PED-ANOVA, the sum is 1)")
        axes.set_ylabel("setting")
        files += save_figure(plt.gcf(), tuning.folder / "importances")
        plt.close()
        optuna.visualization.matplotlib.plot_slice(study, params=tuned, target_name=word)
        figure = plt.gcf()
        figure.set_size_inches(max(4.0, 2.6 * len(tuned)), 3.4)
        for one in figure.axes[: len(tuned)]:
            one.tick_params(axis="x", labelsize=7, labelrotation=45)
            one.set_xlabel(one.get_xlabel(), fontsize=9)
        figure.suptitle(_title(tuning, f"{word} by setting, one dot a trial"), fontsize=10)
        files += save_figure(figure, tuning.folder / "slices")
        plt.close()
    return files


def _by_values(tuning: Tuning) -> Any:
    """Return the completed trials as a study in which every setting has all values of its axis."""
    import optuna

    grid = tuning.grid
    unread = {name for at, name in enumerate(grid.names) if any(cell[at] is None for cell in grid.cells)}
    choices = {
        name: optuna.distributions.CategoricalDistribution(
            [str(value) for value in axis] + [_UNREAD] * (name in unread)
        )
        for name, axis in grid.axes.items()
    }
    with quiet():
        study = optuna.create_study(direction=OBJECTIVES[tuning.plan.objective])
        for trial in tuning.shared.trials:
            if trial.state.name != "COMPLETE":
                continue
            values = tuning.values(trial)
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: str(values.get(name, _UNREAD)) for name in grid.names},
                    distributions=dict(choices),
                    value=trial.value,
                )
            )
    return study


def _title(tuning: Tuning, what: str) -> str:
    done = sum(trial.state.name == "COMPLETE" for trial in tuning.shared.trials)
    return f"{tuning.contender.title} on {tuning.split.ratings.name}: {what} ({done} trials)"
