"""What a fit will need, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from .errors import FitError

#: Bytes that Python, torch, Pyro and pandas take before any rating is read.
_RUNTIME = 450_000_000


ENCODERS_ADVICE = (
    "Use fewer factors (n_factors) or narrower layers (n_units), leave out rows with few ratings "
    "(--min-ratings), switch feedback off, or take a machine with more memory."
)
SWEEPS_ADVICE = (
    "Keep fewer draws (kept_draws), use fewer factors (n_factors), leave out rows with few ratings "
    "(--min-ratings), or take a machine with more memory."
)
ASCENT_ADVICE = (
    "Use fewer factors (n_factors), leave out rows with few ratings (--min-ratings), or take a machine with "
    "more memory."
)
#: Rows of the larger side times D squared above which sweeps take rows with few ratings as of low rank:
#: below, one matrix a row is faster.
DENSE_CELLS = 60_000_000
#: Numbers in a chain's kept draws above which they stand in half precision: a gigabyte in single.
SINGLE_NUMBERS = 250_000_000


#: Ratings whose cells of an ordered scale are made at once on a CPU: some twenty numbers each.
RATINGS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Needs:
    """What a fit will need.

    Attributes
    ----------
    n_parameters : int
        Learned numbers.
    memory : int
        Bytes: weights, gradients, optimizer, best state, average, feedback and working space.
    available : int
        Bytes free on the device.
    advice : str
        What makes a fit by this method smaller.
    what : str
        What `n_parameters` counts.
    """

    n_parameters: int
    memory: int
    available: int
    device: str
    advice: str = ENCODERS_ADVICE
    what: str = "parameters"

    @property
    def on_card(self) -> bool:
        """Whether the device is not the CPU."""
        return self.device != "cpu"

    def __str__(self) -> str:
        return (
            f"{self.n_parameters / 1e6:.2f} M {self.what}, about {self.memory / 1e9:.2f} GB of memory "
            f"({self.available / 1e9:.1f} GB free on {self.device})"
        )


def estimate_needs(
    module_parameters: int,
    n_train: int,
    n_users: int,
    n_items: int,
    width: int,
    *,
    average: bool,
    device: str,
) -> Needs:
    """Estimate a fit's memory from its sizes, before anything is allocated.

    Weights, gradients, a gradient in the making, two moments of Adam and the best state are one copy of the
    parameters each; the average is one, and one more is put aside while it is validated. The ratings stand
    in the whole feedback and in the batches', both ways, in the blocks and as they were read. A step works
    on a few tables as wide as the first layer.
    """
    copies = 6 + 2 * average
    ratings = n_train * (2 * 2 * 16 + 32 + 20 + 24)
    working = 6 * 4 * 2 * width * max(n_users, n_items)
    memory = copies * 4 * module_parameters + ratings + working + _RUNTIME
    return Needs(module_parameters, memory, available_memory(device), device)


def kept_dtype(n_rows: int, width: int, n_draws: int, implicit: bool) -> torch.dtype:
    """Return the dtype of a chain's kept draws: a function of sizes alone.

    Parameters
    ----------
    n_rows : int
        Of both sides.
    width : int
        D: factors, and one for the bias.
    n_draws : int
    implicit : bool
        Whether draws of implicit weights are kept beside draws and conditional means of rows.
    """
    return torch.float16 if kept_numbers(n_rows, width, n_draws, implicit) > SINGLE_NUMBERS else torch.float32


def kept_numbers(n_rows: int, width: int, n_draws: int, implicit: bool) -> int:
    """Return how many numbers a chain keeps: draws, conditional means, and draws of implicit weights."""
    return n_rows * width * n_draws * (2 + implicit)


def estimate_chain(
    n_train: int, n_users: int, n_items: int, width: int, n_draws: int, *, implicit: bool, device: str
) -> Needs:
    """Estimate the memory of Gibbs sweeps from their sizes, before anything is allocated.

    What is kept, tables of D numbers a row that a sweep works on, and what it knows of each row's
    conditional: one matrix a row, or no more than a few times D numbers a rating.
    """
    n_rows, larger = n_users + n_items, max(n_users, n_items)
    kept = kept_numbers(n_rows, width, n_draws, implicit)
    kept *= kept_dtype(n_rows, width, n_draws, implicit).itemsize
    tables = 4 * width * (2 * n_rows + (10 + 10 * implicit) * larger)
    if larger * width**2 > DENSE_CELLS:
        matrices = min(n_train * width * 40, larger * width**2 * 24) + 200_000_000
    else:
        matrices = 7 * larger * width**2 * 4
    if device != "cpu":
        # Rows' inverses, and what recordings read and make of both sides.
        matrices += 4 * width**2 * (larger + 6 * n_rows)
    # What cut points and utilities are made of on the way is of so many ratings at once on a CPU.
    at_once = min(n_train, RATINGS_AT_ONCE) if device == "cpu" else n_train
    ratings = n_train * 110 + at_once * 90
    return Needs(
        n_rows * width,
        kept + tables + matrices + ratings + _RUNTIME,
        available_memory(device),
        device,
        SWEEPS_ADVICE,
        "numbers drawn in a sweep",
    )


def estimate_head(
    n_train: int, n_users: int, n_items: int, width: int, *, device: str, pairs_on_host: bool = False
) -> Needs:
    """Estimate the memory of a fit with an exact head from its sizes, before anything is allocated.

    One covariance a row of both sides and its factor, those of the larger side's once more with their second
    moments; some tables of D numbers a row; the ratings both ways with what they say of their predictors.
    Pairs that stay with the host are less by both ways' rows and columns, in use and in the making.
    """
    n_rows, larger = n_users + n_items, max(n_users, n_items)
    matrices = 4 * width**2 * (n_rows + 2 * larger) + 4 * 4 * 16_000_000
    if device != "cpu":
        # Rows' inverses, and what recorded steps read: factors and inverses of both sides.
        matrices += 4 * width**2 * (larger + 2 * n_rows)
    tables = 4 * width * 12 * n_rows
    memory = matrices + tables + n_train * (110 if pairs_on_host else 150) + _RUNTIME
    return Needs(
        n_rows * width, memory, available_memory(device), device, SWEEPS_ADVICE, "numbers of the encoders"
    )


def estimate_ascent(n_train: int, n_users: int, n_items: int, width: int, *, device: str) -> Needs:
    """Estimate the memory of coordinate ascent from its sizes, before anything is allocated.

    One covariance a row of both sides, those of the larger side a few times more; D numbers a rating where
    predictors are summed up.
    """
    n_rows, larger = n_users + n_items, max(n_users, n_items)
    memory = 4 * width**2 * (n_rows + 3 * larger) + n_train * (70 + 40 * width) + _RUNTIME
    numbers = n_rows * width * (width + 3) // 2
    return Needs(numbers, memory, available_memory(device), device, ASCENT_ADVICE, "moments of rows")


def available_memory(device: str) -> int:
    """Return the bytes that are free on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)


def check_needs(needs: Needs) -> None:
    """Refuse a fit that cannot fit.

    Raises
    ------
    FitError
        If the device has not the memory, with what to change.
    """
    if needs.memory > needs.available:
        elsewhere = " Or fit on the CPU: device='cpu' (--device cpu)." if needs.on_card else ""
        raise FitError(f"This fit would need {needs}. {needs.advice}{elsewhere}")
