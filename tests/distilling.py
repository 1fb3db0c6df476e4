"""Small students and teachers, their data, and what their losses should be."""

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune import Distiller

layers = keras.layers
RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([24, 8]).astype(np.float32)
Y = RANDOM.randint(0, 3, 24).astype(np.int32)
IDS = RANDOM.randint(1, 20, [24, 5]).astype(np.int32)


def schedule():
    return tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)


def classifier(size=16, regularizer=None):
    """Three classes of eight features."""
    return keras.Sequential(
        [
            layers.Dense(
                size, "relu", input_shape=[8], kernel_regularizer=regularizer, name="hidden"
            ),
            layers.Dense(3),
        ]
    )


def pruned_classifier():
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    return tf_movprune.prune_low_movement(classifier(), schedule(), method)


def compiled(student, teacher=None, optimizer="sgd", loss=None, metrics=None, **kwargs):
    names = ("temperature", "alpha_distil", "alpha_ce")
    distiller = Distiller(student, teacher, **{n: kwargs.pop(n) for n in names if n in kwargs})
    distiller.compile(optimizer, loss, metrics, **kwargs)
    return distiller


def batches(*values, size=8):
    return tf.data.Dataset.from_tensor_slices(values).batch(size)


def last(history):
    return {name: values[-1] for name, values in history.history.items()}


def expected_losses(student, teacher, labels, temperature=2.0):
    """KL and CE by example."""
    return (
        reference.distillation(teacher, student, temperature),
        reference.cross_entropy(labels, student),
    )


def tagger(mask_zero=False):
    """Three classes for each of five tokens."""
    inputs = keras.Input([5], dtype="int32")
    tokens = layers.Embedding(20, 6, mask_zero=mask_zero)(inputs)
    return keras.Model(inputs, layers.Dense(3)(tokens))


class Reader(keras.Model):
    """Start and end among four tokens, in one of the structures that models return."""

    def __init__(self, structure):
        super().__init__()
        self.structure = structure
        self.hidden = layers.Dense(16, "relu")
        self.start, self.end = layers.Dense(4), layers.Dense(4)

    def call(self, inputs, training=None):
        hidden = self.hidden(inputs)
        return self.structure(self.start(hidden), self.end(hidden))


STRUCTURES = {
    "tuple": lambda start, end: (start, end),
    "list": lambda start, end: [start, end],
    "dict": lambda start, end: {"start": start, "end": end},
    "hugging_face": lambda start, end: {"start_logits": start, "end_logits": end, "states": [end]},
}


def reader(structure):
    model = Reader(STRUCTURES[structure])
    model(X)
    return model


def bert(task, seed=0, **kwargs):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        **kwargs,
    )
    keras.utils.set_random_seed(seed)
    model = getattr(transformers, f"TFBertFor{task}")(config)
    model(IDS)
    return model


TASKS = {
    "SequenceClassification": {"labels": Y % 2},
    "TokenClassification": {"labels": np.where(IDS % 3, IDS % 2, -100)},
    "QuestionAnswering": {"start_positions": IDS[:, 0] % 5, "end_positions": IDS[:, 1] % 5},
}


def of_classes(count):
    return keras.Sequential([layers.Dense(count, input_shape=[8])])
