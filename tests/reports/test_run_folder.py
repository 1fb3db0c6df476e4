"""The files of a run, without any training."""

import json

import pytest

from tf_movprune.reports.run_folder import RunFolder, write_json


def test_begin_cuts_off_what_comes_after(tmp_path):
    folder = RunFolder(tmp_path / "new" / "run")
    assert not folder.begin(0)
    for step in (0, 2, 4):
        folder.append({"step": step})
    folder.write_pruning({"step": 4})
    assert json.loads((folder.path / "pruning.json").read_text())["churn"] == 0
    with open(folder.path / "history.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    assert not folder.begin(3)
    assert (folder.path / "history.jsonl").read_text() == '{"step": 0}\n{"step": 2}\n'
    assert not (folder.path / "pruning.json").exists()
    folder.write_pruning({"step": 2})
    assert folder.begin(2)
    assert (folder.path / "pruning.json").exists()  # of this step: a smaller model goes on
    assert folder.begin(0)
    assert (folder.path / "history.jsonl").read_text() == '{"step": 0}\n'


def test_churn_is_added_up(tmp_path):
    folder = RunFolder(tmp_path)
    for record in ({"step": 0}, {"step": 2, "churn": 0.25}, {"step": 4, "churn": 0.5}):
        folder.append(record)
    folder.write_pruning({"step": 4})
    found = json.loads((tmp_path / "pruning.json").read_text())
    assert found == {"format": 1, "step": 4, "churn": 0.75}


def test_numbers_that_json_does_not_have(tmp_path):
    write_json(tmp_path / "file", {"a": [float("nan"), 1.0], "b": float("-inf")})
    assert json.loads((tmp_path / "file").read_text()) == {"a": [None, 1.0], "b": None}


def test_a_file_stays_if_another_cannot_be_written(tmp_path):
    write_json(tmp_path / "file", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"object": object()})
    assert (tmp_path / "file").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
