"""Training sparse models of either Keras with exactly the zeros that they have."""

import contextlib
import functools
import warnings

import numpy as np
import pytest
import small_models
import tensorflow as tf
from keras_hub_families import backbone
from shells import backup, gradients, interrupting, keras_of, kernels, refresh, sparsities
from small_models import (
    RAMP,
    START,
    X,
    Y,
    attentive,
    begin_fit,
    convolutional,
    fit,
    mlp,
    scaled,
    subclassed,
)
from test_units import SEQUENCES
from test_units import attentive as with_heads
from transformer_families import make
from unit_masks import outputs_of

import tf_movprune
from tf_movprune import HEADS, NEURONS, CubicSparsity, HardMovement, KeepZeros, Magnitude


def keep(model, method=None, **kwargs):
    return tf_movprune.prune_low_movement(model, method=method or KeepZeros(), **kwargs)


def pruned_before(model, share=0.75, **kwargs):
    """A stripped model, which another method pruned."""
    ramp = CubicSparsity(share, begin_step=0, end_step=1)
    pruned = tf_movprune.prune_low_movement(model, ramp, Magnitude(), **kwargs)
    refresh(pruned, 1)
    return tf_movprune.strip_pruning(pruned)


def values(model, part=""):
    """The weights of a model that have something in their name."""
    weights = [weight for weight in model.weights if part in weight.name]
    return [np.array(tf.convert_to_tensor(weight)) for weight in weights]


def assert_same_zeros(model, before):
    """Asserts that the zeros of kernels are where they were, though the other weights trained."""
    pairs = zip(values(model, "kernel"), before, strict=True)
    sparse = [(value, old) for value, old in pairs if np.any(old == 0)]
    assert sparse
    for value, old in sparse:
        np.testing.assert_array_equal(value == 0, old == 0)
        assert np.any(value != old) or not np.any(old)


@contextlib.contextmanager
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# ---- zeros stay zero


OPTIMIZERS = {
    "adam": lambda keras, model: keras.optimizers.Adam(0.05),
    "adamw": lambda keras, model: tf_movprune.create_optimizer(
        0.05, 8, 2, weight_decay=0.1, model=model
    ),
    "momentum": lambda keras, model: keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.1),
    "lamb": lambda keras, model: keras.optimizers.Lamb(0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_keeps_exactly_the_zeros(keras, name):
    if name == "lamb" and keras.__name__ == "tf_keras":
        pytest.skip("tf_keras has no such optimizer")
    regularizer = keras.regularizers.L1L2(1e-3, 1e-3)
    model = pruned_before(mlp(keras, kernel_regularizer=regularizer))
    before, outputs = values(model, "kernel"), np.array(model(X))
    with no_warnings():
        pruned = keep(model)
        assert sparsities(pruned) == [0.75, 0.75]
        np.testing.assert_array_equal(pruned(X), outputs)
        history = fit(keras, pruned, OPTIMIZERS[name](keras, pruned)).history
    assert history["sparsity"] == [0.75, 0.75]
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.75
    masked = np.array(pruned(X))
    with no_warnings():
        stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), masked)
    assert_same_zeros(stripped, before)


@pytest.mark.parametrize("make", [attentive, convolutional, subclassed])
def test_models_of_other_kinds(keras, make):
    model = pruned_before(make(keras), share=0.5)
    before = values(model, "kernel")
    pruned = keep(model)
    fit(keras, pruned, keras.optimizers.Adam(0.05), run_eagerly=make is subclassed)
    assert_same_zeros(tf_movprune.strip_pruning(pruned), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_low_precision(keras, policy, jit_compile):
    model = pruned_before(mlp(keras, dtype=policy))
    first = model.layers[0].kernel
    first.assign(tf.where(np.arange(16) < 4, first * 1e-9, first))  # which float16 takes for zero
    before = values(model, "kernel")
    pruned = keep(model)
    optimizer = keras.optimizers.SGD(0.5, momentum=0.5)  # 0.999 of Adam is 1 in bfloat16
    if keras.__name__ == "tf_keras" and policy == "mixed_float16":
        optimizer = scaled(keras, optimizer)
    fit(keras, pruned, optimizer, jit_compile=jit_compile)
    assert_same_zeros(tf_movprune.strip_pruning(pruned), before)


def test_masks_are_right_as_soon_as_the_model_is_pruned(keras):
    model = pruned_before(mlp(keras))
    before = values(model, "kernel")
    pruned = keep(model)
    for kernel, old in zip(kernels(pruned), before):
        np.testing.assert_array_equal(kernel.mask, old != 0)
        found = gradients(pruned, lambda model: tf.reduce_sum(model(X) ** 2))
        gradient = np.array(found[id(kernel.parts[0].weight)])
        assert np.any(gradient) and not np.any(gradient[old == 0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.Adam(0.1), loss)
    refresh(pruned, 0)
    pruned.train_on_batch(X, Y)
    assert_same_zeros(tf_movprune.strip_pruning(pruned), before)


def test_a_loop_of_ones_own(keras):
    model = pruned_before(mlp(keras))
    before = values(model, "kernel")
    pruned = keep(model)
    optimizer = keras.optimizers.Adam(0.1)

    @tf.function
    def step(x, y):
        tf_movprune.update_masks(pruned, optimizer.iterations)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((pruned(x, training=True) - y) ** 2)
        variables = pruned.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    optimizer.build(pruned.trainable_variables)
    for _ in range(3):
        step(X, X[:, :3])
    assert float(tf_movprune.update_masks(pruned, optimizer.iterations, force=True)) == 0.75
    assert_same_zeros(tf_movprune.strip_pruning(pruned), before)


def without_a_weight(pruned):
    """Lets a weight that is kept become zero, and returns its kernel and place."""
    kernel = kernels(pruned)[0]
    place = tuple(np.argwhere(kernel.mask.numpy())[0])
    weight = kernel.parts[0].weight
    value = np.array(tf.convert_to_tensor(weight))
    value[place] = 0
    weight.assign(value)
    return kernel, place


def test_a_weight_that_becomes_zero_is_trained_on(keras):
    pruned = keep(pruned_before(mlp(keras), share=0.125))
    fit(keras, pruned, epochs=1)
    kernel, place = without_a_weight(pruned)
    tf_movprune.update_masks(pruned, 4, force=True)
    with no_warnings():
        fit(keras, pruned, epochs=1)
    assert kernel.mask.numpy()[place] and kernel.parts[0].weight.numpy()[place] != 0
    assert sparsities(pruned) == [0.125, 0.125]


def test_distillation(keras):
    teacher, model = mlp(keras), pruned_before(mlp(keras))
    before = values(model, "kernel")
    pruned = keep(model)
    distiller = tf_movprune.Distiller(pruned, teacher)
    distiller.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    distiller.fit(X, Y, batch_size=8, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    assert_same_zeros(tf_movprune.strip_pruning(distiller), before)


# ---- what is kept


def test_matrices_without_zeros_and_of_zeros_alone(keras):
    model = mlp(keras)
    model.layers[1].kernel.assign(tf.zeros([16, 16]))
    pruned = keep(model)
    assert sparsities(pruned) == [0.0, 1.0]
    with no_warnings():
        fit(keras, pruned, keras.optimizers.Adam(0.05))
        stripped = tf_movprune.strip_pruning(pruned)
    assert np.count_nonzero(stripped.layers[0].kernel) == 128
    assert not np.any(stripped.layers[1].kernel)


def test_patterns_give_other_layers_other_methods(keras):
    model = pruned_before(mlp(keras), share=0.5)
    first = np.array(tf.convert_to_tensor(model.layers[0].kernel))
    methods = {"first": KeepZeros(), "*": HardMovement(START)}
    pruned = tf_movprune.prune_low_movement(model, RAMP, methods)
    assert sparsities(pruned) == [0.5, 0.0]
    fit(keras, pruned)
    assert sparsities(pruned) == [0.5, 0.75]
    groups = tf_movprune.summarize_sparsity(pruned).groups
    assert {name: group.sparsity for name, group in groups.items()} == {
        "KeepZeros": 0.5,
        "HardMovement to sparsity 0.75": 0.75,
    }
    with no_warnings():
        stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(np.array(stripped.layers[0].kernel) == 0, first == 0)


def test_layers_and_lists(keras):
    def layer(name):
        dense = keras.layers.Dense(4, name=name)
        dense.build([None, 8])
        return dense

    sparse, dense = pruned_before(layer("sparse")), layer("dense")
    assert sparsities(keep(sparse)) == [0.75]
    with pytest.raises(ValueError, match=r"Nothing is zero in .*dense\.kernel \(8, 4\)"):
        keep(dense)
    with pytest.raises(ValueError, match="Nothing is zero in"):
        keep([dense, layer("other")])
    sparse = pruned_before(layer("sparse"))
    assert [sparsities(layer) for layer in keep([sparse, dense])] == [[0.75], [0.0]]


BY_PART = {"attention*": HEADS, "*": NEURONS}
GRANULARITIES = {
    "blocks": (mlp, (4, 2), X),
    "heads and neurons": (with_heads, BY_PART, SEQUENCES),
}


@pytest.mark.parametrize("kind", GRANULARITIES)
def test_what_was_pruned_as_one_is_kept_as_one(keras, kind):
    make, block_size, inputs = GRANULARITIES[kind]
    model = pruned_before(make(keras), 0.5, block_size=block_size)
    before, biases = values(model, "kernel"), values(model, "bias")
    with no_warnings():
        pruned = keep(model, block_size=block_size)
        assert set(sparsities(pruned)) == {0.5}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        pruned.compile(keras.optimizers.Adam(0.05), loss, jit_compile=False)
        labels = np.arange(len(inputs)) % 3
        callbacks = [tf_movprune.UpdatePruningStep()]
        pruned.fit(inputs, labels, batch_size=8, verbose=0, callbacks=callbacks)
        stripped = tf_movprune.strip_pruning(pruned)
    assert_same_zeros(stripped, before)
    if kind != "blocks":
        for value, old in zip(values(stripped, "bias"), biases, strict=True):
            np.testing.assert_array_equal(value[old == 0], 0)
        size = stripped.count_params()
        assert tf_movprune.compact(stripped).count_params() < 0.7 * size


def test_single_weights_keep_heads_and_neurons_for_compaction(keras):
    model = pruned_before(with_heads(keras), 0.5, block_size=BY_PART)
    before, size = values(model, "kernel"), model.count_params()
    pruned = keep(model)
    pruned.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    callbacks = [tf_movprune.UpdatePruningStep()]
    pruned.fit(SEQUENCES, SEQUENCES[:, 0, :3], verbose=0, callbacks=callbacks)
    stripped = tf_movprune.strip_pruning(pruned)
    assert_same_zeros(stripped, before)
    expected = outputs_of(stripped, SEQUENCES)
    smaller = tf_movprune.compact(stripped)
    assert smaller.count_params() < 0.7 * size
    np.testing.assert_allclose(outputs_of(smaller, SEQUENCES), expected, atol=1e-5)


def transformer(keras):
    if keras.__name__ == "keras":
        return backbone("Bert"), {"*_attention_layer.*": HEADS, "*": NEURONS}
    pytest.importorskip("transformers")
    return make("Bert"), {"*.attention.*": HEADS, "*": NEURONS}


@pytest.mark.parametrize("granularity", ["weights", "units"])
def test_transformers(keras, granularity):
    model, by_part = transformer(keras)
    kwargs = {"block_size": by_part} if granularity == "units" else {}
    model = pruned_before(model, 0.5, **kwargs)
    before = values(model, "kernel")
    inputs = {"keras": lambda: model.input, "tf_keras": lambda: model.dummy_inputs}
    inputs = inputs[keras.__name__]()
    if keras.__name__ == "keras":
        inputs = {name: np.ones([2, 4], "int32") for name in inputs}
    outputs = outputs_of(model, inputs)
    with no_warnings():
        pruned = keep(model, **kwargs)
        assert set(sparsities(pruned)) == {0.5}
        for found, expected in zip(outputs_of(pruned, inputs), outputs):
            np.testing.assert_array_equal(found, expected)
        optimizer = keras.optimizers.Adam(0.01)
        refresh(pruned, 0)
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(pruned(inputs, training=True))
            loss = tf.add_n([tf.reduce_sum(tf.sin(3.0 * x)) for x in outputs if x is not None])
        variables = pruned.trainable_variables
        found = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
        pairs = [(g, v) for g, v in zip(found, variables) if g is not None]
        optimizer.apply_gradients(pairs)
        stripped = tf_movprune.strip_pruning(pruned)
    assert_same_zeros(stripped, before)


# ---- callbacks


def test_once_sparse_sees_all_epochs(keras):
    seen = []
    counting = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    with no_warnings():
        fit(keras, keep(pruned_before(mlp(keras))), callbacks=[tf_movprune.OnceSparse(counting)])
    assert seen == [0, 1]


def test_fit_says_what_is_kept(keras, capsys):
    pruned = keep(pruned_before(mlp(keras)))
    pruned.compile("sgd", "mse", run_eagerly=True)
    callbacks = [tf_movprune.UpdatePruningStep()]
    pruned.fit(X, X[:, :3], batch_size=8, callbacks=callbacks, verbose=2)
    line = "Pruning 384 weights in 2 matrices. Sparsity is fixed: 0.75."
    assert line in capsys.readouterr().out


# ---- files


def saved_and_loaded(keras, way, source, target, folder):
    """A model with the weights and masks of `source`, by way of a file."""
    if way == "weights":
        source.save_weights(folder / "model.weights.h5")
        target.load_weights(folder / "model.weights.h5")
    elif way == "checkpoint":
        path = tf.train.Checkpoint(model=source).save(str(folder / "checkpoint"))
        tf.train.Checkpoint(model=target).restore(path).assert_existing_objects_matched()
    else:
        source.save(folder / "pruned.keras")
        with tf_movprune.prune_scope():
            return keras.models.load_model(folder / "pruned.keras")
    return target


@pytest.mark.parametrize("way", ["weights", "checkpoint", "whole model"])
def test_loaded_masks_are_the_saved_ones(keras, way, tmp_path):
    source = keep(pruned_before(mlp(keras), share=0.125))
    target = keep(pruned_before(mlp(keras), share=0.5))
    fit(keras, source, epochs=1)
    _, place = without_a_weight(source)
    loaded = saved_and_loaded(keras, way, source, target, tmp_path)
    for kernel, expected in zip(kernels(loaded), kernels(source), strict=True):
        np.testing.assert_array_equal(kernel.mask, expected.mask)
        assert kernel.settings.key == expected.settings.key
        assert float(kernel.threshold) == float(expected.threshold) == 1.0
    assert kernels(loaded)[0].mask.numpy()[place]
    np.testing.assert_array_equal(loaded(X), source(X))
    zeros = [np.array(kernel.mask) for kernel in kernels(source)]
    with no_warnings():
        fit(keras, loaded, epochs=1)
    stripped = tf_movprune.strip_pruning(loaded)
    for layer, mask in zip(stripped.layers, zeros):
        np.testing.assert_array_equal(np.array(layer.kernel) != 0, mask)


def started(keras):
    keras.utils.set_random_seed(3)
    pruned = keep(pruned_before(mlp(keras)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.Adam(0.05), loss)
    return pruned


def train(pruned, callbacks=()):
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    pruned.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)


@functools.cache
def straight(name):
    pruned = started(keras_of(name))
    train(pruned)
    return values(pruned)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(keras, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(started(keras), [backup(keras, tmp_path), interrupting(keras)])
    resumed = started(keras)
    train(resumed, [backup(keras, tmp_path)])
    for value, expected in zip(values(resumed), straight(keras.__name__), strict=True):
        np.testing.assert_array_equal(value, expected)


# ---- mistakes


def test_a_model_in_which_nothing_is_zero(keras):
    model = mlp(keras)
    message = r"Nothing is zero in first\.kernel \(8, 16\), second\.kernel .*Load or assign sparse"
    before, names = values(model), [weight.name for weight in model.weights]
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            keep(model)
    assert not tf_movprune.pruned_layers(model)
    assert [weight.name for weight in model.weights] == names
    for value, old in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(value, old)
    with pytest.raises(ValueError, match=r"Nothing is zero in second\.kernel \(16, 16\):"):
        methods = {"second": KeepZeros(), "*": HardMovement(START)}
        tf_movprune.prune_low_movement(model, RAMP, methods)


@pytest.mark.parametrize("block_size", [(4, 2), NEURONS])
def test_zeros_that_coarser_masks_would_not_keep_are_refused(keras, block_size):
    model = pruned_before(mlp(keras), share=0.5, block_size=(4, 2))
    first = np.array(tf.convert_to_tensor(model.layers[0].kernel))
    first[np.nonzero(first)[0][0]] = 0  # a row of a block, and of others
    model.layers[0].kernel.assign(first)
    message = r"KeepZeros with block_size .* come back in training: [\d,]+ of first\.kernel \(8, 16"
    with pytest.raises(ValueError, match=message) as error:
        keep(model, block_size=block_size)
    assert ("second" in str(error.value)) == (block_size is NEURONS)
    assert not tf_movprune.pruned_layers(model)
    before = values(model, "kernel")
    pruned = keep(model, block_size={"second": block_size} if block_size == (4, 2) else (1, 1))
    fit(keras, pruned)
    assert_same_zeros(tf_movprune.strip_pruning(pruned), before)


def test_zeros_inside_heads_are_refused(keras):
    model = pruned_before(with_heads(keras), 0.25)
    message = r"block_size tf_movprune\.HEADS masks .* of attention\..*kernel .* block_size out"
    with pytest.raises(ValueError, match=message):
        keep(model, {"attention*": KeepZeros()}, block_size=HEADS)


def test_layers_that_have_no_weights_yet(keras):
    model = keras.Sequential([keras.layers.Dense(4, name="late"), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"example inputs.*model\(batch\)"):
        keep(model)
    if keras.__name__ == "tf_keras":
        with pytest.raises(ValueError, match=r"KeepZeros needs weights, and 'late' has none yet"):
            keep(model.layers[0])


def test_it_takes_no_schedule(keras):
    model = pruned_before(mlp(keras))
    with pytest.raises(ValueError, match="KeepZeros takes no schedule, got KeepZeros with Cubic"):
        tf_movprune.prune_low_movement(model, RAMP, KeepZeros())
    with pytest.raises(ValueError, match="reaches a given sparsity, but KeepZeros"):
        tf_movprune.ShortRun(100, method=KeepZeros())


def test_a_copy_without_the_weights_is_refused_in_training(keras):
    pruned = keep(pruned_before(mlp(keras)))
    with tf_movprune.prune_scope():
        copy = keras.models.clone_model(pruned)
    copy.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"masks of KeepZeros have no zeros: .* set_weights\(\)"):
        begin_fit(keras, copy)
    copy.set_weights(pruned.get_weights())
    assert sparsities(copy) == [0.75, 0.75]
    begin_fit(keras, copy)


def test_weights_that_are_assigned_after_pruning_are_named(keras):
    pruned = keep(pruned_before(mlp(keras)))
    weight = kernels(pruned)[1].parts[0].weight
    weight.assign(tf.reverse(weight, [0]))
    pruned.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"of second are zero where their masks") as caught:
        begin_fit(keras, pruned)
    assert caught[0].filename == small_models.__file__
