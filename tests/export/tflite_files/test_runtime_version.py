"""The oldest runtime of a TFLite file: what is reported, what is asked for, and what runs it.

TF_MOVPRUNE_OLD_TFLITE is a Python with tflite-runtime 2.14; `make test-old-tflite` makes one.
"""

import json
import os
import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from exporting import dense_model, export, prune, random_input
from tensorflow.lite.python import schema_py_generated as schema

import tf_movprune
from tf_movprune.export.tflite_files import flatbuffer
from tf_movprune.export.tflite_files.runtime_version import is_older, min_runtime, require_runtime

OLD = "2.14"


def metadata(path):
    return min_runtime(flatbuffer.read(path.read_bytes()))


def sparse_model(sparsity=0.97, block=(1, 1)):
    model = dense_model(64, 64)
    for seed, layer in enumerate(model.layers[1:]):
        prune(layer, sparsity, block, seed)
    return model


CALIBRATION = {"x": np.random.RandomState(0).normal(size=[32, 8, 64])}
KINDS = {  # options of the export, block size, and the oldest runtime
    "float32": ({"quantization": None}, (1, 1), "2.0.0"),
    "float16": ({"quantization": "float16"}, (1, 1), "2.0.0"),
    "int8": ({"quantization": "int8"}, (1, 1), "2.17.0"),
    "int8, old": ({"quantization": "int8", "runtime": OLD}, (1, 1), "2.0.0"),
    "int8, calibrated": ({"calibration": CALIBRATION}, (1, 1), "2.12.0"),
    "int4": ({"quantization": "int4"}, (1, 1), "2.17.0"),
    "csr": ({"quantization": None, "sparse_storage": "csr"}, (1, 1), "2.2.0"),
    "csr, float16": ({"quantization": "float16", "sparse_storage": "csr"}, (1, 1), "2.12.0"),
    "blocks": ({"quantization": None, "sparse_storage": "blocks"}, (4, 1), "2.3.0"),
    "blocks, int8": ({"quantization": "int8", "sparse_storage": "blocks"}, (16, 1), "2.17.0"),
    "blocks, int8, old": (
        {"quantization": "int8", "sparse_storage": "blocks", "runtime": "2.16.2"},
        (16, 1),
        "2.3.0",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_oldest_runtime_is_reported_and_written(kind, tmp_path):
    options, block, runtime = KINDS[kind]
    report = export(sparse_model(block=block), tmp_path / "x", shrink=False, **options)
    assert report.min_runtime == metadata(tmp_path / "x") == runtime
    assert f"; TensorFlow Lite {runtime} or later; " in str(report)
    if "sparse_storage" in options:
        assert report.storages == {options["sparse_storage"]: 2}


def test_divisions_in_int8_need_a_runtime_that_no_version_tells(tmp_path):
    """LiteRT before 1.4 loads such a file, and fails when it runs."""
    x, y = keras.Input([8, 64], name="x"), keras.Input([8, 64], name="y")
    quotient = keras.layers.Lambda(lambda pair: pair[0] / pair[1])([x, y])
    model = keras.Model([x, y], keras.layers.Dense(64)(quotient))
    random = np.random.RandomState(0)
    data = {name: random.uniform(1, 2, [20, 8, 64]) for name in "xy"}
    report = tf_movprune.export_tflite(model, tmp_path / "x", calibration=data)
    assert report.min_runtime is None and metadata(tmp_path / "x") is None
    with pytest.raises(ValueError, match=r"runtime is '2\.18', but .* needs .* an unknown release"):
        tf_movprune.export_tflite(model, tmp_path / "y", calibration=data, runtime="2.18")
    plain = tf_movprune.export_tflite(model, tmp_path / "x")
    assert plain.min_runtime == "2.17.0"  # its divisions are of floats


def flipped(axes):
    return keras.Sequential(
        [keras.Input([3, 64]), keras.layers.Lambda(lambda x: tf.reverse(x, axes))]
    )


def transposed_convolution():
    return keras.Sequential([keras.Input([4, 4, 8]), keras.layers.Conv2DTranspose(32, 5)])


@pytest.mark.parametrize(
    ("make", "quantization", "is_known"),
    [
        (lambda: flipped([1]), None, True),
        (lambda: flipped([1, 2]), None, False),
        (transposed_convolution, None, True),
        (transposed_convolution, "int8", False),
    ],
)
def test_operators_that_old_runtimes_get_wrong(make, quantization, is_known, tmp_path):
    report = tf_movprune.export_tflite(make(), tmp_path / "x", quantization=quantization)
    assert (report.min_runtime is not None) == is_known


def test_one_scale_to_a_matrix_is_nearly_as_close(tmp_path):
    model = dense_model(64, 48)
    new, old = (export(model, tmp_path / "x", runtime=runtime) for runtime in (None, "2.16"))
    later = export(model, tmp_path / "x", runtime="2.17")
    assert new.min_runtime == later.min_runtime == "2.17.0" and old.min_runtime == "2.0.0"
    assert new.max_abs_diff == later.max_abs_diff != old.max_abs_diff < 0.1


@pytest.mark.parametrize("runtime", ["2.8.4", "2.2"])
def test_a_runtime_that_is_too_old_is_refused_before_anything_is_written(runtime, tmp_path):
    x = keras.Input([8, 64], name="x")
    model = keras.Model(x, keras.layers.Activation("gelu")(keras.layers.Dense(64)(x)))
    message = rf"runtime is '{runtime}', but the file of 'model.*' needs TensorFlow Lite 2\.9\.0 or"
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "x", quantization=None, runtime=runtime)
    assert not list(tmp_path.iterdir())
    export(model, tmp_path / "x", quantization=None, runtime="2.9")


@pytest.mark.parametrize(
    ("runtime", "error", "message"),
    [
        (2.14, TypeError, r"runtime must be a string such as '2\.14', got 2\.14"),
        ("2", ValueError, r"number of a release of TensorFlow Lite, such as .*, got '2'"),
        ("litert", ValueError, r"got 'litert'"),
        ("2.14.0rc1", ValueError, r"got '2\.14\.0rc1'"),
    ],
)
def test_runtimes_that_are_none(runtime, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tf_movprune.export_tflite(dense_model(4), tmp_path / "x", runtime=runtime)


def test_releases_are_numbers_and_not_strings():
    assert is_older("2.9", "2.10") and is_older("1.15.0", "2.2") and not is_older("2.9.0", "2.9")


def converted():
    converter = tf.lite.TFLiteConverter.from_keras_model(dense_model(4))
    return flatbuffer.read(converter.convert())


def test_operators_that_the_converter_does_not_know_the_release_of():
    model = converted()
    assert min_runtime(model) == "1.14.0"
    require_runtime(model, "1.5.0")  # older than what it needs already
    assert min_runtime(model) == "1.14.0"
    require_runtime(model, "2.3.0")
    assert min_runtime(flatbuffer.read(flatbuffer.written(model))) == "2.3.0"
    flatbuffer.operator_code(model, schema.BuiltinOperator.STABLEHLO_SORT, 1)
    assert min_runtime(model) is None
    require_runtime(model, "2.17.0")
    assert min_runtime(model) is None
    model = converted()
    model.metadata = None
    assert min_runtime(model) is None


RUN = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
results = {}
for path in sys.argv[2:]:
    try:
        runner = Interpreter(model_path=path).get_signature_runner()
        x = np.load(sys.argv[1])
        results[path] = np.asarray(list(runner(x=x).values())[0]).tolist()
    except (RuntimeError, ValueError) as error:
        results[path] = str(error)
print(json.dumps(results))
"""


@pytest.mark.slow
def test_files_in_an_old_runtime(tmp_path):
    """Those that claim to run in it are right there, and it refuses the others."""
    python = os.environ.get("TF_MOVPRUNE_OLD_TFLITE")
    if not python:
        pytest.skip("TF_MOVPRUNE_OLD_TFLITE names no Python with tflite-runtime 2.14")
    reports, expected = {}, {}
    for kind, (options, block, _) in KINDS.items():
        model = sparse_model(block=block)
        path = tmp_path / re.sub(r"\W+", "_", kind)
        reports[str(path)] = export(model, path, shrink=False, **options)
        expected[str(path)] = model(random_input(model)).numpy()
    np.save(tmp_path / "x.npy", random_input(model))
    run = subprocess.run(
        [python, "-c", RUN, str(tmp_path / "x.npy"), *reports],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    results = json.loads(run.stdout.splitlines()[-1])
    for path, report in reports.items():
        if is_older(OLD, report.min_runtime):
            assert "FULLY_CONNECTED' version '12'" in results[path]
        else:
            difference = np.max(np.abs(np.array(results[path]) - expected[path]))
            assert difference <= 1.5 * report.max_abs_diff + 1e-5, (path, difference)
