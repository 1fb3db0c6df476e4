"""Which layers of a model are pruned, and with which settings."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

from tf_movprune.keras2.compat import Layer, PruningPolicy, keras
from tf_movprune.keras2.layer import PruneLowMovement, is_prunable
from tf_movprune.keras2.tree import children, is_graph_network, walk

# The dense layers that Sanh et al. prune, in BERT and its relatives: query, key, value, attention
# output, intermediate and output of each encoder layer. Not embeddings, pooler or head.
ENCODER_LAYER = re.compile(
    r"(^|\.)(encoder|transformer)\.(layer|layers|albert_layer_groups)\.\d+\."
)


def is_hugging_face(layer: Layer) -> bool:
    """Whether a layer is a Hugging Face model or the main layer of one."""
    return type(layer).__module__.startswith("transformers.") and hasattr(layer, "config")


def default_layers(model: Layer) -> dict[str, Layer]:
    """The layers that are pruned unless a policy says otherwise, by path.

    Hugging Face encoders: the dense layers of every encoder layer. Other models: the dense,
    convolution, attention and user-defined prunable layers, without embeddings, recurrent layers
    and the output layer, which in a subclassed model is taken to be its last.
    """
    outputs = _output_layers(model) if is_graph_network(model) else set()
    found = _default_layers(model, "", seen=outputs)
    is_subclassed = isinstance(model, keras.Model) and not is_graph_network(model)
    if is_subclassed and not is_hugging_face(model) and len(found) > 1:
        last, output = list(found.items())[-1]
        if _top_level_owner(model, last) is output:
            found.pop(last)
    return found


def _top_level_owner(model: Layer, path: str) -> Layer | None:
    return dict(children(model)).get(path)


def _default_layers(layer: Layer, prefix: str, seen: set[int]) -> dict[str, Layer]:
    """The layers below `layer` whose ids are not in `seen`, to which they are added."""
    if is_hugging_face(layer):
        return {
            prefix + path: dense
            for path, dense in walk(layer, is_prunable)
            if isinstance(dense, keras.layers.Dense) and ENCODER_LAYER.search(path)
        }
    found: dict[str, Layer] = {}
    for name, child in children(layer):
        if id(child) in seen or isinstance(child, PruneLowMovement):
            continue
        seen.add(id(child))
        if not is_prunable(child):
            found.update(_default_layers(child, f"{prefix}{name}.", seen))
        elif not isinstance(child, (keras.layers.Embedding, keras.layers.RNN)):
            found[prefix + name] = child
    return found


def _output_layers(model: keras.Model) -> set[int]:
    """The prunable layers from which a graph's outputs come, through layers without weights."""

    def passes_through(layer: Layer) -> bool:
        return not layer.weights and not is_prunable(layer) and not is_graph_network(layer)

    if isinstance(model, keras.Sequential):
        with_weights = [layer for layer in model.layers if not passes_through(layer)]
        outputs = with_weights[-1:]
    else:
        outputs = []
        nodes = [layer._inbound_nodes[index] for layer, index, _ in model._output_coordinates]
        while nodes:
            node = nodes.pop()
            if passes_through(node.layer):
                nodes.extend(node.parent_nodes)
            else:
                outputs.append(node.layer)
    found = set()
    for layer in outputs:
        if is_graph_network(layer):
            found |= _output_layers(layer)
        if is_prunable(layer):
            found.add(id(layer))
    return found


def chosen_layers(model: Layer, policy: PruningPolicy | None) -> dict[str, Layer]:
    """The layers to prune, by path: those of the policy, or the default ones.

    Raises:
      ValueError: there are none, or the policy does not support the model.
    """
    if policy is None:
        layers = default_layers(model)
        remedy = (
            "Embeddings, recurrent layers and the output layer are left out by default; pass a "
            "pruning_policy to choose layers yourself, or give them get_prunable_weights()."
        )
    else:
        policy.ensure_model_supports_pruning(model)
        layers = {
            path: layer
            for path, layer in walk(model, is_prunable)
            if is_prunable(layer) and policy.allow_pruning(layer)
        }
        remedy = "Its allow_pruning() refused every layer."
    if not layers:
        unbuilt = "" if model.built else " The model is not built: call it once on example inputs."
        raise ValueError(
            f"Nothing to prune in {type(model).__name__} {model.name!r}. {remedy}{unbuilt}"
        )
    return layers


def by_path(layers: Mapping[str, Layer], value: Any, name: str) -> dict[str, Any]:
    """The value of each layer: the same, or of a mapping that of the first pattern that matches.

    Args:
      layers: by path.
      value: anything, or a mapping from patterns over paths.
      name: of the argument that `value` is.

    Returns:
      Values by path, of the layers that have one.

    Raises:
      ValueError: a pattern matches nothing.
    """
    if not isinstance(value, Mapping):
        return {path: value for path in layers}
    matches = {
        pattern: [path for path in layers if fnmatch.fnmatchcase(path, pattern)]
        for pattern in value
    }
    unmatched = [pattern for pattern, paths in matches.items() if not paths]
    if unmatched:
        examples = ", ".join(list(layers)[:6]) + (", ..." if len(layers) > 6 else "")
        raise ValueError(
            f"The pattern {unmatched[0]!r} in {name} matches no prunable layer. The "
            f"prunable layers of this model are: {examples}. Patterns match whole paths; `*` "
            "stands for any characters."
        )
    chosen: dict[str, Any] = {}
    for pattern, paths in matches.items():
        for path in paths:
            chosen.setdefault(path, value[pattern])
    return {path: chosen[path] for path in layers if path in chosen}
