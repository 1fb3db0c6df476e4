"""Converts a SavedModel for TensorFlow.js: `python -m benchmarks.tensorflowjs SAVED FOLDER`."""

from __future__ import annotations

import os
import pathlib
import sys
import types


def main() -> None:
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # whose fused operations TensorFlow.js lacks
    sys.path.append(str(pathlib.Path(os.environ["TF_MOVPRUNE_TOOLS"], "lib")))
    sys.modules["tensorflow_decision_forests"] = types.ModuleType("a stub: BERTs do without it")
    from tensorflowjs.converters.converter import convert

    saved_model, folder = sys.argv[1:]
    convert(["--input_format=tf_saved_model", saved_model, folder])


if __name__ == "__main__":
    main()
