"""Classes of models and layers that tell of sizes which their own configuration does not know.

A block or backbone that lost heads or neurons stays the object that it was, and its class becomes
`Compacted<Base>`, a subclass of its own class. Its configuration has the shapes of the kernels that
differ, and the activation of the blocks of a backbone if that is not the one of its class. A file
of it does not load unless this class is there, which `load_compacted` sees to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.attention import kept_heads
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.layer_tree import walk
from tf_movprune.keras3.resizing import apply_shapes, attention_layers, dense_layers

_SHAPES = "_movement_shapes"
_ACTIVATION = "_movement_activation"
_RECORD = "compacted"  # name of a configuration's entry
_PACKAGE = "tf_movprune"
_TELL_SIZES = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.GroupQueryAttention,
    keras.layers.MultiHeadAttention,
)


class CompactedLayer:
    """What the classes of compacted models and layers have besides their plain class."""

    def get_config(self: Any) -> dict[str, Any]:
        plain = plain_class(type(self))
        record = {
            "module": plain.__module__,
            "class_name": plain.__name__,
            "registered_name": keras.saving.get_registered_name(plain),
            "built_with": self.get_build_config(),  # presets drop what is named build_config
            "kernel_shapes": [[place, shape] for place, shape in vars(self)[_SHAPES].items()],
            "kept_heads": [
                [place, kept]
                for place, layer in enumerate(attention_layers(_own_layers(self)))
                if (kept := kept_heads(layer)) is not None
            ],
        }
        if _ACTIVATION in vars(self):
            record["activation"] = vars(self)[_ACTIVATION]
        return {**plain.get_config(self), _RECORD: record}

    @classmethod
    def from_config(cls, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        rest = dict(config)
        record = rest.pop(_RECORD)
        layer = plain_class(cls).from_config(rest, *args, **kwargs)
        if not layer.built and record["built_with"]:
            build_config = keras.saving.deserialize_keras_object(record["built_with"])
            layer.build_from_config(build_config)
        layers = _own_layers(layer)
        if not all(inner.built for inner in layers):
            raise ValueError(
                f"The compacted {plain_class(cls).__name__} {layer.name!r} cannot be made from its "
                "configuration, which does not tell how to build all its layers. Give the class a "
                "build(), or a get_build_config() and build_from_config()."
            )
        shapes = dict(record["kernel_shapes"])
        apply_shapes(layers, shapes, dict(record.get("kept_heads", [])))
        _become_compacted(layer, shapes)
        if "activation" in record:
            set_activation(layer, record["activation"])
        return layer


def record_sizes(model: Layer, resized: set[int]) -> None:
    """Lets the configurations of a model and of its blocks tell of their sizes.

    Args:
      resized: ids of the layers of other sizes than before.
    """
    for owner in list(_owners(model)):
        shapes = vars(owner).get(_SHAPES, {})
        found = {
            place: list(layer.kernel.shape)
            for place, layer in enumerate(dense_layers(_own_layers(owner)))
            if id(layer) in resized or place in shapes
        }
        if found:
            _become_compacted(owner, found)


def set_activation(backbone: Any, name: str) -> None:
    """Gives the blocks of a backbone another activation, which its configuration then tells.

    Args:
      backbone: a backbone of KerasHub.
      name: a key of `keras_hub.ACTIVATIONS`.
    """
    for block in backbone.transformer_layers:
        keras_hub.first_dense_layer(block).activation = keras_hub.ACTIVATIONS[name]
    _become_compacted(backbone, vars(backbone).get(_SHAPES, {}))
    vars(backbone)[_ACTIVATION] = name


def _become_compacted(layer: Any, shapes: Mapping[int, Any]) -> None:
    vars(layer)[_SHAPES] = dict(shapes)
    if not isinstance(layer, CompactedLayer):
        plain: Any = type(layer)
        layer.__class__ = compacted_class(plain)


def _owners(layer: Layer) -> Iterator[Layer]:
    """The layers that are saved by their own configuration, without those of their sublayers.

    Backbones are among them wherever they are, as they can be saved alone.
    """
    for inner in walk(layer).values():
        if keras_hub.is_backbone(inner):
            yield inner
    yield from _outermost(layer)


def _outermost(layer: Layer) -> Iterator[Layer]:
    if compat.lists_its_layers(layer):
        for child in layer.layers:
            yield from _outermost(child)
    elif not isinstance(layer, _TELL_SIZES):
        yield layer


def _own_layers(owner: Any) -> list[Layer]:
    """The layers inside an owner, without those of a task's backbone, an owner itself.

    They are told apart by their places: names of layers are numbered anew in each process.
    """
    layers = list(walk(owner).values())
    if not keras_hub.is_task(type(owner)):
        return layers
    others = {id(layer) for layer in compat.all_layers(owner.backbone)}
    return [layer for layer in layers if id(layer) not in others]


# ---- the classes


@functools.cache
def compacted_class(plain: Any) -> Any:
    """The class of compacted layers whose plain class is `plain`; it is registered in Keras."""
    name = f"Compacted {keras.saving.get_registered_name(plain)}"
    cls = type(f"Compacted{plain.__name__}", (CompactedLayer, plain), {"__module__": __name__})
    return keras.saving.register_keras_serializable(_PACKAGE, name)(cls)


def plain_class(cls: Any) -> Any:
    """The plain class of a class of compacted layers; any other class itself."""
    return cls.__bases__[1] if issubclass(cls, CompactedLayer) else cls


def class_of(plain: type, config: Mapping[str, Any]) -> type:
    """The class of a compacted or other model of a plain class, by its configuration."""
    is_compacted = _RECORD in config.get("config", {})
    return compacted_class(plain) if is_compacted else plain


def full_size(config: Any) -> Any:
    """A configuration as it was before anything was removed."""
    if isinstance(config, Mapping):
        return {
            key: [] if key in ("kernel_shapes", "kept_heads") else full_size(value)
            for key, value in config.items()
        }
    return [full_size(value) for value in config] if isinstance(config, list) else config


def register_classes(config: Any) -> bool:
    """Registers the classes of all compacted layers in a configuration.

    Returns:
      True if there are any.

    Raises:
      ValueError: a plain class is not known.
    """
    found = False
    if isinstance(config, Mapping):
        record = config.get(_RECORD)
        if isinstance(record, Mapping) and "kernel_shapes" in record:
            compacted_class(_registered(record))
            found = True
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        found = any([register_classes(value) for value in config]) or found
    return found


def _registered(record: Mapping[str, Any]) -> Any:
    name = str(record.get("registered_name"))
    cls = compat.registered_class(name)
    if not isinstance(cls, type) or not issubclass(cls, Layer):
        raise ValueError(
            f"No class is registered as {name!r}, which the compacted model is made of. Import the "
            "module that registers it, or load the model in a keras.saving.custom_object_scope "
            "that has it."
        )
    return cls
