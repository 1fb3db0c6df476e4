"""The commands: each takes its parsed arguments, and prints what it did."""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import sys
from typing import Any

from tf_movprune.cli.train_arguments import settings_from
from tf_movprune.runs.inputs import check_inputs
from tf_movprune.runs.record import RunPaths, check_folder, model_folder


def train(arguments: argparse.Namespace) -> None:
    """Trains a model, or prints what it would do.

    What can be found wrong without TensorFlow is, before it is loaded.
    """
    settings = settings_from(arguments)
    record = {}
    if not arguments.dry_run:
        record = check_folder(RunPaths(settings.folder), settings, resume=arguments.resume)
    if not record.get("finished"):
        check_inputs(settings)
    if arguments.dry_run:
        from tf_movprune.runs.dry_run import describe

        print(describe(settings))
        return
    from tf_movprune.runs.training import train as train_task

    command = shlex.join(["tf-movprune", *sys.argv[1:]])
    verbose = 1 if sys.stdout.isatty() else 2  # bars are for terminals
    record = train_task(settings, resume=arguments.resume, command=command, verbose=verbose)
    print("\n" + _summary(record, settings.folder))


def _summary(record: dict[str, Any], folder: str) -> str:
    return f"{_result(record)}\nThe model is in {folder}/model, the report in {folder}/report.html."


def _result(record: dict[str, Any]) -> str:
    """A line on what a finished run reached, and on what is left of its encoder."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in record["metrics"].items())
    return f"{record['title']}: {metrics}; {record['remaining']:.1%} of the encoder remains."


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluates the model of a run."""
    RunPaths(arguments.folder).settings()  # raises before TensorFlow is loaded
    from tf_movprune.runs.evaluating import evaluate as evaluate_run

    scores = evaluate_run(
        arguments.folder,
        data_dir=arguments.data_dir,
        file=arguments.file,
        max_validation_examples=arguments.max_validation_examples,
        predictions=arguments.predictions,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(json.dumps(scores, indent=1))


def summarize(arguments: argparse.Namespace) -> None:
    """Prints what remains in a model, and its sizes."""
    model_folder(pathlib.Path(arguments.folder))  # raises before TensorFlow is loaded
    from tf_movprune.export.sizes import size_report
    from tf_movprune.runs.opened_model import open_model
    from tf_movprune.sparsity import summarize_sparsity

    model = open_model(arguments.folder, arguments.library).model
    sparsity = summarize_sparsity(model)
    if not arguments.json:
        run = RunPaths(arguments.folder)
        record = run.read() if run.record_file.is_file() else {}
        if record.get("finished"):
            removed = " Heads and neurons that were removed are in none of the lines below."
            print(f"{_result(record)}{removed if run.settings().is_structured else ''}\n")
        print(f"{sparsity}\n", flush=True)
    print("The model is compressed in several formats ...", file=sys.stderr, flush=True)
    sizes = size_report(model)
    if arguments.json:
        print(json.dumps({"sparsity": sparsity.as_dict(), "sizes": sizes.as_dict()}, indent=1))
    else:
        print(sizes)


def export(arguments: argparse.Namespace) -> None:
    """Writes a model in the formats that were asked for."""
    model_folder(pathlib.Path(arguments.folder))  # raises before TensorFlow is loaded
    from tf_movprune.runs.exporting import FORMATS, check_options, export_model
    from tf_movprune.runs.opened_model import open_model

    wanted = {name: getattr(arguments, name) for name in FORMATS}
    wanted = {name: path for name, path in wanted.items() if path is not None}
    if not wanted:
        raise ValueError(
            f"No format was asked for. Pass one or several of --{', --'.join(FORMATS)}."
        )
    check_options(wanted, arguments.sequence_length, arguments.quantization)
    opened = open_model(arguments.folder, arguments.library)
    for name, path in wanted.items():
        print(
            export_model(
                opened,
                name,
                path or None,
                sequence_length=arguments.sequence_length,
                quantization=arguments.quantization,
            )
        )


def compact(arguments: argparse.Namespace) -> None:
    """Removes the empty heads and neurons of a model."""
    model_folder(pathlib.Path(arguments.folder))  # raises before TensorFlow is loaded
    from tf_movprune.compaction import compact as compact_model
    from tf_movprune.runs.opened_model import open_model, save_model

    opened = open_model(arguments.folder, arguments.library)
    before = opened.model.count_params()
    model = compact_model(opened.model, multiple_of=arguments.multiple_of)
    save_model(opened._replace(model=model), arguments.output)
    print(f"{model.count_params():,} of {before:,} weights are left, in {arguments.output}.")


def import_pytorch(arguments: argparse.Namespace) -> None:
    """Turns a checkpoint of PyTorch into a model of Keras."""
    from tf_movprune.runs.opened_model import import_checkpoint
    from tf_movprune.sparsity import summarize_sparsity

    model = import_checkpoint(
        arguments.folder, arguments.output, arguments.library, arguments.threshold
    )
    print(f"{summarize_sparsity(model)}\n\nThe model is in {pathlib.Path(arguments.output)}.")


def report(arguments: argparse.Namespace) -> None:
    """Writes the page about one run or several, or prints or writes a table of them."""
    from tf_movprune.export.files import check_place, replacing
    from tf_movprune.reports.comparison import comparison
    from tf_movprune.reports.page import report as write_report
    from tf_movprune.reports.runs import load_run

    if not arguments.table:
        print(write_report(arguments.folders, arguments.output))
        return
    table = comparison([load_run(folder) for folder in arguments.folders])
    if arguments.output is None:
        print(table)
        return
    file = pathlib.Path(arguments.output)
    check_place(file)
    with replacing(file) as new:
        new.write_text(f"{table}\n", encoding="utf-8")
    print(file)
