"""Fine-tuning a BERT classifier, dense or pruned, with its accuracy on the way."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers

import tf_movprune
from examples.sentiment_data import LENGTHS, Sentences, evaluation_batches, training_batches


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all runs of a comparison share."""

    num_train_steps: int
    batch_size: int = 32
    learning_rate: float = 8e-5
    warmup: float = 0.1
    seed: int = 0
    evaluations: int = 10
    lengths: tuple[int, ...] = LENGTHS


def load_classifier(folder: str, seed: int) -> transformers.TFPreTrainedModel:
    keras.utils.set_random_seed(seed)
    model = transformers.TFAutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.layers[0].embeddings.trainable = False
    return model


class Accuracy:
    """The fraction of the sentences that a model classifies rightly. Traced once to each shape."""

    def __init__(self, model: keras.Model):
        self._predict = tf.function(lambda inputs: model(inputs, training=False).logits)

    def __call__(self, data: Sentences) -> float:
        batches = evaluation_batches(data)
        right = sum(np.sum(np.argmax(self._predict(x), axis=-1) == y) for x, y in batches)
        return float(right) / len(data)


def accuracy(model: keras.Model, data: Sentences) -> float:
    """Fraction of the sentences classified rightly."""
    return Accuracy(model)(data)


class Validation(keras.callbacks.Callback):
    """Accuracy on the validation split after each epoch, with the step at which it was measured."""

    def __init__(self, data: Sentences):
        super().__init__()
        self.data = data
        self.steps: list[int] = []
        self.accuracies: list[float] = []
        self.sparsities: list[float] = []

    def on_train_begin(self, logs=None):
        self._accuracy = Accuracy(self.model)

    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = self._accuracy(self.data)
        self.steps.append(int(self.model.optimizer.iterations))
        self.accuracies.append(logs["val_accuracy"])
        self.sparsities.append(logs.get("sparsity", 0.0))


def fit(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    train: Sentences,
    validation: Sentences,
    settings: Settings,
    callbacks: list[keras.callbacks.Callback],
    verbose: int = 1,
) -> Validation:
    """Trains for `num_train_steps`, compiled by XLA. Returns the record of validation."""
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],  # by name traces twice
        jit_compile=True,
    )
    record = Validation(validation)
    model.fit(
        training_batches(train, settings.batch_size, settings.seed, settings.lengths),
        steps_per_epoch=settings.num_train_steps // settings.evaluations,
        epochs=settings.evaluations,
        callbacks=[*callbacks, record],
        verbose=verbose,
    )
    return record


def optimizer_for(settings: Settings, **kwargs) -> keras.optimizers.Optimizer:
    return tf_movprune.create_optimizer(
        settings.learning_rate,
        settings.num_train_steps,
        int(settings.warmup * settings.num_train_steps),
        **kwargs,
    )
