"""Finding the kernels of a layer, and computing with other tensors in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from tf_movprune.keras2.compat import REGISTERED_KERNELS, Layer, is_saving, keras


class Slot(NamedTuple):
    """Where a kernel lives: the attribute `name` of the layer `owner`."""

    owner: Layer
    name: str

    @property
    def kernel(self) -> tf.Variable:
        return getattr(self.owner, self.name)


def kernel_names(layer: Any) -> list[str]:
    """Names of the kernels of a layer that tfmot's registry knows, or of a subclass of one."""
    for cls in type(layer).__mro__:
        if cls is keras.layers.EinsumDense:
            return ["kernel"]
        if cls in REGISTERED_KERNELS:
            return REGISTERED_KERNELS[cls]
    if isinstance(layer, keras.layers.RNN) and not isinstance(
        layer.cell, keras.layers.StackedRNNCells
    ):
        return ["cell.kernel", "cell.recurrent_kernel"]
    return []


def knows_its_inputs(layer: Layer) -> bool:
    """False of an attention layer that was neither called nor loaded with its input shapes."""
    if not isinstance(layer, keras.layers.MultiHeadAttention) or layer.weights:
        return True
    return None not in (layer._query_shape, layer._value_shape, layer._key_shape)


def build_attention(layer: keras.layers.MultiHeadAttention) -> None:
    """Makes the kernels of an attention layer whose input shapes its configuration brought."""
    if knows_its_inputs(layer):
        shapes = (layer._query_shape, layer._value_shape, layer._key_shape)
        with tf.init_scope():
            layer(*(tf.zeros([size or 1 for size in shape]) for shape in shapes))


def prunable_weights(layer: Layer) -> list[tf.Variable]:
    """The kernels of an unwrapped layer that would be pruned."""
    if hasattr(layer, "get_prunable_weights"):
        return list(layer.get_prunable_weights())
    weights = []
    for path in kernel_names(layer):
        weight = layer
        for name in path.split("."):
            weight = getattr(weight, name, None)
        if weight is None:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) has no {path} yet: it makes "
                "its weights when it is first called. Call it, or the model, once on example "
                "inputs before pruning."
            )
        weights.append(weight)
    return weights


def find_slots(layer: Layer) -> list[Slot]:
    weights = prunable_weights(layer)
    if not weights:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) returned no weights from "
            "get_prunable_weights(). Return at least one, or leave the layer out."
        )
    owners = [layer, *layer.submodules]
    slots = []
    for weight in weights:
        found = (
            Slot(owner, name)
            for owner in owners
            for name, value in vars(owner).items()
            if value is weight
        )
        slot = next(found, None)
        if slot is None:
            raise ValueError(
                f"The prunable weight {weight.name!r} of layer {layer.name!r} is not an attribute "
                "of it or of a layer inside it. Keep it as an attribute of its own, not in a list."
            )
        slots.append(slot)
    return slots


@contextlib.contextmanager
def replaced(layer: Layer, slots: list[Slot], tensors: list[tf.Tensor]) -> Iterator[None]:
    """Puts tensors where the layer looks for its kernels.

    Through `vars`, because assigning the attribute would drop the kernel from the layer's weights.
    """
    kernels = [slot.kernel for slot in slots]
    saved_calls = {}
    if is_saving():
        # A SavedModel in the making replaces the `call` of each inner layer by a function that
        # was traced without the mask.
        inner = [module for module in (layer, *layer.submodules) if "call" in vars(module)]
        saved_calls = {module: vars(module).pop("call") for module in inner}
    try:
        for slot, tensor in zip(slots, tensors):
            vars(slot.owner)[slot.name] = tensor
        yield
    finally:
        for slot, kernel in zip(slots, kernels):
            vars(slot.owner)[slot.name] = kernel
        for module, call in saved_calls.items():
            vars(module)["call"] = call
