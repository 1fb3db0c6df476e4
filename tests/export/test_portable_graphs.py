"""SavedModels whose graphs have no operation that other tools lack."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tf_movprune
from tf_movprune.export.portable_graphs import make_portable


def operations(path):
    """The types of all operations in the graphs of a SavedModel."""
    saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    found = set()
    for meta_graph in saved_model.meta_graphs:
        found.update(node.op for node in meta_graph.graph_def.node)
        for function in meta_graph.graph_def.library.function:
            found.update(node.op for node in function.node_def)
    return found


def test_exact_gelu_is_of_erf(keras, tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input([5], name="x"), layers.Dense(7, "gelu"), layers.Dense(3, "gelu")]
    )
    x = np.random.RandomState(0).normal(0, 3, [50, 5]).astype("float32")
    report = tf_movprune.export_saved_model(model, tmp_path / "saved", atol=1e-6, inputs={"x": x})
    assert report.max_abs_diff <= 1e-6
    assert "Erf" in operations(tmp_path / "saved")
    assert "Erfc" not in operations(tmp_path / "saved")


def gelu(x):
    return tf.nn.gelu(x, approximate=False)


class Functions(tf.Module):
    """Functions with the exact GELU in branches, loops, and functions of functions."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        inner = tf.function(gelu)
        branch = tf.cond(x[0] > 0, lambda: gelu(x), lambda: gelu(-x) + inner(x))
        loop = tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, gelu(x)), (0, x))[1]
        finite = tf.reduce_all(tf.math.is_finite(x))
        with tf.control_dependencies([tf.debugging.Assert(finite, ["Inf and NaN"])]):
            direct = gelu(tf.identity(x))
        return {"branch": branch, "loop": loop, "direct": direct, "twice": inner(direct)}


def test_every_graph_is_searched(tmp_path):
    module = Functions()
    tf.saved_model.save(module, str(tmp_path))
    before = (tmp_path / "fingerprint.pb").read_bytes()
    make_portable(tmp_path)
    assert {"Erf", "Assert"} <= operations(tmp_path) and "Erfc" not in operations(tmp_path)
    assert (tmp_path / "fingerprint.pb").read_bytes() != before
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for x in (np.linspace(-4, 4, 99), np.linspace(4, -4, 99)):
        x = tf.constant(x, tf.float32)
        for name, expected in module.serve(x).items():
            np.testing.assert_allclose(loaded(x=x)[name], expected, rtol=0, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Inf and NaN"):
        loaded(x=tf.constant([np.nan, 1.0]))


def test_assertions_can_be_left_out(tmp_path):
    module = Functions()
    tf.saved_model.save(module, str(tmp_path))
    make_portable(tmp_path, keep_assertions=False)
    assert not {"Erfc", "Assert"} & operations(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    x = tf.linspace(-4.0, 4.0, 99)
    for name, expected in module.serve(x).items():
        np.testing.assert_allclose(loaded(x=x)[name], expected, rtol=0, atol=1e-6)
    assert np.isnan(loaded(x=tf.constant([np.nan, 1.0]))["direct"][0])


def test_assertions_of_bert(tmp_path):
    from berts import stripped_bert

    bert = stripped_bert()
    tf_movprune.export_saved_model(bert, tmp_path / "with")
    assert "Assert" in operations(tmp_path / "with")
    tf_movprune.export_saved_model(bert, tmp_path / "without", keep_assertions=False, atol=1e-6)
    assert "Assert" not in operations(tmp_path / "without")


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(tf.float16, 5e-3), (tf.bfloat16, 3e-2), (tf.float64, 1e-13)]
)
def test_other_precisions(dtype, rtol, tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": gelu(x)}, input_signature=[tf.TensorSpec([None], dtype, name="x")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    make_portable(tmp_path)
    assert "Erfc" not in operations(tmp_path)
    x = tf.cast(tf.linspace(-2.0, 2.0, 99), dtype)
    found = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](x=x)["y"]
    assert found.dtype == dtype
    expected = gelu(tf.cast(x, tf.float64))
    np.testing.assert_allclose(tf.cast(found, tf.float64), expected, rtol=rtol, atol=1e-30)


def test_tails_of_other_uses_stay(tmp_path):
    """1 − erf(x) is 0 from x = 4 on, and erfc(x) is not."""
    module = tf.Module()
    scale = tf.constant(0.70710678)
    module.serve = tf.function(
        lambda x: {
            "log": tf.math.log(tf.math.erfc(x)),
            "normal": tf.math.log(0.5 * tf.math.erfc(-x * scale)),
            "both": gelu(x) + tf.math.erfc(x),
        },
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    make_portable(tmp_path)
    assert {"Erf", "Erfc"} <= operations(tmp_path)
    x = tf.constant([-9.0, -5.0, 0.0, 5.0, 9.0])
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    for name, expected in module.serve(x).items():
        np.testing.assert_allclose(loaded(x=x)[name], expected, rtol=1e-6, atol=1e-6)
        assert np.isfinite(expected).all()


def test_graphs_without_it_stay_as_they_are(tmp_path):
    module = tf.Module()
    module.serve = tf.function(tf.math.erf, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(tmp_path))
    before = (tmp_path / "saved_model.pb").read_bytes()
    make_portable(tmp_path, keep_assertions=False)
    assert (tmp_path / "saved_model.pb").read_bytes() == before
