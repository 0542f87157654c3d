"""The generative side: priors, likelihoods and the factorization that joins them."""

from .binarised import BernoulliLikelihood
from .bounded import BetaLikelihood
from .counts import NegativeBinomialLikelihood, PoissonLikelihood
from .factorization import FactorizationModel
from .heavy_priors import HorseshoePrior, LaplacePrior, StudentTPrior
from .heavy_tails import StudentTLikelihood
from .hierarchical import HierarchicalNormalPrior, LKJPrior
from .implicit import ImplicitFeedback
from .likelihoods import Likelihood, NormalLikelihood
from .ordered_logistic import OrderedLogisticLikelihood
from .ordinal import OrderedProbitLikelihood
from .positive import GammaPrior, LogNormalPrior
from .priors import NormalPrior, Prior
from .row_noise import RowNoise
from .wishart import NormalWishartPrior

__all__ = [
    "BernoulliLikelihood",
    "BetaLikelihood",
    "FactorizationModel",
    "GammaPrior",
    "HierarchicalNormalPrior",
    "HorseshoePrior",
    "ImplicitFeedback",
    "LKJPrior",
    "LaplacePrior",
    "Likelihood",
    "LogNormalPrior",
    "NegativeBinomialLikelihood",
    "NormalLikelihood",
    "NormalPrior",
    "NormalWishartPrior",
    "OrderedLogisticLikelihood",
    "OrderedProbitLikelihood",
    "PoissonLikelihood",
    "Prior",
    "RowNoise",
    "StudentTLikelihood",
    "StudentTPrior",
]
