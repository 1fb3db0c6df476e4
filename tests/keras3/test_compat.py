"""Contracts of the functions over parts that Keras 3 keeps private."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_movprune.keras3 import compat


def dense_chain():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input([4], name="x"), layers.Dense(3, name="first"), layers.Dense(2, name="last")]
    )


def functional():
    inputs = keras.Input([4], name="x")
    hidden = keras.layers.Dense(3, name="hidden")
    return keras.Model(inputs, [hidden(inputs), keras.layers.ReLU(name="end")(hidden(inputs))])


def dense(units=2, inputs=4, **arguments):
    layer = keras.layers.Dense(units, **arguments)
    layer.build([None, inputs])
    return layer


class Outer(keras.layers.Layer):
    """A layer with weights of its own and one inside it."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale")
        self.count = self.add_weight(name="count", trainable=False)
        self.inner = keras.layers.Dense(2)
        self.inner.build(shape)


def outer():
    layer = Outer()
    layer.build([None, 4])
    return layer


class Net(keras.Model):
    """A model whose class says how it runs."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(2)

    def call(self, x, y=None):
        return self.inner(x)


class Plain(keras.Model):
    """A model whose class changes nothing."""


def names(layers):
    return [layer.name for layer in layers]


def test_check_backend(monkeypatch):
    compat.check_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for check in (compat.check_backend, lambda: compat.check_keras_object(Net())):
        with pytest.raises(RuntimeError, match=r"runs on 'jax'\. Set KERAS_BACKEND=tensorflow"):
            check()


def test_check_keras_object():
    compat.check_keras_object(keras.layers.Dense(1))
    compat.check_keras_object(Net(), keras.Model)
    with pytest.raises(TypeError, match=r"Expected a Keras model or layer, got int\."):
        compat.check_keras_object(3)
    with pytest.raises(TypeError, match=r"got the class Dense\. Make an object of it\."):
        compat.check_keras_object(keras.layers.Dense)
    with pytest.raises(TypeError, match=r"Expected a model, got Dense\."):
        compat.check_keras_object(keras.layers.Dense(1), keras.Model, "a model")


# ---- variables


def test_is_variable():
    assert compat.is_variable(dense().kernel)
    others = (tf.Variable(1.0), tf.zeros([2]), keras.Input([2]), np.ones(2), None)
    assert not any(map(compat.is_variable, others))


def test_tensorflow_variable_is_read_in_its_own_precision():
    class Reading(keras.layers.Dense):
        def call(self, x):
            seen.append(tf.identity(compat.tensorflow_variable(self.kernel)).dtype)
            return super().call(x)

    seen = []
    layer = Reading(2, use_bias=False, dtype="mixed_bfloat16")
    assert layer(tf.ones([1, 3])).dtype == tf.bfloat16 and seen[-1] == tf.float32
    variable = compat.tensorflow_variable(layer.kernel)
    assert isinstance(variable, tf.Variable)
    variable.assign(tf.ones([3, 2]))
    np.testing.assert_array_equal(keras.ops.cast(layer(tf.ones([1, 3])), "float32"), [[3, 3]])


def test_all_variables_are_those_of_the_optimizer_too():
    model = dense_chain()
    model.add(keras.layers.Dropout(0.5))  # has a state that is no weight
    found = compat.all_variables(model)
    assert len(found) == len(model.weights) + 1
    assert all(isinstance(variable, tf.Variable) for variable in found)
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    assert len(compat.all_variables(model)) == len(found) + len(model.optimizer.variables)


def test_resize_keeps_the_variable():
    layer = dense(use_bias=False)
    kernel, path = layer.kernel, layer.kernel.path
    compat.resize(kernel, np.full([3, 5], 2, "float32"))
    assert layer.weights[0] is kernel is layer.kernel and kernel.path == path
    assert kernel.shape == (3, 5) and kernel.dtype == "float32" and kernel.trainable
    layer.input_spec = None
    np.testing.assert_array_equal(layer(tf.ones([1, 3])), [[6] * 5])
    kernel.assign(np.ones([3, 5]))
    np.testing.assert_array_equal(layer(tf.ones([1, 3])), [[3] * 5])


def test_emptier_stops_functions_that_were_traced_with_what_was_resized():
    first, second = dense(), dense()
    functions = [tf.function(lambda x, layer=layer: layer(x)) for layer in (first, second)]
    x = tf.ones([1, 4])
    before = [function(x) for function in functions]
    empty = compat.emptier([*first.weights, *second.weights])
    compat.resize(first.kernel, first.kernel.numpy() + 1)
    np.testing.assert_array_equal(functions[0](x), before[0])  # by the old value
    empty()
    with pytest.raises(tf.errors.InvalidArgumentError):
        functions[0](x)
    np.testing.assert_array_equal(functions[1](x), before[1])
    np.testing.assert_allclose(first(x), before[0] + 4, rtol=1e-6)


def test_restorer():
    layer = dense()
    variable, before = compat.tensorflow_variable(layer.kernel), layer.kernel.numpy()
    restore = compat.restorer(layer.weights)
    compat.resize(layer.kernel, np.ones([3, 5], "float32"))
    restore()
    assert layer.kernel.shape == (4, 2) and compat.tensorflow_variable(layer.kernel) is variable
    np.testing.assert_array_equal(layer.kernel, before)


def test_books_restorer(tmp_path):
    model = keras.Sequential([dense()])
    model.compile("sgd")
    names = _names_in_checkpoint(model, tmp_path / "before")
    attributes, restore = dict(vars(model)), compat.books_restorer(model)
    compat.forget_compilation(model)
    assert _names_in_checkpoint(model, tmp_path / "forgotten") < names
    vars(model).update(attributes)
    restore()
    assert _names_in_checkpoint(model, tmp_path / "after") == names


def test_penalty():
    regularizer = compat.Penalty(lambda x: 3 * tf.reduce_sum(x))
    layer = dense(kernel_initializer="ones", kernel_regularizer=regularizer)
    assert [float(loss) for loss in layer.losses] == [24]


# ---- checkpoints


def test_hold_in_checkpoints(tmp_path):
    layer, other, extra = dense(), tf.Variable(5.0), tf.Variable(7.0)
    names = _names_in_checkpoint(layer, tmp_path / "plain")
    compat.hold_in_checkpoints(layer, {"_kernel": other, "extra": extra})
    held = _names_in_checkpoint(layer, tmp_path / "held")
    assert held == names - {"_kernel/_value"} | {"_kernel", "extra"}
    assert layer._lookup_dependency("extra") is extra
    assert layer._lookup_dependency("bias") is layer.bias
    assert "extra" not in layer._trackable_children("savedmodel")
    kernel = layer.kernel.numpy()
    other.assign(0), extra.assign(0), layer.bias.assign([1, 1])
    tf.train.Checkpoint(layer=layer).read(str(tmp_path / "held")).assert_consumed()
    assert (float(other), float(extra)) == (5, 7)
    np.testing.assert_array_equal(layer.bias, [0, 0])
    np.testing.assert_array_equal(layer.kernel, kernel)
    compat.hold_nothing_else_in_checkpoints(layer)
    assert layer._lookup_dependency("extra") is None
    assert _names_in_checkpoint(layer, tmp_path / "plain again") == names
    compat.hold_nothing_else_in_checkpoints(layer)  # has none


def _names_in_checkpoint(layer, path):
    """The places of a layer's variables in a checkpoint of it."""
    tf.train.Checkpoint(layer=layer).write(str(path))
    found = [name for name, _ in tf.train.list_variables(str(path))]
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    return {name[len("layer/") : -len(end)] for name in found if name.endswith(end)}


# ---- masks


def test_keras_mask():
    masked = keras.layers.Masking()(tf.constant([[[0.0], [1.0]]]))
    np.testing.assert_array_equal(compat.keras_mask(masked), [[False, True]])
    assert compat.keras_mask(tf.zeros([1])) is None


def test_losses_follow_the_mask_that_was_attached():
    error, tensor = keras.losses.MeanSquaredError(), tf.constant([[[5.0], [1.0]]])
    assert compat.attach_keras_mask(tensor, tf.constant([[False, True]])) is tensor
    assert float(error(tf.zeros([1, 2, 1]), tensor)) == pytest.approx(1)


# ---- layers


def test_own_attributes():
    layer = outer()
    layer.note, layer._hidden = "mine", 2
    assert own_names(layer) == ["scale", "count", "inner", "note", "_hidden"]
    assert compat.own_attributes(layer)["inner"] is layer.inner
    for model in (dense_chain(), Net()):
        model(tf.ones([1, 4]))
        model.predict_on_batch(np.ones([1, 4]))
        expected = ["inner"] if isinstance(model, Net) else []
        assert own_names(model) == expected


def own_names(layer):
    # TensorFlow may keep books in a layer, too.
    return [name for name in compat.own_attributes(layer) if not name.startswith("_self_")]


def test_own_attributes_leave_the_names_of_models_alone():
    keras.backend.clear_session()
    compat._keras_attributes.cache_clear()
    assert compat.own_attributes(dense()).keys() >= {"units", "activation"}
    assert [keras.Sequential().name, Plain().name] == ["sequential", "plain"]
    assert keras.layers.Layer().name == "layer" and keras.Model().name == "model"


def test_all_layers():
    shared = keras.layers.Dense(4, name="shared")
    inside = keras.Sequential([keras.Input([4]), shared], name="inside")
    x = keras.Input([4], name="x")
    model = keras.Model(x, shared(inside(x)), name="model")
    found = compat.all_layers(model)
    assert found[0] is model and compat.all_layers(shared) == [shared]
    # Keras 3 has the graph inside a Sequential as a layer of the same name.
    assert {"x", "shared", "inside"} <= set(names(found)) and names(found).count("shared") == 1


def test_direct_trainable_weights():
    layer = outer()
    assert [id(v) for v in compat.direct_trainable_weights(layer)] == [id(layer.scale)]
    layer.trainable = False
    assert compat.direct_trainable_weights(layer) == []


def test_open_to_changes_and_untrack():
    layer = dense(name="owner")
    with pytest.raises(ValueError, match="already built"):
        layer.extra = keras.layers.Dense(1)
    with compat.open_to_changes(layer):
        layer.extra = extra = dense(name="extra")
    assert extra.kernel.path == "owner/extra/kernel"
    assert compat.all_layers(layer) == [layer, extra] and len(layer.weights) == 4
    with pytest.raises(ValueError, match="already built"):
        layer.another = keras.layers.Dense(1)
    with compat.open_to_changes(layer):
        compat.untrack(layer, extra)
        del layer.extra
    assert compat.all_layers(layer) == [layer]
    assert [id(v) for v in layer.weights] == [id(layer.kernel), id(layer.bias)]


def test_open_to_changes_leaves_open_what_was_open():
    layer = keras.layers.Layer()
    with compat.open_to_changes(layer):
        pass
    layer.extra = keras.layers.Dense(1)
    assert len(compat.all_layers(layer)) == 2


class Traced(keras.layers.Layer):
    """A layer with a function of TensorFlow that remembers a factor."""

    def __init__(self):
        super().__init__()
        self.factor = 2.0
        self.listed = [tf.function(lambda x: x * self.factor)]

    def call(self, x):
        return self.listed[0](x)


def test_forget_traces():
    layer, x = Traced(), tf.ones([1])
    assert layer(x) == 2
    layer.factor = 3.0
    assert layer(x) == 2
    compat.forget_traces(layer)
    assert layer(x) == 3


def test_forget_all_traces_and_functions():
    traced = Traced()
    model = keras.Sequential([keras.Input([1]), keras.Sequential([traced])])
    x = np.ones([1, 1])
    assert model.predict_on_batch(x) == 2
    traced.factor = 3.0
    assert model.predict_on_batch(x) == 2
    compat.forget_functions(model)  # but not the function inside
    assert model.predict_on_batch(x) == 2
    compat.forget_all_traces(model)
    assert model.predict_function is None
    assert model.predict_on_batch(x) == 3


def test_forget_functions():
    class Scale(keras.layers.Layer):
        factor = 2.0

        def call(self, x):
            return x * self.factor

    scale = Scale()
    model = keras.Sequential([keras.Input([1]), scale])
    model.compile(loss="mae")
    x = np.ones([1, 1])
    assert (model.predict_on_batch(x), model.test_on_batch(x, x)) == (2, 1)
    scale.factor = 3.0
    assert (model.predict_on_batch(x), model.test_on_batch(x, x)) == (2, 1)
    compat.forget_functions(model)
    model.reset_metrics()
    assert (model.predict_on_batch(x), model.test_on_batch(x, x)) == (3, 2)
    compat.forget_functions(scale)  # has none


def test_forget_functions_of_training_and_of_generating():
    model, language_model = dense_chain(), dense_chain()
    language_model.generate_function = len  # as KerasHub's models alone have
    for each in (model, language_model):
        each.train_function = each.predict_function = len
        compat.forget_functions(each)
        assert each.train_function is each.predict_function is None
    assert language_model.generate_function is None and not hasattr(model, "generate_function")


def test_is_graph_network():
    x = keras.Input([4])
    graphs = (functional(), dense_chain(), Plain(x, keras.layers.ReLU()(x)))
    assert all(map(compat.is_graph_network, graphs))
    others = (keras.Sequential([keras.layers.Dense(1)]), Net(), keras.layers.Dense(1), None)
    assert not any(map(compat.is_graph_network, others))


def test_runs_its_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    x = keras.Input([4])
    y = keras.layers.ReLU()(x)
    assert all(map(compat.runs_its_graph, (functional(), dense_chain(), Plain(x, y))))
    others = (Own(x, y), Net(), keras.Sequential([keras.layers.Dense(1)]))
    assert not any(map(compat.runs_its_graph, others))
    model = functional()
    model.call = lambda x: x
    assert not compat.runs_its_graph(model)


def test_graph_inputs_are_nested_as_in_the_call():
    a, b = keras.Input([1], name="a"), keras.Input([2], name="b")
    y = keras.layers.Concatenate()([a, b])
    by_name = compat.graph_inputs(keras.Model({"b": b, "a": a}, y))
    assert by_name["a"] is a and by_name["b"] is b and len(by_name) == 2
    first, second = compat.graph_inputs(keras.Model([b, a], y))
    assert first is b and second is a
    for model in (functional(), dense_chain()):
        assert compat.graph_inputs(model) is model.inputs[0]


def test_lists_its_layers():
    class Making(keras.Model):
        def __init__(self, width):
            x = keras.Input([width])
            super().__init__(x, keras.layers.ReLU()(x))

    class Telling(keras.Model):
        def get_config(self):
            return {}

    x = keras.Input([4])
    y = keras.layers.ReLU()(x)
    assert all(map(compat.lists_its_layers, (functional(), dense_chain(), Plain(x, y))))
    others = (Making(4), Telling(x, y), Net(), keras.Sequential(), keras.layers.Dense(1))
    assert not any(map(compat.lists_its_layers, others))


def test_nodes_of_a_graph():
    model = functional()
    assert sorted(node.operation.name for node in compat.graph_nodes(model)) == [
        *("end", "hidden", "hidden", "x"),
    ]
    found = sorted(node.operation.name for node in compat.graph_nodes(dense_chain()))
    assert found == ["first", "last", "x"]
    hidden, end = compat.output_nodes(model)
    assert hidden.output_tensors[0] is model.outputs[0]
    assert end.output_tensors[0] is model.outputs[1]
    (parent,) = end.parent_nodes
    assert parent.operation is hidden.operation and parent is not hidden
    (last,) = compat.output_nodes(dense_chain())
    assert last.operation.name == "last"


def test_outputs_of_a_graph():
    model, chain = functional(), dense_chain()
    hidden, end = compat.output_operations(model)
    assert hidden is model.get_layer("hidden") and end is model.get_layer("end")
    assert compat.output_operations(chain) == [chain.layers[-1]]
    assert compat.output_names(model) == ["hidden", "end"]
    assert compat.output_names(chain) == ["last"]


def test_input_name():
    assert compat.input_name(keras.Input([3], name="words")) == "words"
    assert [compat.input_name(x) for x in functional().inputs] == ["x"]


def test_set_last_dimension():
    tensor = keras.Input([3, 4])
    compat.set_last_dimension(tensor, 7)
    assert tensor.shape == (None, 3, 7)
    assert keras.layers.Dense(2)(tensor).shape == (None, 3, 2)


def test_set_built_width():
    layer = dense()
    compat.set_built_width(layer, 6)
    other = keras.layers.Dense.from_config(layer.get_config())
    other.build_from_config(layer.get_build_config())
    assert other.kernel.shape == (6, 2)
    assert layer.get_build_config() == {"input_shape": (None, 6)}
    layer = keras.layers.Dense(2)
    compat.set_built_width(layer, 6)
    assert not layer.get_build_config()


def test_recorded_shapes():
    class Named(Net):
        def build(self, x_shape, y_shape=None):
            self.inner.build(x_shape)

    model = Named()
    assert not compat.recorded_shapes(model)
    model(tf.ones([2, 4]), {"a": tf.ones([2, 5])})
    assert compat.recorded_shapes(model) == {"x_shape": (2, 4), "y_shape": {"a": (2, 5)}}


def test_is_built_throughout():
    model = Net()
    model.built = True
    assert not compat.is_built_throughout(model)
    model.inner.build([None, 4])
    assert compat.is_built_throughout(model)
    model.built = False
    assert not compat.is_built_throughout(model)


def test_compute_in_float32():
    x = tf.ones([1, 4])
    layer = keras.layers.Dense(2, dtype="mixed_bfloat16")
    assert layer(x).dtype == tf.bfloat16
    compat.compute_in_float32(layer)
    assert layer(x).dtype == tf.float32
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    layer = keras.layers.Dense(2, dtype=policies)
    compat.compute_in_float32(layer)
    assert layer(x).dtype == tf.float32
    quantized = "int8_from_mixed_bfloat16"
    policies = keras.dtype_policies.DTypePolicyMap(default_policy=quantized)
    for policy in (quantized, policies):
        layer = keras.layers.Dense(2, dtype=policy)
        compat.compute_in_float32(layer)
        assert layer.dtype_policy.name == "int8_from_float32" and layer(x).dtype == tf.float32


def test_lookup_layer():
    for layer in (keras.layers.StringLookup(), keras.layers.IntegerLookup()):
        assert compat.lookup_layer(layer) is layer
    texts = keras.layers.TextVectorization(vocabulary=["a"])
    lookup = compat.lookup_layer(texts)
    assert isinstance(lookup, keras.layers.StringLookup)
    assert lookup.get_vocabulary() == ["", "[UNK]", "a"] == texts.get_vocabulary()
    others = (keras.layers.Hashing(3), keras.layers.Dense(1))
    assert [compat.lookup_layer(layer) for layer in others] == [None, None]


@pytest.mark.parametrize(
    "cls, heads, groups",
    [
        (keras.layers.MultiHeadAttention, (2, 3), None),
        (keras.layers.GroupQueryAttention, (4, 2), 2),
    ],
)
def test_attention_names(cls, heads, groups):
    layer = cls(3, 4, 2) if groups else cls(2, 3)
    layer.build(*((None, 5, width) for width in (6, 7, 8)))
    found = compat.attention_names(cls)
    query, key, value, output = (getattr(layer, name) for name in found.projections)
    assert [p.kernel.shape[0] for p in (query, value, key)] == [6, 7, 8]
    assert output.kernel.shape[-1] == 6
    assert getattr(layer, found.heads) == query.kernel.shape[1] == heads[0]
    if groups:
        assert getattr(layer, found.groups) == key.kernel.shape[1] == groups
    else:
        assert found.groups is None
    mine = type("Mine", (cls,), {})
    assert compat.attention_names(mine) is compat.attention_names(keras.layers.Dense) is None


@pytest.mark.parametrize(
    "cls, sizes",
    [(keras.layers.MultiHeadAttention, (2, 3)), (keras.layers.GroupQueryAttention, (3, 4, 2))],
)
def test_has_gate(cls, sizes):
    assert not compat.has_gate(cls(*sizes)) and not compat.has_gate(keras.layers.Dense(1))
    if "use_gate" not in inspect.signature(cls).parameters:
        pytest.skip("attention of this Keras has no gates")
    assert compat.has_gate(cls(*sizes, use_gate=True))


def test_is_quantized():
    layer = dense(dtype="mixed_bfloat16")
    assert not compat.is_quantized(layer) and not compat.is_quantized(keras.layers.Dropout(0.5))
    layer.quantize("int8")
    assert compat.is_quantized(layer)


# ---- calls


def test_training_modes_and_the_calling_layer():
    class Inner(keras.layers.Layer):
        def call(self, x, training=None):
            seen.append((compat.calling_layer(), *compat.training_modes()))
            return x

    class Outer(keras.Model):
        def __init__(self, **arguments):
            super().__init__()
            self.inner, self.arguments = Inner(), arguments

        def call(self, x):
            x = self.inner(x, **self.arguments)
            seen.append((compat.calling_layer(), *compat.training_modes()))
            return x

    x = tf.zeros([1, 2])
    for told, given, inside in [
        ({"training": True}, False, True),
        ({}, True, True),
        ({}, False, False),
        ({"training": True}, None, True),
        ({"training": False}, None, False),
        ({}, None, None),
    ]:
        model, seen = Outer(**told), []
        model(x) if given is None else model(x, training=given)
        assert seen[-2:] == [(model.inner, inside, given), (model, given, given)]
    assert compat.training_modes() == (None, None) and compat.calling_layer() is None


def test_a_mode_is_the_default_of_a_call():
    class Noisy(keras.layers.Layer):
        def call(self, x, training=True):
            seen.append(compat.training_modes())
            return x

    seen = []
    Noisy()(tf.zeros([1, 2]))
    Noisy()(tf.zeros([1, 2]), training=False)
    assert seen[0] == (True, None) and seen[-1] == (False, False)


def test_modes_that_layers_of_keras_hand_on_are_defaults():
    class Cell(keras.layers.SimpleRNNCell):
        def call(self, x, states, training=None):
            seen.append(compat.training_modes())
            return super().call(x, states, training=training)

    layer, seen = keras.layers.StackedRNNCells([Cell(2)]), []
    x, states = tf.zeros([1, 3]), [tf.zeros([1, 2])]
    layer(x, states)  # calls the cell with training=False
    assert seen[-1] == (None, None)
    layer(x, states, training=False)
    assert seen[-1] == (False, False)


# ---- files


def test_registered_class():
    @keras.saving.register_keras_serializable("compat")
    class Known(keras.layers.Layer):
        pass

    assert compat.registered_class("compat>Known") is Known
    assert compat.registered_class("compat>Unknown") is None
    with keras.saving.custom_object_scope({"compat>Unknown": Net}):
        assert compat.registered_class("compat>Unknown") is Net


def test_register_as():
    @keras.saving.register_keras_serializable("compat")
    class Known(keras.layers.Layer):
        pass

    class Other(Known):
        pass

    compat.register_as(Other, "compat>Known")
    assert keras.saving.get_registered_name(Other) == "compat>Known"
    saved = keras.saving.serialize_keras_object(Other())
    assert type(keras.saving.deserialize_keras_object(saved)) is Known


def test_input_specs():
    x, ids = keras.Input([4], name="x"), keras.Input([3], dtype="int32", name="ids")
    outputs = [keras.layers.Identity()(each) for each in (x, ids)]  # Keras 3.12 needs a layer
    model = keras.Model({"x": x, "ids": ids}, outputs)
    specs, keywords = compat.input_specs(model)
    flat = tf.nest.flatten(specs)
    assert keywords == {} and all(isinstance(spec, tf.TensorSpec) for spec in flat)
    assert {(spec.dtype.name, *spec.shape) for spec in flat} == {
        ("float32", None, 4),
        ("int32", None, 3),
    }
    outputs = tf.function(lambda *args: model(*args)).get_concrete_function(*specs).outputs
    assert [output.dtype for output in outputs] == [tf.float32, tf.int32]
    (given,), _ = compat.input_specs(dense_chain())
    assert given.shape.as_list() == [None, 4]
    model = Net()
    with pytest.raises(ValueError, match=r"built|called"):
        compat.input_specs(model)
    model(tf.ones([2, 4]))
    (given,), _ = compat.input_specs(model)
    assert given.shape.as_list() == [None, 4]


def test_store_variables_once(tmp_path):
    model = dense_chain()
    model.layers[0].trainable = False
    archive = keras.export.ExportArchive()
    archive.track(model)
    compat.store_variables_once(archive)
    function = tf.function(lambda x: model(x))
    archive.add_endpoint("serve", function, [tf.TensorSpec([None, 4])])
    archive.write_out(tmp_path, verbose=False)
    shapes = [shape for _, shape in tf.train.list_variables(str(tmp_path / "variables/variables"))]
    assert sorted(shape for shape in shapes if shape) == [[2], [3], [3, 2], [4, 3]]
    x = tf.ones([1, 4])
    loaded = tf.saved_model.load(tmp_path)
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-6)


# ---- training

ONES, ZEROS = np.ones([1, 4], "float32"), np.zeros([1, 2], "float32")


def test_forget_compilation(tmp_path):
    model = dense_chain()
    before = _names_in_checkpoint(model, tmp_path / "before")
    metrics = names(model.metrics)
    model.compile("sgd", "mse", metrics=["mae"])
    model.test_on_batch(ONES, ZEROS)
    compat.forget_compilation(model)
    assert not model.compiled and getattr(model, "optimizer", None) is None
    assert names(model.metrics) == metrics == [] and model.test_function is None
    with pytest.raises(ValueError, match="compile"):
        model.fit(ONES, ZEROS, verbose=0)
    assert _names_in_checkpoint(model, tmp_path / "after") == before
    model.save_weights(tmp_path / "a.weights.h5")
    assert compat.loss_of(model) is None and compat.metrics_but_losses(model, []) == []
    layer = keras.layers.Dense(1)
    for never_compiled in (dense_chain(), layer):
        compat.forget_compilation(never_compiled)
    assert not hasattr(layer, "compiled")


def test_replace_compile_check():
    def check(*args, **kwargs):
        raise RuntimeError("mine")

    model = dense_chain()
    compat.replace_compile_check(model, check)
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(RuntimeError, match="mine"):
            call(ONES, ZEROS)
    compat.restore_compile_check(model)
    with pytest.raises(ValueError, match="compile"):
        model.train_on_batch(ONES, ZEROS)
    compat.restore_compile_check(model)  # has none


def optimizer_of(variable, cls=keras.optimizers.Adam, **arguments):
    optimizer = cls(**arguments)
    optimizer.build([variable])
    return optimizer


def test_count_together():
    variable = keras.Variable([1.0])
    optimizer, other = optimizer_of(variable), optimizer_of(variable)
    compat.count_together(optimizer, other)
    other.apply([keras.ops.ones([1])], [variable])
    assert int(optimizer.iterations) == int(other.iterations) == 1


def test_variables_without_counter():
    variable = keras.Variable([1.0])
    optimizer, other = optimizer_of(variable), optimizer_of(variable)
    expected = [v for v in optimizer.variables if v is not optimizer.iterations]
    assert len(expected) == 3  # the rate and two moments
    for _ in range(2):
        found = compat.variables_without_counter(optimizer)
        assert list(map(id, found)) == list(map(id, expected))
        compat.count_together(optimizer, other)


def test_was_built_without():
    first, second = keras.Variable([0.0]), keras.Variable([0.0])
    optimizer = keras.optimizers.Adam()
    assert not compat.was_built_without(optimizer, first)
    optimizer.build([first])
    assert not compat.was_built_without(optimizer, first)
    assert compat.was_built_without(optimizer, second)


def test_learning_rate_of():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert compat.learning_rate_of(keras.optimizers.Adam(schedule)) is schedule
    optimizer = keras.optimizers.SGD(0.25)
    assert compat.learning_rate_of(optimizer) == 0.25
    optimizer.learning_rate = 0.5
    assert compat.learning_rate_of(optimizer) == 0.5
    assert isinstance(compat.learning_rate_of(optimizer), float)


def test_loss_of():
    model = dense_chain()
    model.compile("sgd")
    assert compat.loss_of(model) is None
    model.compile("sgd", "mse")
    assert compat.loss_of(model) is not None


def test_task_loss_is_summed_over_the_outputs():
    model = functional()
    model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 10.0])
    labels = [tf.zeros([2, 3])] * 2
    logits = [tf.fill([2, 3], 3.0), tf.fill([2, 3], -2.0)]
    assert float(compat.task_loss(model, labels, logits, None)) == 9 + 20
    weights = [tf.constant([0.0, 1.0]), tf.constant([1.0, 1.0])]
    assert float(compat.task_loss(model, labels, logits, weights)) == 4.5 + 20


def test_metrics_but_losses():
    model = functional()
    mean = keras.metrics.Mean(name="own")
    model.own = mean
    model.compile("sgd", "mse", metrics=[["mae"], []])
    assert names(compat.metrics_but_losses(model, model.metrics)) == ["own"]
    results = model.evaluate(ONES, [np.zeros([1, 3])] * 2, verbose=0, return_dict=True)
    assert results.keys() >= {"loss", "hidden_mae"}
    found = compat.metrics_but_losses(model, model.metrics)
    assert len(found) == 2 and mean in found
    (compiled,) = (metric for metric in found if metric is not mean)
    assert {name: float(value) for name, value in compiled.result().items()} == {
        "hidden_mae": pytest.approx(results["hidden_mae"])
    }
    plain = dense_chain()
    plain.compile("sgd")
    assert compat.metrics_but_losses(plain, plain.metrics) == []


def test_update_compiled_metrics():
    model = dense_chain()
    labels, logits = tf.zeros([2, 2]), tf.constant([[1.0, 1.0], [3.0, 3.0]])
    model.compile("sgd", "mse")
    compat.update_compiled_metrics(model, labels, logits, None, None)  # has none
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    valid, weights = tf.constant([1.0, 0.0]), tf.constant([0.0, 1.0])
    compat.update_compiled_metrics(model, labels, logits, valid, weights)
    assert results_of(model, "mae", "mse") == [1, 9]
    compat.update_compiled_metrics(model, labels, 3 * logits, valid, weights)
    assert results_of(model, "mae", "mse") == [2, 45]  # means
    model.reset_metrics()
    compat.update_compiled_metrics(model, labels, logits, None, None)
    assert results_of(model, "mae", "mse") == [2, 5]


def test_update_compiled_metrics_of_some_outputs():
    model = functional()
    model.compile("sgd", "mse", metrics=[[], ["mae"]])
    labels, logits = [tf.zeros([2, 3])] * 2, [tf.ones([2, 3]), tf.fill([2, 3], 2.0)]
    compat.update_compiled_metrics(model, labels, logits, [None, tf.ones([2])], None)
    assert results_of(model, "end_mae") == [2]


def results_of(model, *names):
    results = model.get_metrics_result()
    return [float(results[name]) for name in names]


def test_scales_loss():
    inner = keras.optimizers.SGD()
    assert compat.scales_loss(keras.optimizers.LossScaleOptimizer(inner))
    assert not compat.scales_loss(inner)
