"""A posterior as one file: tensors in safetensors, all else as JSON in its header. Nothing is pickled.

The header's metadata hold one entry, named by the format. Its first line is the format version and a SHA-256
over everything, so that a flipped bit anywhere is noticed; the rest is JSON: settings, types of the
vocabularies, scale, info. (One entry, as safetensors writes several in random order, and the same posterior
is to give the same file.) Integer ids are int64 tensors; text (ids, titles) is one UTF-8 tensor of bytes and
one of lengths in characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.ratings import Ratings
from ..data.scale import RatingScale
from ..data.vocabulary import Vocabulary
from ..errors import PyroBmfError, SavedFileError
from ..files import atomic_write, write_json
from ..guide import ChainGuide, ConjugateGuide, CrossFeedbackGuide, Rows
from ..model import FactorizationModel, Likelihood, Prior
from .encoding import Guide, rows_of

FORMAT = "pyro-bmf posterior"
FORMAT_VERSION = 1
FILE_NAME = "posterior.safetensors"
COPY_NAME = "posterior.json"

#: Kinds of guide that a saved posterior may name.
GUIDES: Mapping[str, Any] = {
    "cross-feedback": CrossFeedbackGuide,
    "conjugate": ConjugateGuide,
    "chain": ChainGuide,
}


class SavedParts(NamedTuple):
    """What a posterior is made of, in the order of its attributes."""

    model: FactorizationModel
    guide: Guide
    user_rows: Rows
    item_rows: Rows
    train: Ratings
    info: dict[str, Any]


def save_parts(
    path: Path | str,
    model: FactorizationModel,
    guide: Guide,
    user_rows: Rows,
    item_rows: Rows,
    train: Ratings,
    info: Mapping[str, Any],
) -> Path:
    """Write the parts of a posterior; see `Posterior.save`."""
    target = Path(path)
    folder = target.suffix != ".safetensors"
    if folder:
        target.mkdir(parents=True, exist_ok=True)
        target = target / FILE_NAME
    tensors: dict[str, Tensor] = {}
    for side, rows in (("users", user_rows), ("items", item_rows)):
        tensors |= {f"{side}.{name}": tensor for name, tensor in rows.tensors().items()}
    tensors |= {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"guide.{name}": tensor for name, tensor in cast(nn.Module, guide).state_dict().items()}
    tensors |= _vocabulary_tensors("user_ids", train.user_vocabulary)
    tensors |= _vocabulary_tensors("item_ids", train.item_vocabulary)
    if train.item_titles is not None:
        tensors |= _text_tensors("item_titles", train.item_titles)
    tensors["train.users"] = torch.from_numpy(train.users.astype(np.int32))
    tensors["train.items"] = torch.from_numpy(train.items.astype(np.int32))
    single = train.ratings.astype(np.float32)
    lossless = bool((single == train.ratings).all())
    tensors["train.ratings"] = torch.from_numpy(single if lossless else train.ratings.copy())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {
        "model": model.settings(),
        "guide": guide.settings(),
        "user_ids": "integer" if train.user_vocabulary.is_integer else "text",
        "item_ids": "integer" if train.item_vocabulary.is_integer else "text",
        "titles": train.item_titles is not None,
        "scale": train.scale.to_dict(),
        "name": train.name,
        "info": dict(info),
        "tensors": {
            name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()
        },
    }
    text = json.dumps(document, ensure_ascii=True, allow_nan=False)
    version = str(FORMAT_VERSION)
    metadata = {FORMAT: f"{version} {_digest(version, text, tensors)}\n{text}"}
    with atomic_write(target) as temporary:
        save_file(tensors, temporary, metadata)
    if folder:
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "file": FILE_NAME}
        write_json(target.with_name(COPY_NAME), {**head, **document})
    return target


def load_parts(
    path: Path | str,
    *,
    priors: Mapping[str, type[Prior]] | None = None,
    likelihoods: Mapping[str, type[Likelihood]] | None = None,
    guides: Mapping[str, Any] | None = None,
) -> SavedParts:
    """Read the parts of a posterior; see `Posterior.load`."""
    source = Path(path)
    if source.is_dir():
        source = source / FILE_NAME
    if not source.is_file():
        raise SavedFileError(
            f"{source}: there is no such file. Give the file or the folder of a saved posterior."
        )
    document, tensors = _read(source)
    try:
        return _rebuild(document, tensors, priors, likelihoods, guides)
    except SavedFileError as error:
        raise SavedFileError(f"{source}: {error}") from None
    except PyroBmfError as error:
        raise SavedFileError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SavedFileError(
            f"{source}: its description and its tensors do not fit together ({_first_line(error)}). "
            "Save it again with this version of pyro-bmf."
        ) from error


def _read(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and check a file: its kind, its version, then its sum."""
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                raise SavedFileError(
                    f"{source}: this is no saved posterior of pyro-bmf but another safetensors file. "
                    "Give the file that Posterior.save wrote."
                )
            head, _, text = metadata[FORMAT].partition("\n")
            version, _, digest = head.partition(" ")
            _check_version(source, version)
            # Copies: kernels may round differently where memory is not aligned as torch's own is.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, UnicodeDecodeError, MemoryError) as error:
        raise SavedFileError(
            f"{source}: not a safetensors file, or a damaged one ({_first_line(error)}). "
            "Copy it again, or save the posterior again."
        ) from error
    if _digest(version, text, tensors) != digest:
        raise SavedFileError(
            f"{source}: the content does not match its checksum, so the file is damaged. "
            "Copy it again, or save the posterior again."
        )
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SavedFileError(f"{source}: its description is no JSON ({_first_line(error)}).") from error
    if not isinstance(document, dict):
        raise SavedFileError(f"{source}: its description is no JSON object.")
    return document, tensors


def _check_version(source: Path, text: str) -> None:
    if not text.isascii() or not text.isdigit():
        raise SavedFileError(f"{source}: its format version {text!r} is no number, so the file is damaged.")
    if int(text) > FORMAT_VERSION:
        raise SavedFileError(
            f"{source}: format version {int(text)} is newer than the {FORMAT_VERSION} that this pyro-bmf "
            "reads. Update it: pip install --upgrade pyro-bmf"
        )


def _rebuild(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    priors: Mapping[str, type[Prior]] | None,
    likelihoods: Mapping[str, type[Likelihood]] | None,
    guides: Mapping[str, Any] | None,
) -> SavedParts:
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise SavedFileError(f"the tensor {broken[0]} holds numbers that are not finite: fit and save again.")
    kind = document["guide"]["kind"]
    known = {**GUIDES, **(guides or {})}
    if kind not in known:
        raise SavedFileError(
            f"its guide is of the kind {kind!r}, which is not known: give load its class, "
            f"guides={{{kind!r}: …}}."
        )
    # Modules start from random weights, which are overwritten: a user's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]):
        model = FactorizationModel.from_settings(
            document["model"],
            priors=None if priors is None else dict(priors),
            likelihoods=None if likelihoods is None else dict(likelihoods),
        )
        guide = known[kind].from_settings(document["guide"])
    for prefix, module in (("model.", model), ("guide.", guide)):
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        # assign: a posterior fitted in double precision stays so.
        module.load_state_dict(state, strict=True, assign=True)
    users = _vocabulary(tensors, "user_ids", "user", document["user_ids"])
    items = _vocabulary(tensors, "item_ids", "item", document["item_ids"])
    train = Ratings(
        tensors["train.users"].numpy().astype(np.int64),
        tensors["train.items"].numpy().astype(np.int64),
        tensors["train.ratings"].numpy().astype(np.float64),
        None,
        users,
        items,
        RatingScale.from_dict(document["scale"]),
        _texts(tensors, "item_titles") if document["titles"] else None,
        document["name"],
    )
    user_rows = _rows(tensors, "users", len(users), model)
    item_rows = _rows(tensors, "items", len(items), model)
    return SavedParts(
        model,
        guide,
        user_rows,
        item_rows,
        train,
        dict(document["info"]),
    )


def _rows(tensors: Mapping[str, Tensor], side: str, n: int, model: FactorizationModel) -> Rows:
    prefix = f"{side}."
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    k, width = model.n_factors, model.n_factors + model.biases
    shapes: dict[str, tuple[int, ...]]
    if "draws" in found:
        n_draws = found["draws"].shape[1] if found["draws"].ndim == 3 else 1
        shapes = {"draws": (n, n_draws, width), "means": (n, n_draws, width), "biased": ()}
    else:
        shapes = {"loc": (n, k), "scale": (n, k)}
        if model.biases:
            shapes |= {"bias_loc": (n,), "bias_scale": (n,)}
        if "tril" in found:
            shapes["tril"] = (n, width, width)
    for name in ("noise", "noise_scale"):
        if name in found:
            shapes[name] = (n,)
    if model.row_cuts is not None and side == "users":
        shapes |= dict.fromkeys(("cuts", "cuts_scale"), (n, model.row_cuts.n_shifts))
    for name, shape in shapes.items():
        tensor = found.get(name)
        if tensor is None:
            raise SavedFileError(f"the tensor {side}.{name} is missing: save the posterior again.")
        if tuple(tensor.shape) != shape or not (tensor.is_floating_point() or name == "biased"):
            raise SavedFileError(
                f"the tensor {side}.{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; {shape} is "
                "needed: save the posterior again."
            )
    return rows_of({name: found[name] for name in shapes})


def _vocabulary_tensors(name: str, vocabulary: Vocabulary) -> dict[str, Tensor]:
    if vocabulary.is_integer:
        return {name: torch.from_numpy(vocabulary.ids.copy())}
    return _text_tensors(name, vocabulary.ids)


def _vocabulary(tensors: Mapping[str, Tensor], name: str, kind: str, ids: str) -> Vocabulary:
    if ids == "integer":
        return Vocabulary(tensors[name].numpy(), kind)
    return Vocabulary(_texts(tensors, name), kind)


def _text_tensors(name: str, texts: NDArray[Any]) -> dict[str, Tensor]:
    # Lone surrogates, which a file name may bring, pass; lengths are in characters, as Python cuts text.
    content = "".join(texts).encode("utf-8", "surrogatepass")
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    return {
        f"{name}.utf8": torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()),
        f"{name}.lengths": torch.from_numpy(lengths),
    }


def _texts(tensors: Mapping[str, Tensor], name: str) -> NDArray[Any]:
    content = tensors[f"{name}.utf8"].numpy().tobytes().decode("utf-8", "surrogatepass")
    lengths = tensors[f"{name}.lengths"].numpy()
    ends = np.cumsum(lengths)
    if len(lengths) and (lengths.min() < 0 or ends[-1] != len(content)):
        raise SavedFileError(f"the lengths of {name} do not fit its text: save the posterior again.")
    texts = np.empty(len(lengths), dtype=object)
    texts[:] = [content[end - size : end] for end, size in zip(ends.tolist(), lengths.tolist(), strict=True)]
    return texts


def _digest(version: str, text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over version and description, and every tensor's name, dtype, shape and bytes."""
    head = f"{FORMAT}\n{version}\n{len(text)}\n{text}\n"
    state = hashlib.sha256(head.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "surrogatepass"))
        if tensor.numel():
            state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
