"""Training across calls of fit, with the callback and without it, and on other devices."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from modes import precision
from runs import (
    HasALossOfItsOwn,
    TrainsItsFirstLayer,
    compiled,
    cubic,
    data,
    dense_model,
    fit,
)
from wrapped import mask_of, wrappers

import tf_movprune

# ---- calls of fit


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_without_the_callback(jit_compile):
    model = compiled(cubic(), jit_compile=jit_compile)
    with pytest.raises(RuntimeError, match=r"'prune_low_movement_first'.*UpdatePruningStep\(\)"):
        model.fit(data(), verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_without_the_callback_after_one_with_it(jit_compile):
    model = compiled(cubic())
    fit(model)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks of fit"):
        model.fit(data(), verbose=0)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks of fit"):
        model.fit(data(), verbose=0)


def test_second_fit_reuses_the_train_function():
    model = compiled(cubic())
    functions = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: functions.append(model.train_function)
    )
    fit(model, callbacks=[watch])
    fit(model, epochs=1, callbacks=[watch])
    assert functions[0] is functions[-1]
    assert functions[0].function.experimental_get_tracing_count() == 1
    model.compile(keras.optimizers.SGD(0.1), "mae")  # calls for another one
    fit(model, callbacks=[watch])
    assert functions[-1] is not functions[0]


class CountsTraces(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.traces = 0

    def call(self, inputs):
        self.traces += 1
        return inputs


@pytest.mark.parametrize(
    "distil, jit_compile",
    [(False, False), (False, True), pytest.param(True, True, marks=pytest.mark.slow)],
)
def test_the_train_step_is_traced_once(distil, jit_compile):
    """TensorFlow traces twice where the first time makes variables, as optimizers do."""
    counter = CountsTraces()
    layers = [keras.Input((8,)), counter, keras.layers.Dense(4), keras.layers.Dense(2)]
    model = tf_movprune.prune_low_movement(keras.Sequential(layers), cubic())
    if distil:
        model = tf_movprune.Distiller(model, dense_model())
    model.compile("adam", "mse", [keras.metrics.MeanSquaredError()], jit_compile=jit_compile)
    counter.traces = 0
    model.fit(data(), callbacks=[tf_movprune.UpdatePruningStep()], epochs=2, verbose=0)
    assert counter.traces == 1


def test_a_train_step_of_its_own_may_train_fewer_variables():
    """An optimizer that was built for all of them refuses to."""
    model = TrainsItsFirstLayer()
    model(next(iter(data()))[0])
    tf_movprune.prune_low_movement(model, cubic())
    model.compile("adam")
    head = model.head.get_weights()
    fit(model)
    np.testing.assert_equal(model.head.get_weights(), head)
    assert int(model.optimizer.iterations) == 12


def test_fit_with_the_callback_after_one_without_it():
    """It needs no second call of compile."""
    trained = []
    for forgets in (False, True):
        keras.utils.set_random_seed(0)
        model = tf_movprune.prune_low_movement(dense_model(), cubic())
        model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
        if forgets:
            with pytest.raises(RuntimeError, match="UpdatePruningStep"):
                model.fit(data(), verbose=0)
        fit(model)
        trained.append(model.get_weights())
    for expected, received in zip(*trained):
        np.testing.assert_array_equal(received, expected)


def test_fit_without_the_callback_after_one_that_failed():
    model = compiled(cubic(end_step=1800))
    with pytest.raises(ValueError, match="ends at step 1800"):
        fit(model)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(data(), verbose=0)


def test_fit_without_the_callback_after_one_that_was_interrupted():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(cubic())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(data(), verbose=0)
    fit(model)
    broken = data().map(lambda x, y: (x, tf.strings.as_string(y)))
    with pytest.raises(tf.errors.OpError, match="string"):
        fit(model, dataset=broken)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.train_on_batch(*next(iter(data())))
    tf_movprune.update_masks(model, model.optimizer.iterations)
    model.train_on_batch(*next(iter(data())))


def test_a_callback_that_fails_before_the_first_step_leaves_nothing_in_the_metrics():
    def fail(epoch, logs):
        raise KeyboardInterrupt

    model = compiled(cubic())
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=fail)])
    fit(model)
    assert set(model.evaluate(data(), verbose=0, return_dict=True)) == {"loss"}


def test_inference_needs_no_callback():
    model = compiled(cubic())
    assert model.predict(data(), verbose=0).shape == (24, 2)
    assert np.isfinite(model.evaluate(data(), verbose=0))


def test_training_a_model_that_was_stripped():
    """It shares its layers with the plain one, and computes with folded weights."""
    model = compiled(cubic())
    fit(model)
    inputs = np.ones((2, 8), "float32")
    masked = model(inputs)
    tf_movprune.strip_pruning(model)
    message = r"'prune_low_movement_first' cannot be trained further.*strip_pruning"
    for train in (
        lambda: fit(model),
        lambda: model.fit(data(), verbose=0),
        lambda: tf_movprune.update_masks(model, 12),
        lambda: model(inputs, training=True),
    ):
        with pytest.raises(RuntimeError, match=message):
            train()
    assert int(model.optimizer.iterations) == 12
    np.testing.assert_array_equal(model(inputs), masked)
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.75


def test_stripped_model_is_trained_and_pruned_again():
    model = compiled(cubic())
    fit(model)
    plain = tf_movprune.strip_pruning(model)
    plain.compile("sgd", "mse")
    plain.fit(data(), verbose=0)
    pruned = tf_movprune.prune_low_movement(plain, cubic())
    pruned.compile("sgd", "mse")
    fit(pruned)


def test_nothing_of_the_training_stays_in_a_stripped_model(tmp_path):
    """Checkpoints and files of a model that is changed in place would hold its optimizer."""
    model = HasALossOfItsOwn()
    model(next(iter(data()))[0])
    tf_movprune.prune_low_movement(model, cubic())
    model.compile("adam")
    fit(model)
    model.predict(data(), verbose=0)
    tf_movprune.strip_pruning(model)
    checkpoint = tf.train.Checkpoint(model=model)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(path)]
    variables = [name for name in names if name.endswith("VARIABLE_VALUE")]
    assert len(variables) == len(model.weights) + 1, variables  # and the checkpoint's counter


# ---- devices and precision

X = np.random.RandomState(0).standard_normal([64, 8]).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def schedule():
    return tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)


def pruned_classifier(score_optimizer=None, **kwargs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Dense(16, "relu", input_shape=(8,), name="hidden"), keras.layers.Dense(2)]
    )
    start = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(1e-2))
    pruned = tf_movprune.prune_low_movement(model, schedule(), start)
    pruned.compile(
        tf_movprune.create_optimizer(1e-2, 8, 2, score_optimizer=score_optimizer),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **kwargs,
    )
    return pruned


def fit_classifier(model, **kwargs):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    return model.fit(data, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()], **kwargs)


@pytest.mark.parametrize("score_optimizer", [None, keras.optimizers.SGD(1.0)])
def test_mirrored_variables(score_optimizer):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = pruned_classifier(score_optimizer)
    fit_classifier(mirrored)
    plain = pruned_classifier(score_optimizer)
    fit_classifier(plain)
    assert tf_movprune.summarize_sparsity(mirrored).sparsity == 0.75
    for expected, received in zip(plain.get_weights(), mirrored.get_weights()):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


def test_skipped_steps_of_loss_scaling_keep_the_rates_together():
    model = pruned_classifier(keras.optimizers.SGD(1.0))
    inner = model.optimizer
    optimizer = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=8.0)
    variables = model.trainable_variables
    optimizer.build(variables)
    for step in range(4):
        value = np.inf if step < 3 else 1.0
        optimizer.apply_gradients([(tf.fill(v.shape, value), v) for v in variables])
    assert int(inner.iterations) == int(inner.score_optimizer.iterations) == 4
    np.testing.assert_allclose(
        inner.score_optimizer.learning_rate / 1.0, inner.learning_rate / 1e-2
    )


def unpruned_classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Dense(32, "tanh", input_shape=(8,), name="first"),
            keras.layers.Dense(32, "tanh", name="second"),
            keras.layers.Dense(2, dtype="float32", name="logits"),
        ]
    )


@functools.cache
def masks_of_training(policy, jit_compile):
    """Masks after a short run; also checks what is in float32 under every policy."""
    keras.utils.set_random_seed(0)
    with precision(policy):
        model = unpruned_classifier()
        recipe = tf_movprune.ShortRun(40, 0.75)
        model = tf_movprune.prune_low_movement(model, recipe.schedule, recipe.method)
        optimizer = recipe.create_optimizer(1e-2)
        if policy == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=jit_compile)
        fit_classifier(model, epochs=5)
    assert model(X).dtype == tf.float32
    layers = wrappers(model)
    assert [layer.kernels[0].scores.dtype for layer in layers] == [tf.float32] * 2
    return [mask_of(layer) for layer in layers]


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_half_precision_keeps_the_masks_of_float32(policy, jit_compile):
    of_both = (masks_of_training(name, jit_compile) for name in ("float32", policy))
    for full, half in zip(*of_both):
        assert half.sum() == full.sum() == full.size // 4
        shared = (full & half).sum() / full.sum()
        assert shared > 0.8  # a quarter by chance
