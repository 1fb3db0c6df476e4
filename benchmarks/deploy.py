"""Size and speed of exported files beside a dense float32 one, in one run: `make bench-deploy`.

    python -m benchmarks.deploy                     # about five minutes on two cores
    python -m benchmarks.deploy --shape tiny --rounds 3   # to see whether it runs
    python -m benchmarks.deploy --only dense        # quantizations alone, in a minute or two

Random weights in the shapes of MiniLM-L6, with a vocabulary of 1,000 words so that the encoder is
what shows; pruned by magnitude. LiteRT with its default delegate, one sentence of 128 tokens, one
thread. Latencies are medians of calls that took turns. Sizes are those of the encoder's matrices in
the file, and of the whole file in brackets.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import platform
import tempfile
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from benchmarks.measuring import Table, interleaved
from benchmarks.models import bert_classifier

ATTENTION = "*.attention.*"
STRUCTURE = {ATTENTION: tf_movprune.HEADS, "*": tf_movprune.NEURONS}


class Variant(NamedTuple):
    """A file: sparsity (of heads and of the rest), blocks, quantization, storage and the like."""

    sparsity: tuple[float, float] = (0.0, 0.0)
    block_size: Any = (1, 1)
    quantization: str | None = None
    sparse_storage: str | None = None
    runtime: str | None = None
    is_calibrated: bool = False
    blocks_of_rest: float | None = None
    """Sparsity, in blocks, of what is left of the matrices without empty heads and neurons."""


VARIANTS = {
    "dense, float32": Variant(),
    "dense, float16": Variant(quantization="float16"),
    "dense, int8": Variant(quantization="int8"),
    "dense, int8 for 2.14": Variant(quantization="int8", runtime="2.14"),
    "dense, int8, calibrated": Variant(quantization="int8", is_calibrated=True),
    "dense, int4": Variant(quantization="int4"),
    "3 % remaining, float32, rows": Variant((0.97, 0.97), sparse_storage="csr"),
    "3 % remaining, int8": Variant((0.97, 0.97), quantization="int8"),
    "3 % in blocks of 4, float32": Variant(
        (0.97, 0.97), tf_movprune.BLOCKS_FLOAT32, sparse_storage="blocks"
    ),
    "3 % in blocks of 16, int8": Variant(
        (0.97, 0.97), tf_movprune.BLOCKS_INT8, "int8", sparse_storage="blocks"
    ),
    "10 % in blocks of 4, float32": Variant(
        (0.9, 0.9), tf_movprune.BLOCKS_FLOAT32, sparse_storage="blocks"
    ),
    "1/2 of heads, 1/4 of neurons, float32": Variant((0.5, 0.75), STRUCTURE),
    "1/2 of heads, 1/4 of neurons, int8": Variant((0.5, 0.75), STRUCTURE, "int8"),
    "1/2 of heads, 3/10 of neurons, float32": Variant((0.5, 0.7), STRUCTURE),
    "1/2 of heads, 3/10 of neurons, int8": Variant((0.5, 0.7), STRUCTURE, "int8"),
    "1/2 of heads, 1/5 of neurons, float32": Variant((0.5, 0.8), STRUCTURE),
    "1/2 of heads, 1/5 of neurons, int8": Variant((0.5, 0.8), STRUCTURE, "int8"),
    "1/2 of heads, 1/4 of neurons, then 10 % in blocks of 4, float32": Variant(
        (0.5, 0.75), STRUCTURE, sparse_storage="blocks", blocks_of_rest=0.9
    ),
    "1/2 of heads, 1/4 of neurons, then 5 % in blocks of 16, int8": Variant(
        (0.5, 0.75), STRUCTURE, "int8", sparse_storage="blocks", blocks_of_rest=0.95
    ),
}
FASTER = {  # targets
    "3 % in blocks of 4, float32": 2.3,
    "1/2 of heads, 1/4 of neurons, float32": 2.6,
    "1/2 of heads, 1/4 of neurons, int8": 6.0,
    "1/2 of heads, 3/10 of neurons, float32": 2.5,
    "1/2 of heads, 1/5 of neurons, float32": 3.0,
    "1/2 of heads, 1/5 of neurons, int8": 8.0,
}
SMALLER = {"3 % remaining, float32, rows": 12.0, "3 % in blocks of 4, float32": 11.0}


def pruned(shape: str, variant: Variant) -> keras.Model:
    model = bert_classifier(shape, vocab_size=1000)
    if any(variant.sparsity):
        model = prune(model, *variant.sparsity, variant.block_size)
    if variant.blocks_of_rest is not None:
        blocks = {None: tf_movprune.BLOCKS_FLOAT32, "int8": tf_movprune.BLOCKS_INT8}
        # Neurons left in each layer are a multiple of what the blocks divide.
        model = tf_movprune.compact(model, multiple_of=16)
        both = (variant.blocks_of_rest,) * 2
        model = prune(model, *both, blocks[variant.quantization])
    return model


def prune(model: keras.Model, heads: float, rest: float, block_size: Any) -> keras.Model:
    """Prunes to a sparsity of attention and one of the rest, by magnitude, at once."""
    schedules = (
        tf_movprune.CubicSparsity(sparsity, begin_step=0, end_step=1) for sparsity in (heads, rest)
    )
    tf_movprune.prune_low_movement(
        model,
        dict(zip((ATTENTION, "*"), schedules)),
        tf_movprune.Magnitude(),
        block_size=block_size,
    )
    tf_movprune.update_masks(model, 1)
    return tf_movprune.strip_pruning(model)


def runner(path: pathlib.Path, inputs: dict[str, np.ndarray]):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], inputs[detail["name"]])
    interpreter.invoke()
    return interpreter.invoke


def sentences(count: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.RandomState(0).randint(0, 1000, [count, length]).astype(np.int32)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def encoder_bytes(report: tf_movprune.ExportReport) -> int:
    """Of all matrices but the last two, those of the pooler and the classifier."""
    return sum(matrix.bytes for matrix in report.matrices[:-2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="minilm", help="tiny, minilm or bert-base")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", default="", help="how the names of the files begin")
    parser.add_argument("--report", type=pathlib.Path, default=pathlib.Path("runs/deploy.md"))
    args = parser.parse_args()
    args.report.parent.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", message="sparse_storage")  # of a shape that is too small

    inputs, calibration = sentences(1, args.length), sentences(32, args.length)
    table, reports, runners = Table(), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, variant) in enumerate(VARIANTS.items()):
            if not name.startswith(args.only):
                continue
            path = pathlib.Path(folder) / f"{i}.tflite"
            reports[name] = tf_movprune.export_tflite(
                pruned(args.shape, variant),
                path,
                sequence_length=args.length,
                quantization=variant.quantization,
                sparse_storage=variant.sparse_storage,
                runtime=variant.runtime,
                calibration=calibration if variant.is_calibrated else None,
                inputs=inputs,
            )
            runners[name] = runner(path, inputs)
            print(f"{name}: {reports[name]}", flush=True)
        compressed = None
        if not args.only:
            model = pruned(args.shape, VARIANTS["3 % remaining, int8"])
            compressed = tf_movprune.export_compressed(model, pathlib.Path(folder) / "compressed")
            print(compressed)
        times = interleaved(runners, args.rounds)
    dense, *others = reports
    for name in others:
        report = reports[name]
        smaller = encoder_bytes(reports[dense]) / encoder_bytes(report)
        whole = reports[dense].bytes / report.bytes
        faster = times[dense] / times[name]
        label = f"{name}: times smaller (file {whole:.1f})"
        table.add(label, smaller, SMALLER.get(name), at_least=True)
        table.add(f"{name}: times faster", faster, FASTER.get(name), at_least=True)
    if compressed is not None:
        encoder = compressed.parts["layers"]
        whole = compressed.times_smaller
        label = f"3 % remaining, compressed file, int8: times smaller (file {whole:.1f})"
        table.add(label, encoder.times_smaller, 60.0, at_least=True)
        table.add("the same: encoder over the bound", encoder.ratio, 1.25)
    table.report(
        args.report,
        f"{args.shape}, 1 x {args.length} tokens, one thread; dense float32 "
        f"{1e3 * times[dense]:.1f} ms, {reports[dense].bytes / 1e6:.1f} MB. Medians of "
        f"{args.rounds} rounds. "
        f"{platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}, "
        f"{datetime.date.today()}.",
    )


if __name__ == "__main__":
    main()
