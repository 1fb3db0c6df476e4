"""Places of a layer's kernels: attributes in which the layer looks for its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras

from tf_movprune.core.matrix_layout import PLAIN, MatrixLayout, einsum_layout
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer

_layers = keras.layers

# Names of the attributes that hold kernels, by the class of the layer or of one above it.
_KERNELS: dict[type, tuple[str, ...]] = {
    _layers.SeparableConv1D: ("pointwise_kernel",),
    _layers.SeparableConv2D: ("pointwise_kernel",),
    _layers.DepthwiseConv1D: (),
    _layers.DepthwiseConv2D: (),
    _layers.Dense: ("_kernel",),
    _layers.EinsumDense: ("_kernel",),
    _layers.Conv1D: ("_kernel",),
    _layers.Conv2D: ("_kernel",),
    _layers.Conv3D: ("_kernel",),
    _layers.Conv1DTranspose: ("kernel",),
    _layers.Conv2DTranspose: ("kernel",),
    _layers.Conv3DTranspose: ("kernel",),
    _layers.Embedding: ("_embeddings",),
    _layers.SimpleRNNCell: ("kernel", "recurrent_kernel"),
    _layers.GRUCell: ("kernel", "recurrent_kernel"),
    _layers.LSTMCell: ("kernel", "recurrent_kernel"),
}


class Place(NamedTuple):
    """The attribute of a layer, or of one inside it, that holds a kernel.

    `others` are further attributes of these layers that hold the same kernel.
    """

    owner: Layer
    name: str
    others: tuple[tuple[Layer, str], ...] = ()

    @property
    def variable(self) -> keras.Variable:
        return vars(self.owner)[self.name]

    @property
    def attributes(self) -> tuple[tuple[Layer, str], ...]:
        return (self.owner, self.name), *self.others

    @property
    def short_name(self) -> str:
        """The name of the kernel as users know it."""
        return self.name.lstrip("_")

    @property
    def layout(self) -> MatrixLayout | None:
        """The matrix that the kernel is, or that an `EinsumDense` layer multiplies with."""
        is_einsum = isinstance(self.owner, _layers.EinsumDense) and self.short_name == "kernel"
        layout = einsum_layout(self.owner.equation) if is_einsum else None
        return layout or (PLAIN if len(self.variable.shape) == 2 else None)


def is_prunable(layer: Any) -> bool:
    """Returns whether a layer has kernels of its own that can be masked, once it is built.

    Layers that hold others, such as attention, have none: those inside them do. A recurrent layer
    computes with the kernels of its cell, and counts as one with it.
    """
    return isinstance(layer, Layer) and (
        _method(layer) is not None or bool(_names(layer)) or isinstance(layer, _layers.RNN)
    )


def kernel_places(layer: Layer) -> list[Place]:
    """The kernels of a built layer that would be pruned, each once.

    A `get_prunable_weights()` of the layer decides, or that of the cell of a recurrent layer.

    Raises:
      ValueError: there are none, or one is not an attribute.
    """
    found = {
        id(place.variable): place
        for owner in (_cells(layer) or [layer])
        for place in _places(owner)
    }
    places = [_with_others(layer, place) for place in found.values()]
    if not places:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) has no kernels to prune. Return "
            "some from its get_prunable_weights(), or leave the layer out."
        )
    return places


def by_owner(places: Iterable[Place]) -> list[tuple[Layer, dict[str, keras.Variable]]]:
    """The layers that have kernels as attributes, and these by name."""
    found: dict[int, tuple[Layer, dict[str, keras.Variable]]] = {}
    for place in places:
        for owner, name in place.attributes:
            found.setdefault(id(owner), (owner, {}))[1][name] = place.variable
    return list(found.values())


def _places(owner: Layer) -> list[Place]:
    method = _method(owner)
    if method is None:
        return [Place(owner, name) for name in _names(owner)]
    return [_place_of(owner, weight) for weight in method()]


def _with_others(layer: Layer, place: Place) -> Place:
    held = [
        (owner, name)
        for owner in compat.all_layers(layer)
        for name, value in vars(owner).items()
        if value is place.variable
    ]
    return place._replace(others=tuple(at for at in held if at != (place.owner, place.name)))


def _place_of(layer: Layer, weight: Any) -> Place:
    for owner in compat.all_layers(layer):
        for name, value in vars(owner).items():
            if value is weight and compat.is_variable(value):
                return Place(owner, name)
    raise ValueError(
        f"A prunable weight of the layer {layer.name!r} ({type(layer).__name__}) is not a variable "
        "in an attribute of it or of a layer inside it. Keep it as an attribute, not in a list."
    )


def _method(layer: Layer) -> Callable[[], Any] | None:
    return getattr(layer, "get_prunable_weights", None)


def _names(layer: Layer) -> tuple[str, ...]:
    return next((_KERNELS[cls] for cls in type(layer).__mro__ if cls in _KERNELS), ())


def _cells(layer: Layer) -> list[Layer]:
    if not isinstance(layer, _layers.RNN) or _method(layer) is not None:
        return []
    return list(_flat_cells(layer.cell))


def _flat_cells(cell: Layer) -> Iterator[Layer]:
    if isinstance(cell, _layers.StackedRNNCells):
        for part in cell.cells:
            yield from _flat_cells(part)
    else:
        yield cell
