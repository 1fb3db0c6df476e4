"""Windows of questions, against the loops of BERT's code."""

import dataclasses

import numpy as np
import pytest
import task_files
from word_tokenizer import WordTokenizer

from tf_movprune.tasks.examples import Answer, Questions
from tf_movprune.tasks.squad import questions_of
from tf_movprune.tasks.windows import answer_tokens, maximum_context, question_windows


def questions(*lengths, question="what is it", per_context=1, answer=None):
    """Questions about contexts of w0 w1 …, of these numbers of words."""
    contexts = [" ".join(f"w{i}_{c}" for i in range(n)) for c, n in enumerate(lengths)]
    context_of = np.repeat(np.arange(len(lengths), dtype=np.int32), per_context)
    answers = []
    for c in context_of:
        text = None if answer is None else contexts[c].split()[answer]
        answers.append(() if text is None else (Answer(text, contexts[c].index(text)),))
    ids = [str(i) for i in range(len(context_of))]
    return Questions(contexts, context_of, [question] * len(ids), ids, answers)


def bert_starts(length, room, stride):
    """The loop of run_squad.py: (start, tokens) of each window."""
    spans, start = [], 0
    while start < length:
        size = min(length - start, room)
        spans.append((start, size))
        if start + size == length:
            break
        start += min(size, stride)
    return spans


@pytest.mark.parametrize("stride", [1, 3, 7, 128])
def test_windows_are_those_of_bert(stride):
    lengths = [1, 9, 10, 11, 13, 25, 40]
    data = questions(*lengths)
    windows = question_windows(data, WordTokenizer(), max_length=16, stride=stride)
    expected = [(q, *span) for q, n in enumerate(lengths) for span in bert_starts(n, 10, stride)]
    found = zip(windows.question.tolist(), windows.first_token.tolist(), windows.tokens.tolist())
    assert list(found) == expected
    asked = WordTokenizer().encode(["what is it"])[0].tolist()
    for i, (question, start, size) in enumerate(expected):
        read = WordTokenizer().encode([data.contexts[question]])[0][start : start + size].tolist()
        assert windows.ids[i].tolist() == [1, *asked, 2, *read, 2]
        assert windows.ids[i][windows.position[i] :][:size].tolist() == read
        assert windows.segments[i].tolist() == [0] * 5 + [1] * (size + 1)


def test_long_questions_are_cut():
    data = questions(30, question="a b c d e f g h")
    windows = question_windows(data, WordTokenizer(), 20, question_length=5)
    assert windows.position[0] == 1 + 5 + 1 and windows.tokens[0] == 20 - 3 - 5
    assert windows.cut == 1 and windows.examples == 1
    narrow = question_windows(data, WordTokenizer(), 9)
    assert narrow.position[0] == 1 + 3 + 1 and set(narrow.tokens) == {3}


@pytest.mark.parametrize("answer", [0, 5, 9, 10, 24])
def test_targets_are_columns_of_the_answer(answer):
    data = questions(25, answer=answer)
    windows = question_windows(data, WordTokenizer(), max_length=16, stride=4)
    ids = WordTokenizer().encode([data.answers[0][0].text])[0]
    inside = 0
    for i, (start, end) in enumerate(zip(*windows.targets.values())):
        begin = windows.first_token[i]
        if begin <= answer < begin + windows.tokens[i]:
            inside += 1
            assert start == end == windows.position[i] + answer - begin
            assert windows.ids[i][start] == ids
        else:
            assert start == end == 0
    assert 0 < inside < len(windows)
    assert {array.dtype for array in windows.targets.values()} == {np.dtype(np.int32)}


def test_answers_that_a_window_cuts_are_not_in_it():
    data = questions(12)
    text = data.contexts[0]
    data = dataclasses.replace(
        data, answers=[(Answer(text[text.index("w9") :], text.index("w9")),)]
    )
    windows = question_windows(data, WordTokenizer(), max_length=16, stride=2)
    assert windows.targets["start"].tolist() == [0, 12] and windows.targets["end"].tolist() == [
        0,
        14,
    ]


def test_questions_without_an_answer():
    windows = question_windows(questions(12), WordTokenizer(), 16)
    assert not windows.targets["start"].any() and not windows.targets["end"].any()


@pytest.mark.parametrize(
    "start, length, expected",
    [
        (0, 2, (0, 0)),
        (0, 3, (0, 0)),
        (1, 1, (0, 0)),
        (3, 4, (1, 2)),
        (5, 2, (2, 2)),
        (8, 9, (3, 2)),
    ],
)
def test_tokens_of_characters(start, length, expected):
    offsets = np.array([[0, 2], [3, 5], [5, 7]], np.int32)
    assert answer_tokens(offsets, start, length) == expected


@pytest.mark.parametrize("lengths, max_length, stride", [([25, 9], 16, 3), ([400], 256, 128)])
def test_maximum_context_is_that_of_bert(lengths, max_length, stride):
    data = questions(*lengths, per_context=2)
    windows = question_windows(data, WordTokenizer(), max_length, stride)
    found = maximum_context(windows)
    for i in range(len(windows)):
        same = np.flatnonzero(windows.question == windows.question[i])
        for token in range(windows.tokens[i]):
            place = windows.first_token[i] + token
            scores = []
            for j in same:
                left = place - windows.first_token[j]
                right = windows.first_token[j] + windows.tokens[j] - 1 - place
                inside = left >= 0 and right >= 0
                scores.append(min(left, right) + 0.01 * windows.tokens[j] if inside else -1)
            assert found[i][token] == (same[np.argmax(scores)] == i)


def test_each_context_is_tokenized_once():
    tokenizer = WordTokenizer()
    data = questions(10, 20, per_context=3)
    question_windows(data, tokenizer, 32)
    assert [text for text in tokenizer.encoded if text in data.contexts] == data.contexts


def test_the_cache_keeps_windows_and_not_targets(tmp_path):
    arguments = (16, 3, 64, tmp_path)
    first = question_windows(questions(25, 9), WordTokenizer(), *arguments)
    tokenizer = WordTokenizer()
    again = question_windows(questions(25, 9, answer=1), tokenizer, *arguments)
    assert again.from_cache and not tokenizer.encoded and not first.from_cache
    for field in dataclasses.fields(first):
        if field.name not in ("targets", "from_cache"):
            a, b = getattr(first, field.name), getattr(again, field.name)
            np.testing.assert_equal(getattr(a, "values", a), getattr(b, "values", b))
    assert again.targets["start"].any() and not first.targets["start"].any()
    for data, numbers in [
        (questions(25, 9), (17, 3, 64)),
        (questions(25, 9), (16, 4, 64)),
        (questions(25, 9), (16, 3, 2)),
        (questions(9, 25), (16, 3, 64)),
    ]:
        assert not question_windows(data, WordTokenizer(), *numbers, tmp_path).from_cache


def test_official_files_give_windows():
    data = questions_of(task_files.squad_content(), False, "here")
    windows = question_windows(data, WordTokenizer())
    assert len(windows) == 12 and windows.description.startswith("12 examples, 12 features")
    for i in range(12):
        start, end = windows.targets["start"][i], windows.targets["end"][i]
        expected = WordTokenizer().encode([data.answers[i][0].text])[0]
        assert windows.ids[i][start : end + 1].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"max_length": 1000}, r"max_length must be at most 512, the positions of the model"),
        ({"max_length": 4}, r"max_length must be at least 5, of which 3 are special"),
        ({"stride": 0}, r"stride must be at least 1, got 0"),
        ({"question_length": 0}, r"question_length must be at least 1, got 0"),
    ],
)
def test_lengths_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        question_windows(questions(5), WordTokenizer(), **arguments)
