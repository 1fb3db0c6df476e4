"""A tokenizer of words, for tests of tasks."""

import re
import zlib

import numpy as np


class WordTokenizer:
    """Each word, and each sign, is a token; its id is a hash of it.

    Joined as in BERT: [CLS] 1, [SEP] 2, padding 0.
    """

    padding_id = 0

    def __init__(self, vocabulary_size=1000, max_length=512):
        self.vocabulary_size, self.max_length = vocabulary_size, max_length
        self.encoded = []  # texts, in the order in which they were asked for

    @property
    def fingerprint(self):
        return f"words {self.vocabulary_size}"

    def encode(self, texts):
        return [ids for ids, _ in self.encode_with_offsets(texts)]

    def encode_with_offsets(self, texts):
        self.encoded += texts
        return [self._tokens(text) for text in texts]

    def _tokens(self, text):
        found = list(re.finditer(r"\w+|[^\w\s]", text))
        ids = [3 + zlib.crc32(m[0].lower().encode()) % (self.vocabulary_size - 3) for m in found]
        offsets = np.array([m.span() for m in found], np.int32).reshape([-1, 2])
        return np.array(ids, np.int32), offsets

    def special_tokens(self, pair):
        return 3 if pair else 2

    def joined(self, first, second=None):
        ids = [[1], first, [2]] + ([] if second is None else [second, [2]])
        segments = np.zeros(sum(map(len, ids)), np.int32)
        segments[len(first) + 2 :] = 1
        return np.concatenate(ids).astype(np.int32), segments
