"""Saved models compute the same in PyTorch, and PyTorch's the same here.

PyTorch runs in a process of its own, by the Python that TF_MOVPRUNE_TORCH names and `make
test-torch` installs: it and TensorFlow in one process can crash.
"""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints

import tf_movprune

PYTHON = os.environ.get("TF_MOVPRUNE_TORCH")
pytestmark = [
    pytest.mark.skipif(
        not PYTHON, reason="needs a Python with torch, as `make test-torch` installs it"
    ),
    pytest.mark.filterwarnings("ignore:No tokenizer"),
]

LOGITS = """
import sys
import numpy as np, torch, transformers
transformers.logging.set_verbosity_error()
folder, inputs, results = sys.argv[1:]
inputs = np.load(inputs)
config = transformers.AutoConfig.from_pretrained(folder)
cls = getattr(transformers, config.architectures[0])
model, info = cls.from_pretrained(folder, output_loading_info=True)
assert not info["missing_keys"] and not info["mismatched_keys"], info
assert all("pooler" in key for key in info["unexpected_keys"]), info
ids, mask = (torch.tensor(inputs[name].astype("int64")) for name in ("ids", "mask"))
with torch.no_grad():
    outputs = model.eval()(ids, attention_mask=mask)
np.save(results, np.stack([outputs[key].numpy() for key in outputs if key.endswith("logits")]))
"""

BASE = """
import sys
import torch, transformers
torch.manual_seed(0)
config = transformers.BertConfig(attention_probs_dropout_prob=0.0)
model = transformers.BertForQuestionAnswering(config)
generator = torch.Generator().manual_seed(0)
model.prune_heads({i: torch.randperm(12, generator=generator)[:7].tolist() for i in range(12)})
model.save_pretrained(sys.argv[1], safe_serialization=False)
"""


def run(script, *arguments):
    subprocess.run([PYTHON, "-c", script, *map(str, arguments)], check=True)


def in_pytorch(folder, tmp_path, inputs=checkpoints.CHECKPOINTS / "inputs.npz"):
    """The logits that transformers computes with PyTorch."""
    run(LOGITS, folder, inputs, tmp_path / "logits.npy")
    return np.load(tmp_path / "logits.npy")


@pytest.mark.parametrize(("name", "target"), checkpoints.TARGETS)
def test_saved_models_compute_the_same(tmp_path, name, target):
    model = checkpoints.load(name, target)
    tf_movprune.save_pytorch(model, tmp_path / "a")
    found = in_pytorch(tmp_path / "a", tmp_path)
    np.testing.assert_allclose(found, checkpoints.expected(name), atol=1e-5)


def has_fewer_heads():
    """Returns whether that release of transformers knows `pruned_heads`, as those before 5 do."""
    code = "import transformers; print(transformers.__version__)"
    found = subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True)
    return int(found.stdout.split(".")[0]) < 5


@pytest.mark.parametrize("heads", ["zero", "removed"])
@pytest.mark.parametrize("target", [None, "hub"])
def test_compacted_models_compute_the_same(tmp_path, target, heads):
    if heads == "removed" and not has_fewer_heads():
        pytest.skip("transformers 5 has no pruned_heads")
    arrays = checkpoints.weights("bert_questions")
    block = "bert.encoder.layer.1."
    for part in ("weight", "bias"):
        for name in ("query", "key", "value"):
            arrays[f"{block}attention.self.{name}.{part}"][4:8] = 0
        arrays[f"{block}intermediate.dense.{part}"][::3] = 0
    config = checkpoints.config("bert_questions")
    folder = checkpoints.write(tmp_path / "a", arrays, config)
    cls = checkpoints.hub_class("bert_questions") if target else None
    model = tf_movprune.load_pytorch(folder, cls)
    before = checkpoints.logits(model)
    small = tf_movprune.compact(model)
    tf_movprune.save_pytorch(small, tmp_path / "b", heads=heads)
    listed = json.loads((tmp_path / "b" / "config.json").read_text())["pruned_heads"]
    assert listed == ({"1": [1]} if heads == "removed" else {})
    np.testing.assert_allclose(in_pytorch(tmp_path / "b", tmp_path), before, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(bool(PYTHON) and not has_fewer_heads(), reason="transformers 5 prunes no heads")
def test_a_bert_of_full_size(tmp_path):
    """BERT-base without 84 of 144 heads, in a file of `torch.save`."""
    run(BASE, tmp_path / "base")
    random = np.random.RandomState(0)
    inputs = tmp_path / "inputs.npz"
    ids = random.randint(0, 30522, [2, 64]).astype("int32")
    np.savez(inputs, ids=ids, mask=np.ones_like(ids))
    expected = in_pytorch(tmp_path / "base", tmp_path, inputs)
    model = tf_movprune.load_pytorch(pathlib.Path(tmp_path / "base"))
    found = checkpoints.logits(model, {"ids": ids, "mask": np.ones_like(ids)})
    np.testing.assert_allclose(found, expected, atol=1e-4)
