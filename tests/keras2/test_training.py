"""Training across calls of fit, devices, skipped steps and frozen layers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from modes import precision

import tf_movprune

X = np.random.RandomState(0).standard_normal([64, 8]).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def schedule():
    return tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=6)


def pruned_model(score_optimizer=None, **kwargs):
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


def fit(model, **kwargs):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    return model.fit(data, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()], **kwargs)


@pytest.mark.parametrize("score_optimizer", [None, keras.optimizers.SGD(1.0)])
def test_mirrored_variables(score_optimizer):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = pruned_model(score_optimizer)
    fit(mirrored)
    plain = pruned_model(score_optimizer)
    fit(plain)
    assert tf_movprune.summarize_sparsity(mirrored).sparsity == 0.75
    for expected, received in zip(plain.get_weights(), mirrored.get_weights()):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


def test_frozen_layers_raise_before_training():
    model = pruned_model()
    model.get_layer("prune_low_movement_hidden").trainable = False
    model.compile("sgd", "mse")  # Keras trains what was trainable when it compiled
    with pytest.raises(ValueError, match=r"hidden is frozen.*Unfreeze.*Magnitude"):
        fit(model)


def test_fitting_again_without_the_callback_raises_without_compiling():
    model = pruned_model()
    fit(model)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(X, Y, verbose=0)


def test_fitting_again_with_the_callback_does_not_trace_again():
    model = pruned_model()
    fit(model)
    traces = []
    original = model.train_step
    model.train_step = lambda data: traces.append(1) or original(data)
    model.optimizer.iterations.assign(0)
    fit(model)
    assert not traces


def test_a_refused_run_leaves_the_model_unbound():
    model = pruned_model()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    with pytest.raises(ValueError, match="ends at step 6, but this run has 2 steps"):
        model.fit(data, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        model.fit(data, verbose=0)


def test_a_checkpoint_of_the_last_epoch_holds_the_target(tmp_path):
    model = pruned_model()
    checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / "w.h5"), save_weights_only=True)
    data = tf.data.Dataset.from_tensor_slices((X[:48], Y[:48])).batch(8)
    history = model.fit(
        data, verbose=0, callbacks=[tf_movprune.UpdatePruningStep(), checkpoint]
    ).history
    assert history["sparsity"] == [0.75]
    loaded = pruned_model()
    loaded.load_weights(tmp_path / "w.h5")
    assert tf_movprune.summarize_sparsity(loaded).sparsity == 0.75


def test_skipped_steps_of_loss_scaling_keep_the_rates_together():
    model = pruned_model(keras.optimizers.SGD(1.0))
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


def _classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Dense(32, "tanh", input_shape=(8,), name="first"),
            keras.layers.Dense(32, "tanh", name="second"),
            keras.layers.Dense(2, dtype="float32", name="logits"),
        ]
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_half_precision_keeps_the_masks_of_float32(policy, jit_compile):
    kept = {}
    for name in ("float32", policy):
        with precision(name):
            model = _classifier()
            recipe = tf_movprune.ShortRun(40, 0.75)
            model = tf_movprune.prune_low_movement(model, recipe.schedule, recipe.method)
            optimizer = recipe.create_optimizer(1e-2)
            if name == "mixed_float16":
                optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer, loss, jit_compile=jit_compile)
            fit(model, epochs=5)
        assert model(X).dtype == tf.float32
        layers = list(tf_movprune.pruned_layers(model).values())
        assert [layer.scores[0].dtype for layer in layers] == [tf.float32] * 2
        kept[name] = [layer.masks[0].numpy() for layer in layers]
    for full, half in zip(*kept.values()):
        assert half.sum() == full.sum() == full.size // 4
        shared = (full & half).sum() / full.sum()
        assert shared > 0.8  # a quarter by chance


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rising_sparsity_does_not_trace_again(jit_compile):
    model = pruned_model(jit_compile=jit_compile)
    traces, sparsities = [], []

    def note(batch, logs):
        traces.append(model.train_function.function.experimental_get_tracing_count())
        sparsities.append(float(logs["sparsity"]))

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    callbacks = [tf_movprune.UpdatePruningStep(), watch]
    model.fit(data, epochs=2, verbose=0, callbacks=callbacks)
    assert len(set(sparsities)) > 4
    assert len(traces) == 16 and len(set(traces)) == 1  # all in the first step
