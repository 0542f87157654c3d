"""What a chain keeps: the draws of its state, and running averages."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...data.ratings import Ratings
from ...estimate import kept_dtype
from ...model import FactorizationModel
from ...model.row_draws import RowDraws
from ...model.sides import Sides
from .chain_state import ChainState, SideState
from .guide import ChainGuide
from .known_parts import latent_utilities
from .sweeps import Sweeps


@dataclass(eq=False)
class KeptSide:
    """What a chain keeps of one side.

    Attributes
    ----------
    draws, means : Tensor, shape (n, n_draws, D)
        Rows, and their conditional means given the other side. In half precision where there are many
        (`kept_dtype`).
    noise_factor : Tensor, shape (n,), float64
        Sum over draws of what each row multiplies the noise's standard deviation by.
    log_noise, log_noise_squares : Tensor or None, shape (n,), float64
        Sums of its logarithm and of that one's square; None in chains that an earlier version began.
    """

    draws: Tensor
    means: Tensor
    noise_factor: Tensor
    log_noise: Tensor | None
    log_noise_squares: Tensor | None

    @classmethod
    def empty(cls, n: int, n_draws: int, width: int, dtype: torch.dtype, device: torch.device) -> KeptSide:
        """Make room for `n_draws` draws of n rows."""
        return cls(
            torch.zeros(n, n_draws, width, device=device, dtype=dtype),
            torch.zeros(n, n_draws, width, device=device, dtype=dtype),
            *(torch.zeros(n, dtype=torch.float64, device=device) for _ in range(3)),
        )

    def add(self, s: int, state: SideState, means: Tensor) -> None:
        """Keep draw s."""
        self.draws[:, s], self.means[:, s] = state.rows, means
        self.noise_factor += state.row_precision.double().rsqrt()
        if self.log_noise is not None and self.log_noise_squares is not None:
            log_noise = -0.5 * state.row_precision.double().log()
            self.log_noise += log_noise
            self.log_noise_squares += log_noise.square()

    def rows(self, count: int, biases: bool, noisy: bool, chains: int = 1) -> RowDraws:
        """Return the draws so far, or, of several chains, all of them."""
        factor = (self.noise_factor / count).float() if noisy else None
        spread = None
        if noisy and self.log_noise is not None and self.log_noise_squares is not None:
            spread = log_spread(self.log_noise, self.log_noise_squares, count)
        biased = torch.tensor(biases, device=self.draws.device)
        several = None if chains == 1 else torch.tensor(chains, device=self.draws.device)
        return RowDraws(self.draws[:, :count], self.means[:, :count], biased, factor, spread, several)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those that there are."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def log_spread(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the standard deviation, float32, of logarithms of which these are the sums over draws."""
    return (squares / count - (total / count).square()).clamp_min(0.0).sqrt().float()


@dataclass(eq=False)
class Kept:
    """What a chain keeps: draws of rows and hyperparameters, and sums for averages.

    Draws of several chains, which are made one after the other, stand alternately: the first of every chain,
    then the second of every chain. So the first n of them are of all chains alike.
    """

    sides: Sides[KeptSide]
    guide: ChainGuide
    count: int = 0
    chains: int = 1

    @classmethod
    def empty(
        cls,
        model: FactorizationModel,
        train: Ratings,
        n_draws: int,
        device: torch.device,
        *,
        chains: int = 1,
    ) -> Kept:
        """Make room for `n_draws` draws of all chains together."""
        width = model.n_factors + model.biases
        dtype = kept_dtype(train.n_users + train.n_items, width, n_draws, model.implicit is not None)
        utilities = latent_utilities(model)
        guide = ChainGuide(
            train.n_users,
            train.n_items,
            model.n_factors,
            n_draws,
            biases=model.biases,
            n_cuts=utilities.n_cuts,
            implicit=model.implicit is not None,
            row_noise=model.noisy_sides,
            weights_dtype=dtype,
        ).to(device)
        guide.centre.copy_(model.centre)
        sides = Sides(
            *(KeptSide.empty(n, n_draws, width, dtype, device) for n in (train.n_users, train.n_items))
        )
        return cls(sides, guide, chains=chains)

    def add(self, state: ChainState, means: Sides[Tensor]) -> None:
        """Keep a state and the rows' conditional means at it."""
        each = self.guide.n_draws // self.chains
        s = self.count % each * self.chains + self.count // each
        for side, kept in self.sides.by_side():
            own = state.of(side)
            kept.add(s, own, means.of(side))
            drawn = self.guide.of(side)
            drawn.location[s], drawn.precision[s] = own.location, own.precision
            drawn.row_precision_shape[s] = own.row_precision_shape
            if self.guide.implicit:
                drawn.weights[s] = own.weights
        self.guide.noise_precision[s] = state.noise_precision
        if self.guide.n_cuts:
            self.guide.cuts[s] = state.cuts
        self.count += 1

    def without_noise_spread(self) -> None:
        """Keep nothing of how uncertain rows' noise is, as earlier versions did."""
        for _, kept in self.sides.by_side():
            kept.log_noise = kept.log_noise_squares = None

    @property
    def has_noise_spread(self) -> bool:
        """Whether it is kept how uncertain rows' noise is."""
        return self.sides.user.log_noise is not None

    def rows(self, model: FactorizationModel) -> tuple[RowDraws, RowDraws]:
        """Return both sides' draws."""
        noisy = model.noisy_sides
        user, item = (
            kept.rows(self.count, model.biases, side in noisy, self.chains)
            for side, kept in self.sides.by_side()
        )
        return user, item

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name, for a checkpoint."""
        named = {
            f"{side}.{name}": tensor
            for side, kept in self.sides.by_side()
            for name, tensor in kept.tensors().items()
        }
        return {**named, **{f"guide.{name}": value for name, value in self.guide.state_dict().items()}}

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Take what `tensors` gave in the places of what there is."""
        for side, kept in self.sides.by_side():
            for name, room in kept.tensors().items():
                given = tensors[f"{side}.{name}"]
                if given.shape != room.shape:
                    raise ValueError(f"{side}.{name} has the shape {tuple(given.shape)}")
                setattr(kept, name, given)
        prefix = "guide."
        self.guide.load_state_dict(
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)},
            assign=True,
        )
        self.count = count


class RunningAverage:
    """The running mean rating of the validation pairs."""

    def __init__(self, valid: tuple[Tensor, Tensor, Tensor]) -> None:
        users, items, self.observed = valid
        self.pairs = Sides(users, items)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.mean = torch.zeros(len(self.observed), dtype=torch.float64, device=self.observed.device)
        self.total, self.square = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        self.count = 0

    def add(self, sweeps: Sweeps, state: ChainState, means: Sides[Tensor]) -> None:
        """Add a state's predictors."""
        users, items = state.user.rows, state.item.rows
        drawn = sweeps.pair_predictors(Sides(users, items), self.pairs).double()
        self.total += drawn
        self.square += drawn**2
        left = sweeps.pair_predictors(Sides(means.user, items), self.pairs)
        right = sweeps.pair_predictors(Sides(users, means.item), self.pairs)
        self.mean += 0.5 * (left + right).double()
        self.count += 1

    def rmse(self, sweeps: Sweeps, state: ChainState) -> Tensor:
        """Return validation RMSE of the mean rating so far, ()."""
        mean = self.mean / self.count
        if sweeps.drawing_cuts:
            centre = self.total / self.count
            variance = (self.square / self.count - centre**2).clamp_min(0.0)
            sweeps.utilities.remember(state.cuts, state.noise_precision.rsqrt())
            noise_factor = sweeps.pair_noise_factor(state, self.pairs)
            mean = sweeps.model.likelihood.predictive_moments(mean, variance, noise_factor)[0]
        return (mean - self.observed.double()).square().mean().sqrt().detach()

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return {"average.mean": self.mean, "average.total": self.total, "average.square": self.square}

    def load(self, tensors: dict[str, Tensor], count: int) -> None:
        """Take the sums from what `tensors` gave."""
        self.mean, self.total = tensors["average.mean"], tensors["average.total"]
        self.square, self.count = tensors["average.square"], count
