"""Reports on exports: what was written, and how far its outputs are from the model's."""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_movprune.core.inference import Inference
from tf_movprune.export.sparse_storage import StoredMatrix


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Size and interface of an export, and how far its outputs are from the model's.

    Attributes:
      path: the file or folder.
      bytes: its size.
      gzip_bytes: its size after `gzip -6`.
      inputs, outputs: shapes by name; None is any size.
      max_abs_diff: largest difference from the outputs of the Keras model; None if the export was
        not verified.
      quantization: `"int8"` or `"float16"` for a TFLite file, or None for float32.
      removed: numbers of empty `"heads"` and `"neurons"` that a TFLite file leaves out, each with
        the number of all.
      matrices: storage of the weights of fully connected layers in a TFLite file.
    """

    path: pathlib.Path
    bytes: int
    gzip_bytes: int
    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]
    max_abs_diff: float | None
    quantization: str | None = None
    removed: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    matrices: tuple[StoredMatrix, ...] = ()

    @property
    def storages(self) -> dict[str, int]:
        """Number of matrices by storage."""
        return dict(Counter(matrix.storage for matrix in self.matrices))

    def __str__(self) -> str:
        checked = "not verified"
        if self.max_abs_diff is not None:
            checked = f"largest difference from the Keras model {self.max_abs_diff:.2g}"
        quantization = f"{self.quantization}, " if self.quantization else ""
        parts = [
            f"{self.path}: {quantization}{_size(self.bytes)}, {_size(self.gzip_bytes)} gzipped",
            f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}",
            *(
                f"{count:,} of {total:,} {kind} removed"
                for kind, (count, total) in self.removed.items()
                if count
            ),
            checked,
        ]
        if self.storages.keys() - {"dense"}:
            stored = (f"{count} {storage}" for storage, count in self.storages.items())
            parts.insert(-1, f"matrices stored: {', '.join(stored)}")
        return "; ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def largest_difference(
    path: pathlib.Path,
    expected: Mapping[str, np.ndarray],
    outputs: Mapping[str, Any],
    rtol: float,
    atol: float | None,
) -> float:
    """The largest difference of outputs from those expected.

    Args:
      path: path of the export, for messages.
      expected: arrays by name.
      outputs: arrays of the exported model by name.
      rtol: largest difference that passes, over the larger of 1 and the largest output.
      atol: largest difference that passes, if not None.

    Raises:
      RuntimeError: a difference is too large, or NaN.
    """
    largest = 0.0
    for name, reference in expected.items():
        output, reference = np.asarray(outputs[name], float), np.asarray(reference, float)
        difference = float(np.max(np.abs(output - reference)))
        allowed = rtol * max(1.0, float(np.max(np.abs(reference)))) if atol is None else atol
        if not difference <= allowed:  # NaN fails too
            raise RuntimeError(
                f"{path} was not written: its {name!r} would differ from that of the Keras model "
                f"by up to {difference:.3g}, and at most {allowed:.3g} was expected. If that is "
                "good enough, raise atol; verify=False writes the file without comparing."
            )
        largest = max(largest, difference)
    return largest


def report_on(
    path: pathlib.Path, written: pathlib.Path, inference: Inference, difference: float | None
) -> ExportReport:
    """Makes the report on `written`, which is going to be `path`."""
    files = [written]
    if written.is_dir():
        files = [file for file in written.rglob("*") if file.is_file()]
    return ExportReport(
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        gzip_bytes=sum(len(gzip.compress(file.read_bytes(), 6)) for file in files),
        inputs=inference.input_shapes,
        outputs=inference.output_shapes,
        max_abs_diff=difference,
    )
