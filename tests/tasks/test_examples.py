"""Examples and questions: selections, held-out splits, labels of a model."""

import numpy as np
import pytest

from tf_movprune.tasks.examples import Answer, Examples, Questions, held_out, listed


def examples(count=10, **kwargs):
    texts = [f"text {i}" for i in range(count)]
    pairs = [f"pair {i}" for i in range(count)]
    arguments = {"targets": np.arange(count, dtype=np.int32) % 2, "label_names": ("no", "yes")}
    return Examples(texts, pairs, **{**arguments, **kwargs})


def questions(per_context=(3, 1, 4, 2)):
    context_of = np.repeat(np.arange(len(per_context), dtype=np.int32), per_context)
    count = len(context_of)
    return Questions(
        [f"context {i}" for i in range(len(per_context))],
        context_of,
        [f"question {i}" for i in range(count)],
        [str(i) for i in range(count)],
        [(Answer("context", 0),)] * count,
    )


def test_selected_examples_keep_their_targets():
    chosen = examples().select([3, 0])
    assert chosen.texts == ["text 3", "text 0"] and chosen.pairs == ["pair 3", "pair 0"]
    assert chosen.targets.tolist() == [1, 0]
    assert examples(targets=None).select([1]).targets is None


def test_selected_questions_keep_their_contexts_alone():
    chosen = questions().select([9, 3, 0])
    assert chosen.contexts == ["context 0", "context 1", "context 3"]
    assert [chosen.contexts[i] for i in chosen.context_of] == [
        "context 3",
        "context 1",
        "context 0",
    ]
    assert chosen.ids == ["9", "3", "0"]


def test_held_out_examples_are_a_partition():
    train, validation = held_out(examples(), 3, seed=1)
    assert (len(train), len(validation)) == (7, 3)
    assert sorted(train.texts + validation.texts) == sorted(examples().texts)
    assert held_out(examples(), 3, seed=1)[1].texts == validation.texts
    assert held_out(examples(), 3, seed=2)[1].texts != validation.texts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 4, 6])
def test_held_out_questions_share_no_context(count, seed):
    train, validation = held_out(questions(), count, seed)
    assert not set(train.contexts) & set(validation.contexts)
    assert sorted(train.ids + validation.ids) == sorted(questions().ids)
    assert count <= len(validation) < count + 4


@pytest.mark.parametrize("count", [0, 10, -1])
def test_held_out_splits_are_not_empty(count):
    with pytest.raises(ValueError, match=rf"of {count} cannot be taken from 10 examples: it must"):
        held_out(examples(), count)


def test_one_context_cannot_be_divided():
    with pytest.raises(ValueError, match=r"about 1 contexts, which stay whole"):
        held_out(questions([5]), 2)


def test_labels_are_renumbered_as_those_of_a_model():
    data = examples().with_label_names(["yes", "maybe", "no"])
    assert data.targets.tolist() == [2, 0] * 5 and data.targets.dtype == np.int32
    assert data.label_names == ("yes", "maybe", "no")


def test_labels_that_the_model_lacks():
    data = examples(source="train.tsv")
    message = r"labels of train\.tsv are no, yes, but the model has good, yes: it lacks no\. Use"
    with pytest.raises(ValueError, match=message):
        data.with_label_names(["good", "yes"])


def test_lists_of_names_in_messages():
    assert [listed([]), listed("abc"), listed("abc", 2)] == ["none", "a, b, c", "a, b and 1 more"]
