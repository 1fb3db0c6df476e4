"""Places of a layer's kernels, and computation with other tensors in them."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.traced_functions import (
    untraced_functions,
    untraced_in_bases,
    untraced_method,
)
from tf_movprune.core.variable_names import plain_name
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, keras


@dataclasses.dataclass(frozen=True)
class Attribute:
    """The place of a weight: the attribute `name` of the layer `owner`.

    `others` are further places where the same layer holds the weight.
    """

    owner: Layer
    name: str
    weight: tf.Variable
    others: tuple[tuple[Layer, str], ...] = ()

    @classmethod
    def of(cls, owner: Layer, name: str) -> Attribute:
        """The attribute of a layer that holds a weight at the moment."""
        return cls(owner, name, getattr(owner, name))

    @property
    def places(self) -> tuple[tuple[Layer, str], ...]:
        return (self.owner, self.name), *self.others


def kernel_names(layer: Any) -> list[str]:
    """Names of the kernels of a layer of tfmot's registry, of a subclass, or of Hugging Face."""
    if isinstance(layer, keras.layers.EinsumDense):
        return ["kernel"]
    registered = compat.registered_kernels(layer) or hugging_face.kernel_names(layer)
    if registered:
        return registered
    if not isinstance(layer, keras.layers.RNN):
        return []
    is_stack = isinstance(layer.cell, keras.layers.StackedRNNCells)
    cells = [f"cell.cells.{i}" for i in range(len(layer.cell.cells))] if is_stack else ["cell"]
    return [f"{cell}.{name}" for cell in cells for name in ("kernel", "recurrent_kernel")]


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
    """The kernels of an unwrapped layer that would be pruned.

    A `get_prunable_weights()` of the layer decides, or that of the cell of a recurrent layer.
    """
    for owner in (layer, getattr(layer, "cell", layer)):
        method = compat.prunable_weights_method(owner)
        if method is not None:
            return list({id(weight): weight for weight in method()}.values())  # each once
    weights = []
    for path in kernel_names(layer):
        weight = layer
        for name in path.split("."):
            weight = weight[int(name)] if name.isdigit() else getattr(weight, name, None)
        if weight is None:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) has no {path} yet: it makes "
                "its weights when it is first called. Call it, or the model, once on example "
                "inputs before pruning."
            )
        weights.append(weight)
    return weights


def short_names(weights: Sequence[tf.Variable]) -> list[tuple[str, tf.Variable]]:
    """The kernels of one layer with the shortest ends of their names that tell them apart.

    A single one is `kernel`, those of attention are `query.kernel` and so on. Equal names are
    numbered.
    """
    parts = [plain_name(weight.name).split("/") for weight in weights]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = [".".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{part[-1]}_{i}" for i, part in enumerate(parts)]
    return list(zip(names, weights))


def attributes_by_weight(layer: Layer) -> dict[int, Attribute]:
    """Places of the weights of a layer and of the layers inside it, by the weight's id."""
    places: dict[int, list[tuple[Layer, str]]] = {}
    weights: dict[int, tf.Variable] = {}
    for owner in (layer, *layer.submodules):
        for name, value in vars(owner).items():
            if isinstance(value, tf.Variable):
                weights[id(value)] = value
                places.setdefault(id(value), []).append((owner, name))
    return {
        key: Attribute(*first, weights[key], tuple(others))
        for key, (first, *others) in places.items()
    }


def paths_to_owners(layer: Layer) -> dict[int, tuple[str, ...]]:
    """Names of the attributes that lead to a layer and to those inside it, by the layer's id."""
    found: dict[int, tuple[str, ...]] = {id(layer): ()}
    pending = [layer]
    while pending:
        owner = pending.pop()
        for name, value in vars(owner).items():
            if isinstance(value, Layer) and id(value) not in found:
                found[id(value)] = (*found[id(owner)], name)
                pending.append(value)
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
        if not isinstance(weight, tf.Variable):
            raise ValueError(
                f"A kernel of the layer {layer.name!r} ({type(layer).__name__}) is a tensor and no "
                "variable: something computes it, such as a weight normalization, and its result "
                "cannot be masked. Leave the layer out, with a mapping of path patterns to "
                "schedules or a pruning_policy."
            )
        if id(weight) not in attributes:
            raise ValueError(
                f"The prunable weight {weight.name!r} of layer {layer.name!r} is not an attribute "
                "of it or of a layer inside it. Keep it as an attribute of its own, not in a list."
            )
    return weights


@contextlib.contextmanager
def replaced(
    layers: Sequence[Layer], attributes: Sequence[Attribute], tensors: Sequence[tf.Tensor]
) -> Iterator[None]:
    """Puts tensors into the attributes in which a layer looks for its weights.

    A `tf.function` of the layer would remember the tensors of its first call. It is replaced by the
    function that it was made of.

    Args:
      layers: the layer and those inside it.
      attributes: places of its weights.
      tensors: what is to be found there.
    """
    nothing = object()
    before: dict[tuple[Any, str], Any] = {}
    values: dict[tuple[Any, str], Any] = {}
    for attribute, tensor in zip(attributes, tensors):
        before.update(dict.fromkeys(attribute.places, attribute.weight))
        values.update(dict.fromkeys(attribute.places, tensor))
    for layer in layers:
        functions = untraced_functions(layer)
        if compat.is_saving() and "call" in vars(layer):
            # A SavedModel in the making replaces the `call` of each inner layer by a function that
            # was traced without the mask.
            functions["call"] = untraced_method(layer, "call")
        for name, function in functions.items():
            before[layer, name] = vars(layer).get(name, nothing)
            values[layer, name] = function
    try:
        # Assigning the attribute would drop the weight from those of the layer.
        for (owner, name), value in values.items():
            vars(owner)[name] = value
        with untraced_in_bases(layers):
            yield
    finally:
        for (owner, name), value in before.items():
            if value is nothing:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = value


class CallLock:
    """Lets threads compute with a layer one after the other, since they share its attributes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: Any) -> CallLock:
        return CallLock()

    def __reduce__(self) -> Any:
        return CallLock, ()

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Waits for other threads.

        Raises:
          ValueError: a replica waits inside the layer for this one.
        """
        if not self._lock.acquire(blocking=False):
            if tf.distribute.get_strategy().num_replicas_in_sync > 1:
                raise ValueError(
                    f"The pruned layer {name!r} communicates with other replicas while it "
                    "computes, which pruning does not support. Leave it out, with a mapping of "
                    "path patterns to schedules or a pruning_policy."
                )
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
