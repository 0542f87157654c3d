"""The generative side: priors, likelihoods and the factorization that joins them."""

from .factorization import FactorizationModel
from .implicit import ImplicitFeedback
from .likelihoods import Likelihood, NormalLikelihood
from .ordinal import OrderedProbitLikelihood
from .priors import NormalPrior, Prior
from .row_noise import RowNoise
from .wishart import NormalWishartPrior

__all__ = [
    "FactorizationModel",
    "ImplicitFeedback",
    "Likelihood",
    "NormalLikelihood",
    "NormalPrior",
    "NormalWishartPrior",
    "OrderedProbitLikelihood",
    "Prior",
    "RowNoise",
]
