"""Cells of the paper's Figure 4: five variants, iteration by iteration, and what they are to get below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyro_bmf.baselines import BiasOnly
from pyro_bmf.checkpoint import LATER
from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.cells import Cell, CellStore
from pyro_bmf.experiments.contenders import start_of
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.tuning import measure
from pyro_bmf.methods.settings import Settings
from pyro_bmf.process import pick_device
from pyro_bmf.progress import Silent

#: The variants of § 4.6 (L = 0 in all of them): cross feedback, L' and attention.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "A": ("no feedback, L' = 0", {"feedback": False, "n_tower_layers": 0}),
        "B": ("feedback, L' = 0", {"attention": "none", "n_tower_layers": 0}),
        "C": ("no feedback, L' = 1", {"feedback": False, "n_tower_layers": 1}),
        "D": ("feedback, L' = 1", {"attention": "none", "n_tower_layers": 1}),
        "E": ("feedback and attention, L' = 1", {"n_tower_layers": 1}),
    }
)
#: What all have: one rate of learning throughout, no average over iterations, and the last state.
_SAME: Mapping[str, Any] = MappingProxyType(
    {
        "n_head_layers": 0,
        "learning_rate": 3e-4,
        "final_learning_rate": 3e-4,
        "ema_decay": 0.0,
        "patience": None,
        "keep": "last",
    }
)
#: Rows a block of the paper on ML-1M; the preset's own are of about 500.
LITERAL_BLOCKS = 100
_EVERY = 5  # iterations between two checkpoints


@dataclass(frozen=True)
class Curve:
    """A variant on one set with blocks of one kind: a cell a seed.

    Attributes
    ----------
    data : DataSet
    variant : str
        A letter of `VARIANTS`.
    blocks : str
        ``paper`` for the preset's own, or ``100``.
    iterations : int
    cells : tuple of Cell
    """

    data: DataSet
    variant: str
    blocks: str
    iterations: int
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.variant}: {VARIANTS[self.variant][0]}"


class ConvergenceCells:
    """Variants by data sets and seeds.

    Parameters
    ----------
    sets : sequence of DataSet
    seeds : int
        Each has its own split and fit.
    variants : sequence of str
        Letters of `VARIANTS`, with the preset's own blocks.
    iterations : int
    literal_variants : sequence of str
        Those that are fitted with blocks of 100 x 100 too.
    literal_iterations : int
    device, threads

    Raises
    ------
    SettingsError
        For a variant that there is not.
    """

    def __init__(
        self,
        sets: Sequence[DataSet],
        seeds: int = 3,
        *,
        variants: Sequence[str] = tuple(VARIANTS),
        iterations: int = 100,
        literal_variants: Sequence[str] = ("C", "D"),
        literal_iterations: int = 20,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        unknown = [name for name in (*variants, *literal_variants) if name not in VARIANTS]
        if unknown:
            raise SettingsError(f"There is no variant {unknown[0]!r}: choose from {', '.join(VARIANTS)}.")
        self.sets, self.seeds = tuple(sets), seeds
        self.wanted = (
            *((name, "paper", iterations) for name in variants),
            *((name, str(LITERAL_BLOCKS), literal_iterations) for name in literal_variants),
        )
        self._device, self._threads = device, threads

    def cells(self, store: CellStore) -> list[Cell]:
        """Return all cells."""
        del store
        found = []
        for data in self._here:
            found += self.targets(data)
            found += [cell for curve in self.curves(data) for cell in curve.cells]
        return found

    def n_cells(self) -> int:
        """Return how many cells there are."""
        return len(self._here) * self.seeds * (1 + len(self.wanted))

    @property
    def _here(self) -> list[DataSet]:
        return [data for data in self.sets if data.missing is None]

    def curves(self, data: DataSet) -> list[Curve]:
        """Return the variants of one set."""
        return [
            Curve(
                data, name, blocks, n, tuple(self._cell(data, name, blocks, n, s) for s in range(self.seeds))
            )
            for name, blocks, n in self.wanted
        ]

    def targets(self, data: DataSet) -> list[Cell]:
        """Return what gives the validation RMSE that "faster" is measured to, a cell a seed."""

        def cell(seed: int) -> Cell:
            def run(work: Path) -> dict[str, Any]:
                del work
                split = data.split(seed)
                return {"valid_rmse": measure(BiasOnly().fit(split), split, "rmse")}

            return Cell("target", f"{BiasOnly.name} {data.name} seed {seed}", _identity(data, seed), run)

        return [cell(seed) for seed in range(self.seeds)]

    def _cell(self, data: DataSet, name: str, blocks: str, iterations: int, seed: int) -> Cell:
        settings = variant_settings(name, blocks, iterations, seed)

        def run(work: Path) -> dict[str, Any]:
            from pyro_bmf.fitting import fit

            split = data.split(seed)
            found = fit(
                split,
                settings,
                device=self._device,
                threads=self._threads,
                progress=Silent(),
                checkpoint=work,
                checkpoint_every=_EVERY,
                resume=work.is_file(),
                watched=split.test,
            )
            # Other work on the machine does not reach the processor's seconds; a card's work is not in them.
            device = pick_device(self._device, note=Silent().note)
            clock = "processor_seconds" if device.type == "cpu" else "seconds"
            seconds, curve = 0.0, []
            for record in found.history:
                seconds += record[clock]
                curve.append(
                    {
                        "iteration": record["iteration"],
                        "seconds": seconds,
                        "valid_rmse": record["valid_rmse"],
                        "test_rmse": record["watched_rmse"],
                    }
                )
            return {"curve": curve, "seconds": seconds, "clock": clock}

        later = [one for one in LATER if one not in VARIANTS[name][1]]
        told = settings.to_dict(lambda one, part: one not in later)
        identity = {**_identity(data, seed), "settings": told}
        return Cell("curve", f"{name} blocks {blocks} {data.name} seed {seed}", identity, run)


def variant_settings(name: str, blocks: str, iterations: int, seed: int) -> Settings:
    """Return the settings of a variant."""
    values = {**_SAME, **VARIANTS[name][1], "max_iterations": iterations, "seed": seed}
    if blocks != "paper":
        values |= {"user_batch_size": int(blocks), "item_batch_size": int(blocks)}
    return start_of("paper").replace(**values)


def _identity(data: DataSet, seed: int) -> dict[str, Any]:
    return {
        "data": data.name,
        "data_hash": data.ratings.data_hash,
        "split_hash": data.split_hash(seed),
        "seed": seed,
    }
