"""What a fit changes in its process, and puts back: device, threads, generators, validation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral

import pyro
import torch
from torch.utils import deterministic as torch_deterministic

from .errors import SettingsError

#: What ``auto`` stands for, where this variable of the environment is set.
ENVIRONMENT = "PYRO_BMF_DEVICE"
#: Bytes that a card must have free for ``auto`` to take it: its own libraries need several hundred million.
LEAST_FREE = 2_000_000_000
#: Training ratings below which a fit takes one thread, see `pick_threads`.
FEW = 20_000


def free_on_card() -> int | None:
    """Return the bytes that are free on the current CUDA device; None where there is none."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None


def pick_device(
    name: str,
    *,
    note: Callable[[str], None] | None = None,
    free: Callable[[], int | None] = free_on_card,
) -> torch.device:
    """Return the device that a name stands for.

    ``auto`` is what the environment variable ``PYRO_BMF_DEVICE`` says, else CUDA where there is a card with
    memory to work in, else the CPU.

    Parameters
    ----------
    name : str
        ``auto`` or a torch device.
    note : callable, optional
        Told where a card is left alone, and why; a warning when not given.
    free : callable
        Gives the bytes that are free on the card, None for no card.

    Raises
    ------
    SettingsError
        If the name is unknown to torch, or CUDA is asked for and absent.
    """
    if name == "auto":
        name = os.environ.get(ENVIRONMENT) or "auto"
    if name == "auto":
        bytes_free = free()
        if bytes_free is None:
            return torch.device("cpu")
        if bytes_free >= LEAST_FREE:
            return torch.device("cuda")
        text = (
            f"The CUDA device has {bytes_free / 1e9:.1f} GB free, less than {LEAST_FREE / 1e9:.0f} GB: "
            "the CPU is taken. Free memory on the card, or give --device cuda to try it."
        )
        if note is None:
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        else:
            note(text)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"There is no device {name!r}: give auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"Device {name!r} was asked for, but torch {torch.__version__} sees no CUDA device: "
            "give --device cpu, or install a CUDA build of torch."
        )
    return device


def device_kind(device: torch.device) -> str:
    """Return what random numbers of a device depend on beside the seed: its type, and which card it is."""
    return f"{device.type}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def pick_threads(threads: int | None, n_ratings: int) -> int:
    """Return a fit's threads of the CPU: those asked for, else torch's own number, or one for few ratings.

    With fewer than `FEW` training ratings all arrays are so small that a second thread gains nothing, and two
    that wait for each other beside another process take longer than one.
    """
    if threads is not None:
        return threads
    return 1 if n_ratings < FEW else torch.get_num_threads()


@contextmanager
def computing(
    device: torch.device, threads: int | None, deterministic: bool, n_ratings: int = FEW
) -> Iterator[torch.device]:
    """Fit inside: a fork of the generators, the threads, deterministic kernels, no validation.

    All of it is the process's own state, so all of it is put back afterwards. Threads that nobody asked for
    are chosen by the number of training ratings.
    """
    whole = isinstance(threads, Integral) and not isinstance(threads, bool)
    if threads is not None and not (whole and threads >= 1):
        raise SettingsError(f"threads is {threads!r}: give a whole number, 1 or more.")
    before = torch.get_num_threads()
    was_deterministic = torch.get_deterministic_debug_mode()
    cuda = [device] if device.type == "cuda" else []
    torch.set_num_threads(int(pick_threads(threads, n_ratings)))
    if cuda and deterministic:
        # cuBLAS reads this when its first handle is made; without it, deterministic mode refuses to work.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not by `use_deterministic_algorithms`, which imports torch's compiler: seconds of work on a CPU.
        torch.set_deterministic_debug_mode("error")
    was_filled = torch_deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    # Else every new tensor is filled before it is written: a launch more for most operations.
    torch_deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with (
            torch.random.fork_rng(devices=cuda),
            pyro.validation_enabled(False),
            warnings.catch_warnings(),
        ):
            # A loss that is no number ends the fit with an error of its own, which says what to change.
            warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
            yield device
    finally:
        torch_deterministic.fill_uninitialized_memory = was_filled  # type: ignore[attr-defined]
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(was_deterministic)
