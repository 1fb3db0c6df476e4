"""Windows over the contexts of questions, and where the answers are in them."""

from __future__ import annotations

import os

import numpy as np

from tf_movprune.core.arguments import check_integer
from tf_movprune.tasks.cache import cached, fingerprint
from tf_movprune.tasks.examples import Questions
from tf_movprune.tasks.feature_types import Windows
from tf_movprune.tasks.features import EMPTY, check_length
from tf_movprune.tasks.rows import Rows
from tf_movprune.tasks.tokenizer import Tokenizer

_VERSION = "1"
"""Part of the key of caches, to be raised whenever the arrays would be others."""


def question_windows(
    questions: Questions,
    tokenizer: Tokenizer,
    max_length: int = 384,
    stride: int = 128,
    question_length: int = 64,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Windows:
    """Windows of a question and a part of its context each.

    A context that has no room in one window has several, whose parts start `stride` tokens apart,
    or as many as have room if they are fewer. Each context is tokenized once. The targets of a
    window are the columns of the first answer's first and last token; those of column 0, where
    most models have a token for the whole, if the answer is not in the window or there is none.

    Args:
      questions: questions, with their answers.
      tokenizer: the model's own.
      max_length: most tokens of a window, special tokens included.
      stride: tokens from the start of a window's part to that of the next.
      question_length: number of tokens that questions are cut to; half of `max_length` at most.
      cache_dir: folder to keep the windows in; None for no cache.

    Raises:
      ValueError: `max_length` exceeds the model's positions, or has room for special tokens only.

    Reference:
      Devlin et al. (2019), https://arxiv.org/abs/1810.04805, and their run_squad.py.
    """
    check_integer("stride", stride, example=128, minimum=1)
    check_integer("question_length", question_length, example=64, minimum=1)
    check_length(max_length, tokenizer, pair=True, room=2)
    texts = [*questions.questions, *questions.contexts]
    lengths = [max_length, stride, question_length, len(questions)]
    parts = ["windows", _VERSION, *map(str, lengths), tokenizer.fingerprint]
    if cache_dir is not None:
        parts += [fingerprint(texts), fingerprint([questions.context_of.tobytes().hex()])]
    arrays, from_cache = cached(
        cache_dir,
        "windows",
        parts,
        lambda: _arrays(questions, tokenizer, max_length, stride, question_length),
    )
    splits = arrays["splits"]
    windows = Windows(
        Rows(arrays["ids"], splits),
        Rows(arrays["segments"].astype(np.int32), splits),
        {},
        tokenizer.padding_id,
        len(questions),
        max_length,
        int(arrays["cut"]),
        from_cache,
        question=arrays["question"],
        first_token=arrays["first_token"],
        position=arrays["position"],
        tokens=arrays["tokens"],
        offsets=Rows(arrays["offsets"], arrays["offset_splits"]),
    )
    windows.targets.update(_targets(questions, windows))
    return windows


def _arrays(
    questions: Questions, tokenizer: Tokenizer, max_length: int, stride: int, question_length: int
) -> dict[str, np.ndarray]:
    both = max_length - tokenizer.special_tokens(True)
    question_length = min(question_length, both // 2)
    asked = tokenizer.encode(questions.questions)
    read = tokenizer.encode_with_offsets(questions.contexts)
    asked_lengths = np.array([len(ids) for ids in asked], np.int64)
    read_lengths = np.array([len(ids) for ids, _ in read], np.int64)[questions.context_of]
    kept = np.minimum(asked_lengths, question_length)
    room = both - kept
    step = np.minimum(stride, room)
    counts = 1 + np.maximum(0, -(-(read_lengths - room) // step))
    question = np.repeat(np.arange(len(questions)), counts)
    nth = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    first_token = nth * step[question]
    tokens = np.minimum(room[question], read_lengths[question] - first_token)
    context = questions.context_of[question]
    rows = [
        tokenizer.joined(asked[q][:question_length], read[c][0][begin : begin + size])
        for q, c, begin, size in zip(
            question.tolist(), context.tolist(), first_token.tolist(), tokens.tolist()
        )
    ]
    marked, _ = tokenizer.joined(np.array([-1], np.int32), np.array([-2], np.int32))
    before = marked.tolist().index(-2) - 1
    ids = Rows.of([row for row, _ in rows], EMPTY)
    offsets = Rows.of([places for _, places in read], np.zeros([0, 2], np.int32))
    return {
        "ids": ids.values,
        "segments": Rows.of([segments for _, segments in rows], np.zeros(0, np.int8)).values,
        "splits": ids.splits,
        "cut": np.array(np.sum(asked_lengths > question_length)),
        "question": question.astype(np.int32),
        "first_token": first_token.astype(np.int32),
        "position": (before + kept[question]).astype(np.int32),
        "tokens": tokens.astype(np.int32),
        "offsets": offsets.values,
        "offset_splits": offsets.splits,
    }


def _targets(questions: Questions, windows: Windows) -> dict[str, np.ndarray]:
    """Columns of the answers, int32 [windows]; 0 for windows without."""
    spans = np.full([len(questions), 2], -1, np.int64)
    for i, (context, answers) in enumerate(zip(questions.context_of.tolist(), questions.answers)):
        if answers:
            spans[i] = answer_tokens(
                windows.offsets[context], answers[0].start, len(answers[0].text)
            )
    start, end = spans[windows.question].T
    last = windows.first_token + windows.tokens - 1
    is_inside = (start >= windows.first_token) & (start <= end) & (end <= last)
    shift = windows.position - windows.first_token
    return {
        name: np.where(is_inside, token + shift, 0).astype(np.int32)
        for name, token in (("start", start), ("end", end))
    }


def answer_tokens(offsets: np.ndarray, start: int, length: int) -> tuple[int, int]:
    """The first and the last token that have characters of an answer.

    Args:
      offsets: int32 [tokens, 2], ascending.
      start: first character of the answer.
      length: number of its characters.

    Returns:
      Indices of the tokens; the first is greater than the last if there is none.
    """
    first = np.searchsorted(offsets[:, 1], start, side="right")
    last = np.searchsorted(offsets[:, 0], start + length, side="left") - 1
    return int(first), int(last)


def maximum_context(windows: Windows) -> Rows:
    """Whether a window is the one that shows most around a token of its context.

    That is the window with the most tokens on the shorter side of the token, to which BERT's code
    adds a hundredth of the window's tokens. Of equal ones, the first.

    Returns:
      bool rows, one of `tokens` elements for each window; of all windows that have a token, one
      is True.
    """
    splits = np.zeros(len(windows) + 1, np.int64)
    np.cumsum(windows.tokens, out=splits[1:])
    window = np.repeat(np.arange(len(windows)), windows.tokens)
    place = np.arange(splits[-1]) - splits[window]  # in its window
    size = windows.tokens[window]
    score = np.minimum(place, size - 1 - place) * 100 + size
    token = windows.first_token[window] + place  # in its context
    order = np.lexsort([-score, token, windows.question[window]])
    question, token = windows.question[window][order], token[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (question[1:] != question[:-1]) | (token[1:] != token[:-1])
    values = np.zeros(len(order), bool)
    values[order[is_first]] = True
    return Rows(values, splits)
