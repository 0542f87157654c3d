"""A prior and a likelihood of your own: a few lines each, checked, fitted, saved and loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyro.distributions as dist
import torch

import pyro_bmf
from pyro_bmf.conformance import check_likelihood, check_prior
from pyro_bmf.data import synthetic_ratings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import Likelihood
from pyro_bmf.model.priors.normal import Prior


class LogisticPrior(Prior):
    """Factors with tails between a Normal's and a Laplace's."""

    def __init__(self, width: float = 0.4) -> None:
        super().__init__()
        self.width = width

    def forward(self, side: str, n_factors: int | None) -> dist.TorchDistribution:
        shape = () if n_factors is None else (n_factors,)
        return dist.Logistic(torch.zeros(shape), torch.full(shape, self.width)).to_event(len(shape))

    scale = property(lambda self: 1.81 * self.width)  # the standard deviation of a factor

    def settings(self) -> dict:
        return {"kind": "logistic", "width": self.width}


class LaplaceNoise(Likelihood):
    """Ratings that are off by a Laplace error: mostly close, sometimes far."""

    def __init__(self, width: float = 0.5) -> None:
        super().__init__()
        self.width = width

    def forward(self, eta: torch.Tensor, relative: None = None) -> dist.TorchDistribution:
        return dist.Laplace(eta, self.width)

    def log_prob_rating(self, eta: torch.Tensor, levels: torch.Tensor, relative: None = None) -> torch.Tensor:
        below = self(eta.double().unsqueeze(-1)).cdf((levels[1:] + levels[:-1]) / 2)
        ends = torch.zeros_like(below[..., :1])
        return torch.cat([ends, below, ends + 1], -1).diff(dim=-1).clamp_min(1e-300).log()

    def settings(self) -> dict:
        return {"kind": "laplace-noise", "width": self.width}


check_prior(LogisticPrior())
check_likelihood(LaplaceNoise(), ratings=[1, 3, 5], levels=[1, 2, 3, 4, 5])
print("both keep to what priors and likelihoods must")

split = pyro_bmf.random_split(synthetic_ratings(150, 100, 4_000, n_factors=2, scale="1:5:1").ratings)
model = FactorizationModel(
    3, user_prior=LogisticPrior(), item_prior=LogisticPrior(), likelihood=LaplaceNoise()
)
settings = pyro_bmf.preset("amortized").replace(n_factors=3, max_iterations=10)
posterior = pyro_bmf.fit(split, settings, model=model, progress=False).posterior

file = Path(tempfile.mkdtemp()) / "mine.safetensors"
posterior.save(file)
kinds = {"priors": {"logistic": LogisticPrior}, "likelihoods": {"laplace-noise": LaplaceNoise}}
posterior = pyro_bmf.Posterior.load(file, **kinds)
print("loaded again:", type(posterior.model.user_prior).__name__, type(posterior.model.likelihood).__name__)
print(posterior.predict([1, 1, 2], [5, 6, 5]).round(2))
