"""The command line: what it prints, writes and refuses, command by command."""

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import tiny_pretrained
import transformers
from recorded_runs import write_run

import tf_movprune
from tf_movprune import cli
from tf_movprune.cli import train_arguments
from tf_movprune.cli.main import _parser
from tf_movprune.runs import training
from tf_movprune.runs.presets import PRESETS
from tf_movprune.runs.record import RunPaths, new_record
from tf_movprune.runs.settings import TrainSettings

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = ("train", "evaluate", "summarize", "export", "compact", "import-pytorch", "report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and that of its data."""
    path = tmp_path_factory.mktemp("cli")
    tiny_pretrained.run("sst2", path, structure="neurons", final_sparsity=0.5)
    return path / "run", path / "data"


def printed(capsys, *arguments):
    assert cli.main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*([command] if command else []), "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"tf-movprune {command or 'train'}" in text  # an example
    if not command:
        assert all(name in text for name in COMMANDS) and cli.main([]) == 0


def test_presets_are_listed_in_full(capsys):
    text = printed(capsys, "train", "--list-presets")
    for name, preset in PRESETS.items():
        assert name in text and preset.reported in text
        chosen = {**preset.settings, **preset.distilled}
        assert all(f"{key}={value}" in text for key, value in chosen.items())


def test_options_are_documented():
    page = (ROOT / "docs" / "guides" / "options.md").read_text(encoding="utf-8")
    assert page.endswith(train_arguments.options_table())


def documented_commands():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    return sorted(set(re.findall(r"^ *(tf-movprune .*)$", text, re.MULTILINE)))


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_are_understood(command):
    arguments = _parser().parse_args(shlex.split(command, comments=True)[1:])
    if arguments.command == "train" and not arguments.list_presets:
        assert train_arguments.settings_from(arguments).task == arguments.task


def test_options_win_over_those_of_a_preset():
    def settings(text):
        return train_arguments.settings_from(_parser().parse_args(["train", *text.split()]))

    dense = settings("sst2 --preset structured --method dense --final_sparsity 0.8")
    assert dense.compact_at is None and dense.num_train_steps == 1500 and dense.note
    assert settings("sst2 --preset short").teacher == "fine-tune"
    assert settings("sst2 --preset short --teacher none").teacher is None
    epochs = settings("sst2 --preset short --num_train_epochs 2")
    assert epochs.num_train_steps is None and epochs.num_train_epochs == 2.0
    steps = settings("squad --preset paper-squad-hard --num_train_steps 100")
    assert steps.num_train_steps == 100


def test_options_of_a_resumed_run_need_not_be_repeated(tmp_path):
    before = TrainSettings(task="sst2", teacher="fine-tune", temperature=3.0, method="magnitude")
    RunPaths(tmp_path).write(new_record(before))
    command = ["train", "sst2", "--resume", "--output_dir", str(tmp_path), "--temperature", "3"]
    found = train_arguments.settings_from(_parser().parse_args(command))
    assert found == dataclasses.replace(before, output_dir=str(tmp_path))


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    data = tiny_pretrained.write_data("sst2", tmp_path / "data")
    text = printed(
        capsys,
        *("train", "sst2", "--dry-run", "--data_dir", data, "--output_dir", tmp_path / "run"),
        *("--model", tiny_pretrained.folder(), "--preset", "short", "--batch-size", 8),
    )
    assert "1,500 steps of 8 rows" in text and "8,192 weights in 6 matrices" in text
    assert "0.900 at 1,050" in text and "GB" in text
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_heads_and_neurons(tmp_path, capsys):
    data = tiny_pretrained.write_data("sst2", tmp_path / "data")
    arguments = ["train", "sst2", "--dry-run", "--data_dir", data, "--model"]
    arguments += [tiny_pretrained.folder(), "--output_dir", tmp_path / "run"]
    arguments += ["--structure", "heads+neurons", "--num_train_steps", 10, "--batch_size", 8]
    text = printed(capsys, *arguments, "--final_sparsity", 0.75, "--head_sparsity", 0.5)
    assert "heads      1 of 2 stay in each layer" in text
    assert "neurons    16 of 64 stay in each layer" in text
    text = printed(capsys, *arguments, "--scope", "global", "--final_sparsity", 0.75)
    assert "neurons    16 of 64 stay, in all layers together" in text


def test_a_dry_run_tries_the_teacher(tmp_path, capsys):
    data = tiny_pretrained.write_data("sst2", tmp_path / "data")
    arguments = ["train", "sst2", "--dry-run", "--data_dir", data, "--model"]
    arguments += [tiny_pretrained.folder(), "--output_dir", tmp_path / "run"]
    arguments += ["--teacher", tiny_pretrained.folder(), "--batch_size", 8]
    assert cli.main(list(map(str, arguments))) == 1
    assert "has no head for SST-2" in capsys.readouterr().err


def test_a_run_from_the_command_line(tmp_path, capsys):
    data = tiny_pretrained.write_data("sst2", tmp_path / "data")
    arguments = [
        *("train", "sst2", "--data_dir", data, "--output_dir", tmp_path / "run", "--no-xla"),
        *("--model", tiny_pretrained.folder(), "--num_train_steps", 2, "--batch_size", 8),
        *("--method", "dense", "--evaluations", 1, "--lengths", 32),
    ]
    assert "SST-2: accuracy" in printed(capsys, *arguments)
    assert cli.main(list(map(str, arguments))) == 1  # it is there already
    assert "tf-movprune: error: " in capsys.readouterr().err
    assert "is finished" in printed(capsys, *arguments, "--resume")
    page = printed(capsys, "report", tmp_path / "run", "--output", tmp_path / "page.html")
    assert printed(capsys, "report", tmp_path / "run", "--table").startswith("| method | remaining")
    assert "page.html" in page and "<svg" in (tmp_path / "page.html").read_text()


def test_a_table_is_written_where_it_is_wanted(tmp_path, capsys):
    run, file = write_run(tmp_path / "run"), tmp_path / "table.md"
    text = printed(capsys, "report", run, "--table")
    assert printed(capsys, "report", run, "--table", "--output", file) == f"{file}\n"
    assert file.read_text(encoding="utf-8") == text and "87.3 %" in text
    assert cli.main(["report", str(run), "--table", "--output", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_evaluate(finished, tmp_path, capsys):
    run, data = finished
    target = tmp_path / "predictions.json"
    command = ["evaluate", run, "--data_dir", data, "--predictions", target]
    assert cli.main(list(map(str, command))) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)) == {"accuracy"} and "validation: 8 of the 8 ex" in shown.err
    found = json.loads(target.read_text())
    assert set(found) <= {"negative", "positive"} and len(found) == 8
    assert cli.main([*map(str, command), "--max-validation-examples", "5"]) == 0
    said = capsys.readouterr().err
    assert "validation: 5 of the 8 examples of" in said and "are those of all of them" in said
    assert len(json.loads(target.read_text())) == 5
    assert cli.main([*map(str, command), "--file", "x.tsv"]) == 1
    assert "are both given. Pass one" in capsys.readouterr().err


def test_summarize(finished, capsys):
    text = printed(capsys, "summarize", finished[0])
    assert "compressed int8" in text and "50.0% of the encoder remains. Heads and n" in text
    found = json.loads(printed(capsys, "summarize", finished[0] / "model", "--json"))
    assert found["sparsity"]["total"] > 0 and "dense float32" in found["sizes"]


def test_export(finished, capsys, tmp_path):
    run, _ = finished
    text = printed(capsys, "export", run, "--tflite", "--compressed", "--pytorch", tmp_path / "pt")
    assert (run / "exports" / "model.tflite").exists() and "model.tflite" in text
    weights = tf_movprune.load_compressed(run / "exports" / "model.movprune")
    assert len(weights) > 10 and (tmp_path / "pt" / "model.safetensors").exists()
    assert cli.main(["export", str(run)]) == 1
    assert "No format was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    "library", ["keras_hub", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_exports_for_pytorch_have_tokenizer_and_labels(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "report", lambda *args: None)
    dense = {"library": library, "method": "dense", "num_train_steps": 1}
    tiny_pretrained.run("sst2", tmp_path, **dense)
    assert "and a tokenizer" in printed(capsys, "export", tmp_path / "run", "--pytorch")
    folder = tmp_path / "run" / "exports" / "pytorch"
    ids = [
        transformers.AutoTokenizer.from_pretrained(place)("A Lovely naïve film.")["input_ids"]
        for place in (folder, tiny_pretrained.folder())
    ]
    assert ids[0] == ids[1]
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert transformers.TFAutoModelForSequenceClassification.from_pretrained(folder).config.label2id


def test_import_and_compact(capsys, tmp_path):
    text = printed(capsys, "import-pytorch", tiny_pretrained.folder(), tmp_path / "imported")
    assert "sparsity" in text
    with pytest.warns(UserWarning, match=r"[Nn]othing"):
        text = printed(capsys, "compact", tmp_path / "imported", tmp_path / "small")
    assert "weights are left" in text and (tmp_path / "small" / "config.json").exists()
    assert cli.main(["compact", str(tmp_path / "imported"), str(tmp_path / "small")]) == 1
    assert "small exists. Name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["summarize", "nowhere"], "There is no folder or file nowhere"),
        (["evaluate", "nowhere"], "nowhere has no run.json"),
        (["report", "nowhere"], "nowhere"),
        (["train", "sst3"], "Did you mean 'sst2'"),
        (
            ["train", "sst2", "--final_sparsity", "1.5"],
            r"final_sparsity must be in \[0, 1\), got 1.5",
        ),
        (["train", "sst2", "--block_size", "4", "1"], "block_size is for structure blocks"),
        (["train", "sst2", "--stride", "128"], "stride is for questions"),
        (
            ["export", ".", "--onnx", "--sequence_length", "8"],
            "sequence_length is for tflite",
        ),
        (["train", "mnli", "--preset", "paper-qqp-soft"], "preset paper-qqp-soft is for qqp"),
        (["train", "sst2", "--data_dir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_told(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "options, message",
    [
        ("--text_column txet", "no column 'txet'"),
        ("--train_file nowhere.csv", "nowhere.csv is not a file"),
        ("--teacher nowhere", "There is no folder nowhere"),
        ("--model /nowhere", "There is no folder of a model /nowhere"),
        ("--model ./nowhere", "There is no folder of a model ./nowhere"),
        ("--model there/nowhere", "There is no folder of a model there/nowhere"),
        ("--output_dir there", "there has a run already"),
    ],
)
def test_mistakes_are_told_before_tensorflow_is_loaded(
    options, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("own.csv").write_text("text,label\na,x\nb,y\n")
    pathlib.Path("there").mkdir()
    pathlib.Path("there", "run.json").write_text("{}")
    # Importing it, and TensorFlow with it, is an error.
    monkeypatch.setitem(sys.modules, "tf_movprune.runs.training", None)
    files = "--train_file own.csv --validation_file own.csv"
    assert cli.main(f"train own {files} {options}".split()) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["summarize", "export", "compact", "evaluate"])
def test_folders_that_are_not_there_are_told_before_tensorflow_is_loaded(
    command, capsys, monkeypatch
):
    for name in ("runs.opened_model", "runs.exporting", "runs.evaluating", "export.sizes"):
        monkeypatch.setitem(sys.modules, f"tf_movprune.{name}", None)
    assert cli.main([command, "nowhere", *(["out"] if command == "compact" else [])]) == 1
    assert re.search("no folder or file nowhere|nowhere has no run.json", capsys.readouterr().err)


def test_early_checks_load_no_tensorflow():
    code = "import sys, tf_movprune.cli.commands, tf_movprune.runs.inputs, tf_movprune.runs.record"
    code += "; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_options_are_usage_errors(capsys):
    for arguments in (["train"], ["train", "sst2", "--sparsity", "0.9"], ["trian"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_movprune.runs.training.train", interrupted)
    assert cli.main(["train", "sst2"]) == 130
    assert "--resume" in capsys.readouterr().err
