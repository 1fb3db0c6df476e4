"""Takes a fine-pruned BERT through every format it can ship in, and measures each.

python -m examples.movie_sentiment   # makes runs/movie_sentiment/{dense,hard}
python -m examples.deploy            # exports and measures them
python -m examples.deploy --model RUN --dense RUN   # runs of `tf-movprune train` on texts

Sizes and times are those of the whole model, embeddings included, beside the dense model as a
float32 TFLite file. Latencies are medians of calls on one sentence that took turns, on one thread.
They are written into the records of the runs too, for their reports.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gzip
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tf_movprune
from tf_movprune.runs.exporting import export_model
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.opened_model import OpenedModel, open_model
from tf_movprune.runs.preparation import prepare_evaluation
from tf_movprune.runs.record import RunPaths
from tf_movprune.tasks.batches import inputs_of

Inputs = Mapping[str, np.ndarray]


@dataclasses.dataclass
class Format:
    """A file, and how to run it on one text."""

    name: str
    bytes: int
    gzip_bytes: int
    logits: Callable[[Inputs], np.ndarray]
    is_timed: bool = True
    """False of a file that is for storage, and runs as the model that it is loaded into."""
    milliseconds: float = float("nan")
    accuracy: float = float("nan")


def main(argv: list[str] | None = None) -> list[Format]:
    """Exports and measures. Returns what the table shows, the dense file first."""
    args = parse_arguments(argv)
    output = pathlib.Path(args.output_dir)
    pruned = open_model(args.model)
    texts, labels = evaluation_data(RunPaths(args.model), pruned, args.max_examples)
    dense = tflite(open_model(args.dense), output / "dense.tflite", "none")
    dense.name = f"dense, {dense.name}"
    formats = [dense, *exports(pruned, args.model, output)]
    measure(formats, texts, labels, args.rounds)
    record_latencies(RunPaths(args.dense), formats[:1], dense)
    record_latencies(RunPaths(args.model), formats[1:], dense)
    text = table(formats)
    (output / "formats.md").write_text(text + "\n", encoding="utf-8")
    page = tf_movprune.report([args.dense, args.model], output / "report.html")
    print(f"\n{text}\n\nThe pictures are in {page}, the files beside it.")
    return formats


def evaluation_data(
    run: RunPaths, opened: OpenedModel, most: int
) -> tuple[list[Inputs], np.ndarray]:
    """The model's inputs for each of the first texts that the run was evaluated on, and labels."""
    found = prepare_evaluation(
        run.settings(), opened.model, opened.folder, opened.description, None, None
    )
    features = found.features[found.evaluation_splits[0]]
    rows = range(min(most, len(features)))
    shell = shell_of(run.settings().library)
    texts = [
        shell.inputs(opened.model, inputs_of(features, [row], found.max_length)) for row in rows
    ]
    return texts, features.targets["labels"][: len(texts)]


# ---- formats


def exports(pruned: OpenedModel, folder: str, output: pathlib.Path) -> list[Format]:
    """The model of a run in each format."""
    found = [saved_model(pruned, output / "saved_model")]
    found.append(tflite(pruned, output / "float32.tflite", "none"))
    found.append(sparse_tflite(pruned, output / "sparse.tflite"))
    found += [tflite(pruned, output / f"{q}.tflite", q) for q in ("float16", "int8")]
    found += [
        compressed(open_model(folder), output / f"{quantization}.movprune", quantization)
        for quantization in ("none", "int8")
    ]
    return found


def saved_model(opened: OpenedModel, path: pathlib.Path) -> Format:
    report = export_model(opened, "saved_model", path)
    print(report)
    run = tf.saved_model.load(str(path)).signatures["serving_default"]

    def logits(inputs: Inputs) -> np.ndarray:
        return run(**{name: tf.constant(x) for name, x in inputs.items()})["logits"].numpy()

    return Format("SavedModel", report.bytes, report.gzip_bytes, logits)


def tflite(opened: OpenedModel, path: pathlib.Path, quantization: str) -> Format:
    report = export_model(opened, "tflite", path, quantization=quantization)
    return _run_tflite(report, f"TFLite {report.quantization or 'float32'}")


def sparse_tflite(opened: OpenedModel, path: pathlib.Path) -> Format:
    with warnings.catch_warnings():  # whether there is anything sparse enough is in the table
        warnings.filterwarnings("ignore", message="sparse_storage")
        report = tf_movprune.export_tflite(
            opened.model,
            path,
            quantization=None,
            sparse_storage="auto",
            sequence_length=opened.description["max_length"],
        )
    return _run_tflite(report, "TFLite float32, sparse")


def _run_tflite(report: tf_movprune.ExportReport, name: str) -> Format:
    print(report)
    run = Interpreter(model_path=str(report.path), num_threads=1).get_signature_runner()
    return Format(name, report.bytes, report.gzip_bytes, lambda inputs: run(**inputs)["logits"])


def compressed(opened: OpenedModel, path: pathlib.Path, quantization: str) -> Format:
    """Writes the file and loads it into the opened model, which is then the one in the file."""
    report = export_model(opened, "compressed", path, quantization=quantization)
    print(report)
    tf_movprune.load_compressed(path, opened.model)
    run = tf.function(functools.partial(shell_of(str(opened.library)).logits, opened.model))
    return Format(
        f"compressed {quantization.replace('none', 'float32')}",
        report.bytes,
        len(gzip.compress(path.read_bytes(), 6)),
        lambda inputs: run(inputs)["logits"].numpy(),
        is_timed=False,
    )


# ---- measurements


def measure(formats: list[Format], texts: list[Inputs], labels: np.ndarray, rounds: int) -> None:
    """Fills in accuracies and latencies."""
    for each in formats:
        found = [each.logits(inputs).argmax() for inputs in texts]
        each.accuracy = float(np.mean(found == labels))
    timed = [each for each in formats if each.is_timed]
    times: dict[str, list[float]] = {each.name: [] for each in timed}
    for i in range(rounds):
        for each in timed:
            start = time.perf_counter()
            each.logits(texts[i % len(texts)])
            times[each.name].append(time.perf_counter() - start)
    for each in timed:
        each.milliseconds = 1e3 * float(np.median(times[each.name]))


def record_latencies(run: RunPaths, formats: list[Format], dense: Format) -> None:
    """Writes latencies into the record of a run, where reports look for them."""
    latency: list[dict[str, Any]] = [
        {
            "format": each.name.removeprefix("dense, "),
            "milliseconds": each.milliseconds,
            "relative": each.milliseconds / dense.milliseconds,
        }
        for each in formats
        if each.is_timed
    ]
    run.update(latency=latency)


def table(formats: list[Format]) -> str:
    """Markdown: a line to each format."""
    lines = [
        "| format | MB (gzip) | times smaller (gzip) | ms | times faster | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    dense = formats[0]
    for f in formats:
        faster = dense.milliseconds / f.milliseconds
        latency = f"{f.milliseconds:.1f} | {faster:.1f}" if f.is_timed else "| "
        lines.append(
            f"| {f.name} | {f.bytes / 1e6:.1f} ({f.gzip_bytes / 1e6:.1f}) "
            f"| {dense.bytes / f.bytes:.1f} ({dense.bytes / f.gzip_bytes:.1f}) "
            f"| {latency} | {f.accuracy:.1%} |"
        )
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="runs/movie_sentiment/hard", help="folder of a run")
    parser.add_argument("--dense", default="runs/movie_sentiment/dense", help="the same, unpruned")
    parser.add_argument("--max_examples", type=int, default=500, help="test sentences")
    parser.add_argument("--rounds", type=int, default=31, help="of latency")
    parser.add_argument("--output_dir", default="runs/deploy")
    args = parser.parse_args(argv)
    for folder in (args.model, args.dense):
        if not RunPaths(folder).model.is_dir():
            parser.error(
                f"{folder} has no run with a model. Run `make demo` first, or pass folders of runs "
                "as --model and --dense"
            )
    return args


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
