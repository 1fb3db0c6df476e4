"""What files of weights hold: those of a pruned model, or of a plain one."""

from __future__ import annotations

import os
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # end of the names in checkpoints


def holds_masks(path: Any) -> bool | None:
    """Returns whether a file of weights, or a checkpoint, is that of a pruned model.

    The result is None for what cannot be read; Keras says what is wrong with it.
    """
    try:
        path = os.fspath(path)
        read = _dtypes_in_h5 if path.endswith((".h5", ".hdf5")) else _dtypes_in_checkpoint
        dtypes = read(path)
    except (OSError, TypeError, ValueError, tf.errors.OpError):
        return None
    return any(dtype == np.bool_ and _is_in_wrapper(name, dtypes) for name, dtype in dtypes.items())


def _dtypes_in_h5(path: str) -> dict[str, Any]:
    dtypes: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        dtypes[name.removesuffix(":0")] = getattr(item, "dtype", None)  # groups have none

    with h5py.File(path) as file:
        file.visititems(note)
    return dtypes


def _dtypes_in_checkpoint(path: str) -> dict[str, Any]:
    dtypes = tf.train.load_checkpoint(path).get_variable_to_dtype_map()
    return {name.removesuffix(_VALUE): dtype.as_numpy_dtype for name, dtype in dtypes.items()}


def _is_in_wrapper(name: str, names: Any) -> bool:
    """Returns whether a mask has a threshold beside it; or, without names, a layer above it."""
    owner, _, last = name.rpartition("/")
    if owner.endswith("/vars"):
        return f"{owner.removesuffix('/vars')}/layer" in names
    return last == "mask" and f"{owner}/threshold" in names
