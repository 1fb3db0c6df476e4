"""Distiller with what only tf_keras has: Hugging Face, old optimizers, files of other formats."""

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune import Distiller, cache_teacher_logits

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([24, 8]).astype(np.float32)
Y = RANDOM.randint(0, 3, 24).astype(np.int32)
IDS = RANDOM.randint(1, 20, [24, 5]).astype(np.int32)


def schedule():
    return tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)


def classifier(size=16):
    """Three classes of eight features."""
    hidden = keras.layers.Dense(size, "relu", input_shape=[8], name="hidden")
    return keras.Sequential([hidden, keras.layers.Dense(3)])


def pruned_classifier():
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    return tf_movprune.prune_low_movement(classifier(), schedule(), method)


def compiled(student, teacher=None, optimizer="sgd", **kwargs):
    distiller = Distiller(student, teacher)
    distiller.compile(optimizer, **kwargs)
    return distiller


def batches(*values, size=8):
    return tf.data.Dataset.from_tensor_slices(values).batch(size)


def last(history):
    return {name: values[-1] for name, values in history.history.items()}


def expected_losses(student, teacher, labels):
    """KL and CE by example."""
    kl = reference.distillation(teacher, student, temperature=2.0)
    return kl, reference.cross_entropy(labels, student)


def bert(task, seed=0):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
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


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("SequenceClassification", marks=pytest.mark.slow),
        "QuestionAnswering",
        pytest.param("TokenClassification", marks=pytest.mark.slow),
    ],
)
def test_hugging_face(task):
    student, teacher = bert(task), bert(task, 1)
    tf_movprune.prune_low_movement(student, schedule())
    labels = TASKS[task]
    logits = dict(student(IDS)), dict(teacher(IDS))
    terms = []
    for s, t, y in zip(*(outputs.values() for outputs in logits), labels.values()):
        valid = y != -100
        kl, ce = expected_losses(s.numpy(), t.numpy(), np.where(valid, y, 0))
        terms.append((kl[valid].mean(), ce[valid].mean()))
    kl, ce = np.mean(terms, 0)
    expected = [(kl + ce) / 2, ce, kl]
    ways = {"SequenceClassification": "jit_compile", "QuestionAnswering": "run_eagerly"}
    options = {ways[task]: True} if task in ways else {}
    distiller = compiled(student, teacher, metrics=["accuracy"], **options)
    among_inputs = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, **labels}).batch(24)
    beside = batches({"input_ids": IDS}, labels, size=24)
    for data in (among_inputs, beside):
        np.testing.assert_allclose(
            distiller.evaluate(data, verbose=0)[:3], expected, rtol=1e-4, atol=1e-6
        )
    logs = last(
        distiller.fit(
            among_inputs.repeat(6), verbose=0, callbacks=[tf_movprune.UpdatePruningStep()]
        )
    )
    assert logs["sparsity"] == 0.75
    predicted = distiller.predict({"input_ids": IDS}, verbose=0)
    for name, value in student({"input_ids": IDS}).items():
        np.testing.assert_allclose(predicted[name], value, atol=1e-6)
    plain = tf_movprune.strip_pruning(distiller)
    assert plain is student and tf_movprune.summarize_sparsity(plain).sparsity == 0.75


@pytest.mark.slow
def test_hugging_face_tuples():
    student, teacher = bert("SequenceClassification"), bert("SequenceClassification", 1)
    expected = compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0)
    student.config.return_dict = False
    assert isinstance(student(IDS), tuple)
    np.testing.assert_allclose(compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0), expected)


@pytest.mark.slow
def test_caching_data_without_labels_beside_the_inputs():
    student, teacher = bert("QuestionAnswering"), bert("QuestionAnswering", 1)
    labels = TASKS["QuestionAnswering"]
    data = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, **labels})
    # Batches padded to lengths of their own.
    data = (
        data.batch(12)
        .enumerate()
        .map(lambda i, x: {**x, "input_ids": x["input_ids"][:, : 4 + tf.cast(i, tf.int32)]})
    )
    data = data.map(lambda x: {**x, **{name: x[name] % 4 for name in labels}})
    cached = cache_teacher_logits(data, teacher)
    assert cached.element_spec[0].teacher_logits["start_logits"].shape.as_list() == [12, None]
    expected = compiled(student, teacher).evaluate(data, verbose=0)
    np.testing.assert_allclose(compiled(student).evaluate(cached, verbose=0), expected, rtol=1e-5)


def test_optimizers_of_older_releases():
    optimizer = keras.optimizers.legacy.SGD(0.1)
    history = compiled(classifier(), classifier(4), optimizer).fit(X, Y, epochs=3, verbose=0)
    assert history.history["loss"][2] < history.history["loss"][0]


@pytest.mark.slow
def test_mirrored_variables():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = compiled(pruned_classifier(), classifier(4))
    keras.utils.set_random_seed(0)
    plain = compiled(pruned_classifier(), classifier(4))
    for source, target in ((plain, mirrored), (plain.teacher, mirrored.teacher)):
        target.set_weights(source.get_weights())
    logs = [
        last(
            distiller.fit(
                batches(X, Y).repeat(2), verbose=0, callbacks=[tf_movprune.UpdatePruningStep()]
            )
        )
        for distiller in (plain, mirrored)
    ]
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
    for expected, received in zip(plain.get_weights(), mirrored.get_weights()):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ""])
def test_weights_in_other_formats_are_those_of_the_student(tmp_path, suffix):
    distiller, again = (compiled(pruned_classifier(), classifier(n), "adam") for n in (4, 7))
    for each in (distiller, again):
        each.optimizer.build(each.trainable_variables)
    distiller.optimizer.iterations.assign(6)
    distiller.save_weights(tmp_path / f"weights{suffix}")
    status = again.load_weights(tmp_path / f"weights{suffix}")
    for expected, received in zip(distiller.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)
    if not suffix:
        status.assert_consumed()
        assert int(again.optimizer.iterations) == 6
