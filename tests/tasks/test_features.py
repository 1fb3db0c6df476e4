"""Features of texts: special tokens, cutting, targets, the cache."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_tokenizer import WordTokenizer

from tf_movprune.tasks.examples import Examples
from tf_movprune.tasks.features import cut_lengths, text_features


def examples(texts, pairs=None, **kwargs):
    targets = np.arange(len(texts), dtype=np.int32)
    return Examples(list(texts), pairs and list(pairs), **{"targets": targets, **kwargs})


def ids(text):
    return WordTokenizer().encode([text])[0].tolist()


def test_single_texts():
    features = text_features(examples(["a b c", "d", ""]), WordTokenizer())
    assert features.ids[0].tolist() == [1, *ids("a b c"), 2]
    assert [features.ids[i].tolist() for i in (1, 2)] == [[1, *ids("d"), 2], [1, 2]]
    assert not features.segments.values.any() and features.segments.lengths.tolist() == [5, 3, 2]
    assert features.ids.values.dtype == features.segments.values.dtype == np.int32
    assert features.targets["labels"].tolist() == [0, 1, 2]
    assert features.description == "3 examples, 3 features of at most 5 tokens"


def test_pairs():
    features = text_features(examples(["a b"], ["c"]), WordTokenizer())
    assert features.ids[0].tolist() == [1, *ids("a b"), 2, *ids("c"), 2]
    assert features.segments[0].tolist() == [0, 0, 0, 0, 1, 1]


def test_long_texts_are_cut():
    features = text_features(examples(["a b c d", "a b"]), WordTokenizer(), max_length=5)
    assert features.ids[0].tolist() == [1, *ids("a b c"), 2] and features.cut == 1
    assert features.description.endswith("features of at most 5 tokens, 1 cut to 5")


def test_the_longer_of_a_pair_is_cut():
    features = text_features(examples(["a b c d e f"], ["g h"]), WordTokenizer(), max_length=8)
    assert features.ids[0].tolist() == [1, *ids("a b c"), 2, *ids("g h"), 2]


def cut_one_by_one(first, second, room):
    """The loop of BERT's code."""
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8), st.integers(0, 50))
def test_cutting_is_that_of_bert(pairs, room):
    first, second = np.array(pairs, np.int64).reshape([-1, 2]).T
    found = np.stack(cut_lengths(first, second, room), axis=1)
    expected = [cut_one_by_one(a, b, room) for a, b in pairs]
    assert found.tolist() == [list(pair) for pair in expected]


def test_each_text_is_tokenized_once():
    tokenizer = WordTokenizer()
    features = text_features(examples(["a b", "c", "a b"], ["c", "c", "d"]), tokenizer)
    assert tokenizer.encoded == ["a b", "c", "d"]
    assert features.ids[2].tolist() == [1, *ids("a b"), 2, *ids("d"), 2]


def test_secret_targets_and_scores():
    assert text_features(examples(["a"], targets=None), WordTokenizer()).targets == {}
    scores = np.array([2.5], np.float32)
    found = text_features(examples(["a"], targets=scores), WordTokenizer()).targets["labels"]
    assert found.dtype == np.float32 and found.tolist() == [2.5]


def test_the_cache_keeps_tokens_and_not_targets(tmp_path):
    first = text_features(examples(["a b", "c"]), WordTokenizer(), 8, tmp_path)
    tokenizer = WordTokenizer()
    targets = np.array([5, 6], np.int32)
    again = text_features(examples(["a b", "c"], targets=targets), tokenizer, 8, tmp_path)
    assert not first.from_cache and again.from_cache and not tokenizer.encoded
    assert again.description.endswith("(from the cache)")
    assert again.targets["labels"].tolist() == [5, 6]
    for name in ("ids", "segments"):
        np.testing.assert_array_equal(getattr(again, name).values, getattr(first, name).values)
        assert getattr(again, name).values.dtype == np.int32


def test_anything_else_is_another_key(tmp_path):
    text_features(examples(["a b", "c"]), WordTokenizer(), 8, tmp_path)
    for data, tokenizer, length in [
        (examples(["a b", "d"]), WordTokenizer(), 8),
        (examples(["c", "a b"]), WordTokenizer(), 8),
        (examples(["a b"], ["c"]), WordTokenizer(), 8),
        (examples(["a b", "c"]), WordTokenizer(vocabulary_size=99), 8),
        (examples(["a b", "c"]), WordTokenizer(), 9),
    ]:
        assert not text_features(data, tokenizer, length, tmp_path).from_cache


@pytest.mark.parametrize(
    "length, message",
    [
        (513, r"max_length must be at most 512, the positions of the model, got 513\."),
        (3, r"max_length must be at least 4, of which 3 are special tokens, got 3\."),
    ],
)
def test_lengths_that_the_model_does_not_have(length, message):
    with pytest.raises(ValueError, match=message):
        text_features(examples(["a"], ["b"]), WordTokenizer(), length)
