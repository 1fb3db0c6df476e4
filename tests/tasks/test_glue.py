"""GLUE's own files with their quirks, and tensorflow_datasets."""

import os
import pathlib

import numpy as np
import pytest
import task_files

from tf_movprune.tasks.glue import GLUE

TASKS = {task.name: task for task in GLUE}
SHARED = pathlib.Path(
    os.environ.get("TF_MOVPRUNE_TASK_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data")
)


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding, newline="")
    return path


@pytest.mark.parametrize("name", TASKS)
def test_official_files(name, tmp_path):
    task = TASKS[name]
    task_files.write_glue(tmp_path / "glue", name)
    data = task.load(tmp_path)
    assert tuple(data) == task.splits
    for split, examples in data.items():
        count = task_files.SPLITS["train" if split == "train" else "dev"]
        assert len(examples) == count and str(tmp_path) in examples.source
        assert (examples.pairs is not None) == (len(task.columns) == 2)
        texts = examples.pairs or examples.texts
        assert texts == [text.strip() for text in texts] and '"' in texts[0]
        if task.kind == "regression":
            assert examples.targets.dtype == np.float32 and examples.label_names == ()
            assert 0 <= examples.targets.min() < 1 and 4 < examples.targets.max() <= 5
        else:
            expected = np.arange(count) % len(task.label_names)
            assert examples.targets.dtype == np.int32
            np.testing.assert_array_equal(examples.targets, expected)


@pytest.mark.parametrize("name", TASKS)
def test_the_test_split_has_no_targets(name, tmp_path):
    folder = task_files.write_glue(tmp_path, name)
    split = "test_matched" if name == "mnli" else "test"
    (from_folder,) = TASKS[name].load(folder, splits=[split]).values()
    (from_file,) = TASKS[name].load(files={split: folder / f"{split}.tsv"}).values()
    assert len(from_folder) == 4 and from_folder.targets is None
    assert from_folder.texts == from_file.texts


def test_every_record_is_whole():
    assert list(TASKS) == ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
    for task in GLUE:
        assert task.main_metric in task.metrics and task.dataset == f"glue/{task.name}"
        assert bool(task.label_names) == (task.kind == "classification")


def test_files_given_by_name_go_before_those_of_the_folder(tmp_path):
    folder = task_files.write_glue(tmp_path, "sst2")
    mine = write(tmp_path / "mine.tsv", "sentence\tlabel\nfine\t1\n")
    data = TASKS["sst2"].load(folder, {"train": mine})
    assert data["train"].texts == ["fine"] and len(data["validation"]) == 8


def test_windows_line_ends_a_byte_order_mark_and_quotes(tmp_path):
    text = '\ufeffsentence\tlabel\r\n"an open quote\t1\r\na "closed" one\u2028and a line\t0\r\n'
    (data,) = TASKS["sst2"].load(files={"train": write(tmp_path / "t.tsv", text)}).values()
    assert data.texts == ['"an open quote', 'a "closed" one\u2028and a line']
    assert data.targets.tolist() == [1, 0]


def test_damaged_rows_of_qqp_are_skipped_and_empty_questions_kept(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = "0\t1\t2\ta?\tb?\t1\n1\t3\t4\tc?\n2\t5\t6\td?\t\t0\nHow?\t0\n"
    path = write(tmp_path / "t.tsv", header + rows)
    (data,) = TASKS["qqp"].load(files={"train": path}).values()
    assert data.texts == ["a?", "d?"] and data.pairs == ["b?", ""] and data.skipped == 2


def test_rows_of_mnli_without_a_label_are_skipped(tmp_path):
    text = "sentence1\tsentence2\tgold_label\na\tb\t-\nc\td\tneutral\n"
    path = write(tmp_path / "t.tsv", text)
    (data,) = TASKS["mnli"].load(files={"validation_matched": path}).values()
    assert data.texts == ["c"] and data.targets.tolist() == [1] and data.skipped == 1


def test_mrpc_as_microsoft_gives_it(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    text = header + "1\t7\t8\ta\tb\r\n0\t9\t10\tc\td\r\n1\t8\t7\te\tf\r\n"
    write(tmp_path / "MRPC" / "msr_paraphrase_train.txt", text)
    with pytest.raises(FileNotFoundError, match=r"neither train\.tsv nor dev_ids\.tsv.*has: msr_p"):
        TASKS["mrpc"].load(tmp_path)
    write(tmp_path / "MRPC" / "dev_ids.tsv", "9\t10\n")
    data = TASKS["mrpc"].load(tmp_path)
    assert data["train"].texts == ["a", "e"] and data["train"].targets.tolist() == [1, 1]
    assert data["validation"].pairs == ["d"] and data["validation"].targets.tolist() == [0]


def test_missing_folders_and_files(tmp_path):
    task = TASKS["sst2"]
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist\. .* has: none\."):
        task.load(tmp_path / "nowhere")
    write(tmp_path / "SST-2" / "train.csv", "x")
    with pytest.raises(
        FileNotFoundError, match=r"SST-2 has no file train\.tsv\. .* has: train\.csv"
    ):
        task.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"x\.tsv is not a file\. .* has: SST-2\."):
        task.load(files={"train": tmp_path / "x.tsv"})
    with pytest.raises(FileNotFoundError, match=r"train\.csv is a file, not a folder"):
        task.load(tmp_path / "SST-2" / "train.csv")
    path = write(tmp_path / "train.tsv", "sentence\tlabel\na\t1\n")
    with pytest.raises(ValueError, match=r"No file is given for the split 'validation' of SST-2"):
        task.load(files={"train": path}, splits=["train", "validation"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("sentence\tlabel\na\t1\nb\n", r"t\.tsv, line 3: expected 2 fields \(sentence, label\)"),
        ("text\tlabel\na\t1\n", r"no column 'sentence'\. Its columns are 'text', 'label'\.$"),
        ("sentence,label\na,1\n", r"no column.*are 'sentence,label'\. Its header has commas, wh"),
        (
            "sentence\tlabel\na\t1\nb\t2\n",
            r"line 3: expected one of the labels negative, .*got '2'",
        ),
        ("sentence\tlabel\n \t1\n", r"line 2: 'sentence' is empty\. Fill it in or remove"),
        ("sentence\tlabel\n", r"The split 'train' of .*t\.tsv has no examples"),
        ("", r"t\.tsv is empty: it has 0 bytes"),
    ],
)
def test_malformed_files(text, message, tmp_path):
    path = write(tmp_path / "t.tsv", text)
    with pytest.raises(ValueError, match=message):
        TASKS["sst2"].load(files={"train": path})


def test_bytes_that_are_no_text(tmp_path):
    path = write(tmp_path / "t.tsv", "sentence\tlabel\ncafé\t1\n", "latin-1")
    with pytest.raises(ValueError, match=r"t\.tsv, line 2: expected UTF-8, got the byte 0xe9"):
        TASKS["sst2"].load(files={"train": path})
    write(path, "sentence\tlabel\na\t1\nb\0\t1\n")
    with pytest.raises(ValueError, match=r"t\.tsv, line 3: expected text, got a NUL"):
        TASKS["sst2"].load(files={"train": path})


@pytest.mark.parametrize("score", ["good", "nan", "inf", ""])
def test_scores_that_are_no_numbers(score, tmp_path):
    path = write(tmp_path / "t.tsv", f"sentence1\tsentence2\tscore\na\tb\t1.5\na\tb\t{score}\n")
    with pytest.raises(ValueError, match=rf"line 3: expected a finite number .* got '{score}'"):
        TASKS["stsb"].load(files={"train": path})


@pytest.mark.parametrize("name", ["sst2", "mnli", "stsb"])
def test_tensorflow_datasets(name, monkeypatch):
    task = TASKS[name]

    def load(dataset, split, batch_size):
        assert (dataset, batch_size) == (f"glue/{name}", -1)
        labels = np.array([0.5, 4]) if name == "stsb" else np.array([1, 0])
        texts = np.array([f"a ü {split} ".encode(), b"b"], object)
        return {feature: texts for feature in task.features} | {"label": labels}

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda data: data)
    data = task.load()
    assert tuple(data) == task.splits
    for split, examples in data.items():
        assert examples.texts == [f"a ü {split}", "b"]
        assert examples.targets.tolist() == ([0.5, 4] if name == "stsb" else [1, 0])
    (test,) = task.load(splits=["test"]).values()
    assert test.targets is None


def test_what_tensorflow_datasets_cannot_load(monkeypatch):
    import tensorflow_datasets as tfds

    def load(*args, **kwargs):
        raise OSError("no network\nand a long story")

    monkeypatch.setattr(tfds, "load", load)
    message = r"cannot load the split 'train' of 'glue/sst2': OSError: no network Check"
    with pytest.raises(ValueError, match=message):
        TASKS["sst2"].load()
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"tf_movprune\[tasks\]\""):
        TASKS["sst2"].load()


@pytest.mark.skipif(
    not (SHARED / "glue" / "SST-2").is_dir(), reason="TF_MOVPRUNE_TASK_DATA has no glue/SST-2"
)
def test_all_of_sst2():
    data = TASKS["sst2"].load(SHARED)
    assert {split: len(examples) for split, examples in data.items()} == {
        "train": 67_349,
        "validation": 872,
    }
    assert data["validation"].texts[1] == "unflinchingly bleak and desperate"
    assert data["validation"].targets.mean() == pytest.approx(444 / 872)
