"""What pruning promises for models of either Keras."""

import functools
import warnings

import numpy as np
import pytest
import small_models
import tensorflow as tf
from shells import (
    gradients,
    keras_of,
    kernels,
    refresh,
    scores,
    sparsities,
    weights_by_name,
)
from small_models import (
    MODELS,
    RAMP,
    START,
    Block,
    X,
    begin_fit,
    fit,
    mlp,
    prune,
    scaled,
    subclassed,
)

import tf_movprune
from tf_movprune import L0, CubicSparsity, HardMovement, Magnitude, SoftMovement

# ---- what is pruned, and what comes back


@pytest.mark.parametrize(
    "kind, jit_compile",
    [
        pytest.param(
            kind, jit_compile, marks=pytest.mark.slow if jit_compile != (kind == "nested") else ()
        )
        for kind in MODELS
        for jit_compile in (False, True)
    ],
)
def test_training_ends_at_the_sparsity_and_stripping_changes_nothing(keras, kind, jit_compile):
    make, paths = MODELS[kind]
    model = make(keras)
    dense = np.array(model(X))
    names = [weight.name for weight in model.weights]
    pruned = prune(model)
    assert paths is None or list(tf_movprune.pruned_layers(pruned)) == paths
    np.testing.assert_array_equal(pruned(X), dense)
    history = fit(keras, pruned, jit_compile=jit_compile)
    expected = [np.floor(0.25 * kernel.size + 1e-6) for kernel in kernels(pruned)]
    assert [np.count_nonzero(kernel.mask) for kernel in kernels(pruned)] == expected
    assert history.history["sparsity"][-1] == pytest.approx(0.75, abs=0.02)
    report = tf_movprune.summarize_sparsity(pruned)
    assert report.remaining == sum(expected)
    masked = np.array(pruned(X))
    assert np.any(masked != dense)
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), masked)
    assert [weight.name for weight in stripped.weights] == names
    assert tf_movprune.summarize_sparsity(stripped).remaining <= report.remaining
    assert type(stripped) is type(model)


def test_nothing_of_the_training_stays_in_a_stripped_model(keras, tmp_path):
    """Checkpoints and files of a model that is changed in place would hold its optimizer."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.out = keras.layers.Dense(8), keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.first(x))

    model = Net()
    model(X)
    pruned = prune(model)
    fit(keras, pruned, keras.optimizers.Adam(0.1), run_eagerly=True)
    pruned.predict(X, verbose=0)
    stripped = tf_movprune.strip_pruning(pruned)
    path = tf.train.Checkpoint(model=stripped).save(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(path)]
    variables = [name for name in names if name.endswith("VARIABLE_VALUE")]
    assert len(variables) == len(stripped.weights) + 1, variables  # and the checkpoint's counter


METHODS = {  # beside those that test_trajectory.py compares with the paper
    "soft": SoftMovement(1.0, target=True),
    "L0": L0(final_lambda=1.0),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods(keras, method):
    schedule = None if method == "L0" else RAMP
    pruned = tf_movprune.prune_low_movement(mlp(keras), schedule, METHODS[method])
    before = scores(pruned)
    fit(keras, pruned)
    if method == "L0":
        assert all(0 <= sparsity < 1 for sparsity in sparsities(pruned))
    else:
        total = sum(kernel.size for kernel in kernels(pruned))
        kept = sum(np.count_nonzero(kernel.mask) for kernel in kernels(pruned))
        assert kept / total == pytest.approx(0.25, abs=0.02)
    for old, new in zip(before, scores(pruned), strict=True):
        assert np.any(old != new)
    masked = pruned(X)
    np.testing.assert_allclose(tf_movprune.strip_pruning(pruned)(X), masked, rtol=1e-6)


@pytest.mark.parametrize("multiplier", [1.0, 100.0])
def test_scores_get_the_gradient_of_the_paper(keras, multiplier):
    pruned = prune(mlp(keras), score_learning_rate_multiplier=multiplier)
    refresh(pruned, 6)
    kernel = kernels(pruned)[0]
    weight = kernel.parts[0].weight
    weights = np.array(weight)
    found = gradients(pruned, lambda model: tf.reduce_sum(model(X) ** 2))
    # Without a mask, dL/dW' is the gradient of the weight itself.
    plain = mlp(keras)
    plain.set_weights(tf_movprune.strip_pruning(pruned).get_weights())
    first = plain.layers[0]
    wrt = gradients(plain, lambda model: tf.reduce_sum(model(X) ** 2))
    upstream = wrt[id(getattr(first.kernel, "_value", first.kernel))]
    np.testing.assert_allclose(found[id(kernel.scores)], weights * upstream, rtol=1e-5, atol=1e-6)
    masked = np.where(kernel.mask, upstream, 0)
    np.testing.assert_allclose(found[id(weight)], masked, rtol=1e-5, atol=1e-6)


# ---- settings


def test_patterns_choose_schedules_methods_and_blocks(keras):
    half = CubicSparsity(0.5, 0, 6)
    pruned = tf_movprune.prune_low_movement(
        mlp(keras),
        {"first": half, "*": RAMP},
        {"first": Magnitude(), "*": HardMovement(START)},
        block_size={"second": (4, 2)},
    )
    refresh(pruned, 6)
    assert sparsities(pruned) == [0.5, 0.75]
    assert [kernel.size for kernel in kernels(pruned)] == [128, 32]
    assert len(tf_movprune.summarize_sparsity(pruned).groups) == 2


def test_patterns_take_what_the_default_leaves_out(keras):
    pruned = prune(mlp(keras), {"out": RAMP})
    assert list(tf_movprune.pruned_layers(pruned)) == ["out"]


def test_policies(keras):
    class Everything:
        def allow_pruning(self, layer):
            return True

        def ensure_model_supports_pruning(self, model):
            pass

    paths = list(tf_movprune.pruned_layers(prune(mlp(keras), pruning_policy=Everything())))
    assert paths == ["first", "second", "out"]


def test_layers_and_lists(keras):
    first, second = keras.layers.Dense(4, name="a"), keras.layers.Dense(4, name="b")
    for layer in (first, second):
        layer.build([None, 8])
    pruned = prune(first)
    (other,) = prune([second])
    for layer in (pruned, other):
        assert refresh(layer, 6) == 0.75
        assert layer(X).shape == (32, 4)
    assert tf_movprune.strip_pruning(pruned) is first
    assert np.count_nonzero(first.kernel) == 8


def test_a_layer_that_is_listed_twice_is_pruned_once(keras):
    dense, plain = keras.layers.Dense(4, name="dense"), keras.layers.Dropout(0.1)
    dense.build([None, 8])
    pruned = prune([dense, plain, dense])
    assert pruned[0] is pruned[2] and pruned[1] is plain
    assert refresh(pruned[0], 6) == 0.75
    assert [name for name, _ in weights_by_name(pruned[0])].count("movement_scores") == 1


def test_a_list_is_pruned_in_whole_or_not_at_all(keras):
    dense, bad = keras.layers.Dense(4, name="dense"), keras.layers.Dense(3, name="odd")
    for layer in (dense, bad):
        layer.build([None, 8])
    with pytest.raises(ValueError, match="odd") as held:  # with all that was made before it
        prune([dense, bad], block_size=(4, 4))
    assert [name for name, _ in weights_by_name(dense)] == ["kernel", "bias"]
    prune(dense)
    del held


@pytest.mark.parametrize("kind", ["model", "layer"])
def test_lists_of_what_holds_prunable_layers_are_refused(keras, kind):
    dense = keras.layers.Dense(4, name="dense")
    dense.build([None, 8])
    other = mlp(keras) if kind == "model" else Block(keras, name="block")
    inside = "first, second, out" if kind == "model" else r"up, down\.0"
    with pytest.raises(ValueError, match=rf"{other.name}' .* inside it: {inside}\. Give it to"):
        prune([dense, other])
    assert not tf_movprune.pruned_layers(dense)


@pytest.mark.parametrize("policy", ["all", Magnitude, object()])
@pytest.mark.parametrize("is_list", [False, True])
def test_what_is_no_policy_is_refused(keras, policy, is_list):
    model = mlp(keras)
    with pytest.raises(TypeError, match=r"pruning_policy must be an object .* got"):
        prune(model.layers if is_list else model, pruning_policy=policy)


def test_a_mode_that_a_graph_decides(keras):
    dense = keras.layers.Dense(4)
    dense.build([None, 8])
    pruned = tf_movprune.prune_low_movement(dense, None, L0())
    call = tf.function(lambda x, training: pruned(x, training=training))
    plain = np.array(pruned(X))
    np.testing.assert_allclose(call(X, tf.constant(False)), plain, rtol=1e-6)
    assert np.any(np.abs(call(X, tf.constant(True)) - plain) > 1e-3)


def test_recurrent_layers_by_pattern(keras):
    layers = [
        keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True), name="both"),
        keras.layers.GRU(4, return_sequences=True, name="gru"),
        keras.layers.SimpleRNN(4, name="rnn"),
    ]
    model = keras.Sequential([keras.Input([4, 2]), *layers, keras.layers.Dense(3, name="out")])
    x = X.reshape([32, 4, 2])
    dense = np.array(model(x))
    pruned = prune(model, {"both*": RAMP, "gru": RAMP, "rnn": RAMP}, Magnitude())
    assert refresh(pruned, 6) == 0.75 and sparsities(pruned) == [0.75] * 8
    masked = np.array(pruned(x))
    assert np.any(masked != dense)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(x), masked)


def test_kernels_that_layers_of_a_user_name(keras):
    class Bilinear(keras.layers.Layer):
        def build(self, shape):
            self.left = self.add_weight(name="left", shape=(shape[-1], 4))
            self.right = self.add_weight(name="right", shape=(4, 6))
            self.built = True

        def get_prunable_weights(self):
            return [self.right]

        def call(self, x):
            return tf.matmul(tf.matmul(x, self.left), self.right)

    model = keras.Sequential([keras.Input([8]), Bilinear(name="own"), keras.layers.Dense(2)])
    pruned = prune(model)
    refresh(pruned, 6)
    (weight,) = tf_movprune.summarize_sparsity(pruned).weights
    assert (weight.path, weight.remaining, weight.total) == ("own.right", 6, 24)
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


def test_a_subclassed_model_inside_a_graph(keras):
    x, inner = keras.Input([8]), subclassed(keras)
    model = keras.Model(x, keras.layers.Dense(3, name="top")(keras.layers.ReLU()(inner(x))))
    pruned = prune(model)
    paths = list(tf_movprune.pruned_layers(pruned))
    assert paths[0] == f"{inner.name}.head" and f"{inner.name}.blocks.1.up" in paths
    assert refresh(pruned, 6) == pytest.approx(0.75, abs=0.01)
    masked = pruned(X)
    np.testing.assert_array_equal(masked, tf_movprune.strip_pruning(pruned)(X))


def test_stripping_says_what_is_wrong_with_masks(keras):
    with pytest.warns(UserWarning, match=r"never refreshed.*UpdatePruningStep"):
        tf_movprune.strip_pruning(prune(mlp(keras)))
    ramps = {"first": RAMP, "second": CubicSparsity(0.9, 0, 10)}
    pruned = prune(mlp(keras), ramps)
    refresh(pruned, 5)
    message = (
        r"Sparsity is 0\.7891 in masks whose CubicSparsity says 0\.9000 at its end_step 10"
        r".*update_masks\(model, step, force=True\)"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        tf_movprune.strip_pruning(pruned)
    assert {warning.filename for warning in caught} == {__file__}
    pruned = prune(mlp(keras), ramps)
    refresh(pruned, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.strip_pruning(pruned)


def after_a_short_run(name, policy, jit_compile):
    keras = keras_of(name)
    keras.utils.set_random_seed(0)
    recipe = tf_movprune.ShortRun(40, 0.75)
    pruned = prune(mlp(keras, dtype=policy), recipe.schedule, recipe.method)
    optimizer = recipe.create_optimizer(1e-2, model=pruned)
    if name == "tf_keras" and policy == "mixed_float16":  # Keras 3 does so by itself
        optimizer = scaled(keras, optimizer)
    fit(keras, pruned, optimizer, epochs=10, jit_compile=jit_compile)
    return pruned


@functools.cache
def masks_of_float32(name, jit_compile):
    return [kernel.mask.numpy() for kernel in kernels(after_a_short_run(name, None, jit_compile))]


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mixed_precision_keeps_the_masks_of_float32(keras, policy, jit_compile):
    pruned = after_a_short_run(keras.__name__, policy, jit_compile)
    assert sparsities(pruned) == [0.75, 0.75]
    assert {kernel.scores.dtype for kernel in kernels(pruned)} == {tf.float32}
    for kernel, full in zip(kernels(pruned), masks_of_float32(keras.__name__, jit_compile)):
        assert np.sum(full & kernel.mask.numpy()) / np.sum(full) > 0.8  # a quarter by chance
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


def test_mistakes_are_named_before_training(keras):
    with pytest.raises(ValueError, match="pruned already"):
        prune(prune(mlp(keras)))
    with pytest.raises(ValueError, match="no pruned layers"):
        tf_movprune.strip_pruning(mlp(keras))
    with pytest.raises(ValueError, match=r"Nothing to prune.*output layer"):
        prune(keras.Sequential([keras.Input([8]), keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match=r"'encoder\*' .*matches no prunable.*first, second"):
        prune(mlp(keras), {"encoder*": RAMP})
    with pytest.raises(ValueError, match=r"block_size \(3, 1\) must divide.*first.kernel"):
        prune(mlp(keras), block_size=(3, 1))
    with pytest.raises(TypeError, match="pruning_schedule must be"):
        prune(mlp(keras), 0.9)
    pruned = prune(mlp(keras))
    with pytest.raises(ValueError, match="schedule ends at step 6, but this run has 4 steps"):
        fit(keras, pruned, epochs=1)
    pruned.trainable = False
    with pytest.raises(ValueError, match=r"first is frozen"):
        fit(keras, pruned)


@pytest.mark.parametrize("kind", ["sequential", "subclassed", "without layers"])
def test_models_that_are_not_built(keras, kind, recwarn):
    class Net(keras.Model):
        def __init__(self, layers):
            super().__init__(name="net")
            self.all_layers = layers

    layers = [keras.layers.Dense(4), keras.layers.Dense(3)]
    makers = {
        "sequential": lambda: keras.Sequential(layers, name="net"),
        "subclassed": lambda: Net(layers),
        "without layers": lambda: Net([]),
    }
    model = makers[kind]()
    if keras.__name__ == "tf_keras" and kind != "without layers":
        return prune(model)  # tf_keras's layers are wrapped before they are built
    with pytest.raises(ValueError, match=r"'net'.* is not built.*model\(batch\)\.$") as raised:
        prune(model)
    assert "get_prunable_weights" not in str(raised.value) and not list(recwarn)


def test_weights_that_are_assigned_after_pruning_are_named(keras):
    pruned = prune(mlp(keras))
    weight = kernels(pruned)[1].parts[0].weight
    weight.assign(tf.random.normal(weight.shape))
    message = "scores of second start from the magnitudes of other"
    pruned.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=message) as caught:
        begin_fit(keras, pruned)
    assert caught[0].filename == small_models.__file__


def test_a_failed_pruning_leaves_the_model_as_it_was(keras):
    model = mlp(keras)
    before, names = np.array(model(X)), [w.name for w in model.weights]
    held = []  # with all that was made before it
    for _ in range(2):
        with pytest.raises(ValueError, match="block_size") as error:
            prune(model, block_size={"second": (5, 1)})
        held.append(error)
    np.testing.assert_array_equal(model(X), before)
    assert [w.name for w in model.weights] == names
    assert not tf_movprune.pruned_layers(model)
    prune(model)
    del held


def test_what_is_no_model_is_refused():
    for function in (tf_movprune.prune_low_movement, tf_movprune.strip_pruning):
        with pytest.raises(TypeError, match=r"Expected a model or layer of Keras 3 or tf_keras"):
            function("model")


# ---- files


@pytest.mark.parametrize("way", ["weights", "checkpoint"])
def test_weights_and_masks_come_back(keras, way, tmp_path):
    source, target = prune(mlp(keras)), prune(mlp(keras))
    refresh(source, 6)
    if way == "weights":
        source.save_weights(tmp_path / "model.weights.h5")
        target.load_weights(tmp_path / "model.weights.h5")
    else:
        path = tf.train.Checkpoint(model=source).save(str(tmp_path / "checkpoint"))
        tf.train.Checkpoint(model=target).restore(path).assert_existing_objects_matched()
    assert sparsities(target) == [0.75, 0.75]
    np.testing.assert_array_equal(target(X), source(X))
    for a, b in zip(scores(source), scores(target)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["sequential", "convolutional"])
def test_files_of_whole_models(keras, kind, tmp_path):
    model = MODELS[kind][0](keras)
    source = prune(model, {"*": RAMP}, {"*": SoftMovement(1.0, target=True)})
    source.compile(tf_movprune.create_optimizer(0.01, 8, 2, model=source), "mse")
    source.optimizer.build(source.trainable_variables)
    source.optimizer.iterations.assign(8)
    refresh(source, 6)
    source.save(tmp_path / "pruned.keras")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert list(tf_movprune.pruned_layers(loaded)) == list(tf_movprune.pruned_layers(source))
    np.testing.assert_array_equal(loaded(X), source(X))
    assert sparsities(loaded) == sparsities(source)
    assert kernels(loaded)[0].settings.key == kernels(source)[0].settings.key
    assert int(loaded.optimizer.iterations) == 8
    masked = source(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(loaded)(X), masked)
    stripped = tf_movprune.strip_pruning(source)
    stripped.save(tmp_path / "plain.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "plain.keras")(X), masked)
