"""Compressed files beside `xz -9e` of the same values: `make bench-compressed`.

    python -m benchmarks.compressed                   # about ten minutes on two cores
    python -m benchmarks.compressed --shapes tiny     # one
    python -m benchmarks.compressed --pretrained --values int8   # MiniLM too, out of a package

What xz gets is what the file stores, at the same precision: the int8, float16 or float32 values of
each weight and then its scales, in the model's order, one after the other, without names or any
header. The file counts whole, with its header and its table of names.
"""

from __future__ import annotations

import argparse
import datetime
import lzma
import os
import pathlib
import platform
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tf_keras as keras
import transformers

import tf_movprune
from benchmarks.deploy import STRUCTURE
from benchmarks.measuring import Table, seconds
from examples.downloads import minilm_folder
from tf_movprune.export.compressed_files.coding import QUANTIZATIONS, stored_as
from tf_movprune.export.reader import read
from tf_movprune.keras2.named_weights import named_weights

SHAPES = {  # hidden, layers, words
    "tiny": (128, 2, 1000),
    "tiny, 30,522 words": (128, 2, 30522),
    "small": (256, 4, 1000),
}
VALUES = {quantization or "float32": quantization for quantization in QUANTIZATIONS}
PRUNED = {  # sparsity and blocks
    "dense": (0.0, (1, 1)),
    "50 %": (0.5, (1, 1)),
    "90 %": (0.9, (1, 1)),
    "97 %": (0.97, (1, 1)),
    "90 % in blocks of 4": (0.9, tf_movprune.BLOCKS_FLOAT32),
    "97 % in blocks of 16": (0.97, tf_movprune.BLOCKS_INT8),
    "half of heads and neurons": (0.5, STRUCTURE),
}


def random_bert(shape: str) -> keras.Model:
    hidden, layers, words = SHAPES[shape]
    keras.utils.set_random_seed(0)
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        vocab_size=words,
    )
    return built(transformers.TFBertForSequenceClassification(config))


def pretrained_bert() -> keras.Model:
    folder = minilm_folder(pathlib.Path("runs/cache"))
    keras.utils.set_random_seed(0)
    return built(transformers.TFBertForSequenceClassification.from_pretrained(folder))


def built(model: keras.Model) -> keras.Model:
    model(model.dummy_inputs)
    return model


def pruned(model: keras.Model, sparsity: float, block_size: Any) -> keras.Model:
    if not sparsity:
        return model
    schedule = tf_movprune.CubicSparsity(sparsity, begin_step=0, end_step=1)
    method = tf_movprune.Magnitude()
    tf_movprune.prune_low_movement(model, schedule, method, block_size=block_size)
    tf_movprune.update_masks(model, 1)
    return tf_movprune.strip_pruning(model)


def structured() -> Iterator[tuple[str, keras.Model]]:
    """Models of one or two matrices in which xz finds much."""
    random = np.random.RandomState(0)
    rows = random.standard_normal([16, 512])
    steps = np.arange(1000)[:, None] / 10000 ** (np.arange(512) // 2 / 256)
    noise = random.standard_normal([500, 512])
    matrices = {
        "zeros": np.zeros([1000, 512]),
        "one value": np.full([1000, 512], 0.02),
        "rows of 16": rows[random.randint(0, 16, 1000)],
        "two equal halves": np.concatenate([noise, noise]),
        "positions": np.where(np.arange(512) % 2, np.cos(steps), np.sin(steps)),
    }
    for name, matrix in matrices.items():
        yield name, with_matrices(matrix)
    yield "two equal matrices", with_matrices(*[random.standard_normal([512, 512])] * 2)


def with_matrices(*matrices: np.ndarray) -> keras.Model:
    ids = keras.Input([1])
    tables = [keras.layers.Embedding(*matrix.shape) for matrix in matrices]
    model = keras.Model(ids, [table(ids) for table in tables])
    model.set_weights([matrix.astype(np.float32) for matrix in matrices])
    return model


def models(shapes: list[str], with_pretrained: bool) -> Iterator[tuple[str, keras.Model]]:
    for shape in shapes:
        for name, choice in PRUNED.items():
            yield f"{shape}, {name}", pruned(random_bert(shape), *choice)
    if with_pretrained:
        for name in ("dense", "90 %", "half of heads and neurons"):
            yield f"MiniLM, {name}", pruned(pretrained_bert(), *PRUNED[name])
    yield from structured()


def plain_bytes(model: keras.Model, quantization: str | None) -> bytes:
    """The values that a file of the model stores, and their scales."""
    parts = []
    for weight in named_weights(model):
        stored, scales, _ = stored_as(weight, quantization)
        parts += [stored.tobytes(), b"" if scales is None else scales.tobytes()]
    return b"".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--values", nargs="*", choices=VALUES, default=list(VALUES))
    parser.add_argument("--report", type=pathlib.Path, default=pathlib.Path("runs/compressed.md"))
    args = parser.parse_args()
    args.report.parent.mkdir(parents=True, exist_ok=True)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.movprune"
        for name, model in models(args.shapes, args.pretrained):
            for values in args.values:
                quantization = VALUES[values]
                export = seconds(
                    lambda m=model, q=quantization: tf_movprune.export_compressed(
                        m, path, quantization=q
                    )
                )
                load = seconds(lambda: dict(read(path)))
                plain = plain_bytes(model, quantization)
                xz = len(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME))
                size = path.stat().st_size
                label = (
                    f"{name}, {values}: {size:,} bytes / {xz:,} of xz "
                    f"({export:.1f} s to write, {load:.1f} s to read)"
                )
                table.add(label, size / xz, 1.0)
            keras.backend.clear_session()
    table.report(
        args.report,
        f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}.",
    )


if __name__ == "__main__":
    main()
