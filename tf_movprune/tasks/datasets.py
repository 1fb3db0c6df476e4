"""Data through tensorflow_datasets, imported only when asked for."""

from __future__ import annotations

from typing import Any


def read_dataset(name: str, split: str) -> dict[str, Any]:
    """A split of a data set in memory: arrays by name of the feature, of which some are nested.

    Args:
      name: such as "glue/sst2".
      split: such as "train" or "validation".

    Raises:
      ImportError: tensorflow_datasets is not installed.
      ValueError: there is no data set of that name, no such split, or it cannot be loaded.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{name} is read with tensorflow_datasets. Install it with "
            '`pip install "tf_movprune[tasks]"`, or pass data_dir or files.'
        ) from error
    try:
        return tfds.as_numpy(tfds.load(name, split=split, batch_size=-1))
    except Exception as error:  # of the network, of the disk, of names and of versions
        summary = str(error).strip().split("\n")[0]
        raise ValueError(
            f"tensorflow_datasets cannot load the split {split!r} of {name!r}: "
            f"{type(error).__name__}: {summary} Check the name, the network and the disk, or pass "
            "data_dir or files."
        ) from error


def texts_of(values: Any) -> list[str]:
    """Texts of an array of bytes."""
    return [value.decode("utf-8") for value in values]
