"""BERT classifiers of Hugging Face, for tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers

import tf_movprune

transformers.logging.set_verbosity_error()


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def load(folder: str, seed: int = 0, **config) -> keras.Model:
    """A classifier of two classes with frozen embeddings; a compacted one if the folder has it."""
    keras.utils.set_random_seed(seed)
    if hasattr(transformers.AutoConfig.from_pretrained(folder), "intermediate_sizes"):
        return tf_movprune.load_compacted(folder)
    model = transformers.TFAutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, **config
    )
    model.layers[0].embeddings.trainable = False
    return model


def encoder(folder: str, length: int) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to their token ids, at most `length` of each, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda texts: tokenizer(texts, truncation=True, max_length=length)["input_ids"]


def inputs(ids: tf.Tensor | np.ndarray) -> dict[str, tf.Tensor]:
    """The model's inputs for int32 token ids [batch, length], padded with zeros."""
    ids = tf.convert_to_tensor(ids, tf.int32)
    return {
        "input_ids": ids,
        "attention_mask": tf.cast(ids != 0, tf.int32),  # position 0 always holds [CLS]
        "token_type_ids": tf.zeros_like(ids),
    }


def logits(model: keras.Model, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Logits [batch, classes] of evaluation."""
    return model(inputs, training=False).logits
