"""Fine-tuning a BERT classifier, dense or pruned, with its accuracy on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from benchmarks import hugging_face_bert as bert
from benchmarks.sentiment_data import LENGTHS, Sentences, evaluation_batches, training_batches


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


class Accuracy:
    """The fraction of the sentences that a model classifies rightly. Traced once to each shape."""

    def __init__(self, model: Any):
        self._predict = tf.function(lambda ids: bert.logits(model, bert.inputs(ids)))

    def __call__(self, data: Sentences) -> float:
        batches = evaluation_batches(data)
        right = sum(np.sum(np.argmax(self._predict(x), axis=-1) == y) for x, y in batches)
        return float(right) / len(data)


def accuracy(model: Any, data: Sentences) -> float:
    """Fraction of the sentences classified rightly."""
    return Accuracy(model)(data)


@dataclasses.dataclass
class Validation:
    """Accuracy on the validation split after each epoch, with the step at which it was measured."""

    steps: list[int] = dataclasses.field(default_factory=list)
    accuracies: list[float] = dataclasses.field(default_factory=list)
    sparsities: list[float] = dataclasses.field(default_factory=list)

    def callback(self, model: Any, data: Sentences) -> Any:
        """A callback that measures, to come after the one that refreshes masks."""
        measure = Accuracy(model)

        def on_epoch_end(epoch, logs):
            logs["val_accuracy"] = measure(data)
            self.steps.append(int(model.optimizer.iterations))
            self.accuracies.append(logs["val_accuracy"])
            self.sparsities.append(logs.get("sparsity", 0.0))

        return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)


def fit(
    model: Any,
    optimizer: Any,
    train: Sentences,
    validation: Sentences,
    settings: Settings,
    callbacks: Sequence[Any] = (),
    verbose: int = 1,
) -> Validation:
    """Trains for `num_train_steps`, compiled by XLA. Returns the record of validation."""
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],  # by name traces twice
        jit_compile=True,
    )
    record = Validation()
    batches = training_batches(train, settings.batch_size, settings.seed, settings.lengths)
    model.fit(
        batches.map(lambda ids, labels: (bert.inputs(ids), labels)),
        steps_per_epoch=settings.num_train_steps // settings.evaluations,
        epochs=settings.evaluations,
        shuffle=False,  # the batches are shuffled
        callbacks=[*callbacks, record.callback(model, validation)],
        verbose=verbose,
    )
    return record


def optimizer_for(model: Any, settings: Settings, **kwargs) -> Any:
    return tf_movprune.create_optimizer(
        settings.learning_rate,
        settings.num_train_steps,
        int(settings.warmup * settings.num_train_steps),
        model=model,
        **kwargs,
    )
