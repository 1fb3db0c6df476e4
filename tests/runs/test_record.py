"""Records of runs that other versions wrote."""

import pytest

from tf_movprune.cli import train_arguments
from tf_movprune.cli.main import _parser
from tf_movprune.runs.record import RunPaths, check_folder, new_record
from tf_movprune.runs.settings import TrainSettings


def recorded(folder, without=(), **values):
    """A run of SST-2 whose settings lack some values, and have others unchecked."""
    record = new_record(TrainSettings(task="sst2", output_dir=str(folder)))
    settings = {k: v for k, v in record["settings"].items() if k not in without}
    RunPaths(folder).write(record, settings={**settings, **values})
    return RunPaths(folder)


WITHOUT_EFFECT = {
    "temperature": 3.0,
    "alpha_distil": 0.5,
    "block_size": [2, 2],
    "stride": 64,
    "num_train_steps": 20,
    "num_train_epochs": 1.0,
}


def test_options_without_effect_of_older_runs(tmp_path):
    run = recorded(tmp_path, **WITHOUT_EFFECT)
    expected = TrainSettings(task="sst2", output_dir=str(tmp_path), num_train_steps=20)
    assert run.settings() == expected
    assert check_folder(run, expected, resume=True) == run.read()
    command = ["train", "sst2", "--resume", "--output_dir", str(tmp_path)]
    assert train_arguments.settings_from(_parser().parse_args(command)) == expected


def test_options_that_older_runs_did_not_have(tmp_path):
    run = recorded(tmp_path, without=("alpha_hidden", "compact_at"), teacher="fine-tune")
    same = {"task": "sst2", "output_dir": str(tmp_path), "teacher": "fine-tune"}
    assert check_folder(run, TrainSettings(**same), resume=True) == run.read()
    with pytest.raises(ValueError, match=r"other settings: alpha_hidden 0\.0 -> 1\.0\."):
        check_folder(run, TrainSettings(**same, alpha_hidden=1.0), resume=True)


@pytest.mark.parametrize("change", [{"sparsity": 0.9}, {"task": 3}, {"seed": "x"}])
def test_settings_of_another_version(change, tmp_path):
    with pytest.raises(ValueError, match=r"run\.json are not those of this version"):
        recorded(tmp_path, **change).settings()
    with pytest.raises(ValueError, match=r"run\.json are not those of this version"):
        recorded(tmp_path, without=["task"]).settings()
