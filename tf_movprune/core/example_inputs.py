"""Inputs on which a model and its exported file are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.nested import named_leaves


def random_inputs(
    specs: Sequence[tf.TensorSpec], vocabulary_size: int, whole: bool = False
) -> dict[str, np.ndarray]:
    """Inputs that look like real ones: token ids within the vocabulary, and some padding.

    Args:
      specs: specs of the inputs; open axes get the size 2 if they are first, and 16 otherwise.
      vocabulary_size: number of token ids.
      whole: whether floats are 0 and 1 only, for models that take ids as floats.

    Raises:
      ValueError: an input takes strings, which cannot be made up.
    """
    random = np.random.RandomState(0)
    inputs: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.dtype == tf.string:
            raise ValueError(
                f"The input {spec.name!r} takes strings, which cannot be made up to compare the "
                f"export with the model. Pass inputs={{{spec.name!r}: ...}}, with arrays for all "
                "inputs, or verify=False."
            )
        open_sizes = [2, *[16] * (spec.shape.rank - 1)]
        shape = [size or other for size, other in zip(spec.shape, open_sizes)]
        array: np.ndarray
        if "mask" in spec.name and shape:
            array = np.arange(shape[-1]) < max(1, shape[-1] // 2) + np.zeros(shape)
        elif spec.dtype.is_integer:
            is_kind = "type" in spec.name or "segment" in spec.name  # of which some models have one
            array = random.randint(0, 1 if is_kind else vocabulary_size, shape)
        elif whole or spec.dtype.is_bool:
            array = random.randint(0, 2, shape)
        else:
            array = random.standard_normal(shape)
        inputs[spec.name] = np.asarray(array, spec.dtype.as_numpy_dtype)
    return inputs


def given_inputs(
    specs: Sequence[tf.TensorSpec], given: Mapping[str, Any], argument: str = "inputs"
) -> dict[str, np.ndarray]:
    """The `given` inputs in the dtypes of `specs`.

    Nested ones are found by their keys, joined by underscores. Whole numbers can be floats.

    Args:
      specs: specs of the inputs.
      given: arrays by the names of inputs.
      argument: name of the argument that they were given as, for messages.

    Raises:
      TypeError: `given` is not a mapping.
      ValueError: an input is missing, not known, of another shape, or not of its dtype.
    """
    names = [spec.name for spec in specs]
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{argument} must map the names of the model's inputs to arrays, with the keys "
            f"{sorted(names)}, got {type(given).__name__}."
        )
    flat: dict[str, Any] = {}
    for key, value in given.items():
        flat.update({key: value} if key in names else named_leaves(value, key, sorted))
    given = {key: value for key, value in flat.items() if value is not None}
    for name in names:
        if name not in given:
            raise ValueError(
                f"{argument} lacks {name!r}: it has {sorted(given, key=str)}, and the model takes "
                f"{sorted(names)}."
            )
    unknown = sorted(given.keys() - set(names), key=str)
    if unknown:
        raise ValueError(
            f"{argument} has {', '.join(map(repr, unknown))}, but the file takes {names}. Leave "
            "out what it does not take."
        )
    inputs = {}
    for spec in specs:
        try:
            inputs[spec.name] = np.asarray(given[spec.name], spec.dtype.as_numpy_dtype)
            if spec.dtype.is_integer and not np.array_equal(inputs[spec.name], given[spec.name]):
                raise ValueError("it has other values than whole numbers of that size")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{argument} has {spec.name!r} that is no array of {spec.dtype.name}: {error}."
            ) from error
        if not spec.shape.is_compatible_with(inputs[spec.name].shape):
            raise ValueError(
                f"{argument} has {spec.name!r} of shape {inputs[spec.name].shape}, but the file "
                f"takes {tuple(spec.shape)}. Pass arrays of that shape, or another "
                "sequence_length or batch_size."
            )
    return inputs
