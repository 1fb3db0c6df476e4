"""The snippets of docs/which_file.md, one after the other on one pruned BERT."""

import os
import pathlib
import re
import sys

import numpy as np
import pytest
from berts import stripped_bert

import tf_movprune

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "which_file.md").read_text(encoding="utf-8")
TOOLS = os.environ.get("TF_MOVPRUNE_TOOLS")


def test_snippets(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    if TOOLS:
        monkeypatch.setattr(sys, "path", [*sys.path, str(pathlib.Path(TOOLS, "lib"))])
    plain = stripped_bert(vocab_size=2920, max_position_embeddings=64)
    names, expected = {"tf_movprune": tf_movprune, "plain": plain}, None
    seen = []
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        if "openvino" in code and not TOOLS:
            continue
        names.pop("logits", None)
        exec(code, names)
        if expected is None:
            expected = plain(names["batch"]).logits.numpy()
        if "logits" in names:
            difference = np.abs(np.array(names["logits"]) - expected).max()
            is_int8 = any(name in code for name in ("model.tflite", "model.onnx"))
            assert difference <= (0.3 if is_int8 else 1e-6), code
            seen.append(difference)
    assert len(seen) == (6 if TOOLS else 5)
    assert names["report"].quantization == "int8"


def test_snippets_in_other_languages_use_the_names_of_the_inputs():
    for language in ("kotlin", "swift", "cpp", "js"):
        [code] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert f"{name}" in code
