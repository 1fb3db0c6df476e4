"""Reports on exports: what was written, and how far its outputs are from the model's."""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_movprune.core.inference import Example, Inference
from tf_movprune.core.wording import counted
from tf_movprune.export.stored_matrix import StoredMatrix


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Size and interface of an export, and how far its outputs are from the model's.

    Attributes:
      path: the file or folder.
      bytes: its size.
      gzip_bytes: its size after `gzip -6`.
      inputs, outputs: shapes by name; None is any size, and, instead of a shape, any shape.
      max_abs_diff: largest difference from the outputs of the Keras model; None if the export was
        not verified.
      max_abs_output: largest finite output of the Keras model that it was compared on; None if the
        export was not verified.
      quantization: `"int8"`, `"int4"` or `"float16"` for a TFLite file, `"int8"` for an ONNX file,
        or None for float32.
      removed: numbers of empty `"heads"` and `"neurons"` that a TFLite or ONNX file leaves out,
        each with the number of all.
      matrices: storage of the weights of fully connected layers in a TFLite file, and of matrices
        that an ONNX file multiplies with.
      min_runtime: oldest release of TensorFlow Lite known to run a TFLite file, such as
        `"2.17.0"`; None if it is not known. Every release of LiteRT counts as 2.17 or newer.
      calibration_rows: number of rows that ranges of activations were measured on; None for a file
        whose activations are floats.
    """

    path: pathlib.Path
    bytes: int
    gzip_bytes: int
    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...] | None]
    max_abs_diff: float | None
    quantization: str | None = None
    removed: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    matrices: tuple[StoredMatrix, ...] = ()
    min_runtime: str | None = None
    calibration_rows: int | None = None
    max_abs_output: float | None = None

    @property
    def storages(self) -> dict[str, int]:
        """Number of matrices by storage."""
        return dict(Counter(matrix.storage for matrix in self.matrices))

    def __str__(self) -> str:
        checked = "not verified"
        if self.max_abs_diff is not None:
            checked = f"largest difference from the Keras model {self.max_abs_diff:.2g}"
            if self.max_abs_output is not None:
                checked += f", of outputs up to {self.max_abs_output:.2g}"
        quantization = f"{self.quantization}, " if self.quantization else ""
        if self.calibration_rows is not None:
            quantization += f"activations too, from {counted(self.calibration_rows, 'row')}, "
        parts = [
            f"{self.path}: {quantization}{_size(self.bytes)}, {_size(self.gzip_bytes)} gzipped",
            f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}",
            *(
                f"{count:,} of {counted(total, kind[:-1])} removed"
                for kind, (count, total) in self.removed.items()
                if count
            ),
            *([f"TensorFlow Lite {self.min_runtime} or later"] if self.min_runtime else []),
            checked,
        ]
        if self.storages.keys() - {"dense"}:
            stored = (f"{count:,} {storage}" for storage, count in self.storages.items())
            parts.insert(-1, f"matrices stored: {', '.join(stored)}")
        return "; ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def largest_difference(
    path: pathlib.Path,
    inference: Inference,
    example: Example,
    outputs: Mapping[str, Any],
    rtol: float,
    atol: float | None,
) -> float:
    """The largest difference of outputs from those expected.

    Args:
      path: path of the export, for messages.
      inference: the model's inference.
      example: inputs, and the model's outputs on them.
      outputs: arrays of the exported model by name.
      rtol: largest difference that passes, over the larger of 1 and the largest finite output.
      atol: largest difference that passes, if not None.

    Raises:
      RuntimeError: an output is missing or of another shape, or a difference is too large or NaN.
    """
    if outputs.keys() != example.outputs.keys():
        raise RuntimeError(
            f"{path} was not written: its outputs would be {sorted(outputs)}, and those of the "
            f"Keras model are {sorted(example.outputs)}."
        )
    largest = 0.0
    for name, expected in example.outputs.items():
        output = np.asarray(outputs[name])
        if output.shape != expected.shape:
            raise RuntimeError(
                f"{path} was not written: its {name!r} would be of shape {output.shape}, and that "
                f"of the Keras model is of shape {expected.shape}. Fixed sizes may help: pass "
                "sequence_length and batch_size."
            )
        difference, scale = _difference(output, expected)
        allowed = rtol * max(1.0, scale) if atol is None else atol
        if not difference <= allowed:  # NaN fails too
            again = _difference(inference.run(example.inputs)[name], expected)[0]
            reason = "If that is good enough, raise atol; verify=False writes it uncompared."
            if not again <= allowed and not np.isnan(difference):
                reason = (
                    "The Keras model's own outputs differ as much from call to call, as if it drew "
                    "random numbers: no file can be compared with it. verify=False writes it "
                    "uncompared."
                )
            raise RuntimeError(
                f"{path} was not written: its {name!r} would differ from that of the Keras model "
                f"by up to {difference:.3g}, and at most {allowed:.3g} was expected. {reason}"
            )
        largest = max(largest, difference)
    return largest


def _difference(output: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference, and the largest finite value expected."""
    if expected.dtype.kind in "OSU":
        return (0.0 if np.array_equal(output, expected) else np.inf), 0.0
    kind = complex if expected.dtype.kind == "c" else float
    output, expected = output.astype(kind), expected.astype(kind)
    finite = np.abs(expected[np.isfinite(expected)])
    if kind is float:  # the converter makes infinities the largest finite numbers
        limit = np.finfo(np.float32).max
        output, expected = np.clip(output, -limit, limit), np.clip(expected, -limit, limit)
    differences = np.abs(output - expected)
    return float(np.max(differences, initial=0.0)), float(np.max(finite, initial=0.0))


def report_on(
    path: pathlib.Path,
    written: pathlib.Path,
    inference: Inference,
    traced: Inference,
    example: Example | None,
    run: Callable[[pathlib.Path, pathlib.Path, Mapping[str, np.ndarray]], Mapping[str, Any]],
    rtol: float,
    atol: float | None,
) -> ExportReport:
    """Runs what was written, compares it with the model, and makes the report on it.

    Args:
      path: path of the export.
      written: the file or folder that is going to be there.
      inference: the model's inference.
      traced: the inference that was written, which may lack empty heads and neurons.
      example: inputs, and the model's outputs on them; None if nothing is to be compared.
      run: function from `path`, `written` and inputs by name to outputs by name.
      rtol, atol: largest differences that pass, as `largest_difference` takes them.

    Raises:
      RuntimeError: it does not run, or its outputs differ.
    """
    difference = scale = None
    if example is not None:
        outputs = run(path, written, example.inputs)
        difference = largest_difference(path, inference, example, outputs, rtol, atol)
        scale = max((_difference(o, o)[1] for o in example.outputs.values()), default=0.0)
    files = [written]
    if written.is_dir():
        files = [file for file in written.rglob("*") if file.is_file()]
    return ExportReport(
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        gzip_bytes=sum(len(gzip.compress(file.read_bytes(), 6)) for file in files),
        inputs=traced.input_shapes,
        outputs=traced.output_shapes,
        max_abs_diff=difference,
        max_abs_output=scale,
    )
