"""What exports promise for models of either Keras."""

import functools
import logging

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras.layers import TFSMLayer

import tf_movprune
from tf_movprune.core.named_weights import PARTS

pytest.importorskip("zstandard")
RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal([2, 64]).astype("float32")
Z = RANDOM.standard_normal([2, 6, 3]).astype("float32")
IDS = RANDOM.randint(0, 99, [2, 12]).astype("int32")
TOKENS = {
    "token_ids": IDS,
    "segment_ids": np.zeros_like(IDS),
    "padding_mask": np.repeat([np.arange(12) < 7], 2, axis=0).astype("int32"),
}


def sequential(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input([64], name="x"),
            layers.Dense(48, "relu"),
            layers.Dense(48, "tanh"),
            layers.Dense(3, name="out"),
        ]
    )


def functional(keras):
    layers = keras.layers
    x, z = keras.Input([64], name="x"), keras.Input([None, 3], name="z")
    joined = layers.Concatenate()([layers.Dense(40)(x), layers.GlobalAveragePooling1D()(z)])
    hidden = layers.Dense(48, "relu")(joined)
    outputs = [layers.Dense(2, name="first")(hidden), layers.Dense(5, name="second")(hidden)]
    return keras.Model([x, z], outputs)


def with_dicts(keras):
    layers = keras.layers
    inputs = {"z": keras.Input([None, 3], name="z"), "x": keras.Input([64], name="x")}
    pooled = layers.GlobalAveragePooling1D()(inputs["z"])
    hidden = layers.Dense(48, "relu")(layers.Concatenate()([pooled, inputs["x"]]))
    hidden = layers.Dense(48, "relu")(hidden)
    return keras.Model(inputs, {"b": layers.Dense(2)(hidden), "a": hidden})


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(48, "relu"), keras.layers.Dense(48, "relu")
            self.head = keras.layers.Dense(3)

        def call(self, x):
            hidden = self.second(self.first(x))
            return {"hidden": hidden, "logits": self.head(hidden)}

    model = Net()
    model(X)
    return model


def bert(keras):
    keras_hub = pytest.importorskip("keras_hub")
    if keras.__name__ != "keras":
        pytest.skip("KerasHub's models are of Keras 3")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=99,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=40,
    )
    return keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)


MODELS = {  # model, inputs, names of outputs
    "sequential": (sequential, {"x": X}, ["out"]),
    "functional": (functional, {"x": X, "z": Z}, ["first", "second"]),
    "with dicts": (with_dicts, {"x": X, "z": Z}, ["a", "b"]),
    "subclassed": (subclassed, {"x": X}, ["hidden", "logits"]),
    "bert": (bert, TOKENS, ["logits"]),
}


@pytest.fixture(params=MODELS)
def case(request, keras):
    make, inputs, names = MODELS[request.param]
    return lambda: make(keras), inputs, names


def pruned(model, keep=0.3):
    schedule = tf_movprune.CubicSparsity(1 - keep, begin_step=0, end_step=2)
    model = tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 2)
    return model


def stripped(make):
    return tf_movprune.strip_pruning(pruned(make()))


def outputs_of(model, inputs, names):
    """Outputs by name."""
    call = inputs if isinstance(getattr(model, "input", None), dict) else list(inputs.values())
    if len(inputs) == 1:
        (call,) = inputs.values()
    found = model(call, training=False)
    if not isinstance(found, dict):
        found = dict(zip(names, found if isinstance(found, list | tuple) else [found]))
    return {name: np.array(value) for name, value in found.items()}


def arrays_of(model):
    return [np.array(weight) for weight in model.weights]


def assert_close(found, expected, atol):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol)


def test_saved_model(case, tmp_path):
    make, inputs, names = case
    model = stripped(make)
    expected = outputs_of(model, inputs, names)
    report = tf_movprune.export_saved_model(model, tmp_path / "saved", inputs=inputs)
    loaded = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    found = loaded(**{name: tf.constant(array) for name, array in inputs.items()})
    assert_close(found, expected, 1e-6)
    assert sorted(report.outputs) == names and sorted(report.inputs) == sorted(inputs)
    assert all(shape[0] is None for shape in report.inputs.values())
    stored = tf.train.list_variables(str(tmp_path / "saved" / "variables" / "variables"))
    sizes = [np.prod(shape) for name, shape in stored if name.endswith("VARIABLE_VALUE")]
    weights = sum(weight.size for weight in arrays_of(model))
    assert weights <= sum(sizes) < 1.1 * weights  # each once, and the seeds of dropout
    layer = TFSMLayer(tmp_path / "saved")
    found = layer(inputs if len(inputs) > 1 else inputs["x"])  # by name, in any order
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize(
    ("quantization", "calibrated", "atol"),
    [
        (None, False, 1e-5),
        ("int8", False, 0.1),
        ("int4", False, 0.4),
        pytest.param("int8", True, 0.2, marks=pytest.mark.slow),
    ],
)
def test_tflite(case, quantization, calibrated, atol, tmp_path):
    make, inputs, names = case
    model = stripped(make)
    expected, before = outputs_of(model, inputs, names), arrays_of(model)
    path = tmp_path / "model.tflite"
    lengths = [array.shape[1] for name, array in inputs.items() if name != "x"]
    report = tf_movprune.export_tflite(
        model,
        path,
        batch_size=2,
        **({"sequence_length": lengths[0]} if lengths else {}),
        quantization=quantization,
        inputs=inputs,
        calibration=inputs if calibrated else None,
    )
    interpreter = Interpreter(model_path=str(path))
    assert sorted(d["name"] for d in interpreter.get_input_details()) == sorted(inputs)
    assert sorted(d["name"] for d in interpreter.get_output_details()) == names
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    assert {name: tuple(details[name]["shape"]) for name in details} == {
        name: array.shape for name, array in inputs.items()
    }
    assert_close(runner(**inputs), expected, atol)
    assert report.max_abs_diff < atol and report.quantization == quantization
    assert report.calibration_rows == (2 if calibrated else None)
    if quantization is not None:
        kept = sum(matrix.remaining for matrix in report.matrices)
        large = [a for a in before if a.ndim > 1 and a.size >= 1024]
        assert 0 < kept <= sum(np.count_nonzero(a) for a in before)
        assert {m.dtype for m in report.matrices} - {"float32"} == (
            {quantization} if large else set()
        )
    assert all((a == b).all() for a, b in zip(arrays_of(model), before))


def test_onnx(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    make, inputs, names = case
    model = stripped(make)
    expected, before = outputs_of(model, inputs, names), arrays_of(model)
    path = tmp_path / "model.onnx"
    for quantization, atol in ((None, 1e-5), ("int8", 0.1)):
        report = tf_movprune.export_onnx(model, path, quantization=quantization, inputs=inputs)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert sorted(i.name for i in session.get_inputs()) == sorted(inputs)
        for rows in (2, 1):  # any number of rows
            found = session.run(names, {name: array[:rows] for name, array in inputs.items()})
            cut = {name: array[:rows] for name, array in expected.items()}
            assert_close(dict(zip(names, found)), cut, atol)
        assert report.max_abs_diff < atol and report.quantization == quantization
        assert {m.dtype for m in report.matrices} == {quantization or "float32"}
    assert all((a == b).all() for a, b in zip(arrays_of(model), before))


def test_compressed(case, tmp_path):
    make, inputs, names = case
    model = stripped(make)
    report = tf_movprune.export_compressed(model, tmp_path / "model", quantization=None)
    fresh = make()
    assert tf_movprune.load_compressed(tmp_path / "model", fresh) is fresh
    assert all((a == b).all() for a, b in zip(arrays_of(model), arrays_of(fresh), strict=True))
    assert_close(outputs_of(fresh, inputs, names), outputs_of(model, inputs, names), 0)
    held = tf_movprune.load_compressed(tmp_path / "model")
    assert [a.shape for a in held.values()] == [a.shape for a in arrays_of(model)]
    assert report.total.total == model.count_params() and report.parts["layers"].total > 0
    int8 = tf_movprune.export_compressed(model, tmp_path / "int8")
    tf_movprune.load_compressed(tmp_path / "int8", fresh)
    assert int8.bytes < report.bytes
    for a, b in zip(arrays_of(model), arrays_of(fresh)):
        np.testing.assert_allclose(b, a, rtol=0, atol=int8.max_abs_error)


def test_size_report(case):
    make, _, _ = case
    model = stripped(make)
    table = tf_movprune.size_report(model).as_dict()
    assert table["dense float32"]["all"] == 4 * model.count_params()
    for sizes in table.values():
        assert sizes["all"] == sum(sizes[part] for part in PARTS)
    names = [w.name if w.name.endswith(":0") else w.path for w in model.weights]
    embedded = sum(a.size for n, a in zip(names, arrays_of(model)) if "embeddings" in n.split("/"))
    assert table["dense float32"]["embeddings"] == 4 * embedded
    assert table["compressed float32"]["layers"] < 0.6 * table["dense float32"]["layers"]


@pytest.mark.parametrize(
    "export",
    [
        lambda model, path: tf_movprune.export_saved_model(model, path),
        lambda model, path: tf_movprune.export_tflite(model, path),
        lambda model, path: tf_movprune.export_onnx(model, path),
        lambda model, path: tf_movprune.export_compressed(model, path),
        lambda model, path: tf_movprune.size_report(model),
        lambda model, path: tf_movprune.load_compressed(path, model),
    ],
)
@pytest.mark.parametrize("make", [sequential, subclassed])
def test_pruned_models_are_refused(keras, make, export, tmp_path):
    with pytest.raises(ValueError, match=r"still .*strip_pruning\(model\)"):
        export(pruned(make(keras)), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def precision_of(keras):
    """The function that sets the precision of new layers."""
    if keras.__name__ == "tf_keras":
        return keras.mixed_precision.set_global_policy
    return keras.config.set_dtype_policy


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("make", [sequential, functional])
def test_mixed_precision_computes_in_float32(keras, policy, make, tmp_path):
    inputs = {"x": X, "z": Z} if make is functional else {"x": X}
    full = make(keras)
    set_policy = precision_of(keras)
    set_policy(policy)
    try:
        model = make(keras)
    finally:
        set_policy("float32")
    model.set_weights(full.get_weights())
    before = outputs_of(model, inputs, ["a", "b"])
    path = tmp_path / "model.tflite"
    sizes = {"batch_size": 2, **({"sequence_length": 6} if make is functional else {})}
    tf_movprune.export_tflite(model, path, quantization=None, **sizes)
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    names = ["first", "second"] if make is functional else ["out"]
    assert_close(runner(**inputs), outputs_of(full, inputs, names), 1e-5)
    assert model.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    assert_close(outputs_of(model, inputs, ["a", "b"]), before, 0)


def test_open_axes_stay_open(keras, tmp_path):
    model = functional(keras)
    report = tf_movprune.export_saved_model(model, tmp_path / "open")
    assert report.inputs == {"x": (None, 64), "z": (None, None, 3)}
    report = tf_movprune.export_saved_model(model, tmp_path / "fixed", 6, 2)
    assert report.inputs == {"x": (2, 64), "z": (2, 6, 3)}
    with pytest.raises(ValueError, match="no open axis"):
        tf_movprune.export_saved_model(sequential(keras), tmp_path / "none", 6)


def test_arguments_of_a_call_are_inputs(keras, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.table, self.head = keras.layers.Embedding(99, 8), keras.layers.Dense(3)

        def call(self, ids, scale=None):
            hidden = self.head(self.table(ids))
            return hidden if scale is None else hidden * scale

    model, scale = Net(), np.full([2, 1, 1], 3, "float32")
    model(IDS)
    given = {"ids": IDS, "scale": scale}
    tf_movprune.export_tflite(model, tmp_path / "x", quantization=None, batch_size=2, inputs=given)
    runner = Interpreter(model_path=str(tmp_path / "x")).get_signature_runner()
    assert runner.get_input_details()["ids"]["dtype"] == np.int32
    assert_close(runner(**given), {"output_0": np.array(model(IDS, scale))}, 1e-5)


def test_models_that_were_never_called_are_refused(keras, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.head = keras.layers.Dense(3)

        def call(self, x):
            return self.head(x)

    with pytest.raises(ValueError, match=r"inputs of 'net' are not known. Call the model once"):
        tf_movprune.export_saved_model(Net(), tmp_path / "x")
    with pytest.raises(ValueError, match=r"'net' has no weights. Call the model once"):
        tf_movprune.export_compressed(Net(), tmp_path / "x")


def test_another_model_stays_as_it_is(keras, tmp_path):
    tf_movprune.export_compressed(sequential(keras), tmp_path / "x")
    other = functional(keras)
    before = arrays_of(other)
    with pytest.raises(ValueError, match=r"weights in .* are not those of"):
        tf_movprune.load_compressed(tmp_path / "x", other)
    assert all((a == b).all() for a, b in zip(arrays_of(other), before))


def test_what_preprocessing_learned_is_loaded(keras, tmp_path):
    def make(words, numbers):
        look_up, normalize = keras.layers.StringLookup(), keras.layers.Normalization()
        look_up.adapt(words)
        normalize.adapt(numbers)
        word, number = keras.Input([1], dtype="string", name="w"), keras.Input([2], name="n")
        embedded = keras.layers.Embedding(9, 4)(look_up(word))
        joined = keras.layers.Concatenate()([keras.layers.Flatten()(embedded), normalize(number)])
        return keras.Model([word, number], keras.layers.Dense(2)(joined))

    words, numbers = np.array([["b"], ["ü"], ["ü"]]), RANDOM.uniform(3, 9, [3, 2])
    model = make(words, numbers.astype("float32"))
    fresh = make(np.array([["x"], ["y"]]), np.ones([3, 2], "float32"))
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    tf_movprune.load_compressed(tmp_path / "x", fresh)
    batch = [tf.constant(words), tf.constant(numbers, tf.float32)]
    np.testing.assert_array_equal(np.array(fresh(batch)), np.array(model(batch)))


@pytest.mark.parametrize(
    "export",
    [
        tf_movprune.export_tflite,
        tf_movprune.export_saved_model,
        functools.partial(tf_movprune.export_onnx, quantization="int8"),
    ],
)
def test_logging_stays_as_it_was(export, keras, tmp_path, monkeypatch):
    root, theirs = logging.getLogger(), logging.getLogger("absl")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(theirs, "level", logging.NOTSET)
    export(sequential(keras), tmp_path / "model")
    assert root.handlers == [] and theirs.level == logging.NOTSET
