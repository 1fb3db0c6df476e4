"""Tasks by name."""

import subprocess
import sys

import numpy as np
import pytest
import task_files

from tf_movprune.tasks import metrics
from tf_movprune.tasks.catalog import TASKS, task


@pytest.mark.parametrize(
    "names, expected",
    [
        (("sst2", "sst-2", "SST-2", "glue/sst2", "SST_2"), "sst2"),
        (("STS-B", "stsb", "glue/stsb"), "stsb"),
        (("squad", "squad_v1.1", "squad/v1.1", "SQuAD v1.1", "squad_v1"), "squad"),
        (("squad_v2", "squad_v2.0", "squad/v2.0", "SQuAD 2.0", "squad2", "squad-v2"), "squad_v2"),
        (("questions", "Questions"), "questions"),
    ],
)
def test_names(names, expected):
    assert {task(name).name for name in names} == {expected}


@pytest.mark.parametrize("found", TASKS, ids=lambda found: found.name)
def test_every_task_has_its_name_and_title(found):
    assert task(found.name) is found
    assert found.title and found.main_metric in found.metrics and "train" in found.splits
    assert found.max_length == (384 if found.kind == "questions" else 128)


@pytest.mark.parametrize(
    "name, nearest",
    [("sst", "sst2"), ("mnil", "mnli"), ("squadd", "squad"), ("zzz", None)],
)
def test_unknown_names(name, nearest):
    mean = rf" Did you mean '{nearest}'\?" if nearest else ""
    message = rf"^There is no task '{name}'\.{mean} The tasks are own, cola, sst2, .*questions_v2;"
    with pytest.raises(ValueError, match=message):
        task(name)


def test_other_data_sets_with_columns():
    found = task("imdb_reviews", text="text", label_names=("negative", "positive"))
    assert (found.dataset, found.text, found.label) == ("imdb_reviews", "text", "label")
    assert found.metrics == ("accuracy", "f1_macro") and found.title == "imdb_reviews"
    own = task("own", label="stars", kind="regression")
    assert (own.dataset, own.text, own.label, own.main_metric) == (None, "text", "stars", "pearson")
    assert set(found.metrics + own.metrics) <= set(metrics.METRICS)


def test_columns_of_known_tasks_are_known():
    with pytest.raises(ValueError, match=r"SST-2 has columns of its own, got text='review'"):
        task("sst2", text="review")


def test_questions_of_the_users_own(tmp_path):
    folder = task_files.write_squad(tmp_path)
    (folder / "train-v1.1.json").rename(folder / "train.json")
    data = task("questions").load(folder)
    assert len(data["train"]) == 12
    with pytest.raises(ValueError, match=r"No file is given for the split 'train' of Questions"):
        task("questions").load()
    files = {"validation": task_files.write_squad(tmp_path, "v2.0") / "dev-v2.0.json"}
    found = task("questions_v2").load(files=files)["validation"]
    assert found.has_unanswerable and sum(not answers for answers in found.answers) == 3


def test_another_data_set(monkeypatch):
    import tensorflow_datasets as tfds

    texts = np.array([b"good", b"bad", b"fine"], object)
    columns = {"text": texts, "label": np.array([1, 0, 1]), "more": {"x": texts}}
    monkeypatch.setattr(tfds, "load", lambda *args, **kwargs: columns)
    monkeypatch.setattr(tfds, "as_numpy", lambda data: data)
    found = task("a/b", text="text", label_names=("neg", "pos")).load(splits=["train"])["train"]
    assert found.texts == ["good", "bad", "fine"] and found.targets.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"a/b of tensorflow_datasets, train has no column 'body'"):
        task("a/b", text="body").load(splits=["train"])


def test_tasks_and_features_load_nothing_heavy():
    modules = ("catalog", "features", "windows", "squad_metrics")
    code = "".join(f"import tf_movprune.tasks.{name}\n" for name in modules)
    code += "import sys; print([m for m in ('tensorflow', 'keras', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
