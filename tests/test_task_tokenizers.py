"""Tokenizers of both libraries for one model: the same ids, special tokens and characters."""

import functools

import numpy as np
import pytest
import tiny_pretrained

from tf_movprune.pytorch.load import load_pytorch
from tf_movprune.runs.libraries import shell_of

TEXTS = ["The FILM was superb!", "café naïve 42", "", "  two   spaces ", "plot (first)"]


@functools.cache
def tokenizer(library):
    shell = shell_of(library)
    model, _ = shell.load(tiny_pretrained.folder(), "classification", 2, load_pytorch)
    return shell.tokenizer_of(tiny_pretrained.folder(), model)


@pytest.mark.parametrize("library", ["keras_hub", "transformers"])
class TestTokenizer:
    def test_ids_have_no_special_tokens(self, library):
        found = tokenizer(library).encode(TEXTS)
        assert [ids.dtype for ids in found] == [np.int32] * len(TEXTS)
        assert len(found[0]) == 5 and len(found[2]) == 0

    def test_offsets_are_the_characters_of_the_tokens(self, library):
        for text, (ids, offsets) in zip(TEXTS, tokenizer(library).encode_with_offsets(TEXTS)):
            assert offsets.shape == (len(ids), 2) and offsets.dtype == np.int32
            words = [text[start:end] for start, end in offsets]
            assert "".join(words) == "".join(text.split())  # nothing twice, nothing lost

    def test_a_text_has_the_same_ids_with_offsets(self, library):
        with_offsets = tokenizer(library).encode_with_offsets(TEXTS)
        for ids, (same, _) in zip(tokenizer(library).encode(TEXTS), with_offsets):
            np.testing.assert_array_equal(ids, same)

    def test_no_texts(self, library):
        assert tokenizer(library).encode([]) == tokenizer(library).encode_with_offsets([]) == []

    def test_numbers(self, library):
        found = tokenizer(library)
        assert found.padding_id == 0 and found.max_length == 64
        assert found.special_tokens(pair=False) == 2 and found.special_tokens(pair=True) == 3

    def test_it_is_saved_with_a_model(self, library, tmp_path):
        shell = shell_of(library)
        model, is_new = shell.load(tiny_pretrained.folder(), "classification", 3, load_pytorch)
        shell.save(model, tokenizer(library), str(tmp_path / "model"), ["a", "b", "c"])
        again, is_new_again = shell.load(tmp_path / "model", "classification", 3, load_pytorch)
        assert is_new and not is_new_again
        loaded = shell.tokenizer_of(str(tmp_path / "model"), again)
        assert loaded.fingerprint == tokenizer(library).fingerprint
        _, is_new = shell.load(tmp_path / "model", "classification", 2, load_pytorch)
        assert is_new  # of other labels
        for mine, theirs in zip(model.weights, again.weights, strict=True):
            np.testing.assert_array_equal(np.array(mine), np.array(theirs))


def test_both_libraries_have_the_same_ids():
    for one, other in zip(*(tokenizer(x).encode(TEXTS) for x in ("keras_hub", "transformers"))):
        np.testing.assert_array_equal(one, other)
    pair = tokenizer("keras_hub").encode(["the film", "was dull"])
    for one, other in zip(*(tokenizer(x).joined(*pair) for x in ("keras_hub", "transformers"))):
        np.testing.assert_array_equal(one, other)
