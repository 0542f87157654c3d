"""A posterior as one file of `pyro_bmf.tensor_files`: its tensors, and JSON that describes them.

The JSON tells settings, types of the vocabularies, scale and info. Integer ids are int64 tensors; text (ids,
titles) is one UTF-8 tensor of bytes and one of lengths in characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..data.ratings import Ratings
from ..errors import PyroBmfError, SavedFileError
from ..files import make_folder, write_json
from ..methods.coordinate_ascent.guide import ConjugateGuide
from ..methods.cross_feedback.guide import CrossFeedbackGuide
from ..methods.exact_head.guide import ExactHeadGuide
from ..methods.gibbs.guide import ChainGuide
from ..model import FactorizationModel
from ..model.fitted import Guide, Rows
from ..model.likelihoods.normal import Likelihood
from ..model.priors.normal import Prior
from ..model.row_draws import RowDraws
from ..model.rows import RowPosterior
from ..systems.saved_ratings import ratings_document, ratings_tensors, saved_ratings
from ..tensor_files import Kind, first_line, is_finite, read_tensors, write_tensors

FORMAT = "pyro-bmf posterior"
#: Versions 1 and 2 had other names of tensors.
FORMAT_VERSION = 3
#: Draws of a chain's rows, which stand in half precision where there are many.
_HALF = ("draws", "means")
FILE_NAME = "posterior.safetensors"
#: The posterior in a folder of `pyro-bmf fit`.
RUN_FILE_NAME = "model.safetensors"
COPY_NAME = "posterior.json"
_OUTDATED = "Fit again with this version of pyro-bmf, with the settings in the run's config.json."
FILE = Kind(
    FORMAT,
    FORMAT_VERSION,
    "saved posterior",
    "Copy it again, or save the posterior again.",
    oldest=FORMAT_VERSION,
    outdated=_OUTDATED,
)

#: Kinds of guide that a saved posterior may name.
GUIDES: Mapping[str, Any] = {
    "cross-feedback": CrossFeedbackGuide,
    "conjugate": ConjugateGuide,
    "exact-head": ExactHeadGuide,
    "chain": ChainGuide,
}


_POSITIVE = ("scale", "bias_scale", "noise_factor", "noise_factor_log_sd", "cuts_scale")
# What the parts raise when a description names things that are not there, or of another type or size.
_MISFITS = (
    *(KeyError, IndexError, AttributeError, TypeError, ValueError, AssertionError),
    *(RuntimeError, ArithmeticError, MemoryError),
)


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
        make_folder(target)
        target = target / FILE_NAME
    tensors: dict[str, Tensor] = {}
    for side, rows in (("users", user_rows), ("items", item_rows)):
        tensors |= {f"{side}.{name}": tensor for name, tensor in rows.tensors().items()}
    tensors |= {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"guide.{name}": tensor for name, tensor in cast(nn.Module, guide).state_dict().items()}
    tensors |= ratings_tensors(train)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {
        "model": model.settings(),
        "guide": guide.settings(),
        **ratings_document(train),
        "info": dict(info),
        "tensors": {
            name: [str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()
        },
    }
    write_tensors(target, FILE, document, tensors)
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
    source = _file_of(Path(path))
    document, tensors = read_tensors(source, FILE)
    try:
        return _rebuild(document, tensors, priors, likelihoods, guides)
    except SavedFileError as error:
        raise SavedFileError(f"{source}: {error}") from None
    except PyroBmfError as error:
        raise SavedFileError(f"{source}: {error}") from error
    except _MISFITS as error:
        raise SavedFileError(
            f"{source}: its description and its tensors do not fit together ({first_line(error)}). "
            "Save it again with this version of pyro-bmf."
        ) from error


def _file_of(path: Path) -> Path:
    """Return the file that a path means: itself, or the one in a folder that `save` or a run wrote."""
    if not path.is_dir():
        if path.is_file():
            return path
        raise SavedFileError(
            f"{path}: there is no such file. Give the file or the folder of a saved posterior, or the folder "
            "of a finished run."
        )
    found = [path / name for name in (FILE_NAME, RUN_FILE_NAME) if (path / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise SavedFileError(
            f"{path}: it holds {FILE_NAME} and {RUN_FILE_NAME}. Give the file that is meant."
        )
    raise SavedFileError(
        f"{path}: there is neither {FILE_NAME} (of a saved posterior) nor {RUN_FILE_NAME} (of a finished "
        "run) in this folder. Give the file or the folder of a saved posterior, or finish the run first."
    )


def _rebuild(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    priors: Mapping[str, type[Prior]] | None,
    likelihoods: Mapping[str, type[Likelihood]] | None,
    guides: Mapping[str, Any] | None,
) -> SavedParts:
    _check_numbers(tensors)
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
    double = all(
        tensor.dtype == torch.float64
        for name, tensor in tensors.items()
        if name.startswith(("users.", "items.")) and tensor.is_floating_point()
    )
    for prefix, module in (("model.", model), ("guide.", guide)):
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        halved: tuple[str, ...] = guide.half_tensors if prefix == "guide." else ()
        _check_types(module, state, prefix, double=double, halved=halved)
        # assign: a posterior fitted in double precision stays so.
        module.load_state_dict(state, strict=True, assign=True)
    train = saved_ratings(document, tensors)
    user_rows = _rows(tensors, "users", train.n_users, model)
    item_rows = _rows(tensors, "items", train.n_items, model)
    types = _row_types(user_rows, item_rows, guide)
    if types not in ({torch.float32}, {torch.float64}):
        names = ", ".join(sorted(str(kind) for kind in types))
        raise SavedFileError(f"its rows are of mixed types ({names}): save the posterior again.")
    return SavedParts(
        model,
        guide,
        user_rows,
        item_rows,
        train,
        dict(document["info"]),
    )


def _check_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Refuse numbers that are not finite, and rows too large to predict with or with an sd that is none."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not is_finite(tensor):
            raise SavedFileError(f"the tensor {name} holds numbers that are not finite: fit and save again.")
        side, _, part = name.partition(".")
        if side not in ("users", "items"):
            continue
        # The square of a product of two rows, of which variances are made, is to be finite.
        limit = torch.finfo(torch.float64 if tensor.dtype == torch.float64 else torch.float32).max ** 0.25
        largest = max(-float(tensor.min()), float(tensor.max()))
        if largest > limit:
            raise SavedFileError(
                f"the tensor {name} holds {largest:g}, too large to predict with (the limit is {limit:.0e}): "
                "fit and save again."
            )
        if part in _POSITIVE and float(tensor.min()) < 0:
            raise SavedFileError(f"the tensor {name} holds a number below 0, and is a scale: save again.")


def _row_types(users: Rows, items: Rows, guide: Guide) -> set[torch.dtype]:
    """Return the types of rows' numbers; draws of a chain in half precision count as single.

    They are so on both sides, draws and means and implicit weights alike, or nowhere.
    """
    named = [part for rows in (users, items) for part in rows.tensors().items() if part[0] != "biased"]
    types = {tensor.dtype for name, tensor in named if name not in _HALF and tensor.is_floating_point()}
    drawn = {tensor.dtype for name, tensor in named if name in _HALF}
    state = cast(nn.Module, guide).state_dict()
    drawn |= {state[name].dtype for name in guide.half_tensors}
    return types | ({torch.float32} if drawn == {torch.float16} else drawn)


def _check_types(
    module: nn.Module, state: Mapping[str, Tensor], prefix: str, *, double: bool, halved: tuple[str, ...]
) -> None:
    """Refuse tensors of another type than the module computes with; a whole posterior may be double."""
    for name, expected in module.state_dict().items():
        found = state.get(name)
        if found is None:
            continue
        needed = torch.float64 if double and expected.is_floating_point() else expected.dtype
        if name in halved and found.dtype == torch.float16:
            continue
        # Few numbers are kept in double precision; a model that was made single as a whole has them single.
        if found.dtype != needed and not (needed == torch.float64 and found.dtype == torch.float32):
            raise SavedFileError(
                f"the tensor {prefix}{name} is {found.dtype}, {needed} is needed: save the posterior again."
            )


def _rows(tensors: Mapping[str, Tensor], side: str, n: int, model: FactorizationModel) -> Rows:
    prefix = f"{side}."
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    k, width = model.n_factors, model.n_factors + model.biases
    shapes: dict[str, tuple[int, ...]]
    if "draws" in found:
        n_draws = found["draws"].shape[1] if found["draws"].ndim == 3 else 1
        shapes = {"draws": (n, n_draws, width), "means": (n, n_draws, width), "biased": ()}
        if "chains" in found:
            shapes["chains"] = ()
    else:
        shapes = {"loc": (n, k), "scale": (n, k)}
        if model.biases:
            shapes |= {"bias_loc": (n,), "bias_scale": (n,)}
        if "tril" in found:
            shapes["tril"] = (n, width, width)
    own_noise = side.removesuffix("s") in model.noisy_sides
    for name in ("noise_factor", "noise_factor_log_sd", "noise_spread"):
        if name in found or (own_noise and name == "noise_factor"):
            shapes[name] = (n,)
    if model.row_cuts is not None and side == "users":
        shapes |= dict.fromkeys(("cuts", "cuts_scale"), (n, model.row_cuts.n_shifts))
    if "positive" in found:
        shapes["positive"] = (n,)
    if unknown := sorted(found.keys() - shapes.keys()):
        raise SavedFileError(
            f"the tensor {side}.{unknown[0]} is not of this model: save the posterior again."
        )
    for name, shape in shapes.items():
        tensor = found.get(name)
        if tensor is None:
            raise SavedFileError(f"the tensor {side}.{name} is missing: save the posterior again.")
        if tuple(tensor.shape) != shape or not (
            tensor.dtype == torch.bool
            if name == "positive"
            else tensor.is_floating_point() or name in ("biased", "chains")
        ):
            raise SavedFileError(
                f"the tensor {side}.{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; {shape} is "
                "needed: save the posterior again."
            )
    kind = RowDraws if "draws" in shapes else RowPosterior
    return kind(**{name: found[name] for name in shapes})
