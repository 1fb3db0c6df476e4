"""Which layers share the masks of heads and neurons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tf_movprune.core.settings import Settings
from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.junctions import Attention, Junction, find
from tf_movprune.keras2.shared_masks import HEADS, KINDS, NEURONS, Part, SharedMask
from tf_movprune.keras2.tree import walk


def shared_masks(
    model: Layer, settings: Mapping[str, Settings], layers: Mapping[str, Layer]
) -> tuple[dict[str, list[SharedMask]], dict[str, tuple[Layer, Settings]]]:
    """Masks for the layers that are to be pruned by heads or neurons.

    Args:
      model: what is pruned, built and without wrappers.
      settings: of each layer to be pruned, by path.
      layers: by path, at least those in `settings`.

    Returns:
      masks: by path. Several for a layer that reads some neurons and makes others.
      more: by path, layers that have a part in such masks and were not chosen to be pruned, such as
        the output layer that reads the last neurons; with the settings of those that were.

    Raises:
      ValueError: a layer has no heads or neurons that can be told apart, or the layers of a head or
        neuron have different settings.
    """
    structured = [path for path, setting in settings.items() if setting.block_size in KINDS]
    if not structured:
        return {}, {}
    paths = {id(layer): path for path, layer in ((model.name, model), *walk(model))}
    paths.update((id(layer), path) for path, layer in layers.items())
    masks: dict[str, list[SharedMask]] = {path: [] for path in structured}
    more: dict[str, tuple[Layer, Settings]] = {}
    for junction in find(model, to_remove=False):
        kind = HEADS if isinstance(junction, Attention) else NEURONS
        members = {paths[id(layer)]: layer for layer in _wrapped_layers(junction)}
        asking = [p for p in members if p in settings and settings[p].block_size == kind]
        if not asking:
            continue
        mask = SharedMask(junction.size, list(_parts(junction)))
        for path, layer in members.items():
            _, setting = more.setdefault(path, (layer, settings.get(path, settings[asking[0]])))
            _check_equal(asking[0], settings[asking[0]], path, setting)
            masks.setdefault(path, []).append(mask)
    for path in structured:
        if not masks[path]:
            raise ValueError(_not_found(path, settings[path].block_size))
    return masks, more


def _check_equal(path: str, setting: Settings, other_path: str, other: Settings) -> None:
    if setting.key != other.key:
        raise ValueError(
            f"{path} is pruned by {setting}, and {other_path} has a part in the same "
            f"{setting.block_size}, but is pruned by {other}. Give both the same block_size, "
            f"schedule and method; or leave {other_path} out of the schedules, to prune just the "
            f"{setting.block_size} of which it has a part."
        )


def _wrapped_layers(junction: Junction) -> Iterator[Layer]:
    """Keras attention is wrapped as a whole; elsewhere the dense layers are."""
    if isinstance(junction, Attention) and junction.attributes is None:
        yield junction.owner
    else:
        yield from (*junction.sources, junction.reader)


def _parts(junction: Junction) -> Iterator[Part]:
    for layer in junction.sources:
        yield Part(layer, "kernel", 1)
        if layer.bias is not None:
            yield Part(layer, "bias", 0)
    yield Part(junction.reader, "kernel", 0)


def _not_found(path: str, kind: str) -> str:
    if kind == HEADS:
        what = (
            "Known are Keras's own MultiHeadAttention, and the attention of Hugging Face's BERT, "
            "RoBERTa, ELECTRA and DistilBERT encoders"
        )
    else:
        what = (
            "Known are the feed-forward layers of Hugging Face's BERT, RoBERTa, ELECTRA and "
            "DistilBERT encoders, and dense layers that follow each other in a Sequential or "
            "Functional model with nothing between them but activations and dropout"
        )
    return (
        f"block_size of {path} is {kind!r}, but it has no {kind} that can be told apart. {what}; "
        "the model must be built. Give other layers block sizes of two integers, with a mapping "
        "of path patterns."
    )
