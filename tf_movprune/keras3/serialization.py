"""Conversion of settings, and of pruned layers, to configurations of Keras 3 and back."""

from __future__ import annotations

from typing import Any

import keras

from tf_movprune.core import methods, schedules, scores
from tf_movprune.core.granularity import Blocks
from tf_movprune.core.settings import Settings

_PACKAGE = "tf_movprune"
_CLASSES = {
    f"{_PACKAGE}>{cls.__name__}": cls
    for cls in (
        schedules.CubicSparsity,
        schedules.CubicThreshold,
        schedules.EveryStep,
        schedules.FixedMasks,
        methods.HardMovement,
        methods.KeepZeros,
        methods.L0,
        methods.Magnitude,
        methods.SoftMovement,
        scores.MagnitudeScores,
    )
}
_NAMES = {cls: name for name, cls in _CLASSES.items()}


def serialize_settings(settings: Settings) -> dict[str, Any]:
    """Configuration of the settings of a kernel that is pruned in weights or blocks."""
    assert isinstance(settings.block_size, Blocks)
    return {
        "pruning_schedule": _serialize(settings.schedule),
        "method": _serialize(settings.method),
        "block_size": list(settings.block_size),
        "score_learning_rate_multiplier": settings.score_learning_rate_multiplier,
    }


def deserialize_settings(config: dict[str, Any]) -> Settings:
    """The settings of a configuration.

    Raises:
      ValueError: the class of the schedule or of the method is not known.
    """
    return Settings(
        _deserialize(config["pruning_schedule"], "schedule"),
        _deserialize(config["method"], "method"),
        tuple(config["block_size"]),
        config["score_learning_rate_multiplier"],
    )


def _serialize(value: Any) -> Any:
    """Configuration of an object, with those of the objects in it."""
    if not hasattr(value, "get_config"):
        return value
    config = value.get_config()
    if set(config) == {"class_name", "config"}:  # the form of tfmot's schedules
        config = config["config"]
    name = _NAMES.get(type(value)) or keras.saving.get_registered_name(type(value))
    items = {key: _serialize(item) for key, item in config.items()}
    return {"class_name": name, "config": items}


def _deserialize(value: Any, role: str) -> Any:
    if not isinstance(value, dict) or set(value) != {"class_name", "config"}:
        return value
    name = value["class_name"]
    cls = _CLASSES.get(name) or keras.saving.get_registered_object(name)
    cls = cls or getattr(keras.initializers, name, None)
    if cls is None:
        raise ValueError(
            f"The model was pruned with a {role} of class {name!r}, which is not registered. "
            "Decorate the class with keras.saving.register_keras_serializable(), or load inside "
            "keras.saving.custom_object_scope."
        )
    return cls.from_config({key: _deserialize(item, role) for key, item in value["config"].items()})
