"""A graphics card that is not there: tensors that say ``cuda:0``, and whose numbers lie with the host.

On a machine without a card this finds what would go wrong on one: an operation that is given tensors of both,
numbers that are read past the card, and the ways that code takes on a card alone. All of it is computed by
the CPU, with the CPU's random numbers, so that results can be held against those of the CPU itself. What a
card's own kernels do, and how long they take, it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.utils._mode_utils
from recorders import OnTheSpot
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

#: The device that tensors of the card say they are on.
CARD = torch.device("cuda", 0)

_aten = torch.ops.aten
#: What copies between host and card; places to index may lie on either.
_COPIES = (
    *(_aten.copy_.default, _aten._to_copy.default, _aten.index.Tensor),
    *(_aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default),
)
#: Whether memory is pinned, and to pin it, which asks for a card.
_PINS = (_aten.is_pinned.default, _aten._pin_memory.default)
#: Their result lies where their first argument does.
_AS_THE_FIRST = tuple(copy for copy in _COPIES if copy is not _aten._to_copy.default)


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of the card and of the host, which a card refuses."""


class CardTensor(Tensor):
    """A tensor of the card.

    To torch's own code it is one without numbers (``meta``), which it leaves to `__torch_dispatch__`.

    Parameters
    ----------
    held : Tensor
        Its numbers.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> CardTensor:
        made: CardTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        return made

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CARD

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, **how: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=CARD, **how)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **how: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")

    def __array__(self, *how: Any, **more: Any) -> Any:
        return self.numpy()

    def __repr__(self, **how: Any) -> str:  # type: ignore[override]
        return f"on the card: {self.held!r}"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Card(TorchDispatchMode):
    """Sees what makes tensors of none."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation with the numbers that the host holds, and say of its results where they would lie."""
    if function in _PINS:  # memory of the host like any other
        return False if function is _PINS[0] else args[0].clone()
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    cards = [one for one in tensors if isinstance(one, CardTensor)]
    if cards and function not in _COPIES:
        hosts = [one for one in tensors if not isinstance(one, CardTensor) and one.dim() > 0]
        if hosts:
            raise MixedDevicesError(f"{function} is given tensors of the card and of the host.")
    asked = kwargs.get("device")
    if asked is None:
        on_card = isinstance(args[0], CardTensor) if function in _AS_THE_FIRST else bool(cards)
    else:
        on_card = torch.device(asked).type != "cpu"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": None}
    given, named = tree_map_only(CardTensor, lambda one: one.held, (args, kwargs))
    found = function(*given, **named)
    if cards and torch.Tag.inplace_view in function.tags:
        with torch.utils._mode_utils.no_dispatch():  # shape and strides of the tensor itself
            function(*args, **kwargs)
    of_held = {id(one.held): one for one in cards}

    def on(found: Tensor) -> Tensor:
        return of_held[id(found)] if id(found) in of_held else CardTensor(found)

    return tree_map_only(Tensor, on, found) if on_card else found


class _Nothing:
    """A stream, an event, a device that is made current: all that is done is done at once."""

    def __init__(self, *given: Any, **more: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., _Nothing]:
        return lambda *given, **more: self

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *how: object) -> None: ...


class _Recorder(OnTheSpot):
    """As a card's: to warm up and to record takes no random numbers."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        assert device.type == "cuda"

    def record(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Callable[[], object]:
        before = torch.get_rng_state()
        again = super().record(warm_up, work)
        torch.set_rng_state(before)
        return again


_FREE = 2**37
_CUDA: dict[str, Any] = {
    **dict.fromkeys(("Stream", "Event", "stream", "device"), _Nothing),
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "current_stream": lambda *device: _Nothing(),
    "mem_get_info": lambda *device: (_FREE, _FREE),
    "memory_stats_as_nested_dict": lambda *device: {},
    "is_current_stream_capturing": lambda: False,
    "max_memory_allocated": lambda *device: 0,
    **{name: (lambda *given: None) for name in ("_lazy_init", "synchronize", "manual_seed", "empty_cache")},
    "get_rng_state": lambda *device: torch.zeros(1),
    "set_rng_state": lambda *given: None,
    "get_device_name": lambda *device: "a card that is not there",
}


@contextmanager
def pretend_card() -> Iterator[torch.device]:
    """Let torch have a card inside, and give its device."""
    with ExitStack() as stack:
        for name, value in _CUDA.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for place in ("methods.recording", "methods.cross_feedback.recorded"):
            stack.enter_context(mock.patch(f"pyro_bmf.{place}.CudaRecorder", _Recorder))
        before = torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
        torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)  # type: ignore[attr-defined]
        stack.enter_context(_Card())
        yield CARD
