"""Contracts of the functions over parts that tf_keras and tfmot keep private."""

import contextlib
import copy
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.sparsity import keras as tfmot

from tf_movprune.core.kernel_usage import watch_reads
from tf_movprune.keras2 import compat


def dense_chain():
    return keras.Sequential(
        [keras.layers.Dense(3, name="first", input_shape=(4,)), keras.layers.Dense(2, name="last")]
    )


def functional():
    inputs = keras.Input([4], name="x")
    hidden = keras.layers.Dense(3, name="hidden")
    return keras.Model(inputs, [hidden(inputs), keras.layers.ReLU(name="end")(hidden(inputs))])


def attention():
    layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)
    layer(tf.zeros([1, 5, 4]), tf.zeros([1, 6, 8]))
    return layer


def test_register_gives_a_name_that_loads():
    @compat.register
    class Example(keras.layers.Layer):
        pass

    assert compat.registered_name(Example) == "tf_movprune>Example"
    assert keras.saving.get_registered_object("tf_movprune>Example") is Example


def test_check_keras_object_names_the_other_keras():
    compat.check_keras_object(keras.layers.Dense(1))
    with pytest.raises(TypeError, match=r"Expected a tf_keras model, a layer or .*, got int"):
        compat.check_keras_object(3)
    import keras as keras3

    with pytest.raises(TypeError, match=r"Dense is a Keras 3 object, .* build"):
        compat.check_keras_object(keras3.layers.Dense(1))


@pytest.mark.parametrize(
    "layer, names",
    [
        (keras.layers.Dense(1), ["kernel"]),
        (type("Mine", (keras.layers.Conv2D,), {})(1, 1), ["kernel"]),
        (keras.layers.SeparableConv1D(1, 1), ["pointwise_kernel"]),
        (keras.layers.Dropout(0.5), []),
    ],
)
def test_registered_kernels(layer, names):
    assert compat.registered_kernels(layer) == names


def test_keras_attributes_are_those_of_any_layer():
    class Mine(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(2)

    layer = Mine()
    layer.inner(tf.zeros([1, 3]))
    assert [name for name in vars(layer) if not compat.is_keras_attribute(layer, name)] == ["inner"]
    inner = layer.inner
    own = {name for name in vars(inner) if not compat.is_keras_attribute(inner, name)}
    assert {"kernel", "bias", "units"} <= own


def test_keras_attributes_leave_the_names_of_models_alone():
    keras.backend.clear_session()
    compat._keras_attributes.cache_clear()
    assert compat.is_keras_attribute(keras.Model(name="any"), "history")
    assert keras.Sequential().name == "sequential" and keras.Model().name == "model"


def test_unchanged_losses():
    class Adds(keras.layers.Layer):
        def call(self, x):
            self.add_loss(tf.reduce_sum(x))
            return x

    model = keras.Sequential([Adds(), Adds()])
    model(tf.ones([1, 2]))
    before = model.losses
    with compat.unchanged_losses(model):
        model(tf.zeros([1, 2]))
        assert [float(loss) for loss in model.losses] == [0, 0]
    assert model.losses == before and [float(loss) for loss in before] == [2, 2]


def test_prunable_weights_method():
    class Own(keras.layers.Layer):
        def get_prunable_weights(self):
            return []

    own, dense, gru = Own(), keras.layers.Dense(2), keras.layers.GRU(2)
    dropout = keras.layers.Dropout(0.5)
    layers = (own, dense, gru, dropout)
    for layer in layers:
        tfmot.prune_low_magnitude(layer, input_shape=(3, 4))
    assert all(hasattr(layer, "get_prunable_weights") for layer in layers)
    methods = [compat.prunable_weights_method(layer) for layer in (*layers, None)]
    assert methods == [own.get_prunable_weights, None, None, None, None]


def test_is_tfmot_wrapper():
    dense = keras.layers.Dense(2)
    wrapper = tfmot.prune_low_magnitude(dense, input_shape=(3,))

    class PruneLowMagnitude(keras.layers.Wrapper):
        """One of the same name."""

    assert compat.is_tfmot_wrapper(wrapper)
    assert not any(map(compat.is_tfmot_wrapper, (dense, PruneLowMagnitude(dense), None)))


def test_own_layers_of_keras():
    mine = type("Mine", (keras.layers.Dense,), {})
    assert compat.is_own_layer(keras.layers.Dense(1)) and not compat.is_own_layer(mine(1))


def test_copy_of_books_has_books_of_its_own():
    model = functional()
    for value in (vars(model)["_network_nodes"], vars(model)["_tensor_usage_count"], [1], {2: 3}):
        copied = compat.copy_of_books(value)
        assert type(copied) is type(value) and copied is not value
    listed = [[1]]
    copied = compat.copy_of_books(listed)
    copied.append(2)
    assert listed == [[1]] and copied[0] is listed[0]


def test_copy_of_books_by_identity():
    inner = keras.layers.Dense(1)
    books = copy.copy(vars(inner)["_obj_reference_counts_dict"])
    size = len(books)
    copied = compat.copy_of_books(books)
    copied["key"] = 1
    assert (len(books), len(copied)) == (size, size + 1)


def test_tracked_items_are_in_the_order_of_weights():
    class Pair(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.b = keras.layers.Dense(1, name="a"), keras.layers.Dense(1, name="b")

    pair = Pair()
    pair.a.build([1, 2]), pair.b.build([1, 3])
    items = compat.tracked_items(pair)
    assert items == [pair.a, pair.b]
    compat.reorder_tracked_items(pair, items[::-1])
    assert [tuple(w.shape) for w in pair.weights] == [(3, 1), (1,), (2, 1), (1,)]


def test_adopt_arguments():
    class Wrapper(keras.layers.Wrapper):
        def call(self, *args, **kwargs):
            self.seen = compat.training_argument(self, args, kwargs)
            if not compat.takes_training(self.layer):
                kwargs.pop("training", None)
            return self.layer(*args, **kwargs)

    wrapper = Wrapper(attention())
    compat.adopt_arguments(wrapper, wrapper.layer)
    x, values = tf.ones([1, 5, 4]), tf.ones([1, 6, 8])
    expected = wrapper.layer(x, values)
    np.testing.assert_array_equal(wrapper(x, values), expected)  # by position
    np.testing.assert_array_equal(wrapper(query=x, value=values, training=True), expected)
    assert wrapper.seen is True
    wrapper = Wrapper(keras.layers.Dense(2))
    compat.adopt_arguments(wrapper, wrapper.layer)
    wrapper(x, training=True)
    assert wrapper.seen is True
    wrapper(x)
    assert not wrapper.seen


def test_takes_training():
    assert compat.takes_training(keras.layers.Dropout(0.5))
    assert not compat.takes_training(keras.layers.Dense(1))


def test_calling_layer():
    class Asking(keras.layers.Layer):
        def call(self, x, training=None):
            self.seen = compat.calling_layer(), compat.training_mode()
            return x

    layer = Asking()
    layer(1.0, training=True)
    assert layer.seen == (layer, True)
    assert compat.calling_layer() is None and compat.training_mode() is None


def test_is_building_and_making_a_graph():
    seen = {}

    class Asking(keras.layers.Layer):
        def build(self, shape):
            seen["build"] = compat.is_building(), compat.is_making_graph()

        def call(self, x):
            seen["call"] = compat.is_building(), compat.is_making_graph()
            return x

    Asking()(tf.zeros([1, 2]))
    assert seen == {"build": (True, False), "call": (False, False)}
    Asking()(keras.Input([2]))
    assert seen["call"] == (False, True)
    assert not compat.is_building() and not compat.is_making_graph()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_watch_reads(policy):
    layer = keras.layers.Embedding(4, 2, dtype=policy)
    layer.build(None)
    reads = []
    unwatch = watch_reads(layer.embeddings, lambda: reads.append(1))
    for read in (
        lambda: tf.identity(layer.embeddings),
        lambda: layer.embeddings + 1.0,
        lambda: layer(tf.constant([1])),
        lambda: layer.embeddings.numpy(),
        lambda: tf.function(lambda: layer.embeddings * 1.0)(),
        lambda: tf.gather_nd(layer.embeddings, [[1]]),
    ):
        reads.clear()
        read()
        assert reads
    reads.clear()
    layer.embeddings.assign(tf.ones([4, 2]))
    assert not reads
    unwatch()
    assert float(layer.embeddings[0, 0]) == 1 and not reads


def test_watched_variables_are_freed_at_once():
    variable = tf.Variable([1.0])
    watch_reads(variable, lambda: None)
    reference = weakref.ref(variable)
    gc.disable()
    try:
        del variable
        assert reference() is None
    finally:
        gc.enable()


def test_loss_scale():
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=8)
    assert compat.loss_scale(scaled) == 8.0
    fixed = keras.mixed_precision.LossScaleOptimizer(
        keras.optimizers.SGD(), dynamic=False, initial_scale=8
    )
    assert compat.loss_scale(fixed) is None and compat.loss_scale(keras.optimizers.SGD()) is None


def test_declared_input_shape_makes_the_input_of_a_sequential_model():
    assert compat.declared_input_shape(keras.layers.Dense(1)) is None
    layer = keras.layers.Dense(1)
    compat.declare_input_shape(layer, None)
    assert not keras.Sequential([layer]).built
    layer = keras.layers.Dense(1)
    compat.declare_input_shape(layer, compat.declared_input_shape(dense_chain().layers[0]))
    assert keras.Sequential([layer]).input_shape == (None, 4)


def test_set_precision():
    layer = keras.layers.Dense(1, dtype="mixed_bfloat16")
    compat.set_precision(layer, "float32")
    assert layer(tf.zeros([1, 2])).dtype == tf.float32


def test_lookup_layer_of():
    words, fixed = keras.layers.StringLookup(), keras.layers.StringLookup(vocabulary=["a"])
    (handle,) = words.weights
    assert compat.lookup_layer_of(handle) is words and not fixed.weights
    assert compat.lookup_layer_of(tf.Variable(1.0)) is None


def test_attention():
    layer = attention()
    query, value, key = compat.attention_shapes(layer)
    assert (query[-1], value[-1], key[-1]) == (4, 8, 8)
    assert [tuple(p.kernel.shape) for p in compat.attention_projections(layer)] == [
        *((4, 2, 3), (8, 2, 3), (8, 2, 3)),
        (2, 3, 4),
    ]
    assert compat.head_count(layer) == 2
    assert compat.attention_shapes(keras.layers.MultiHeadAttention(2, 3)) == (None, None, None)


def test_is_graph_network():
    class Subclass(keras.Model):
        pass

    assert compat.is_graph_network(keras.Sequential()) and compat.is_graph_network(functional())
    assert not compat.is_graph_network(Subclass())
    assert not compat.is_graph_network(keras.layers.Dense(1)) and not compat.is_graph_network(None)


def test_nodes_of_a_graph():
    model = functional()
    assert sorted(node.layer.name for node in compat.graph_nodes(model)) == [
        *("end", "hidden", "hidden", "x"),
    ]
    assert compat.graph_nodes(keras.Sequential([keras.layers.Dense(1)])) == []
    hidden, end = compat.output_nodes(model)
    assert (hidden.layer.name, end.layer.name) == ("hidden", "end")
    assert [parent.layer.name for parent in end.parent_nodes] == ["hidden"]
    assert end.parent_nodes != [hidden]
    assert len(compat.call_nodes(model.get_layer("hidden"))) == 2
    assert hidden.call_kwargs == {}


def test_sequential_input_shape():
    model = keras.Sequential([keras.layers.Dense(1)])
    model(tf.zeros([2, 4]))
    assert tuple(compat.sequential_input_shape(model)) == (2, 4)


def test_a_sequential_model_is_built_like_another():
    model, other = (keras.Sequential([keras.layers.Dense(1)]) for _ in range(2))
    compat.builder_like(model)(other)
    assert not other.built
    model(tf.zeros([2, 4]))
    compat.builder_like(model)(other)
    assert other.built and other.save_spec()[0][0].shape.as_list() == [None, 4]
    other(tf.zeros([3, 4]))  # its shape is that of its calls, as before


def test_own_attributes():
    model = functional()
    assert compat.own_attributes(model) == []
    model.note = "mine"
    assert compat.own_attributes(model) == ["note"]
    assert compat.own_attributes(keras.Sequential([keras.layers.Dense(1)])) == []


def test_graph_state_moves_a_graph():
    model, other = functional(), functional()
    x = np.ones([1, 4], np.float32)
    expected = other(x)
    vars(model).update(compat.graph_state(other))
    for got, want in zip(model(x), expected):
        np.testing.assert_array_equal(got, want)
    assert model.layers == other.layers and model.get_config() == {
        **other.get_config(),
        "name": model.name,
    }
    chain = keras.Sequential()
    vars(chain).update(compat.graph_state(dense_chain()))
    assert chain(x).shape == (1, 2) and chain.input_shape == (None, 4)


def test_calls_in_order():
    model = functional()
    hidden = model.get_layer("hidden")
    model.add_loss(tf.reduce_sum(hidden.get_output_at(0)))
    calls = compat.calls_in_order(model)
    for i, (call, _) in enumerate(calls):
        earlier = {id(model.inputs[0].node), *(id(other) for other, _ in calls[:i])}
        assert {id(parent) for parent in call.parent_nodes} <= earlier
    names = [call.layer.name for call, depth in calls if depth >= 0]
    assert sorted(names) == ["end", "hidden", "hidden"] and names[0] == "hidden"
    assert {call.layer.name for call, depth in calls if depth < 0} >= {"add_loss"}


def test_graph_ends_and_input_layers():
    model = functional()
    inputs, outputs = compat.graph_ends(model)
    assert inputs is model.inputs[0] and len(outputs) == 2
    assert [layer.name for layer in compat.input_layers(model)] == ["x"]


def test_insert_losses_and_metrics():
    model = functional()
    model.add_loss(tf.reduce_sum(model.outputs[0]))
    extra = [call for call, depth in compat.calls_in_order(model) if depth < 0]
    twin = keras.Model(model.inputs, model.outputs)
    assert not twin.losses
    compat.insert_losses_and_metrics(twin, extra, [])
    twin(np.ones([1, 4], np.float32))
    assert len(twin.losses) == 1


def test_callable_losses():
    layer = keras.layers.Dense(1)
    layer.add_loss(lambda: 3.0)
    assert [loss() for loss in compat.callable_losses(layer)] == [3.0]


def test_forget_last_call():
    layer = keras.layers.Dense(1)
    first, second = keras.Input([2]), keras.Input([2])
    layer(first), layer(second)
    compat.forget_last_call(layer)
    assert layer.input is first and len(compat.call_nodes(layer)) == 1


def test_batches_done(tmp_path):
    seen, x = [], np.ones([40, 4], np.float32)

    class Stopping(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(compat.batches_done(self.model, 10, epoch))

        def on_train_batch_end(self, batch, logs=None):
            if len(seen) == 1 and batch == 6:
                raise KeyboardInterrupt

    for _ in range(2):
        model = dense_chain()
        model.compile("sgd", "mse")
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[backup, Stopping()])
    assert seen == [0, 6]


def test_forget_functions():
    scale = keras.layers.Lambda(lambda x: x * scale.factor)
    scale.factor = 2.0
    model = keras.Sequential([keras.Input([1]), scale])
    inputs = np.ones([1, 1])
    assert model.predict(inputs, verbose=0) == 2
    scale.factor = 3.0
    assert model.predict(inputs, verbose=0) == 2
    compat.forget_functions(model)
    assert model.predict(inputs, verbose=0) == 3
    compat.forget_functions(scale)  # has none


def test_runs_its_graph():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    class Plain(keras.Model):
        pass

    inputs = keras.Input([4])
    outputs = keras.layers.Dense(1)(inputs)
    assert compat.runs_its_graph(functional()) and compat.runs_its_graph(dense_chain())
    assert compat.runs_its_graph(Plain(inputs, outputs))
    assert not compat.runs_its_graph(Own()) and not compat.runs_its_graph(Own(inputs, outputs))
    model = functional()
    model.call = lambda inputs: inputs
    assert not compat.runs_its_graph(model)


def test_recorded_call_is_the_first():
    class Net(keras.Model):
        def call(self, x, w=None, *, k=None, training=None):
            return x

    model, x = Net(), tf.zeros([2, 4])
    assert compat.recorded_call(model) is None
    model(x, [x, 3.0], k=tf.zeros([5]), training=False)
    model(tf.zeros([7, 9]))
    args, kwargs = compat.recorded_call(model)
    assert [args[0].shape, args[0].name] == [(2, 4), "input_1"]
    assert args[1][0].shape == (2, 4) and args[1][1] is None
    assert kwargs.keys() == {"k"} and kwargs["k"].shape == (5,)
    model = Net()
    model({"b": x, "a": RAGGED}, w=3.0)
    (first,), kwargs = compat.recorded_call(model)
    assert first["b"].name == "b" and isinstance(first["a"], tf.RaggedTensorSpec) and not kwargs


RAGGED = tf.ragged.constant([[1.0], [2.0, 3.0]])


def test_input_type_spec():
    assert isinstance(compat.input_type_spec(keras.Input([3])), tf.TensorSpec)
    assert isinstance(compat.input_type_spec(keras.Input([3], sparse=True)), tf.SparseTensorSpec)
    ragged = compat.input_type_spec(keras.Input([None], ragged=True))
    assert isinstance(ragged, tf.RaggedTensorSpec)


def test_forget_compilation():
    model = dense_chain()
    model.compile("adam", "mse")
    model.fit(np.zeros([2, 4]), np.zeros([2, 2]), verbose=0)
    compat.forget_compilation(model)
    assert model.optimizer is None
    with pytest.raises(RuntimeError, match="compile"):
        model.fit(np.zeros([2, 4]), np.zeros([2, 2]), verbose=0)
    assert "optimizer" not in _checkpointed(model) and "train_function" not in _checkpointed(model)


def _checkpointed(model):
    """Names of what a checkpoint of a model would hold."""
    return model._trackable_children()


def test_added_metrics_are_the_list_that_keras_reads():
    model = dense_chain()
    model.compile("sgd", "mse")
    marker = keras.metrics.Mean(name="marker")
    compat.added_metrics(model).append(marker)
    assert any(metric is marker for metric in model.metrics)


@pytest.mark.parametrize("steps", [1, 4])
def test_steps_per_execution(steps):
    model = dense_chain()
    model.compile("sgd", "mse", steps_per_execution=steps)
    assert compat.steps_per_execution(model) == steps


def test_keras_mask():
    masked = keras.layers.Masking()(tf.constant([[[0.0], [1.0]]]))
    np.testing.assert_array_equal(compat.keras_mask(masked), [[False, True]])
    assert compat.keras_mask(tf.zeros([1])) is None
    error = keras.losses.MeanSquaredError()
    tensor = tf.constant([[[5.0], [1.0]]])
    compat.attach_keras_mask(tensor, tf.constant([[False, True]]))
    assert float(error(tf.zeros_like(tensor), tensor)) == 1.0


def test_learning_rate_of():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert compat.learning_rate_of(keras.optimizers.Adam(schedule)) is schedule
    assert compat.learning_rate_of(object()) is None


def test_was_built_without():
    first, second = tf.Variable(0.0), tf.Variable(0.0)
    optimizer = keras.optimizers.Adam()
    assert not compat.was_built_without(optimizer, first)
    optimizer.build([first])
    assert not compat.was_built_without(optimizer, first)
    assert compat.was_built_without(optimizer, second)
    assert not compat.was_built_without(object(), first)


def test_apply_unclipped_follows_the_step_and_its_rate():
    variable, step = tf.Variable(0.0), tf.Variable(3, dtype=tf.int64)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([2], [100.0, 0.5])
    optimizer = keras.optimizers.SGD(rate, clipvalue=0.1)
    optimizer.build([variable])
    compat.apply_unclipped(optimizer, [(tf.constant(2.0), variable)], step)
    assert float(variable) == -1.0


def test_open_adamw_asks_what_decays_and_hands_over_clipped_gradients():
    class Halved(compat.OpenAdamW):
        def decays(self, variable):
            return variable is decayed

        def apply_clipped(self, grads_and_vars, apply):
            seen.extend(float(gradient) for gradient, _ in grads_and_vars)
            return apply([(0 * gradient, v) for gradient, v in grads_and_vars])

    seen = []
    decayed, other = tf.Variable(1.0), tf.Variable(1.0)
    optimizer = Halved(learning_rate=0.1, weight_decay=0.5, global_clipnorm=1.0)
    optimizer.apply_gradients([(tf.constant(3.0), decayed), (tf.constant(4.0), other)])
    np.testing.assert_allclose(seen, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose([float(decayed), float(other)], [0.95, 1.0], rtol=1e-6)


def test_plain_sgd_has_no_slots():
    variable = tf.Variable(1.0)
    optimizer = compat.PlainSGD(0.5)
    optimizer.build([variable])
    before = len(optimizer.variables)
    optimizer.apply_gradients([(tf.constant(1.0), variable)])
    assert float(variable) == 0.5
    assert len(optimizer.variables) == before < len(_variables_of(keras.optimizers.SGD(0.5)))


def _variables_of(optimizer):
    optimizer.build([tf.Variable(1.0)])
    return list(optimizer.variables)


def test_is_saving(tmp_path):
    seen = []

    class Watching(keras.layers.Layer):
        def call(self, inputs):
            seen.append(compat.is_saving())
            return inputs

    model = keras.Sequential([Watching(input_shape=(2,))])
    model(tf.zeros([1, 2]))
    assert not any(seen)
    model.save(tmp_path / "model", save_format="tf")
    assert seen[-1] and not compat.is_saving()


def test_formats_of_files():
    formats = ["keras", "h5", "h5", "tf"]
    paths = ["a.keras", "a.h5", "a.hdf5", "a"]
    assert [compat.save_format_of(path, None) for path in paths] == formats
    assert compat.save_format_of("a.keras", "tf") == "tf"


def test_the_mode_of_the_outermost_call():
    found, layers, models = [], [], []

    class Inner(keras.layers.Layer):
        def call(self, x, training=None):
            found.append((compat.training_mode(), compat.outermost_training_mode()))
            layers.append(compat.outermost_calling_layer())
            return x

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def call(self, x, training=None):
            return self.inner(x, training=True)

    for mode in (True, False):
        models.append(Outer())
        models[-1](tf.zeros([1, 2]), training=mode)
    assert found == [(True, True), (True, False)]
    assert compat.outermost_training_mode() is None
    assert all(layer is model for layer, model in zip(layers, models, strict=True))
    assert compat.outermost_calling_layer() is None


def test_all_variables_are_those_of_the_optimizer_too():
    model = dense_chain()
    assert len(compat.all_variables(model)) == len(model.weights)
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    assert len(compat.all_variables(model)) > len(model.weights)
