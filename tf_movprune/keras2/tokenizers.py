"""Hugging Face's tokenizers, for tasks: token ids, and the characters that they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_movprune.core.special_tokens import JoinsTokens, SpecialTokens


class Tokenizer(JoinsTokens):
    """A fast tokenizer of transformers, which works on all cores.

    Args:
      tokenizer: a `PreTrainedTokenizerFast`.
      max_length: positions of the model; None if it has no limit.

    Raises:
      ValueError: the tokenizer is a slow one, which knows no offsets, has no padding, or does not
        tell where its special tokens are.
    """

    def __init__(self, tokenizer: Any, max_length: int | None):
        if not tokenizer.is_fast:
            raise ValueError(
                f"Tasks need a fast tokenizer, got {type(tokenizer).__name__}. Convert it with "
                "AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)."
            )
        if tokenizer.pad_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no padding token. Set pad_token, save the "
                "tokenizer, and pass its folder."
            )
        tokenizer.backend_tokenizer.no_truncation()  # a state, which the fingerprint would have
        tokenizer.backend_tokenizer.no_padding()
        self._tokenizer, self.max_length = tokenizer, max_length
        self.padding_id = int(tokenizer.pad_token_id)
        self._special = SpecialTokens.of_function(
            tokenizer.build_inputs_with_special_tokens,
            tokenizer.create_token_type_ids_from_sequences,
        )
        if self._special.count(pair=True) != tokenizer.num_special_tokens_to_add(pair=True):
            raise ValueError(
                f"{type(tokenizer).__name__} does not tell where it puts its special tokens. Use "
                "the class of the model, such as BertTokenizerFast."
            )

    @property
    def original(self) -> Any:
        """The tokenizer of transformers."""
        return self._tokenizer

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides on the ids."""
        text = f"{self._tokenizer.backend_tokenizer.to_str()} {self._special}"
        return hashlib.sha256(text.encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, int32, without special tokens."""
        return [np.array(ids, np.int32) for ids in self._encoded(texts)["input_ids"]]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids of each text, and the characters that each stands for, int32 [tokens, 2]."""
        found = self._encoded(texts, return_offsets_mapping=True)
        return [
            (np.array(ids, np.int32), np.array(offsets, np.int32).reshape([-1, 2]))
            for ids, offsets in zip(found["input_ids"], found["offset_mapping"])
        ]

    def _encoded(self, texts: Sequence[str], **arguments: Any) -> Any:
        if not texts:
            return {"input_ids": [], "offset_mapping": []}
        return self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # texts longer than the model are cut by whoever asked
            **arguments,
        )

    def save(self, folder: str) -> None:
        """Writes the tokenizer into the folder of a model."""
        self._tokenizer.save_pretrained(folder)
