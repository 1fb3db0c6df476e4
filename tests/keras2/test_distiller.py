"""Distiller: what it takes for models and data, and how it trains beside pruning."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from distilling import (
    IDS,
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

layers = keras.layers


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


def test_mixed_precision_scales_the_loss():
    with precision("mixed_float16"):
        student, teacher = classifier(), classifier(4)
        logits = student(X).numpy(), teacher(X).numpy()
        assert logits[0].dtype == np.float16
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        distiller = compiled(student, teacher, optimizer)
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


def test_masks_updated_by_hand():
    distiller = Distiller(pruned_classifier(), classifier(4))
    assert tf_movprune.update_masks(distiller, 6) == 0.75
    with pytest.warns(UserWarning, match="never refreshed"):
        tf_movprune.strip_pruning(Distiller(pruned_classifier(), classifier(4)))


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


def test_whole_models_are_refused(tmp_path):
    distiller = compiled(classifier(), classifier(4))
    message = r"not saved as a whole: save its student"
    for path in ("model", "model.h5", "model.keras"):
        with pytest.raises(ValueError, match=message):
            distiller.save(str(tmp_path / path))
    with pytest.raises(ValueError, match=message):
        keras.models.save_model(distiller, str(tmp_path / "model.keras"))
    with pytest.raises(ValueError, match=message):
        distiller.export(str(tmp_path / "export"))
