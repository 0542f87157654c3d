"""The groups of draws that ArviZ reads, filled a block at a time: into memory, or into a file.

Groups and variables follow ArviZ's schema: dimensions ``chain``, ``draw``, ``user``, ``item``,
``factor``, ``cut`` and ``pair``. A pair is one observed rating; ``user_id`` and ``item_id`` are its raw ids.
What a chain drew beside rows stands among the draws (`hyperparameters`); what has no draws, as learned noise
that is a parameter, in ``constant_data``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checking.prior_draws import draw_prior_rows, learned_priors, prior_of
from ..errors import SettingsError
from ..model.fitted import RowPriors, Side
from ..model.prior_density import given_hyperparameters, has_hyperparameters
from ..numerics.chunks import chunks
from ..numerics.generators import own_generator
from ..numerics.keyed_draws import Stream, draw_seed
from ..posterior.hyperparameters import (
    cut_places,
    hyperparameter_dims,
    hyperparameter_draws,
    row_noise_means,
)
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from .rating_units import InRatings
from .selection import Selection

GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "log_prior",
    "observed_data",
    "constant_data",
)
_ROWS = 2_000_000  # numbers of drawn rows held at once
_PAIR_BLOCK = 16_384  # pairs a block: fixed, as the noise of drawn ratings is keyed by block
_SITES = {
    "user_factors": ("user", "factor"),
    "item_factors": ("item", "factor"),
    "user_bias": ("user",),
    "item_bias": ("item",),
}


class Sink(Protocol):
    """Where groups are put."""

    def put(
        self, group: str, name: str, draws: slice | None, values: NDArray[Any], pairs: slice | None = None
    ) -> None:
        """Store values, by chain, at these draws (None: it has no draws) and, if given, these pairs."""


class _ByChain:
    """Passes draws of chains that stand alternately on as those of each chain."""

    def __init__(self, sink: Sink, chains: int) -> None:
        self._sink, self._chains = sink, chains

    def put(
        self, group: str, name: str, draws: slice | None, values: NDArray[Any], pairs: slice | None = None
    ) -> None:
        """Pass a block on, whose draws begin and end with all chains."""
        if draws is not None:
            draws = slice(draws.start // self._chains, draws.stop // self._chains)
            each = len(values) // self._chains
            values = values.reshape(each, self._chains, *values.shape[1:]).swapaxes(0, 1)
        self._sink.put(group, name, draws, values, pairs)


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """What is to be drawn, its dimensions and sizes, and how to fill a sink with it."""

    posterior: Posterior
    selection: Selection
    num_samples: int
    seed: int
    groups: Sequence[str]
    functionals: bool
    rating_probability: bool

    def __post_init__(self) -> None:
        """Refuse groups that there are not."""
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown:
            raise SettingsError(f"there is no group {unknown[0]!r}: there are {', '.join(GROUPS)}.")
        # As many of each chain, and no fewer than are asked for.
        whole = -(-self.num_samples // self.n_chains) * self.n_chains
        object.__setattr__(self, "num_samples", whole)

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.posterior.sampling.chains

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension."""
        return {
            "chain": self.n_chains,
            "draw": self.num_samples // self.n_chains,
            "user": len(self.selection.users),
            "item": len(self.selection.items),
            "factor": self.posterior.n_factors,
            "factor_other": self.posterior.n_factors,
            "cut": self._n_cuts,
            "pair": len(self.selection.ratings),
        }

    @property
    def _n_cuts(self) -> int:
        """Number of cut points that have draws."""
        cuts = self.posterior.guide.hyperparameters().get("cuts")
        return 0 if cuts is None else cuts.values.shape[1]

    def coordinates(self, group: str) -> dict[str, tuple[str, NDArray[Any]]]:
        """Return dimension and values of each coordinate of a group.

        ``user_id`` and ``item_id`` of each pair stand in the groups of ratings. Beside factors ArviZ could
        not stack the variables of a group that has them: there, ``pair`` is the number that it is here.
        """
        posterior, selection = self.posterior, self.selection
        users = posterior.user_vocabulary.raw(selection.users)
        items = posterior.item_vocabulary.raw(selection.items)
        named = {
            "chain": ("chain", np.arange(self.n_chains)),
            "draw": ("draw", np.arange(self.num_samples // self.n_chains)),
            "user": ("user", users),
            "item": ("item", items),
            "factor": ("factor", np.arange(posterior.n_factors)),
            "factor_other": ("factor_other", np.arange(posterior.n_factors)),
            "pair": ("pair", np.arange(len(selection.ratings))),
            "user_id": ("pair", users[selection.pair_users]),
            "item_id": ("pair", items[selection.pair_items]),
        }
        if self.sizes["cut"]:
            named["cut"] = ("cut", cut_places(posterior))
        used = {dim for dims, _ in self.variables(group).values() for dim in dims}
        mixed = group in ("posterior", "prior")
        return {
            name: (dim, values)
            for name, (dim, values) in named.items()
            if dim in used and not (mixed and name in ("user_id", "item_id"))
        }

    def variables(self, group: str) -> dict[str, tuple[tuple[str, ...], str]]:
        """Return dimensions and dtype of each variable of a group."""
        draws = ("chain", "draw")
        sites = [site for site in _SITES if self.posterior.model.biases or "bias" not in site]
        if group in ("posterior", "prior"):
            named = {site: (draws + _SITES[site], "float32") for site in sites}
            if group == "posterior":
                dims = hyperparameter_dims(self.posterior)
                named |= {name: (draws + own, "float64") for name, own in dims.items()}
            if self.functionals:
                named |= dict.fromkeys(("uv", "eta"), ((*draws, "pair"), "float32"))
            return named
        if group == "log_prior":
            # One number a row: a prior is over a row's factors jointly, and power-scaling is done per row.
            return {site: ((*draws, _SITES[site][0]), "float32") for site in sites}
        if group in ("posterior_predictive", "prior_predictive"):
            return {"rating": ((*draws, "pair"), "float32")}
        if group == "log_likelihood":
            return {"rating": ((*draws, "pair"), "float32")}
        if group == "observed_data":
            return {"rating": (("pair",), "float64")}
        constants: dict[str, tuple[tuple[str, ...], str]] = dict.fromkeys(self._constants(), ((), "float64"))
        for side in row_noise_means(self.posterior):
            constants[f"{side}_noise_mean"] = ((side,), "float64")
        return {
            **constants,
            "user_count": (("user",), "int64"),
            "item_count": (("item",), "int64"),
        }

    def n_bytes(self) -> int:
        """Size of all groups, in bytes."""
        return sum(
            int(np.prod([self.sizes[name] for name in dims], dtype=np.int64)) * np.dtype(dtype).itemsize
            for group in self.groups
            for dims, dtype in self.variables(group).values()
        )

    @torch.no_grad()
    def fill(self, sink: Sink) -> None:
        """Draw everything and put it where it belongs, holding some tens of megabytes at a time."""
        sink = InRatings(_ByChain(sink, self.n_chains), self.posterior.model.units, self.posterior.n_factors)
        self._fill_data(sink)
        if not set(self.groups) - {"observed_data", "constant_data"}:
            return
        n_rows = len(self.selection.users) + len(self.selection.items)
        size = max(1, _ROWS // max(n_rows * (self.posterior.n_factors + 1), _PAIR_BLOCK, 1))
        for part in chunks(self.num_samples, -(-size // self.n_chains) * self.n_chains):
            draws = np.arange(part.start, part.stop)
            if {"posterior", "posterior_predictive", "log_likelihood", "log_prior"} & set(self.groups):
                self._fill_posterior(sink, part, draws)
            if {"prior", "prior_predictive"} & set(self.groups):
                self._fill_prior(sink, part, draws)

    # ---------------------------------------------------------------- parts

    def _constants(self) -> dict[str, float]:
        model = self.posterior.model
        noise = model.likelihood.noise_sd
        constants = {"centre": float(model.predictor_centre)}
        # Noise that was drawn stands among the draws.
        if noise is not None and "noise" not in hyperparameter_dims(self.posterior):
            constants["noise"] = float(noise.detach())
        return constants

    def _fill_data(self, sink: Sink) -> None:
        if "observed_data" in self.groups:
            sink.put("observed_data", "rating", None, self.selection.ratings)
        if "constant_data" in self.groups:
            train, selection = self.posterior.train, self.selection
            for name, value in self._constants().items():
                sink.put("constant_data", name, None, np.asarray(value))
            for side, means in row_noise_means(self.posterior).items():
                rows = selection.users if side == "user" else selection.items
                sink.put("constant_data", f"{side}_noise_mean", None, means[rows])
            sink.put("constant_data", "user_count", None, train.user_counts[selection.users])
            sink.put("constant_data", "item_count", None, train.item_counts[selection.items])

    def _fill_posterior(self, sink: Sink, part: slice, draws: Indices) -> None:
        pairs, selection = self.posterior.pairs, self.selection
        users = pairs.draw_rows("user", selection.users, draws, self.seed)
        items = pairs.draw_rows("item", selection.items, draws, self.seed)
        rows = _by_site(users, items)
        if "posterior" in self.groups:
            _put_rows(sink, "posterior", part, rows)
            for name, drawn in hyperparameter_draws(self.posterior, draws).items():
                sink.put("posterior", name, part, drawn)
        if "log_prior" in self.groups:
            for site, values in rows.items():
                sink.put("log_prior", site, part, self._log_prior(site, values, draws))
        wanted = {"posterior_predictive", "log_likelihood"} & set(self.groups)
        if not wanted and not (self.functionals and "posterior" in self.groups):
            return
        for number, (at, eta) in enumerate(self._eta_blocks(sink, "posterior", part, users, items)):
            if "posterior_predictive" in self.groups:
                ratings = pairs.draw_ratings(
                    eta, draws, self.seed, block=number, relative=self._terms(at, draws)
                )
                sink.put("posterior_predictive", "rating", part, _numbers(ratings), at)
            if "log_likelihood" in self.groups:
                sink.put("log_likelihood", "rating", part, _numbers(self._log_likelihood(eta, at, draws)), at)

    def _fill_prior(self, sink: Sink, part: slice, draws: Indices) -> None:
        users = draw_prior_rows(self.posterior, "user", self.selection.users, draws, self.seed)
        items = draw_prior_rows(self.posterior, "item", self.selection.items, draws, self.seed)
        if "prior" in self.groups:
            _put_rows(sink, "prior", part, _by_site(users, items))
        if "prior_predictive" not in self.groups and not (self.functionals and "prior" in self.groups):
            return
        for number, (at, eta) in enumerate(self._eta_blocks(sink, "prior", part, users, items)):
            if "prior_predictive" in self.groups:
                drawn = self.posterior.pairs.draw_ratings(
                    eta,
                    draws,
                    self.seed,
                    stream=Stream.PRIOR_RATINGS,
                    block=number,
                    relative=tuple(one.unsqueeze(0).expand_as(eta) for one in self._relative(at)),
                )
                sink.put("prior_predictive", "rating", part, _numbers(drawn), at)

    def _eta_blocks(
        self,
        sink: Sink,
        group: str,
        part: slice,
        users: tuple[Tensor, Tensor | None],
        items: tuple[Tensor, Tensor | None],
    ) -> Iterator[tuple[slice, Tensor]]:
        """Give the predictors of a block of pairs at a time, and put the functionals of a group."""
        selection = self.selection
        for at in chunks(len(selection.ratings), _PAIR_BLOCK):
            i, j = selection.pair_users[at], selection.pair_items[at]
            eta = self.posterior.pairs.eta_of_draws(users, items, i, j)
            if self.functionals and group in self.groups:
                sink.put(group, "eta", part, _numbers(eta), at)
                sink.put(group, "uv", part, _numbers(_products(users[0], items[0], i, j)), at)
            yield at, eta

    def _relative(self, at: slice) -> tuple[Any, ...]:
        """Return the noise multipliers of a block of pairs, at their posterior means."""
        selection = self.selection
        users, items = selection.users[selection.pair_users[at]], selection.items[selection.pair_items[at]]
        return self.posterior.pairs.relative_noise(users, items)

    def _terms(self, at: slice, draws: Indices) -> tuple[Any, ...]:
        """Return draws of the noise and the cut points of a block of pairs, (n_draws, n)."""
        selection = self.selection
        users, items = selection.users[selection.pair_users[at]], selection.items[selection.pair_items[at]]
        return self.posterior.pairs.draw_terms(users, items, draws, self.seed)

    def _log_likelihood(self, eta: Tensor, at: slice, draws: Indices) -> Tensor:
        likelihood, terms = self.posterior.model.likelihood, self._terms(at, draws)
        observed = torch.tensor(self.selection.ratings[at], device=eta.device)
        if not self.rating_probability:
            log_prob: Tensor = likelihood(eta.double(), *terms).log_prob(observed)
            return log_prob
        levels = self.posterior.scale.levels
        if levels is None:
            raise SettingsError(
                f"the rating scale {self.posterior.scale} is continuous: a rating has a density there, no "
                "probability. Leave rating_probability out."
            )
        place = np.abs(self.selection.ratings[at][:, None] - levels).argmin(axis=1)
        index = torch.tensor(place, device=eta.device).expand(eta.shape).unsqueeze(-1)
        at_levels = torch.tensor(levels, device=eta.device)
        # One draw at a time: every level of every pair of a block is enough at once.
        return torch.stack(
            [
                likelihood.log_prob_rating(one.double(), at_levels, *(term[draw] for term in terms))
                .gather(-1, where)
                .squeeze(-1)
                for draw, (one, where) in enumerate(zip(eta, index, strict=True))
            ]
        )

    def _log_prior(self, site: str, rows: Tensor, draws: Indices) -> NDArray[np.float32]:
        """Log-density of each row's draw under the prior, whose hyperparameters come from their posterior."""
        prior, n_factors = prior_of(self.posterior, site)
        if rows.shape[1] == 0:
            return np.empty(rows.shape[:2], dtype=np.float32)
        side: Side = "user" if site.startswith("user") else "item"
        chosen = self.selection.users if side == "user" else self.selection.items
        learned = learned_priors(self.posterior, side, chosen)
        if learned is not None:
            return self._log_learned_prior(learned, site, rows, draws)
        if not has_hyperparameters(prior, site, n_factors):
            return _numbers(prior(site, n_factors).log_prob(rows))
        result = np.empty(rows.shape[:2], dtype=np.float32)
        with own_generator(rows.device) as reseed:
            for place, draw in enumerate(draws.tolist()):
                reseed(draw_seed(self.seed, Stream.HYPERPARAMETERS, draw))
                density = given_hyperparameters(prior, site, n_factors)
                result[place] = _numbers(density.log_prob(rows[place]))
        return result

    def _log_learned_prior(
        self, prior: RowPriors, site: str, rows: Tensor, draws: Indices
    ) -> NDArray[np.float32]:
        """Log-density of each row's draw under its prior at that draw's hyperparameters."""
        bias = site.endswith("_bias")
        k = self.posterior.n_factors
        # Factors and bias are independent under the prior: the precision has a block for each.
        part = slice(k, None) if bias else slice(None, k)
        result = np.empty(rows.shape[:2], dtype=np.float32)
        for place, draw in enumerate(draws.tolist()):
            precision, mean = prior.at(draw)
            density = torch.distributions.MultivariateNormal(
                mean[:, part], precision_matrix=precision[part, part], validate_args=False
            )
            values = (rows[place].unsqueeze(-1) if bias else rows[place]).double()
            result[place] = _numbers(density.log_prob(values))  # type: ignore[no-untyped-call]
        return result


def _by_site(users: tuple[Tensor, Tensor | None], items: tuple[Tensor, Tensor | None]) -> dict[str, Tensor]:
    named = {
        "user_factors": users[0],
        "item_factors": items[0],
        "user_bias": users[1],
        "item_bias": items[1],
    }
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _put_rows(sink: Sink, group: str, part: slice, rows: dict[str, Tensor]) -> None:
    for site, values in rows.items():
        sink.put(group, site, part, _numbers(values))


def _products(u: Tensor, v: Tensor, i: Indices, j: Indices) -> Tensor:
    at_i, at_j = torch.tensor(i, device=u.device), torch.tensor(j, device=u.device)
    return (u.index_select(1, at_i) * v.index_select(1, at_j)).sum(-1)


def _numbers(tensor: Tensor) -> NDArray[Any]:
    values: NDArray[Any] = tensor.float().cpu().numpy()
    return values
