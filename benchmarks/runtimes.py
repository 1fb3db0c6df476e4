"""Tools that run exported files: each loads a file and returns a call, on one thread.

    python -m benchmarks.runtimes TOOL FILE INPUTS

prints, in JSON, the milliseconds and megabytes that loading FILE and calling it takes in a process
in which nothing else was loaded; INPUTS is a file of NumPy, `.npz`.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil

TOOLS = os.environ.get("TF_MOVPRUNE_TOOLS")
if TOOLS:
    sys.path.append(str(pathlib.Path(TOOLS, "lib")))

Call = Callable[[], object]
Inputs = dict[str, np.ndarray]


def litert(path: str, inputs: Inputs) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=path, num_threads=1).get_signature_runner()
    return lambda: run(**inputs)


def onnx_runtime(path: str, inputs: Inputs) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def openvino(path: str, inputs: Inputs) -> Call:
    import openvino as ov

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = ov.compile_model(path, "CPU", options).create_infer_request()
    return lambda: request.infer(inputs)


def tensorflow(path: str, inputs: Inputs) -> Call:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    function = loaded.signatures["serving_default"]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}

    def call():
        return [value.numpy() for value in function(**tensors).values()] and loaded

    return call


def keras(path: str, inputs: Inputs) -> Call:
    import tensorflow as tf

    import tf_movprune

    model = tf_movprune.load_compacted(path)
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    function = tf.function(lambda x: model(x, training=False))
    return lambda: function(tensors).numpy()


LOADERS: dict[str, Callable[[str, Inputs], Call]] = {
    "LiteRT": litert,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "TensorFlow": tensorflow,
    "Keras 3": keras,
}
_LIBRARIES = {
    "LiteRT": "ai_edge_litert.interpreter",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "TensorFlow": "tensorflow",
    "Keras 3": "keras_hub",
}


def load_and_call(tool: str, path: str, inputs: Inputs) -> dict[str, float]:
    """Milliseconds and megabytes that loading a file and calling it takes in this process.

    The library of the tool is imported before.
    """
    importlib.import_module(_LIBRARIES[tool])
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    call = LOADERS[tool](path, inputs)
    call()
    milliseconds = 1e3 * (time.perf_counter() - start)
    call()
    return {"load": milliseconds, "memory": (process.memory_info().rss - before) / 1e6}


if __name__ == "__main__":
    tool, path, given = sys.argv[1:]
    with np.load(given) as inputs:
        print(json.dumps(load_and_call(tool, path, dict(inputs))))
