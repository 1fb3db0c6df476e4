"""What pruning promises for models of either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from accumulating import accumulating_sgd
from shells import (
    KERASES,
    gradients,
    keras_of,
    kernels,
    refresh,
    scores,
    sparsities,
    weights_by_name,
)

import tf_movprune
from tf_movprune import L0, CubicSparsity, HardMovement, Magnitude, SoftMovement

X = np.random.RandomState(0).standard_normal([32, 8]).astype("float32")
Y = np.random.RandomState(1).randint(0, 3, 32)
RAMP = CubicSparsity(0.75, begin_step=0, end_step=6)
START = tf_movprune.MagnitudeScores(0.01)


def mlp(keras, **kwargs):
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(16, "relu", name="first", **kwargs),
            keras.layers.Dense(16, "relu", name="second", **kwargs),
            keras.layers.Dense(3, name="out", **kwargs),
        ]
    )


class Block:
    """Makes a composite layer of either Keras."""

    def __new__(cls, keras, **kwargs):
        class Residual(keras.layers.Layer):
            def __init__(self):
                super().__init__(**kwargs)
                self.up, self.down = keras.layers.Dense(12, "relu"), [keras.layers.Dense(8)]

            def build(self, shape):
                self.up.build(shape)
                self.down[0].build((*shape[:-1], 12))
                self.built = True

            def call(self, x):
                return x + self.down[0](self.up(x))

        return Residual()


def nested(keras):
    inner_input = keras.Input([8])
    inner = keras.Model(
        inner_input, keras.layers.Dense(8, name="inside")(inner_input), name="inner"
    )
    x = keras.Input([8])
    shared = keras.layers.Dense(8, name="shared")
    h = shared(shared(inner(Block(keras, name="block")(x))))
    return keras.Model(x, keras.layers.Dense(3, name="out")(h))


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(3)  # made first, called last
            self.blocks = [Block(keras), Block(keras)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Net()
    model(X)
    return model


def convolutional(keras):
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Reshape([8, 1]),
            keras.layers.Conv1D(6, 3, name="conv"),
            keras.layers.SeparableConv1D(4, 2, name="separable"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def attentive(keras):
    x = keras.Input([8])
    h = keras.layers.Reshape([4, 2])(x)
    h = keras.layers.MultiHeadAttention(2, 3, name="attention")(h, h)
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(h)))


MODELS = {
    "sequential": (mlp, ["first", "second"]),
    "nested": (nested, ["block.up", "block.down.0", "inner.inside", "shared"]),
    "subclassed": (
        subclassed,
        ["blocks.0.up", "blocks.0.down.0", "blocks.1.up", "blocks.1.down.0"],
    ),
    "convolutional": (convolutional, ["conv", "separable"]),
    "attentive": (attentive, None),
}


def fit(keras, pruned, optimizer=None, epochs=2, callbacks=(), **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(optimizer or keras.optimizers.SGD(0.1), loss, **kwargs)
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    return pruned.fit(
        X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


def prune(model, schedule=RAMP, method=None, **kwargs):
    return tf_movprune.prune_low_movement(model, schedule, method or HardMovement(START), **kwargs)


# ---- what is pruned, and what comes back


@pytest.mark.xla_refresh
@pytest.mark.parametrize("kind", MODELS)
def test_training_ends_at_the_sparsity_and_stripping_changes_nothing(keras, kind):
    make, paths = MODELS[kind]
    model = make(keras)
    dense = np.array(model(X))
    names = [weight.name for weight in model.weights]
    pruned = prune(model)
    assert paths is None or list(tf_movprune.pruned_layers(pruned)) == paths
    np.testing.assert_array_equal(pruned(X), dense)
    history = fit(keras, pruned, jit_compile=True)
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


METHODS = {
    "hard": HardMovement(),
    "global": HardMovement(START, scope="global"),
    "soft": SoftMovement(1.0, target=True),
    "L0": L0(final_lambda=1.0),
    "magnitude": Magnitude(),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods(keras, method):
    schedule = None if method == "L0" else RAMP
    pruned = tf_movprune.prune_low_movement(mlp(keras), schedule, METHODS[method])
    before = scores(pruned) if method != "magnitude" else []
    fit(keras, pruned)
    if method == "L0":
        assert all(0 <= sparsity < 1 for sparsity in sparsities(pruned))
    else:
        total = sum(kernel.size for kernel in kernels(pruned))
        kept = sum(np.count_nonzero(kernel.mask) for kernel in kernels(pruned))
        assert kept / total == pytest.approx(0.25, abs=0.02)
    for old, new in zip(before, scores(pruned) if before else []):
        assert np.any(old != new)
    masked = pruned(X)
    np.testing.assert_allclose(tf_movprune.strip_pruning(pruned)(X), masked, rtol=1e-6)


def test_both_shells_train_alike():
    """The same numbers to rounding, by the paper's optimizer, whichever Keras trains."""
    found = []
    for name in KERASES:
        keras = keras_of(name)
        model = mlp(keras)
        random = np.random.RandomState(7)
        model.set_weights([random.standard_normal(w.shape) * 0.3 for w in model.get_weights()])
        pruned = prune(model)
        sgd = keras.optimizers.SGD(1.0)
        optimizer = tf_movprune.create_optimizer(
            0.02, 8, 2, weight_decay=0.1, clipnorm=0.5, score_optimizer=sgd, model=pruned
        )
        losses = fit(keras, pruned, optimizer).history["loss"]
        found.append((losses, scores(pruned), [np.array(k.mask) for k in kernels(pruned)]))
    (a_losses, a_scores, a_masks), (b_losses, b_scores, b_masks) = found
    np.testing.assert_allclose(a_losses, b_losses, rtol=1e-5)
    for a, b in zip(a_scores, b_scores):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
    for a, b in zip(a_masks, b_masks):
        np.testing.assert_array_equal(a, b)


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
    fit(keras, pruned)
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


KNOWN_MODES = {"tensor": tf.constant(True), "NumPy": np.True_}


@pytest.mark.parametrize("kind", KNOWN_MODES)
def test_the_guard_knows_training_in_any_form(keras, kind):
    pruned = prune(mlp(keras))
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        pruned(X, training=KNOWN_MODES[kind])
    pruned(X, training=tf.constant(False))


def test_a_mode_that_a_graph_decides(keras):
    dense = keras.layers.Dense(4)
    dense.build([None, 8])
    pruned = tf_movprune.prune_low_movement(dense, None, L0())
    call = tf.function(lambda x, training: pruned(x, training=training))
    plain = np.array(pruned(X))
    np.testing.assert_allclose(call(X, tf.constant(False)), plain, rtol=1e-6)
    assert np.any(np.abs(call(X, tf.constant(True)) - plain) > 1e-3)


def test_recurrent_layers_by_pattern(keras):
    model = keras.Sequential(
        [
            keras.Input([4, 2]),
            keras.layers.Bidirectional(keras.layers.LSTM(3), name="both"),
            keras.layers.Dense(3, name="out"),
        ]
    )
    x = X.reshape([32, 4, 2])
    pruned = prune(model, {"both*": RAMP}, Magnitude())
    assert refresh(pruned, 6) == 0.75
    masked = pruned(x)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(x), masked)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(keras, policy):
    pruned = prune(mlp(keras, dtype=policy))
    optimizer = keras.optimizers.SGD(0.1)
    if keras.__name__ == "tf_keras" and policy == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    fit(keras, pruned, optimizer)
    assert sparsities(pruned) == [0.75, 0.75]
    assert {kernel.scores.dtype for kernel in kernels(pruned)} == {tf.float32}
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


def test_several_fits_and_steps_per_execution(keras):
    """What is due between executions is refreshed at the next; the end of a fit forces nothing."""
    pruned = prune(mlp(keras), CubicSparsity(0.75, 0, 12, frequency=3))
    update = tf_movprune.UpdatePruningStep(num_train_steps=12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss, steps_per_execution=2)
    reached = []
    for _ in range(3):
        pruned.fit(X, Y, batch_size=8, verbose=0, callbacks=[update])
        reached.append(tf_movprune.summarize_sparsity(pruned).sparsity)
    # Due at 3, seen at 4; due at 6, and not at 8; the end.
    expected = [kernels(pruned)[0].settings.ramp.value_at(step) for step in (4, 6, 12)]
    assert reached == pytest.approx(expected, abs=0.01)


def test_a_run_that_begins_at_a_later_epoch_is_as_long_as_its_rest(keras):
    pruned = prune(mlp(keras))
    pruned.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    update = tf_movprune.UpdatePruningStep()
    with pytest.raises(ValueError, match=r"ends at step 6, but this run has 4 steps"):
        pruned.fit(X, Y, batch_size=8, initial_epoch=2, epochs=3, verbose=0, callbacks=[update])


def test_schedules_count_steps_that_take_several_batches(keras):
    """Not the batches of them."""
    pruned = prune(mlp(keras))
    with pytest.raises(ValueError, match=r"ends at step 6, but this run has 4 steps \(4 × 2, 2 ba"):
        fit(keras, pruned, accumulating_sgd(keras, 2))
    history = fit(keras, pruned, accumulating_sgd(keras, 2), epochs=3, steps_per_execution=2)
    expected = [kernels(pruned)[0].settings.ramp.value_at(step) for step in (2, 4, 6)]
    assert history.history["sparsity"] == pytest.approx(expected, abs=0.01)


# ---- refusals


def test_training_without_the_callback_is_refused(keras):
    pruned = prune(mlp(keras))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        pruned.fit(X, Y, verbose=0)
    fit(keras, pruned)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        pruned.fit(X, Y, verbose=0)
    with pytest.raises(RuntimeError, match="update_masks"):
        pruned(X, training=True)
    tf_movprune.update_masks(pruned, 6)
    pruned.train_on_batch(X, Y)
    with pytest.raises(RuntimeError, match="update_masks"):
        pruned.train_on_batch(X, Y)


def without_a_mode(keras, layer, is_recomputed=False):
    """A model whose call takes no `training`, around a layer, with one that does in front."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.layer = keras.layers.Dropout(0.0), layer

        def call(self, x):
            layer = tf.recompute_grad(self.layer.call) if is_recomputed else self.layer
            return layer(self.drop(x))

    model = Net()
    model(X)
    return model


@pytest.mark.parametrize("how", ["in a graph", "eagerly", "recomputed"])
def test_training_without_a_mode_draws_noise_and_needs_the_callback(keras, how):
    inner = tf_movprune.prune_low_movement(mlp(keras), method=L0(final_lambda=0.0))
    model = without_a_mode(keras, inner, how == "recomputed")  # which was not pruned itself
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=how == "eagerly")
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        model.fit(X, Y, verbose=0)
    callbacks = [tf_movprune.UpdatePruningStep()]
    losses = model.fit(X, Y, batch_size=32, epochs=3, verbose=0, callbacks=callbacks).history
    assert len(set(losses["loss"])) == 3  # the weights stand still
    without_noise = [model.evaluate(X, Y, verbose=0) for _ in range(2)]
    assert without_noise[0] == without_noise[1]


def test_fit_of_an_outer_model_needs_more_than_one_update_before_it(keras):
    class Refreshing(keras.Model):
        def train_step(self, data):
            tf_movprune.update_masks(inner, self.optimizer.iterations)
            return super().train_step(data)

    def compiled(cls):
        x = keras.Input([8])
        model = cls(x, inner(x))
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        return model

    class EachBatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            tf_movprune.update_masks(inner, batch)

    inner = prune(mlp(keras))
    data = X, X[:, :3]
    compiled(Refreshing).fit(*data, 8, 2, verbose=0)
    compiled(keras.Model).fit(*data, 8, verbose=0, callbacks=[EachBatch()])
    for step in range(2):
        refresh(inner, step)
        compiled(keras.Model).train_on_batch(*data)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        compiled(keras.Model).fit(*data, verbose=0)


def compiled_around(keras, inner):
    """A model that was not pruned itself, compiled."""
    x = keras.Input([8])
    model = keras.Model(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def test_one_update_allows_an_outer_model_one_step(keras):
    data = X, X[:, :3]
    inner = prune(mlp(keras))
    model = compiled_around(keras, inner)
    refresh(inner, 0)
    model.train_on_batch(*data)  # is traced while a step is allowed
    for train in (model.train_on_batch, model.fit):
        with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
            train(*data)
    for step in (1, 2):
        refresh(inner, step)
        model.train_on_batch(*data)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        model.fit(*data, verbose=0)
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(*data, 4, 2, verbose=0, callbacks=callbacks)
    assert set(sparsities(inner)) == {0.75}


def test_updates_in_one_fit_allow_no_steps_in_the_next(keras):
    class EachBatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            refresh(inner, batch)

    data = X, X[:, :3]
    inner = prune(mlp(keras))
    model = compiled_around(keras, inner)
    model.fit(*data, 8, verbose=0, callbacks=[EachBatch()])
    for other in (model, compiled_around(keras, inner)):
        with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
            other.fit(*data, verbose=0)


def test_a_step_of_ones_own_that_updates_allows_none_to_other_models(keras):
    class Refreshing(keras.Model):
        def train_step(self, data):
            tf_movprune.update_masks(inner, self.optimizer.iterations)
            return super().train_step(data)

    data = X, X[:, :3]
    inner = prune(mlp(keras))
    x = keras.Input([8])
    model = Refreshing(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    for _ in range(2):
        model.fit(*data, 8, 2, verbose=0)
    assert set(sparsities(inner)) == {0.75}
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        compiled_around(keras, inner).fit(*data, verbose=0)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_train_step_may_call_its_model_by_any_name(keras, run_eagerly):
    class Outer(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

        def train_step(model, data):  # noqa: N805
            x, _ = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) ** 2)
            variables = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return {"loss": loss}

    inner = without_a_mode(keras, keras.layers.Dense(8))
    model = Outer(inner)
    model(X)
    prune(inner, {"layer": RAMP})
    model.compile("sgd", run_eagerly=run_eagerly)
    with pytest.raises(RuntimeError, match=r"UpdatePruningStep\(\) to the callbacks"):
        model.fit(X, Y, verbose=0)


def recomputing(keras):
    """A model with gates that computes its layer anew in gradients, if its attribute says so."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8)
            self.is_recomputed = True

        def call(self, x, training=False):
            hidden = tf.recompute_grad(self.hidden) if self.is_recomputed else self.hidden
            return hidden(x)

    model = Net()
    model(X)
    model = prune(model, {"hidden": None}, L0(final_lambda=0.0))
    refresh(model, 0)
    return model


@pytest.mark.parametrize("mode", [True, False])
def test_recomputed_gradients_are_those_of_the_same_noise(keras, mode):
    model = recomputing(keras)
    score = kernels(model)[0].scores
    found = []
    for model.is_recomputed in (False, True):
        grads = gradients(model, lambda model: tf.reduce_sum(model(X, training=mode) ** 2))
        found.append(grads[id(score)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_recomputed_gradients_of_two_modes_are_refused(keras):
    model = recomputing(keras)

    def gradient(*modes, evaluates=False):
        with tf.GradientTape() as tape:
            loss = sum(tf.reduce_sum(model(X, training=mode) ** 2) for mode in modes)
        if evaluates:  # which no tape records
            model(X, training=False)
        return tape.gradient(loss, kernels(model)[0].scores)

    expected = gradient(True)
    np.testing.assert_array_equal(gradient(True, evaluates=True), expected)
    for modes in [(True, False), (False, True)]:
        with pytest.raises(ValueError, match=r"leave tf\.recompute_grad out"):
            gradient(*modes)
    np.testing.assert_array_equal(gradient(True), expected)


@pytest.mark.parametrize("mode", [None, False])
def test_a_loop_of_ones_own_without_a_mode_draws_noise_where_gradients_are_taken(mode):
    keras = keras_of("keras")
    model = without_a_mode(keras, keras.layers.Dense(8))
    tf_movprune.prune_low_movement(model, {"layer": None}, L0(final_lambda=0.0))
    evaluated = np.array(model(X))
    with tf.GradientTape():
        assert np.array_equal(model(X), evaluated)  # no steps are taken yet
    refresh(model, 0)
    with tf.GradientTape():
        is_without_noise = np.array_equal(model(X, training=mode), evaluated)
    assert is_without_noise == (mode is False)
    np.testing.assert_array_equal(model(X), evaluated)


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
    with pytest.warns(UserWarning, match=message) as caught:
        fit(keras, pruned)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("is_compiled", [True, False])
def test_pruned_models_have_to_be_compiled(keras, is_compiled):
    model = mlp(keras)
    if is_compiled:
        model.compile("sgd", "mse")
    pruned = tf_movprune.prune_low_movement(model, RAMP)
    message = r"pruning undoes compile\(\).*create_optimizer\(learning_rate, model=model\)"
    for method in (pruned.fit, pruned.train_on_batch):
        with pytest.raises((ValueError, RuntimeError), match=message):
            method(X, Y)
    stripped = tf_movprune.strip_pruning(pruned)
    with pytest.raises((ValueError, RuntimeError), match=r"You must (call `)?compile"):
        stripped.fit(X, Y)


def test_an_optimizer_that_knows_no_scores_is_refused(keras):
    model = mlp(keras)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="built before the model was pruned"):
        fit(keras, prune(model), optimizer)


def test_a_failed_pruning_leaves_the_model_as_it_was(keras):
    model = mlp(keras)
    before, names = np.array(model(X)), [w.name for w in model.weights]
    with pytest.raises(ValueError, match="block_size"):
        prune(model, block_size={"second": (5, 1)})
    np.testing.assert_array_equal(model(X), before)
    assert [w.name for w in model.weights] == names
    assert not tf_movprune.pruned_layers(model)


def test_a_stripped_model_warns_when_it_is_trained(keras):
    pruned = prune(mlp(keras))
    fit(keras, pruned)
    stripped = tf_movprune.strip_pruning(pruned)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    stripped.compile(keras.optimizers.SGD(0.1), loss)
    with pytest.warns(UserWarning, match="zeros are ordinary weights now"):
        stripped.fit(X, Y, verbose=0)


def test_what_is_no_model_is_refused():
    for function in (tf_movprune.prune_low_movement, tf_movprune.strip_pruning):
        with pytest.raises(TypeError, match=r"Expected a model or layer of Keras 3 or tf_keras"):
            function("model")


# ---- files


@pytest.mark.parametrize("way", ["weights", "checkpoint"])
def test_weights_and_masks_come_back(keras, way, tmp_path):
    source, target = prune(mlp(keras)), prune(mlp(keras))
    fit(keras, source)
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
    optimizer = tf_movprune.create_optimizer(0.01, 8, 2, model=source)
    fit(keras, source, optimizer)
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


@pytest.mark.parametrize(
    "method, multiplier", [(SoftMovement(target=True), 10.0), (HardMovement(START), 1.0)]
)
def test_scores_that_mean_something_else_are_refused(keras, method, multiplier, tmp_path):
    path = str(tmp_path / "model.weights.h5")
    saved = prune(mlp(keras), score_learning_rate_multiplier=10.0)
    saved.save_weights(path)
    other = prune(mlp(keras), RAMP, method, score_learning_rate_multiplier=multiplier)
    with pytest.raises(ValueError, match="HardMovement at score_learning_rate_multiplier 10 for"):
        other.load_weights(path)
    same = prune(mlp(keras), score_learning_rate_multiplier=10.0)
    same.load_weights(path)
    np.testing.assert_array_equal(same(X), saved(X))


def test_files_that_would_lose_masks_are_refused(keras, tmp_path):
    pruned = prune(subclassed(keras))
    with pytest.raises((ValueError, NotImplementedError), match=r"get_config|save_weights"):
        pruned.save(tmp_path / "model.keras")
    pruned.save_weights(tmp_path / "model.weights.h5")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(keras, tmp_path):
    def start():
        keras.utils.set_random_seed(3)
        return prune(mlp(keras))

    class Interrupting(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                raise KeyboardInterrupt

    def run(pruned, *callbacks):
        optimizer = keras.optimizers.Adam(0.01)
        return fit(keras, pruned, optimizer, callbacks=callbacks)

    whole, interrupted, resumed = start(), start(), start()
    run(whole)
    backup = str(tmp_path / ("backup.weights.h5" if keras.__name__ == "keras" else "backup"))
    make = keras.callbacks.BackupAndRestore
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, make(backup), Interrupting())
    run(resumed, make(backup))
    for a, b in zip(whole.get_weights(), resumed.get_weights()):
        np.testing.assert_array_equal(a, b)


# ---- kernels that reach the computation past their mask


def past_the_mask(keras, how):
    """A model whose first layer's kernel is used in another way than by the layer."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, name="hidden")
            self.out = keras.layers.Dense(3, name="out")
            self.kernels = {}

        def call(self, x, training=False):
            h = self.hidden(x)
            if how == "list":
                self.kernels = self.kernels or {"hidden": [self.trainable_weights[0]]}
                h = h + tf.matmul(x, tf.convert_to_tensor(self.kernels["hidden"][0]))
            elif how == "weights":
                h = tf.matmul(h, tf.convert_to_tensor(self.trainable_weights[0]), transpose_b=True)
            elif how == "no gradient":
                h = tf.stop_gradient(h)
            elif how == "no call":
                h = x
            return self.out(h)

    model = Net()
    model(X)
    return model


@pytest.mark.parametrize("how", ["list", "weights", "no gradient", "no call"])
def test_kernels_past_the_mask_are_refused_by_name(keras, how):
    model = past_the_mask(keras, how)
    with pytest.raises(ValueError, match=r"pruned layer '?\"?hidden.* mapping of path patterns"):
        fit(keras, prune(model, {"hidden": RAMP}))


def test_parts_of_layers_are_refused_in_evaluation_too(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = keras.layers.SimpleRNN(8, name="rnn"), keras.layers.Dense(3)

        def call(self, x):
            h = self.rnn(x[:, None])
            return self.out(self.rnn.cell(x, [h])[0])

    model = Net()
    model(X)
    with pytest.raises(ValueError, match=r"pruned layer 'rnn' is read by .* nothing masks it"):
        prune(model, {"rnn": RAMP}, Magnitude())(X)


class Own:
    """Makes a layer with a kernel of its own, under two names, in either Keras."""

    def __new__(cls, keras, returned=("w",), compute=lambda layer, x: tf.matmul(x, layer.again)):
        class Layer(keras.layers.Layer):
            def build(self, shape):
                self.w = self.again = self.add_weight(shape=(8, 8), name="w")
                self.built = True

            def call(self, x):
                return compute(self, x)

            def get_prunable_weights(self):
                return [getattr(self, name) for name in returned]

        return Layer(name="own")


def around(keras, layer, *others):
    """A model of some layers, called once."""
    model = keras.Sequential([keras.Input([8]), layer, *others, keras.layers.Dense(3)])
    model(X)
    return model


@pytest.mark.parametrize("returned", [("w",), ("again",), ("w", "again")])
def test_a_kernel_under_two_names_is_masked_once_and_under_both(keras, returned):
    pruned = prune(around(keras, Own(keras, returned)), RAMP, Magnitude())
    assert refresh(pruned, 6) == 0.75 and len(kernels(pruned)) == 1
    masked = np.array(pruned(X))
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


CALLS = {"call": lambda layer, x: layer.call(x), "itself": lambda layer, x: layer(x)}


@pytest.mark.parametrize("how", CALLS)
def test_a_layer_that_calls_itself_is_masked_once(keras, how):
    def compute(layer, x):
        return CALLS[how](layer, x[:, None])[:, 0] if len(x.shape) == 2 else tf.matmul(x, layer.w)

    plain, calls_itself = around(keras, Own(keras)), around(keras, Own(keras, compute=compute))
    calls_itself.set_weights(plain.get_weights())
    found = []
    for model in map(prune, (plain, calls_itself)):
        refresh(model, 6)
        grads = gradients(model, lambda model: tf.reduce_sum(model(X, training=True) ** 2))
        found.append(grads[id(kernels(model)[0].scores)])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert np.all(found[1])
    model = tf_movprune.prune_low_movement(
        around(keras, Own(keras, compute=compute)), method=L0(final_lambda=0.0)
    )
    kernels(model)[0].scores.assign(np.linspace(-3, 3, 64).reshape(8, 8))
    refresh(model, 6)
    gated = np.array(model(X))
    np.testing.assert_allclose(tf_movprune.strip_pruning(model)(X), gated, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_another_layer_holds_is_refused(keras):
    dense = keras.layers.Dense(8, name="source")
    dense.build([None, 8])

    class Tied(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="tied")
            self.held = dense.kernel

        def call(self, x):
            return tf.matmul(x, self.held, transpose_b=True)

    twin = keras.layers.Dense(8, name="twin")
    twin.build([None, 8])
    name = next(n for n, value in vars(twin).items() if value is twin.kernel)
    vars(twin)[name] = dense.kernel
    for other in (Tied(), twin):
        model = around(keras, dense, other)
        before = weights_by_name(model)
        with pytest.raises(
            ValueError, match=rf"'{other.name}' .* has the kernel of 'source' .*as its"
        ):
            prune(model)
        assert len(weights_by_name(model)) == len(before) and not tf_movprune.pruned_layers(model)


def with_one_kernel(keras, kind):
    """Two layers that compute with one kernel, and would both be pruned."""
    if kind == "cell":
        cell = keras.layers.GRUCell(8)
        layers = [keras.layers.RNN(cell, return_sequences=True) for _ in range(2)]
        for layer in layers:
            layer(np.zeros([2, 5, 8], np.float32))
        return layers
    dense = keras.layers.Dense(8, name="dense")
    dense.build([None, 8])

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="around")
            self.dense = dense
            self.built = True

        def call(self, x):
            return self.dense(x)

        def get_prunable_weights(self):
            return [dense.kernel]

    return [dense, Around()]


@pytest.mark.parametrize("is_list", [False, True])
@pytest.mark.parametrize("kind", ["cell", "layer inside"])
def test_two_pruned_layers_with_one_kernel_are_refused(keras, kind, is_list):
    for layers in (with_one_kernel(keras, kind), with_one_kernel(keras, kind)[::-1]):

        class Net(keras.Model):
            def __init__(self, layers):
                super().__init__()
                self.first, self.second = layers

            def call(self, x):
                return self.second(self.first(x))

        model = Net(layers)
        model(np.zeros([2, 5, 8], np.float32))
        with pytest.raises(ValueError, match=r"has the kernel of .* leave both out"):
            prune(
                layers if is_list else model, RAMP if is_list else {"first": RAMP, "second": RAMP}
            )
        assert not tf_movprune.pruned_layers(model)


ASSIGNMENTS = {
    "assign": lambda layer: layer.w.assign(tf.clip_by_value(layer.w, -1.0, 1.0)),
    "assign_sub": lambda layer: layer.w.assign_sub(0.01 * layer.w),
}


@pytest.mark.parametrize("how", ASSIGNMENTS)
def test_layers_that_assign_their_kernels_are_refused_by_name(keras, how):
    def compute(layer, x):
        ASSIGNMENTS[how](layer)
        return tf.matmul(x, layer.w)

    model = around(keras, Own(keras, compute=compute))
    with pytest.raises(ValueError, match=rf"'own' uses '{how}' of a tensor.* kernel_constraint"):
        prune(model)(X)


def test_classes_in_the_place_of_callbacks(keras):
    pruned = prune(mlp(keras))
    pruned.compile("sgd", "mse")
    for cls, call in (
        (tf_movprune.UpdatePruningStep, r"UpdatePruningStep\(\)"),
        (tf_movprune.OnceSparse, r"OnceSparse\(\.\.\.\)"),
    ):
        with pytest.raises(TypeError, match=rf"Pass {call}, not the class {cls.__name__}"):
            pruned.fit(X, X[:, :3], callbacks=[cls])


def test_other_attribute_errors_stay_what_they_are(keras):
    class Typo:
        is_made = False

    def compute(layer, x):
        return layer.kernal if Typo.is_made else tf.matmul(x, layer.w)

    pruned = prune(around(keras, Own(keras, compute=compute)))
    Typo.is_made = True
    with pytest.raises(AttributeError, match="object has no attribute 'kernal'"):
        next(iter(tf_movprune.pruned_layers(pruned).values()))(X)


# ---- functions that were traced before pruning


def traced(keras, kind):
    """A model with a `tf.function` in or around the layer to prune, called once."""

    class Inside(keras.layers.Dense):
        def __init__(self):
            super().__init__(8, use_bias=False)
            self.attribute = tf.function(lambda x: tf.matmul(x, self.kernel))

        @tf.function
        def method(self, x):
            return tf.matmul(x, self.kernel)

        def call(self, x):
            return self.attribute(x) if kind == "attribute inside" else self.method(x)

    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(8, use_bias=False)
            self.held = [tf.function(lambda x: self.dense(x))]

        def build(self, shape):
            self.dense.build(shape)
            self.built = True

        @tf.function
        def method(self, x):
            return self.dense(x)

        def call(self, x):
            return self.held[0](x) if kind == "list around" else self.method(x)

    class Call(keras.layers.Dense):
        call = tf.function(keras.layers.Dense.call)

    class Super(Call):
        def call(self, x):
            return super().call(x)

    whole = {"call": Call, "call of super": Super}
    layer = whole[kind](8) if kind in whole else Inside() if "inside" in kind else Around()
    model = keras.Sequential([keras.Input([8]), layer, keras.layers.Dense(3)])
    model(X), layer(X)
    return model


@pytest.mark.parametrize(
    "kind",
    ["call", "call of super", "method inside", "attribute inside", "method around", "list around"],
)
def test_functions_that_were_traced_before_pruning(keras, kind):
    model = traced(keras, kind)
    dense = np.array(model(X))
    pruned = tf_movprune.prune_low_movement(model, RAMP, Magnitude())
    for step in (3, 6):  # functions must not remember the masks of the first call
        refresh(pruned, step)
        masked = np.array(pruned(X))
        assert np.any(masked != dense)
        dense = masked
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), masked)
    for weight in stripped.weights:
        weight.assign(tf.zeros(weight.shape))
    np.testing.assert_array_equal(stripped(X), np.zeros([32, 3]))


def test_outer_models_forget_in_fit_what_they_traced(keras):
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.out = subclassed(keras), keras.layers.Dense(3)
            self.traced = tf.function(lambda x: self.out(self.inner(x)))

        def call(self, x):
            return self.out(self.inner(x))

    model = Outer()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.evaluate(X, Y, verbose=0), model.predict(X, verbose=0), model.traced(X)
    prune(model.inner)
    callbacks = [tf_movprune.UpdatePruningStep()]
    data = {"validation_data": (X, Y), "batch_size": 8, "epochs": 2}
    history = model.fit(X, Y, verbose=0, callbacks=callbacks, **data).history
    logits = model(X)
    assert history["val_loss"][-1] == pytest.approx(float(loss(Y, logits)), rel=1e-5)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(float(loss(Y, logits)), rel=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.traced(X), logits, rtol=1e-4, atol=1e-6)


def test_outer_models_train_on_when_models_inside_are_stripped():
    keras = keras_of("keras")
    model = keras.Sequential([keras.Input([8]), Block(keras), Block(keras)])
    for inside in model.layers:
        prune(inside, {"*up": RAMP}, Magnitude())
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    arguments = {"batch_size": 8, "epochs": 2, "verbose": 0}
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(X, X, callbacks=callbacks, **arguments)
    tf_movprune.strip_pruning(model.layers[0])
    with pytest.raises(RuntimeError, match="nothing refreshes"):
        model.fit(X, X, **arguments)
    model.fit(X, X, callbacks=callbacks, **arguments)
    tf_movprune.strip_pruning(model.layers[1])
    model.fit(X, X, **arguments)


@pytest.mark.filterwarnings("ignore:Sparsity is|.*was stripped")
@pytest.mark.parametrize("stripped", ["inner", "outer"])
def test_stripping_takes_back_the_guards_of_models_inside_and_around(stripped):
    keras = keras_of("keras")

    def guards(model):
        return {name for name in vars(model) if callable(getattr(type(model), name, None))}

    inner = keras.Sequential([keras.Input([8]), keras.layers.Dense(8, name="dense")])
    outer = keras.Sequential([keras.Input([8]), keras.Sequential([inner])])
    models = inner, outer.layers[0], outer
    before = [guards(model) for model in models]
    prune(inner, {"dense": RAMP}, Magnitude())
    outer.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    callbacks = [tf_movprune.UpdatePruningStep(num_train_steps=6)]
    outer.fit(X, X, verbose=0, callbacks=callbacks)
    tf_movprune.strip_pruning({"inner": inner, "outer": outer}[stripped])
    kept = {"load_weights", "make_train_function"}  # they warn of weights and of training
    for model, names in zip(models, before, strict=True):
        assert guards(model) - names <= kept
    given, other = (inner, outer) if stripped == "inner" else (outer, inner)
    assert "make_train_function" in guards(given) - guards(other)
    with pytest.raises(ValueError, match="compile"):
        inner.fit(X, X, verbose=0)
    other.compile("sgd", "mse", run_eagerly=True)
    other.fit(X, X, verbose=0)


def test_a_step_that_was_traced_before_pruning_is_warned_of(keras):
    model, optimizer = mlp(keras), keras.optimizers.SGD(0.1)
    weights = model.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(X, training=True) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))

    step()
    pruned = prune(model)
    refresh(pruned, 1)
    next(iter(tf_movprune.pruned_layers(pruned).values()))(X)  # trains nothing
    step()
    with pytest.warns(
        UserWarning, match=r"trained without calling its pruned layers.*tf\.function"
    ):
        refresh(pruned, 2)
    refresh(pruned, 6)
    with pytest.warns(UserWarning, match=r"without calling its pruned layers second: their masks"):
        tf_movprune.strip_pruning(pruned)


def test_callbacks_that_wait_see_sparse_epochs_only(keras):
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["sparsity"])
    )
    pruned = prune(mlp(keras))
    fit(keras, pruned, epochs=3, callbacks=[tf_movprune.OnceSparse(watch)])
    assert seen == pytest.approx([0.75, 0.75])  # the first of three epochs is not sparse yet


def test_callbacks_wait_in_loops_without_epochs(keras):
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    pruned = prune(mlp(keras), CubicSparsity(0.75, begin_step=0, end_step=1))
    pruned.compile(keras.optimizers.SGD(0.1), "mse")
    once = tf_movprune.OnceSparse(watch)
    once.set_model(pruned)
    for step in (0, 1):
        pruned.optimizer.iterations.assign(step)
        refresh(pruned, step)
        once.on_train_begin()
        once.on_train_batch_begin(step)
        once.on_train_batch_end(step)
    assert seen == [1]


def test_summaries_are_written(keras, tmp_path):
    pytest.importorskip("tensorboard")
    pruned = prune(mlp(keras))
    fit(keras, pruned, callbacks=[tf_movprune.PruningSummaries(str(tmp_path))])
    (file,) = tmp_path.rglob("events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert any("sparsity" in tag for tag in tags), tags
