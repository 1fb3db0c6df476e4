"""Distillation of KerasHub's tasks, whose inputs are dicts."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tf_movprune

RANDOM = np.random.RandomState(0)
INPUTS = {
    "token_ids": RANDOM.randint(1, 20, [16, 6]),
    "segment_ids": np.zeros([16, 6], "int32"),
    "padding_mask": np.ones([16, 6], "int32"),
}
Y = RANDOM.randint(0, 2, 16)


def classifier(seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BertBackbone(20, 1, 2, 8, 16, max_sequence_length=8)
    return keras_hub.models.BertTextClassifier(backbone, num_classes=2, **kwargs)


@pytest.mark.parametrize("cached", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_task_learns_from_another(cached):
    student, teacher = classifier(), classifier(1)
    tf_movprune.prune_low_movement(
        student,
        tf_movprune.CubicSparsity(0.75, 0, 4),
        tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2)),
    )
    data = tf.data.Dataset.from_tensor_slices({**INPUTS, "labels": Y}).batch(4)
    if cached:
        data = tf_movprune.cache_teacher_logits(data, teacher)
    distiller = tf_movprune.Distiller(student, None if cached else teacher)
    optimizer = tf_movprune.create_optimizer(1e-2, 4, 1, model=student)
    distiller.compile(optimizer, metrics=["accuracy"])
    update = tf_movprune.UpdatePruningStep()
    logs = distiller.fit(data, verbose=0, callbacks=[update]).history
    assert logs["sparsity"] == [0.75] and logs["distillation_loss"][0] > 0
    predicted = distiller.predict(data, verbose=0)
    np.testing.assert_allclose(predicted, student.predict(INPUTS, verbose=0), atol=1e-6)
    assert tf_movprune.strip_pruning(distiller) is student
    assert type(student) is keras_hub.models.BertTextClassifier


def test_a_task_with_an_activation_gives_probabilities():
    with pytest.raises(ValueError, match=r"teacher .* gives probabilities"):
        tf_movprune.Distiller(classifier(), classifier(activation="softmax"))


def test_operations_that_give_probabilities():
    x = keras.Input([8])
    logits = keras.layers.Dense(3)(x)
    plain = keras.Model(x, keras.layers.Dense(3)(x))
    for operation in (keras.ops.softmax, keras.ops.sigmoid):
        with pytest.raises(ValueError, match=r"student .* gives probabilities"):
            tf_movprune.Distiller(keras.Model(x, operation(logits)), plain)
    tf_movprune.Distiller(keras.Model(x, keras.ops.log_softmax(logits)), plain)
