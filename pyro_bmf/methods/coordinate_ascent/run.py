"""A fit by coordinate ascent: until validation RMSE, or without one the bound, stops moving."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from ...errors import FitError
from ...estimate import check_needs, estimate_ascent
from ..build_model import build_model
from ..job import Checkpoints, Fitted, Handover, Job
from .ascent import Ascent
from .settings import CoordinateAscent

#: What an iteration must gain to count as better.
_GAIN = 1e-5


class AscentRun:
    """One fit; the last state is kept.

    Parameters
    ----------
    job : Job
    settings : CoordinateAscent
    """

    def __init__(self, job: Job, settings: CoordinateAscent) -> None:
        self.job, self.settings = job, settings
        model = job.own
        if model is None:
            # Rows' own noise is the sweeps' alone where these come after: the ascent has none.
            plain = replace(job.settings.model, row_noise="none")
            model = build_model(plain, job.train.scale.levels, **job.built_from())
        self.model = model

    def __call__(self, start: Handover | None, kept: Checkpoints) -> Fitted:
        """Run the iterations; there are no checkpoints."""
        job, settings, model, train = self.job, self.settings, self.model, self.job.train
        needs = estimate_ascent(
            *(len(train), train.n_users, train.n_items, model.n_factors + model.biases),
            device=str(job.device),
        )
        check_needs(needs)
        job.start(model)
        ascent = Ascent(
            model.to(job.device), train, seed=job.settings.seed, device=job.device, point=settings.point
        )
        job.reporter.note(
            f"{len(train):,} training ratings of {train.n_users:,} users on {train.n_items:,} items: "
            f"coordinate ascent, {model.n_factors} factors "
            + ("at their mode" if settings.point else "with full covariances")
            + f", about {needs.memory / 1e9:.2f} GB of memory ({needs.available / 1e9:.1f} GB free on "
            f"{needs.device})."
        )
        history = list[dict[str, Any]]()
        job.reporter.start(settings.last_iteration, 1, 0)
        best, since = math.inf, 0
        stopped = "max-iterations"
        for number in range(1, settings.last_iteration + 1):
            begun = time.perf_counter()
            record: dict[str, Any] = {"iteration": number, "stage": "conjugate", **ascent.iteration()}
            rmse = None
            if job.validate is not None:
                rows = ascent.guide.known_rows("user"), ascent.guide.known_rows("item")
                ascent.remember()
                rmse = job.validate(model, rows)
            record |= {"loss": -record["elbo"], "loss_per_rating": -record["elbo"] / len(train)}
            record |= {"valid_rmse": rmse, "seconds": time.perf_counter() - begun}
            history.append(record)
            job.reporter.iteration(record)
            if not math.isfinite(record["elbo"]):
                raise FitError(f"Coordinate ascent diverged in iteration {number}: use fewer factors.")
            score = record["loss"] / len(train) if rmse is None else rmse
            best, since = (score, 0) if score < best - _GAIN else (best, since + 1)
            if settings.patience is not None and since >= settings.patience:
                stopped = "patience"
                break
        ascent.finish()
        rows = ascent.guide.known_rows("user"), ascent.guide.known_rows("item")
        done = len(history)
        info = {"beta_user": 1.0, "beta_item": 1.0, "iterations": done, "kept_iteration": done}
        return Fitted(model, ascent.guide, rows, history, done, stopped, info)
