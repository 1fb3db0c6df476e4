"""Trainings that are killed again and again end as if nothing had happened, to the bit."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from shells import KERASES

FOLDER = pathlib.Path(__file__).parent
KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["hard", "hard-adam", "global", "soft", "magnitude", "task"])
@pytest.mark.parametrize("name", KERASES)
def test_twenty_kills_change_nothing(name, scenario, tmp_path):
    """Processes get SIGKILL after random steps, or while a checkpoint is being written."""
    command = [sys.executable, str(FOLDER / "killed_runs.py"), scenario, name]
    command += [str(tmp_path), str(KILLS), "0"]
    paths = os.pathsep.join([str(FOLDER), str(FOLDER.parent)])
    run = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["is_same"] and found["killed"] == KILLS
    assert 3 <= found["while_writing"] < KILLS, found
