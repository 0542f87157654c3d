"""A fitted system's training ratings in its file: tensors, and what a description says of them.

Integer ids are int64 tensors; text (ids, titles) is one UTF-8 tensor of bytes and one of lengths in
characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.ratings import Ratings
from ..data.scale import RatingScale
from ..data.vocabulary import Vocabulary
from ..errors import SavedFileError


def ratings_tensors(train: Ratings) -> dict[str, Tensor]:
    """Return the tensors that hold ids, titles, pairs and ratings; timestamps are not kept."""
    tensors = _vocabulary_tensors("user_ids", train.user_vocabulary)
    tensors |= _vocabulary_tensors("item_ids", train.item_vocabulary)
    if train.item_titles is not None:
        tensors |= _text_tensors("item_titles", train.item_titles)
    tensors["train.users"] = torch.from_numpy(train.users.astype(np.int32))
    tensors["train.items"] = torch.from_numpy(train.items.astype(np.int32))
    single = train.ratings.astype(np.float32)
    lossless = bool((single == train.ratings).all())
    tensors["train.ratings"] = torch.from_numpy(single if lossless else train.ratings.copy())
    return tensors


def ratings_document(train: Ratings) -> dict[str, Any]:
    """Return what the description of a file says of the ratings, JSON-ready."""
    return {
        "user_ids": "integer" if train.user_vocabulary.is_integer else "text",
        "item_ids": "integer" if train.item_vocabulary.is_integer else "text",
        "titles": train.item_titles is not None,
        "scale": train.scale.to_dict(),
        "name": train.name,
    }


def saved_ratings(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ratings:
    """Return the ratings that `ratings_document` and `ratings_tensors` describe.

    Raises
    ------
    SavedFileError, DataError, KeyError, IndexError, TypeError, ValueError
        If the two do not fit together.
    """
    return Ratings(
        tensors["train.users"].numpy().astype(np.int64),
        tensors["train.items"].numpy().astype(np.int64),
        tensors["train.ratings"].numpy().astype(np.float64),
        None,
        _vocabulary(tensors, "user_ids", "user", document["user_ids"]),
        _vocabulary(tensors, "item_ids", "item", document["item_ids"]),
        RatingScale.from_dict(document["scale"]),
        _texts(tensors, "item_titles") if document["titles"] else None,
        document["name"],
    )


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
