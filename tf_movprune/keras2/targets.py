"""The layers of a model that are pruned, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from tf_movprune.core.blocks import check_blocks
from tf_movprune.core.granularity import Blocks
from tf_movprune.core.settings import Settings, resolve
from tf_movprune.core.user_warnings import warn
from tf_movprune.keras2 import hugging_face, left_out
from tf_movprune.keras2.compat import Layer, PruningPolicy, keras
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.kernel_variables import matrix_shapes
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree, by_path, is_wrapper
from tf_movprune.keras2.output_layers import Outputs, find_outputs


def choose(
    tree: LayerTree, policy: PruningPolicy | None, given: tuple[Any, Any, Any, Any]
) -> tuple[dict[str, Layer], dict[str, Settings]]:
    """The layers to prune, by path, and their settings.

    They are those of the policy; or the default ones, and those that the default leaves out and a
    pattern names. Patterns may leave some of them dense.

    Args:
      tree: layer tree of a model.
      policy: the user's policy, or None.
      given: the user's schedule, method, block size and score learning rate multiplier, or mappings
        from patterns.

    Raises:
      TypeError: a setting is not of its type.
      ValueError: there is nothing to prune, two layers have the same path, the policy does not
        support the model, a Hugging Face model is not built, a layer cannot be masked, or a setting
        is out of its range.

    Warns of transformer blocks and matrices that the default leaves out, and if the output layer
    had to be guessed.
    """
    model = tree.root
    prunable = by_path(
        (path, layer) for path, layer in tree.walk(is_prunable) if is_prunable(layer)
    )
    outputs = Outputs()
    if policy is None:
        outputs = find_outputs(tree)
        targets = _default_targets(tree, model, "", set(outputs.layers))
        others = {path: layer for path, layer in prunable.items() if path not in targets}
    else:
        policy.ensure_model_supports_pruning(model)
        targets = {path: layer for path, layer in prunable.items() if policy.allow_pruning(layer)}
        others = {}
    if not targets and not (others and any(isinstance(value, Mapping) for value in given)):
        raise ValueError(_nothing_to_prune(tree, policy, others, outputs))
    settings = resolve(targets, *given, left_out=others)
    chosen = {path: layer for path, layer in {**targets, **others}.items() if path in settings}
    if hugging_face.is_hugging_face(model) and not all(layer.built for layer in chosen.values()):
        raise ValueError(
            f"{type(model).__name__} is not built yet. Call it once on example inputs before "
            "pruning, for instance model(model.dummy_inputs): variables that are made inside "
            "pruning wrappers have other names, under which from_pretrained does not find them."
        )
    hugging_face.check_not_tied(model, chosen.values())
    _check_blocks(chosen, settings)
    if policy is None and targets and targets.keys() <= chosen.keys():
        _warn_of_default(tree, chosen, outputs)
    return chosen, settings


def _check_blocks(layers: Mapping[str, Layer], settings: Mapping[str, Settings]) -> None:
    """Raises ValueError if kernels cannot be cut into their blocks; it names all of them.

    Kernels that are not there yet are checked when they are made.
    """
    shapes: dict[Blocks, dict[str, tuple[int, ...]]] = {}
    for path, layer in layers.items():
        size = settings[path].block_size
        if isinstance(size, Blocks) and layer.weights:
            weights = [w for w in prunable_weights(layer) if isinstance(w, tf.Variable)]
            shapes.setdefault(size, {}).update(matrix_shapes(path, layer, weights))
    for size, those in shapes.items():
        check_blocks(those, size)


def default_targets(tree: LayerTree) -> dict[str, Layer]:
    """The layers that are pruned if no policy chooses others, by path.

    Hugging Face models: the dense layers of every encoder layer. Other models: the dense,
    convolution, attention and user-defined prunable layers, without embeddings, recurrent layers
    and the output layers, which `output_layers` defines.
    """
    return _default_targets(tree, tree.root, "", set(find_outputs(tree).layers))


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


def _named(model: Layer) -> str:
    return f"{type(model).__name__} {model.name!r}"


def _warn_of_default(tree: LayerTree, chosen: Mapping[str, Layer], outputs: Outputs) -> None:
    name = _named(tree.root)
    if outputs.guessed is not None and outputs.guessed not in chosen:
        warn(
            f"{outputs.guessed} is taken for the output layer of {name} and stays dense, as the "
            f"last of its layers, because the model cannot be traced: {outputs.reason}. Call the "
            "model once on example inputs before pruning, so that its outputs can be followed; or "
            "choose layers with a pruning_policy or patterns."
        )
    note = left_out.describe(tree, chosen.values(), outputs)
    if note:
        warn(f"The default choice for {name} {note}")


def _nothing_to_prune(
    tree: LayerTree, policy: PruningPolicy | None, others: Collection[str], outputs: Outputs
) -> str:
    note = left_out.describe(tree, (), outputs) if policy is None else None
    message = f"Nothing to prune in {_named(tree.root)}."
    if policy is not None:
        message += " Its pruning_policy refused every layer: allow_pruning() returned False."
    elif not tree.root.built and not others:
        message += " The model is not built: call it once on example inputs, as in model(batch)."
    elif note:
        message += f" The default choice {note}"
    elif others:
        shown = ", ".join(list(others)[:6]) + (", ..." if len(others) > 6 else "")
        message += (
            f" Its prunable layers ({shown}) are left out by default, as embeddings, recurrent "
            "layers and the output layer are. Name them in a mapping of path patterns to "
            "schedules, or pass a pruning_policy."
        )
    else:
        message += (
            " None of its layers is prunable. Give layers of your own get_prunable_weights(), or "
            "use layers that tfmot knows."
        )
    return message
