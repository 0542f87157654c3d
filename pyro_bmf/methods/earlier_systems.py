"""Earlier Bayesian factorizations as configurations of this model: what each preset of that name holds.

What is their authors' and what is not stands in docs/systems.md.
"""

from __future__ import annotations

import math

from .coordinate_ascent.settings import CoordinateAscent
from .cross_feedback.settings import CrossFeedback, EncoderSettings
from .gibbs.settings import Gibbs
from .model_settings import ModelSettings


def pmf() -> tuple[ModelSettings, CoordinateAscent]:
    """Return PMF (Mnih and Salakhutdinov 2008): factors at their mode under Normal priors, Normal ratings.

    The squared norms' weight is that of their objective, (noise / prior scale)^2, and stays as it is.
    """
    model = ModelSettings(n_factors=10, biases=False, prior_scale=0.3, noise=0.8)
    return model, CoordinateAscent(max_iterations=100, patience=5, point=True)


def bpmf() -> tuple[ModelSettings, Gibbs]:
    """Return Bayesian PMF (Salakhutdinov and Mnih 2008): Gibbs sweeps under Normal-Wishart hyperpriors.

    Theirs to the number: W_0 = I of K degrees of freedom, mu_0 = 0, beta_0 = 2, and ratings of precision 2.
    """
    model = ModelSettings(
        n_factors=30,
        biases=False,
        # Of K degrees of freedom, this guess is the identity for W_0.
        prior="normal-wishart:kappa=2,extra_degrees=0",
        prior_scale=1.0,
        noise=math.sqrt(0.5),
        standardised=False,
    )
    return model, Gibbs(sweeps=150, burn_in=50, kept_draws=100)


def robust() -> tuple[ModelSettings, CrossFeedback]:
    """Return robust BMF (Lakshminarayanan et al. 2011): Student-t factors and ratings, noise by row."""
    model = ModelSettings(n_factors=10, prior="student-t:df=4", likelihood="student-t:df=4", row_noise="both")
    return model, _encoders()


def poisson() -> tuple[ModelSettings, CrossFeedback]:
    """Return Poisson factorization (Gopalan et al. 2015): Gamma factors, Poisson ratings."""
    model = ModelSettings(
        n_factors=10,
        biases=False,
        centred=False,
        prior="gamma:shape=3,rate=5",
        likelihood="poisson:link=identity",
        standardised=False,
    )
    return model, _encoders()


def _encoders() -> CrossFeedback:
    """Return the encoders of the preset `amortized`, without tempering: a bound on the evidence."""
    encoder = EncoderSettings(
        n_tower_layers=0, n_head_layers=0, n_tower_outputs=50, attention="sum", input_dropout=0.3
    )
    return CrossFeedback(
        encoder, warmup_iterations=5, learning_rate=2e-3, final_learning_rate=1e-4, max_iterations=40
    )
