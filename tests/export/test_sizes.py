"""Tables of what a model's parts take in each format."""

import numpy as np
import pytest
from exporting import QUANTIZATIONS, arrays_of, network

import tf_movprune
from tf_movprune.core.named_weights import PARTS

pytest.importorskip("zstandard")


def test_size_report(tmp_path):
    model = network()
    sizes = tf_movprune.size_report(model)
    table = sizes.as_dict()
    assert table["dense float32"]["all"] == 4 * model.count_params()
    assert table["dense float32"]["embeddings"] == 50 * 16 * 4
    assert table["dense float16"]["embeddings"] == 50 * 16 * 2
    assert table["dense int8"]["embeddings"] == 50 * 16 + 50 * 4
    assert table["dense int8"]["layers"] == 2 * (48 * 48 + 48 * 4 + 48 * 4)
    kernels = [weight for weight in arrays_of(model)[1:5] if weight.ndim == 2]
    bitmap = sum(288 + 4 * np.count_nonzero(kernel) for kernel in kernels)
    assert table["bitmap float32"]["layers"] == bitmap + 2 * (6 + 48 * 4)
    assert table["gzip float32"]["layers"] < 0.4 * table["dense float32"]["layers"]
    for quantization in QUANTIZATIONS:
        values = quantization or "float32"
        report = tf_movprune.export_compressed(model, tmp_path / "x", quantization=quantization)
        for part, size in report.parts.items():
            assert table[f"compressed {values}"][part] == size.bytes
            assert table[f"bound {values}"][part] == round(size.bound)
    lines = str(sizes).splitlines()
    assert lines[0].split() == ["bytes", *PARTS, "all", "smaller"]
    assert [line[:18].strip() for line in lines[1:]] == list(table)
    assert lines[1].endswith(" 1.0x")
