"""Distiller: what it takes for models and data, and how it trains beside pruning."""

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
    last,
    pruned_classifier,
    schedule,
    tagger,
)
from modes import precision

import tf_movprune
from tf_movprune import Distiller, distillation_loss

pytestmark = pytest.mark.usefixtures("refresh_without_xla")


layers = keras.layers


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
    logs = last(
        distiller.fit(X, Y, 24, verbose=0, validation_data=(X, Y), validation_batch_size=10)
    )
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


@pytest.mark.parametrize("default, jit_compile", [(True, False), (True, True), (False, True)])
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
    jit_compile = task == "SequenceClassification"
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
    for name, value in student({"input_ids": IDS}).items():
        np.testing.assert_allclose(predicted[name], value, atol=1e-6)
    plain = tf_movprune.strip_pruning(distiller)
    assert plain is student and tf_movprune.summarize_sparsity(plain).sparsity == 0.75


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
    with pytest.raises(ValueError, match=r"teacher .* is still pruned.*strip_pruning"):
        Distiller(classifier(), pruned_classifier())
    model = classifier()
    student = tf_movprune.prune_low_movement(model, schedule())
    with pytest.raises(ValueError, match=r"shares 4 weights.*load the teacher anew"):
        Distiller(student, model)
    with pytest.raises(ValueError, match=r"shares 4 weights"):
        Distiller(model, model)


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


# ---- with pruning


def test_prunes_while_it_distils(tmp_path):
    pytest.importorskip("tensorboard")
    student, teacher = pruned_classifier(), classifier(4)
    optimizer = tf_movprune.create_optimizer(1e-2, 6, 1)
    distiller = compiled(student, teacher, optimizer, jit_compile=True)
    assert list(tf_movprune.pruned_layers(distiller)) == ["student.hidden"]
    callbacks = [tf_movprune.UpdatePruningStep(), tf_movprune.PruningSummaries(str(tmp_path))]
    logs = last(distiller.fit(batches(X, Y), epochs=2, verbose=0, callbacks=callbacks))
    assert list(logs) == ["loss", "ce_loss", "distillation_loss", "sparsity"]
    assert logs["sparsity"] == 0.75 and list((tmp_path / "pruning").iterdir())
    report = tf_movprune.summarize_sparsity(distiller)
    assert report.sparsity == 0.75
    assert [weight.path for weight in report.weights] == ["student.hidden.kernel"]
    expected = student.predict(X, verbose=0)
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
def test_temperature_is_positive_and_finite(temperature):
    message = rf"temperature must be (greater than 0|finite), got {temperature}"
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(), classifier(), temperature)
    with pytest.raises(TypeError, match=r"temperature must be a number such as 2\.0, got '2'"):
        Distiller(classifier(), classifier(), "2")


def test_alphas_are_not_negative():
    with pytest.raises(ValueError, match=r"alpha_distil must be at least 0, got -0.5"):
        Distiller(classifier(), classifier(), alpha_distil=-0.5)
    with pytest.raises(ValueError, match=r"alpha_ce must be at least 0, got nan"):
        Distiller(classifier(), classifier(), alpha_ce=float("nan"))
    with pytest.raises(ValueError, match=r"both 0: there is nothing to learn"):
        Distiller(classifier(), classifier(), alpha_distil=0, alpha_ce=0)


def test_models_are_of_keras_and_built():
    with pytest.raises(TypeError, match=r"Expected a model or layer of .*tf_keras, got 'bert'"):
        Distiller("bert", classifier())
    with pytest.raises(TypeError, match=r"Expected a tf_keras model as teacher, got Dense"):
        Distiller(classifier(), layers.Dense(3))
    keras_3 = type("Model", (), {"__module__": "keras.src.models"})()
    with pytest.raises(TypeError, match=r"student is of Keras 3, and the teacher of tf_keras"):
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
