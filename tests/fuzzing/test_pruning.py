"""Random networks that are pruned in random ways keep all promises, or are refused by name."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from fuzzing.cases import STEPS, Expected, cases
from fuzzing.networks import BLOCKS, CLASSES
from fuzzing.profiles import each_of
from shells import kernels
from tensorflow_model_optimization.sparsity import keras as tfmot

import tf_movprune
from tf_movprune.core.masked_kernel import masked_parts

SCHEDULES = {cls.__name__: cls for cls in (tfmot.ConstantSparsity, tfmot.PolynomialDecay)}
TARGETS = np.random.RandomState(0).standard_normal([2, CLASSES]).astype("float32")


def check(case, keras, folder):
    """Asserts all promises for a case. Returns false if pruning refuses it."""
    model, x = case.network.build(keras), case.network.inputs(seed=9)
    before = values(model.weights)
    weights = list(model.weights)
    try:
        pruned = case.prune(model)
    except (TypeError, ValueError):
        assert_equal(model.weights, before)
        return False
    assert_equal(weights, before)
    train(case, keras, pruned)
    outputs = np.array(pruned(x))
    others = reload(case, keras, pruned, folder)
    assert_equal([others(x)], [outputs])

    parts = masked_parts(kernels(pruned))
    masks = {id(weight): mask_of(masked_by) for weight, masked_by in parts}
    masked = {id(part.weight) for kernel in kernels(pruned) for part in kernel.parts}
    before = {id(weight): np.array(weight) for weight in weights}
    plain = tf_movprune.strip_pruning(pruned)
    assert [id(weight) for weight in plain.weights] == [id(weight) for weight in weights]
    if not (case.one_method.has_noise and case.network.policy != "float32"):
        assert_equal([plain(x)], [outputs])
    for weight in weights:
        value, variable = np.array(weight), id(getattr(weight, "_value", weight))
        if variable in masks:
            is_kept = (before[id(weight)] != 0) & masks[variable]
            np.testing.assert_array_equal(value != 0, is_kept)
        elif variable not in masked:
            assert_equal([value], [before[id(weight)]])
    compress(case, plain, tf_movprune.strip_pruning(others), x, folder)
    if case.exported_as == "tflite":
        tf_movprune.export_tflite(plain, folder / "plain.tflite")
    elif case.exported_as == "saved_model":
        tf_movprune.export_saved_model(plain, folder / "plain")
    return True


def values(weights):
    return [np.array(weight) for weight in weights]


def assert_equal(arrays, others):
    for one, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(np.array(one), other)


def mask_of(masked_by):
    """The mask of a weight: true where all that masks it keeps it."""
    masks = [
        part.expand(tf.convert_to_tensor(kernel.mask), kernel.block_size)
        for kernel, part in masked_by
    ]
    return np.all(np.broadcast_arrays(*masks), axis=0)


def train(case, keras, pruned):
    """Takes some steps, and asserts that masks are those of the paper at each."""
    expected, optimizer = Expected(pruned), keras.optimizers.SGD(0.1)
    if case.trained_by == "fit":
        pruned.compile(optimizer, "mse", run_eagerly=True)
        fit(case, keras, pruned, expected)
    else:
        for step in range(STEPS):
            expected.refresh(step)
            tf_movprune.update_masks(pruned, step)
            expected.check()
            take_step(pruned, optimizer, case.network.inputs(step))
        expected.refresh(STEPS, force=True)
        tf_movprune.update_masks(pruned, STEPS, force=True)
    expected.check()


def take_step(pruned, optimizer, x):
    with tf.GradientTape() as tape:
        outputs = tf.cast(pruned(x, training=True), tf.float32)
        loss = tf.reduce_mean((outputs - TARGETS) ** 2) + sum(pruned.losses)
    variables = pruned.trainable_variables
    gradients = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
    optimizer.apply_gradients([p for p in zip(gradients, variables) if p[0] is not None])


def fit(case, keras, pruned, expected):
    class Expecting(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            expected.refresh(batch)

        def on_train_batch_end(self, batch, logs=None):
            expected.check()

        def on_train_end(self, logs=None):
            expected.refresh(STEPS, force=True)

    x = np.concatenate([case.network.inputs(step) for step in range(STEPS)])
    callbacks = [Expecting(), tf_movprune.UpdatePruningStep()]
    y = np.concatenate([TARGETS] * STEPS)
    pruned.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)


def reload(case, keras, pruned, folder):
    """A pruned model saves, and loads as the same one into another or a new one."""
    if case.saved_as == "whole":
        pruned.save(folder / "pruned.keras")
        with tf_movprune.prune_scope():
            return keras.models.load_model(folder / "pruned.keras", custom_objects=SCHEDULES)
    loaded = case.prune(case.network.build(keras, seed=1))
    path = str(folder / "pruned.weights.h5")
    if case.saved_as == "weights" or (case.network.has_lists and keras.__version__ >= "3"):
        pruned.save_weights(path)
        loaded.load_weights(path)
    else:
        path = tf.train.Checkpoint(model=pruned).write(path)
        restored = tf.train.Checkpoint(model=loaded).read(path)
        restored.assert_existing_objects_matched().expect_partial()  # of an optimizer, if compiled
    return loaded


def compress(case, plain, other, x, folder):
    """A stripped model in a compressed file has the same zeros, and without loss the same bits."""
    path = folder / "plain.movprune"
    tf_movprune.export_compressed(plain, path, quantization=case.quantization)
    for weight in other.weights:
        weight.assign(tf.ones_like(tf.convert_to_tensor(weight)))
    tf_movprune.load_compressed(path, other)
    if case.quantization is None:
        assert_equal([other(x)], [plain(x)])
    for weight, found in zip(values(plain.weights), values(other.weights), strict=True):
        assert not found[weight == 0].any()
        step = np.abs(weight).max(initial=0) / 127 if case.quantization == "int8" else 2**-24
        lossless = case.quantization is None
        rtol, atol = (0, 0) if lossless else (2**-11, 0.51 * step)
        np.testing.assert_allclose(found, weight, rtol, atol)


def fuzz(keras, folder, count, *, is_quick):
    """Checks some cases. Returns how often each was refused, and what was in the others."""
    seen = collections.Counter()

    @each_of(cases(), count, is_quick=is_quick)
    def keep_promises(case):
        try:
            is_taken = check(case, keras, folder)
        finally:
            keras.backend.clear_session()
        seen["refused"] += not is_taken
        seen.update(case.contents if is_taken else [])
        seen["all"] += 1

    print({key: n for key, n in sorted(seen.items())})
    assert seen["all"] >= count and seen["refused"] <= 0.1 * seen["all"]
    return seen


def test_some_networks(keras, tmp_path):
    fuzz(keras, tmp_path, 32, is_quick=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_networks(keras, tmp_path):
    seen = fuzz(keras, tmp_path, 500, is_quick=False)
    blocks = {kind for kinds in BLOCKS.values() for kind in kinds}
    assert not (EVERYTHING | blocks | BLOCKS.keys()) - seen.keys()


EVERYTHING = {
    *("sequential", "functional", "nested", "subclassed"),
    *("plain", "shared", "residual", "branches"),
    *("float32", "mixed_bfloat16", "mixed_float16"),
    *("weights", "blocks", "heads", "neurons", "patterns True", "patterns False"),
    *("HardMovement", "SoftMovement", "Magnitude", "L0", "scope local", "scope global"),
    *("target True", "target False", "CubicSparsity", "CubicThreshold", "NoneType"),
    *("ConstantSparsity", "PolynomialDecay", "loop", "fit"),
    *("saved as weights", "saved as checkpoint", "saved as whole"),
    *("quantization None", "quantization int8", "quantization float16"),
    *("export None", "export saved_model", "export tflite"),
}
