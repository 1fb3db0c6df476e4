"""KerasHub's tokenizers, for tasks: token ids, and the characters that they stand for."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.special_tokens import JoinsTokens, SpecialTokens
from tf_movprune.core.token_offsets import offsets_in_word, words_of

_BATCH = 1024


class Tokenizer(JoinsTokens):
    """The tokenizer of a text classifier's preprocessor, which packs no batches itself.

    Args:
      preprocessor: a `TextClassifierPreprocessor` of KerasHub.
      max_length: positions of the model; None if it has no limit.
    """

    def __init__(self, preprocessor: Any, max_length: int | None):
        self.preprocessor, self.max_length = preprocessor, max_length
        if not preprocessor.built:
            preprocessor.build(None)
        packer = preprocessor.packer
        self.padding_id = int(packer.pad_value)
        self._special = SpecialTokens(
            start=_ids(packer.start_value),
            between=_ids(packer.sep_value),
            end=_ids(packer.end_value),
            second_segment=1,
            split=len(_ids(packer.sep_value)),
        )

    @property
    def original(self) -> Any:
        """The tokenizer of KerasHub."""
        return self.preprocessor.tokenizer

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary and the configuration."""
        tokenizer = self.preprocessor.tokenizer
        config = {k: v for k, v in tokenizer.get_config().items() if k not in ("name", "dtype")}
        vocabulary = tokenizer.get_vocabulary()
        merges = getattr(tokenizer, "merges", None)
        proto = getattr(tokenizer, "proto", None)  # of SentencePiece
        parts = [type(tokenizer).__name__, config, vocabulary, merges, proto, self._special]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32, without special tokens."""
        if not texts:
            return []
        tokenizer = self.preprocessor.tokenizer
        if not tokenizer.built:
            tokenizer.build(None)
        data = tf.data.Dataset.from_tensor_slices(list(texts)).batch(_BATCH)
        data = data.map(lambda batch: _ragged(tokenizer.call(batch)), tf.data.AUTOTUNE)
        found: list[np.ndarray] = []
        for batch in data.prefetch(tf.data.AUTOTUNE):
            splits = batch.row_splits.numpy()
            found += np.split(batch.flat_values.numpy().astype(np.int32), splits[1:-1])
        return found

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids of each text, and the characters that each stands for, int32 [tokens, 2].

        Texts are taken apart at spaces, and each different word is tokenized once.
        """
        spans = [words_of(text) for text in texts]
        # In byte-level BPE, a word has a space before it unless a text begins with it.
        prefix = " " if hasattr(self.preprocessor.tokenizer, "merges") else ""
        words = [
            [(prefix if i else "") + text[start:end] for i, (start, end) in enumerate(found)]
            for text, found in zip(texts, spans)
        ]
        different = list(dict.fromkeys(itertools.chain.from_iterable(words)))
        tokens = dict(zip(different, self.encode(different)))
        piece = functools.cache(self.preprocessor.tokenizer.id_to_token)
        offsets = {
            word: offsets_in_word(len(word.strip()), [piece(i) for i in ids.tolist()])
            for word, ids in tokens.items()
        }
        found = []
        for word_list, places in zip(words, spans):
            parts = [start + offsets[word] for word, (start, _) in zip(word_list, places)]
            ids = [tokens[word] for word in word_list]
            found.append(
                (
                    np.concatenate([np.zeros(0, np.int32), *ids]),
                    np.concatenate([np.zeros([0, 2], np.int32), *parts]),
                )
            )
        return found

    def save(self, folder: str) -> None:
        """Writes the tokenizer into the folder of a preset."""
        self.preprocessor.save_to_preset(folder)


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.atleast_1d(value))


def _ragged(tokens: Any) -> tf.RaggedTensor:
    return tokens if isinstance(tokens, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(tokens)
