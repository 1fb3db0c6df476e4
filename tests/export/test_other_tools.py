"""Exports in the tools of others: OpenVINO, tf2onnx's own command, and TensorFlow.js.

`make test-all` installs them, and `TF_MOVPRUNE_TOOLS` tells where.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from berts import stripped_bert

import tf_movprune

TOOLS = os.environ.get("TF_MOVPRUNE_TOOLS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOLS, reason="TF_MOVPRUNE_TOOLS names no folder with the tools"),
]
ROOT = pathlib.Path(__file__).parents[2]
IDS = np.random.RandomState(0).randint(1, 99, [2, 12]).astype("int32")
MASK = np.repeat([np.arange(12) < 7], 2, axis=0).astype("int32")


def keras_hub_bert():
    """A pruned BERT of KerasHub, its inputs, and its outputs."""
    keras_hub = pytest.importorskip("keras_hub")
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 64}
    backbone = keras_hub.models.BertBackbone(vocabulary_size=99, max_sequence_length=40, **sizes)
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=2)
    tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 2)
    model = tf_movprune.strip_pruning(model)
    inputs = {"token_ids": IDS, "padding_mask": MASK, "segment_ids": np.zeros_like(IDS)}
    return model, inputs, np.array(model(inputs, training=False))


def hugging_face_bert():
    """The same of Hugging Face, with the exact GELU."""
    model = stripped_bert()
    inputs = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": np.zeros_like(IDS)}
    return model, inputs, model(inputs).logits.numpy()


@pytest.fixture(scope="module", params=[keras_hub_bert, hugging_face_bert])
def bert(request):
    return request.param()


def run(*command):
    environment = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(TOOLS, "lib")),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    found = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return found.stdout


OPENVINO = """
import json, sys
import numpy as np
import openvino

path, inputs, out = sys.argv[1:]
model = openvino.Core().read_model(path)
compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
given = {name: np.array(value, "int32") for name, value in json.load(open(inputs)).items()}
assert {i.any_name for i in compiled.inputs} == set(given), compiled.inputs
json.dump(compiled(given)["logits"].tolist(), open(out, "w"))
"""


def outputs_of_openvino(path, inputs, folder):
    (folder / "inputs.json").write_text(json.dumps({k: v.tolist() for k, v in inputs.items()}))
    run(sys.executable, "-c", OPENVINO, path, folder / "inputs.json", folder / "outputs.json")
    return np.array(json.loads((folder / "outputs.json").read_text()))


def test_openvino_runs_saved_models(bert, tmp_path):
    model, inputs, expected = bert
    tf_movprune.export_saved_model(model, tmp_path / "saved", inputs=inputs)
    found = outputs_of_openvino(tmp_path / "saved", inputs, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("quantization", "atol"), [(None, 1e-6), ("int8", 0.3)])
def test_openvino_runs_onnx(bert, quantization, atol, tmp_path):
    model, inputs, expected = bert
    path = tmp_path / "x.onnx"
    tf_movprune.export_onnx(model, path, quantization=quantization, inputs=inputs)
    found = outputs_of_openvino(path, inputs, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("quantization", "sparse_storage", "atol"),
    [(None, None, 1e-6), ("float16", None, 1e-2), ("int8", None, 0.3), (None, "csr", 1e-6)],
)
def test_openvino_runs_tflite(bert, quantization, sparse_storage, atol, tmp_path):
    model, inputs, expected = bert
    path = tmp_path / "x.tflite"
    options = {"quantization": quantization, "sparse_storage": sparse_storage}
    tf_movprune.export_tflite(
        model, path, sequence_length=12, batch_size=2, inputs=inputs, **options
    )
    found = outputs_of_openvino(path, inputs, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_the_command_of_tf2onnx_converts_saved_models(bert, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, inputs, expected = bert
    tf_movprune.export_saved_model(model, tmp_path / "saved", inputs=inputs)
    options = ["--saved-model", tmp_path / "saved", "--output", tmp_path / "x.onnx"]
    run(sys.executable, "-m", "tf2onnx.convert", *options, "--opset", "17")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"]
    )
    [found] = session.run(["logits"], inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_tensorflowjs_runs_saved_models(bert, tmp_path):
    model, inputs, expected = bert
    tf_movprune.export_saved_model(model, tmp_path / "saved", keep_assertions=False, inputs=inputs)
    run(sys.executable, "-m", "benchmarks.tensorflowjs", tmp_path / "saved", tmp_path / "web")
    given = tmp_path / "inputs.json"
    given.write_text(json.dumps({name: value.tolist() for name, value in inputs.items()}))
    printed = run("node", ROOT / "benchmarks" / "tensorflowjs.js", given, 1, tmp_path / "web")
    [found] = json.loads(printed.strip().splitlines()[-1])
    np.testing.assert_allclose(found["outputs"], expected, rtol=0, atol=1e-5)
