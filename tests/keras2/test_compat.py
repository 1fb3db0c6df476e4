"""Contracts of the functions over parts that tf_keras and tfmot keep private."""

import copy

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

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

    with pytest.raises(TypeError, match=r"Dense is a Keras 3 object, .* Keras 2: build"):
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
    assert [name for name in vars(layer) if not compat.is_keras_attribute(name)] == ["inner"]
    own = {name for name in vars(layer.inner) if not compat.is_keras_attribute(name)}
    assert {"kernel", "bias", "units"} <= own


def test_keras_attributes_leave_the_names_of_models_alone():
    keras.backend.clear_session()
    compat._keras_attributes.cache_clear()
    assert compat.is_keras_attribute("_metrics")
    assert keras.Sequential().name == "sequential" and keras.Model().name == "model"


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


def test_takes_mask():
    assert compat.takes_mask(keras.layers.GlobalAveragePooling1D())
    assert not compat.takes_mask(keras.layers.Dense(1))


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
