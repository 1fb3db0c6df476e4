"""Models keep what they are when their layers are replaced, and when that fails."""

import gc

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from wrapped import Everything, prune

import tf_movprune
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.replacement import replace_layers

layers = keras.layers
X = np.random.RandomState(0).standard_normal([16, 8]).astype("float32")
Y = np.random.RandomState(1).randint(0, 3, 16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train(pruned, run_eagerly=True):
    pruned.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=run_eagerly)
    callbacks = [tf_movprune.UpdatePruningStep()]
    return pruned.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks).history


def graph():
    x = keras.Input([8])
    hidden = layers.Dense(16, "relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(3, name="out")(hidden))


class OwnStep(keras.Model):
    """A subclass of Functional, with attributes and a train step of its own."""

    def __init__(self):
        x = keras.Input([8])
        hidden = layers.Dense(16, "relu", name="hidden")
        super().__init__(x, layers.Dense(3, name="out")(hidden(x)), name="own")
        self.note, self.steps, self.first = "mine", [], hidden
        self.seen = keras.metrics.Sum(name="seen")
        self.run = tf.function(self.twice)

    def twice(self, x):
        return 2 * self(x)

    def train_step(self, data):
        self.steps.append(1)
        self.seen.update_state(1.0)
        return {**super().train_step(data), "seen": self.seen.result()}


class OwnCall(OwnStep):
    def call(self, x, training=None, mask=None):
        return super().call(x, training, mask) + 1.0


class OwnSequence(keras.Sequential):
    """A subclass of Sequential."""

    def __init__(self, **kwargs):
        hidden = layers.Dense(16, "relu", name="hidden", **kwargs)
        super().__init__([hidden, layers.Dense(3, name="out")], name="own")
        self.note, self.steps, self.first = "mine", [], hidden

    def train_step(self, data):
        self.steps.append(1)
        return super().train_step(data)


SUBCLASSES = {
    "functional": OwnStep,
    "functional with a call": OwnCall,
    "sequential": lambda: OwnSequence(input_shape=[8]),
    "sequential without a shape": OwnSequence,
}


@pytest.mark.parametrize(
    "name, nested",
    [
        *((name, False) for name in SUBCLASSES),
        *((name, True) for name in ("functional with a call", "sequential")),
        pytest.param("functional", True, marks=pytest.mark.slow),
        pytest.param("sequential without a shape", True, marks=pytest.mark.slow),
    ],
)
def test_subclasses_of_graphs_keep_what_they_are(name, nested):
    own = SUBCLASSES[name]()
    cls = type(own)
    model = own
    if nested:
        x = keras.Input([8])
        model = keras.Model(x, layers.Dense(3, name="after")(own(x)))
    dense = model(X)
    names = [weight.name for weight in model.weights]
    pruned = prune(model)
    kept = pruned.get_layer("own") if nested else pruned
    assert kept is own and type(kept) is cls and kept.note == "mine"
    assert isinstance(kept.first, PruneLowMovement) and kept.first is kept.layers[-2]
    np.testing.assert_array_equal(pruned(X), dense)
    assert train(pruned, run_eagerly=nested)["sparsity"][-1] == 0.75
    if not nested:
        assert kept.steps
    masked = pruned(X)
    assert np.any(masked != dense)
    if hasattr(kept, "run"):
        np.testing.assert_allclose(kept.run(X), 2 * kept(X), rtol=1e-6)
    stripped = tf_movprune.strip_pruning(pruned)
    assert type(kept) is cls and isinstance(kept.first, layers.Dense)
    np.testing.assert_array_equal(stripped(X), masked)
    assert [weight.name for weight in stripped.weights] == names
    if hasattr(kept, "run"):
        np.testing.assert_allclose(kept.run(X), 2 * kept(X), rtol=1e-6)
    assert set(kept.get_config()) == set(SUBCLASSES[name]().get_config())


def test_attributes_of_plain_graphs_are_taken_over():
    model = graph()
    model.note, model.heads = "mine", [model.get_layer("hidden")]
    pruned = prune(model)
    assert pruned is not model and pruned.note == "mine"
    assert isinstance(pruned.heads[0], PruneLowMovement)
    assert isinstance(model.heads[0], layers.Dense)
    stripped = tf_movprune.strip_pruning(pruned)
    assert stripped.note == "mine" and isinstance(stripped.heads[0], layers.Dense)


def test_an_instance_with_a_method_of_its_own_keeps_it():
    model, calls = graph(), []

    def train_step(data):
        calls.append(1)
        return keras.Model.train_step(model, data)

    model.train_step = train_step
    pruned = prune(model)
    assert pruned is model
    train(pruned)
    assert calls


def with_losses(kind):
    x = keras.Input([8])
    hidden = layers.Dense(16, name="hidden")(x)
    if kind == "sequential":
        model = keras.Sequential(
            [layers.Dense(16, input_shape=[8], name="hidden"), layers.Dense(3, name="out")]
        )
        hidden = model.layers[0].output
    else:
        model = keras.Model(x, layers.Dense(3, name="out")(hidden))
    model.add_loss(0.1 * tf.reduce_mean(tf.square(hidden)))
    model.add_loss(lambda: tf.constant(7.0))
    model.add_metric(tf.reduce_max(hidden), name="highest", aggregation="mean")
    model.add_metric(tf.reduce_min(hidden), name="lowest", aggregation="mean")
    return model


@pytest.mark.parametrize("kind", ["functional", "sequential", "nested"])
def test_added_losses_and_metrics_survive(kind):
    model = with_losses(kind)
    if kind == "nested":
        x = keras.Input([8])
        model = keras.Model(x, layers.Dense(3)(model(x)))

    def evaluate(of):
        of.compile("sgd", LOSS, run_eagerly=True)
        return of.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)

    before = evaluate(model)
    assert before["loss"] > 7 and {"highest", "lowest"} <= set(before)
    pruned = prune(model)
    assert evaluate(pruned) == before
    if kind == "functional":
        assert train(pruned, run_eagerly=False)["sparsity"][-1] == 0.75
    tf_movprune.update_masks(pruned, 4)
    after = evaluate(pruned)
    assert evaluate(tf_movprune.strip_pruning(pruned)) == after != before


def test_stripping_that_fails_leaves_the_model_as_it_was(monkeypatch):
    for make in (graph, OwnStep, lambda: OwnSequence(input_shape=[8])):
        pruned = prune(make())
        pruned.compile(keras.optimizers.SGD(0.1), LOSS, run_eagerly=True)
        tf_movprune.update_masks(pruned, 4)
        masked = pruned(X)
        for step in ("replace_layers", "warn_of_training", "unguard"):
            with monkeypatch.context() as patch:
                patch.setattr(f"tf_movprune.keras2.prune.{step}", lambda *a, **k: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    tf_movprune.strip_pruning(pruned)
        np.testing.assert_array_equal(pruned(X), masked)
        pruned.fit(X, Y, verbose=0, callbacks=[tf_movprune.UpdatePruningStep(8)])
        with pytest.raises(RuntimeError, match=r"nothing refreshes its masks"):
            pruned.fit(X, Y, verbose=0)
        masked = pruned(X)
        np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


def test_pruning_that_fails_leaves_the_model_as_it_was(monkeypatch):
    for make in (graph, OwnStep, lambda: OwnSequence(input_shape=[8])):
        model = make()
        model.compile("sgd", LOSS, run_eagerly=make is not graph)
        model.fit(X, Y, verbose=0)
        with monkeypatch.context() as patch:
            patch.setattr("tf_movprune.keras2.prune.guard_saving", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prune(model)
        model.fit(X, Y, verbose=0)
        assert tf_movprune.pruned_layers(prune(model))


@pytest.mark.parametrize("make", [graph, OwnStep, lambda: OwnSequence(input_shape=[8])])
def test_parts_of_a_stripped_model_are_models(make):
    pruned = prune(make())
    tf_movprune.update_masks(pruned, 4)
    stripped = tf_movprune.strip_pruning(pruned)
    features = keras.Model(stripped.input, stripped.layers[-2].output)
    np.testing.assert_array_equal(stripped.layers[-1](features(X)), stripped(X))
    head = layers.Dense(2)(stripped.layers[-2].output)
    assert keras.Model(stripped.input, head)(X).shape == (16, 2)
    assert [len(layer.inbound_nodes) for layer in stripped.layers[-2:]] == [1, 2] or all(
        layer.input is not None for layer in stripped.layers[-2:]
    )


def test_parts_of_a_stripped_model_that_was_loaded_are_models(tmp_path):
    pruned = prune(graph())
    pruned.save(tmp_path / "pruned.keras")
    with tf_movprune.prune_scope():
        pruned = keras.models.load_model(tmp_path / "pruned.keras")
    tf_movprune.update_masks(pruned, 4)
    masked = pruned(X)
    stripped = tf_movprune.strip_pruning(pruned)
    features = keras.Model(stripped.input, stripped.layers[-2].output)
    np.testing.assert_array_equal(stripped.layers[-1](features(X)), masked)


def test_a_cloned_model_gives_back_the_one_it_was_cloned_from():
    model = graph()
    pruned = prune(model)
    tf_movprune.update_masks(pruned, 4)
    assert tf_movprune.strip_pruning(pruned) is model


def test_the_same_layers_are_pruned_once():
    model = graph()
    pruned = prune(model)
    with pytest.raises(ValueError, match=r"'hidden' is pruned already, in another model"):
        prune(model)
    with pytest.raises(ValueError, match=r"'hidden' is pruned already"):
        PruneLowMovement(model.get_layer("hidden"), tf_movprune.CubicSparsity(0.5, 0, 2))
    tf_movprune.update_masks(pruned, 4)
    tf_movprune.strip_pruning(pruned)
    prune(model)


def test_layers_of_a_pruned_model_that_was_dropped_are_pruned_again():
    gc.freeze()  # what other tests left takes seconds to look through
    try:
        model = graph()
        prune(model)
        gc.collect()
    finally:
        gc.unfreeze()
    prune(model)


def test_layers_that_another_model_took_over_from_a_dropped_one_are_not_pruned_again():
    def taken_over(base):
        pruned = prune(base)
        x = y = keras.Input([8])
        for layer in pruned.layers[1:]:
            y = layer(y)
        return keras.Model(x, y)

    gc.freeze()
    try:
        base = graph()
        model = taken_over(base)
        gc.collect()
    finally:
        gc.unfreeze()
    train(model)
    with pytest.raises(ValueError, match="pruned already, in another model"):
        prune(base)


def test_an_unbuilt_model_is_not_stripped():
    pruned = prune(keras.Sequential([layers.Dense(4, name="hidden"), layers.Dense(2)]))
    with pytest.raises(ValueError, match=r"hidden' is not built yet.* Call it"):
        tf_movprune.strip_pruning(pruned)
    pruned(X)
    tf_movprune.update_masks(pruned, 4)
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


class Pair(layers.Layer):
    """Makes its weights where it is called, and one of them in `build`."""

    def __init__(self):
        super().__init__(name="pair")
        self.first, self.second = layers.Dense(8, name="first"), layers.Dense(8, name="second")

    def build(self, shape):
        self.scale = self.add_weight("scale", [shape[-1]])
        super().build(shape)

    def call(self, x):
        return self.second(self.first(x) + self.scale)


class Eager(layers.Layer):
    """Has no graph, so that a Sequential model of it has none."""

    def __init__(self):
        super().__init__(dynamic=True)

    def call(self, x):
        return x


class Calls(keras.Model):
    def __init__(self):
        super().__init__(name="calls")
        self.first = layers.Dense(8, name="first")
        self.inner, self.out = lazy(), layers.Dense(3, name="out")

    def call(self, x):
        return self.out(self.inner(self.first(x)))


def lazy(*inside):
    hidden = layers.Dense(8, "relu", name="hidden")
    return keras.Sequential([hidden, *inside, layers.Dense(3, name="out")], name="lazy")


UNBUILT = {
    "sequential": lazy,
    "sequential in sequential": lambda: keras.Sequential([lazy(), layers.Dense(3, name="top")]),
    "subclass of sequential": OwnSequence,
    "composite": lambda: lazy(Pair()),
    "recurrent": lambda: lazy(layers.Reshape([4, 2]), layers.LSTM(4, name="lstm")),
    "without a graph": lambda: lazy(Eager()),
    "subclassed": Calls,
}


@pytest.mark.parametrize("kind", UNBUILT)
def test_what_was_built_while_it_was_pruned_is_what_it_is_without_pruning(kind, tmp_path):
    """Building is left to the first call, of the pruned model or of a plain one."""
    plain, model = UNBUILT[kind](), UNBUILT[kind]()
    plain(X[:4])
    pruned = prune(model, pruning_policy=Everything())
    pruned(X[:4])
    tf_movprune.update_masks(pruned, 4)
    masked = pruned(X)
    stripped = tf_movprune.strip_pruning(pruned)
    assert stripped is model and stripped.built
    assert [w.name for w in stripped.weights] == [w.name for w in plain.weights]
    plain(X)  # its open axes, too, come from the calls
    assert shapes_of(stripped.save_spec()) == shapes_of(plain.save_spec())
    stripped.save_weights(tmp_path / "plain.weights.h5")
    plain.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(plain(X), masked)
    if type(model) is keras.Sequential and kind in ("sequential", "sequential in sequential"):
        stripped.save(tmp_path / "plain.keras")
        np.testing.assert_array_equal(keras.models.load_model(tmp_path / "plain.keras")(X), masked)


def shapes_of(specs):
    return [spec.shape.as_list() for spec in tf.nest.flatten(specs)]


def test_graphs_of_all_kinds_of_calls_are_cloned():
    x, y = keras.Input([6, 8], name="x"), keras.Input([6, 8], name="y")
    shared = layers.Dense(8, name="shared")
    h, state = layers.GRU(8, return_state=True, return_sequences=True)(shared(x))
    h = layers.GRU(8, return_sequences=True)(shared(y), initial_state=state) + h
    h = layers.MultiHeadAttention(2, 4, name="attention")(h, value=shared(y), key=h)
    h = layers.Bidirectional(layers.LSTM(4))(tf.concat([h, tf.nn.relu(h)[:, 1:]], axis=1))
    outputs = {"a": layers.Dense(2, name="a")(h), "b": [layers.Dense(3, name="b")(h), h]}
    model = keras.Model({"x": x, "y": y}, outputs)
    values = {"x": np.ones([2, 6, 8], "float32"), "y": np.full([2, 6, 8], 0.5, "float32")}
    clone = replace_layers(model, {id(shared): layers.Dense(8, name="shared", weights=None)})
    clone.get_layer("shared").set_weights(shared.get_weights())
    assert clone is not model and clone.name == model.name
    for a, b in zip(tf.nest.flatten(model(values)), tf.nest.flatten(clone(values))):
        np.testing.assert_array_equal(a, b)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]
    assert clone.input_names == model.input_names and clone.output_names == model.output_names
    assert [w.shape for w in clone.weights] == [w.shape for w in model.weights]


def test_settings_of_a_model_are_taken_over():
    with keras.utils.custom_object_scope({}):
        keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            model = graph()
        finally:
            keras.mixed_precision.set_global_policy("float32")
    base = keras.Sequential([layers.Dense(16, input_shape=[8]), layers.Dense(16)], name="base")
    base.trainable = False
    base.layers[1].trainable = True
    x = keras.Input([8])
    frozen = keras.Model(x, layers.Dense(3, name="end")(base(x)))
    for each in (model, frozen):
        pruned = prune_by_magnitude(each)
        assert pruned.dtype_policy.name == each.dtype_policy.name
        assert pruned.output_names == each.output_names
        assert len(pruned.trainable_weights) == len(each.trainable_weights)


def prune_by_magnitude(model):
    ramp = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=4)
    return tf_movprune.prune_low_movement(model, ramp, tf_movprune.Magnitude())


def test_metrics_of_a_subclassed_model_stay_single():
    class Tracking(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.out = layers.Dense(8), layers.Dense(3)
            self.tracker = keras.metrics.Mean(name="tracker")

        def call(self, x):
            return self.out(self.first(x))

    model = Tracking()
    model(X)
    pruned = prune(model)
    assert [metric.name for metric in pruned.metrics] == ["tracker"]
    tf_movprune.update_masks(pruned, 4)
    assert len(tf_movprune.strip_pruning(pruned).metrics) == 1


def test_what_was_added_to_a_pruned_clone_stays():
    pruned = prune(graph())
    pruned.note = "added later"
    pruned.add_loss(lambda: tf.constant(2.0))
    tf_movprune.update_masks(pruned, 4)
    stripped = tf_movprune.strip_pruning(pruned)
    assert stripped.note == "added later" and [float(x) for x in stripped.losses] == [2.0]
    with pytest.raises(ValueError, match="was stripped: save what"):
        pruned.save_weights("/nowhere")


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_a_pruned_model_strips(tmp_path):
    pruned = prune(graph())
    tf_movprune.update_masks(pruned, 4)
    pruned.save(tmp_path / "folder", save_format="tf")
    with tf_movprune.prune_scope():
        loaded = keras.models.load_model(tmp_path / "folder")
    masked = loaded(X)
    stripped = tf_movprune.strip_pruning(loaded)
    np.testing.assert_array_equal(stripped(X), masked)
    assert stripped.count_params() == graph().count_params()


def test_stripping_twice():
    pruned = prune(with_losses("functional"))
    tf_movprune.update_masks(pruned, 4)
    stripped = tf_movprune.strip_pruning(pruned)
    outputs = stripped(X)
    with pytest.raises(ValueError, match=r"was stripped already: use what"):
        tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(X), outputs)
