"""Damaged files of runs are read as what they say, or refused by name."""

import json
import math

import pytest
from fuzzing.damage import damaged_json, memory_of_at_most, refused
from fuzzing.profiles import each_of
from hypothesis import strategies as st
from recorded_runs import history, pruning, write_run

from tf_movprune.reports.run_folder import RunFolder
from tf_movprune.reports.runs import load_run
from tf_movprune.runs.libraries import library_of, shell_of
from tf_movprune.runs.opened_model import open_model
from tf_movprune.runs.record import RunPaths, check_folder, description_of, new_record
from tf_movprune.runs.settings import LIBRARIES, TrainSettings

MOST_BYTES = 2**25  # deeply nested JSON takes a hundred times its size
DESCRIPTION = {
    "task": "sst2",
    "kind": "classification",
    "label_names": ["negative", "positive"],
    "max_length": 48,
    "stride": 128,
    "has_unanswerable": False,
    "is_pair": None,
}


def settings_of_a_run(folder):
    RunPaths(folder).settings()
    return check_folder(RunPaths(folder), TrainSettings(task="sst2"), resume=True)


def shown(folder):
    run = load_run(folder)
    run.metric_series(run.main_metric or "loss")
    for key in ("loss", "sparsity", "learning_rate"):
        run.series(key)
    return run.result, run.remaining, run.sizes


def continued(folder):
    """A run that goes on in its folder, whatever the last one left there."""
    run = RunFolder(folder)
    run.begin(50)
    run.append({"step": 60})
    run.write_pruning({"step": 60})
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[-1] == 60 and all(step <= 60 for step in steps)
    churn = json.loads((folder / "pruning.json").read_text())["churn"]
    assert churn is None or math.isfinite(churn)


def module(folder):
    return shell_of(library_of(folder))


READERS = {  # file that is damaged, what is in it, and what reads it
    "settings": ("run.json", None, settings_of_a_run),
    "shown run": ("run.json", None, shown),
    "pruning": ("pruning.json", pruning(layers=1), shown),
    "history": ("history.jsonl", history(), shown),
    "run that goes on": ("history.jsonl", history(), continued),
    "pruning of a run that goes on": ("pruning.json", {"step": 30, "churn": 1.0}, continued),
    "description": ("tf_movprune.json", DESCRIPTION, description_of),
    "library": ("config.json", {"registered_name": "keras_hub>BertBackbone"}, module),
    "opened run": ("run.json", None, open_model),
}


def written(choose, name, value):
    """The bytes of a damaged file."""
    if not name.endswith(".jsonl"):
        return damaged_json(choose, value, [*value, "format"])
    lines = [json.dumps(line).encode() for line in value]
    for _ in range(choose.choice([1, 2])):
        at = choose.randrange(len(lines))
        lines[at] = damaged_json(choose, value[at], ["step", "loss", "metrics", "churn"])
    return b"\n".join(lines)


def fuzz(reader, folder, count, *, is_quick):
    name, value, read = READERS[reader]
    write_run(folder, pruned=pruning(layers=1))
    record = new_record(TrainSettings(task="sst2"))
    value = value or {**json.loads((folder / "run.json").read_text()), **record}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "model").mkdir()
    seen = {"read": 0, "refused": 0}
    for library in LIBRARIES:
        shell_of(library)  # imports take memory, too

    @each_of(st.randoms(use_true_random=False), count, is_quick=is_quick)
    def is_read_or_refused(choose):
        (folder / name).write_bytes(written(choose, name, value))
        with memory_of_at_most(MOST_BYTES):
            is_refused, _ = refused(lambda: read(folder), str(folder), "library must be")
        seen["refused" if is_refused else "read"] += 1

    print(seen)
    assert seen["refused"] or reader.endswith("goes on")


@pytest.mark.parametrize("reader", READERS)
def test_some_files(reader, tmp_path):
    fuzz(reader, tmp_path, 30, is_quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_files(reader, tmp_path):
    fuzz(reader, tmp_path, 500, is_quick=False)
