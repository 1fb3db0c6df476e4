"""The marks in files of weights that tell how a layer was pruned, besides its variables."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tf_movprune.core.granularity import Blocks
from tf_movprune.core.settings import Settings

_KEY = "movement_settings"


def save_settings(store: Any, settings: Settings) -> None:
    """Adds the method and the units of the scores to the variables of a layer in a file."""
    store[_KEY] = _as_bytes(_words(settings))


def check_config_being_saved(class_name: str, count: Callable[[Any], int]) -> None:
    """Raises ValueError if a `.keras` file is written that does not tell of all pruned layers.

    A model around one that was pruned alone writes what its own `get_config` gives. Both Kerases
    write that before they ask layers for their variables, which is when this is called.

    Args:
      class_name: registered name of the class of pruned layers.
      count: returns the number of pruned layers in a model.
    """
    for frame, _ in traceback.walk_stack(None):
        if "config_json" in frame.f_locals and frame.f_globals["__name__"].endswith("saving_lib"):
            model, config = frame.f_locals["model"], frame.f_locals["config_json"]
            if config.count(f'"{class_name}"') < count(model):
                raise ValueError(config_without_masks(model))
            return


def config_without_masks(layer: Any) -> str:
    """Says that the configuration of a model or layer does not tell of pruned layers inside it."""
    return (
        f"{layer.name!r} ({type(layer).__name__}) has pruned layers inside that its get_config() "
        "does not tell of: a file of the whole model, or a copy, would not have their masks. Use "
        "save_weights or tf.train.Checkpoint, and load into a fresh model that is pruned in the "
        "same way; or save what tf_movprune.strip_pruning returns."
    )


def check_masks_are_own(name: str, settings: Settings) -> None:
    """Raises ValueError if a layer has masks that files of whole models cannot keep with it."""
    if not isinstance(settings.block_size, Blocks):
        raise ValueError(
            f"{name!r} shares masks of {settings.block_size} with other layers, which a file of "
            "the whole model does not keep. Use save_weights or tf.train.Checkpoint, and load into "
            "a fresh model that is pruned in the same way; or save what tf_movprune.strip_pruning "
            "returns."
        )


def checked_variables(name: str, store: Any, settings: Settings) -> dict[str, Any]:
    """The variables of a layer in a file, without what `save_settings` added.

    Raises:
      ValueError: scores in the file mean something else than those of the layer `name`.
    """
    variables = {key: store[key] for key in set(store.keys())}
    if _KEY in variables:
        _check("file", name, _as_text(variables.pop(_KEY)), settings)
    return variables


def add_to_h5(path: Any, settings: Mapping[str, Settings]) -> None:
    """Adds the settings of layers by path to an `.h5` file in which layers have no place for them.

    Args:
      path: a file that Keras wrote.
      settings: those of each pruned layer of the model.
    """
    with h5py.File(path, "a") as file:
        words = {name: _words(of_layer) for name, of_layer in settings.items()}
        file[_KEY] = _as_bytes(json.dumps(words))


def check_h5(path: Any, settings: Mapping[str, Settings]) -> None:
    """Raises ValueError if `add_to_h5` noted other settings than those of the layers."""
    with h5py.File(path, "r") as file:
        saved = json.loads(_as_text(file[_KEY])) if _KEY in file else {}
    for name in filter(saved.__contains__, settings):
        _check("file", name, saved[name], settings[name])


class SettingsInCheckpoint(tf.train.experimental.PythonState):
    """Tells the settings of a layer in checkpoints, and compares them when it is restored.

    TensorFlow restores such objects before any variable that it finds, so that a refusal comes
    before the model is changed.

    Args:
      name: name of the layer.
      settings: returns how it is pruned.
    """

    def __init__(self, name: str, settings: Callable[[], Settings]):
        self._name, self._settings = name, settings

    def serialize(self) -> str:
        return _words(self._settings())

    def deserialize(self, string_value: Any) -> None:
        """Raises ValueError if the scores of the checkpoint mean something else."""
        _check("checkpoint", self._name, tf.compat.as_str(string_value), self._settings())


def _check(what: str, name: str, saved: str, settings: Settings) -> None:
    own = _words(settings)
    if saved != own:
        raise ValueError(
            f"The {what} holds scores of {saved} for the layer {name!r}, which is pruned by {own}. "
            "Prune the model as the saved one was, and load then."
        )


def _words(settings: Settings) -> str:
    method = settings.method
    scale = settings.score_scale.multiplier
    unit = f" at score_learning_rate_multiplier {scale:g}" if method.has_scores else ""
    return type(method).__name__ + unit


def _as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), "uint8")


def _as_text(stored: Any) -> str:
    return np.array(stored).tobytes().decode()
