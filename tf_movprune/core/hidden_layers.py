"""Which layers of a student learn the hidden states of which layers of its teacher."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tf_movprune.core.wording import counted, listed

_EXAMPLE = '"*.transformer_layer_*"'


class Layers(NamedTuple):
    """The layers of a model that may be chosen.

    Attributes:
      name: name of the model, for messages.
      all: its layers by path, in the order in which they stand in it.
      blocks: paths of its blocks, if it is of a kind whose blocks are known.
    """

    name: str
    all: Mapping[str, Any]
    blocks: list[str]


def check_hidden_states(hidden_states: Any) -> None:
    """Raises TypeError if a value does not choose layers; see `Distiller`."""
    values: Any = hidden_states
    if isinstance(values, Mapping):
        values = [*values, *values.values()]
    elif isinstance(values, str) or values is None or isinstance(values, bool):
        values = [values] if isinstance(values, str) else []
    if not isinstance(values, Iterable) or not all(isinstance(value, str) for value in values):
        raise TypeError(
            "hidden_states must be True, for the blocks of the models, a pattern of the paths of "
            f"layers, such as {_EXAMPLE}, a list of patterns, or a dict from patterns for the "
            f"student's layers to those for the teacher's, got {hidden_states!r}."
        )


def layers_of_role(layers: Layers, hidden_states: Any, role: str) -> dict[str, Any]:
    """The layers of the student or of the teacher whose hidden states are compared, by path.

    Args:
      layers: the layers of the model.
      hidden_states: what `Distiller` was given.
      role: "student" or "teacher".

    Raises:
      TypeError: `hidden_states` does not choose layers.
      ValueError: a pattern matches no layer, or the blocks of the model are not known.
    """
    check_hidden_states(hidden_states)
    if not hidden_states:
        return {}
    if hidden_states is True:
        if not layers.blocks:
            raise ValueError(
                f"The blocks of the {role} {layers.name!r} are not known. Pass a pattern of the "
                f"paths of its layers as hidden_states, such as {_EXAMPLE}. "
                f"{_paths_of(layers)}"
            )
        return {path: layers.all[path] for path in layers.blocks}
    patterns = [hidden_states] if isinstance(hidden_states, str) else list(hidden_states)
    if isinstance(hidden_states, Mapping):
        patterns = list(hidden_states if role == "student" else hidden_states.values())
    found: dict[str, Any] = {}
    for pattern in patterns:
        matching = [path for path in layers.all if fnmatch.fnmatchcase(path, pattern)]
        if not matching:
            raise ValueError(
                f"hidden_states has the pattern {pattern!r}, which matches no layer of the {role} "
                f"{layers.name!r}. {_paths_of(layers)}"
            )
        found.update((path, layers.all[path]) for path in matching)
    return found


def check_pairs(student: Iterable[str], teacher: Iterable[str]) -> None:
    """Raises ValueError if a student and its teacher have different numbers of layers to compare.

    Args:
      student: paths of the student's layers.
      teacher: paths of the teacher's.
    """
    student, teacher = list(student), list(teacher)
    if len(student) != len(teacher):
        raise ValueError(
            "Hidden states are compared in pairs, first with first: the student has "
            f"{counted(len(student), 'layer')} ({listed(map(repr, student))}), and the teacher "
            f"{counted(len(teacher), 'layer')} ({listed(map(repr, teacher))}). Pass a dict as "
            "hidden_states, from the paths of the student's layers to those of the teacher's."
        )


def paired(
    student: Mapping[str, Sequence[Any]], teacher: Mapping[str, Sequence[Any]]
) -> list[tuple[Any, Any]]:
    """Pairs the hidden states of a batch.

    Args:
      student: tensors by the paths of the student's layers, one for each call.
      teacher: the same of the teacher, in the same order.

    Returns:
      Pairs of the teacher's and the student's tensors.

    Raises:
      ValueError: numbers or shapes do not match.
    """
    check_pairs(student, teacher)
    pairs = []
    for (path, states), (other, expected) in zip(student.items(), teacher.items()):
        if len(states) != len(expected):
            raise ValueError(
                f"The student calls {path!r} {counted(len(states), 'time')}, and the teacher "
                f"calls {other!r} {counted(len(expected), 'time')}: their hidden states do not "
                "match."
            )
        for state, target in zip(states, expected):
            is_vector = state.shape.rank is not None and state.shape.rank >= 2
            if not is_vector or not state.shape.is_compatible_with(target.shape):
                raise ValueError(
                    f"Expected hidden states [batch, ..., width] of one shape, got "
                    f"{tuple(state.shape)} of the student's {path!r} and {tuple(target.shape)} of "
                    f"the teacher's {other!r}. Choose layers of the same width by hidden_states."
                )
            pairs.append((target, state))
    return pairs


def _paths_of(layers: Layers) -> str:
    return f"Its layers are {listed(map(repr, layers.all))}."
