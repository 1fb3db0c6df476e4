"""Features of texts and of pairs of texts: token ids, cut to a length."""

from __future__ import annotations

import os

import numpy as np

from tf_movprune.core.arguments import check_integer
from tf_movprune.tasks.cache import cached, fingerprint
from tf_movprune.tasks.examples import Examples
from tf_movprune.tasks.feature_types import Features
from tf_movprune.tasks.rows import Rows
from tf_movprune.tasks.tokenizer import Tokenizer

_VERSION = "1"
"""Part of the key of caches, to be raised whenever the arrays would be others."""
EMPTY = np.zeros(0, np.int32)


def text_features(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int = 128,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Features:
    """Token ids of each example, in its order.

    Of a pair that is too long, the longer text loses tokens until both are equally long, as in
    BERT's code. Each different text is tokenized once.

    Args:
      examples: texts or pairs.
      tokenizer: the model's own.
      max_length: most tokens of an example, special tokens included.
      cache_dir: folder to keep the features in; None for no cache.

    Raises:
      ValueError: `max_length` exceeds the model's positions, or has room for special tokens only.
    """
    is_pair = examples.pairs is not None
    check_length(max_length, tokenizer, is_pair, room=1)
    texts = [*examples.texts, *(examples.pairs or ())]
    parts = ["texts", _VERSION, str(is_pair), str(max_length), tokenizer.fingerprint]
    arrays, from_cache = cached(
        cache_dir,
        "texts",
        [*parts, *([fingerprint(texts)] if cache_dir is not None else [])],
        lambda: _arrays(texts, len(examples), tokenizer, max_length),
    )
    targets = {} if examples.targets is None else {"labels": examples.targets}
    return Features(
        Rows(arrays["ids"], arrays["splits"]),
        Rows(arrays["segments"].astype(np.int32), arrays["splits"]),
        targets,
        tokenizer.padding_id,
        len(examples),
        max_length,
        int(arrays["cut"]),
        from_cache,
    )


def _arrays(
    texts: list[str], count: int, tokenizer: Tokenizer, max_length: int
) -> dict[str, np.ndarray]:
    """Ids and segments of `count` examples, with the second texts after the first ones."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    distinct = tokenizer.encode(list(number))
    tokens = [distinct[number[text]] for text in texts]
    is_pair = len(texts) > count
    room = max_length - tokenizer.special_tokens(is_pair)
    lengths = np.array([len(ids) for ids in tokens], np.int64).reshape([-1, count])
    first, second = cut_lengths(lengths[0], lengths[1] if is_pair else np.zeros(count), room)
    rows = [
        tokenizer.joined(ids[:a], tokens[count + i][:b] if is_pair else None)
        for i, (ids, a, b) in enumerate(zip(tokens[:count], first.tolist(), second.tolist()))
    ]
    ids = Rows.of([row for row, _ in rows], EMPTY)
    return {
        "ids": ids.values,
        "segments": Rows.of([segments for _, segments in rows], np.zeros(0, np.int8)).values,
        "splits": ids.splits,
        "cut": np.array(np.sum(lengths.sum(0) > room)),
    }


def cut_lengths(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of pairs after tokens were taken from the longer one until `room` is left.

    Of two that are equally long, the second loses a token.

    Args:
      first: int lengths of the first texts.
      second: int lengths of the second texts.
      room: most tokens of a pair.

    Returns:
      int64 lengths of the first and of the second texts.
    """
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    kept = np.minimum(second, np.maximum(room - first, room // 2))
    return np.minimum(first, room - kept), kept


def check_length(max_length: int, tokenizer: Tokenizer, pair: bool, room: int) -> None:
    """Raises ValueError if a length is beyond the model's, or leaves less than `room` tokens."""
    check_integer("max_length", max_length, example=128)
    if tokenizer.max_length is not None and max_length > tokenizer.max_length:
        raise ValueError(
            f"max_length must be at most {tokenizer.max_length}, the positions of the model, got "
            f"{max_length}."
        )
    least = tokenizer.special_tokens(pair) + room
    if max_length < least:
        raise ValueError(
            f"max_length must be at least {least}, of which {least - room} are special tokens, "
            f"got {max_length}."
        )
