"""Places of a layer's kernels, and computation with other tensors in them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, keras


@dataclasses.dataclass(frozen=True)
class Attribute:
    """The place of a weight: the attribute `name` of the layer `owner`."""

    owner: Layer
    name: str

    @property
    def weight(self) -> tf.Variable:
        return getattr(self.owner, self.name)


def kernel_names(layer: Any) -> list[str]:
    """Names of the kernels of a layer that tfmot's registry knows, or of a subclass of one."""
    if isinstance(layer, keras.layers.EinsumDense):
        return ["kernel"]
    registered = compat.registered_kernels(layer)
    if registered:
        return registered
    if isinstance(layer, keras.layers.RNN) and not isinstance(
        layer.cell, keras.layers.StackedRNNCells
    ):
        return ["cell.kernel", "cell.recurrent_kernel"]
    return []


def knows_its_inputs(layer: Layer) -> bool:
    """Returns whether a layer can make its kernels.

    Attention has to be called, or loaded with shapes.
    """
    if not isinstance(layer, keras.layers.MultiHeadAttention) or layer.weights:
        return True
    return None not in compat.attention_shapes(layer)


def build_attention(layer: keras.layers.MultiHeadAttention) -> None:
    """Makes the kernels of an attention layer whose configuration brought its input shapes."""
    if knows_its_inputs(layer):
        with tf.init_scope():
            shapes = compat.attention_shapes(layer)
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


def attributes_by_weight(layer: Layer) -> dict[int, Attribute]:
    """Places of the weights of a layer and of the layers inside it, by the weight's id."""
    found: dict[int, Attribute] = {}
    for owner in (layer, *layer.submodules):
        for name, value in vars(owner).items():
            found.setdefault(id(value), Attribute(owner, name))
    return found


def find_kernels(layer: Layer, attributes: Mapping[int, Attribute]) -> list[tf.Variable]:
    """The kernels of a built layer, each held by one of its `attributes`.

    Raises:
      ValueError: there are none, or one is not an attribute.
    """
    weights = prunable_weights(layer)
    if not weights:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) returned no weights from "
            "get_prunable_weights(). Return at least one, or leave the layer out."
        )
    for weight in weights:
        if id(weight) not in attributes:
            raise ValueError(
                f"The prunable weight {weight.name!r} of layer {layer.name!r} is not an attribute "
                "of it or of a layer inside it. Keep it as an attribute of its own, not in a list."
            )
    return weights


@contextlib.contextmanager
def replaced(
    layer: Layer, attributes: Sequence[Attribute], tensors: Sequence[tf.Tensor]
) -> Iterator[None]:
    """Puts tensors into the attributes in which the layer looks for its weights.

    It writes to `vars`, because assigning the attribute would drop the weight from the layer's.
    """
    weights = [attribute.weight for attribute in attributes]
    saved_calls = {}
    if compat.is_saving():
        # A SavedModel in the making replaces the `call` of each inner layer by a function that
        # was traced without the mask.
        inner = [module for module in (layer, *layer.submodules) if "call" in vars(module)]
        saved_calls = {module: vars(module).pop("call") for module in inner}
    try:
        for attribute, tensor in zip(attributes, tensors):
            vars(attribute.owner)[attribute.name] = tensor
        yield
    finally:
        for attribute, weight in zip(attributes, weights):
            vars(attribute.owner)[attribute.name] = weight
        for module, call in saved_calls.items():
            vars(module)["call"] = call
