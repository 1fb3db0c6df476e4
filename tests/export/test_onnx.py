"""ONNX files: what they hold, what they compute, and what is refused."""

import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from berts import stripped_bert

import tf_movprune
from tf_movprune.export.onnx_files import conversion
from tf_movprune.export.onnx_files.quantization import _check_zeros

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
IDS = np.random.RandomState(0).randint(1, 99, [2, 12]).astype("int32")
TOKENS = {
    "input_ids": IDS,
    "attention_mask": np.repeat([np.arange(12) < 7], 2, axis=0).astype("int32"),
    "token_type_ids": np.zeros_like(IDS),
}


@pytest.fixture(scope="module")
def bert():
    return stripped_bert()


@pytest.fixture(scope="module")
def files(bert, tmp_path_factory):
    """The reports on a BERT's files, by quantization."""
    folder = tmp_path_factory.mktemp("onnx")
    return {
        quantization: tf_movprune.export_onnx(
            bert, folder / f"{quantization}.onnx", quantization=quantization, inputs=TOKENS
        )
        for quantization in (None, "int8")
    }


def run(path, inputs, **options):
    settings = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(settings, name, value)
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))


def dense_kernels(model):
    """The kernels of a BERT that are multiplied with, by the shape and the number of non-zeros."""
    kernels = [weight.numpy() for weight in model.weights if "/kernel:" in weight.name]
    return sorted((kernel.shape, np.count_nonzero(kernel)) for kernel in kernels)


def test_bert(bert, files):
    report = files[None]
    assert report.inputs == dict.fromkeys(TOKENS, (None, None))
    assert report.outputs == {"logits": (None, 2)} and report.max_abs_diff <= 1e-6
    shorter = {name: array[:1, :9] for name, array in TOKENS.items()}
    for inputs in (TOKENS, shorter):
        found = run(report.path, inputs)["logits"]
        np.testing.assert_allclose(found, bert(inputs).logits, rtol=0, atol=1e-6)
    onnx.checker.check_model(onnx.load(report.path), full_check=True)


def test_zeros_are_counted(bert, files):
    """Without empty neurons: their zeros go with them."""
    report = files[None]
    counted = sum(matrix.remaining for matrix in report.matrices)
    kept = [remaining for shape, remaining in dense_kernels(bert)]
    assert len(report.matrices) == len(kept)
    assert 0.9 * sum(kept) < counted <= sum(kept)
    attention = sorted(m.remaining for m in report.matrices if m.shape == (32, 32))
    assert attention == sorted(n for shape, n in dense_kernels(bert) if shape == (32, 32))


def test_nothing_is_left_out_unless_asked(tmp_path):
    model = dense(tf_keras, tf_keras.layers.Dense(8, "relu"))
    kernel, bias = model.layers[0].get_weights()
    kernel[:, :3] = 0
    model.layers[0].set_weights([kernel, bias])
    path = tmp_path / "x.onnx"
    whole = tf_movprune.export_onnx(model, path, shrink=False, verify=False)
    assert [(m.shape, m.remaining) for m in whole.matrices] == [((4, 8), 20), ((8, 3), 24)]
    assert whole.max_abs_diff is whole.max_abs_output is None and whole.removed == {}
    smaller = tf_movprune.export_onnx(model, path)
    assert [(m.shape, m.remaining) for m in smaller.matrices] == [((4, 5), 20), ((5, 3), 15)]
    assert smaller.removed["neurons"] == (3, 8)


def test_empty_neurons_are_left_out(bert, files):
    removed, total = files[None].removed["neurons"]
    assert removed > 0 and total == 128
    widths = [m.shape[1] for m in files[None].matrices if m.shape[0] == 32 and m.shape[1] > 32]
    assert sum(widths) == total - removed


def test_int8_keeps_zeros(files):
    plain = {m.name: m for m in files[None].matrices}
    assert files["int8"].bytes < files[None].bytes
    assert [m.name for m in files["int8"].matrices] == list(plain)
    for matrix in files["int8"].matrices:
        before = plain[matrix.name]
        assert matrix.dtype == "int8" and matrix.bytes == before.bytes / 4
        assert 0.9 * before.remaining <= matrix.remaining <= before.remaining


def test_int8_is_right_on_every_processor(files):
    """Two products of 8-bit numbers overflow 16 bits, in which processors without VNNI add them."""
    graph = onnx.load(files["int8"].path).graph
    values = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(values) == len(files["int8"].matrices)
    assert all(np.abs(array.astype(int)).max() <= 64 for array in values)


def test_runtimes_know_the_exact_gelu(files, tmp_path):
    run(files[None].path, TOKENS, optimized_model_filepath=str(tmp_path / "optimized.onnx"))
    operations = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operations.count("Gelu") == 2 and "Erf" not in operations


class Products(tf_keras.layers.Layer):
    """Products with constants, and with each other, as einsums of all kinds."""

    EQUATIONS = (
        ("abcd,de->abce", (4, 5)),
        ("abcd,ed->abce", (5, 4)),
        ("abcd,cde->abe", (3, 4, 5)),
        ("abcd,dec->abe", (4, 5, 3)),
        ("abcd,cdef->abef", (3, 4, 5, 6)),
        ("abcd,def->abcef", (4, 5, 6)),
        ("abcd,bde->abce", (2, 4, 5)),  # shares an axis
        ("abcd,de->eabc", (4, 5)),  # puts axes in another order
        ("abcd,ae->bcde", (1, 5)),  # contracts the first
        ("abcd,bef->acd", (2, 5, 6)),  # sums
        ("...d,de->...e", (4, 5)),
        ("ABCD,CDE->ABE", (3, 4, 5)),
    )

    def build(self, shape):
        self.kernels = [
            self.add_weight(f"kernel_{i}", kernel, initializer="normal")
            for i, (_, kernel) in enumerate(self.EQUATIONS)
        ]

    def call(self, x):
        products = [tf.einsum(e, x, kernel) for (e, _), kernel in zip(self.EQUATIONS, self.kernels)]
        return [*products, tf.einsum("abcd,abed->abce", x, x)]


def test_einsums(tmp_path):
    first = tf_keras.Input([2, 3, 4], batch_size=1, name="x")
    model = tf_keras.Model(first, Products()(first))
    x = np.random.RandomState(0).normal(size=[1, 2, 3, 4]).astype("float32")
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", inputs={"x": x})
    assert report.max_abs_diff < 1e-6
    shapes = sorted(matrix.shape for matrix in report.matrices)
    for shape in ((4, 5), (12, 5), (12, 30), (4, 30), (1, 5)):
        assert shape in shapes
    held = sum(onnx.numpy_helper.to_array(t).size for t in onnx.load(report.path).graph.initializer)
    assert held < 1.5 * model.count_params()  # each once


def test_erfc_outside_of_gelu_is_refused(keras, tmp_path):
    """1 − erf(x) has no tails, and ONNX has no erfc."""

    class Tail(keras.layers.Layer):
        def call(self, x):
            return tf.math.log(tf.math.erfc(-x * 0.7)) + tf.nn.gelu(x, approximate=False)

    model = dense(keras, Tail(name="tail"))
    with pytest.raises(ValueError, match=r"it has no operation Erfc \(.*tail.*\)"):
        tf_movprune.export_onnx(model, tmp_path / "x.onnx")


def test_what_is_not_chosen_does_not_count(keras, tmp_path):
    class Guarded(keras.layers.Layer):
        def call(self, x):
            return tf.where(x == 0, 0.0, 1 / x) + tf.where(tf.abs(x) < 9, tf.exp(x * x), 7.0)

    first = keras.Input([4], name="x")
    model = keras.Model(first, Guarded()(first))
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx")
    [found] = run(report.path, {"x": np.array([[-100, 0, 1, 100]], "float32")}).values()
    np.testing.assert_allclose(found, [[6.99, 1, 1 + np.e, 7.01]], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_negative_integers(dtype, keras, tmp_path):
    class Integers(keras.layers.Layer):
        def call(self, x):
            return {
                **{f"{y}_quotient".replace("-", "minus_"): x // y for y in (3, -3)},
                **{f"{y}_remainder".replace("-", "minus_"): x % y for y in (3, -3)},
                "one_hot": tf.one_hot(x, 4),
            }

    first, layer = keras.Input([None], name="x", dtype=dtype), Integers()
    model = keras.Model(first, layer(first))
    x = np.array([[-100, -7, -6, -3, -2, -1, 0, 1, 2, 3, 4, 100]], dtype)
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", inputs={"x": np.abs(x)})
    found = run(report.path, {"x": x})
    assert found["minus_3_quotient"].dtype == dtype
    for name, expected in layer.call(tf.constant(x)).items():
        np.testing.assert_array_equal(found[name], expected, name)


def test_captured_constants(keras, tmp_path):
    class Scale(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.scale, self.unused = tf.constant([1.0, 2.0]), tf.constant(3.0)

        def call(self, x):
            return tf.cond(x[0, 0] > 0, lambda: x * self.scale, lambda: x - self.scale)

    x, unread = keras.Input([2], name="x"), keras.Input([3], name="unread")
    model = keras.Model([x, unread], Scale()(x))
    inputs = {"x": np.ones([1, 2], "float32"), "unread": np.ones([1, 3], "float32")}
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", inputs=inputs)
    assert [i.name for i in onnx.load(report.path).graph.input] == ["x", "unread"]
    [found] = run(report.path, {**inputs, "x": -inputs["x"]}).values()
    np.testing.assert_array_equal(found, [[-2, -3]])


def test_convolutions_and_recurrent_layers(keras, tmp_path):
    layers = keras.layers
    x, z = keras.Input([12, 12, 3], name="x"), keras.Input([6, 4], name="z")
    conv = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    conv = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(conv))
    hidden = layers.Concatenate()([conv, layers.LSTM(5)(z), layers.GRU(3)(z)])
    model = keras.Model([x, z], layers.Dense(2)(hidden))
    for quantization, atol in ((None, 1e-5), ("int8", 0.1)):
        path = tmp_path / f"{quantization}.onnx"
        report = tf_movprune.export_onnx(model, path, quantization=quantization)
        assert report.max_abs_diff < atol


def pruned(model):
    """A model with weights of which half are 0."""
    random = np.random.RandomState(0)
    model.set_weights([w * (random.uniform(size=w.shape) > 0.5) for w in model.get_weights()])
    return model


def recurrent(keras, width, layer, times=1):
    first = x = keras.Input([6, width], name="x")
    for _ in range(times):
        x = layer(x)
    return pruned(keras.Model(first, x))


def test_int8_of_recurrent_layers(keras, tmp_path):
    layers = keras.layers
    for model in (
        recurrent(keras, 7, layers.LSTM(4)),
        recurrent(keras, 16, layers.LSTM(4)),  # a square kernel
        recurrent(keras, 6, layers.Bidirectional(layers.LSTM(5))),
        recurrent(keras, 7, layers.LSTM(7, return_sequences=True), times=2),
    ):
        report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", quantization="int8")
        assert report.max_abs_diff < 0.05


class Kernels(tf_keras.layers.Layer):
    """Kernels that are more than a matrix to multiply with."""

    def build(self, shape):
        self.stack = self.add_weight("stack", [3, 16, 5], initializer="normal")
        self.table = self.add_weight("table", [16, 16], initializer="normal")

    def call(self, x):
        rows = tf.gather(self.table, tf.argmax(x, -1))
        return tf.matmul(x[:, None], self.stack), tf.matmul(x, self.table) + rows


def test_int8_of_stacks_and_of_tables_to_multiply_with(tmp_path):
    first = tf_keras.Input([6, 16], name="x")
    model = tf_keras.Model(first, Kernels()(first))
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", quantization="int8")
    assert report.max_abs_diff < 0.05
    assert [matrix.shape for matrix in report.matrices] == [(16, 16)]


def test_convolutions_stay_float32_in_int8(keras, tmp_path):
    """ONNX Runtime would quantize their inputs on the way, and be several times slower."""
    layers = keras.layers
    x = keras.Input([12, 12, 3], name="x")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3)(x))
    model = keras.Model(x, layers.Dense(2)(pooled))
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", quantization="int8")
    operations = [node.op_type for node in onnx.load(report.path).graph.node]
    assert "Conv" in operations and "ConvInteger" not in operations
    assert [matrix.dtype for matrix in report.matrices] == ["int8"]


def test_a_model_is_traced_once(keras, tmp_path):
    calls = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            calls.append(tf.executing_eagerly())
            return 2 * x

    model = dense(keras, Counted())
    calls.clear()
    tf_movprune.export_onnx(model, tmp_path / "x.onnx")
    assert sorted(calls) == [False, True]  # and called once, to compare


def test_fixed_sizes(keras, tmp_path):
    model = keras.Sequential([keras.Input([None, 3], name="x"), keras.layers.Dense(2)])
    report = tf_movprune.export_onnx(model, tmp_path / "x.onnx", sequence_length=12, batch_size=2)
    assert report.inputs == {"x": (2, 12, 3)}
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    assert [i.shape for i in session.get_inputs()] == [[2, 12, 3]]


def dense(keras, *before):
    return keras.Sequential([keras.Input([4], name="x"), *before, keras.layers.Dense(3)])


def test_operations_that_onnx_lacks_are_named(keras, tmp_path):
    class Layer(keras.layers.Layer):
        def call(self, x):
            return tf.math.lgamma(tf.abs(x)) + tf.math.igamma(tf.abs(x), tf.abs(x))

    model = dense(keras, Layer(name="strange"))
    with pytest.raises(ValueError, match=r"no operation .*Lgamma \(.*strange.*Igamma \(.*strange"):
        tf_movprune.export_onnx(model, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_outputs_with_names_of_inputs_are_refused(keras, tmp_path):
    class Named(keras.Model):
        def call(self, inputs):
            return {"x": 2 * inputs["x"], "y": inputs["x"]}

    model, x = Named(name="net"), {"x": np.ones([1, 2], "float32")}
    model(x)
    with pytest.raises(ValueError, match=r"outputs \['x'\] of 'net' have names of inputs, "):
        tf_movprune.export_onnx(model, tmp_path / "x.onnx", inputs=x)
    assert not list(tmp_path.iterdir())


def test_strings_and_states_are_refused(keras, tmp_path):
    word = keras.Input([1], dtype="string", name="word")
    look_up = keras.layers.StringLookup(vocabulary=["a", "b"])
    strings = keras.Model(word, keras.layers.Embedding(3, 2)(look_up(word)))
    with pytest.raises(ValueError, match=r"\['word'\].* are strings, which ONNX files"):
        tf_movprune.export_onnx(strings, tmp_path / "x.onnx")
    first = keras.Input(batch_shape=[2, 3, 4], name="x")
    keeping = keras.Model(first, keras.layers.LSTM(5, stateful=True)(first))
    with pytest.raises(ValueError, match=r"changes variables .* which ONNX files cannot"):
        tf_movprune.export_onnx(keeping, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantization": "float16"}, ValueError, r"quantization must be None or 'int8'"),
        ({"shrink": 1}, TypeError, r"shrink must be True or False"),
        ({"sequence_length": 7}, ValueError, r"no open axis"),
        ({"inputs": {"y": np.ones([1, 4])}}, ValueError, r"'y'"),
    ],
)
def test_wrong_arguments(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tf_movprune.export_onnx(dense(tf_keras), tmp_path / "x.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_wrong_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"must end in '.onnx'"):
        tf_movprune.export_onnx(dense(tf_keras), tmp_path / "x.tflite")
    with pytest.raises(ValueError, match=r"which export_onnx writes"):
        tf_movprune.export_tflite(dense(tf_keras), tmp_path / "x.onnx")


def test_what_differs_is_not_written(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"old")
    model = dense(tf_keras, tf_keras.layers.Dense(50, "tanh"))
    with pytest.raises(RuntimeError, match=r"was not written: its 'dense.*would differ"):
        tf_movprune.export_onnx(model, path, quantization="int8", atol=1e-9)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_more_weights_than_a_file_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "_MAX_BYTES", 59)
    with pytest.raises(ValueError, match=r"one ONNX file holds 2\.1 GB at most"):
        tf_movprune.export_onnx(dense(tf_keras), tmp_path / "x.onnx")
    monkeypatch.setattr(conversion, "_MAX_BYTES", 60)
    tf_movprune.export_onnx(dense(tf_keras), tmp_path / "x.onnx")


@pytest.mark.parametrize("missing", ["tf2onnx", "onnxruntime"])
def test_missing_packages_are_named(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}: pip install tf2onnx onnxruntime"):
        tf_movprune.export_onnx(dense(tf_keras), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_zeros_that_would_be_lost_are_refused():
    from onnx import helper, numpy_helper

    def model(**arrays):
        tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        return helper.make_model(helper.make_graph([], "g", [], [], tensors))

    plain = model(w=np.array([[0, 1], [2, 0]], "float32"))
    right = np.array([[5, 64], [64, 0]], "int8")
    scales = {"w_zero_point": np.array([5, 0], "int8")}
    _check_zeros(plain, model(w_quantized=right, **scales))
    with pytest.raises(RuntimeError, match=r"would make zeros of 'w' other numbers"):
        _check_zeros(plain, model(w_quantized=right + 1, **scales))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Roberta", "DebertaV3", "GPT2", "ViT", "Gemma3", "Llama"])
def test_families_of_keras_hub(family, tmp_path):
    families = pytest.importorskip("keras_hub_families")
    model = families.backbone(family)
    inputs = families.inputs_of(model)
    inputs = {name: np.array(value) for name, value in inputs.items()} if family != "ViT" else None
    for quantization, atol in ((None, 1e-5), ("int8", 0.3)):
        path = tmp_path / "x.onnx"
        report = tf_movprune.export_onnx(model, path, quantization=quantization, inputs=inputs)
        assert report.max_abs_diff < atol
        assert {matrix.dtype for matrix in report.matrices} == {quantization or "float32"}
