"""A tensorflow-datasets builder for rated movie-review sentences."""

import hashlib
import io
import pathlib
import tarfile
import tempfile
import zipfile

import tensorflow_datasets as tfds

from examples.downloads import VADER, fetch_package

_CITATION = """
@inproceedings{hutto2014vader,
  title={VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text},
  author={Hutto, C.J. and Gilbert, Eric},
  booktitle={Proceedings of the International AAAI Conference on Web and Social Media},
  year={2014}
}
"""

CLEAR = 1.0
"""Least distance of the mean rating from 0, on the scale from -4 to 4, of a clear case."""

TEST_SIZE, VALIDATION_SIZE = 1500, 700


class MovieReviewSentences(tfds.core.GeneratorBasedBuilder):
    """Sentences of movie reviews, each rated from -4 to +4 by 20 people.

    Label 1 (positive) or 0 (negative) by the sign of the mean rating, for the 9,173 of 10,605
    sentences whose mean is at least 1 away from 0. The split is fixed: by a hash of the text.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "sentence": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["negative", "positive"]),
                }
            ),
            supervised_keys=("sentence", "label"),
            homepage="https://github.com/cjhutto/vaderSentiment",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager):
        rows = sorted(_clear_rows(), key=lambda row: hashlib.sha256(row[1].encode()).digest())
        held_out = TEST_SIZE + VALIDATION_SIZE
        return {
            "train": self._generate_examples(rows[held_out:]),
            "validation": self._generate_examples(rows[TEST_SIZE:held_out]),
            "test": self._generate_examples(rows[:TEST_SIZE]),
        }

    def _generate_examples(self, rows):
        for rating, sentence, key in rows:
            yield key, {"sentence": sentence, "label": int(rating > 0)}


def _clear_rows():
    with tempfile.TemporaryDirectory() as temporary:
        source = fetch_package(VADER, pathlib.Path(temporary), source=True)
        with zipfile.ZipFile(source) as outer:
            name = next(n for n in outer.namelist() if n.endswith("hutto_ICWSM_2014.tar.gz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as inner:
                member = inner.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
                lines = member.read().decode("utf-8", "replace").splitlines()
    for line in lines:
        key, rating, sentence = line.split("\t")
        if abs(float(rating)) >= CLEAR:
            yield float(rating), sentence, key
