"""Outputs of students and teachers, and contents of batches: structures, labels, cached logits."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from distilling import (
    IDS,
    RANDOM,
    TASKS,
    X,
    Y,
    batches,
    bert,
    classifier,
    compiled,
    expected_losses,
    of_classes,
    pruned_classifier,
    reader,
)

from tf_movprune.core.distillation_batches import WithTeacherLogits, logits_of
from tf_movprune.keras2.teacher_cache import cache_teacher_logits

layers = keras.layers


@pytest.mark.parametrize(
    "structure",
    ["hugging_face", *(pytest.param(s, marks=pytest.mark.slow) for s in ("tuple", "list", "dict"))],
)
def test_several_outputs_are_averaged(structure):
    student, teacher = reader(structure), reader(structure)
    labels = RANDOM.randint(0, 4, [2, 24])
    terms = []
    for name, y in zip(("start", "end"), labels):
        logits = [getattr(m, name)(m.hidden(X)).numpy() for m in (student, teacher)]
        terms.append(expected_losses(*logits, y))
    kl, ce = np.mean(terms, axis=(0, 2))
    given = {
        "tuple": tuple(labels),
        "list": list(labels),
        "dict": {"start": labels[0], "end": labels[1]},
        "hugging_face": {"start_positions": labels[0], "end_positions": labels[1]},
    }[structure]
    default = compiled(student, teacher, metrics=["accuracy"])
    own = compiled(
        student, teacher, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    for distiller in (default, own):
        results = distiller.evaluate(X, given, 24, verbose=0)[:3]
        np.testing.assert_allclose(results, [(kl + ce) / 2, ce, kl], rtol=1e-5)
    assert len(default.metrics_names) == 5 and all("acc" in n for n in default.metrics_names[3:])
    weights = RANDOM.rand(24)
    results = default.evaluate(X, given, 24, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(results[1], np.mean([weights * t[1] for t in terms]), rtol=1e-5)
    tf.nest.map_structure(
        np.testing.assert_allclose, default.predict(X, verbose=0), student.predict(X, verbose=0)
    )
    default.fit(X, given, verbose=0)


def test_a_teacher_may_return_another_structure():
    teacher = classifier(4)
    inputs = keras.Input([8])
    named = keras.Model(inputs, {"logits": teacher(inputs)})
    student = classifier()
    expected = compiled(student, teacher).evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(compiled(student, named).evaluate(X, Y, verbose=0), expected)


@pytest.mark.slow
def test_hugging_face_tuples():
    student, teacher = bert("SequenceClassification"), bert("SequenceClassification", 1)
    expected = compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0)
    student.config.return_dict = False
    assert isinstance(student(IDS), tuple)
    np.testing.assert_allclose(compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0), expected)


class Counting(keras.Model):
    """Counts the batches that it was asked about."""

    def __init__(self):
        super().__init__()
        self.inner = classifier(4)
        self.calls = 0

    def call(self, inputs, training=None):
        assert not training and not isinstance(inputs, WithTeacherLogits)

        def count():
            self.calls += 1
            return np.int32(0)

        with tf.control_dependencies([tf.py_function(count, [], tf.int32)]):
            return self.inner(inputs)


def counting_teacher():
    teacher = Counting()
    teacher(X)
    teacher.calls = 0
    return teacher


@pytest.mark.parametrize("elements", [(X,), (X, Y), (X, Y, np.ones(24, np.float32))])
def test_caching_keeps_batches_and_their_order(elements):
    teacher = counting_teacher()
    data = batches(*elements, size=10)
    cached = cache_teacher_logits(data if len(elements) > 1 else data.map(lambda x: x), teacher)
    assert teacher.calls == int(cached.cardinality()) == 3
    for _ in range(2):
        for expected, received in zip(data, cached):
            x, *rest = received
            np.testing.assert_array_equal(x.inputs, expected[0])
            np.testing.assert_allclose(
                x.teacher_logits["logits"], teacher.inner(expected[0]), atol=1e-6
            )
            assert len(rest) == len(expected) - 1
            for before, after in zip(expected[1:], rest):
                np.testing.assert_array_equal(after, before)
    assert teacher.calls == 3


def test_cached_logits_train_as_the_teacher_does():
    teacher = counting_teacher()
    data = batches(X, Y)
    cached = cache_teacher_logits(data, teacher)
    runs = []
    sources = [(data, teacher.inner), (cached, None), (cached, teacher)]
    for source, used in sources:
        keras.utils.set_random_seed(1)
        distiller = compiled(classifier(), used)
        history = distiller.fit(source, epochs=2, verbose=0, validation_data=source).history
        runs.append(np.array([*history.values(), distiller.evaluate(source, verbose=0)[:2]]))
        np.testing.assert_allclose(
            distiller.predict(source, verbose=0), distiller.student(X), atol=1e-6
        )
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
    np.testing.assert_array_equal(runs[-1], runs[1])
    assert teacher.calls == 3


def test_passes_over_cached_data_share_no_memory():
    """Else steps that compute in place would change what later passes see."""
    cached = cache_teacher_logits(batches(X, Y, size=1), classifier())
    passes = [[memoryview(t) for t in tf.nest.flatten(list(cached))] for _ in range(2)]
    assert not any(np.shares_memory(a, b) for a, b in zip(*passes))


def test_cached_data_may_be_batched_again():
    teacher = classifier(4)
    data = batches(X, Y, size=10)
    cached = cache_teacher_logits(data, teacher).unbatch().shuffle(24, seed=0).batch(6)
    distiller = compiled(classifier())
    expected = compiled(distiller.student, teacher).evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(distiller.evaluate(cached, verbose=0), expected, rtol=1e-5)
    distiller.fit(cached, verbose=0)
    # Cached data can be cached again, from another teacher.
    other = classifier(5)
    again = cache_teacher_logits(cached, other)
    expected = compiled(distiller.student, other).evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(distiller.evaluate(again, verbose=0), expected, rtol=1e-5)


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


def test_what_cannot_be_cached():
    teacher = classifier()
    with pytest.raises(TypeError, match=r"Expected a tf.data.Dataset of batches, got ndarray"):
        cache_teacher_logits(X, teacher)
    with pytest.raises(ValueError, match=r"infinite.*repeat"):
        cache_teacher_logits(batches(X).repeat(), teacher)
    with pytest.raises(ValueError, match=r"empty"):
        cache_teacher_logits(batches(X).take(0), teacher)
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [1.0, 2.0]]))
    with pytest.raises(TypeError, match=r"dense tensors"):
        cache_teacher_logits(ragged, teacher)
    with pytest.raises(ValueError, match=r"is still pruned"):
        cache_teacher_logits(batches(X), pruned_classifier())
    with pytest.raises(TypeError, match=r"a tf_keras model as teacher, got function"):
        cache_teacher_logits(batches(X), lambda x: x)


def test_neither_teacher_nor_cached_logits():
    distiller = compiled(classifier())
    with pytest.raises(ValueError, match=r"no teacher.*cache_teacher_logits returned, for valid"):
        distiller.fit(X, Y, verbose=0)


def test_outputs_that_do_not_match():
    distiller = compiled(of_classes(3), of_classes(4))
    with pytest.raises(ValueError, match=r"gives logits \(.*, 3\), the teacher logits \(.*, 4\)"):
        distiller.fit(X, Y, verbose=0)
    distiller = compiled(of_classes(4), reader("dict"))
    with pytest.raises(ValueError, match=r"gives logits \(.*, 4\), the teacher start .*, end \("):
        distiller.fit(X, Y, verbose=0)


def test_outputs_that_are_no_logits():
    with pytest.raises(ValueError, match=r"at least 2 classes, got logits of shape \(.*, 1\)"):
        compiled(of_classes(1), of_classes(1)).fit(X, Y, verbose=0)
    inputs = keras.Input([8])
    integers = keras.Model(inputs, tf.argmax(inputs, -1))
    with pytest.raises(TypeError, match=r"Expected logits as outputs: .*; got .*Tensor"):
        compiled(integers, of_classes(3), alpha_ce=0.0).fit(X, verbose=0)
    outputs = pytest.importorskip("transformers.modeling_tf_outputs")
    with pytest.raises(TypeError, match=r"got TFBaseModelOutput with last_hidden_state"):
        logits_of(outputs.TFBaseModelOutput(last_hidden_state=tf.zeros([1, 2, 3])))


def test_labels_that_do_not_fit():
    one, two = compiled(of_classes(3), of_classes(3)), compiled(reader("tuple"), reader("tuple"))
    message = r"Expected integer labels of shape \(.*\), got float32 of shape .*loss"
    with pytest.raises(ValueError, match=message):
        one.fit(X, Y.astype(np.float32), verbose=0)
    with pytest.raises(ValueError, match=r"Expected integer labels .*got int32 of shape \(.*, 3\)"):
        one.fit(X, np.eye(3, dtype=np.int32)[Y], verbose=0)
    with pytest.raises(ValueError, match=r"labels for the outputs output_1, output_2, got one"):
        two.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"labels for the outputs .*, got 3 tensors"):
        two.fit(X, (Y, Y, Y), verbose=0)
    with pytest.raises(ValueError, match=r"labels for the outputs logits, got keys a"):
        one.fit(X, {"a": Y}, verbose=0)
