"""Fine-prunes a real BERT on movie-review sentences: dense, movement and magnitude side by side.

python -m examples.movie_sentiment                       # 90 % of the encoder pruned
python -m examples.movie_sentiment --quick               # the same in minutes, to look around
python -m examples.movie_sentiment --keras 2             # Hugging Face's BERT in tf_keras
python -m examples.movie_sentiment --task glue/sst2      # tensorflow-datasets, online
python -m examples.movie_sentiment --data_dir GLUE/SST-2 # GLUE's own TSV files

The runs are those of `tf-movprune train --preset short` with fewer steps, each in a folder of its
own; the dense model, at a higher rate than there as these are few, teaches the pruned ones. A demo
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shlex
import sys
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's remarks would tear the progress bars

import tensorflow as tf

import tf_movprune
from examples.downloads import minilm_folder, movie_review_files
from tf_movprune.runs.exporting import export_model
from tf_movprune.runs.opened_model import open_model
from tf_movprune.runs.presets import settings_of as preset_settings
from tf_movprune.runs.record import RunPaths
from tf_movprune.runs.settings import TrainSettings
from tf_movprune.runs.training import train

METHODS = ("dense", "hard", "magnitude")
LIBRARIES = {"3": "keras_hub", "2": "transformers"}
MOVIE_REVIEWS = "movie_reviews"
HELD_OUT = 700
"""Training sentences to evaluate on while training; the test split is seen at the end alone."""


class Result(NamedTuple):
    """A run's record, and the reports of its exports."""

    record: dict[str, Any]
    saved_model: tf_movprune.ExportReport
    tflite: tf_movprune.ExportReport


def main(argv: list[str] | None = None) -> list[Result]:
    """Trains, exports and compares. Returns what the table shows, in the order of `METHODS`."""
    args = parse_arguments(argv)
    output = pathlib.Path(args.output_dir)
    given = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "examples.movie_sentiment", *given])
    results = []
    for method in METHODS:
        settings = settings_of(method, args)
        print(f"\n{method}: {settings.num_train_steps} steps of {settings.batch_size} sentences")
        is_begun = RunPaths(settings.folder).record_file.is_file()
        record = train(settings, resume=is_begun, command=command)
        opened = open_model(settings.folder)
        exports = [export_model(opened, name) for name in ("saved_model", "tflite")]
        print(*exports, sep="\n")
        results.append(Result(record, *exports))
    text = table(results)
    (output / "results.md").write_text(text + "\n", encoding="utf-8")
    page = tf_movprune.report([output / method for method in METHODS], output / "report.html")
    print(f"\n{text}\n\nThe pictures are in {page}, models and exports in the folders beside it.")
    return results


def settings_of(method: str, args: argparse.Namespace) -> TrainSettings:
    """The settings of one run of the comparison."""
    cache = pathlib.Path(args.cache_dir)
    data: dict[str, Any] = {"task": args.task, "data_dir": args.data_dir}
    if args.task == MOVIE_REVIEWS:
        files = movie_review_files(cache)
        data = {
            "task": "own",
            "train_file": str(files["train"]),
            "validation_file": str(files["test"]),
        }
    others = {"method": method}
    if method != "dense":
        others["teacher"] = str(pathlib.Path(args.output_dir) / "dense")
    recipe = preset_settings("short", data["task"], others) | others
    recipe["num_train_steps"] = args.num_train_steps
    if method == "dense":
        recipe["learning_rate"] = args.learning_rate
    return TrainSettings(
        **data,
        **recipe,
        model=str(args.model or minilm_folder(cache)),
        library=LIBRARIES[args.keras],
        final_sparsity=args.final_sparsity,
        batch_size=args.batch_size,
        lengths=args.lengths,
        max_length=args.lengths[-1],
        held_out=HELD_OUT,
        max_train_examples=args.max_examples,
        max_validation_examples=args.max_examples,
        evaluations=args.evaluations,
        seed=args.seed,
        cache_dir=args.cache_dir,
        output_dir=str(pathlib.Path(args.output_dir) / method),
    )


def table(results: list[Result]) -> str:
    """Markdown: a line to each run."""
    lines = [
        "| method | remaining | test accuracy | SavedModel MB (gzip) | TFLite int8 MB (gzip) |",
        "|---|---|---|---|---|",
    ]
    for record, *exports in results:
        sizes = (f"{x.bytes / 1e6:.1f} ({x.gzip_bytes / 1e6:.1f})" for x in exports)
        lines.append(
            f"| {record['method']} | {record['remaining']:.1%} "
            f"| {record['metrics']['accuracy']:.1%} | {' | '.join(sizes)} |"
        )
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keras", choices=LIBRARIES, default="3", help="3, with KerasHub, or 2: tf_keras"
    )
    parser.add_argument("--quick", action="store_true", help="few steps of one length")
    parser.add_argument("--task", help="glue/sst2 and the like; movie reviews unless given")
    parser.add_argument("--data_dir", help="folder with GLUE's train.tsv and dev.tsv")
    parser.add_argument("--model", help="a BERT folder, preset or hub name; MiniLM-L6 unless given")
    parser.add_argument("--final_sparsity", type=float, default=0.9)
    parser.add_argument("--num_train_steps", type=int)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1.6e-4, help="of the dense model")
    parser.add_argument("--evaluations", type=int, help="validations during each run")
    parser.add_argument(
        "--max_examples", type=int, help="sentences of each split; all unless given"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", default="runs/movie_sentiment")
    parser.add_argument("--cache_dir", default="runs/cache", help="where MiniLM is kept")
    args = parser.parse_args(argv)
    args.task = args.task or ("sst2" if args.data_dir else MOVIE_REVIEWS)
    steps, evaluations = (120, 2) if args.quick else (400, 10)
    args.lengths = (32,) if args.quick else (16, 24, 32, 48, 64)
    args.num_train_steps = args.num_train_steps or steps
    args.evaluations = args.evaluations or evaluations
    return args


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
