"""Work that a device does again and again on the same memory, recorded once: the host then gives one order.

A step of many small kernels keeps a card waiting for its host, which needs longer to ask for a kernel than
the card to run it. Recorded as a CUDA graph, the whole step is one launch. A recording reads and writes fixed
places: `Recorded` copies what it is given there. Nothing here knows CUDA but `CudaRecorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..tensor_files import first_line

#: Runs before a recording: libraries then have the memory that they take at their first use.
_WARM_UPS = 3

T = TypeVar("T")
R = TypeVar("R")


class Recorder(Protocol):
    """What turns work into something that does it again.

    Attributes
    ----------
    usable : bool
        Whether it records, and what it has recorded may be run again.
    """

    usable: bool

    def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
        """Return what does `work` again, on the same memory; `warm_up` may be run, any number of times."""


class CudaRecorder:
    """Records CUDA graphs.

    All of one recorder take what they need on the way from one pool of memory, which each leaves to the next
    as it ends: what is to last, results among it, must lie elsewhere. Once work could not be recorded, none
    is any more, and what had been is not to be run again: its random numbers are no longer the generator's.

    Parameters
    ----------
    device : torch.device
        Which the work runs on. What torch calls current may be another card: a graph of its work is empty.

    Attributes
    ----------
    usable : bool
        Whether nothing has failed yet.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.usable = device, True
        self._beside: Any = None
        self._pool: Any = None

    def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
        """Warm up beside the current stream, then record.

        Raises
        ------
        RuntimeError
            If the work waits for the host, or cannot be recorded for another reason.
        """
        with torch.cuda.device(self.device):
            outside = torch.cuda.current_stream()
            if self._beside is None:
                self._beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._pool = torch.cuda.graph_pool_handle()
            beside = self._beside
            beside.wait_stream(outside)
            try:
                with torch.cuda.stream(beside):
                    for _ in range(_WARM_UPS):
                        warm_up()
            finally:
                outside.wait_stream(beside)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            before, graph = generator.get_state(), torch.cuda.CUDAGraph()
            try:
                # On a stream of this card: that which torch would take is of the first card that it recorded.
                with torch.cuda.graph(graph, pool=self._pool, stream=beside):
                    work()
            except RuntimeError:
                self.usable = False
                # The end of a recording that failed raises before it puts the stream back.
                torch.cuda.set_stream(outside)
                # The generator's state believes that it is still recorded: it gets another one.
                another = torch.Generator(generator.device)
                another.set_state(before)
                generator.graphsafe_set_state(another.graphsafe_get_state())
                raise
        replay: Callable[[], object] = graph.replay
        return replay


def tensors_in(given: Any, fixed: tuple[type, ...] = ()) -> Iterator[Tensor]:
    """Give the tensors of a tensor, a dataclass or a tuple of such, in an order of their own.

    Parameters
    ----------
    given : Tensor, dataclass, tuple, or a plain value, which has none
    fixed : tuple of type
        Whose tensors are always the same ones, and are left out.

    Raises
    ------
    TypeError
        For anything else, which might hold tensors that nobody sees.
    """
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, fixed) or given is None or isinstance(given, (bool, int, float, str)):
        return
    elif isinstance(given, tuple):
        for one in given:
            yield from tensors_in(one, fixed)
    elif is_dataclass(given):
        for field in fields(given):
            yield from tensors_in(getattr(given, field.name), fixed)
    else:
        raise TypeError(f"{type(given).__name__} is no dataclass: its tensors cannot be found")


def at_own_places(
    given: T, fixed: tuple[type, ...] = (), layout: torch.memory_format = torch.contiguous_format
) -> T:
    """Return the same with a copy, of a layout, of each tensor that `tensors_in` gives."""
    found: Any = given
    if isinstance(given, fixed):
        return given
    if isinstance(given, Tensor):
        found = given.clone(memory_format=layout)
    elif isinstance(given, tuple):
        make = getattr(type(given), "_make", tuple)  # of a named one
        found = make(at_own_places(one, fixed, layout) for one in given)
    elif is_dataclass(given):
        named = {field.name: getattr(given, field.name) for field in fields(given)}
        own = {name: at_own_places(value, fixed, layout) for name, value in named.items()}
        found = replace(given, **own)  # type: ignore[type-var]
    result: T = found
    return result


def copy_tensors(places: list[Tensor], given: list[Tensor]) -> None:
    """Copy tensors to their places, those of one type in one launch."""
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for place, one in zip(places, given, strict=True):
        if place.shape != one.shape or place.dtype != one.dtype:
            raise ValueError(f"{tuple(one.shape)}, {one.dtype}: the place is {tuple(place.shape)}")
        own, theirs = groups.setdefault(place.dtype, ([], []))
        own.append(place)
        theirs.append(one)
    for own, theirs in groups.values():
        torch._foreach_copy_(own, theirs)


class Recorded(Generic[T]):
    """Work on one thing, recorded, that is done again on others of the same shapes.

    Parameters
    ----------
    recorder : Recorder
    given : dataclass or tuple
        The first of them.
    work : callable
        Does the work on what stands at the places.
    warm_up : callable, optional
        Runs the same kernels before the recording; the work itself when not given, on the places' copies.
    fixed : tuple of type
        As of `tensors_in`.

    Attributes
    ----------
    place : dataclass or tuple
        What the recording reads and writes.
    """

    def __init__(
        self,
        recorder: Recorder,
        given: T,
        work: Callable[[T], object],
        *,
        warm_up: Callable[[T], object] | None = None,
        fixed: tuple[type, ...] = (),
    ) -> None:
        self.fixed = fixed
        self.place = at_own_places(given, fixed)
        self.tensors = list(tensors_in(self.place, fixed))
        before = work if warm_up is None else warm_up
        self._recorder = recorder
        self.replay = recorder.record(lambda: before(self.place), lambda: work(self.place))

    @property
    def usable(self) -> bool:
        """Whether it may be run again."""
        return self._recorder.usable

    def fill(self, given: T) -> None:
        """Copy tensors to where the recording reads them."""
        copy_tensors(self.tensors, list(tensors_in(given, self.fixed)))


@dataclass(frozen=True)
class Recording:
    """How work is recorded, and who is told where it cannot be.

    Attributes
    ----------
    recorder : Recorder or None
        None where nothing is.
    note : callable
    """

    recorder: Recorder | None
    note: Callable[[str], object]

    @classmethod
    def on(cls, device: torch.device, note: Callable[[str], object]) -> Recording:
        """Return how a device records: CUDA graphs, and nothing elsewhere."""
        return cls(CudaRecorder(device) if device.type == "cuda" else None, note)

    def of(
        self,
        what: str,
        given: T,
        work: Callable[[T], object],
        *,
        warm_up: Callable[[T], object] | None = None,
        fixed: tuple[type, ...] = (),
    ) -> Recorded[T] | None:
        """Record work as `Recorded` does; None, and a note, where that failed, or where nothing is."""
        if self.recorder is None or not self.recorder.usable:
            return None
        try:
            return Recorded(self.recorder, given, work, warm_up=warm_up, fixed=fixed)
        except RuntimeError as error:
            self.note(f"{what} could not be recorded as a CUDA graph ({first_line(error)}): it takes longer.")
            return None


#: Where nothing is recorded.
NOT_RECORDED = Recording(None, lambda text: None)


class Repeated:
    """Work that is recorded at its first call, where work is, and run again at every later one.

    What it draws it draws as without a recording. Its results are then the same tensors at every call, and
    those of the call before are written over.

    Parameters
    ----------
    recording : Recording
    what : str
        What the work is, for the note where it cannot be recorded.
    fixed : tuple of type
        As of `tensors_in`: of what is given, and of results.
    """

    def __init__(self, recording: Recording, what: str, *, fixed: tuple[type, ...] = ()) -> None:
        self.recording, self.what, self.fixed = recording, what, fixed
        self._recorded: Recorded[Any] | None = None
        self._results: Any = None
        self._tried = recording.recorder is None

    def __call__(self, work: Callable[[T], R], given: T) -> R:
        """Return the results of tensors that have the shapes of the first call's.

        Parameters
        ----------
        work : callable
            Makes results of what it is given; it asks the device for no number, changes nothing else, and
            takes what is random from the device's generator. The same in every call; it is not held on to.
        given : dataclass or tuple
            As of `tensors_in`.
        """
        if not self._tried:
            self._record(work, given)
        if self._recorded is None or not self._recorded.usable:
            return work(given)
        self._recorded.fill(given)
        self._recorded.replay()
        results: R = self._results
        return results

    def _record(self, work: Callable[[T], R], given: T) -> None:
        self._tried = True
        cards = {one.device for one in tensors_in(given, self.fixed) if one.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(cards)):
            # Results lie outside the recording's memory, which other recordings use when it has ended.
            self._results = at_own_places(work(given), self.fixed, torch.preserve_format)
            places = list(tensors_in(self._results, self.fixed))

            def keep(place: T) -> None:
                copy_tensors(places, list(tensors_in(work(place), self.fixed)))

            self._recorded = self.recording.of(self.what, given, keep, warm_up=work, fixed=self.fixed)
        if self._recorded is None:
            self._results = None


class Looks:
    """What is made again and again, much of it to be read by the host: a `Repeated` by name and shapes.

    Parameters
    ----------
    recording : Recording
    fixed : tuple of type
        As of `tensors_in`: of what is given, and of what is made.
    """

    def __init__(self, recording: Recording, fixed: tuple[type, ...] = ()) -> None:
        self.recording, self.fixed = recording, fixed
        self._known: dict[tuple[Any, ...], Repeated] = {}

    def __call__(self, name: str, work: Callable[[T], R], given: T) -> R:
        """Return what the `work` of this name makes; on a card, the next such call writes over it."""
        if self.recording.recorder is None:
            return work(given)
        key = (name, *(one.shape for one in tensors_in(given, self.fixed)))
        if key not in self._known:
            self._known[key] = Repeated(self.recording, name, fixed=self.fixed)
        return self._known[key](work, given)


#: Numbers that are made as they are asked for.
AS_ASKED = Looks(NOT_RECORDED)


def start_adam(optimizer: torch.optim.Optimizer) -> None:
    """Give Adam the state that it makes at its first step, which is not to be recorded, where it has none."""
    for group in optimizer.param_groups:
        counts = group["params"][0].device if group["capturable"] or group["fused"] else "cpu"
        for parameter in group["params"]:
            if not optimizer.state[parameter]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=counts),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
