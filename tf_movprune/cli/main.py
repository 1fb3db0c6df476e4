"""Parses the command line, and hands each command its arguments."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence

from tf_movprune import __version__
from tf_movprune.cli import train_arguments
from tf_movprune.runs import presets
from tf_movprune.runs.settings import LIBRARIES, TrainSettings

_DESCRIPTION = """\
Movement pruning: prune pretrained models while you fine-tune them.

  tf-movprune train sst2 --preset short        fine-tune BERT on SST-2, and prune it to 10 %
  tf-movprune report runs/sst2-hard            the pictures of that run, as one page
  tf-movprune export runs/sst2-hard --tflite   a file for phones
"""

_TRAIN = """\
Fine-tunes a pretrained model on a task, and prunes it meanwhile.

Tasks are cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, wnli, squad and squad_v2, whose data come
through tensorflow_datasets, or from --data_dir. The task own is for texts of your own, questions
and questions_v2 for files like SQuAD's, in --train_file and --validation_file. Other names are
those of data sets in tensorflow_datasets, with --text_column.

examples:
  tf-movprune train sst2 --preset short --data_dir GLUE/SST-2
  tf-movprune train squad --preset paper-squad-hard --dry-run
  tf-movprune train own --train_file train.csv --validation_file dev.csv \\
      --text_column text --label_column stars --model bert_tiny_en_uncased
  tf-movprune train sst2 --library transformers --model bert-base-uncased --teacher fine-tune

Steps are whole numbers, or fractions of the run if they have a point; negative ones count from
its end. The folder of the run gets the model with a model card, its record and a report.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments; those of the process if None.

    Returns:
      The exit code: 0, or 1 after an error, 130 if it was interrupted. Usage errors exit with 2.
    """
    parser = _parser()
    arguments = parser.parse_args(_with_underscores(sys.argv[1:] if argv is None else argv))
    if arguments.command is None:
        parser.print_help()
        return 0
    if getattr(arguments, "list_presets", False):
        print(presets.table())
        return 0
    if getattr(arguments, "task", "") is None:
        arguments.parser.error("the following arguments are required: TASK")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from tf_movprune.cli import commands

        getattr(commands, arguments.command.replace("-", "_"))(arguments)
    except KeyboardInterrupt:
        more = " --resume goes on with the run." if arguments.command == "train" else ""
        print(f"tf-movprune: interrupted.{more}", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug or not _is_told(error):
            raise
        print(f"tf-movprune: error: {error}", file=sys.stderr)
        return 1
    return 0


def _is_told(error: Exception) -> bool:
    """Returns whether the message of an error says all there is to know."""
    known = (ValueError, TypeError, ImportError, OSError, RuntimeError)
    return isinstance(error, known) or type(error).__module__.startswith("tensorflow.")


def _with_underscores(arguments: Sequence[str]) -> list[str]:
    """Arguments in which options of settings may be spelled with hyphens."""
    names = {f"--{field.name}" for field in dataclasses.fields(TrainSettings)}

    def spelled(argument: str) -> str:
        name, *value = argument.split("=", 1)
        other = "--" + name[2:].replace("-", "_")
        return "=".join([other, *value]) if other in names else argument

    return [spelled(argument) for argument in arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tf-movprune", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"tf_movprune {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    train = _command(commands, "train", "fine-tune and prune a model on a task", _TRAIN)
    train.add_argument("task", nargs="?", metavar="TASK", help="name of the task")
    train.add_argument("--preset", choices=presets.PRESETS, help="settings by name")
    train.add_argument("--list-presets", action="store_true", help="print all presets in full")
    train.add_argument("--dry-run", action="store_true", help="print the run, and do not train")
    train.add_argument("--resume", action="store_true", help="go on with the run in output_dir")
    train.set_defaults(parser=train)
    train_arguments.add_settings(train)

    evaluate = _command(
        commands,
        "evaluate",
        "metrics of a run's model on a split or file",
        "Computes the metrics of the model of a run, and writes its predictions. All examples are\n"
        "evaluated on unless --max_validation_examples is given, also if the run took fewer.\n\n"
        "example:\n"
        "  tf-movprune evaluate runs/sst2-hard --data_dir GLUE/SST-2",
    )
    evaluate.add_argument("folder", metavar="FOLDER", help="folder of a run")
    evaluate.add_argument("--data_dir", help="folder with the task's own files")
    evaluate.add_argument("--file", help="a file of your own, like the one it was trained on")
    evaluate.add_argument(
        "--max_validation_examples", type=int, metavar="N", help="evaluate on the first so many"
    )
    evaluate.add_argument(
        "--predictions", help="file to write; predictions.* in FOLDER unless given"
    )

    summarize = _command(
        commands,
        "summarize",
        "what remains in a model, and its sizes",
        "Prints what remains in each matrix of a model, and how large it is in each format.\n\n"
        "example:\n  tf-movprune summarize runs/sst2-hard",
    )
    _add_model(summarize)
    summarize.add_argument("--json", action="store_true", help="print JSON")

    export = _command(
        commands,
        "export",
        "write TFLite, ONNX, SavedModel or compressed files",
        "Writes a model in the formats that it ships in; each file is run and compared with the\n"
        "model before it takes its place.\n\nexamples:\n"
        "  tf-movprune export runs/sst2-hard --tflite --compressed\n"
        "  tf-movprune export runs/sst2-hard --onnx model.onnx --quantization none",
    )
    _add_model(export)
    for name, what in _FORMATS.items():
        export.add_argument(
            f"--{name}", nargs="?", const="", metavar="PATH", help=f"{what}; FOLDER/exports/..."
        )
    export.add_argument("--sequence_length", type=int, metavar="N", help="tokens of the inputs")
    export.add_argument(
        "--quantization",
        choices=("none", "float16", "int8", "int4"),
        help="of weights; each format has its default: int8 in TFLite and compressed files",
    )

    compact = _command(
        commands,
        "compact",
        "remove empty heads and neurons",
        "Removes heads and neurons that are empty, for a smaller dense model.\n\nexample:\n"
        "  tf-movprune compact pruned-bert small-bert",
    )
    _add_model(compact)
    compact.add_argument("output", metavar="OUTPUT", help="folder to write")
    compact.add_argument("--multiple_of", type=int, default=1, help="of the neurons left (1)")

    pytorch = _command(
        commands,
        "import-pytorch",
        "turn a PyTorch checkpoint into a Keras model",
        "Reads a pruned or ordinary PyTorch checkpoint, without torch, and writes a Keras model.\n"
        "\nexample:\n"
        "  tf-movprune import-pytorch madlag/bert-base-uncased-squad1.1-block-sparse-0.20-v1 out",
    )
    pytorch.add_argument("folder", metavar="FOLDER", help="folder, or name on the Hugging Face hub")
    pytorch.add_argument("output", metavar="OUTPUT", help="folder to write")
    pytorch.add_argument("--library", choices=LIBRARIES, default="keras_hub", help="(keras_hub)")
    pytorch.add_argument("--threshold", type=float, help="final threshold, of pruned checkpoints")

    report = _command(
        commands,
        "report",
        "the pictures of one run or several, as one page",
        "Writes one HTML page about one run, or about several beside each other.\n\nexample:\n"
        "  tf-movprune report runs/dense runs/magnitude runs/hard --output comparison.html\n"
        "  tf-movprune report runs/sst2-* --table --output results.md",
    )
    report.add_argument("folders", metavar="FOLDER", nargs="+", help="folders of runs")
    report.add_argument("--output", help="file to write; a page is report.html in the first folder")
    report.add_argument(
        "--table",
        action="store_true",
        help="print a table in Markdown, or write it to OUTPUT; no page",
    )
    return parser


_FORMATS = {
    "tflite": "a TFLite file, for phones",
    "onnx": "an ONNX file",
    "saved_model": "a SavedModel, for servers",
    "compressed": "a .movprune file, for downloads",
    "pytorch": "a folder for PyTorch, with the tokenizer",
}


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=what, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    parser.set_defaults(command=name)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder of a run, or of a model, or a .keras file"
    )
    parser.add_argument("--library", choices=LIBRARIES, help="if the folder does not tell")
