"""BERT classifiers of KerasHub, for Keras 3."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import tf_movprune

MATRICES = {
    "_query_dense": "query",
    "_key_dense": "key",
    "_value_dense": "value",
    "_self_attention_layer._output_dense": "attention\noutput",
    "_feedforward_intermediate_dense": "intermediate",
    "_feedforward_output_dense": "output",
}
"""Titles of the matrices of a layer, by the ends of their paths."""


def load(folder: str, seed: int = 0) -> keras.Model:
    """A classifier of two classes with frozen embeddings, from a Hugging Face folder or a preset.

    KerasHub's BERT computes an approximate GELU, whatever its weights were trained with, and no
    preset says otherwise. So the exact one is set on each load.
    """
    keras.utils.set_random_seed(seed)
    has_head = (pathlib.Path(folder) / "task.json").is_file()
    new_head = {} if has_head else {"num_classes": 2}  # KerasHub skips a saved head if it is given
    model = keras_hub.models.BertTextClassifier.from_preset(folder, preprocessor=None, **new_head)
    for layer in model.backbone.layers:
        if "embedding" in layer.name:
            layer.trainable = False
    return with_exact_gelu(model)


def load_compressed(path: pathlib.Path, cls: type[keras.Model]) -> keras.Model:
    """The model in a compressed file, with the exact GELU."""
    return with_exact_gelu(tf_movprune.load_compressed(path, cls))


def with_exact_gelu(model: keras.Model) -> keras.Model:
    """The model, whose BERT computes the exact GELU from now on."""
    for layer in model.backbone.layers:
        if isinstance(layer, keras_hub.layers.TransformerEncoder):
            layer._feedforward_intermediate_dense.activation = keras.activations.gelu  # noqa: SLF001
    return model


def save(model: keras.Model, folder: pathlib.Path, source: str) -> None:
    """Writes a preset with the tokenizer of the folder `source`. `load` reads it."""
    model.save_to_preset(str(folder))
    _preprocessor(source, length=model.backbone.max_sequence_length).save_to_preset(str(folder))


def _preprocessor(folder: str, length: int) -> keras_hub.models.BertTextClassifierPreprocessor:
    # Uncased BERTs have no accents in their vocabulary, which KerasHub does not know.
    tokenizer = keras_hub.models.BertTokenizer.from_preset(folder, strip_accents=True)
    return keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=length)


def encoder(folder: str, length: int) -> Callable[[list[str]], list[np.ndarray]]:
    """A function from texts to their token ids, at most `length` of each, without padding."""
    preprocessor = _preprocessor(folder, length)

    def encode(texts: list[str]) -> list[np.ndarray]:
        encoded = preprocessor(texts)
        ids, mask = np.array(encoded["token_ids"]), np.array(encoded["padding_mask"], bool)
        return [row[kept] for row, kept in zip(ids, mask)]

    return encode


def inputs(ids: tf.Tensor | np.ndarray) -> dict[str, tf.Tensor]:
    """The model's inputs for int32 token ids [batch, length], padded with zeros."""
    ids = tf.convert_to_tensor(ids, tf.int32)
    return {
        "token_ids": ids,
        "padding_mask": tf.cast(ids != 0, tf.int32),  # position 0 always holds [CLS]
        "segment_ids": tf.zeros_like(ids),
    }


def logits(model: keras.Model, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Logits [batch, classes] of evaluation."""
    return model(inputs, training=False)
