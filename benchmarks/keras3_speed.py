"""Steps of a pruned KerasHub BERT beside those of a dense one, and of one in tf_keras."""

from __future__ import annotations

from collections.abc import Callable

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import tf_movprune
from benchmarks import models
from benchmarks.measuring import Table, interleaved, seconds
from benchmarks.training import Trainer


def bert_classifier(shape: str) -> keras.Model:
    """The model of `benchmarks.models.bert_classifier` in KerasHub: random, embeddings frozen."""
    config = models.bert_config(shape)
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        intermediate_dim=config.intermediate_size,
        max_sequence_length=config.max_position_embeddings,
    )
    for layer in backbone.layers:
        if "embedding" in layer.name:
            layer.trainable = False
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    for layer in model.backbone.layers:
        if isinstance(layer, keras_hub.layers.TransformerEncoder):  # whose GELU is approximate
            layer._feedforward_intermediate_dense.activation = keras.activations.gelu
    return model


def trainer(shape: str, batch_size: int, length: int, steps: int, *, is_pruned: bool) -> Trainer:
    """Takes steps of the dense model, or of the pruned one, whose masks each step refreshes."""
    model, callbacks = bert_classifier(shape), []
    if is_pruned:
        schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=steps)
        method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-3))
        tf_movprune.prune_low_movement(model, schedule, method)
        callbacks.append(tf_movprune.UpdatePruningStep())
    optimizer = tf_movprune.create_optimizer(3e-5, 2 * steps, 100, model=model)
    inputs, labels = models.random_batch(batch_size, length)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    named = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
    batch = named, labels
    dataset = tf.data.Dataset.from_tensors(batch).cache().repeat()
    return Trainer(
        keras, model, callbacks, dataset, 2 * steps, optimizer=optimizer, jit_compile=True
    )


def measure(
    table: Table,
    shape: str,
    batch_size: int,
    length: int,
    steps: int,
    rounds: int,
    in_tf_keras: dict[str, Callable[[], None]],
) -> None:
    """Adds rows of Keras 3 to a table.

    Args:
      table: the table.
      shape: a name in `benchmarks.models.SHAPES`.
      batch_size, length: sentences of a batch, and their tokens.
      steps: length of the schedule, more than are run.
      rounds: number of measurements of which the median is taken.
      in_tf_keras: one step of the dense and of the pruned model of tf_keras, by "dense" and "hard".
    """
    arguments = shape, batch_size, length, steps
    for step in in_tf_keras.values():
        step()  # the first program of a process pays for more than itself
    trainers, first = {}, {}
    for kind in ("dense", "hard"):
        trainers[kind] = trainer(*arguments, is_pruned=kind == "hard")
        first[kind] = seconds(trainers[kind].step)
    functions = {(3, kind): each.step for kind, each in trainers.items()}
    functions.update({(2, kind): step for kind, step in in_tf_keras.items()})
    times = interleaved(functions, rounds)
    where = f"step at {batch_size} × {length}"
    table.add(f"Keras 3, hard: {where} / dense step", times[3, "hard"] / times[3, "dense"], 1.04)
    name = f"Keras 3, hard: first {where}, compilation, / dense"
    table.add(name, first["hard"] / first["dense"], 1.3)
    own = float(np.median(trainers["hard"].callback_seconds[1:]))
    table.add(f"Keras 3, hard: the callback's own part of a {where}", own / times[3, "hard"], 0.02)
    for kind in trainers:
        name = f"Keras 3, {kind}: {where} / tf_keras step"
        table.add(name, times[3, kind] / times[2, kind])
