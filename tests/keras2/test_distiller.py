"""Distillation: its loss, what it takes for models and data, and how it trains beside pruning."""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from modes import precision

import tf_movprune
from tf_movprune import Distiller, distillation_loss
from tf_movprune.keras2.batches import WithTeacherLogits, logits_of
from tf_movprune.keras2.caching import cache_teacher_logits

layers = keras.layers
ROOT = pathlib.Path(__file__).parents[2]
RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([24, 8]).astype(np.float32)
Y = RANDOM.randint(0, 3, 24).astype(np.int32)
IDS = RANDOM.randint(1, 20, [24, 5]).astype(np.int32)
EAGER_GRAPH_JIT = [lambda f: f, tf.function, tf.function(jit_compile=True)]


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


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


# ---- the loss


@pytest.mark.parametrize("run", EAGER_GRAPH_JIT)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.5])
@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 7)])
def test_loss_is_that_of_numpy(run, temperature, shape):
    teacher, student = RANDOM.standard_normal([2, *shape]).astype(np.float32) * 4
    result = run(distillation_loss)(tf.constant(teacher), tf.constant(student), temperature)
    expected = reference.distillation(teacher, student, temperature)
    assert result.dtype == tf.float32 and result.shape == []
    np.testing.assert_allclose(result, expected.mean(), rtol=1e-5)

    valid = np.resize([True, False, True], shape[:-1])
    result = run(distillation_loss)(
        tf.constant(teacher), tf.constant(student), temperature, tf.constant(valid)
    )
    np.testing.assert_allclose(result, expected[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize("run", EAGER_GRAPH_JIT)
def test_gradient_is_that_of_the_docstring(run):
    teacher, student = tf.constant(RANDOM.standard_normal([2, 4, 3]).astype(np.float32))

    def gradients(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch([teacher, student])
            loss = distillation_loss(teacher, student, 3.0)
        return tape.gradient(loss, [teacher, student], unconnected_gradients="zero")

    of_teacher, of_student = run(gradients)(teacher, student)
    p, q = (np.exp(reference.log_softmax(z.numpy() / 3)) for z in (teacher, student))
    np.testing.assert_allclose(of_student, 3 * (q - p) / 4, atol=1e-6)
    assert not np.any(of_teacher)


@pytest.mark.parametrize("run", EAGER_GRAPH_JIT)
def test_loss_at_its_edges(run):
    loss = run(distillation_loss)
    ruled_out = tf.constant([[1.0, -np.inf, 0.0]])
    np.testing.assert_allclose(loss(ruled_out, ruled_out, 2.0), 0, atol=1e-6)
    finite = tf.constant([[0.0, 2.0, 1.0]])
    expected = reference.distillation(ruled_out.numpy(), finite.numpy(), 2.0)
    np.testing.assert_allclose(loss(ruled_out, finite, 2.0), expected.mean(), rtol=1e-5)
    assert loss(finite, ruled_out * 0 + finite, 2.0, tf.constant([False])) == 0
    half = tf.constant([[0.0, 1e4, 6e4]], tf.float16)
    assert loss(half, half[:, ::-1], 2.0).dtype == tf.float32
    assert np.isfinite(loss(half, half[:, ::-1], 2.0))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_total_is_the_sum_of_its_parts(jit_compile):
    student, teacher = classifier(regularizer=keras.regularizers.L2(0.1)), classifier(4)
    kl, ce = expected_losses(student(X).numpy(), teacher(X).numpy(), Y, 3.0)
    regularization = float(student.losses[0])
    distiller = compiled(
        student,
        teacher,
        temperature=3.0,
        alpha_distil=0.9,
        alpha_ce=0.2,
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    accuracy = np.mean(student(X).numpy().argmax(-1) == Y)
    names = ["loss", "ce_loss", "distillation_loss", "accuracy"]
    total = 0.9 * kl.mean() + 0.2 * ce.mean() + regularization
    expected = [total, ce.mean(), kl.mean(), accuracy]
    # The last batch is smaller; Keras averages over examples.
    results = distiller.evaluate(X, Y, batch_size=10, verbose=0)
    np.testing.assert_allclose(results, expected, rtol=1e-5)
    assert distiller.metrics_names == names
    logs = last(distiller.fit(X, Y, batch_size=24, verbose=0, validation_data=(X, Y)))
    assert list(logs) == names + [f"val_{name}" for name in names]
    np.testing.assert_allclose([logs[name] for name in names], expected, rtol=1e-5)
    assert logs["val_loss"] < logs["loss"]


def test_a_step_follows_the_gradient_of_the_total():
    student, teacher = classifier(), classifier(4)
    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    with tf.GradientTape() as tape:
        logits = copy(X)
        loss = 0.5 * distillation_loss(teacher(X), logits, 2.0) + 0.5 * tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(Y, logits, from_logits=True)
        )
    gradients = tape.gradient(loss, copy.trainable_variables)
    keras.optimizers.SGD(0.1).apply_gradients(zip(gradients, copy.trainable_variables))
    compiled(student, teacher, keras.optimizers.SGD(0.1)).fit(X, Y, batch_size=24, verbose=0)
    for expected, received in zip(copy.get_weights(), student.get_weights()):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def test_sample_weights_weight_cross_entropy_only():
    student, teacher = classifier(), classifier(4)
    kl, ce = expected_losses(student(X).numpy(), teacher(X).numpy(), Y)
    weights = RANDOM.rand(24).astype(np.float32)
    for given in (weights, weights[:, None]):
        distiller = compiled(student, teacher)
        results = distiller.evaluate(X, Y, 24, sample_weight=given, verbose=0, return_dict=True)
        np.testing.assert_allclose(results["ce_loss"], np.mean(weights * ce), rtol=1e-5)
        np.testing.assert_allclose(results["distillation_loss"], kl.mean(), rtol=1e-5)
    distiller = compiled(student, teacher)
    logs = last(distiller.fit(X, Y, 24, class_weight={0: 2.0, 1: 0.0, 2: 1.0}, verbose=0))
    by_class = np.array([2.0, 0.0, 1.0])[Y]
    np.testing.assert_allclose(logs["ce_loss"], np.mean(by_class * ce), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_a_task_loss_of_the_users(reduction):
    student, teacher = classifier(), classifier(4)
    _, ce = expected_losses(student(X).numpy(), teacher(X).numpy(), Y)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)
    distiller = compiled(student, teacher, loss=loss, metrics=["accuracy"])
    results = distiller.evaluate(X, np.eye(3)[Y], 24, verbose=0, return_dict=True)
    expected = ce.sum() if reduction == "sum" else ce.mean()
    np.testing.assert_allclose(results["ce_loss"], expected, rtol=1e-5)
    assert results["accuracy"] == pytest.approx(np.mean(student(X).numpy().argmax(-1) == Y))


def test_without_labels():
    student, teacher = classifier(), classifier(4)
    kl, _ = expected_losses(student(X).numpy(), teacher(X).numpy(), Y)
    distiller = compiled(student, teacher, alpha_ce=0.0, alpha_distil=1.0, metrics=["accuracy"])
    results = distiller.evaluate(X, verbose=0, return_dict=True)
    assert results["loss"] == results["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)
    distiller = compiled(student, teacher)
    with pytest.raises(ValueError, match=r"Labels are missing.*labels, start_positions.*alpha_ce"):
        distiller.fit(X, verbose=0)


# ---- tokens, masks and ignored labels


def tagger(mask_zero=False):
    """Three classes for each of five tokens."""
    inputs = keras.Input([5], dtype="int32")
    tokens = layers.Embedding(20, 6, mask_zero=mask_zero)(inputs)
    return keras.Model(inputs, layers.Dense(3)(tokens))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("default", [True, False])
def test_ignored_tokens_count_for_nothing(default, jit_compile):
    student, teacher = tagger(), tagger()
    labels = RANDOM.randint(0, 3, [24, 5])
    labels[RANDOM.rand(24, 5) < 0.4] = -100
    valid = labels != -100
    logits = student(IDS).numpy()
    kl, ce = expected_losses(logits, teacher(IDS).numpy(), np.where(valid, labels, 0))
    loss = None if default else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = compiled(student, teacher, "sgd", loss, ["accuracy"], jit_compile=jit_compile)
    results = distiller.evaluate(IDS, labels, 24, verbose=0)[1:]
    accuracy = np.mean((logits.argmax(-1) == labels)[valid])
    expected = [ce[valid].mean(), kl[valid].mean(), accuracy]
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-7)
    weights = RANDOM.rand(24).astype(np.float32)
    ce_loss = distiller.evaluate(IDS, labels, 24, sample_weight=weights, verbose=0)[1]
    np.testing.assert_allclose(ce_loss, (weights[:, None] * ce)[valid].mean(), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_batch_with_nothing_labelled_changes_nothing(jit_compile):
    student, teacher = tagger(), tagger()
    before = student.get_weights()
    distiller = compiled(student, teacher, "sgd", None, ["accuracy"], jit_compile=jit_compile)
    logs = last(distiller.fit(IDS, np.full([24, 5], -100), 24, verbose=0))
    assert logs == {"loss": 0, "ce_loss": 0, "distillation_loss": 0, "accuracy": 0}
    for expected, received in zip(before, student.get_weights()):
        np.testing.assert_array_equal(received, expected)


def test_masked_tokens_count_for_nothing():
    student, teacher = tagger(mask_zero=True), tagger(mask_zero=True)
    ids = np.where(RANDOM.rand(24, 5) < 0.3, 0, IDS)
    labels = RANDOM.randint(0, 3, [24, 5])
    labels[0] = -100
    valid = (ids != 0) & (labels != -100)
    kl, ce = expected_losses(student(ids).numpy(), teacher(ids).numpy(), np.abs(labels) % 100)
    results = compiled(student, teacher).evaluate(ids, labels, 24, verbose=0)[1:]
    expected = [ce[valid].mean(), kl[valid].mean()]
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-7)


def test_class_ids_may_have_a_last_axis_of_one():
    student, teacher = classifier(), classifier(4)
    plain, columns = (
        compiled(student, teacher, metrics=["accuracy"]).evaluate(X, y, verbose=0)
        for y in (Y, Y[:, None])
    )
    np.testing.assert_allclose(columns, plain, rtol=1e-6)


# ---- structures of outputs


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


@pytest.mark.parametrize("structure", STRUCTURES)
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


# ---- Hugging Face


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
    jit_compile = task == "QuestionAnswering"
    distiller = compiled(student, teacher, metrics=["accuracy"], jit_compile=jit_compile)
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
    for name, value in student.predict({"input_ids": IDS}, verbose=0).items():
        np.testing.assert_allclose(predicted[name], value, atol=1e-6)
    plain = tf_movprune.strip_pruning(distiller)
    assert plain is student and tf_movprune.summarize_sparsity(plain).sparsity == 0.75


def test_hugging_face_tuples():
    student, teacher = bert("SequenceClassification"), bert("SequenceClassification", 1)
    expected = compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0)
    student.config.return_dict = False
    assert isinstance(student(IDS), tuple)
    np.testing.assert_allclose(compiled(student, teacher).evaluate(IDS, Y % 2, verbose=0), expected)


# ---- the teacher


def test_the_teacher_is_neither_tracked_nor_touched():
    student = classifier()
    teacher = keras.Sequential(
        [layers.BatchNormalization(input_shape=[8]), layers.Dropout(0.9), layers.Dense(3)]
    )
    teacher.layers[2].trainable = False
    before = teacher.get_weights()
    distiller = compiled(student, teacher)
    assert distiller.teacher is teacher and distiller.student is student
    distiller.fit(X, Y, verbose=0)
    kl, _ = expected_losses(student(X).numpy(), teacher(X).numpy(), Y)
    results = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["distillation_loss"], kl.mean(), rtol=1e-5)
    for expected, received in zip(before, teacher.get_weights()):
        np.testing.assert_array_equal(received, expected)
    assert [layer.trainable for layer in teacher.layers] == [True, True, False]
    for name in ("weights", "trainable_weights", "variables"):
        assert [id(w) for w in getattr(distiller, name)] == [id(w) for w in getattr(student, name)]
    assert teacher not in distiller.submodules and distiller.layers == [student]


def test_teachers_that_cannot_teach():
    with pytest.raises(ValueError, match=r"teacher .* has pruning wrappers.*strip_pruning"):
        Distiller(classifier(), pruned_classifier())
    model = classifier()
    student = tf_movprune.prune_low_movement(model, schedule())
    with pytest.raises(ValueError, match=r"shares 4 weights.*load the teacher anew"):
        Distiller(student, model)
    with pytest.raises(ValueError, match=r"shares 4 weights"):
        Distiller(model, model)


# ---- cached logits


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


@pytest.mark.parametrize("jit_compile", [False, True])
def test_cached_logits_train_as_the_teacher_does(jit_compile):
    teacher = counting_teacher()
    data = batches(X, Y)
    cached = cache_teacher_logits(data, teacher)
    runs = []
    for source, used in ((data, teacher.inner), (cached, teacher), (cached, None)):
        keras.utils.set_random_seed(1)
        distiller = compiled(classifier(), used, jit_compile=jit_compile)
        history = distiller.fit(source, epochs=2, verbose=0, validation_data=source).history
        runs.append(np.array([*history.values(), distiller.evaluate(source, verbose=0)[:2]]))
        np.testing.assert_allclose(
            distiller.predict(source, verbose=0), distiller.student(X), atol=1e-6
        )
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
    np.testing.assert_array_equal(runs[2], runs[1])
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
    # What was cached once can be cached from another teacher.
    other = classifier(5)
    again = cache_teacher_logits(cached, other)
    expected = compiled(distiller.student, other).evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(distiller.evaluate(again, verbose=0), expected, rtol=1e-5)


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
    with pytest.raises(ValueError, match=r"pruning wrappers"):
        cache_teacher_logits(batches(X), pruned_classifier())
    with pytest.raises(TypeError, match=r"a tf_keras model as teacher, got function"):
        cache_teacher_logits(batches(X), lambda x: x)


def test_neither_teacher_nor_cached_logits():
    distiller = compiled(classifier())
    with pytest.raises(ValueError, match=r"no teacher.*cache_teacher_logits returned, for valid"):
        distiller.fit(X, Y, verbose=0)


# ---- with what Keras trains


@pytest.mark.parametrize("jit_compile", [False, True])
def test_mixed_precision(jit_compile):
    with precision("mixed_float16"):
        student, teacher = classifier(), classifier(4)
        logits = student(X).numpy(), teacher(X).numpy()
        assert logits[0].dtype == np.float16
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        distiller = compiled(student, teacher, optimizer, jit_compile=jit_compile)
        logs = distiller.fit(X, Y, 24, epochs=3, verbose=0).history
    kl, ce = expected_losses(*logits, Y)
    np.testing.assert_allclose(logs["distillation_loss"][0], kl.mean(), rtol=2e-3)
    np.testing.assert_allclose(logs["ce_loss"][0], ce.mean(), rtol=2e-3)
    assert logs["loss"][2] < logs["loss"][0]
    assert int(optimizer.iterations) == 3


def test_mixed_precision_leaves_inputs_to_the_student():
    student, teacher = classifier(), classifier(4)
    with precision("mixed_float16"):
        distiller = compiled(student, teacher)
        assert distiller(X).dtype == tf.float32
        np.testing.assert_array_equal(distiller(X), student(X))


@pytest.mark.parametrize("optimizer", ["adam", keras.optimizers.legacy.SGD(0.1), "rmsprop"])
def test_optimizers(optimizer):
    history = compiled(classifier(), classifier(4), optimizer).fit(X, Y, epochs=3, verbose=0)
    assert history.history["loss"][2] < history.history["loss"][0]


def test_gradients_of_embeddings():
    student = tagger()
    before = student.get_weights()[0]
    rare = np.minimum(IDS, 7)
    compiled(student, tagger(), "adam").fit(rare, IDS % 3, verbose=0)
    changed = np.any(student.get_weights()[0] != before, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(rare))


def test_steps_per_execution_and_running_eagerly():
    runs = []
    for options in ({}, {"steps_per_execution": 3}, {"run_eagerly": True}):
        keras.utils.set_random_seed(0)
        distiller = compiled(classifier(), classifier(4), metrics=["accuracy"], **options)
        runs.append(last(distiller.fit(batches(X, Y), epochs=2, verbose=0)))
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], rel=1e-5)


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


def test_two_replicas():
    """Which need a process of their own, since devices are set up before anything else."""
    program = """
        import numpy as np
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)

        import tf_keras as keras
        import tf_movprune

        x = np.random.RandomState(0).standard_normal([24, 8]).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int32)

        def run(strategy, reduction, cached):
            keras.utils.set_random_seed(0)
            with strategy.scope():
                regularizer = keras.regularizers.L2(0.1)
                student, teacher = (
                    keras.Sequential([keras.layers.Dense(2, None, True, kernel, None, regularizer)])
                    for kernel in ("glorot_uniform", "ones")
                )
                student.build([None, 8]), teacher.build([None, 8])
                loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
                distiller = tf_movprune.Distiller(student, None if cached else teacher)
                distiller.compile(keras.optimizers.SGD(0.1), loss, ["accuracy"])
            data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
            if cached:
                data = tf_movprune.cache_teacher_logits(data, teacher)
            history = distiller.fit(data, epochs=2, verbose=0).history
            return [*history.values(), *(w.flatten() for w in distiller.get_weights())]

        for reduction in ("sum", "sum_over_batch_size"):
            expected = run(tf.distribute.get_strategy(), reduction, False)
            for cached in (False, True):
                strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
                assert strategy.num_replicas_in_sync == 2
                for a, b in zip(expected, run(strategy, reduction, cached)):
                    np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]


# ---- with pruning


@pytest.mark.parametrize("jit_compile", [False, True])
def test_prunes_while_it_distils(tmp_path, jit_compile):
    pytest.importorskip("tensorboard")
    student, teacher = pruned_classifier(), classifier(4)
    distiller = compiled(student, teacher, tf_movprune.create_optimizer(1e-2, 6, 1))
    assert list(tf_movprune.pruned_layers(distiller)) == ["student.hidden"]
    callbacks = [tf_movprune.UpdatePruningStep(), tf_movprune.PruningSummaries(str(tmp_path))]
    logs = last(distiller.fit(batches(X, Y), epochs=2, verbose=0, callbacks=callbacks))
    assert list(logs) == ["loss", "ce_loss", "distillation_loss", "sparsity"]
    assert logs["sparsity"] == 0.75 and list((tmp_path / "pruning").iterdir())
    report = tf_movprune.summarize_sparsity(distiller)
    assert report.sparsity == 0.75
    assert [weight.path for weight in report.weights] == ["student.hidden.kernel"]
    expected = distiller.predict(X, verbose=0)
    plain = tf_movprune.strip_pruning(distiller)
    assert not tf_movprune.pruned_layers(plain) and not isinstance(plain, Distiller)
    np.testing.assert_array_equal(plain.predict(X, verbose=0), expected)
    with pytest.raises(RuntimeError, match="compile"):
        distiller.fit(X, Y, verbose=0)


def test_refuses_to_train_without_the_callback():
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        compiled(pruned_classifier(), classifier(4)).fit(X, Y, verbose=0)


def test_masks_updated_by_hand():
    distiller = Distiller(pruned_classifier(), classifier(4))
    assert tf_movprune.update_masks(distiller, 6) == 0.75
    with pytest.warns(UserWarning, match="never refreshed"):
        tf_movprune.strip_pruning(Distiller(pruned_classifier(), classifier(4)))


def test_what_pruning_refuses():
    distiller = Distiller(classifier(), classifier(4))
    with pytest.raises(ValueError, match=r"Prune the student before distilling: .*Distiller\("):
        tf_movprune.prune_low_movement(distiller, schedule())
    with pytest.raises(ValueError, match="no pruned layers"):
        tf_movprune.strip_pruning(distiller)


# ---- what is wrong with models and numbers


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match=rf"temperature must be greater than 0, got {temperature}"):
        Distiller(classifier(), classifier(), temperature)


def test_alphas_are_not_negative():
    with pytest.raises(ValueError, match=r"alpha_distil must be at least 0, got -0.5"):
        Distiller(classifier(), classifier(), alpha_distil=-0.5)
    with pytest.raises(ValueError, match=r"alpha_ce must be at least 0, got nan"):
        Distiller(classifier(), classifier(), alpha_ce=float("nan"))
    with pytest.raises(ValueError, match=r"both 0: there is nothing to learn"):
        Distiller(classifier(), classifier(), alpha_distil=0, alpha_ce=0)


def test_models_are_of_keras_2_and_built():
    with pytest.raises(TypeError, match=r"Expected a tf_keras model as student, got str"):
        Distiller("bert", classifier())
    with pytest.raises(TypeError, match=r"Expected a tf_keras model as teacher, got Dense"):
        Distiller(classifier(), layers.Dense(3))
    keras_3 = type("Model", (), {"__module__": "keras.src.models"})()
    with pytest.raises(TypeError, match=r"Keras 3 object.*tf_keras"):
        Distiller(keras_3, classifier())
    unbuilt = keras.Sequential([layers.Dense(3)])
    with pytest.raises(ValueError, match=r"teacher .* is not built yet.*model\(batch\)"):
        Distiller(classifier(), unbuilt)
    with pytest.raises(ValueError, match=r"student .* is not built"):
        Distiller(unbuilt, classifier())


def test_probabilities_are_no_logits():
    x = keras.Input([8])
    softmax = keras.Model(x, layers.Dense(3, "softmax")(x))
    sigmoid = keras.Sequential([layers.Dense(3, "sigmoid", input_shape=[8])])
    last = keras.Sequential([layers.Dense(3, input_shape=[8]), layers.Softmax()])
    nested = keras.Sequential([keras.Input([8]), layers.Dense(8), sigmoid])
    cast = keras.Model(x, layers.Activation("linear", dtype="float32")(softmax(x)))
    hidden = [layers.Dense(8, input_shape=[8]), layers.Dense(3, "softmax")]
    pruned = tf_movprune.prune_low_movement(
        keras.Sequential(hidden), schedule(), block_size=tf_movprune.NEURONS
    )
    for model in (softmax, sigmoid, last, nested, cast, pruned):
        with pytest.raises(ValueError, match=r"student .* gives probabilities, and logits are"):
            Distiller(model, classifier())
    with pytest.raises(ValueError, match=r"teacher .* gives probabilities"):
        Distiller(classifier(), last)
    Distiller(keras.Model(x, [layers.Dense(3)(x), softmax(x)]), classifier())


def of_classes(count):
    return keras.Sequential([layers.Dense(count, input_shape=[8])])


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


# ---- saving


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ""])
def test_weights_are_those_of_the_student(tmp_path, suffix):
    distiller = compiled(pruned_classifier(), classifier(4), "adam")
    distiller.fit(batches(X, Y).repeat(2), callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    distiller.save_weights(tmp_path / f"weights{suffix}")
    again = compiled(pruned_classifier(), classifier(7), "adam")
    status = again.load_weights(tmp_path / f"weights{suffix}")
    for expected, received in zip(distiller.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(received, expected)
    if not suffix:
        again.optimizer.build(again.trainable_variables)
        status.assert_consumed()
        assert int(again.optimizer.iterations) == 6


def test_checkpoints(tmp_path):
    distiller = compiled(pruned_classifier(), classifier(4), "adam")
    distiller.fit(batches(X, Y).repeat(2), callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    path = tf.train.Checkpoint(model=distiller).save(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(path)]
    assert not [name for name in names if "teacher" in name or "tracker" in name]
    values = [n for n in names if n.startswith("model/student") and ".OPTIMIZER_SLOT" not in n]
    again = compiled(pruned_classifier(), classifier(7), "adam")
    again.optimizer.build(again.trainable_variables)
    tf.train.Checkpoint(model=again).restore(path).assert_consumed()
    assert int(again.optimizer.iterations) == 6 and values
    for expected, received in zip(distiller.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(received, expected)


def test_whole_models_are_refused(tmp_path):
    distiller = compiled(classifier(), classifier(4))
    distiller.fit(X, Y, verbose=0)
    message = r"not saved as a whole: save its student"
    for path in ("model", "model.h5", "model.keras"):
        with pytest.raises(ValueError, match=message):
            distiller.save(str(tmp_path / path))
    with pytest.raises(ValueError, match=message):
        keras.models.save_model(distiller, str(tmp_path / "model.keras"))
    with pytest.raises(ValueError, match=message):
        distiller.export(str(tmp_path / "export"))
