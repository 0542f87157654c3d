"""The generative side: priors, likelihoods and the factorization that joins them."""

from .factorization import FactorizationModel
from .implicit_feedback import ImplicitFeedback
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
from .row_noise import RowNoise

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
    "NormalHalfTPrior",
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
