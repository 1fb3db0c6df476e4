"""Releases of other libraries: those that are refused, and where the others are listed."""

import pathlib
import re
import subprocess
import sys
import types

import pytest

from tf_movprune.core.versions import SUPPORTED, Range, check_versions

ROOT = pathlib.Path(__file__).parents[1]
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
DEVELOPERS = ("test", "docs", "lint", "dist", "gpu-benchmark")


def library(name, version):
    module = types.ModuleType(name)
    module.__version__ = version
    return module


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("keras", "3.8.0"),
        ("keras", "3.15.1"),
        ("keras_hub", "0.19.0"),
        ("keras_hub", "1.0"),
        ("tensorflow", "2.18.0"),
        ("tensorflow", "2.21.0-rc1"),
        ("transformers", "4.54.1"),
    ],
)
def test_supported_releases_pass(name, version):
    check_versions(library(name, version))


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("keras", "3.7.0", r"Expected keras from 3\.8 on and before 4, got keras 3\.7\.0\."),
        ("keras", "4.0", r"got keras 4\.0\. Run `pip install \"keras>=3\.8,<4\"`"),
        ("keras_hub", "0.18.1", r"keras_hub from 0\.19 on, got .*\"keras-hub>=0\.19\""),
        ("tensorflow", "2.17.1", r"got tensorflow 2\.17\.1"),
        ("tensorflow", "2.22.0-dev20261130", r"before 2\.22, got tensorflow 2\.22\.0-dev"),
        ("tf_keras", "unknown", r"got tf_keras unknown"),
        ("transformers", "5.0.0", r"before 4\.55, got transformers 5\.0\.0"),
    ],
)
def test_other_releases_are_refused_with_a_remedy(name, version, message):
    with pytest.raises(ImportError, match=message):
        check_versions(library(name, version))


def test_all_that_is_wrong_is_said_at_once():
    versions = {"tensorflow": "2.17.0", "keras": "3.8.0", "tf_keras": "2.17.0"}
    with pytest.raises(ImportError, match=r"got tensorflow 2\.17\.0 and tf_keras 2\.17\.0\. Run"):
        check_versions(*(library(*found) for found in versions.items()))


def test_the_first_use_of_each_keras_is_refused():
    code = """
import keras, tf_keras, tf_movprune
for module, version in ((keras, "3.7.0"), (tf_keras, "2.17.0")):
    module.__version__ = version
    try:
        tf_movprune.prune_low_movement(module.Sequential([module.layers.Dense(2)]))
    except ImportError as error:
        print(error)
"""
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert [re.search(r"got (\S+ [\d.]+)\. Run", line)[1] for line in lines[-2:]] == [
        "keras 3.7.0",
        "tf_keras 2.17.0",
    ]


def test_transformers_without_tf_classes_is_refused(monkeypatch):
    transformers = pytest.importorskip("transformers")
    from tf_movprune import load_pytorch

    monkeypatch.setattr(transformers, "__version__", "5.0.0")
    with pytest.raises(ImportError, match=r"got transformers 5\.0\.0\. Run `pip install"):
        load_pytorch(ROOT / "tests" / "pytorch" / "checkpoints" / "bert_texts", weights="pytorch")


def requirements(text):
    """The ranges in requirements by normalized name; None for the end of those without one."""
    found = re.findall(r'"([\w.-]+)(?:\[\w+\])?>=([\d.]+)(?:,<([\d.]+))?["; ]', text)
    return {name.lower().replace("_", "-"): Range(first, end or None) for name, first, end in found}


def test_they_are_those_that_pip_installs():
    asked = requirements(SETUP)
    assert len(asked) > 20
    assert {name: asked[name.replace("_", "-")] for name in SUPPORTED} == SUPPORTED


def test_they_are_those_of_the_documentation():
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    for name, (first, end) in SUPPORTED.items():
        row = rf"^\| .*`{name.replace('_', '-')}`.* \| {first} \| ({end or ''} )?\|$"
        assert re.search(row, page, re.MULTILINE), name


def test_the_oldest_are_the_first_of_what_users_install():
    """Constraints that `make test-oldest` takes; `setup.py` has the extras of users, and others."""
    lines = (ROOT / "requirements-oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for extra in DEVELOPERS:
        pattern = rf'    "{extra}": \[.*?\],\n'
        assert re.search(pattern, SETUP, re.DOTALL)
    users = re.sub(rf'    "(?:{"|".join(DEVELOPERS)})": \[.*?\],\n', "", SETUP, flags=re.DOTALL)
    first = {name: found.first for name, found in requirements(users).items()}
    assert len(first) > 15
    for name, version in first.items():
        assert f"{pinned[name]}.".startswith(f"{version}."), name  # or a fix of that release
