"""The user's own CSV, TSV and JSON lines: columns, labels, scores, and what is wrong in them."""

import json

import numpy as np
import pytest

from tf_movprune.tasks.catalog import task
from tf_movprune.tasks.own_files import column_task

ROWS = [('it\'s "so", so good', "yes"), ("bad", "no"), ("ok – fine", "yes")]


def write(folder, suffix, rows, columns=("text", "label"), split="train"):
    """A file of rows in the format of a suffix."""
    path = folder / f"{split}{suffix}"
    if suffix == ".csv":
        quoted = [['"' + str(v).replace('"', '""') + '"' for v in row] for row in [columns, *rows]]
        text = "\r\n".join(",".join(row) for row in quoted)
    elif suffix == ".tsv":
        text = "".join("\t".join(map(str, row)) + "\n" for row in [columns, *rows])
    else:
        text = "".join(json.dumps(dict(zip(columns, row))) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def load(path, split="train", **kwargs):
    return column_task(**kwargs).load(files={split: path})[split]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_formats(suffix, tmp_path):
    data = load(write(tmp_path, suffix, ROWS))
    assert data.texts == [text for text, _ in ROWS] and data.pairs is None
    assert data.label_names == ("no", "yes") and data.targets.tolist() == [1, 0, 1]
    assert data.targets.dtype == np.int32 and data.source == str(tmp_path / f"train{suffix}")


def test_columns_by_name(tmp_path):
    rows = [(7, "b", "x", "a"), (8, "d", "y", "c")]
    path = write(tmp_path, ".csv", rows, ("id", "answer", "kind", "question"))
    data = load(path, text="question", text_pair="answer", label="kind")
    assert (data.texts, data.pairs) == (["a", "c"], ["b", "d"]) and data.label_names == ("x", "y")


@pytest.mark.parametrize(
    "labels, names, numbers",
    [
        ([10, 2, 2], ("2", "10"), [1, 0, 0]),
        (["b", "a", "1"], ("1", "a", "b"), [2, 1, 0]),
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ([-1, 1, -1], ("-1", "1"), [0, 1, 0]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
    ],
)
def test_names_of_labels_are_those_of_training(labels, names, numbers, tmp_path):
    data = load(write(tmp_path, ".jsonl", [("a", label) for label in labels]))
    assert data.label_names == names and data.targets.tolist() == numbers


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1], ["0", "1"]])
def test_given_names_of_labels(labels, tmp_path):
    path = write(tmp_path, ".jsonl", [("a", labels[1]), ("b", labels[0])], split="validation")
    data = load(path, "validation", label_names=("no", "yes"))
    assert data.targets.tolist() == [1, 0] and data.label_names == ("no", "yes")


def test_validation_has_the_labels_of_training(tmp_path):
    write(tmp_path, ".csv", ROWS)
    write(tmp_path, ".csv", [("x", "yes")], split="validation")
    data = column_task().load(tmp_path)
    assert data["validation"].targets.tolist() == [1]
    assert data["validation"].label_names == ("no", "yes")
    write(tmp_path, ".csv", [("x", "yes"), ("y", "maybe")], split="validation")
    with pytest.raises(ValueError, match=r"validation\.csv, line 3: .*labels no, yes, got 'maybe'"):
        column_task().load(tmp_path)
    with pytest.raises(ValueError, match=r"taken from the training split, which is not read"):
        column_task().load(tmp_path, splits=["validation"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_scores(suffix, tmp_path):
    path = write(tmp_path, suffix, [("a", 1), ("b", 2.5), ("c", -3e-2)])
    data = load(path, kind="regression")
    np.testing.assert_allclose(data.targets, [1, 2.5, -0.03], rtol=1e-6)
    assert data.targets.dtype == np.float32 and data.label_names == ()


def test_a_test_split_may_have_labels(tmp_path):
    names = {"label_names": ("no", "yes")}
    assert load(write(tmp_path, ".csv", ROWS), "test", **names).targets.tolist() == [1, 0, 1]
    path = write(tmp_path, ".csv", [("a",)], ("text",))
    assert load(path, "test", **names).targets is None


def test_fields_with_line_ends(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text,label\n"two\nlines",a\n\nb,b\nc\n', newline="")
    with pytest.raises(ValueError, match=r"train\.csv, line 6: expected 2 fields .* got 1: 'c'"):
        load(path)
    path.write_text('text,label\n"two\nlines",a\n\nb,b\n', newline="")
    assert load(path).texts == ["two\nlines", "b"]


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "t.csv",
            "text,label\na,x,y\n",
            r"line 2: expected 2 fields \(text, label\) separated by c",
        ),
        ("t.csv", 'text,label\n"a,x\nb,y\n', r"t\.csv, line 3: expected comma-sep.*unexpected end"),
        ("t.csv", "text,label\n,x\n", r"line 2: 'text' is empty"),
        (
            "t.csv",
            "review,label\na,x\n",
            r"no column 'text'\. Its columns are 'review', 'label'\.$",
        ),
        ("t.csv", "text\tlabel\na\tx\n", r"no column 'text'.*has tabs, where commas.*\.tsv"),
        ("t.tsv", "text,label\na,x\n", r"no column 'text'.*has commas, where tabs.*\.csv"),
        ("t.csv", "text;label\na;x\n", r"no column 'text'.*has semicolons, where commas.*Save it"),
        ("t.csv", '"text";"label"\n"a";"x"\n', r"line 1: .*Quote.*has semicolons, where commas"),
        ("t.csv", 'text;label\n"a, b";x\n', r"line 2: .*Quote.*has semicolons, where commas"),
        ("t.csv", "text;label\na, b;x\n", r"line 2: expected 1 fields.*has semicolons, where comm"),
        ("t.tsv", "text;label\na;x\n", r"no column 'text'.*has semicolons, where tabs should"),
        ("t.csv", 'text,"label;unit"\na,x\nb\n', r"line 3: expected 2 fields.*remove the line\.$"),
        ("t.csv", "text,label\tunit\na,x\nb\n", r"line 3: expected 2 fields.*remove the line\.$"),
        ("t.csv", "text,label\na,x\nb,\n", r"line 3: expected the name or number of a label"),
        ("t.csv", "text,label\na,1\nb,nan\n", r"line 3: expected the name.* as 'label', got 'nan'"),
        ("t.csv", "text,label\na,0.5\nb,1\n", r"such as '0\.5', .*Pass kind regression"),
        (
            "t.csv",
            "text,label\n" + "".join(f"good,a film number {i}\n" for i in range(60)),
            r"'label' has 60 different values.*name the column of the labels",
        ),
        ("t.csv", "text,label\na,x\nb,x\n", r"'label' has one label only, 'x'\. Classification"),
        ("t.csv", "text,label\n", r"The split 'train' of .*t\.csv has no examples"),
        ("t.csv", "", r"t\.csv is empty"),
        ("t.csv", "text,label\na\0,x\n", r"t\.csv, line 2: expected text, got a NUL"),
        ("t.txt", "a", r"t\.txt must be one of \.csv, \.tsv, \.json, \.jsonl, got '\.txt'"),
        ("t.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"t\.jsonl, line 2, column 10: exp"),
        (
            "t.jsonl",
            '{"text": "a", "label": 1}\n[1]\n',
            r"line 2: expected a JSON object, got '\[1",
        ),
        ("t.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', r"line 2: .*keys text, label"),
        ("t.jsonl", '{"text": 3, "label": 1}\n{"text": "b", "label": 2}\n', r"text.*got 3\. Quote"),
        ("t.jsonl", '{"text": "a", "label": null}\n', r"line 1: expected the name.* got None"),
        ("t.jsonl", '{"text": "a", "label": ["x"]}\n', r"line 1: expected the name.* got \['x'\]"),
        ("t.jsonl", '{"text": "a\\ud800", "label": 1}\n{"text": "b", "label": 2}\n', r"surrogate"),
    ],
)
def test_malformed_files(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text, newline="")
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("value", ["x", None, float("nan"), True, float("inf"), "", [1]])
def test_scores_that_are_no_numbers(value, tmp_path):
    path = write(tmp_path, ".jsonl", [("a", 1), ("b", value)])
    with pytest.raises(
        ValueError, match=r"train\.jsonl, line 2: expected a finite number as score"
    ):
        load(path, kind="regression")


def test_missing_files(tmp_path):
    write(tmp_path, ".csv", ROWS)
    with pytest.raises(FileNotFoundError, match=r"no file validation\.csv or .* has: train\.csv\."):
        column_task().load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"The folder .*nowhere does not exist"):
        column_task().load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"No file is given for the split 'train' of own\."):
        column_task().load()


@pytest.mark.parametrize("names", [("a", "a"), ("a",)])
def test_names_that_are_not_different(names):
    with pytest.raises(ValueError, match=r"label_names must be two or more different names"):
        column_task(label_names=names)


def test_other_kinds():
    with pytest.raises(ValueError, match=r"kind must be 'classification' or 'regression', got"):
        column_task(kind="ranking")


def test_labels_may_be_floats_in_one_file_and_integers_in_another(tmp_path):
    """Tables in memory make floats of whole numbers if a value is missing."""
    (tmp_path / "train.csv").write_text("text,label\na,1.0\nb,2.0\nc,3.0\n")
    (tmp_path / "dev.csv").write_text("text,label\na,1\nb,2\n")
    files = {"train": tmp_path / "train.csv", "validation": tmp_path / "dev.csv"}
    data = task("own").load(None, files)
    assert data["train"].label_names == ("1", "2", "3")
    assert data["validation"].targets.tolist() == [0, 1]


def test_labels_that_look_like_numbers_to_python_alone(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,²\nb,³\nc,--1\n", encoding="utf-8")
    data = task("own").load(None, {"train": tmp_path / "train.csv"})
    assert data["train"].label_names == ("--1", "²", "³")
