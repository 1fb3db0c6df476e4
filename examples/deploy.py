"""Takes a fine-pruned BERT through every format it can ship in, and measures each.

python -m examples.movie_sentiment   # makes runs/movie_sentiment/{dense,movement}/pretrained
python -m examples.deploy            # exports and measures them
python -m examples.deploy --model FOLDER --dense FOLDER --data_dir GLUE/SST-2

Sizes and times are those of the whole model, embeddings included, beside the dense model as a
float32 TFLite file. Latencies are medians of calls on one sentence that took turns, on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import os
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from examples.fine_tuning import Bert, bert_for
from examples.sentiment_data import LENGTHS, Sentences, encoded, load_task, padded


@dataclasses.dataclass
class Format:
    """A file, how to run it on one sentence, and how far its logits are from the Keras model's."""

    name: str
    bytes: int
    gzip_bytes: int
    predict: Callable[[np.ndarray], np.ndarray]
    max_abs_diff: float
    is_timed: bool = True
    """False of a file that is for storage, and runs as the model that it is loaded into."""
    seconds: float = float("nan")
    accuracy: float = float("nan")


def main(argv: list[str] | None = None) -> list[Format]:
    args = parse_arguments(argv)
    output = pathlib.Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    bert = bert_of(args.model)
    encode = bert.encoder(args.model, LENGTHS[-1])
    texts, labels = load_task(args.task, args.data_dir)["test"]
    data = encoded(encode, texts[: args.max_examples], labels[: args.max_examples])
    sentence = padded(data.ids[0], args.sequence_length)

    print(f"dense: {args.dense}")
    dense = bert.load(args.dense)
    formats = [tflite(bert, dense, output, "dense", args.sequence_length, sentence, shrink=False)]
    del dense
    print(f"\npruned: {args.model}")
    model = bert.load(args.model)
    formats += exports(bert, model, output, args.sequence_length, sentence)
    measure(formats, data, args.sequence_length, args.rounds)
    text = table(formats)
    print(f"\n{tf_movprune.size_report(model)}\n\n{text}")
    (output / "formats.md").write_text(text + "\n")
    return formats


def bert_of(folder: str) -> Bert:
    """The module for the models in a folder: a preset of KerasHub's, or a Hugging Face folder."""
    return bert_for("3" if (pathlib.Path(folder) / "task.json").is_file() else "2")


# ---- formats


def exports(
    bert: Bert, model: Any, output: pathlib.Path, length: int, sentence: np.ndarray
) -> list[Format]:
    found = [saved_model(bert, model, output, sentence)]
    for quantization, sparse_storage in (
        (None, None),
        (None, "auto"),
        ("float16", None),
        ("int8", None),
    ):
        options = {"quantization": quantization, "sparse_storage": sparse_storage}
        found.append(tflite(bert, model, output, "pruned", length, sentence, **options))
    found += [compressed(bert, model, output, values, sentence) for values in (None, "int8")]
    return found


def saved_model(bert: Bert, model: Any, output: pathlib.Path, sentence: np.ndarray) -> Format:
    inputs = bert.inputs(sentence)
    report = tf_movprune.export_saved_model(model, output / "saved_model", inputs=inputs)
    print(report)
    function = tf.saved_model.load(str(report.path)).signatures["serving_default"]

    def predict(ids: np.ndarray) -> np.ndarray:
        return function(**bert.inputs(ids))["logits"].numpy()

    return Format(
        "SavedModel", report.bytes, report.gzip_bytes, predict, report.max_abs_diff or 0.0
    )


def tflite(
    bert: Bert,
    model: Any,
    output: pathlib.Path,
    prefix: str,
    length: int,
    sentence: np.ndarray,
    *,
    quantization: str | None = None,
    sparse_storage: str | None = None,
    shrink: bool = True,
) -> Format:
    name = f"TFLite {quantization or 'float32'}" + (", sparse" if sparse_storage else "")
    with warnings.catch_warnings():  # whether there is anything sparse enough is in the table
        warnings.filterwarnings("ignore", message="sparse_storage")
        report = tf_movprune.export_tflite(
            model,
            output / f"{prefix}-{name.removeprefix('TFLite ').replace(', ', '-')}.tflite",
            sequence_length=length,
            quantization=quantization,
            sparse_storage=sparse_storage,
            shrink=shrink,
            inputs=bert.inputs(sentence),
        )
    print(report)
    interpreter = Interpreter(model_path=str(report.path), num_threads=1)
    run = interpreter.get_signature_runner()

    def predict(ids: np.ndarray) -> np.ndarray:
        return run(**bert.inputs(ids))["logits"]

    label = f"dense, {name}" if prefix == "dense" else name
    return Format(label, report.bytes, report.gzip_bytes, predict, report.max_abs_diff or 0.0)


def compressed(
    bert: Bert, model: Any, output: pathlib.Path, quantization: str | None, sentence: np.ndarray
) -> Format:
    values = quantization or "float32"
    path = output / f"{values}.movprune"
    report = tf_movprune.export_compressed(model, path, quantization=quantization)
    print(report)
    loaded = bert.load_compressed(path, type(model))
    function = tf.function(lambda ids: bert.logits(loaded, bert.inputs(ids)))
    expected = bert.logits(model, bert.inputs(sentence))
    difference = float(np.max(np.abs(function(sentence) - expected)))
    return Format(
        f"compressed {values}",
        report.bytes,
        len(gzip.compress(path.read_bytes(), 6)),
        lambda ids: function(ids).numpy(),
        difference,
        is_timed=False,
    )


# ---- measurements


def measure(formats: list[Format], data: Sentences, length: int, rounds: int) -> None:
    """Fills in accuracies and latencies."""
    sentences = [padded(ids, length) for ids in data.ids]
    for format_ in formats:
        right = [np.argmax(format_.predict(x)) == y for x, y in zip(sentences, data.labels)]
        format_.accuracy = float(np.mean(right))
    timed = [format_ for format_ in formats if format_.is_timed]
    times: dict[str, list[float]] = {format_.name: [] for format_ in timed}
    for i in range(rounds):
        for format_ in timed:
            start = time.perf_counter()
            format_.predict(sentences[i % len(sentences)])
            times[format_.name].append(time.perf_counter() - start)
    for format_ in timed:
        format_.seconds = float(np.median(times[format_.name]))


def table(formats: list[Format]) -> str:
    lines = [
        "| format | MB (gzip) | times smaller (gzip) | ms | times faster | largest difference | "
        "accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    dense = formats[0]
    for f in formats:
        latency = f"{1e3 * f.seconds:.1f} | {dense.seconds / f.seconds:.1f}" if f.is_timed else "| "
        lines.append(
            f"| {f.name} | {f.bytes / 1e6:.1f} ({f.gzip_bytes / 1e6:.1f}) "
            f"| {dense.bytes / f.bytes:.1f} ({dense.bytes / f.gzip_bytes:.1f}) "
            f"| {latency} | {f.max_abs_diff:.1g} | {f.accuracy:.1%} |"
        )
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="runs/movie_sentiment/movement/pretrained")
    parser.add_argument("--dense", default="runs/movie_sentiment/dense/pretrained")
    parser.add_argument("--task", default="movie_reviews", help="or a tfds name: glue/sst2")
    parser.add_argument("--data_dir", help="folder with GLUE's train.tsv and dev.tsv")
    parser.add_argument("--sequence_length", type=int, default=64)
    parser.add_argument("--max_examples", type=int, default=500, help="test sentences")
    parser.add_argument("--rounds", type=int, default=31, help="of latency")
    parser.add_argument("--output_dir", default="runs/deploy")
    args = parser.parse_args(argv)
    for folder in (args.model, args.dense):
        if not (pathlib.Path(folder) / "config.json").is_file():
            parser.error(
                f"{folder} has no model. Run `make demo` first, or pass the folders of "
                "save_pretrained, or of presets, as --model and --dense"
            )
    return args


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
