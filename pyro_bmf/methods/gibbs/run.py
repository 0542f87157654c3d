"""A fit by Gibbs sweeps: where the chain starts, and what its draws give."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from ...errors import SettingsError
from ...model import FactorizationModel
from ..build_model import build_model
from ..coordinate_ascent.settings import CoordinateAscent
from ..job import Checkpoints, Fitted, Handover, Job
from .chain import Chain, check_gibbs
from .known_parts import latent_utilities
from .settings import Gibbs

#: Of the moves of a sweep: a chain that some have begun no others go on with.
SWEEPS_VERSION = 11
#: Of what sweeps draw, and from which prior: where moves alone change, finished results stand.
POSTERIOR_VERSION = 6


class GibbsRun:
    """Sweeps from the prior, or from where a guide's fit ended.

    Parameters
    ----------
    job : Job
    settings : Gibbs

    Raises
    ------
    SettingsError
        If sweeps do not know the model.
    """

    def __init__(self, job: Job, settings: Gibbs) -> None:
        self.job, self.settings = job, settings
        self.model = self._build()
        check_gibbs(self.model)

    def _build(self) -> FactorizationModel:
        job = self.job
        if job.own is None:
            return build_model(job.settings.model, job.train.scale.levels, gibbs=True, ends=job.ends)
        if job.settings.then is None:
            return job.own
        if isinstance(job.settings.method, CoordinateAscent):
            raise SettingsError(
                "Coordinate ascent needs Normal priors and Gibbs sweeps need Normal half-t or Normal-Wishart "
                "ones: no model of your own is known to both. Leave out the sweeps (then=None), or "
                "sample from the start (method=Gibbs())."
            )
        # The guide's fit learns parameters of the model.
        return copy.deepcopy(job.own)

    def __call__(self, start: Handover | None, kept: Checkpoints) -> Fitted:
        """Run the chain from the state that a guide's fit left, or from the prior."""
        job, settings, model = self.job, self.settings, self.model
        job.start(model)
        pairs = None
        if job.valid is not None:
            pairs = (
                torch.from_numpy(np.array(job.valid.users, dtype=np.int64)).to(job.device),
                torch.from_numpy(np.array(job.valid.items, dtype=np.int64)).to(job.device),
                torch.from_numpy(job.valid.ratings.astype(np.float32)).to(job.device),
            )
        seed = job.settings.seed
        chain = Chain(
            model,
            job.train,
            pairs,
            settings,
            seed=seed,
            device=job.device,
            reporter=job.reporter,
            implicit=job.implicit,
        )
        history: list[dict[str, Any]] = [] if start is None else list(start.history)
        draws = chain.run(
            start,
            self._noise(start),
            self._noise(None),
            checkpoint=kept.file,
            every=kept.every,
            resume=kept.resume,
            identity={**self._version(), **kept.identity},
            history=history,
        )
        info = {
            "beta_user": 1.0,
            "beta_item": 1.0,
            "iterations": len(history) - settings.all_sweeps,
            "sweeps": settings.sweeps,
            "kept_draws": draws.count,
        }
        return Fitted(model, draws.guide, draws.rows(model), history, len(history), "sweeps", info)

    def _version(self) -> dict[str, int]:
        """Return what a checkpoint must be of beside the fit: sweeps that draw what these do."""
        return {"version of the sweeps": SWEEPS_VERSION}

    def _noise(self, start: Handover | None) -> float:
        """Return the standard deviation of the noise that the chain starts with."""
        job, utilities = self.job, latent_utilities(self.model)
        # Ratings that are all equal leave sums of squares of rounding, which no precision is to be read off.
        least = 0.05 if job.settings.model.standardised else 1e-3
        noise = 0.9 * max(float(job.train.ratings.std()), least)
        if start is not None:
            return start.noise or noise
        fixed = self.model.likelihood.noise_sd
        return noise if utilities.latent or utilities.learned_noise or fixed is None else float(fixed)
