"""The state of a Gibbs chain: everything that the next sweep depends on, as named tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...model.sides import TwoSides
from ..kernel import Entries

# What is kept in double precision whatever the rows are in, and what is above 0.
_DOUBLE = ("cuts", "noise_precision", "row_precision_shape")
_POSITIVE = ("noise_precision", "row_precision", "row_precision_shape")
#: Priors of rows begin so many times as wide as their guess, or narrower.
START_WIDTH = 6.0
#: By what a pass over both sides multiplies a product as strong as the noise when a chain starts.
_GAIN = 6.0


@dataclass(eq=False)
class SideState:
    """One side's rows and what their prior is made of; D = K + 1 where rows have a bias.

    Attributes
    ----------
    rows : Tensor, shape (n, D)
        Factors and, last, the bias.
    location : Tensor, shape (D,)
        Mean of the rows about what implicit feedback says.
    precision : Tensor, shape (D, D)
        Of the rows about their prior mean; block-diagonal, the bias apart.
    weights : Tensor, shape (n_other, D)
        Of implicit feedback; zeros where the model has none.
    weights_precision : Tensor, shape (D,)
    row_precision : Tensor, shape (n,)
        What each row multiplies the noise's precision by; ones where rows have no noise of their own.
    row_precision_shape : Tensor, shape ()
        Shape a of those multipliers' Gamma prior.
    """

    rows: Tensor
    location: Tensor
    precision: Tensor
    weights: Tensor
    weights_precision: Tensor
    row_precision: Tensor
    row_precision_shape: Tensor

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, prefix: str, tensors: dict[str, Tensor]) -> SideState:
        """Take the state from what `tensors` gave."""
        return cls(**{field.name: tensors[f"{prefix}.{field.name}"] for field in fields(cls)})

    def scale_factors(self, factors: Tensor) -> None:
        """Multiply the first columns of rows, in place, and all that goes with them: factors (k,)."""
        g, k = factors.to(self.rows.dtype), len(factors)
        self.rows[:, :k] *= g
        self.location[:k] *= g
        self.weights[:, :k] *= g
        self.precision[:k, :k] /= g.unsqueeze(1) * g
        self.weights_precision[:k] /= g.square()


@dataclass(eq=False)
class ChainState(TwoSides[SideState]):
    """Both sides, the likelihood's unknowns, and how far the chain is.

    Attributes
    ----------
    user, item : SideState
    noise_precision : Tensor, shape ()
        Of a rating (or utility) about its predictor.
    cuts : Tensor, shape (n_levels - 1,), or empty
        Of an ordered likelihood.
    """

    user: SideState
    item: SideState
    noise_precision: Tensor
    cuts: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {
            **self.user.tensors("user"),
            **self.item.tensors("item"),
            "noise_precision": self.noise_precision,
            "cuts": self.cuts,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> ChainState:
        """Take the state from what `tensors` gave."""
        return cls(
            SideState.from_tensors("user", tensors),
            SideState.from_tensors("item", tensors),
            tensors["noise_precision"],
            tensors["cuts"],
        )

    def check(self, n_users: int, n_items: int, width: int) -> None:
        """Refuse tensors of other shapes than a chain's of so many rows and numbers a row.

        Raises
        ------
        ValueError
            Naming the first.
        """
        for name, side, n, others in (
            ("user", self.user, n_users, n_items),
            ("item", self.item, n_items, n_users),
        ):
            shapes = {
                "rows": ((n, width),),
                "location": ((width,),),
                "precision": ((width, width),),
                "weights": ((others, width), (0, width)),
                "weights_precision": ((width,),),
                "row_precision": ((n,),),
                "row_precision_shape": ((),),
            }
            for part, allowed in shapes.items():
                tensor = getattr(side, part)
                if tuple(tensor.shape) not in allowed or not tensor.is_floating_point():
                    raise ValueError(f"{name}.{part} is {tensor.dtype} of shape {tuple(tensor.shape)}")
        if self.noise_precision.ndim or self.cuts.ndim != 1:
            raise ValueError("noise_precision or cuts are of another shape")
        kind = self.user.rows.dtype
        for name, tensor in self.tensors().items():
            double = name.endswith(_DOUBLE)
            if tensor.numel() and tensor.dtype != (torch.float64 if double else kind):
                raise ValueError(f"{name} is {tensor.dtype} beside rows of {kind}")
            if name.endswith(_POSITIVE) and not bool((tensor > 0.0).all()):
                raise ValueError(f"{name} is not positive")


def block_precision(factors: Tensor, bias: Tensor | None) -> Tensor:
    """Join a (K, K) precision of factors and a bias's into one block-diagonal matrix."""
    if bias is None:
        return factors
    joined: Tensor = torch.block_diag(factors, bias.reshape(1, 1))  # type: ignore[no-untyped-call]
    return joined


def start_precision(noise_sd: float, entries: Entries, n_factors: int, guess: float) -> Tensor:
    r"""Return the precision (K, K) that priors of factors begin with, float64.

    Given one side's rows, the other's are what ratings say of them, shrunk; with :math:`\bar n` and
    :math:`\bar m` ratings a user and an item and priors of the sd s, a pass multiplies a weak product of
    strength a by :math:`a s^2 \sqrt{\bar n \bar m} / \sigma^2`. That is six for one as strong as the noise:
    with much narrower priors factors die out while their partners are small, and none comes back soon; with
    wider ones, those that explain nothing take a hundred sweeps to become small.

    Parameters
    ----------
    noise_sd : float
        Sigma, the standard deviation of ratings or utilities about predictors.
    entries : Entries
    n_factors : int
        K.
    guess : float
        The prior's at s, of which it is `START_WIDTH` times as much at most.
    """
    a_row = len(entries.rows) / math.sqrt(entries.n_rows * entries.n_columns)
    variance = min(_GAIN * noise_sd / max(a_row, 1e-9), (START_WIDTH * guess) ** 2)
    return torch.eye(n_factors, dtype=torch.float64) / variance
