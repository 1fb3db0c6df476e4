"""Data that the ranges of activations are measured on, for TFLite files of whole numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.example_inputs import given_inputs
from tf_movprune.core.wording import counted

MAX_ROWS = 256
"""Rows that are read at most, or one batch: ranges hardly change after a few hundred."""

Batches = list[dict[str, np.ndarray]]


def calibration_batches(specs: Sequence[tf.TensorSpec], calibration: Any) -> Batches:
    """Batches for a file, from data as `fit` takes it.

    Args:
      specs: specs of the file's inputs.
      calibration: a mapping of arrays with any number of rows by input name, or an iterable of such
        mappings or of tuples `(x, y)` of one and its labels, a `tf.data.Dataset` for example. If
        the model has one input, arrays can take the place of mappings.

    Returns:
      At most `MAX_ROWS` rows, or one batch, in batches of the size that the file takes, or of one
      row each.

    Raises:
      TypeError: `calibration` is not such data.
      ValueError: there are not enough rows, or they do not fit the file.
    """
    size = next((spec.shape[0] for spec in specs if spec.shape.rank), None) or 1
    if any(not spec.shape.rank or spec.shape[0] not in (None, size) for spec in specs):
        raise ValueError(
            "calibration needs inputs with a row for each example, and this file takes "
            f"{', '.join(f'{spec.name} {tuple(spec.shape)}' for spec in specs)}. Leave calibration "
            "out."
        )
    rows: Batches = []
    most = max(MAX_ROWS, size)
    for element in itertools.islice(_elements(calibration), 100 * most):  # some have no rows
        inputs = _checked(specs, element)
        for i in range(min(len(inputs[specs[0].name]), most - len(rows))):
            rows.append({name: array[i : i + 1] for name, array in inputs.items()})
        if len(rows) == most:
            break
    if len(rows) < size:
        raise ValueError(
            f"calibration has {counted(len(rows), 'row')}, and the file takes batches of {size}. "
            "Pass more, like those that the file will get: a hundred or two are good."
        )
    stop = len(rows) // size * size
    return [_joined(rows[start : start + size]) for start in range(0, stop, size)]


def number_of_rows(batches: Batches) -> int:
    return sum(len(next(iter(batch.values()))) for batch in batches)


def _joined(rows: Batches) -> dict[str, np.ndarray]:
    try:
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    except ValueError as error:
        raise ValueError(
            "calibration has rows of different shapes, and the file takes them in batches of "
            f"{len(rows)}: {error}. Pad them, or pass batch_size=1."
        ) from error


def _elements(calibration: Any) -> Iterator[Any]:
    if isinstance(calibration, Mapping | np.ndarray | tf.Tensor | tuple):
        return iter([calibration])
    try:
        if isinstance(calibration, str | bytes):
            raise TypeError
        return iter(calibration)
    except TypeError as error:
        raise TypeError(
            "calibration must be a mapping of arrays by input name, or batches of them such as a "
            f"tf.data.Dataset, got {calibration!r}."
        ) from error


def _checked(specs: Sequence[tf.TensorSpec], element: Any) -> dict[str, np.ndarray]:
    """The rows of one element in the dtypes that the file takes."""
    if isinstance(element, tuple) and 1 <= len(element) <= 3:
        element = element[0]  # inputs, labels and weights, as `fit` takes them
    if not isinstance(element, Mapping):
        if len(specs) != 1:
            raise TypeError(
                f"calibration must have mappings with the keys {[spec.name for spec in specs]}, "
                f"got {type(element).__name__}."
            )
        element = {specs[0].name: element}
    for spec in specs:
        if spec.name in element and np.ndim(element[spec.name]) == spec.shape.rank - 1:
            raise ValueError(
                f"calibration has {spec.name!r} of shape {np.shape(element[spec.name])}, one row, "
                f"and must have batches of them, {(None, *spec.shape[1:])}. Batch a "
                "tf.data.Dataset by batch(32), or pass all rows as one array."
            )
    rows = [tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, spec.name) for spec in specs]
    inputs = given_inputs(rows, element, "calibration")
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"calibration has inputs of different numbers of rows: {counts}.")
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"calibration has {name!r} with values that are not finite numbers.")
    return inputs
