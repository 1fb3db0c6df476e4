"""Tests of distillation on models of either Keras."""

import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from shells import KERASES, gradients, keras_of, precision

import tf_movprune
from tf_movprune import Distiller, cache_teacher_logits, distillation_loss

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([24, 8]).astype("float32")
Y = RANDOM.randint(0, 3, 24).astype("int32")
IDS = RANDOM.randint(1, 20, [24, 5]).astype("int32")
RAMP = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)


def classifier(keras, size=16, **kwargs):
    hidden = keras.layers.Dense(size, "relu", name="hidden", **kwargs)
    return keras.Sequential([keras.Input([8]), hidden, keras.layers.Dense(3)])


def pruned_classifier(keras):
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    return tf_movprune.prune_low_movement(classifier(keras), RAMP, method)


def tagger(keras, mask_zero=False):
    """Three classes for each of five tokens."""
    inputs = keras.Input([5], dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=1.0)
    tokens = keras.layers.Embedding(20, 6, wide, mask_zero=mask_zero)(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(tokens))


def reader(keras, structure):
    """Two outputs, in a list or a dict, or beside others as Hugging Face's models name them."""
    inputs = keras.Input([8])
    start, end, other = (keras.layers.Dense(4, name=n)(inputs) for n in ("start", "end", "other"))
    outputs = {
        "list": [start, end],
        "dict": {"start": start, "end": end},
        "hugging_face": {"start_logits": start, "end_logits": end, "states": [other]},
    }
    return keras.Model(inputs, outputs[structure])


def compiled(student, teacher=None, optimizer="sgd", loss=None, metrics=None, **kwargs):
    names = ("temperature", "alpha_distil", "alpha_ce")
    distiller = Distiller(student, teacher, **{n: kwargs.pop(n) for n in names if n in kwargs})
    distiller.compile(optimizer, loss, metrics=metrics, **kwargs)
    return distiller


def expected_losses(student, teacher, labels, temperature=2.0):
    """KL and CE by example."""
    kl = reference.distillation(np.array(teacher), np.array(student), temperature)
    return kl, reference.cross_entropy(labels, np.array(student))


def batches(*values, size=8):
    return tf.data.Dataset.from_tensor_slices(values).batch(size)


def last(history):
    return {name: values[-1] for name, values in history.history.items()}


def evaluate(distiller, *data, **kwargs):
    return distiller.evaluate(*data, verbose=0, return_dict=True, **kwargs)


def test_a_stripped_student_warns_when_it_is_trained(keras):
    """A stripped model warns by itself, too: its zeros are trained again."""
    stripped = tf_movprune.prune_low_movement(classifier(keras), RAMP, tf_movprune.Magnitude())
    tf_movprune.update_masks(stripped, 6)
    stripped = tf_movprune.strip_pruning(stripped)
    distiller = compiled(stripped, classifier(keras))
    with pytest.warns(UserWarning, match="was stripped of pruning, and is about to be trained"):
        distiller.fit(X, Y, verbose=0)


# ---- losses


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_total_is_the_sum_of_its_parts(keras, jit_compile):
    student = classifier(keras, kernel_regularizer=keras.regularizers.L2(0.1))
    teacher = classifier(keras, 4)
    kl, ce = expected_losses(student(X), teacher(X), Y, 3.0)
    student(X)
    total = 0.9 * kl.mean() + 0.2 * ce.mean() + float(student.losses[0])
    accuracy = np.mean(np.array(student(X)).argmax(-1) == Y)
    distiller = compiled(
        student,
        teacher,
        metrics=["accuracy"],
        temperature=3.0,
        alpha_distil=0.9,
        alpha_ce=0.2,
        jit_compile=jit_compile,
    )
    expected = dict(loss=total, ce_loss=ce.mean(), distillation_loss=kl.mean(), accuracy=accuracy)
    # The last batch is smaller; Keras averages over examples.
    assert evaluate(distiller, X, Y, batch_size=10) == pytest.approx(expected, rel=1e-5)
    logs = last(distiller.fit(X, Y, 24, verbose=0, validation_data=(X, Y)))
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert logs["val_loss"] < logs["loss"]


def test_a_step_follows_the_gradient_of_the_total(keras):
    student, teacher, copy = classifier(keras), classifier(keras, 4), classifier(keras)
    copy.set_weights(student.get_weights())

    def total(model):
        logits = tf.convert_to_tensor(model(X))
        ce = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits)
        return 0.5 * distillation_loss(teacher(X), logits, 2.0) + 0.5 * tf.reduce_mean(ce)

    slopes = gradients(copy, total).values()
    expected = [w - 0.1 * slope for w, slope in zip(student.get_weights(), slopes)]
    compiled(student, teacher, keras.optimizers.SGD(0.1)).fit(X, Y, batch_size=24, verbose=0)
    for received, value in zip(student.get_weights(), expected, strict=True):
        np.testing.assert_allclose(received, value, atol=1e-6)


def test_gradients_of_embeddings(keras):
    student, rare = tagger(keras), np.minimum(IDS, 7)
    before = student.get_weights()[0]
    compiled(student, tagger(keras), "adam").fit(rare, IDS % 3, verbose=0)
    changed = np.any(student.get_weights()[0] != before, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(rare))


def test_the_teacher_infers_and_is_left_alone(keras):
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.9), keras.layers.Dense(3)]
    student, teacher = classifier(keras), keras.Sequential([keras.Input([8]), *layers])
    layers[2].trainable = False
    before = teacher.get_weights()
    kl, _ = expected_losses(student(X), teacher(X), Y)
    logs = last(compiled(student, teacher).fit(X, Y, 24, verbose=0))
    assert logs["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)
    np.testing.assert_equal(teacher.get_weights(), before)
    assert [layer.trainable for layer in layers] == [True, True, False]


def test_a_teacher_may_return_another_structure(keras):
    student, teacher, x = classifier(keras), classifier(keras, 4), keras.Input([8])
    kl, _ = expected_losses(student(X), teacher(X), Y)
    named = keras.Model(x, {"logits": teacher(x)})
    results = evaluate(compiled(student, named), X, Y)
    assert results["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)


def test_sample_weights_weight_cross_entropy_only(keras):
    student, teacher = classifier(keras), classifier(keras, 4)
    kl, ce = expected_losses(student(X), teacher(X), Y)
    weights = RANDOM.rand(24).astype("float32")
    results = evaluate(compiled(student, teacher), X, Y, batch_size=24, sample_weight=weights)
    assert results["ce_loss"] == pytest.approx(np.mean(weights * ce), rel=1e-5)
    assert results["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)


def test_class_weights_weight_cross_entropy_only(keras):
    student, teacher = classifier(keras), classifier(keras, 4)
    kl, ce = expected_losses(student(X), teacher(X), Y)
    history = compiled(student, teacher).fit(X, Y, 24, class_weight={0: 2, 1: 0, 2: 1}, verbose=0)
    logs = last(history)
    assert logs["ce_loss"] == pytest.approx(np.mean(np.array([2, 0, 1])[Y] * ce), rel=1e-5)
    assert logs["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)


def test_steps_per_execution_and_running_eagerly(keras):
    runs = []
    for options in ({}, {"steps_per_execution": 3}, {"run_eagerly": True}):
        keras.utils.set_random_seed(0)
        distiller = compiled(classifier(keras), classifier(keras, 4), **options)
        runs.append(last(distiller.fit(batches(X, Y), epochs=2, verbose=0)))
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_a_task_loss_of_the_users(keras, reduction):
    student, teacher = classifier(keras), classifier(keras, 4)
    _, ce = expected_losses(student(X), teacher(X), Y)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)
    distiller = compiled(student, teacher, loss=loss, metrics=["accuracy"])
    results = evaluate(distiller, X, np.eye(3, dtype="float32")[Y], batch_size=24)
    assert results["ce_loss"] == pytest.approx(ce.sum() if reduction == "sum" else ce.mean())
    assert results["accuracy"] == np.mean(np.array(student(X)).argmax(-1) == Y).astype("float32")


def test_without_labels(keras):
    student, teacher = classifier(keras), classifier(keras, 4)
    kl, _ = expected_losses(student(X), teacher(X), Y)
    distiller = compiled(student, teacher, alpha_ce=0.0, alpha_distil=1.0, metrics=["accuracy"])
    results = evaluate(distiller, X)
    assert results["loss"] == results["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-5)
    distiller.fit(X, verbose=0)
    with pytest.raises(ValueError, match=r"Labels are missing.*labels, start_positions.*alpha_ce"):
        compiled(student, teacher).fit(X, verbose=0)


@pytest.mark.parametrize("mask_zero", [False, True])
def test_ignored_and_masked_tokens_count_for_nothing(keras, mask_zero):
    student, teacher = tagger(keras, mask_zero), tagger(keras, mask_zero)
    ids = np.where(RANDOM.rand(24, 5) < 0.3, 0, IDS)
    labels = RANDOM.randint(0, 3, [24, 5])
    labels[RANDOM.rand(24, 5) < 0.4] = -100
    valid = labels != -100
    if mask_zero:
        valid &= ids != 0
    logits = np.array(student(ids))
    kl, ce = expected_losses(logits, teacher(ids), np.where(valid, labels, 0))
    distiller = compiled(student, teacher, metrics=["accuracy"])
    results = evaluate(distiller, ids, labels, batch_size=24)
    assert results["ce_loss"] == pytest.approx(ce[valid].mean(), rel=1e-5)
    assert results["distillation_loss"] == pytest.approx(kl[valid].mean(), rel=1e-5)
    hits = (logits.argmax(-1) == labels)[valid]
    assert results["accuracy"] == pytest.approx(hits.mean(), rel=1e-5)
    weights = RANDOM.rand(24).astype("float32")
    results = evaluate(distiller, ids, labels, batch_size=24, sample_weight=weights)
    assert results["ce_loss"] == pytest.approx((weights[:, None] * ce)[valid].mean(), rel=1e-5)
    nothing = distiller.fit(ids, np.full([24, 5], -100), 24, verbose=0)
    assert set(last(nothing).values()) == {0}


@pytest.mark.parametrize("structure", ["list", "dict", "hugging_face"])
def test_several_outputs_are_averaged(keras, structure):
    student, teacher = reader(keras, structure), reader(keras, structure)
    labels, weights = RANDOM.randint(0, 4, [2, 24]), RANDOM.rand(24).astype("float32")
    terms = []
    for name, y in zip(("start", "end"), labels):
        logits = [m.get_layer(name)(X) for m in (student, teacher)]
        terms.append(expected_losses(*logits, y))
    kl, ce = np.mean(terms, axis=(0, 2))
    given, metrics, loss = list(labels), [["accuracy"], ["accuracy"]], None
    if structure == "dict":
        given = dict(zip(("start", "end"), labels))
        metrics = dict.fromkeys(given, "accuracy")
    elif structure == "hugging_face":
        given = dict(zip(("start_positions", "end_positions"), labels))
        metrics = dict.fromkeys(("start_logits", "end_logits"), "accuracy")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = compiled(student, teacher, loss=loss, metrics=metrics)
    results = evaluate(distiller, X, given, batch_size=24)
    losses = [results[name] for name in ("loss", "ce_loss", "distillation_loss")]
    np.testing.assert_allclose(losses, [(kl + ce) / 2, ce, kl], rtol=1e-5)
    assert sum("acc" in name for name in results) == 2 and len(results) == 5
    if structure == "hugging_face":
        results = evaluate(distiller, X, given, batch_size=24, sample_weight=weights)
        expected = np.mean([weights * ce for _, ce in terms])
        assert results["ce_loss"] == pytest.approx(expected, rel=1e-5)
        found, expected = distiller.predict(X, verbose=0), student(X)
        tf.nest.map_structure(
            functools.partial(np.testing.assert_allclose, atol=1e-6), found, expected
        )


# ---- with pruning


@pytest.mark.parametrize("jit_compile", [pytest.param(False, marks=pytest.mark.slow), True])
def test_prunes_while_it_distils(keras, jit_compile, tmp_path):
    pytest.importorskip("tensorboard")
    student, teacher = pruned_classifier(keras), classifier(keras, 4)
    before = teacher.get_weights()
    distiller = Distiller(student, teacher)
    optimizer = tf_movprune.create_optimizer(1e-2, 6, 1, model=distiller)
    distiller.compile(optimizer, jit_compile=jit_compile)
    assert isinstance(distiller, Distiller) and isinstance(distiller, keras.Model)
    assert list(tf_movprune.pruned_layers(distiller)) == ["student.hidden"]
    callbacks = [tf_movprune.UpdatePruningStep(), tf_movprune.PruningSummaries(str(tmp_path))]
    logs = last(distiller.fit(batches(X, Y), epochs=2, verbose=0, callbacks=callbacks))
    assert list((tmp_path / "pruning").iterdir())
    assert set(logs) == {"loss", "ce_loss", "distillation_loss", "sparsity"}
    assert logs["sparsity"] == tf_movprune.summarize_sparsity(distiller).sparsity == 0.75
    np.testing.assert_equal(teacher.get_weights(), before)
    expected = student.predict(X, verbose=0)
    np.testing.assert_allclose(distiller.predict(X, verbose=0), expected, atol=1e-6)
    plain = tf_movprune.strip_pruning(distiller)
    assert not tf_movprune.pruned_layers(plain) and not isinstance(plain, Distiller)
    np.testing.assert_array_equal(plain.predict(X, verbose=0), expected)
    with pytest.raises((RuntimeError, ValueError), match="compile"):
        distiller.fit(X, Y, verbose=0)


def test_refuses_to_train_without_the_callback(keras):
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        compiled(pruned_classifier(keras), classifier(keras, 4)).fit(X, Y, verbose=0)


def test_what_pruning_refuses(keras):
    distiller = Distiller(classifier(keras), classifier(keras, 4))
    with pytest.raises(ValueError, match=r"Prune the student before distilling: .*Distiller\("):
        tf_movprune.prune_low_movement(distiller, RAMP)
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="no pruned layers"):
        tf_movprune.strip_pruning(distiller)
    distiller.fit(X, Y, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(keras, policy):
    with precision(keras, policy):
        student, teacher = pruned_classifier(keras), classifier(keras, 4)
    kl, ce = expected_losses(*(np.array(m(X), "float32") for m in (student, teacher)), Y)
    distiller = Distiller(student, teacher)
    optimizer = tf_movprune.create_optimizer(1e-2, 6, 1, model=distiller)
    if policy == "mixed_float16":
        of_tf_keras = getattr(keras.mixed_precision, "LossScaleOptimizer", None)
        optimizer = (of_tf_keras or keras.optimizers.LossScaleOptimizer)(optimizer)
    distiller.compile(optimizer)
    results = evaluate(distiller, X, Y)
    assert results["distillation_loss"] == pytest.approx(kl.mean(), rel=1e-2)
    assert results["ce_loss"] == pytest.approx(ce.mean(), rel=1e-2)
    update = tf_movprune.UpdatePruningStep()
    logs = last(distiller.fit(batches(X, Y).repeat(8), verbose=0, callbacks=[update]))
    assert logs["sparsity"] == 0.75 and np.isfinite(logs["loss"])
    assert type(tf_movprune.strip_pruning(distiller)) is type(student)


def test_mixed_precision_leaves_inputs_to_the_student(keras):
    student, teacher = classifier(keras), classifier(keras, 4)
    with precision(keras, "mixed_float16"):
        distiller = compiled(student, teacher)
        assert distiller(X).dtype == "float32"
        np.testing.assert_array_equal(distiller(X), student(X))


def test_masks_updated_by_hand(keras):
    distiller = Distiller(pruned_classifier(keras), classifier(keras, 4))
    assert tf_movprune.update_masks(distiller, 6) == 0.75
    with pytest.warns(UserWarning, match="never refreshed"):
        tf_movprune.strip_pruning(Distiller(pruned_classifier(keras), classifier(keras, 4)))


# ---- cached logits


def test_cached_logits_train_as_the_teacher_does(keras):
    teacher = classifier(keras, 4)
    data = batches(X, Y, size=10)
    cached = cache_teacher_logits(data, teacher)
    assert int(cached.cardinality()) == 3
    runs = []
    for source, used in ((data, teacher), (cached, None), (cached, classifier(keras, 5))):
        keras.utils.set_random_seed(1)
        distiller = compiled(classifier(keras), used)
        history = distiller.fit(source, epochs=2, verbose=0, validation_data=source).history
        runs.append(np.array(list(history.values())))
        np.testing.assert_allclose(
            distiller.predict(source, verbose=0), distiller.student(X), atol=1e-6
        )
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-5)
    np.testing.assert_array_equal(runs[2], runs[1])
    with pytest.raises(ValueError, match=r"no teacher.*cache_teacher_logits returned, for valid"):
        compiled(classifier(keras)).fit(X, Y, verbose=0)


def test_what_cannot_be_cached(keras):
    with pytest.raises(TypeError, match=r"Expected a tf.data.Dataset of batches, got ndarray"):
        cache_teacher_logits(X, classifier(keras))
    with pytest.raises(ValueError, match=r"infinite.*repeat"):
        cache_teacher_logits(batches(X).repeat(), classifier(keras))
    with pytest.raises(ValueError, match=r"is still pruned"):
        cache_teacher_logits(batches(X), pruned_classifier(keras))
    with pytest.raises(TypeError, match=r"as teacher, got Dense"):
        cache_teacher_logits(batches(X), keras.layers.Dense(3))


# ---- what is refused


def test_models_that_cannot_be_distilled(keras):
    with pytest.raises(TypeError, match=r"as teacher, got Dense"):
        Distiller(classifier(keras), keras.layers.Dense(3))
    with pytest.raises(TypeError, match=r"Expected a model or layer of .*, got 'bert'"):
        Distiller("bert", classifier(keras))
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"teacher .* is not built yet.*model\(batch\)"):
        Distiller(classifier(keras), unbuilt)
    with pytest.raises(ValueError, match=r"student .* is not built"):
        Distiller(unbuilt, classifier(keras))
    with pytest.raises(ValueError, match=r"teacher .* is still pruned.*strip_pruning"):
        Distiller(classifier(keras), pruned_classifier(keras))
    model = classifier(keras)
    with pytest.raises(ValueError, match=r"shares 4 weights.*hidden/kernel.*load the teacher anew"):
        Distiller(model, model)


NUMBERS = [
    *(({"temperature": t}, rf"temperature must be greater than 0, got {t}") for t in (0, -1.0)),
    ({"temperature": float("nan")}, r"temperature must be greater than 0, got nan"),
    ({"temperature": float("inf")}, r"temperature must be finite, got inf"),
    ({"temperature": "2"}, r"temperature must be a number such as 2\.0, got '2'"),
    ({"alpha_distil": -0.5}, r"alpha_distil must be at least 0, got -0\.5"),
    ({"alpha_ce": float("nan")}, r"alpha_ce must be at least 0, got nan"),
    ({"alpha_distil": 0, "alpha_ce": 0}, r"both 0: there is nothing to learn"),
]


def test_numbers_out_of_range(keras):
    student, teacher = classifier(keras), classifier(keras)
    for arguments, message in NUMBERS:
        with pytest.raises((TypeError, ValueError), match=message):
            Distiller(student, teacher, **arguments)


def test_models_of_two_kerases_are_refused():
    one, other = (classifier(keras_of(name)) for name in KERASES)
    with pytest.raises(TypeError, match=r"student is of Keras 3, and the teacher of tf_keras"):
        Distiller(other, one)
    with pytest.raises(TypeError, match=r"student is of tf_keras, and the teacher of Keras 3"):
        Distiller(one, other)


def test_probabilities_are_no_logits(keras):
    layers = keras.layers
    x = keras.Input([8])
    softmax = keras.Model(x, layers.Dense(3, "softmax")(x))
    sigmoid = keras.Sequential([keras.Input([8]), layers.Dense(3, "sigmoid")])
    last_layer = keras.Sequential([keras.Input([8]), layers.Dense(3), layers.Softmax()])
    activation = keras.Model(x, layers.Activation("softmax")(layers.Dense(3)(x)))
    nested = keras.Sequential([keras.Input([8]), layers.Dense(8), sigmoid])
    cast = keras.Model(x, layers.Activation("linear", dtype="float32")(softmax(x)))
    hidden = keras.Sequential([keras.Input([8]), layers.Dense(8), layers.Dense(3, "softmax")])
    pruned = tf_movprune.prune_low_movement(hidden, RAMP, block_size=tf_movprune.NEURONS)
    for model in (softmax, sigmoid, last_layer, activation, nested, cast, pruned):
        with pytest.raises(ValueError, match=r"student .* gives probabilities, and logits are"):
            Distiller(model, classifier(keras))
    with pytest.raises(ValueError, match=r"teacher .* gives probabilities"):
        Distiller(classifier(keras), softmax)
    Distiller(keras.Model(x, [layers.Dense(3)(x), softmax(x)]), classifier(keras))


def test_losses_that_take_probabilities(keras):
    losses, remedy = keras.losses, r"SparseCategoricalCrossentropy\(from_logits=True\)"
    distiller = compiled(classifier(keras), classifier(keras))
    for loss in (
        "sparse_categorical_crossentropy",
        losses.sparse_categorical_crossentropy,
        losses.SparseCategoricalCrossentropy(),
        [losses.MeanSquaredError(), "sparse_categorical_crossentropy"],
        {"start": losses.SparseCategoricalCrossentropy(), "end": "mse"},
    ):
        with pytest.raises(ValueError, match=rf"a loss of logits, got .*Pass {remedy}, or no loss"):
            distiller.compile("sgd", loss)
    with pytest.raises(ValueError, match=r"got BinaryCrossentropy.*Pass BinaryCrossentropy\(from"):
        distiller.compile("sgd", losses.BinaryCrossentropy())
    smooth = functools.partial(losses.categorical_crossentropy, label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"got categorical_c.*Pass CategoricalCrossentropy\(from"):
        distiller.compile("sgd", smooth)
    for loss in ("kl_divergence", losses.KLDivergence(), functools.partial(losses.kl_divergence)):
        with pytest.raises(ValueError, match=r"probabilities\. Apply tf\.nn\.softmax"):
            distiller.compile("sgd", loss)

    class WithoutConfig(losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(y_pred)

        def get_config(self):
            raise NotImplementedError

    function = functools.partial(losses.categorical_crossentropy, from_logits=True)
    for loss in (
        "mse",
        function,
        WithoutConfig(),
        {"start": losses.BinaryCrossentropy(from_logits=True)},
    ):
        distiller.compile("sgd", loss)


def test_outputs_and_labels_that_do_not_fit(keras):
    four = keras.Sequential([keras.Input([8]), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"gives logits \(.*, 4\), the teacher logits \(.*, 3\)"):
        compiled(four, classifier(keras)).fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"Expected integer labels of shape .*, got float32"):
        compiled(classifier(keras), classifier(keras)).fit(X, Y.astype("float32"), verbose=0)
    two = compiled(reader(keras, "list"), reader(keras, "list"))
    with pytest.raises(ValueError, match=r"labels for the outputs output_1, output_2, got one"):
        two.fit(X, Y, verbose=0)


def test_subclasses_are_made_from_the_distiller_of_a_shell():
    with pytest.raises(TypeError, match=r"tf_movprune\.keras3\.distiller"):
        type("Mine", (Distiller,), {})


# ---- saving


def test_weights_and_checkpoints_are_those_of_the_student(keras, tmp_path):
    student, teacher = pruned_classifier(keras), classifier(keras, 4)
    distiller = compiled(student, teacher, "adam", metrics=["accuracy"])
    distiller.fit(batches(X, Y).repeat(2), callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    for name in ("weights", "trainable_weights", "variables"):
        assert [id(w) for w in getattr(distiller, name)] == [id(w) for w in getattr(student, name)]
    assert distiller.teacher is teacher and distiller.layers == [student]
    assert teacher not in list(distiller._flatten_layers())
    expected = distiller.get_weights()

    distiller.save_weights(str(tmp_path / "d.weights.h5"))
    again = compiled(pruned_classifier(keras), classifier(keras, 7), "adam")
    again.load_weights(str(tmp_path / "d.weights.h5"))
    np.testing.assert_equal(again.get_weights(), expected)

    path = tf.train.Checkpoint(model=distiller).save(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(path)]
    assert not [name for name in names if "teacher" in name or "tracker" in name]
    again = compiled(pruned_classifier(keras), classifier(keras, 7), "adam")
    again.optimizer.build(again.trainable_variables)
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    assert int(again.optimizer.iterations) == 6
    np.testing.assert_equal(again.get_weights(), expected)


def test_whole_models_are_refused(keras, tmp_path):
    distiller = compiled(classifier(keras), classifier(keras, 4))
    for save in (distiller.save, distiller.export, lambda p: keras.models.save_model(distiller, p)):
        with pytest.raises(ValueError, match=r"not saved as a whole: save its student"):
            save(str(tmp_path / "model.keras"))
