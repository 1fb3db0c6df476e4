"""Guards against saving pruned Keras 3 models in ways in which they would not load again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import h5py
import keras

from tf_movprune.core.nested import named_leaves
from tf_movprune.core.saved_settings import add_to_h5, check_h5, config_without_masks
from tf_movprune.core.settings import Settings
from tf_movprune.core.unchanged import unchanged_on_error
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer, check_keras_object
from tf_movprune.keras3.layer_tree import holders, kernels_by_path, pruned_layers
from tf_movprune.keras3.optimizers import LinearWarmupDecay, MovementAdamW
from tf_movprune.keras3.pruned_layer import PrunedLayer

_CONFIG = "get_config"
_LOAD = "load_weights"
_SAVE = ("save", "save_to_preset")


class _CompleteConfig:
    """The `get_config` of a model or layer, which raises if it does not tell of pruned layers."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def __call__(self) -> dict[str, Any]:
        layer = self.layer
        config = type(layer).get_config(layer)
        name = keras.saving.get_registered_name(PrunedLayer)
        leaves = [leaf for _, leaf in named_leaves(config)]
        found = sum(isinstance(leaf, str) and leaf == name for leaf in leaves)
        if found < len(pruned_layers(layer)):
            raise ValueError(config_without_masks(layer))
        return config


class _SafeSave:
    """A method of a model that writes a file, and raises what its configuration does before.

    Keras opens the file first, so that a good one in its place would be lost.
    """

    def __init__(self, model: keras.Model, name: str):
        self.model, self.name = model, name

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        keras.saving.serialize_keras_object(self.model)
        getattr(type(self.model), self.name)(self.model, *args, **kwargs)
        path = kwargs.get("filepath", *args[:1])
        if _is_h5(path):
            add_to_h5(path, _settings(self.model))


class _SafeLoad:
    """The `load_weights` of a model, which keeps all its values if that raises.

    Keras loads layer by layer, and says at the end which could not be loaded.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_h5(filepath):
            check_h5(filepath, _settings(self.model))
        with unchanged_on_error(compat.all_variables(self.model)):
            return type(self.model).load_weights(self.model, filepath, *args, **kwargs)


def _is_h5(path: Any) -> bool:
    """Returns whether a path is that of a file in which layers have no place of their own."""
    return str(path).endswith((".h5", ".hdf5")) and h5py.is_hdf5(path)


def _settings(model: Layer) -> dict[str, Settings]:
    layers = pruned_layers(model)
    return {path: kernels[0].settings for path, kernels in kernels_by_path(layers).items()}


def guard_saving(model: Layer) -> None:
    """Makes whatever saves or copies a pruned model raise if masks would be lost.

    Files stay what they were, and so does the model if weights cannot be loaded.
    """
    for layer in holders(model):
        if isinstance(layer, keras.Model):
            vars(layer)[_LOAD] = _SafeLoad(layer)  # stripped models keep it
        vars(layer)[_CONFIG] = _CompleteConfig(layer)
        for name in _SAVE:
            if _is_known(getattr(type(layer), name, None)):
                vars(layer)[name] = _SafeSave(layer, name)


def unguard_saving(layer: Layer) -> None:
    """Undoes `guard_saving` for a layer or model, not for those inside it."""
    for name in (_CONFIG, *_SAVE):
        if isinstance(vars(layer).get(name), (_CompleteConfig, _SafeSave)):
            del vars(layer)[name]


def _is_known(method: Any) -> bool:
    """Returns whether a method is Keras's or KerasHub's. One of a user's own may save otherwise."""
    return getattr(method, "__module__", "").startswith(("keras.", "keras_hub."))


def prune_scope() -> AbstractContextManager[Any]:
    """A scope in which files of whole pruned models load, with their optimizers."""
    classes = (PrunedLayer, MovementAdamW, LinearWarmupDecay)
    return keras.saving.custom_object_scope(
        {keras.saving.get_registered_name(cls): cls for cls in classes}
    )


def check_stripped(model: Any) -> None:
    """Raises TypeError if `model` is not a Keras model, ValueError if it is still pruned."""
    check_keras_object(model, keras.Model, "a Keras model")
    if pruned_layers(model):
        raise ValueError(
            f"{model.name!r} is still pruned. Use what tf_movprune.strip_pruning(model) returns."
        )
