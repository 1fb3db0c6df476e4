"""Arguments of exports that are wrong, before any work is done."""

import pathlib

import numpy as np
import pytest
import tf_keras as keras

import tf_movprune
from tf_movprune.export.checks import check_path

EXPORTS = [
    tf_movprune.export_saved_model,
    tf_movprune.export_tflite,
    tf_movprune.export_onnx,
]


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])


@pytest.fixture
def no_work(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("The model was looked at.")

    monkeypatch.setattr("tf_movprune.keras2.export_protocol.inference_of", refuse)


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"atol": "1"}, TypeError, "atol must be a number such as 0.001, got '1'"),
        ({"atol": True}, TypeError, "atol must be a number"),
        ({"atol": -1.0}, ValueError, "atol must be at least 0, got -1"),
        ({"atol": float("nan")}, ValueError, "atol must be at least 0, got nan"),
        ({"verify": "no"}, TypeError, "verify must be True or False, got 'no'"),
        ({"path": 3}, TypeError, "path must be a path such as 'exported.*', got 3"),
        ({"path": None}, TypeError, "path must be a path"),
        ({"path": ""}, TypeError, "path must be a path"),
        ({"path": "model.keras"}, ValueError, "got 'model.keras', .* which model.save writes"),
        ({"path": "model.H5"}, ValueError, "got 'model.H5', a name for another format"),
        ({"path": "m.movprune"}, ValueError, "which export_compressed writes"),
        ({"path": "model.pb"}, ValueError, r"got 'model.pb', a name for another format\."),
    ],
)
def test_before_any_work(export, options, error, message, model, no_work, tmp_path):
    options = {"path": tmp_path / "x", **options}
    with pytest.raises(error, match=message):
        export(model, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shrink": "yes"}, TypeError, "shrink must be True or False, got 'yes'"),
        ({"shrink": 0}, TypeError, "shrink must be True or False, got 0"),
        ({"quantization": "int2"}, ValueError, "quantization must be None, .* got 'int2'"),
        ({"quantization": np.int8}, ValueError, "quantization must be None, "),
        ({"runtime": 2.14}, TypeError, "runtime must be a string such as '2.14', got 2.14"),
        ({"quantization": None, "calibration": []}, ValueError, "calibration is for activations"),
    ],
)
def test_before_any_work_of_tflite(options, error, message, model, no_work, tmp_path):
    with pytest.raises(error, match=message):
        tf_movprune.export_tflite(model, tmp_path / "x", **options)


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("name", ["sequence_length", "batch_size"])
@pytest.mark.parametrize("value", ["x", 1.5, True])
def test_sizes(export, name, value, model, tmp_path):
    with pytest.raises(TypeError, match=f"{name} must be an integer such as 128, got "):
        export(model, tmp_path / "x", **{name: value})


def test_suffixes():
    for name in ("a", "a.tflite", "a.TFLITE", "bert-0.9", "a.lite", pathlib.Path("b") / "c"):
        assert check_path(name, ".tflite") == pathlib.Path(name)
    with pytest.raises(ValueError, match=r"must be that of a folder, .* which export_tflite"):
        check_path("model.tflite")


def test_places(model, no_work, tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        tf_movprune.export_tflite(model, folder)
    with pytest.raises(NotADirectoryError, match="file"):
        tf_movprune.export_saved_model(model, file)
    with pytest.raises(FileNotFoundError, match="No folder"):
        tf_movprune.export_tflite(model, tmp_path / "none" / "x")


def test_a_folder_of_something_else_is_not_replaced(model, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    assert tf_movprune.export_saved_model(model, folder).max_abs_diff < 1e-6  # it was empty
    (folder / "saved_model.pb").rename(folder / "mine.pb")
    with pytest.raises(FileExistsError, match="holds no SavedModel, and would be replaced"):
        tf_movprune.export_saved_model(model, folder)
    assert (folder / "mine.pb").exists()


def test_files_of_others_in_the_folder_are_kept(model, tmp_path):
    folder = tmp_path / "served"
    size = tf_movprune.export_saved_model(model, folder).bytes
    extra, variables = folder / "assets.extra", folder / "variables"
    extra.mkdir()
    (extra / "tf_serving_warmup_requests").write_text("requests")
    (folder / "README").write_text("read" * 1000)
    (folder / "link").symlink_to("README")
    (variables / "old").write_text("of the model that is replaced")
    again = tf_movprune.export_saved_model(model, folder, verify=False)
    assert abs(again.bytes - size) < 100  # of the SavedModel alone
    assert (extra / "tf_serving_warmup_requests").read_text() == "requests"
    assert (folder / "README").read_text().startswith("read") and (folder / "link").is_symlink()
    assert not (variables / "old").exists()


def test_folders_that_were_made_go_if_something_fails(model, tmp_path):
    failing = keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])
    failing.layers[0].bias.assign([np.nan, 0])
    with pytest.raises(RuntimeError, match="nan"):
        tf_movprune.export_saved_model(failing, tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.iterdir())
    tf_movprune.export_saved_model(model, tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c" / "saved_model.pb").exists()
