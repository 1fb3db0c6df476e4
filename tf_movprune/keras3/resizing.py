"""Changes of the sizes of dense and attention layers, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_movprune.keras3 import compat
from tf_movprune.keras3.attention import (
    fit_attention,
    group_count,
    groups_in_kernels,
    has_known_heads,
)
from tf_movprune.keras3.compat import Layer

_DENSE = (keras.layers.Dense, keras.layers.EinsumDense)


def restorer(layers: Sequence[Layer], tensors: Sequence[Any]) -> Callable[[], None]:
    """A function that gives layers and symbolic tensors their present sizes and weights again."""
    shapes = [(tensor, tensor.shape[-1]) for tensor in tensors]
    before = [
        (layer, type(layer), dict(vars(layer)), compat.books_restorer(layer)) for layer in layers
    ]
    restore_values = compat.restorer(variable for layer in layers for variable in layer.variables)

    def restore() -> None:
        for layer, cls, attributes, restore_books in before:
            layer.__class__ = cls
            for name in vars(layer).keys() - attributes.keys():
                del vars(layer)[name]
            vars(layer).update(attributes)
            restore_books()
        restore_values()
        for tensor, size in shapes:
            compat.set_last_dimension(tensor, size)

    return restore


def resize_dense(layer: Any, kernel: np.ndarray, bias: np.ndarray | None) -> None:
    """Gives a `Dense` or `EinsumDense` layer weights of other shapes."""
    compat.resize(layer.kernel, kernel)
    if bias is not None:
        compat.resize(layer.bias, bias)
    if isinstance(layer, keras.layers.Dense):
        inputs, layer.units = kernel.shape
        layer.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        compat.set_built_width(layer, inputs)
        return
    kernel_labels, output_labels = layer.equation.split(",")[1].split("->")
    sizes = dict(zip(kernel_labels, kernel.shape, strict=True))
    partial = layer.partial_output_shape  # the last axes of the output
    labels = output_labels[len(output_labels) - len(partial) :]
    layer.partial_output_shape = tuple(
        None if size is None else sizes.get(label, size) for label, size in zip(labels, partial)
    )


def dense_layers(layers: Iterable[Layer]) -> list[Any]:
    """The built dense layers among some layers."""
    return [layer for layer in layers if isinstance(layer, _DENSE) and layer.built]


def attention_layers(layers: Iterable[Layer]) -> list[Any]:
    """The built attention layers of known heads among some layers."""
    return [layer for layer in layers if has_known_heads(layer)]


def apply_shapes(
    layers: Sequence[Layer],
    shapes: Mapping[int, Sequence[int]],
    kept_heads: Mapping[int, Sequence[int]],
) -> None:
    """Gives dense layers kernels of given shapes; their weights are zeros thereafter.

    Args:
      layers: layers, and the attention layers that they are part of.
      shapes: shapes by the places of dense layers among all dense layers.
      kept_heads: which heads are left, if that matters, by the places of attention layers among
        all of these.

    Raises:
      ValueError: a shape is not one that a dense layer there could be cut to, or the heads are not
        those of the layer.
    """
    dense = dense_layers(layers)
    for place, shape in shapes.items():
        old = dense[place].kernel.shape if place < len(dense) else ()
        if len(old) != len(shape) or any(new > size for new, size in zip(shape, old)):
            raise ValueError(
                f"Its dense layer number {place} cannot be cut to {shape}, its kernel is {old}."
            )
        if tuple(shape) != tuple(old):
            layer = dense[place]
            bias = None if layer.bias is None else np.zeros(_bias_shape(layer, shape))
            resize_dense(layer, np.zeros(shape), bias)
    for place, layer in enumerate(attention_layers(layers)):
        groups = groups_in_kernels(layer)
        if groups == group_count(layer):
            continue
        kept = kept_heads.get(place, range(groups))
        if len(kept) != groups or any(head not in range(group_count(layer)) for head in kept):
            raise ValueError(
                f"Its attention layer number {place} has kernels of {groups} heads out of "
                f"{group_count(layer)}, which cannot be those at the places {list(kept)}."
            )
        fit_attention(layer, kept)


def _bias_shape(layer: Any, shape: Sequence[int]) -> Sequence[int]:
    """The shape of a bias: the last axes of the kernel."""
    return shape[len(shape) - len(layer.bias.shape) :]
