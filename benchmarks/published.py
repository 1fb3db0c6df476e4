"""Stand-ins for published pruned BERTs, loaded, compacted, exported: `make bench-published`.

    python -m benchmarks.published                 # about ten minutes on two cores
    python -m benchmarks.published FOLDER ...      # checkpoints of your own, or downloaded ones

The stand-ins have the size of BERT-base and random weights. As many heads are removed as the model
cards of the published ones count, at random places; where heads are removed, 60 % of the neurons
are empty. The other weights are zero in blocks of 32 x 32 until the linear layers keep the fraction
on the card. Each is measured in a process of its own: seconds to load, and by how much the peak of
memory rises meanwhile over the size of the file. Latencies are medians of calls that took turns, of
one sequence of 128 tokens on one thread, over those of the dense model.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import safetensors.numpy
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from benchmarks.measuring import interleaved

LAYERS, HEADS, WIDTH, NEURONS, WORDS = 12, 12, 768, 3072, 30522
LENGTH = 128
DEAD_NEURONS = 0.6


class Card(NamedTuple):
    """Numbers on the card of a model: the fraction of the linear weights, and heads removed."""

    density: float
    removed_heads: int


CARDS = {
    "dense": Card(1.0, 0),
    "sparse0.25": Card(0.25, 0),
    "block-sparse-0.07": Card(0.075, 106),
    "block-sparse-0.13": Card(0.125, 97),
    "block-sparse-0.20": Card(0.202, 90),
    "block-sparse-0.32": Card(0.317, 80),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--keras", choices=("2", "3"), default="2", help="Hugging Face or KerasHub")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer, to see whether it runs")
    # Measures one in this process, and writes a file.
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        folder, file = args.only
        print(json.dumps(measured(pathlib.Path(folder), file, args.keras)))
        return
    with tempfile.TemporaryDirectory() as place:
        folders = args.folders or [
            write_stand_in(pathlib.Path(place) / name, card, args.layers)
            for name, card in CARDS.items()
        ]
        rows = [
            in_a_process(folder, pathlib.Path(place, f"{i}.tflite"), args.keras)
            for i, folder in enumerate(folders)
        ]
        times = interleaved({row["file"]: run_of(row["file"]) for row in rows}, args.rounds)
    first = times[rows[0]["file"]]
    print(f"{datetime.date.today()}, TensorFlow {tf.__version__}, {platform.processor()}")
    print("| | loads in | memory / file | parameters | compacted | TFLite float32 | latency |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['name']} | {row['seconds']:.1f} s | {row['memory']:.2f} | "
            f"{row['loaded'] / 1e6:.1f} M | {row['compacted'] / 1e6:.1f} M | "
            f"{row['bytes'] / 1e6:.0f} MB | {times[row['file']] / first:.2f} |"
        )


def in_a_process(folder: pathlib.Path, file: pathlib.Path, keras: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.published", "--only", str(folder), str(file)]
    output = subprocess.run([*command, "--keras", keras], check=True, stdout=subprocess.PIPE)
    return json.loads(output.stdout.splitlines()[-1])


def measured(folder: pathlib.Path, file: str, keras: str) -> dict[str, Any]:
    """Loads, compacts and exports a checkpoint."""
    model_class = None
    if keras == "3":
        import keras_hub

        model_class = keras_hub.models.BertBackbone
    else:
        import transformers

        _ = transformers.TFBertForQuestionAnswering  # what importing it takes is not the library's
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    size = size or sum(path.stat().st_size for path in folder.glob("*.bin"))
    memory, start = PeakMemory(), time.perf_counter()
    model = tf_movprune.load_pytorch(folder, model_class, weights="pytorch")
    seconds = time.perf_counter() - start
    rise = memory.rise()
    loaded = model.count_params()
    small = tf_movprune.compact(model)
    report = tf_movprune.export_tflite(small, file, sequence_length=LENGTH, quantization=None)
    return {
        "name": folder.name,
        "seconds": seconds,
        "memory": rise / size,
        "loaded": loaded,
        "compacted": small.count_params(),
        "bytes": report.bytes,
        "file": file,
    }


class PeakMemory:
    """The bytes by which the memory of this process rises, at most; NaN but on Linux."""

    def __init__(self) -> None:
        self._before = self._read("VmRSS")
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak until now

    def rise(self) -> float:
        return self._read("VmHWM") - self._before

    @staticmethod
    def _read(key: str) -> float:
        try:
            text = pathlib.Path("/proc/self/status").read_text()
        except OSError:
            return float("nan")
        return 1024.0 * int(re.search(rf"{key}:\s+(\d+) kB", text)[1])  # type: ignore[index]


def run_of(path: str) -> Any:
    run = Interpreter(model_path=path, num_threads=1).get_signature_runner()
    inputs = {
        name: np.ones(details["shape"], np.int32)
        for name, details in run.get_input_details().items()
    }
    return lambda: run(**inputs)


# ---- stand-ins


def write_stand_in(folder: pathlib.Path, card: Card, layers: int = LAYERS) -> pathlib.Path:
    """Writes a checkpoint of random weights with the structure that a card describes."""
    random = np.random.RandomState(0)
    removed = np.zeros(layers * HEADS, bool)
    removed[random.permutation(removed.size)[: round(card.removed_heads * layers / LAYERS)]] = True
    removed = removed.reshape(layers, HEADS)
    removed[removed.all(axis=1), 0] = False  # one head stays in each layer
    dead = DEAD_NEURONS if card.removed_heads else 0.0
    left = 4 * WIDTH**2 * (1 - removed.mean()) + 2 * WIDTH * NEURONS * (1 - dead)
    density = min(card.density * (4 * WIDTH**2 + 2 * WIDTH * NEURONS) / left, 1.0)
    arrays: dict[str, np.ndarray] = {}

    def normal(*shape: int) -> np.ndarray:
        return 0.02 * random.standard_normal(shape).astype(np.float32)

    def norm(name: str) -> None:
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = np.ones(WIDTH, np.float32), normal(WIDTH)

    def dense(name: str, rows: int, columns: int) -> None:
        blocks = random.uniform(size=(rows // 32, columns // 32)) < density
        arrays[f"{name}.weight"] = normal(rows, columns) * blocks.repeat(32, 0).repeat(32, 1)
        arrays[f"{name}.bias"] = normal(rows)

    for name, size in (("word", WORDS), ("position", 512), ("token_type", 2)):
        arrays[f"bert.embeddings.{name}_embeddings.weight"] = normal(size, WIDTH)
    norm("bert.embeddings.LayerNorm")
    for i in range(layers):
        block = f"bert.encoder.layer.{i}"
        inner = int((~removed[i]).sum()) * WIDTH // HEADS
        for name in ("query", "key", "value"):
            dense(f"{block}.attention.self.{name}", inner, WIDTH)
        dense(f"{block}.attention.output.dense", WIDTH, inner)
        norm(f"{block}.attention.output.LayerNorm")
        dense(f"{block}.intermediate.dense", NEURONS, WIDTH)
        dense(f"{block}.output.dense", WIDTH, NEURONS)
        norm(f"{block}.output.LayerNorm")
        empty = random.permutation(NEURONS)[: int(dead * NEURONS)]
        for part in ("weight", "bias"):
            arrays[f"{block}.intermediate.dense.{part}"][empty] = 0
        arrays[f"{block}.output.dense.weight"][:, empty] = 0
    arrays["qa_outputs.weight"], arrays["qa_outputs.bias"] = normal(2, WIDTH), normal(2)
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(configuration(removed)))
    return folder


def configuration(removed: np.ndarray) -> Mapping[str, Any]:
    pruned = {str(i): np.flatnonzero(heads).tolist() for i, heads in enumerate(removed)}
    return {
        "architectures": ["BertForQuestionAnswering"],
        "model_type": "bert",
        "num_hidden_layers": len(removed),
        "pruned_heads": {layer: heads for layer, heads in pruned.items() if heads},
        "vocab_size": WORDS,
    }


if __name__ == "__main__":
    main()
