"""The choice of heads and neurons to prune, by the settings of the layers they are part of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from tf_movprune.core.granularity import HEADS, NEURONS, Units
from tf_movprune.core.settings import Settings
from tf_movprune.core.wording import listed, numbered_as_one


class _Group(Protocol):
    @property
    def kind(self) -> Units: ...

    @property
    def size(self) -> int: ...


_AnyGroup = TypeVar("_AnyGroup", bound=_Group)


def choose_units(
    groups: Iterable[tuple[_AnyGroup, Sequence[str]]],
    settings: Mapping[str, Settings],
    obstacle: Callable[[str, Units], str],
    known: Mapping[Units, str],
) -> tuple[list[tuple[_AnyGroup, Sequence[str]]], dict[str, Settings]]:
    """The heads and neurons that are to be pruned, and the layers that have a part in them.

    Args:
      groups: all heads and neurons, each with the paths of its layers.
      settings: settings of each layer to be pruned, by path.
      obstacle: why the layer at a path has no part in heads or neurons, in words that follow its
        name.
      known: words for the layers that have heads, and for those that have neurons.

    Returns:
      The groups of which a layer is to be pruned by their kind, and the settings of all their
      layers, by path. Layers without settings have those of the layers that they share units with.

    Raises:
      ValueError: a layer has no heads or neurons that can be told apart, the layers of a head or
        neuron have different settings, or none can go, as each is the only one of its layer.
    """
    chosen = []
    members: dict[str, Settings] = {}
    for group, paths in groups:
        asking = [p for p in paths if p in settings and settings[p].block_size is group.kind]
        if asking:
            chosen.append((group, paths))
            first = settings[asking[0]]
            for path in paths:
                member = members.setdefault(path, settings.get(path, first))
                _check_equal(asking[0], first, path, member)
    missing = {
        path: setting.block_size
        for path, setting in settings.items()
        if isinstance(setting.block_size, Units) and path not in members
    }
    if missing:
        raise ValueError(_not_found(missing, obstacle, known))
    for kind in (HEADS, NEURONS):
        those = [(group.size, paths[0]) for group, paths in chosen if group.kind is kind]
        if those and max(those)[0] == 1:
            raise ValueError(
                f"block_size is {kind!r} for layers that have one of the {kind} each, which stays, "
                f"such as {those[0][1]}. Heads that share keys and values count as one. Give these "
                "layers another block_size, or leave them out, with a mapping of path patterns."
            )
    return chosen, members


def _check_equal(path: str, setting: Settings, other_path: str, other: Settings) -> None:
    if setting.key != other.key:
        raise ValueError(
            f"{path} is pruned by {setting}, and {other_path} has a part in the same "
            f"{setting.block_size}, but is pruned by {other}. Give both the same block_size, "
            f"schedule and method; or leave {other_path} out of the schedules, to prune just the "
            f"{setting.block_size} of which it has a part."
        )


def _not_found(
    missing: Mapping[str, Units], obstacle: Callable[[str, Units], str], known: Mapping[Units, str]
) -> str:
    """Names the layers without heads or neurons, and what is in the way in each."""
    sentences = []
    for kind in (HEADS, NEURONS):
        by_reason: dict[str, list[str]] = {}
        for path, asked in missing.items():
            if asked is kind:
                by_reason.setdefault(obstacle(path, kind), []).append(path)
        if by_reason:
            named = (
                f"{listed(numbered_as_one(paths))}, "
                f"{'which' if len(paths) == 1 else 'each of which'} {reason}"
                for reason, paths in by_reason.items()
            )
            sentences.append(
                f"block_size is {kind!r} for layers that have no {kind} that can be told apart: "
                f"{listed(named, separator='; ')}. {known[kind]}; the model must be built."
            )
    return (
        f"{' '.join(sentences)} Give other layers block sizes of two integers, with a mapping of "
        "path patterns."
    )
