"""Inputs of exports: the arguments of a model's call, under names, or a refusal by name."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from tf_movprune.core.inference import IfOpen
from tf_movprune.keras2.call_arguments import call_arguments
from tf_movprune.keras2.inference import inference_of

X = np.random.RandomState(0).normal(size=[2, 4]).astype(np.float32)
W = np.full([2, 1], 3, np.float32)


def model_of(call, *args, **kwargs):
    """A subclassed model with a `call`, called on arguments; its layer is `self.dense`."""

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.dense = keras.layers.Dense(3)

    Net.call = call
    model = Net()
    if args:
        model(*args, **kwargs)
    return model


def times(self, x, w=None, training=None):
    return self.dense(x) * (1.0 if w is None else w)


CALLS = {
    "required": (lambda self, x, w, training=False: self.dense(x) * w, (X, W), {}),
    "optional": (times, (X, W), {}),
    "by keyword": (times, (X,), {"w": W}),
    "after training": (lambda self, x, training, w: self.dense(x) * w, (X, False, W), {}),
    "keyword only": (lambda self, x, *, w: self.dense(x) * w, (X,), {"w": W}),
    "decorated": (tf.function(lambda self, x, w: self.dense(x) * w), (X, W), {}),
    "a dict": (lambda self, x, w: self.dense(x) * w["b"] + w["a"], (X, {"b": W, "a": -W}), {}),
    "a list": (lambda self, x, w: self.dense(x) * w[1] + w[0][0], (X, [(W,), -W]), {}),
    "a dict first": (lambda self, f: self.dense(f["q"]) * f["p"][0], ({"q": X, "p": [W]},), {}),
    "any number": (
        lambda self, *xs, **more: self.dense(xs[0]) * xs[1] + more["z"],
        (X, W),
        {"z": -W},
    ),
    "the mask": (
        lambda self, x, mask=None: self.dense(x) * tf.cast(mask, tf.float32)[:, None],
        (X,),
        {"mask": tf.constant([True, False])},
    ),
    "no batch": (lambda self, x, w: self.dense(x) * w, (X, np.arange(3.0)), {}),
    "a scalar": (lambda self, x, w: self.dense(x) * w, (X, np.float32(3)), {}),
    "integers": (lambda self, x, w: self.dense(x) * tf.cast(w, tf.float32), (X, W.astype(int)), {}),
    "a variable": (lambda self, x, w: self.dense(x) * w, (X, tf.Variable(W)), {}),
    "the same name": (lambda self, f, w: self.dense(f["w"]) * w, ({"w": X}, W), {}),
}
NAMES = {
    "a dict": ["input_1", "w_a", "w_b"],
    "a list": ["input_1", "w_0_0", "w_1"],
    "a dict first": ["p_1", "q"],
    "any number": ["input_1", "xs_1", "z"],
    "the mask": ["input_1", "mask"],
    "the same name": ["w", "w_1"],
}


@pytest.mark.parametrize("kind", CALLS)
def test_all_tensors_of_a_call_are_inputs(kind):
    call, args, kwargs = CALLS[kind]
    model = model_of(call, *args, **kwargs)
    inference = inference_of(model, None, None)
    assert list(inference.input_shapes) == NAMES.get(kind, ["input_1", "w"])
    assert not inference.constants
    leaves = tf.nest.flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if leaf is not False]
    if kind not in ("a dict", "a list", "a dict first"):
        tensors.sort(key=lambda tensor: tensor.shape != X.shape)
    pairs = zip(inference.specs, tensors, strict=True)
    given = {spec.name: tf.cast(tensor, spec.dtype).numpy() for spec, tensor in pairs}
    expected = model(*args, **kwargs)
    np.testing.assert_allclose(inference.run(given)["output_0"], expected, rtol=0, atol=1e-6)
    last = inference.specs[-1].name
    zero = {**given, last: np.zeros_like(given[last])}
    assert not np.allclose(inference.run(zero)["output_0"], expected)


@pytest.mark.filterwarnings("error:The file is of")
@pytest.mark.parametrize("kind", ["optional", "keyword only", "a dict", "no batch"])
def test_tflite_files_take_them_too(kind, tmp_path):
    call, args, kwargs = CALLS[kind]
    model = model_of(call, *args, **kwargs)
    report = tf_movprune.export_tflite(model, tmp_path / "x.tflite", quantization=None)
    assert list(report.inputs) == NAMES.get(kind, ["input_1", "w"])
    assert report.inputs["input_1"] == (1, 4) and report.max_abs_diff < 1e-6
    run = Interpreter(model_path=str(tmp_path / "x.tflite")).get_signature_runner()
    given = {name: np.ones(shape, np.float32) for name, shape in report.inputs.items()}
    doubled = {name: 2 * x if name != "input_1" else x for name, x in given.items()}
    np.testing.assert_allclose(
        2 * run(**given)["output_0"], run(**doubled)["output_0"], rtol=1e-5, atol=1e-6
    )


def test_the_first_axis_is_open_where_it_is_the_batch():
    call = call_arguments(model_of(lambda self, x, w: self.dense(x) * w, X, np.ones(3, "float32")))
    assert [spec.shape.as_list() for spec in call.specs] == [[None, 4], [3]]
    call = call_arguments(model_of(times, X, W))
    assert [spec.shape.as_list() for spec in call.specs] == [[None, 4], [None, 1]]


RAGGED = tf.ragged.constant([[1.0], [2.0, 3.0]])


def functional(**options):
    inputs = keras.Input(name="left", **options)
    return keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: model_of(times, X, 3.0), "'net' was first .* 'w' that is no tensor.* inputs="),
        (
            lambda: model_of(lambda self, x, a=None, w=None: self.dense(x) * w, X, None, W),
            "argument 'a' that is no tensor",
        ),
        (
            lambda: model_of(lambda self, x, w: self.dense(x), X, [W, 3.0]),
            "argument 'w' that is no tensor, or holds",
        ),
        (
            lambda: model_of(lambda self, x, mode: self.dense(x), X, mode="fast"),
            "cannot be called without the argument 'mode'.* inputs=",
        ),
        (
            lambda: model_of(lambda self, x, w: self.dense(x), X, RAGGED),
            "'w' of 'net' is a RaggedTensor of float32.*from_tensor.* inputs=",
        ),
        (
            lambda: model_of(lambda self, x: self.dense(x.to_tensor(shape=[None, 4])), RAGGED),
            "'x' of 'net' is a RaggedTensor",
        ),
        (
            lambda: model_of(lambda self, x, w: self.dense(x), X, w=tf.sparse.from_dense(W)),
            "'w' of 'net' is a SparseTensor",
        ),
        (lambda: functional(shape=[None], ragged=True), "'left' of 'model.*' is a RaggedTensor"),
        (lambda: functional(shape=[3], sparse=True), "'left' of 'model.*' is a SparseTensor"),
        (
            lambda: functional(type_spec=tf.TensorSpec(None, tf.float32)),
            "number of axes of the input 'left' .* inputs={'left': ",
        ),
        (lambda: model_of(times), "inputs of 'net' are not known. Call the model once .* inputs="),
    ],
)
@pytest.mark.parametrize("export", [tf_movprune.export_saved_model, tf_movprune.export_tflite])
def test_what_cannot_be_an_input_is_refused_by_name(build, message, export, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(build(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def two(self, x, a=None, w=1.0):
    return self.dense(x) * w + (0.0 if a is None else a)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ({"x": X, "w": W}, ["x", "w"]),
        ({"x": X, "w": W.astype("float64")}, ["x", "w"]),
        ({"x": X, "w": [[3.0], [3.0]]}, ["x", "w"]),
        ({"x": X, "a": W}, ["x", "a"]),
        ({"x": X}, ["x"]),
    ],
)
def test_inputs_say_which_arguments_the_file_takes(inputs, names, tmp_path):
    model = model_of(two, X, None, 3.0)  # which an export cannot know
    report = tf_movprune.export_saved_model(model, tmp_path / "x", inputs=inputs)
    assert list(report.inputs) == names and report.inputs["x"] == (None, 4)
    run = tf.saved_model.load(str(tmp_path / "x")).signatures["serving_default"]
    given = {name: tf.constant(value, tf.float32) for name, value in inputs.items()}
    np.testing.assert_allclose(run(**given)["output_0"], model(**given), rtol=0, atol=1e-6)


def test_inputs_say_the_shapes_of_another_call(tmp_path):
    """Keras knows the first call only, and a file of it would take no longer sequences."""

    def call(self, x):
        return self.dense(x["tokens"])

    model = model_of(call, {"tokens": np.ones([2, 5, 4], np.float32)})
    longer = {"x": {"tokens": np.ones([1, 9, 4], np.float32)}}
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None, inputs=longer)
    assert report.inputs == {"x_tokens": (1, 9, 4)}
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None)
    assert report.inputs == {"tokens": (1, 5, 4)}


def test_inputs_of_known_names_are_not_taken_for_arguments(tmp_path):
    model = model_of(lambda self, x: self.dense(x["x"]), {"x": X})
    report = tf_movprune.export_saved_model(model, tmp_path / "x", inputs={"x": X})
    assert report.inputs == {"x": (None, 4)}
    with pytest.raises(ValueError, match="inputs lacks 'x'"):
        tf_movprune.export_saved_model(model, tmp_path / "x", inputs={"y": X})


def test_a_model_that_was_built_without_a_call(tmp_path):
    model = model_of(lambda self, x: self.dense(x))
    model.build([None, 4])
    report = tf_movprune.export_saved_model(model, tmp_path / "x", inputs={"x": X})
    assert report.inputs == {"x": (None, 4)}


@pytest.mark.parametrize(
    ("build", "listed"),
    [
        (lambda: model_of(times, X, w=3.0), "w=None"),
        (lambda: model_of(two, X, w=W), "a=None"),
        (lambda: model_of(lambda self, x, n=2, *, p="a": self.dense(x), X), "n=2, p='a'"),
    ],
)
def test_arguments_that_get_their_defaults_are_named(build, listed, tmp_path):
    with pytest.warns(UserWarning, match=f"'net' called with the defaults {listed}.* inputs="):
        tf_movprune.export_saved_model(build(), tmp_path / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf_movprune.export_saved_model(build(), tmp_path / "x", inputs={"x": X})


def test_a_call_of_a_functional_subclass(tmp_path):
    class Scaled(keras.Model):
        def call(self, x, w=None, training=None):
            return super().call(x) * (1.0 if w is None else w)

    inputs = keras.Input([4], name="features")
    model = Scaled(inputs, keras.layers.Dense(2)(inputs))
    with pytest.warns(UserWarning, match="defaults w=None"):
        report = tf_movprune.export_saved_model(model, tmp_path / "x")
    assert list(report.inputs) == ["features"]
    report = tf_movprune.export_saved_model(model, tmp_path / "x", inputs={"x": X, "w": W})
    assert list(report.inputs) == ["x", "w"]


def test_strings_are_inputs_of_saved_models(tmp_path):
    inputs = keras.Input([3], dtype="string", name="words")
    ids = keras.layers.StringLookup(vocabulary=["a", "b"])(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Embedding(5, 3)(ids)))
    words = {"words": np.array([["a", "b", "c"]])}
    report = tf_movprune.export_saved_model(model, tmp_path / "x", inputs=words)
    assert report.max_abs_diff == 0 and report.inputs == {"words": (None, 3)}
    with pytest.raises(ValueError, match=r"'words' takes strings.* Pass inputs={'words': "):
        tf_movprune.export_saved_model(model, tmp_path / "x")
    with pytest.raises(ValueError, match=r"\['words'\] of 'model.*' are strings, which TFLite"):
        tf_movprune.export_tflite(model, tmp_path / "x.tflite", inputs=words)


@pytest.mark.parametrize("rows", [2, 50])
def test_ids_that_keras_takes_for_floats(rows, tmp_path):
    layers = [keras.layers.Embedding(rows, 4, input_length=3), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    model(np.ones([2, 3]))
    assert model.inputs[0].dtype == tf.float32
    for export in (tf_movprune.export_saved_model, tf_movprune.export_tflite):
        assert export(model, tmp_path / export.__name__).max_abs_diff < 1e-2


def test_models_of_mixed_precision_take_float32_in_all_arguments(tmp_path):
    model = model_of(times)
    for layer in (model, model.dense):
        layer._set_dtype_policy("mixed_float16")
    model(X, W.astype(np.float16))
    report = tf_movprune.export_tflite(model, tmp_path / "x", quantization=None)
    assert report.max_abs_diff < 1e-6 and list(report.inputs) == ["input_1", "w"]


@pytest.mark.filterwarnings("error:The file is of")
def test_subclasses_of_hugging_face_models_take_what_these_take(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Mine(transformers.TFBertModel):
        pass

    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    model = Mine(config)
    model(np.ones([1, 8], np.int32))
    with pytest.raises(ValueError, match=r"at most 20, .*got 128"):
        tf_movprune.export_tflite(model, tmp_path / "x", sequence_length=128)
    report = tf_movprune.export_tflite(model, tmp_path / "x", sequence_length=8)
    assert list(report.inputs) == ["attention_mask", "input_ids", "token_type_ids"]


def test_nested_outputs_of_hugging_face_stay():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        output_hidden_states=True,
    )
    model = transformers.TFBertModel(config)
    model(model.dummy_inputs)
    assert list(inference_of(model, 8, 1).output_shapes) == [
        *("last_hidden_state", "pooler_output", "hidden_states_0", "hidden_states_1"),
    ]


def test_a_default_length_that_fixes_nothing_is_not_checked():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
    )
    model = transformers.TFViTModel(config)
    model(model.dummy_inputs)
    sizes = {"pixel_values": (1, 3, 32, 32)}
    assert inference_of(model, IfOpen(128), 1).input_shapes == sizes
    with pytest.raises(ValueError, match=r"sequence_length is 128, .* pixel_values \(None, 3, 32"):
        inference_of(model, 128, 1)
