"""Conversion of schedules and methods to configurations and back."""

from __future__ import annotations

from typing import Any

from tf_movprune.core import methods, schedules, scores
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.schedules import PruningSchedule
from tf_movprune.keras2.compat import (
    ConstantSparsity,
    Layer,
    PolynomialDecay,
    is_saving,
    keras,
    register,
    registered_name,
)

SERIALIZABLE = (
    schedules.CubicSparsity,
    schedules.CubicThreshold,
    schedules.EveryStep,
    schedules.FixedMasks,
    methods.HardMovement,
    methods.KeepZeros,
    methods.L0,
    methods.Magnitude,
    scores.MagnitudeScores,
    methods.SoftMovement,
)
for _cls in SERIALIZABLE:
    register(_cls)
schedules.use_registry(registered_name)

# tfmot does not register its own schedules.
_TFMOT_SCHEDULES = {cls.__name__: cls for cls in (ConstantSparsity, PolynomialDecay)}


def serialize_schedule(schedule: PruningSchedule) -> dict[str, Any]:
    """Configuration of a schedule. Both of tfmot's forms of `get_config` are accepted."""
    config = schedule.get_config()
    if set(config) == {"class_name", "config"}:
        config = config["config"]
    return {"class_name": registered_name(type(schedule)), "config": config}


def deserialize_schedule(config: dict[str, Any] | PruningSchedule) -> PruningSchedule:
    """The schedule of a configuration.

    Raises:
      ValueError: its class is not known.
    """
    if isinstance(config, PruningSchedule):  # the loader has already made it
        return config
    name = config["class_name"]
    cls = _TFMOT_SCHEDULES.get(name) or _registered_class(name, "schedule")
    return cls.from_config(config["config"])


def serialize_method(method: PruningMethod) -> dict[str, Any]:
    """Configuration of a method, and of the objects in it."""
    return {
        "class_name": registered_name(type(method)),
        "config": {name: _serialize_value(value) for name, value in method.get_config().items()},
    }


def deserialize_method(config: dict[str, Any] | PruningMethod) -> PruningMethod:
    """The method of a configuration.

    Raises:
      ValueError: its class is not known.
    """
    if isinstance(config, PruningMethod):
        return config
    cls = _registered_class(config["class_name"], "method")
    values = {name: _deserialize_value(value) for name, value in config["config"].items()}
    return cls.from_config(values)


def deserialize_layer(config: dict[str, Any] | Layer) -> Layer:
    """The layer of a configuration in either of Keras's formats.

    Keras's own wrappers take the layer inside them to be in the older one, which does not find
    registered classes. Nor do the functions that Keras uses while it loads older files.
    """
    if isinstance(config, Layer):
        return config
    if is_saving() and keras.saving.get_registered_object(config.get("registered_name")):
        config = {"class_name": config["registered_name"], "config": config["config"]}
    return keras.layers.deserialize(config, use_legacy_format="module" not in config)


# Keras's own functions cannot do this: while it loads an H5 file or a SavedModel they are older
# ones, which do not resolve registered names.


def _serialize_value(value: Any) -> Any:
    if not hasattr(value, "get_config"):
        return value
    return {"class_name": registered_name(type(value)), "config": value.get_config()}


def _deserialize_value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    name = value["class_name"]
    cls = getattr(keras.initializers, name, None) or _registered_class(name, "score initializer")
    return cls.from_config(value["config"])


def _registered_class(name: str, role: str) -> Any:
    cls = keras.saving.get_registered_object(name)
    if cls is None:
        raise ValueError(
            f"The model was pruned with a {role} of class {name!r}, which is not registered. "
            "Decorate the class with tf_keras.saving.register_keras_serializable(), or load "
            "inside tf_keras.saving.custom_object_scope."
        )
    return cls
