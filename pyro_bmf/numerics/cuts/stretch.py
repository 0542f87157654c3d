"""The scale of the predictors, which is drawn together with the cut points: what its prior says."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stretch:
    r"""The density of a factor g of the predictors, under Haar's measure dg / g, by what they are made of.

    .. math:: \log p(g) = A \log g - B g^{-2} - \sum_k P_k \log(1 + C_k g^{-2}) + \text{const},

    and g = 1 is where the predictors stand.

    Attributes
    ----------
    slope : float
        A.
    rate : Tensor, shape ()
        B, float64.
    tails, powers : Tensor, shape (n,)
        C and P, float64.
    """

    slope: float
    rate: Tensor
    tails: Tensor
    powers: Tensor

    def change(self, factor: Tensor) -> Tensor:
        """Return the log-density at a factor () less that at one: not a number where it is negative."""
        tails = self.powers @ ((self.tails / factor**2).log1p() - self.tails.log1p())
        return self.slope * factor.log() - self.rate * (factor**-2 - 1.0) - tails

    def gradient(self) -> Tensor:
        """Return the slope at one of the log-density per dg."""
        return self.slope - 1.0 + 2.0 * self.rate + 2.0 * self.powers @ (self.tails / (1.0 + self.tails))

    def curvature(self) -> Tensor:
        """Return how much it is curved downwards there, or zero: for proposals, which may be any."""
        tails = 2.0 * self.powers @ (self.tails * (3.0 + self.tails) / (1.0 + self.tails) ** 2)
        return (self.slope - 1.0 + 6.0 * self.rate + tails).clamp_min(0.0)

    def after(self, factor: Tensor) -> Stretch:
        """Return the density about the predictors that a factor has made."""
        return Stretch(self.slope, self.rate / factor**2, self.tails / factor**2, self.powers)
