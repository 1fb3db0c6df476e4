"""Training steps for which nothing refreshes the masks are refused, in either Keras."""

import functools
import warnings

import numpy as np
import pytest
import tensorflow as tf
from shells import keras_of, refresh, sparsities
from small_models import RAMP, Block, X, Y, fit, mlp, prune, subclassed

import tf_movprune
from tf_movprune import L0, KeepZeros, Magnitude

KNOWN_MODES = {"tensor": tf.constant(True), "NumPy": np.True_}


@pytest.mark.parametrize("kind", KNOWN_MODES)
def test_the_guard_knows_training_in_any_form(keras, kind):
    pruned = prune(mlp(keras))
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        pruned(X, training=KNOWN_MODES[kind])
    pruned(X, training=tf.constant(False))


REFUSED = (
    r"^The pruned layer '(prune_low_movement_)?first' is being trained, but nothing refreshes its "
    r"masks\. Add tf_movprune\.UpdatePruningStep\(\) to the callbacks of fit, or .*update_masks"
)


def test_training_without_the_callback_is_refused(keras):
    """Outside of traced code, and with the callback it goes on as if it had not begun."""
    pruned = prune(mlp(keras))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.SGD(0.1), loss)
    assert np.isfinite(pruned.evaluate(X, Y, verbose=0))
    for train in (pruned.fit, pruned.train_on_batch):
        with pytest.raises(RuntimeError, match=REFUSED):
            train(X, Y)
    assert int(pruned.optimizer.iterations) == 0
    callbacks = [tf_movprune.UpdatePruningStep()]
    pruned.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert sparsities(pruned) == [0.75, 0.75]
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.fit(X, Y, verbose=0)
    with pytest.raises(RuntimeError, match="update_masks"):
        pruned(X, training=True)
    for step in (8, 9):
        tf_movprune.update_masks(pruned, step)
        pruned.train_on_batch(X, Y)
        with pytest.raises(RuntimeError, match=REFUSED):
            pruned.train_on_batch(X, Y)
    tf_movprune.update_masks(pruned, 10)
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.fit(X, Y, batch_size=8, verbose=0)
    assert int(pruned.optimizer.iterations) == 11


def test_training_after_a_fit_that_failed_is_refused(keras):
    class Interrupting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    pruned = prune(mlp(keras))
    with pytest.raises(ValueError, match="this run has 4 steps"):
        fit(keras, pruned, epochs=1)
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.fit(X, Y, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        fit(keras, pruned, callbacks=[Interrupting()], run_eagerly=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.fit(X, Y, verbose=0)
    with pytest.raises(tf.errors.OpError):
        callbacks = [tf_movprune.UpdatePruningStep()]
        pruned.fit(X, Y + 99, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.train_on_batch(X, Y)
    tf_movprune.update_masks(pruned, pruned.optimizer.iterations)
    pruned.train_on_batch(X, Y)


class OwnStep:
    """Makes a model of either Keras with a train step of its own, which may refresh the masks.

    It trains with two optimizers, and neither of them is that of `compile`.
    """

    def __new__(cls, keras, refreshes, mode=True):
        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.first = keras.layers.Dense(8, name="first")
                self.out = keras.layers.Dense(2, name="out")
                self.own_optimizers = [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2)]

            def call(self, x, training=False):
                return self.out(self.first(x))

            def train_step(self, x):
                if refreshes:
                    tf_movprune.update_masks(self, self.own_optimizers[0].iterations)
                with tf.GradientTape(persistent=True) as tape:
                    loss = tf.reduce_mean(self(x, training=mode) ** 2)
                pairs = [*zip(self.own_optimizers, (self.first, self.out))]
                for optimizer, layer in pairs:
                    weights = layer.trainable_weights
                    optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
                return {"loss": loss}

        model = Net()
        model(X)
        pruned = prune(model, RAMP, Magnitude())
        for optimizer, layer in zip(model.own_optimizers, (model.first, model.out)):
            optimizer.build(layer.trainable_variables)
        pruned.compile()
        return pruned


def test_a_train_step_of_ones_own_may_refresh_masks(keras):
    """It does so while it is traced, which may be more than once."""
    pruned = OwnStep(keras, refreshes=True)
    for size in (8, 5):
        x = tf.data.Dataset.from_tensor_slices(X).batch(size, drop_remainder=True)
        pruned.fit(x, epochs=2, verbose=0)
    assert sparsities(pruned) == [0.75] and int(pruned.own_optimizers[0].iterations) == 20


@pytest.mark.parametrize("mode", [True, False])
def test_a_train_step_of_ones_own_that_does_not_refresh_masks(keras, mode):
    pruned = OwnStep(keras, refreshes=False, mode=mode)
    x = tf.data.Dataset.from_tensor_slices(X).batch(8)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=REFUSED):
            pruned.fit(x, verbose=0)


def test_a_train_step_of_ones_own_may_train_fewer_variables(keras):
    """An optimizer that was built for all of them refuses to."""

    class TrainsItsFirstLayer(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.out = keras.layers.Dense(8, name="first"), keras.layers.Dense(3)

        def call(self, x, training=False):
            return self.out(self.first(x))

        def train_step(self, batch):
            x, _ = batch
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(x, training=True) ** 2)
            weights = self.first.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            return {"loss": loss}

    model = TrainsItsFirstLayer()
    model(X)
    pruned = prune(model)
    before = np.array(pruned.out.kernel)
    fit(keras, pruned)
    assert sparsities(pruned) == [0.75]
    np.testing.assert_array_equal(pruned.out.kernel, before)
    with pytest.raises(RuntimeError, match=REFUSED):
        pruned.fit(X, Y, verbose=0)


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


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_a_run_that_another_callback_ends_leaves_no_steps_to_the_next(keras, hook):
    class Ends(keras.callbacks.Callback):
        pass

    def end(self, batch, logs=None):
        raise KeyboardInterrupt

    setattr(Ends, hook, end)
    pruned = prune(mlp(keras))
    pruned.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    callbacks = [tf_movprune.UpdatePruningStep(), Ends()]
    if hook == "on_train_batch_end":
        callbacks.reverse()
    with pytest.raises(KeyboardInterrupt):
        pruned.fit(X, X[:, :3], 8, 2, verbose=0, callbacks=callbacks)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        pruned.fit(X, X[:, :3], 8, verbose=0)


def compiled_around(keras, inner):
    """A model that was not pruned itself, compiled."""
    x = keras.Input([8])
    model = keras.Model(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def test_one_update_allows_an_outer_model_one_step(keras):
    """Also one around a layer that was pruned by itself."""
    data = X, X[:, :3]
    layer = keras.layers.Dense(3)
    layer.build([None, 8])
    inner = prune(layer)
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


def refreshed(step):
    """A decorator, whose frame has another name than the step that it decorates."""

    @functools.wraps(step)
    def after_an_update(self, data):
        tf_movprune.update_masks(self.refreshed, self.optimizer.iterations)
        return step(self, data)

    return after_an_update


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("is_pruned_itself", [True, False])
def test_a_step_may_be_decorated_with_an_update(keras, is_pruned_itself, run_eagerly):
    class Decorated(keras.Model):
        @refreshed
        def train_step(self, data):
            return super().train_step(data)

    inner = mlp(keras) if is_pruned_itself else prune(mlp(keras))
    x = keras.Input([8])
    model = Decorated(x, inner(x))
    if is_pruned_itself:
        model = prune(model)
    vars(model)["refreshed"] = model if is_pruned_itself else inner
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=run_eagerly)
    for _ in range(2):
        model.fit(X, X[:, :3], 8, verbose=0)
    assert set(sparsities(model)) == {0.75}


def test_a_train_function_may_be_made_with_an_update(keras):
    class Updating(keras.Model):
        def make_train_function(self, force=False):
            made = super().make_train_function(force)
            plain = made or self.train_function  # Keras 3 returns none

            def function(iterator):
                tf_movprune.update_masks(inner, self.optimizer.iterations)
                return plain(iterator)

            self.train_function = function
            return function

    inner = prune(mlp(keras))
    x = keras.Input([8])
    model = Updating(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(X, X[:, :3], 8, 2, verbose=0)
    assert set(sparsities(inner)) == {0.75}


@pytest.mark.parametrize("is_around", [True, False])
def test_an_update_in_a_graph_of_its_own_allows_one_step(keras, is_around):
    """Nothing tells the guards when the graph is run again."""
    inner = prune(mlp(keras))
    inner.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model = compiled_around(keras, inner) if is_around else inner
    update = tf.function(lambda step: tf_movprune.update_masks(inner, step))
    update(tf.constant(0))
    model.train_on_batch(X, X[:, :3])
    update(tf.constant(1))
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.train_on_batch(X, X[:, :3])


def test_refused_steps_stay_refused(keras):
    inner = prune(mlp(keras))
    model = compiled_around(keras, inner)
    refresh(inner, 0)
    model.train_on_batch(X, X[:, :3])
    for _ in range(4):
        with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
            model.train_on_batch(X, X[:, :3])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.train_on_batch(X, X[:, :3])


def test_a_refused_step_may_be_taken_with_updates_of_all_that_is_pruned(keras):
    first, second = prune(mlp(keras)), prune(mlp(keras))
    x = keras.Input([8])
    model = keras.Model(x, first(x) + second(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    refresh(first, 0)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.train_on_batch(X, X[:, :3])
    for step in range(2):
        refresh(first, step), refresh(second, step)
        model.train_on_batch(X, X[:, :3])


def test_a_loop_that_ends_no_batch_leaves_no_steps_to_others(keras):
    """It is tfmot's."""
    pruned = prune(mlp(keras))
    pruned.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    callback = tf_movprune.UpdatePruningStep()
    callback.set_model(pruned)
    callback.on_train_begin()
    callback.on_train_batch_begin(batch=-1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(pruned(X, training=True) ** 2)
    variables = pruned.trainable_variables
    gradients = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
    pruned.optimizer.apply_gradients(zip(gradients, variables))
    callback.on_epoch_end(batch=-1)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        compiled_around(keras, pruned).fit(X, X[:, :3], 8, verbose=0)


@pytest.mark.parametrize("train", ["train_on_batch", "fit"])
def test_updates_in_the_steps_of_one_model_allow_none_to_another(keras, train):
    class Refreshing(keras.Model):
        def train_step(self, data):
            tf_movprune.update_masks(inner, self.optimizer.iterations)
            return super().train_step(data)

    inner = prune(mlp(keras))
    x = keras.Input([8])
    model = Refreshing(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.train_on_batch(X, X[:, :3])
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        getattr(compiled_around(keras, inner), train)(X, X[:, :3])


def test_an_update_repeats_with_a_step_wherever_layers_are_in_its_graph(keras):
    class Branching(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return tf.cond(tf.reduce_any(x > -9.0), lambda: self.inner(x), lambda: self.inner(-x))

        def train_step(self, data):
            tf_movprune.update_masks(inner, self.optimizer.iterations)
            return super().train_step(data)

    inner = prune(mlp(keras))
    model = Branching()
    model(X)
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, "mse", jit_compile=False, steps_per_execution=2)
    model.fit(X, X[:, :3], 8, 2, verbose=0)
    assert set(sparsities(inner)) == {0.75}


def test_the_function_of_a_train_step_may_have_another_name(keras):
    def distil(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0], training=True) - data[1]) ** 2)
        variables = self.trainable_variables
        gradients = tape.gradient(loss, [getattr(v, "_value", v) for v in variables])
        self.optimizer.apply_gradients(zip(gradients, variables))
        return {"loss": loss}

    inner = prune(mlp(keras))
    x = keras.Input([8])
    model = type("Distilled", (keras.Model,), {"train_step": distil})(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1))
    refresh(inner, 0)
    model.train_on_batch(X, X[:, :3])
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.train_on_batch(X, X[:, :3])


def test_an_update_around_a_train_function_is_asked_for_at_each_step(keras):
    class Updating(keras.Model):
        def make_train_function(self, force=False):
            plain = super().make_train_function(force) or self.train_function

            def function(iterator):
                if int(self.optimizer.iterations) < 2:
                    tf_movprune.update_masks(inner, self.optimizer.iterations)
                return plain(iterator)

            self.train_function = function
            return function

    inner = prune(mlp(keras))
    x = keras.Input([8])
    model = Updating(x, inner(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        model.fit(X, X[:, :3], 4, verbose=0)


def test_one_update_is_for_one_of_two_models_around(keras):
    inner = prune(mlp(keras))
    first, second = compiled_around(keras, inner), compiled_around(keras, inner)
    refresh(inner, 0)
    first.train_on_batch(X, X[:, :3])
    with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
        second.train_on_batch(X, X[:, :3])
    for step in range(1, 3):
        for model in (first, second):
            refresh(inner, step)
            model.train_on_batch(X, X[:, :3])


def test_a_model_around_is_trained_on_when_the_one_inside_is_stripped():
    """The one inside that tf_keras prunes is another, whose layers stay pruned ones."""
    keras = keras_of("keras")
    inner = prune(mlp(keras), RAMP, Magnitude())
    model = compiled_around(keras, inner)
    refresh(inner, 6)
    model.train_on_batch(X, X[:, :3])
    tf_movprune.strip_pruning(inner)
    model.fit(X, X[:, :3], verbose=0)


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


@pytest.mark.parametrize("is_compiled", [True, False])
def test_pruned_models_have_to_be_compiled(keras, is_compiled):
    model = subclassed(keras)
    if is_compiled:
        model.compile("sgd", "mse")
        model.train_on_batch(X, X[:, :3]), model.predict(X, verbose=0)
    pruned = prune(model)
    message = r"pruning undoes compile\(\).*create_optimizer\(learning_rate, model=model\)"
    for method in (pruned.fit, pruned.train_on_batch):
        with pytest.raises((ValueError, RuntimeError), match=message):
            method(X, Y)
    refresh(pruned, 6)
    if is_compiled:  # and what was traced is forgotten
        np.testing.assert_allclose(pruned.predict(X, verbose=0), pruned(X), rtol=1e-4, atol=1e-6)
    stripped = tf_movprune.strip_pruning(pruned)
    with pytest.raises((ValueError, RuntimeError), match=r"You must (call `)?compile"):
        stripped.fit(X, Y)


def test_a_stripped_model_warns_when_it_is_trained_first(keras):
    pruned = prune(mlp(keras))
    refresh(pruned, 6)
    stripped = tf_movprune.strip_pruning(pruned)
    stripped.compile(keras.optimizers.Adam(0.1), "mse")
    data = X, X[:, :3]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stripped.evaluate(*data, verbose=0)
    message = r"was stripped .*zeros are ordinary weights now.*will not stay zero.*KeepZeros\(\)"
    with pytest.warns(UserWarning, match=message):
        stripped.fit(*data, verbose=0)
    assert np.count_nonzero(stripped.layers[0].kernel) > 64
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stripped.fit(*data, verbose=0)


def test_what_that_warning_advises_keeps_the_zeros(keras):
    pruned = prune(mlp(keras))
    refresh(pruned, 6)
    stripped = tf_movprune.strip_pruning(pruned)
    zeros = [np.array(layer.kernel) == 0 for layer in stripped.layers[:2]]
    again = tf_movprune.prune_low_movement(stripped, method=KeepZeros())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(keras, again)
    for layer, expected in zip(tf_movprune.strip_pruning(again).layers, zeros):
        np.testing.assert_array_equal(np.array(layer.kernel) == 0, expected)


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
