"""The layers of a student and of its teacher whose hidden states are compared."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
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
    blocks: Sequence[str]

    @classmethod
    def of_cache(cls, hidden_states: Mapping[str, Any]) -> Layers:
        """The layers of a teacher whose hidden states were cached."""
        return cls("of the cache", hidden_states, list(hidden_states))


class Choice:
    """The choice of layers by which a `Distiller` was made.

    Args:
      hidden_states: what it was given.

    Raises:
      TypeError: it does not choose layers.
      ValueError: it is empty.
    """

    def __init__(self, hidden_states: Any):
        chosen: Any = hidden_states
        if chosen is None or isinstance(chosen, bool):
            self._entries: list[tuple[Any, Any]] = [(None, None)] if chosen else []
            return
        if isinstance(chosen, str):
            chosen = [chosen]
        if isinstance(chosen, Mapping):
            entries = list(chosen.items())
        elif isinstance(chosen, Sequence) and not isinstance(chosen, bytes):
            entries = [(pattern, pattern) for pattern in chosen]
        else:
            raise _no_choice(hidden_states)
        if not all(isinstance(pattern, str) for entry in entries for pattern in entry):
            raise _no_choice(hidden_states)
        if not entries:
            raise ValueError("hidden_states is empty. Name layers, or pass None to compare none.")
        self._entries = entries

    def __bool__(self) -> bool:
        return bool(self._entries)

    def of_student(self, layers: Layers) -> dict[str, Any]:
        """The student's layers by path, each once."""
        return _by_path(layers, [_matching(layers, s, "student") for s, _ in self._entries])

    def of_teacher(self, layers: Layers) -> dict[str, Any]:
        """The teacher's layers by path, each once."""
        return _by_path(layers, [_matching(layers, t, "teacher") for _, t in self._entries])

    def pairs(self, student: Layers, teacher: Layers) -> list[tuple[str, str]]:
        """Pairs of the path of a layer of the student, and of the one that it is compared with.

        Raises:
          ValueError: a pattern matches no layer, or two patterns different numbers of them; or the
            blocks of a model are not known.
        """
        found: dict[tuple[str, str], None] = {}
        for mine, theirs in self._entries:
            own = _matching(student, mine, "student")
            expected = _matching(teacher, theirs, "teacher")
            if len(own) != len(expected):
                raise ValueError(
                    "Hidden states are compared in pairs, first with first: the student has "
                    f"{counted(len(own), 'layer')} ({listed(map(repr, own))}), and the teacher "
                    f"{counted(len(expected), 'layer')} ({listed(map(repr, expected))}). Pass a "
                    "dict as hidden_states, from each of the student's paths to one of the "
                    "teacher's."
                )
            found.update(dict.fromkeys(zip(own, expected)))
        return list(found)


def paired_states(
    pairs: Sequence[tuple[str, str]],
    student: Mapping[str, Sequence[Any]],
    teacher: Mapping[str, Sequence[Any]],
) -> list[tuple[str, Any, Any]]:
    """Pairs the hidden states of a batch.

    Args:
      pairs: paths of the student's layers, and of the teacher's.
      student: tensors by the paths of the student's layers, one for each call.
      teacher: the same of the teacher.

    Returns:
      The path of a student's layer, and the student's and the teacher's tensor, for each call.

    Raises:
      ValueError: numbers or shapes do not match, or states were cached of other layers.
    """
    found = []
    for path, other in pairs:
        if other not in teacher:
            raise ValueError(
                f"The data hold no hidden states of the teacher's {other!r}, but those of "
                f"{listed(map(repr, teacher))}. Pass the same hidden_states to "
                "tf_movprune.cache_teacher_logits as to the Distiller."
            )
        states, expected = student[path], teacher[other]
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
            found.append((path, state, target))
    return found


def _no_choice(hidden_states: Any) -> TypeError:
    return TypeError(
        "hidden_states must be True, for the blocks of the models, a pattern of the paths of "
        f"layers, such as {_EXAMPLE}, a list of patterns, or a dict from patterns for the "
        f"student's layers to those for the teacher's, got {hidden_states!r}."
    )


def _matching(layers: Layers, pattern: str | None, role: str) -> list[str]:
    """The paths that match a pattern, without layers inside of others that do; None is blocks."""
    shown = f"Its layers are {listed(map(repr, layers.all))}."
    if pattern is None:
        if not layers.blocks:
            raise ValueError(
                f"The blocks of the {role} {layers.name!r} are not known. Pass a pattern of the "
                f"paths of its layers as hidden_states, such as {_EXAMPLE}. {shown}"
            )
        return list(layers.blocks)
    paths = [path for path in layers.all if fnmatch.fnmatchcase(path, pattern)]
    if not paths:
        raise ValueError(
            f"hidden_states has the pattern {pattern!r}, which matches no layer of the {role} "
            f"{layers.name!r}. {shown}"
        )
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]


def _by_path(layers: Layers, chosen: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {path: layers.all[path] for paths in chosen for path in paths}
