"""Single training steps, as `fit` of either Keras takes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import tensorflow as tf


class Trainer:
    """Takes the steps of a `fit` one by one: the callbacks, then the compiled train function.

    Args:
      keras: the module `keras` or `tf_keras`.
      model: a model of it, which is compiled.
      callbacks: callbacks of it.
      dataset: endless batches.
      steps: steps of the epoch that is begun; more than are taken.
      **compile_arguments: arguments of `model.compile` beside the loss.

    Attributes:
      callback_seconds: what the callbacks took of each step.
    """

    def __init__(
        self,
        keras: ModuleType,
        model: Any,
        callbacks: Sequence[Any],
        dataset: tf.data.Dataset,
        steps: int,
        **compile_arguments: Any,
    ):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, **compile_arguments)
        self.callbacks = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=1, steps=steps, verbose=0
        )
        self.model, self.iterator = model, iter(dataset)
        self.callback_seconds: list[float] = []

    def step(self) -> None:
        number = len(self.callback_seconds)
        if number == 0:  # compiles the refresh of masks too
            self.callbacks.on_train_begin()
            self.callbacks.on_epoch_begin(0)
            self.model.make_train_function()
        start = time.perf_counter()
        self.callbacks.on_train_batch_begin(number)
        begun = time.perf_counter()
        logs = self.model.train_function(self.iterator)
        float(logs["loss"])
        ended = time.perf_counter()
        self.callbacks.on_train_batch_end(number, logs)
        self.callback_seconds.append(begun - start + time.perf_counter() - ended)
