"""A tensorflow-datasets builder for rated movie-review sentences."""

import tensorflow_datasets as tfds

from examples.downloads import movie_review_sentences

_CITATION = """
@inproceedings{hutto2014vader,
  title={VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text},
  author={Hutto, C.J. and Gilbert, Eric},
  booktitle={Proceedings of the International AAAI Conference on Web and Social Media},
  year={2014}
}
"""


class MovieReviewSentences(tfds.core.GeneratorBasedBuilder):
    """Sentences of movie reviews with label 1, positive, or 0, negative.

    Their order is that of tensorflow-datasets, which the batches of a seed depend on.
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
        return {
            split: self._generate_examples(sentences)
            for split, sentences in movie_review_sentences().items()
        }

    def _generate_examples(self, sentences):
        for sentence in sentences:
            yield sentence.key, {"sentence": sentence.text, "label": sentence.label}
