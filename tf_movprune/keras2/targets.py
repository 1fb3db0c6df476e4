"""The layers of a model that are pruned."""

from __future__ import annotations

from typing import Any

from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import Layer, PruningPolicy, is_graph_network, keras
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, is_wrapper


def find_targets(tree: LayerTree, policy: PruningPolicy | None) -> dict[str, Layer]:
    """The layers to prune, by path: those of the policy, or the default ones.

    Raises:
      ValueError: there are none, the policy does not support the model, or a Hugging Face model is
        not built.
    """
    model = tree.root
    if policy is None:
        targets = default_targets(tree)
        remedy = (
            "Embeddings, recurrent layers and the output layer are left out by default; pass a "
            "pruning_policy to choose layers yourself, or give them get_prunable_weights()."
        )
    else:
        policy.ensure_model_supports_pruning(model)
        targets = {
            path: layer
            for path, layer in tree.walk(is_prunable)
            if is_prunable(layer) and policy.allow_pruning(layer)
        }
        remedy = "Its allow_pruning() refused every layer."
    if not targets:
        unbuilt = "" if model.built else " The model is not built: call it once on example inputs."
        raise ValueError(
            f"Nothing to prune in {type(model).__name__} {model.name!r}. {remedy}{unbuilt}"
        )
    if hugging_face.is_hugging_face(model) and not all(layer.built for layer in targets.values()):
        raise ValueError(
            f"{type(model).__name__} is not built yet. Call it once on example inputs before "
            "pruning, for instance model(model.dummy_inputs): variables that are made inside "
            "pruning wrappers have other names, under which from_pretrained does not find them."
        )
    return targets


def default_targets(tree: LayerTree) -> dict[str, Layer]:
    """The layers that are pruned if no policy chooses others, by path.

    Hugging Face encoders: the dense layers of every encoder layer. Other models: the dense,
    convolution, attention and user-defined prunable layers, without embeddings, recurrent layers
    and the output layer, which in a subclassed model is taken to be its last.
    """
    model = tree.root
    outputs = _output_layers(model) if is_graph_network(model) else set()
    found = _default_targets(tree, model, "", seen=outputs)
    is_subclassed = isinstance(model, keras.Model) and not is_graph_network(model)
    if is_subclassed and not hugging_face.is_hugging_face(model) and len(found) > 1:
        last, output = list(found.items())[-1]
        if dict(tree.children(model)).get(last) is output:
            found.pop(last)
    return found


def _default_targets(tree: LayerTree, layer: Layer, prefix: str, seen: set[int]) -> dict[str, Any]:
    """The targets below `layer` whose ids are not in `seen`, to which they are added."""
    if hugging_face.is_hugging_face(layer):
        return {
            prefix + path: dense
            for path, dense in tree.walk(is_prunable, layer)
            if isinstance(dense, keras.layers.Dense) and hugging_face.is_in_encoder_layer(path)
        }
    found: dict[str, Layer] = {}
    for name, child in tree.children(layer):
        if id(child) in seen or is_wrapper(child):
            continue
        seen.add(id(child))
        if not is_prunable(child):
            found.update(_default_targets(tree, child, f"{prefix}{name}.", seen))
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
        nodes = compat.output_nodes(model)
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
