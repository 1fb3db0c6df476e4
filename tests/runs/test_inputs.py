"""Places that a run reads from, which are checked before TensorFlow is loaded."""

import pathlib

import pytest

from tf_movprune.runs.inputs import check_model


@pytest.mark.parametrize(
    "name", ["/nowhere", "./nowhere", "../nowhere", "~/nowhere", ".", "runs/nowhere", "runs/a/b"]
)
def test_folders_of_models_that_are_not_there(name, tmp_path, monkeypatch):
    (tmp_path / "here" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    if name != ".":
        with pytest.raises(FileNotFoundError, match=rf"no folder of a model {name}\b"):
            check_model(name)
        pathlib.Path(name.removeprefix("/")).mkdir(parents=True)
    if not name.startswith("/"):
        check_model(name)


@pytest.mark.parametrize(
    "name", ["bert_tiny_en_uncased", "google/bert", "hf://google/bert", "runs"]
)
def test_names_on_a_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    check_model(name)
