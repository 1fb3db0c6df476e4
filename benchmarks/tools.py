"""One pruned model as a file for each tool: size, memory, time to load and to run.

    make bench-deploy                            # this, after the measurements of LiteRT alone
    python -m benchmarks.tools --shape tiny --rounds 3   # to see whether it runs

A BERT classifier of KerasHub in the shape of MiniLM-L6, in random weights, with a vocabulary of
1,000 words so that the encoder is what shows: dense, with 10 % of its weights, and with half of its
heads and a quarter of its neurons. One sentence of 128 tokens, one thread. Latencies are medians of
calls that took turns; loading, with a first call, and memory are of a process of its own for each
file. OpenVINO and TensorFlow.js are measured if `TF_MOVPRUNE_TOOLS` names a folder with them.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
import tensorflow as tf

import tf_movprune
from benchmarks.measuring import interleaved
from benchmarks.models import SHAPES
from benchmarks.runtimes import LOADERS, TOOLS, Inputs

WEIGHTS, BLOCKS, UNITS = "10 % of the weights", "10 % in blocks of 4", "half the heads, 1/4 neurons"
LEFT = {  # of heads, and of the rest
    "dense": (1.0, 1.0),
    WEIGHTS: (0.1, 0.1),
    BLOCKS: (0.1, 0.1),
    UNITS: (0.5, 0.25),
}
JAVASCRIPT = "TensorFlow.js"


class Format(NamedTuple):
    """A file for a tool: its name, its suffix, how it is written, and of which models."""

    tool: str
    name: str
    suffix: str
    write: Callable[[Any, pathlib.Path, int], object]
    models: tuple[str, ...] = ("dense", WEIGHTS, UNITS)


def tflite(**options: Any) -> Callable[[Any, pathlib.Path, int], object]:
    return lambda model, path, length: tf_movprune.export_tflite(
        model, path, sequence_length=length, **options
    )


def onnx(**options: Any) -> Callable[[Any, pathlib.Path, int], object]:
    return lambda model, path, length: tf_movprune.export_onnx(
        model, path, sequence_length=length, batch_size=1, **options
    )


def saved_model(model: Any, path: pathlib.Path, length: int) -> object:
    return tf_movprune.export_saved_model(tf_movprune.compact(model), path, length, 1)


def keras_file(model: Any, path: pathlib.Path, length: int) -> None:
    tf_movprune.compact(model).save(path)


ROWS, IN_BLOCKS = ({"quantization": None, "sparse_storage": s} for s in ("csr", "blocks"))
INT8 = tflite(quantization="int8")
ONNX, ONNX_INT8 = onnx(), onnx(quantization="int8")
FORMATS = [
    Format("LiteRT", "float32", ".tflite", tflite(quantization=None)),
    Format("LiteRT", "int8", ".tflite", INT8),
    Format("LiteRT", "int4", ".tflite", tflite(quantization="int4")),
    Format("LiteRT", "float32, rows", ".tflite", tflite(**ROWS), (WEIGHTS,)),
    Format("LiteRT", "float32, blocks", ".tflite", tflite(**IN_BLOCKS), (BLOCKS,)),
    Format("ONNX Runtime", "float32", ".onnx", ONNX),
    Format("ONNX Runtime", "int8", ".onnx", ONNX_INT8),
    Format("OpenVINO", "float32 ONNX", ".onnx", ONNX),
    Format("OpenVINO", "int8 ONNX", ".onnx", ONNX_INT8),
    Format("OpenVINO", "int8 TFLite", ".tflite", INT8),
    Format("TensorFlow", "SavedModel", "", saved_model),
    Format("Keras 3", "`.keras`", ".keras", keras_file),
    Format(JAVASCRIPT, "float32", "", saved_model),
]


class Measured(NamedTuple):
    """A row of the table: megabytes, milliseconds, megabytes; what is not known is None."""

    size: float
    zipped: float
    load: float
    memory: float | None
    difference: float | None


def pruned_model(shape: str, name: str, length: int) -> keras.Model:
    """A classifier of KerasHub in random weights, pruned by magnitude as one of `LEFT` says."""
    sizes = SHAPES[shape]
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=1000,
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        hidden_dim=sizes["hidden_size"],
        intermediate_dim=4 * sizes["hidden_size"],
        max_sequence_length=max(length, 128),
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    if name == "dense":
        return model
    attention = "*attention*"
    block_size = {
        WEIGHTS: (1, 1),
        BLOCKS: tf_movprune.BLOCKS_FLOAT32,
        UNITS: {attention: tf_movprune.HEADS, "*": tf_movprune.NEURONS},
    }[name]
    heads, rest = (
        tf_movprune.CubicSparsity(1 - left, begin_step=0, end_step=1) for left in LEFT[name]
    )
    tf_movprune.prune_low_movement(
        model, {attention: heads, "*": rest}, tf_movprune.Magnitude(), block_size=block_size
    )
    tf_movprune.update_masks(model, 1)
    return tf_movprune.strip_pruning(model)


def megabytes(path: pathlib.Path) -> tuple[float, float]:
    """The size of a file or folder, as it is and after `gzip -6`."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    zipped = sum(len(gzip.compress(file.read_bytes(), 6)) for file in files)
    return sum(file.stat().st_size for file in files) / 1e6, zipped / 1e6


def load_in_another_process(tool: str, path: pathlib.Path, inputs: pathlib.Path) -> dict:
    command = [sys.executable, "-m", "benchmarks.runtimes", tool, str(path), str(inputs)]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if found.returncode:
        raise RuntimeError(f"{tool} could not load {path}: {found.stderr[-500:]}")
    return json.loads(found.stdout.strip().splitlines()[-1])


def measure_javascript(
    folders: list[pathlib.Path], inputs: Inputs, rounds: int
) -> tuple[list[Measured], list[float]]:
    """Converts SavedModels and runs them in TensorFlow.js's CPU backend; and seconds of a call."""
    with tempfile.TemporaryDirectory() as folder:
        given = pathlib.Path(folder, "inputs.json")
        given.write_text(json.dumps({name: value.tolist() for name, value in inputs.items()}))
        converted = [pathlib.Path(folder, str(i)) for i, _ in enumerate(folders)]
        for saved, web in zip(folders, converted):
            command = [sys.executable, "-m", "benchmarks.tensorflowjs", str(saved), str(web)]
            subprocess.run(command, capture_output=True, check=True)
        script = pathlib.Path(__file__).with_name("tensorflowjs.js")
        command = ["node", str(script), str(given), str(rounds), *map(str, converted)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(printed.strip().splitlines()[-1])
        measured = [
            Measured(*megabytes(web), one["load"], None, None) for web, one in zip(converted, found)
        ]
    return measured, [one["call"] / 1e3 for one in found]


def measure(shape: str, length: int, rounds: int) -> tuple[dict, dict]:
    """Measures each file of each model in its tool; returns rows, and the seconds of a call."""
    ids = np.random.RandomState(0).randint(1, 1000, [1, length]).astype(np.int32)
    inputs = {
        "token_ids": ids,
        "padding_mask": np.ones_like(ids),
        "segment_ids": np.zeros_like(ids),
    }
    measured: dict[tuple[str, str, str], Measured] = {}
    calls, saved, written = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        given = pathlib.Path(folder, "inputs.npz")
        np.savez(given, **inputs)
        for model_name in LEFT:
            for form in FORMATS:
                if model_name not in form.models:
                    continue
                if form.tool in ("OpenVINO", JAVASCRIPT) and not TOOLS:
                    continue
                key = form.tool, form.name, model_name
                if (model_name, form.write) not in written:
                    path = pathlib.Path(folder, f"{len(written)}{form.suffix}")
                    model = pruned_model(shape, model_name, length)  # `compact` changes it
                    written[model_name, form.write] = path, form.write(model, path, length)
                path, report = written[model_name, form.write]
                if form.tool == JAVASCRIPT:
                    saved[key] = path
                    continue
                loaded = load_in_another_process(form.tool, path, given)
                difference = getattr(report, "max_abs_diff", None)
                measured[key] = Measured(*megabytes(path), **loaded, difference=difference)
                calls[key] = LOADERS[form.tool](str(path), inputs)
                calls[key]()
                print(*key, measured[key], flush=True)
        times = interleaved(calls, rounds)
        if saved and shutil.which("node"):
            rows, seconds = measure_javascript(list(saved.values()), inputs, 3)
            measured |= zip(saved, rows)
            times |= zip(saved, seconds)
    return measured, times


def table(measured: dict[tuple[str, str, str], Measured], times: dict) -> str:
    """Rows by tool; a tool's first dense file is what its others are compared with."""
    tools = list(dict.fromkeys(form.tool for form in FORMATS))
    first = {tool: next(key for key in measured if key[0] == tool) for tool, *_ in measured}
    lines = [
        "| tool | file | model | MB (gzip) | load, ms | memory, MB | times faster | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, row in sorted(measured.items(), key=lambda item: tools.index(item[0][0])):
        memory = "" if row.memory is None else f"{row.memory:.0f}"
        difference = "" if row.difference is None else f"{row.difference:.0e}"
        lines.append(
            f"| {' | '.join(key)} | {row.size:.1f} ({row.zipped:.1f}) | {row.load:.0f} | {memory} "
            f"| {times[first[key[0]]] / times[key]:.1f} | {difference} |"
        )
    dense = ", ".join(f"{tool} {1e3 * times[key]:.1f}" for tool, key in first.items())
    return "\n".join([*lines, "", f"Milliseconds of the first file of each tool: {dense}."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="minilm", help="tiny, minilm or bert-base")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--report", type=pathlib.Path, default=pathlib.Path("runs/tools.md"))
    args = parser.parse_args()
    args.report.parent.mkdir(parents=True, exist_ok=True)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    warnings.filterwarnings("ignore", message="sparse_storage|Skipping variable loading")
    text = "\n".join(
        [
            table(*measure(args.shape, args.length, args.rounds)),
            f"{args.shape}, 1 x {args.length} tokens, one thread, seed 0, medians of {args.rounds} "
            f"rounds, {platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
            f"{datetime.date.today()}.",
        ]
    )
    print("\n" + text)
    args.report.write_text(text + "\n")


if __name__ == "__main__":
    main()
