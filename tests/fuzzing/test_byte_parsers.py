"""The parsers of bytes under atheris, where it is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
import pytorch_checkpoints as checkpoints
from exporting import QUANTIZATIONS, encoded, network

pytest.importorskip("zstandard")
PARSERS = ("compressed", "pickle", "bin_file")


def seeds(parser):
    """Inputs from which the search starts."""
    bins = [
        checkpoints.CHECKPOINTS / "bert_without_heads/pytorch_model.bin",
        checkpoints.CHECKPOINTS / "bert_texts/pytorch_model-00001-of-00002.bin",
    ]
    if parser == "bin_file":
        return [path.read_bytes() for path in bins]
    if parser == "pickle":
        with zipfile.ZipFile(bins[1]) as archive:
            names = archive.namelist()
            return [archive.read(name) for name in names if name.endswith("/data.pkl")]
    weights = [
        encoded(weight.numpy(), quantization)
        for weight in network(width=8).weights
        for quantization in QUANTIZATIONS
    ]
    return [json.dumps(w.entry.as_json()).encode() + b"\0" + w.payload for w in weights]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install atheris"
)
@pytest.mark.parametrize("parser", PARSERS)
def test_inputs_that_reach_new_code_are_read_or_refused(parser, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i, data in enumerate(seeds(parser)):
        (corpus / str(i)).write_bytes(data)
    tests = pathlib.Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = ["-runs=20000", "-seed=1", "-rss_limit_mb=1024", "-max_len=65536", str(corpus)]
    done = subprocess.run(
        [sys.executable, "-m", "fuzzing.byte_parsers", parser, *options],
        cwd=tmp_path,  # where it leaves the input that failed
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 20000 runs" in done.stderr
