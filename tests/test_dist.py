"""The wheel and the sdist that `make dist` builds: their contents, and the wheel as users have it.

`make test-dist` names their folder in `TF_MOVPRUNE_DIST`.
"""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile

import pytest

import tf_movprune

DIST = os.environ.get("TF_MOVPRUNE_DIST")
pytestmark = pytest.mark.skipif(not DIST, reason="TF_MOVPRUNE_DIST names no folder with a wheel")
ROOT = pathlib.Path(__file__).parents[1]
FILES = {"py.typed", "__init__.pyi", "reports/page.css", "reports/page.html.jinja"}
USE = """
    import pathlib
    import keras, numpy as np, tf_movprune

    x = np.random.RandomState(0).standard_normal([64, 16]).astype("float32")
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(2)]
    recipe = tf_movprune.ShortRun(num_train_steps=16, final_sparsity=0.75)
    model = recipe.prune(keras.Sequential([keras.Input([16]), *layers]))
    model.compile(recipe.create_optimizer(1e-3, model=model), "mse")
    callbacks = [tf_movprune.UpdatePruningStep(), tf_movprune.RunRecorder("run")]
    model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=callbacks)
    plain = tf_movprune.strip_pruning(model)
    tf_movprune.export_tflite(plain, "model.tflite")
    tf_movprune.export_compressed(plain, "model.movprune")
    assert "page.css" not in tf_movprune.report("run").read_text("utf-8")
    print(tf_movprune.__file__, tf_movprune.summarize_sparsity(plain).sparsity)
"""
TYPED = """
    import numpy as np
    import tf_movprune

    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=100)
    method: tf_movprune.PruningMethod = tf_movprune.HardMovement()
    recipe = tf_movprune.ShortRun(num_train_steps=100, final_sparsity=0.9)
    report: tf_movprune.SparsityReport = tf_movprune.summarize_sparsity(object())
    sparsity: float = report.sparsity
    settings = tf_movprune.TrainSettings(task="sst2", output_dir="runs/sst2")
    predict = tf_movprune.load_predictor("runs/sst2")
    answers: list[str] | list[float] = predict(["A fine film."])
"""
WRONG = """
    import tf_movprune

    tf_movprune.CubicSparsity("0.9", begin_step=0, end_step=100)
    tf_movprune.summarize_sparsity(object()).sparsities
    tf_movprune.no_such_name
    tf_movprune.TrainSettings(task="sst2", steps=3)
"""


def built(pattern):
    (path,) = pathlib.Path(DIST).glob(pattern)
    return path


def environment(**changes):
    """The environment of a process that sees nothing of this folder."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | changes


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment with the wheel, and with the dependencies of this one.

    `.pth` files in the folder of the dependencies are not read, so that the editable install there
    is not seen.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, built("*.whl")], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_has_all_of_the_package_and_nothing_else():
    with zipfile.ZipFile(built("*.whl")) as wheel:
        names = set(wheel.namelist())
    command = ["git", "ls-tree", "-r", "-z", "--name-only", "HEAD", "tf_movprune"]
    expected = set(subprocess.check_output(command, cwd=ROOT, text=True).split("\0")) - {""}
    assert {f"tf_movprune/{name}" for name in FILES} < expected
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_sdist_has_what_builds_the_wheel():
    with tarfile.open(built("*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
        assert all(member.uid == member.gid == 0 for member in sdist)
    files = {"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "setup.py", "pyproject.toml"}
    files |= {f"tf_movprune/{name}" for name in FILES}
    assert files <= names and not [name for name in names if name.startswith("tests")]


def test_the_same_files_give_the_same_bytes(tmp_path):
    """A second build, in another folder and of files that are newer there."""
    files = subprocess.check_output(["git", "archive", "HEAD"], cwd=ROOT)
    subprocess.run(["tar", "-x", "--touch", "-C", tmp_path], input=files, check=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation"],
        cwd=tmp_path,
        env=environment(),
        umask=0o022,
        check=True,
        capture_output=True,
    )
    for path in (built("*.whl"), built("*.tar.gz")):
        assert (tmp_path / "dist" / path.name).read_bytes() == path.read_bytes(), path.name


def test_its_metadata(python):
    code = "import importlib.metadata as m; print(m.metadata('tf_movprune').as_string())"
    text = subprocess.check_output([python, "-c", code], text=True, env=environment(), cwd="/")
    assert f"Version: {tf_movprune.__version__}\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert "Classifier: Typing :: Typed\n" in text


def test_the_command(python, tmp_path):
    command = python.with_name("tf-movprune")
    for arguments, said in ((["--help"], "train"), (["train", "--list-presets"], "short")):
        text = subprocess.check_output(
            [command, *arguments], text=True, env=environment(), cwd=tmp_path
        )
        assert said in text


def test_a_model_is_pruned_and_exported(python, tmp_path):
    text = subprocess.check_output(
        [python, "-c", textwrap.dedent(USE)], text=True, env=environment(), cwd=tmp_path
    )
    place, sparsity = text.split()[-2:]
    assert pathlib.Path(place).is_relative_to(python.parents[1])
    assert float(sparsity) == pytest.approx(0.75, abs=0.01)
    for name in ("model.tflite", "model.movprune", "run/report.html"):
        assert (tmp_path / name).stat().st_size > 500


def test_code_of_users_is_checked_by_its_types(python, tmp_path):
    (tmp_path / "right.py").write_text(textwrap.dedent(TYPED))
    (tmp_path / "wrong.py").write_text(textwrap.dedent(WRONG))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    options = {"cwd": tmp_path, "env": environment(), "text": True, "capture_output": True}
    done = subprocess.run([*mypy, "right.py", "wrong.py"], **options)
    lines = [line for line in done.stdout.splitlines() if "error:" in line]
    assert [line.partition(": error:")[0] for line in lines] == [
        f"wrong.py:{number}" for number in (4, 5, 6, 7)
    ], done.stdout + done.stderr
