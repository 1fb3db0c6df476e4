"""The progress of pruning for TensorBoard, from the records of masked kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core.arguments import check_update_freq
from tf_movprune.core.masked_kernel import MaskedKernel, each_once, overall_sparsity
from tf_movprune.core.optimizer_steps import step_of
from tf_movprune.core.remaining_units import NamedLayers

NamedKernels = Sequence[tuple[str, MaskedKernel]]


class Summaries:
    """Writes overall and layer sparsity, thresholds and mask churn to TensorBoard.

    Args:
      log_dir: folder for event files, which are written below `log_dir/pruning`.
      update_freq: `"epoch"`, or a number of training steps of at least 1.

    Raises:
      ImportError: TensorBoard is not installed.
      TypeError: `update_freq` is neither a string nor an integer.
      ValueError: `update_freq` is another string, or less than 1.
    """

    def __init__(self, log_dir: str, update_freq: str | int):
        self._frequency = check_summaries(update_freq)
        self._folder = os.path.join(log_dir, "pruning")
        self._writer: Any = None

    @property
    def has_begun(self) -> bool:
        """True between `begin` and `end`."""
        return self._writer is not None

    def begin(self, layers: Mapping[str, NamedKernels], step: int) -> None:
        """Begins a file of events; churn counts from the masks at this point.

        Args:
          layers: `named_kernels` by the path of their layer.
          step: the number of optimizer steps taken so far, as in the other methods.
        """
        self._layers, self._last_step = dict(layers), step
        self._masks = {path: _masks(kernels) for path, kernels in layers.items()}
        self._writer = tf.summary.create_file_writer(self._folder)

    def end_step(self, step: int) -> None:
        """Writes if a multiple of `update_freq` was reached or passed since the last step."""
        if self._frequency and step // self._frequency > self._last_step // self._frequency:
            self.write(step)
        self._last_step = step

    def write(self, step: int) -> None:
        """Writes the values of `summary_values` as of a step."""
        masks = {path: _masks(kernels) for path, kernels in self._layers.items()}
        with self._writer.as_default(step):
            for tag, value in summary_values(self._layers, self._masks, masks).items():
                tf.summary.scalar(tag, value)
        self._writer.flush()
        self._masks = masks

    def end(self, step: int) -> None:
        """Writes a last time, and closes the file."""
        self.write(step)
        self._writer.close()
        self._writer = None


class SummaryHooks:
    """The hooks of `PruningSummaries`, to be mixed into `keras.callbacks.Callback`.

    A shell adds `_find_layers`.
    """

    model: Any

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        super().__init__()
        self._summaries = Summaries(log_dir, update_freq)
        self.log_dir = log_dir
        self.update_freq = update_freq

    def _find_layers(self) -> NamedLayers:
        """The pruned layers of the model."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        found = {
            path: named_kernels(kernels, [name for name, _ in weights])
            for path, (kernels, weights) in self._find_layers().items()
        }
        self._summaries.begin(found, step_of(self.model))

    def on_train_batch_end(self, batch, logs=None):
        if self.update_freq != "epoch":
            self._begin_once()
            self._summaries.end_step(step_of(self.model))

    def on_epoch_end(self, epoch=None, logs=None, batch=None):
        # Loops that are written as the documentation of tfmot says pass `batch` by name.
        if self.update_freq == "epoch":
            self._begin_once()
            self._summaries.write(step_of(self.model))

    def on_train_end(self, logs=None):
        self._begin_once()
        self._summaries.end(step_of(self.model))

    def _begin_once(self) -> None:
        if not self._summaries.has_begun:
            self.on_train_begin()


def named_kernels(kernels: Sequence[MaskedKernel], weight_names: Sequence[str]) -> NamedKernels:
    """The kernels of a layer, named `.query.kernel` or `.heads`; a single one has an empty name.

    Args:
      kernels: all masked kernels of the layer.
      weight_names: names of its prunable weights, one for each kernel unless they have units.
    """
    if kernels[0].has_units:
        return [(f".{kernel.settings.block_size}", kernel) for kernel in kernels]
    if len(kernels) == 1:
        return [("", kernels[0])]
    return [(f".{name}", kernel) for name, kernel in zip(weight_names, kernels)]


def summary_values(
    layers: Mapping[str, NamedKernels],
    before: Mapping[str, Sequence[np.ndarray]],
    after: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, Any]:
    """Scalars by their tags in TensorBoard.

    These are `sparsity` and `churn`, the fraction of mask entries that changed, over all layers and
    for each one, and the `threshold` of each kernel.

    Args:
      layers: `named_kernels` by the path of their layer.
      before: bool masks of the kernels of each layer at the last summary.
      after: their masks now.
    """
    values: dict[str, Any] = {}
    changed, total = 0, 0
    for path, kernels in layers.items():
        flips = sum(int(np.sum(a != b)) for a, b in zip(after[path], before[path]))
        size = sum(mask.size for mask in after[path])
        values[f"sparsity/{path}"] = 1 - sum(mask.sum() for mask in after[path]) / size
        values[f"churn/{path}"] = flips / size
        for name, kernel in kernels:
            values[f"threshold/{path}{name}"] = kernel.threshold
        changed, total = changed + flips, total + size
    everything = each_once(kernel for kernels in layers.values() for _, kernel in kernels)
    return {**values, "sparsity": overall_sparsity(everything), "churn": changed / total}


def _masks(kernels: NamedKernels) -> list[np.ndarray]:
    return [kernel.mask.numpy() for _, kernel in kernels]


def check_summaries(update_freq: Any) -> int | None:
    """Returns the number of steps from one summary to the next; None for epochs.

    Raises:
      ImportError: TensorBoard is not installed.
      TypeError: `update_freq` is neither a string nor an integer.
      ValueError: `update_freq` is another string, or less than 1.
    """
    _check_tensorboard()
    return check_update_freq(update_freq)


def _check_tensorboard() -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "PruningSummaries needs TensorBoard. Install it with `pip install tensorboard`."
        ) from error
