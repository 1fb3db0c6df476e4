"""Fine-prunes a real BERT on movie-review sentences: dense, movement and magnitude side by side.

python -m examples.movie_sentiment                       # 90 % of the encoder pruned
python -m examples.movie_sentiment --quick               # the same in minutes, to look around
python -m examples.movie_sentiment --keras 2             # Hugging Face's BERT in tf_keras
python -m examples.movie_sentiment --task glue/sst2      # tensorflow-datasets, online
python -m examples.movie_sentiment --data_dir GLUE/SST-2 # GLUE's own TSV files
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's remarks would tear the progress bars

import tensorflow as tf

import tf_movprune
from examples import picture
from examples.downloads import minilm_folder
from examples.fine_tuning import Bert, Settings, accuracy, bert_for, fit, optimizer_for
from examples.sentiment_data import LENGTHS, Sentences, encoded, load_task, padded

METHODS = ("dense", "movement", "magnitude")


@dataclasses.dataclass
class Result:
    """What the table and the picture show of one run."""

    method: str
    remaining: float
    test_accuracy: float
    steps: list[int]
    validation_accuracy: list[float]
    sparsity: list[float]
    saved_model: tf_movprune.ExportReport
    tflite: tf_movprune.ExportReport


def main(argv: list[str] | None = None) -> list[Result]:
    args = parse_arguments(argv)
    output = pathlib.Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    folder = str(args.model or minilm_folder(pathlib.Path(args.cache_dir)))
    bert = bert_for(args.keras)
    encode = bert.encoder(folder, LENGTHS[-1])
    data = {
        split: encoded(encode, texts[: args.max_examples], labels[: args.max_examples])
        for split, (texts, labels) in load_task(args.task, args.data_dir).items()
    }
    print(f"{', '.join(f'{len(d):,} {split}' for split, d in data.items())} sentences")

    settings = Settings(
        num_train_steps=args.num_train_steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        evaluations=args.evaluations,
        lengths=args.lengths,
    )
    results, matrices = [], {}
    for method in METHODS:
        print(f"\n{method}: {settings.num_train_steps} steps of {settings.batch_size} sentences")
        result, kept = run(bert, method, folder, data, settings, args.final_sparsity, output)
        results.append(result)
        matrices[method] = kept

    print("\n" + table(results))
    (output / "results.json").write_text(json.dumps([as_json(r) for r in results], indent=1))
    (output / "results.txt").write_text(table(results) + "\n")
    path = picture.draw(
        results, matrices, bert.MATRICES, output / "picture.png", args.final_sparsity
    )
    print(f"\nThe picture is in {path}, the exported models beside it.")
    return results


def run(
    bert: Bert,
    method: str,
    folder: str,
    data: dict[str, Sentences],
    settings: Settings,
    final_sparsity: float,
    output: pathlib.Path,
) -> tuple[Result, dict[str, picture.Matrix]]:
    """Trains, strips and exports one model."""
    bert.keras.backend.clear_session()
    recipe = tf_movprune.ShortRun(settings.num_train_steps, final_sparsity)
    model = bert.load(folder, settings.seed)
    optimizer = optimizer_for(model, settings)
    if method == "movement":
        model = recipe.prune(model)
        optimizer = recipe.create_optimizer(settings.learning_rate, model=model)
    if method == "magnitude":
        model = dataclasses.replace(recipe, method=tf_movprune.Magnitude()).prune(model)
    callbacks = [] if method == "dense" else [tf_movprune.UpdatePruningStep()]
    record = fit(bert, model, optimizer, data["train"], data["validation"], settings, callbacks)

    matrices = picture.matrices(model)
    if method != "dense":
        model = tf_movprune.strip_pruning(model)
    bert.save(model, output / method / "pretrained", folder)
    inputs = bert.inputs(padded(data["test"].ids[0], settings.lengths[-1]))
    saved_model = tf_movprune.export_saved_model(
        model, output / method / "saved_model", inputs=inputs
    )
    tflite = tf_movprune.export_tflite(
        model,
        output / method / "model.tflite",
        sequence_length=settings.lengths[-1],
        inputs=inputs,
    )
    print(f"{saved_model}\n{tflite}")
    result = Result(
        method=method,
        remaining=1 - tf_movprune.summarize_sparsity(model).sparsity,
        test_accuracy=accuracy(bert, model, data["test"]),
        steps=record.steps,
        validation_accuracy=record.accuracies,
        sparsity=record.sparsities,
        saved_model=saved_model,
        tflite=tflite,
    )
    print(f"test accuracy {result.test_accuracy:.3f}")
    return result, matrices


def table(results: list[Result]) -> str:
    lines = [
        "| method | remaining | test accuracy | SavedModel MB (gzip) | TFLite int8 MB (gzip) |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        sizes = (
            f"{report.bytes / 1e6:.1f} ({report.gzip_bytes / 1e6:.1f})"
            for report in (r.saved_model, r.tflite)
        )
        lines.append(
            f"| {r.method} | {r.remaining:.1%} | {r.test_accuracy:.1%} | {' | '.join(sizes)} |"
        )
    return "\n".join(lines)


def as_json(result: Result) -> dict:
    values = dataclasses.asdict(result)
    for name in ("saved_model", "tflite"):
        values[name]["path"] = str(values[name]["path"])
    return values


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keras", choices=["3", "2"], default="3", help="3, with KerasHub, or 2: tf_keras"
    )
    parser.add_argument("--quick", action="store_true", help="few steps of one length")
    parser.add_argument("--task", default="movie_reviews", help="or a tfds name: glue/sst2")
    parser.add_argument("--data_dir", help="folder with GLUE's train.tsv and dev.tsv")
    parser.add_argument("--model", help="a BERT folder, preset or hub name; MiniLM-L6 unless given")
    parser.add_argument("--final_sparsity", type=float, default=0.9)
    parser.add_argument("--num_train_steps", type=int)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1.6e-4)
    parser.add_argument("--evaluations", type=int, help="validations during each run")
    parser.add_argument(
        "--max_examples", type=int, help="sentences of each split; all unless given"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", default="runs/movie_sentiment")
    parser.add_argument("--cache_dir", default="runs/cache", help="where MiniLM is kept")
    args = parser.parse_args(argv)
    steps, evaluations, args.lengths = (10, 2, (32,)) if args.quick else (400, 10, Settings.lengths)
    args.num_train_steps = args.num_train_steps or steps
    args.evaluations = args.evaluations or evaluations
    if args.quick and args.max_examples is None:
        args.max_examples = 200
    if args.num_train_steps % args.evaluations:
        parser.error("--num_train_steps must be a multiple of --evaluations")
    return args


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
