"""The state of an optimizer, to go on with in another one whose variables are smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_movprune.core.empty_units import Cut
from tf_movprune.core.optimizer_steps import inner_optimizer


class OptimizerState(NamedTuple):
    """The memory of an optimizer.

    Attributes:
      slots: an array for each variable, by the ids of the variables and by the name of the slot.
      counters: scalars: steps, and whatever else is not of one variable.
    """

    slots: dict[str, dict[int, np.ndarray]]
    counters: list[np.ndarray]


def without_scores(optimizer: Any, compat: ModuleType) -> Any:
    """A new optimizer with the settings of another, for a model that has no scores any more.

    Raises:
      ValueError: its class or its learning rate cannot be made anew from a configuration.
    """
    inner = inner_optimizer(optimizer)
    try:
        config = {**inner.get_config(), "learning_rate": compat.learning_rate_of(inner)}
        if "score_optimizer" in config:
            config["score_optimizer"] = None
        made = type(inner).from_config(config)
        if inner is optimizer:
            return made
        serialized = compat.keras.optimizers.serialize(made)
        config = {**optimizer.get_config(), "inner_optimizer": serialized}
        return type(optimizer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{type(inner).__name__} cannot be made anew from its get_config(): {error} Let its "
            "class, and that of a learning rate schedule, return all arguments there."
        ) from error


def read_state(optimizer: Any, variables: Sequence[Any], compat: ModuleType) -> OptimizerState:
    """Reads the state of a built optimizer.

    Args:
      optimizer: the optimizer, in which another one may be wrapped that scales the loss.
      variables: the variables whose slots are wanted.
      compat: the module of the shell that knows its optimizers.

    Raises:
      ValueError: a slot has another shape than its variable, or there is more than it lists.
    """
    inner = inner_optimizer(optimizer)
    hidden = compat.hidden_variables(inner)
    if hidden:
        raise ValueError(
            f"{type(inner).__name__} keeps {', '.join(hidden)} beside the "
            "variables that it lists, which would be lost. Use an optimizer such as AdamW."
        )
    slots: dict[str, dict[int, np.ndarray]] = {}
    for name, members in compat.slots(inner).items():
        for variable in variables:
            index = compat.slot_index(inner, variable)
            slot = None if index is None else members[index]
            if slot is None:
                continue
            if tuple(slot.shape) != tuple(variable.shape):
                raise ValueError(
                    f"{type(inner).__name__} keeps {name.lstrip('_')} of another shape than their "
                    "variables, which cannot be cut as these are. Use an optimizer such as AdamW, "
                    "or compact with tf_movprune.compact and train on with a new optimizer."
                )
            slots.setdefault(name, {})[id(variable)] = np.array(tf.convert_to_tensor(slot))
    counters = [np.array(tf.convert_to_tensor(c)) for c in compat.counters(optimizer)]
    return OptimizerState(slots, counters)


def write_state(
    state: OptimizerState,
    optimizer: Any,
    variables: Mapping[int, Any],
    shapes: Mapping[int, Sequence[int]],
    cut: Cut,
    compat: ModuleType,
) -> None:
    """Gives a new optimizer the state of an old one.

    Args:
      state: the state.
      optimizer: an optimizer of the same class and settings, which is built.
      variables: its variables, by the ids of those of the old one in whose place they are.
      shapes: the shapes that all variables of the model had, by their ids.
      cut: how they were made smaller.
      compat: the module of the shell that knows its optimizers.
    """
    inner = inner_optimizer(optimizer)
    new_slots = compat.slots(inner)
    after = {key: tuple(variable.shape) for key, variable in variables.items()}
    for name, values in state.slots.items():
        smaller = {**values, **cut(values, shapes, after)}
        for key, value in smaller.items():
            new_slots[name][compat.slot_index(inner, variables[key])].assign(value)
    for counter, value in zip(compat.counters(optimizer), state.counters, strict=True):
        counter.assign(value)
