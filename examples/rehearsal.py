"""Stands in for `examples.downloads` in rehearsals: a tiny BERT and made-up sentences, offline."""

from __future__ import annotations

import pathlib

import keras_hub
import numpy as np

WORDS = {"positive": ["good", "great", "fine"], "negative": ["bad", "poor", "dull"]}
SIZES = {"train": 320, "validation": 32, "test": 32}


def minilm_folder(cache: pathlib.Path) -> pathlib.Path:
    """A preset of KerasHub in the place of MiniLM: one layer with random weights."""
    words = [word for label in WORDS.values() for word in label]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", *words]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=1,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=64,
    )
    folder = cache / "tiny_bert"
    backbone.save_to_preset(str(folder))
    keras_hub.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(str(folder))
    return folder


def movie_review_files(cache: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of sentences whose words tell the label, with the columns `text` and `label`."""
    random = np.random.RandomState(0)
    files = {}
    for split, size in SIZES.items():
        files[split] = cache / f"{split}.tsv"
        labels = random.choice([*WORDS], size)
        rows = [f"{random.choice(WORDS[label])} film\t{label}" for label in labels]
        files[split].write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return files
