"""Checkpoints of each layout that there is, from a folder of them.

TF_MOVPRUNE_PYTORCH_CHECKPOINTS names it; without one the tests are skipped. Each checkpoint has an
`expected.npy` of PyTorch's start and end logits on `inputs.npz` (`ids`, `att`), or one for each of
its two files, `expected_bin.npy` and `expected_h5.npy`.
"""

import json
import os
import pathlib

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints

import tf_movprune

ROOT = pathlib.Path(
    os.environ.get(
        "TF_MOVPRUNE_PYTORCH_CHECKPOINTS",
        pathlib.Path(__file__).parents[3] / "shared" / "pytorch_checkpoints",
    )
)
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/config.json"))
REFUSED = {"c1_nn_masked": r"ampere masks", "c4_nonorm": r"no_norm"}
pytestmark = [
    pytest.mark.skipif(
        not FOLDERS, reason="TF_MOVPRUNE_PYTORCH_CHECKPOINTS names no folder with checkpoints"
    ),
    pytest.mark.filterwarnings("ignore:No tokenizer"),
]


@pytest.fixture(params=[None, "hub"], ids=["hugging_face", "keras_hub"])
def cls(request):
    return checkpoints.hub_class("bert_questions") if request.param else None


def logits(model):
    inputs = np.load(ROOT / "inputs.npz")
    return checkpoints.logits(model, {"ids": inputs["ids"], "mask": inputs["att"]})


def threshold(folder):
    file = ROOT / folder / "training_args.json"
    return json.loads(file.read_text())["final_threshold"] if file.is_file() else None


def loaded(folder, cls):
    """The models of a layout with what PyTorch computes, one for each of its files."""
    choices = {"expected_bin": "pytorch", "expected_h5": "tf", "expected": "auto"}
    for name, weights in choices.items():
        file = ROOT / folder / f"{name}.npy"
        if file.is_file():
            model = tf_movprune.load_pytorch(
                ROOT / folder, cls, weights=weights, threshold=threshold(folder)
            )
            yield model, np.load(file)


@pytest.mark.parametrize("folder", FOLDERS)
def test_layout(folder, cls, tmp_path):
    if folder in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[folder]):
            tf_movprune.load_pytorch(ROOT / folder, cls)
        return
    for i, (model, expected) in enumerate(loaded(folder, cls)):
        np.testing.assert_allclose(logits(model), expected, atol=1e-5)
        tf_movprune.save_pytorch(model, tmp_path / str(i))
        again = tf_movprune.load_pytorch(tmp_path / str(i), cls)
        np.testing.assert_array_equal(logits(again), logits(model))


@pytest.mark.slow
@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder not in REFUSED])
def test_layout_in_small_files(folder, cls, tmp_path):
    for i, (model, expected) in enumerate(loaded(folder, cls)):
        small = tf_movprune.compact(model)
        np.testing.assert_allclose(logits(small), expected, atol=1e-5)
        file = tmp_path / f"{i}.tflite"
        report = tf_movprune.export_tflite(small, file, sequence_length=8, quantization=None)
        assert report.max_abs_diff < 1e-4
