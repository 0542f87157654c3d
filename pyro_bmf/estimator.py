"""The model as an estimator: what is fitted beside the baselines, by the same words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .data.splits import Split
from .fitting import fit
from .methods.settings import Settings
from .posterior import Posterior


@dataclass(frozen=True)
class MatrixFactorization:
    """`pyro_bmf.fit` under the contract of `pyro_bmf.systems.contract.Estimator`.

    Attributes
    ----------
    settings : Settings, optional
        Of model and method; the default preset when not given.
    device : str
        As `pyro_bmf.fit` takes it.
    """

    settings: Settings | None = None
    device: str = "auto"
    name: ClassVar[str] = Posterior.name

    def fit(self, split: Split, *, refit: bool = False) -> Posterior:
        """Return the posterior that `pyro_bmf.fit` gives of the same split, settings and refit."""
        return fit(split, self.settings, refit=refit, device=self.device, progress=False).posterior
