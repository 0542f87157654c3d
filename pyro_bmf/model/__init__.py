"""The generative side: priors, likelihoods and the factorization that joins them."""

from .factorization import FactorizationModel
from .likelihoods import Likelihood, NormalLikelihood
from .priors import NormalPrior, Prior

__all__ = ["FactorizationModel", "Likelihood", "NormalLikelihood", "NormalPrior", "Prior"]
