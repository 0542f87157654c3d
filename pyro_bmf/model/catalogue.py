"""The kinds of prior and likelihood that a saved model may name, and how settings become objects."""

from __future__ import annotations

from typing import Any

from ..errors import SettingsError
from .likelihoods.bernoulli import BernoulliLikelihood
from .likelihoods.beta import BetaLikelihood
from .likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from .likelihoods.normal import Likelihood, NormalLikelihood
from .likelihoods.ordered_logistic import OrderedLogisticLikelihood
from .likelihoods.ordered_probit import OrderedProbitLikelihood
from .likelihoods.student_t import StudentTLikelihood
from .priors.heavy_tails import HorseshoePrior, LaplacePrior, StudentTPrior
from .priors.hierarchical import HierarchicalNormalPrior, LKJPrior
from .priors.normal import NormalPrior, Prior
from .priors.normal_half_t import NormalHalfTPrior
from .priors.normal_wishart import NormalWishartPrior
from .priors.positive import GammaPrior, LogNormalPrior

#: Kinds of prior that a saved model may name.
PRIORS: dict[str, type[Prior]] = {
    "normal": NormalPrior,
    "hierarchical-normal": HierarchicalNormalPrior,
    "lkj": LKJPrior,
    "normal-wishart": NormalWishartPrior,
    "normal-half-t": NormalHalfTPrior,
    "student-t": StudentTPrior,
    "laplace": LaplacePrior,
    "horseshoe": HorseshoePrior,
    "gamma": GammaPrior,
    "log-normal": LogNormalPrior,
}

#: Kinds of likelihood that a saved model may name.
LIKELIHOODS: dict[str, type[Likelihood]] = {
    "normal": NormalLikelihood,
    "student-t": StudentTLikelihood,
    "ordered-logistic": OrderedLogisticLikelihood,
    "ordered-probit": OrderedProbitLikelihood,
    "poisson": PoissonLikelihood,
    "negative-binomial": NegativeBinomialLikelihood,
    "bernoulli": BernoulliLikelihood,
    "beta": BetaLikelihood,
}


def prior_from_settings(settings: dict[str, Any], kinds: dict[str, type[Prior]] | None = None) -> Prior:
    """Rebuild a prior from its settings; `kinds` adds a user's own to those known here."""
    arguments = dict(settings)
    kind = arguments.pop("kind", None)
    known = {**PRIORS, **(kinds or {})}
    if kind not in known:
        raise SettingsError(f"The prior {kind!r} is not known: it may be one of {', '.join(sorted(known))}.")
    return known[kind](**arguments)


def likelihood_from_settings(
    settings: dict[str, Any], kinds: dict[str, type[Likelihood]] | None = None
) -> Likelihood:
    """Rebuild a likelihood from its settings; `kinds` adds a user's own to those known here."""
    arguments = dict(settings)
    kind = arguments.pop("kind", None)
    known = {**LIKELIHOODS, **(kinds or {})}
    if kind not in known:
        raise SettingsError(
            f"The likelihood {kind!r} is not known: it may be one of {', '.join(sorted(known))}."
        )
    return known[kind](**arguments)
