"""The layer wrapper that owns scores and masks and multiplies on the way through."""

from __future__ import annotations

import functools
import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.core import masks
from tf_movprune.core.methods import HardMovement, PruningMethod
from tf_movprune.core.schedules import EveryStep
from tf_movprune.core.settings import check_block_size, check_settings
from tf_movprune.keras2.compat import (
    Layer,
    PrunableLayer,
    PruningSchedule,
    is_saving,
    keras,
    register,
)
from tf_movprune.keras2.serialization import (
    deserialize_method,
    deserialize_schedule,
    serialize_method,
    serialize_schedule,
)
from tf_movprune.keras2.shared_masks import SharedMask
from tf_movprune.keras2.slots import (
    Slot,
    build_attention,
    find_slots,
    kernel_names,
    knows_its_inputs,
    replaced,
)

SCORES_NAME = "movement_scores"
"""Last part of the name of every score variable; optimizers recognise scores by it."""


@register
class PruneLowMovement(keras.layers.Wrapper, PrunableLayer):
    """Computes with masked kernels while it trains the layer's own weights and their scores.

        kernel used in the layer = mask * kernel

    The layer's weights are never overwritten. Masks change only when `UpdatePruningStep` or
    `update_masks` refresh them; tracing a training step that has neither raises.

    Usually made by `prune_low_movement`. For each prunable kernel it has these variables, named
    after the kernel:

    - `movement_scores`: float32 under every precision policy, trainable. None for methods
      without scores. The scores of the paper are `score_learning_rate_multiplier` times these.
    - `mask`: bool, one entry to a block, all true at first.
    - `threshold`: float32 scalar. The lowest importance that is kept; of `SoftMovement` the cut on
      the sigmoid of the scores; -inf before the first refresh.

    Heads and neurons, whose weights lie in several layers, have these once to all of them, with one
    entry to a head or neuron. Their biases are masked too.

    Methods with a penalty add it to the layer's losses, times the variable `penalty_weight`; those
    with noise have a `noise_seed`.

    Args:
      layer: the layer to prune: one that tfmot's registry knows, or a subclass of it, or a layer
        that implements `get_prunable_weights()`. It may be unbuilt, except attention layers.
      pruning_schedule: tfmot `PruningSchedule`; its value is the fraction of zeros, or what else
        the method asks for. None for methods that take none.
      method: a `PruningMethod`.
      block_size: rows and columns of the blocks that are kept or masked as one, on kernels of
        shape [in, out]; `HEADS` or `NEURONS` with `shared_masks`.
      score_learning_rate_multiplier: learning rate of the scores over the optimizer's own rate;
        the method's default unless given. The gradient that the optimizer sees, and clips, is
        that of the scores themselves.
      shared_masks: the masks of heads and neurons of which the layer has a part; made by
        `prune_low_movement`.
      **kwargs: of `tf_keras.layers.Layer`.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: nothing in the layer can be pruned, or not in such blocks.
    """

    def __init__(
        self,
        layer: Layer,
        pruning_schedule: PruningSchedule | None = None,
        method: PruningMethod | None = None,
        block_size: tuple[int, int] | str = (1, 1),
        score_learning_rate_multiplier: float | None = None,
        shared_masks: Sequence[SharedMask] = (),
        **kwargs: Any,
    ):
        method = HardMovement() if method is None else method
        if pruning_schedule is None and getattr(method, "schedule_value", "") is None:
            pruning_schedule = EveryStep()
        if score_learning_rate_multiplier is None:
            score_learning_rate_multiplier = getattr(method, "score_learning_rate_multiplier", 1.0)
        _check_layer(layer)
        check_settings(pruning_schedule, method, score_learning_rate_multiplier)
        check_block_size(block_size, method, is_shared=bool(shared_masks))
        kwargs.setdefault("name", f"prune_low_movement_{layer.name}")
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)
        super().__init__(layer, **kwargs)
        self.pruning_schedule = pruning_schedule
        self.method = method
        self.block_size: Any = block_size if shared_masks else tuple(map(int, block_size))
        self.__dict__["shared_masks"] = list(shared_masks)  # not tracked: their variables are
        self.score_learning_rate_multiplier = float(score_learning_rate_multiplier)
        self.supports_masking = layer.supports_masking
        self.stateful = getattr(layer, "stateful", False)
        self._masks_are_refreshed = False
        self._is_folded = False
        if hasattr(layer, "_batch_input_shape"):
            self._batch_input_shape = layer._batch_input_shape
        if layer.built:
            self.build(None)

    # ---- variables

    def build(self, input_shape=None):
        if self.built:
            return
        if not self.layer.built:
            with tf.name_scope(self.layer.name):
                self.layer.build(input_shape)
            self.layer.built = True
        if isinstance(self.layer, keras.layers.MultiHeadAttention) and not self.layer.weights:
            build_attention(self.layer)
        self._find_kernels()
        self.scores, self.masks, self.thresholds = [], [], []
        if self.shared_masks:
            self._share_variables()
        else:
            for i, kernel in enumerate(self.get_prunable_weights()):
                self._add_variables(kernel, i)
        if self.method.has_penalty:
            self.penalty_weight = self._add_state("penalty_weight", (), tf.float32)
            if self._own_scores:
                self.add_loss(self._penalty)
        if self.method.has_noise:
            self.noise_seed = self._add_state("noise_seed", (2,), tf.int64)  # int32 has no GPU
        super().build(input_shape)

    def _find_kernels(self) -> None:
        found = find_slots(self.layer)
        untracked = self.__dict__
        untracked["_found_slots"] = found  # kernels first, then biases of heads and neurons
        untracked["_kernel_count"] = len(found)
        untracked["_maskings"] = []  # of each slot: places in `masks`, and how these are expanded
        untracked["_own_scores"] = []  # places in `scores` of those that this wrapper made

    @property
    def _slots(self) -> list[Slot]:
        if "_found_slots" not in vars(self):
            raise ValueError(
                f"The pruned layer {self.name!r} is not built yet, and has no masks. Call it, or "
                "the model, once on example inputs before training, for instance model(batch)."
            )
        return self._found_slots

    def _add_variables(self, kernel: tf.Variable, index: int) -> None:
        shape = masks.block_shape(kernel.shape, self.block_size)
        with tf.name_scope(f"{kernel.name.split(':')[0]}/"):
            if self.method.has_scores:
                self.scores.append(self._add_scores(shape, lambda: kernel, self.block_size))
                self._own_scores.append(index)
            self.masks.append(self._add_mask(shape))
            self.thresholds.append(self._add_threshold())
        expand = functools.partial(masks.expand_blocks, block_size=self.block_size)
        self._maskings.append([(index, expand)])

    def _share_variables(self) -> None:
        slots = {(id(slot.owner), slot.name): slot for slot in self._slots}
        maskings: dict[tuple[int, str], list[Any]] = {key: [] for key in slots}
        for index, shared in enumerate(self.shared_masks):
            parts = shared.parts_in(self.layer)
            if not shared.is_made:
                self._make_variables(shared, parts[0].variable, index)
            for part in parts:
                key = id(part.owner), part.name
                slots.setdefault(key, Slot(part.owner, part.name))
                shape = tuple(part.variable.shape)
                expand = functools.partial(masks.expand_units, shape=shape, axis=part.axis)
                maskings.setdefault(key, []).append((index, expand))
        self._slots[:] = slots.values()
        self._maskings[:] = maskings.values()
        # Assigned as lists, from which Keras tracks what another wrapper made.
        if self.method.has_scores:
            self.scores = [shared.scores for shared in self.shared_masks]
        self.masks = [shared.mask for shared in self.shared_masks]
        self.thresholds = [shared.threshold for shared in self.shared_masks]

    def _make_variables(self, shared: SharedMask, first: tf.Variable, index: int) -> None:
        with tf.name_scope(f"{first.name.split(':')[0]}/"):
            if self.method.has_scores:
                shared.scores = self._add_scores((shared.size,), shared.matrix, shared.block_size)
                self._own_scores.append(index)
            shared.mask = self._add_mask((shared.size,))
            shared.threshold = self._add_threshold()

    def _add_mask(self, shape: tuple[int, ...]) -> tf.Variable:
        return self.add_weight("mask", shape, tf.bool, initializer="ones", trainable=False)

    def _add_threshold(self) -> tf.Variable:
        lowest = keras.initializers.Constant(-float("inf"))
        return self._add_state("threshold", (), tf.float32, lowest)

    def _add_state(self, name, shape, dtype, initializer="zeros") -> tf.Variable:
        return self.add_weight(
            name,
            shape,
            dtype,
            initializer=initializer,
            trainable=False,
            experimental_autocast=False,
        )

    def _add_scores(
        self,
        shape: tuple[int, ...],
        kernel: Callable[[], tf.Tensor],
        block_size: tuple[int, int],
    ) -> tf.Variable:
        initializer = self.method.score_initializer

        # All in the initializer, which Keras skips for a value that a checkpoint brings.
        def start(shape, dtype=None, **kwargs):
            if hasattr(initializer, "from_kernel"):
                weights = tf.cast(tf.convert_to_tensor(kernel()), tf.float32)
                scores = masks.mean_blocks(initializer.from_kernel(weights), block_size)
                scores = tf.reshape(scores, shape)
            elif isinstance(initializer, numbers.Real):
                scores = tf.fill(shape, tf.cast(initializer, tf.float32))
            else:
                scores = keras.initializers.get(initializer)(shape, dtype)
            return scores / self.score_learning_rate_multiplier

        return self.add_weight(
            SCORES_NAME,
            shape,
            tf.float32,
            initializer=start,
            trainable=True,
            experimental_autocast=False,
        )

    # ---- forward pass

    def __call__(self, *args, **kwargs):
        # A layer may be called by the name of its own first argument: attention(query=...).
        first = next(iter(inspect.signature(self.layer.call).parameters), None)
        if not args and first in kwargs:
            args = (kwargs.pop(first),)
        return super().__call__(*args, **kwargs)

    def call(self, inputs, *args, training=None, mask=None, **kwargs):
        is_training = _is_true(training) and not is_saving()
        if is_training:
            self.check_refreshed()
        if mask is not None and self.layer._expects_mask_arg:
            kwargs["mask"] = mask
        with replaced(self.layer, self._slots, self._masked_kernels(training)):
            return self.layer(inputs, *args, **kwargs)

    def _masked_kernels(self, training: Any = False) -> list[tf.Tensor]:
        if self.method.has_noise and tf.is_tensor(training):
            return tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._masked_kernels(True),
                lambda: self._masked_kernels(False),
            )
        kernels = []
        for i, (slot, maskings) in enumerate(zip(self._slots, self._maskings)):
            seed = None
            if self.method.has_noise and training:
                seed = tf.random.experimental.stateless_fold_in(self.noise_seed, i)
            kernel = tf.convert_to_tensor(slot.kernel)
            for index, expand in maskings:
                scores = expand(self._scaled_scores(index)) if self.method.has_scores else None
                mask = expand(tf.convert_to_tensor(self.masks[index]))
                kernel = self.method.mask_kernel(kernel, scores, mask, seed)
            kernels.append(kernel)
        return kernels

    def _scaled_scores(self, index: int) -> tf.Tensor:
        """The scores of the paper. Their gradient is handed on unscaled."""
        return masks.scale_scores(self.scores[index], self.score_learning_rate_multiplier)

    def _penalty(self) -> tf.Tensor:
        penalties = [self.method.penalty(self._scaled_scores(i)) for i in self._own_scores]
        return self.penalty_weight * tf.add_n(penalties)

    def reset_states(self, *args, **kwargs):
        self.layer.reset_states(*args, **kwargs)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    # ---- pruning

    def get_prunable_weights(self) -> list[tf.Variable]:
        """The unmasked kernels, in the layer's own order."""
        return [slot.kernel for slot in self._slots[: self._kernel_count]]

    def importance(self, index: int) -> tf.Tensor:
        """Importance, as the method sees it, of all that one of `masks` decides: float32 tensor."""
        if self.shared_masks:
            shared = self.shared_masks[index]
            kernel, block_size = shared.matrix(), shared.block_size
        else:
            kernel, block_size = self._slots[index].kernel, self.block_size
        scores = self._scaled_scores(index) if self.method.has_scores else None
        weights = tf.cast(tf.convert_to_tensor(kernel), tf.float32)
        importance = self.method.importance(weights, scores, block_size)
        return tf.reshape(importance, self.masks[index].shape)

    @property
    def penalties(self) -> int:
        """How many of `scores` this wrapper adds to the loss; shared ones, one of them does."""
        return len(self._own_scores) if self.method.has_penalty else 0

    def remaining(self) -> list[tf.Tensor]:
        """How many weights of each kernel the masks keep: int64 scalars."""
        counts = []
        for kernel, maskings in zip(self.get_prunable_weights(), self._maskings):
            sizes = [self.masks[index].shape.num_elements() for index, _ in maskings]
            kept = tf.constant(kernel.shape.num_elements() // int(np.prod(sizes)), tf.int64)
            for index, _ in maskings:
                kept *= tf.math.count_nonzero(self.masks[index])
            counts.append(kept)
        return counts

    @property
    def masks_are_refreshed(self) -> bool:
        """Whether something refreshes the masks during training, so that it may go on."""
        return self._masks_are_refreshed

    @masks_are_refreshed.setter
    def masks_are_refreshed(self, value: bool) -> None:
        self._check_not_folded()
        self._masks_are_refreshed = value

    def check_refreshed(self) -> None:
        """Raises RuntimeError where nothing refreshes the masks, or they are folded in."""
        self._check_not_folded()
        if not self.masks_are_refreshed:
            raise RuntimeError(
                f"The pruned layer {self.name!r} is being trained, but nothing refreshes its "
                "masks. Add tf_movprune.UpdatePruningStep() to the callbacks of fit, or call "
                "tf_movprune.update_masks(model, step) before each step of your own loop."
            )

    def fold_masks(self) -> Layer:
        """Writes the masked kernels into the layer, and returns it. Training raises thereafter."""
        for slot, kernel in zip(self._slots, self._masked_kernels()):
            slot.kernel.assign(kernel)
        self._is_folded = True
        return self.layer

    def _check_not_folded(self) -> None:
        if self._is_folded:
            raise RuntimeError(
                f"The pruned layer {self.name!r} cannot be trained further: "
                "tf_movprune.strip_pruning wrote its masks into the weights. Prune a fresh model "
                "in the same way, and load weights into it that were saved before."
            )

    # ---- saving

    def get_config(self):
        if self.shared_masks:
            raise ValueError(
                f"{self.name!r} shares masks of {self.block_size} with other layers, which a file "
                "of the whole model does not keep. Use save_weights or tf.train.Checkpoint, and "
                "load into a fresh model that is pruned in the same way; or save what "
                "tf_movprune.strip_pruning returns."
            )
        return {
            **super().get_config(),
            "pruning_schedule": serialize_schedule(self.pruning_schedule),
            "method": serialize_method(self.method),
            "block_size": list(self.block_size),
            "score_learning_rate_multiplier": self.score_learning_rate_multiplier,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with keras.saving.custom_object_scope(custom_objects or {}):
            config["pruning_schedule"] = deserialize_schedule(config["pruning_schedule"])
            config["method"] = deserialize_method(config["method"])
            return super().from_config(config, custom_objects)


def is_prunable(layer: Any) -> bool:
    """Whether `PruneLowMovement` can wrap the layer itself, whatever it contains."""
    return not isinstance(layer, PruneLowMovement) and (
        hasattr(layer, "get_prunable_weights") or bool(kernel_names(layer))
    )


def is_scores(variable: tf.Variable) -> bool:
    """Whether a variable holds movement scores."""
    return variable.name.split(":")[0].split("/")[-1] == SCORES_NAME


def _is_true(training: Any) -> bool:
    return not tf.is_tensor(training) and bool(training)


def _check_layer(layer: Any) -> None:
    if not is_prunable(layer):
        raise ValueError(
            f"Expected a layer with prunable weights, got {type(layer).__name__}. Known are the "
            "layers of tfmot's registry (dense, convolution, attention, recurrent, embedding) and "
            "layers that implement get_prunable_weights()."
        )
    if not knows_its_inputs(layer):
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) makes its kernels when it is first "
            "called. Call it, or the model, once on example inputs before pruning."
        )
