"""The layer wrapper that owns scores and masks, and computes with masked kernels."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.blocks import block_shape
from tf_movprune.core.granularity import WEIGHTS, Blocks, Units
from tf_movprune.core.masked_kernel import MaskedKernel, Part
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.schedules import PruningSchedule
from tf_movprune.core.settings import Settings
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, PrunableLayer, keras, register
from tf_movprune.keras2.kernel_attributes import (
    Attribute,
    attributes_by_weight,
    build_attention,
    find_kernels,
    kernel_names,
    knows_its_inputs,
    prunable_weights,
    replaced,
)
from tf_movprune.keras2.kernel_variables import make_kernel
from tf_movprune.keras2.serialization import (
    deserialize_method,
    deserialize_schedule,
    serialize_method,
    serialize_schedule,
)
from tf_movprune.keras2.training_guard import TrainingGuard


@dataclasses.dataclass(eq=False)
class SharedKernel:
    """A masked kernel with parts in several layers, made by the first of their wrappers.

    Attributes:
      size: number of heads or neurons.
      parts: places of their weights, each with the axis along which unit follows unit.
      kernel: the kernel, once it is made.
    """

    size: int
    parts: Sequence[tuple[Attribute, int]]
    kernel: MaskedKernel | None = None


@register
class PruneLowMovement(keras.layers.Wrapper, PrunableLayer):
    """Computes with masked kernels while it trains the layer's own weights and their scores.

        kernel used in the layer = mask * kernel

    The layer's weights are never overwritten. Masks change only when `UpdatePruningStep` or
    `update_masks` refresh them; tracing a training step that has neither raises.

    Use `prune_low_movement` to make wrappers. Once built, `kernels` has a `MaskedKernel` for each
    prunable kernel, with its variables `movement_scores` (float32 under every precision policy,
    trainable), `mask` (bool, all true at first) and `threshold`, named after the kernel. Heads and
    neurons, whose weights lie in several layers, have one that all their wrappers share; their
    biases are masked too. Penalties are added to the layer's losses.

    Args:
      layer: the layer to prune: one that tfmot's registry knows, or a subclass of it, or a layer
        that implements `get_prunable_weights()`. It may be unbuilt, except attention layers.
      pruning_schedule: a tfmot `PruningSchedule` whose value is the fraction of zeros, or another
        value that the method asks for; None for methods that take none.
      method: a `PruningMethod`.
      block_size: rows and columns of the blocks that are kept or masked as one, on kernels of
        shape [in, out]; `HEADS` or `NEURONS` with `shared_kernels`.
      score_learning_rate_multiplier: learning rate of the scores over the optimizer's own rate; the
        method's own by default. The gradient that the optimizer sees, and clips, is that of the
        scores themselves.
      shared_kernels: the heads and neurons that the layer has a part in; made by
        `prune_low_movement`.
      **kwargs: arguments of `tf_keras.layers.Layer`.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: nothing in the layer can be pruned, or not in blocks of this size.
    """

    def __init__(
        self,
        layer: Layer,
        pruning_schedule: PruningSchedule | None = None,
        method: PruningMethod | None = None,
        block_size: tuple[int, int] | Units = WEIGHTS,
        score_learning_rate_multiplier: float | None = None,
        shared_kernels: Sequence[SharedKernel] = (),
        **kwargs: Any,
    ):
        settings = Settings(pruning_schedule, method, block_size, score_learning_rate_multiplier)
        _check_layer(layer)
        if isinstance(settings.block_size, Units) and not shared_kernels:
            raise TypeError(
                f"block_size {settings.block_size!r} is for models: heads and neurons have weights "
                "in several layers. Give a layer two integers, or prune the model that it is in."
            )
        kwargs.setdefault("name", f"prune_low_movement_{layer.name}")
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)
        super().__init__(layer, **kwargs)
        self._settings = settings
        self.guard = TrainingGuard(self.name)
        self.__dict__["_shared_kernels"] = list(shared_kernels)  # untracked: their variables are
        self.supports_masking = layer.supports_masking
        self.stateful = getattr(layer, "stateful", False)
        compat.declare_input_shape(self, compat.declared_input_shape(layer))
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
        attributes = attributes_by_weight(self.layer)
        weights = find_kernels(self.layer, attributes)
        kernels, made = [], []
        if self._shared_kernels:
            for shared in self._shared_kernels:
                if shared.kernel is None:
                    parts = [
                        Part(attribute.weight, axis, is_bias=attribute.name == "bias")
                        for attribute, axis in shared.parts
                    ]
                    first = next(part.weight for part in parts if id(part.weight) in attributes)
                    shared.kernel = make_kernel(self, self.settings, parts, (shared.size,), first)
                    made.append(shared.kernel)
                kernels.append(shared.kernel)
        else:
            for weight in weights:
                shape = block_shape(tuple(weight.shape), self.settings.block_size)
                kernels.append(make_kernel(self, self.settings, [Part(weight)], shape, weight))
            made = kernels
        vars(self)["_built_kernels"] = kernels
        vars(self)["_masked_attributes"] = _masked_attributes(attributes, weights, kernels)
        # Layers and checkpoints track these, whichever wrapper made them.
        self.kernel_variables = [kernel.variables for kernel in kernels]
        vars(self)["_made_kernels"] = made
        if self.adds_penalty:
            self.add_loss(self._penalty)  # a bound method: copies of the layer get their own
        super().build(input_shape)

    @property
    def settings(self) -> Settings:
        """How the layer is pruned. Assigning other settings changes those of its kernels."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        for kernel in vars(self).get("_built_kernels", ()):
            kernel.settings = settings

    @property
    def pruning_schedule(self) -> PruningSchedule:
        """The schedule among the settings."""
        return self.settings.schedule

    @pruning_schedule.setter
    def pruning_schedule(self, schedule: PruningSchedule) -> None:
        self.settings = dataclasses.replace(self.settings, schedule=schedule)

    @property
    def adds_penalty(self) -> bool:
        """True if a penalty of the layer's scores is among its losses, and not of another's."""
        return bool(self._made_kernels) and self.settings.method.has_penalty

    def _penalty(self) -> tf.Tensor:
        return tf.add_n([kernel.penalty() for kernel in self._made_kernels])

    @property
    def kernels(self) -> list[MaskedKernel]:
        """The masked kernels that the layer has a part in.

        Raises:
          ValueError: the layer is not built.
        """
        if "_built_kernels" not in vars(self):
            raise ValueError(
                f"The pruned layer {self.name!r} is not built yet, and has no masks. Call it, or "
                "the model, once on example inputs before training, for instance model(batch)."
            )
        return self._built_kernels

    # ---- forward pass

    def __call__(self, *args, **kwargs):
        # A layer may be called by the name of its own first argument: attention(query=...).
        first = next(iter(inspect.signature(self.layer.call).parameters), None)
        if not args and first in kwargs:
            args = (kwargs.pop(first),)
        return super().__call__(*args, **kwargs)

    def call(self, inputs, *args, training=None, mask=None, **kwargs):
        if _is_true(training) and not compat.is_saving():
            self.guard.check()
        if mask is not None and compat.takes_mask(self.layer):
            kwargs["mask"] = mask
        attributes = [attribute for attribute, _ in self._masked_attributes]
        with replaced(self.layer, attributes, self._masked_weights(training)):
            return self.layer(inputs, *args, **kwargs)

    def _masked_weights(self, training: Any = False) -> list[tf.Tensor]:
        if self.settings.method.has_noise and tf.is_tensor(training):
            return tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._masked_weights(True),
                lambda: self._masked_weights(False),
            )
        tensors = []
        for attribute, masked_by in self._masked_attributes:
            tensor = tf.convert_to_tensor(attribute.weight)
            for kernel, part in masked_by:
                tensor = kernel.masked(part, tensor, training=_is_true(training))
            tensors.append(tensor)
        return tensors

    def reset_states(self, *args, **kwargs):
        self.layer.reset_states(*args, **kwargs)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    # ---- pruning

    def get_prunable_weights(self) -> list[tf.Variable]:
        """The unmasked kernels, in the layer's own order."""
        _ = self.kernels  # raises before the layer is built
        return prunable_weights(self.layer)

    def fold_masks(self) -> Layer:
        """Writes the masked weights into the layer, and returns it. Training raises thereafter."""
        _ = self.kernels
        for (attribute, _), tensor in zip(self._masked_attributes, self._masked_weights()):
            attribute.weight.assign(tensor)
        self.guard.fold()
        return self.layer

    # ---- saving

    def get_config(self):
        settings = self.settings
        if not isinstance(settings.block_size, Blocks):
            raise ValueError(
                f"{self.name!r} shares masks of {settings.block_size} with other layers, which a "
                "file of the whole model does not keep. Use save_weights or tf.train.Checkpoint, "
                "and load into a fresh model that is pruned in the same way; or save what "
                "tf_movprune.strip_pruning returns."
            )
        return {
            **super().get_config(),
            "pruning_schedule": serialize_schedule(settings.schedule),
            "method": serialize_method(settings.method),
            "block_size": list(settings.block_size),
            "score_learning_rate_multiplier": settings.score_learning_rate_multiplier,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with keras.saving.custom_object_scope(custom_objects or {}):
            config["pruning_schedule"] = deserialize_schedule(config["pruning_schedule"])
            config["method"] = deserialize_method(config["method"])
            return super().from_config(config, custom_objects)


def _masked_attributes(
    attributes: Mapping[int, Attribute],
    weights: Sequence[tf.Variable],
    kernels: Sequence[MaskedKernel],
) -> list[tuple[Attribute, list[tuple[MaskedKernel, Part]]]]:
    """Masked attributes and the kernels that mask them: of prunable weights, then of biases."""
    found: dict[int, tuple[Attribute, list[tuple[MaskedKernel, Part]]]] = {}
    for weight in weights:
        found[id(weight)] = attributes[id(weight)], []
    for kernel in kernels:
        for part in kernel.parts:
            key = id(part.weight)
            if key in attributes:
                found.setdefault(key, (attributes[key], []))[1].append((kernel, part))
    return list(found.values())


def is_prunable(layer: Any) -> bool:
    """Returns whether `PruneLowMovement` can wrap the layer itself, whatever it contains."""
    return not isinstance(layer, PruneLowMovement) and (
        hasattr(layer, "get_prunable_weights") or bool(kernel_names(layer))
    )


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
