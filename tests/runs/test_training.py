"""Runs of tasks with the models of either library: what they train, write, and go on with."""

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import task_files
import tensorflow as tf
import tiny_pretrained

import tf_movprune
from tf_movprune.pytorch.load import load_pytorch
from tf_movprune.runs import training
from tf_movprune.runs.checkpoints import Checkpoints
from tf_movprune.runs.evaluating import evaluate
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.opened_model import open_model
from tf_movprune.runs.record import RunPaths
from tf_movprune.tasks.catalog import task as task_of

every_library = pytest.mark.parametrize("library", ["keras_hub", "transformers"])
METRICS = {
    "cola": {"matthews"},
    "sst2": {"accuracy"},
    "mrpc": {"accuracy", "f1"},
    "qqp": {"accuracy", "f1"},
    "stsb": {"pearson", "spearman"},
    "mnli": {"accuracy_matched", "accuracy_mismatched"},
    "qnli": {"accuracy"},
    "rte": {"accuracy"},
    "wnli": {"accuracy"},
    "squad": {"exact_match", "f1"},
    "squad_v2": {
        *("exact_match", "f1"),
        *(f"{group}_{name}" for group in ("HasAns", "NoAns") for name in ("exact", "f1")),
    },
}
QUICK = [
    *(("keras_hub", task) for task in METRICS),
    *(("transformers", task) for task in ("sst2", "squad_v2")),
]
SLOW = [("transformers", task) for task in METRICS if ("transformers", task) not in QUICK]


@pytest.fixture
def without_page(monkeypatch):
    """Leaves out the drawing of the report, which has tests of its own."""
    monkeypatch.setattr(training, "report", lambda *args: None)


@pytest.fixture
def rates_of_dropout(monkeypatch):
    """Filled with the rates of a model's layers of dropout when it is compiled for a phase."""
    found = []
    for shell in map(shell_of, ("keras_hub", "transformers")):

        def compile_for(model, *args, compile_for=shell.compile_for):
            layers = model._flatten_layers()
            found.append({x.rate for x in layers if type(x).__name__ == "Dropout"})
            compile_for(model, *args)

        monkeypatch.setattr(shell, "compile_for", compile_for)
    return found


@pytest.mark.parametrize(
    "library, task", [*QUICK, *(pytest.param(*x, marks=pytest.mark.slow) for x in SLOW)]
)
def test_every_task_in_its_own_files(library, task, tmp_path, without_page):
    record = tiny_pretrained.run(task, tmp_path, library=library)
    assert record["finished"] and set(record["metrics"]) == METRICS[task]
    assert record["main_metric"] in record["metrics"]
    assert all(-1 <= value <= 1 for value in record["metrics"].values())
    assert record["remaining"] == pytest.approx(0.1, abs=1e-3)
    assert record["sparsity"]["total"] == 8192  # all matrices of the encoder, and no other
    for split in set(record["data"]) - {"train"}:
        predictions = json.loads(RunPaths(tmp_path / "run").predictions(split).read_text())
        assert len(predictions) == record["data"][split]["examples"]


@every_library
def test_what_a_run_leaves_behind(library, tmp_path):
    record = tiny_pretrained.run("sst2", tmp_path, library=library, held_out=4, evaluations=2)
    run = RunPaths(tmp_path / "run")
    assert record == run.read() and run.settings().held_out == 4
    lines = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "val_accuracy" in x.get("metrics", {})] == [5, 10]
    assert set(record["metrics"]) == {"accuracy", "held_out_accuracy"}
    assert record["data"]["train"]["examples"] == 20
    assert (run.path / "pruning.json").exists() and "<svg" in run.report.read_text()
    assert record["label_names"] == ["negative", "positive"]
    # The model is plain, has its zeros, and gives the same metrics in a process of its own.
    opened = open_model(run.path)
    assert opened.library == library and opened.description["max_length"] == 48
    assert not tf_movprune.pruned_layers(opened.model)
    assert tf_movprune.summarize_sparsity(opened.model).sparsity == pytest.approx(0.9, abs=1e-3)
    again = evaluate(run.path, data_dir=str(tmp_path / "data"))
    assert again == {"accuracy": record["metrics"]["accuracy"]}


class _KilledError(Exception):
    pass


def killed_at(monkeypatch, step, phase="train"):
    """Lets the process die right after the checkpoint of a step."""
    save = Checkpoints.save

    def save_and_die(self, at):
        save(self, at)
        if at == step and phase in str(self._manager.directory):
            raise _KilledError

    monkeypatch.setattr(Checkpoints, "save", save_and_die)


def final_weights(path):
    return [np.array(w) for w in open_model(path / "run").model.weights]


@every_library
@pytest.mark.parametrize(
    "changes, phase",
    [
        ({"method": "hard"}, "train"),
        pytest.param({"method": "soft"}, "train", marks=pytest.mark.slow),
        pytest.param({"method": "l0", "recipe": "paper"}, "train", marks=pytest.mark.slow),
        pytest.param({"gradient_accumulation_steps": 2}, "train", marks=pytest.mark.slow),
        pytest.param({"teacher": "fine-tune"}, "teacher", marks=pytest.mark.slow),
        pytest.param({"precision": "mixed_float16"}, "train", marks=pytest.mark.slow),
        pytest.param(
            {"structure": "heads+neurons", "head_sparsity": 0.5, "recovery_steps": 6},
            "recovery",
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param(
                {"structure": "neurons", "end": 3, "compact_at": 4, "save_every": every},
                phase,
                marks=pytest.mark.slow,
            )
            for phase, every in (("train", 4), ("compacted", 2))
        ),
    ],
)
def test_a_resumed_run_ends_with_the_same_numbers(
    library, changes, phase, tmp_path, monkeypatch, without_page
):
    """In the middle of an epoch, with dropout: 24 examples make 3 batches."""
    changes = {"library": library, "save_every": 2, **changes}
    straight = tiny_pretrained.run("sst2", tmp_path / "straight", **changes)
    with monkeypatch.context() as patched:
        killed_at(patched, 6 if phase == "compacted" else 4, phase)
        with pytest.raises(_KilledError):
            tiny_pretrained.run("sst2", tmp_path / "killed", **changes)
    assert RunPaths(tmp_path / "killed" / "run").read()["finished"] is None
    resumed = tiny_pretrained.run("sst2", tmp_path / "killed", resume=True, **changes)
    assert resumed["metrics"] == straight["metrics"] and resumed["seconds"] > 0
    assert len(resumed["commands"]) == 2 and not (tmp_path / "killed/run/checkpoint").exists()
    for mine, expected in zip(
        final_weights(tmp_path / "killed"), final_weights(tmp_path / "straight"), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)
    histories = [
        (tmp_path / which / "run" / "history.jsonl").read_text() for which in ("killed", "straight")
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    "library", ["keras_hub", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_a_compacted_model(library, tmp_path, without_page, rates_of_dropout):
    changes = {"structure": "neurons", "final_sparsity": 0.75, "end": 4, "compact_at": 5}
    changes |= {"dropout": 0.05, "evaluations": 2}
    record = tiny_pretrained.run("sst2", tmp_path, library=library, **changes)
    assert rates_of_dropout == [{0.05}, {0.05}]
    run = tmp_path / "run"
    assert (32, 16) in {tuple(w.shape) for w in open_model(run).model.weights}  # of 64 neurons
    assert record["remaining"] == pytest.approx(0.25, abs=1e-3)
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line}
    assert sorted(rates) == list(range(1, 11))
    assert rates[10] < rates[6] < rates[5] < rates[4]  # one decay over both parts
    assert [x["step"] for x in lines if "val_accuracy" in x.get("metrics", {})] == [5, 10]
    assert json.loads((run / "pruning.json").read_text())["step"] == 5


@pytest.mark.slow
def test_a_run_may_be_saved_at_other_steps_once_resumed(tmp_path, monkeypatch, without_page):
    straight = tiny_pretrained.run("sst2", tmp_path / "straight", save_every=2)
    with monkeypatch.context() as patched:
        killed_at(patched, 4)
        with pytest.raises(_KilledError):
            tiny_pretrained.run("sst2", tmp_path / "killed", save_every=2)
    resumed = tiny_pretrained.run("sst2", tmp_path / "killed", resume=True, save_every=7)
    assert resumed["metrics"] == straight["metrics"]
    for mine, expected in zip(
        final_weights(tmp_path / "killed"), final_weights(tmp_path / "straight"), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize(
    "library, method",
    [
        ("keras_hub", "hard"),
        ("transformers", "dense"),
        pytest.param("keras_hub", "dense", marks=pytest.mark.slow),
        pytest.param("transformers", "magnitude", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_comes_to_nan_keeps_the_checkpoint_before(
    library, method, tmp_path, monkeypatch, without_page
):
    save = Checkpoints.save

    def save_and_spoil(self, at):
        save(self, at)
        if at == 4:
            table = next(v for v in self._variables.values() if v.shape.rank == 2)  # embeddings
            table.assign(tf.fill(table.shape, np.nan))

    monkeypatch.setattr(Checkpoints, "save", save_and_spoil)
    message = r"^NaN or infinity at step 5 in .*The last checkpoint is .*ckpt-4\. --resume would"
    with pytest.raises(ValueError, match=message):
        tiny_pretrained.run("sst2", tmp_path, library=library, method=method, save_every=2)
    run = RunPaths(tmp_path / "run")
    assert run.read()["finished"] is None and not run.model.exists()
    last = tf.train.load_checkpoint(tf.train.latest_checkpoint(run.checkpoints("train")))
    assert last.get_tensor("step/.ATTRIBUTES/VARIABLE_VALUE") == 4
    values = map(last.get_tensor, last.get_variable_to_shape_map())
    floats = [value for value in values if getattr(value, "dtype", None) == np.float32]
    assert len(floats) > 20 and not any(np.isnan(value).any() for value in floats)


@pytest.mark.parametrize(
    "library", ["keras_hub", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_heads_and_neurons_are_removed_and_recovered(
    library, tmp_path, without_page, rates_of_dropout
):
    record = tiny_pretrained.run(
        "sst2",
        tmp_path,
        library=library,
        structure="heads+neurons",
        head_sparsity=0.5,
        final_sparsity=0.75,
        recovery_steps=2,
        dropout=0.0,
    )
    assert rates_of_dropout == [{0.0}, {0.0}]
    groups = record["sparsity"]["groups"]
    assert sorted(round(g["sparsity"], 2) for g in groups.values()) == [0.5, 0.75]
    assert record["remaining"] == pytest.approx(0.375, abs=1e-3)  # before they were removed
    model = open_model(tmp_path / "run").model
    shapes = {tuple(w.shape) for w in model.weights}
    assert (32, 16) in shapes and (16, 32) in shapes  # of 64 neurons
    assert (tmp_path / "run" / "phases" / "recovery" / "history.jsonl").exists()


@every_library
def test_a_model_without_dropout(library):
    shell = shell_of(library)
    model, _ = shell.load(tiny_pretrained.folder(), "classification", 2, load_pytorch)
    ids = np.tile(np.arange(1, 9, dtype=np.int32), [4, 1])
    batch = {"ids": ids, "mask": np.ones_like(ids), "segments": np.zeros_like(ids)}

    def logits(training):
        found = model(shell.inputs(model, batch), training=training)
        return np.array(getattr(found, "logits", found))

    assert np.abs(logits(True) - logits(False)).max() > 1e-3
    shell.set_dropout(model, 0.0)
    np.testing.assert_allclose(logits(True), logits(False), atol=1e-6)


@pytest.mark.slow
@every_library
def test_the_teacher_of_a_run_teaches_the_next(library, tmp_path, without_page):
    record = tiny_pretrained.run(
        "sst2",
        tmp_path,
        library=library,
        teacher="fine-tune",
        alpha_hidden=1.0,
        dropout=0.0,
        teacher_learning_rate=1e-5,
    )
    for phase, peak in (("phases/teacher", 1e-5), (".", 8e-5)):
        lines = (tmp_path / "run" / phase / "history.jsonl").read_text().splitlines()
        assert max(json.loads(x).get("learning_rate", 0) for x in lines) == pytest.approx(peak)
    assert record["distilled"] and (tmp_path / "run" / "teacher" / "config.json").is_file()
    teacher = str(tmp_path / "run" / "teacher")
    other = tiny_pretrained.settings(
        "sst2", tmp_path / "next", data_dir=str(tmp_path / "data"), library=library, teacher=teacher
    )
    assert training.train(other, verbose=0)["distilled"]


def test_a_run_is_not_overwritten(tmp_path, without_page):
    record = tiny_pretrained.run("sst2", tmp_path, method="dense", num_train_steps=1)
    with pytest.raises(FileExistsError, match=r"has a run already.*--resume.*--output_dir"):
        tiny_pretrained.run("sst2", tmp_path, method="dense", num_train_steps=1)
    with pytest.raises(ValueError, match=r"other settings: learning_rate 8e-05 -> 0.1"):
        tiny_pretrained.run(
            "sst2", tmp_path, method="dense", num_train_steps=1, learning_rate=0.1, resume=True
        )
    again = tiny_pretrained.run("sst2", tmp_path, method="dense", num_train_steps=1, resume=True)
    assert again["metrics"] == record["metrics"]  # it was finished, and nothing is trained
    with pytest.raises(FileNotFoundError, match=r"no run to go on with"):
        tiny_pretrained.run("sst2", tmp_path / "new", resume=True)


_HOLD = """
import sys, time
from tf_movprune.runs.record import RunPaths
with RunPaths(sys.argv[1]).locked():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_two_processes_do_not_train_in_one_folder(tmp_path, monkeypatch, without_page):
    dense = {"method": "dense", "num_train_steps": 2, "save_every": 1}
    with monkeypatch.context() as patched:
        killed_at(patched, 1)
        with pytest.raises(_KilledError):
            tiny_pretrained.run("sst2", tmp_path, **dense)
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RuntimeError, match=r"Another process is training in .*--output_dir"):
            tiny_pretrained.run("sst2", tmp_path, resume=True, **dense)
        other.kill()
    assert tiny_pretrained.run("sst2", tmp_path, resume=True, **dense)["finished"]


@pytest.mark.slow
def test_a_folder_that_another_process_trained_in_meanwhile(tmp_path, monkeypatch, without_page):
    dense = {"method": "dense", "num_train_steps": 1}
    prepare = training.prepare

    def prepare_slowly(settings, say):
        with monkeypatch.context() as patched:
            patched.setattr(training, "prepare", prepare)
            training.train(settings, verbose=0)
        return prepare(settings, say)

    monkeypatch.setattr(training, "prepare", prepare_slowly)
    with pytest.raises(FileExistsError, match=r"has a run already"):
        tiny_pretrained.run("sst2", tmp_path, **dense)


def test_scores_have_no_teacher(tmp_path):
    with pytest.raises(ValueError, match=r"STS-B has scores and no classes"):
        tiny_pretrained.run("stsb", tmp_path, teacher="fine-tune")


@pytest.mark.parametrize(
    "library", ["transformers", pytest.param("keras_hub", marks=pytest.mark.slow)]
)
def test_teachers_that_cannot_teach(library, tmp_path, without_page):
    dense = {"library": library, "method": "dense", "num_train_steps": 1}
    tiny_pretrained.run("mnli", tmp_path / "mnli", **dense)
    mnli = str(tmp_path / "mnli" / "run")
    with pytest.raises(ValueError, match=r"has no head for SST-2 with 2 outputs"):
        tiny_pretrained.run("sst2", tmp_path / "sst2", library=library, teacher=mnli)
    description = tmp_path / "mnli" / "run" / "model" / "tf_movprune.json"
    content = json.loads(description.read_text())
    content["label_names"] = content["label_names"][::-1]
    description.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has the labels contradiction, neutral, entailment"):
        tiny_pretrained.run("mnli", tmp_path / "other", library=library, teacher=mnli)


def test_checkpoints_of_other_variables(tmp_path):
    Checkpoints(tmp_path, [tf.Variable([1.0, 2.0])]).save(3)
    variable = tf.Variable([0.0, 0.0])
    assert Checkpoints(tmp_path, [variable]).restore() == 3
    np.testing.assert_array_equal(variable, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"is not one of this run"):
        Checkpoints(tmp_path, [tf.Variable([0.0])]).restore()


def test_when_a_run_is_evaluated_and_saved(tmp_path):
    settings = tiny_pretrained.settings("sst2", tmp_path, evaluations=3, save_every=4)
    assert training.evaluation_steps(10, settings) == [4, 7, 10]
    assert training.stops(10, settings) == [0, 4, 7, 8, 10]
    assert training.evaluation_steps(2, settings) == [1, 2]


@pytest.mark.parametrize(
    "library, task",
    [pytest.param("keras_hub", "sst2", marks=pytest.mark.slow), ("transformers", "sst2")],
)
def test_labels_and_inputs_belong_together(library, task, tmp_path, without_page):
    record = tiny_pretrained.run(
        task,
        tmp_path,
        library=library,
        method="dense",
        num_train_steps=150,
        learning_rate=3e-3,
        freeze_embeddings=False,
    )
    assert record["metrics"]["accuracy"] > 0.8  # one word of the validation split is new
    data = task_of(task).load(tmp_path / "data", splits=["train"])["train"]
    predict = tf_movprune.load_predictor(tmp_path / "run")
    assert predict(data.texts) == [data.label_names[label] for label in data.targets]


def write_rows(path, count, labels=("bad", "good")):
    rows = [("review", "stars")]
    rows += [(task_files.sentence(i % 2, f"{path.stem}{i}"), labels[i % 2]) for i in range(count)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def test_a_file_of_the_users_own(tmp_path, without_page):
    files = {
        "train_file": write_rows(tmp_path / "train.csv", 24),
        "validation_file": write_rows(tmp_path / "dev.csv", 8),
        "text_column": "review",
        "label_column": "stars",
    }
    settings = tiny_pretrained.settings(
        "own", tmp_path / "run", method="dense", num_train_steps=2, **files
    )
    record = training.train(settings, verbose=0)
    assert record["label_names"] == ["bad", "good"] and "accuracy" in record["metrics"]
    other = write_rows(tmp_path / "other.csv", 6)
    assert set(evaluate(tmp_path / "run", file=other)) == set(record["metrics"])
    assert (tmp_path / "run" / "predictions-of-other.json").exists()
    with pytest.raises(ValueError, match=r"superb|label|labels"):
        evaluate(tmp_path / "run", file=write_rows(tmp_path / "odd.csv", 6, ("bad", "superb")))
    # A run goes on from its own model, and finds its tokenizer.
    again = dataclasses.replace(
        settings, model=str(tmp_path / "run"), output_dir=str(tmp_path / "again")
    )
    assert training.train(again, verbose=0)["finished"]


@pytest.mark.slow
def test_data_that_changed_are_noticed(tmp_path, monkeypatch, without_page):
    files = {
        "train_file": write_rows(tmp_path / "train.csv", 24),
        "validation_file": write_rows(tmp_path / "dev.csv", 8),
        "text_column": "review",
        "label_column": "stars",
    }
    dense = {"method": "dense", "num_train_steps": 4, "save_every": 2, **files}
    settings = tiny_pretrained.settings("own", tmp_path / "run", **dense)
    with monkeypatch.context() as patched:
        killed_at(patched, 2)
        with pytest.raises(_KilledError):
            training.train(settings, verbose=0)
    write_rows(tmp_path / "train.csv", 24, ("good", "bad"))
    with pytest.raises(ValueError, match=r"train data of the run in .* are not what they were"):
        training.train(settings, resume=True, verbose=0)


def test_damaged_checkpoints_are_passed_by(tmp_path):
    variable = tf.Variable([1.0])
    checkpoints = Checkpoints(tmp_path, [variable])
    for step in (5, 10):
        variable.assign([float(step)])
        checkpoints.save(step)
    (tmp_path / "checkpoint").write_text("")  # as after a power cut
    data = tmp_path / "ckpt-10.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    restored = tf.Variable([0.0])
    assert Checkpoints(tmp_path, [restored]).restore() == 5
    np.testing.assert_array_equal(restored, [5.0])
    (tmp_path / "ckpt-5.data-00000-of-00001").unlink()
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read. Remove the folder"):
        Checkpoints(tmp_path, [restored]).restore()
