"""Inferences of models without their empty heads and neurons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tf_movprune.core.inference import Inference
from tf_movprune.export.protocol import Shell


@contextlib.contextmanager
def shrunk(
    shell: Shell,
    model: Any,
    trace: Callable[[Any], Inference],
    inference: Inference,
    shrink: bool = True,
    rows: int = 1,
    min_sparsity: float = 0.0,
) -> Iterator[tuple[Inference, dict[str, tuple[int, int]]]]:
    """Yields the inference of a model without its empty heads and neurons, and their numbers.

    Args:
      shell: the functions of the model's Keras.
      model: a stripped model.
      trace: makes the inference of a smaller model.
      inference: that of `model`, which is yielded if nothing is empty.
      shrink: whether to do so; if not, `inference` is yielded.
      rows: neurons go in blocks of so many.
      min_sparsity: fraction of blocks from which on they do.
    """
    if not shrink:
        yield inference, {}
        return
    with shell.compacted(model, rows, min_sparsity) as (smaller, removed):
        is_smaller = any(gone for gone, _ in removed.values())
        yield trace(smaller) if is_smaller else inference, removed
