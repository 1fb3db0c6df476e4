"""The layers of a Keras 3 model that are pruned, and how."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from tf_movprune.core.blocks import check_blocks
from tf_movprune.core.granularity import Blocks
from tf_movprune.core.kernel_holders import check_only_holders
from tf_movprune.core.matrix_layout import matrix_shape
from tf_movprune.core.settings import Settings, resolve
from tf_movprune.core.user_warnings import warn
from tf_movprune.keras3 import compat, left_out
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.keras_hub import inside_blocks, is_backbone
from tf_movprune.keras3.kernel_places import is_prunable, kernel_places
from tf_movprune.keras3.layer_tree import walk
from tf_movprune.keras3.output_layers import Outputs, find_outputs

# Layers that choose experts: they are small, and each of their weights decides on whole experts.
_ROUTER = re.compile(r"router|sparse_feedforward_gate|shared_expert_gate")


def choose(
    model: Layer, policy: Any, given: tuple[Any, Any, Any, Any]
) -> tuple[dict[str, Layer], dict[str, Settings]]:
    """The layers to prune, by path, and their settings.

    They are those of the policy; or the default ones, and those that the default leaves out and a
    pattern names. Patterns may leave some of them dense.

    Args:
      model: a Keras model or composite layer.
      policy: the user's policy, or None.
      given: the user's schedule, method, block size and score learning rate multiplier, or mappings
        from patterns.

    Raises:
      TypeError: a setting is not of its type.
      ValueError: the model is not built, there is nothing to prune, the policy does not support
        the model, a layer cannot be masked, or a setting is out of its range.

    Warns of matrices that the default leaves out.
    """
    prunable = prunable_layers(model)
    if not model.built and not (prunable and all(layer.built for layer in prunable.values())):
        raise ValueError(_not_built(model.name, model))
    note = None
    if policy is None:
        targets, outputs = _default(model)
        note = left_out.describe(model, outputs)
        others = {path: layer for path, layer in prunable.items() if path not in targets}
    else:
        policy.ensure_model_supports_pruning(model)
        targets = {path: layer for path, layer in prunable.items() if policy.allow_pruning(layer)}
        others = {}
    if not targets and not (others and any(isinstance(value, Mapping) for value in given)):
        raise ValueError(_nothing_to_prune(model, policy, others, note))
    settings = resolve(targets, *given, left_out=others)
    chosen = {path: layer for path, layer in {**targets, **others}.items() if path in settings}
    for path, layer in chosen.items():
        check_layer(path, layer)
    _check_blocks(chosen, settings)
    if note and targets.keys() <= chosen.keys():
        warn(f"The default choice for {_named(model)} {note}")
    return chosen, settings


def prunable_layers(model: Layer) -> dict[str, Layer]:
    """The layers below a model that have kernels of their own, by path."""
    return {path: layer for path, layer in walk(model, is_prunable).items() if is_prunable(layer)}


def default_targets(model: Layer) -> dict[str, Layer]:
    """The layers that are pruned if no policy chooses others, by path.

    KerasHub backbones: the dense layers inside their blocks, and those with a
    `get_prunable_weights()`, without routers of experts. Other models, and backbones without any
    such layer, as convolutional ones: the dense, convolution and user-defined prunable layers,
    without embeddings, recurrent layers and the output layers. A backbone has no output layers.
    """
    return _default(model)[0]


def _default(model: Layer) -> tuple[dict[str, Layer], Outputs | None]:
    """The default targets, and where outputs come from; None for the blocks of backbones."""
    layers = walk(model, is_prunable)
    inside = inside_blocks(model, layers)
    chosen = {path: layer for path, layer in inside.items() if _is_matrix_of_block(path, layer)}
    if chosen:
        return chosen, None
    outputs = Outputs() if is_backbone(model) else find_outputs(model)
    others = {
        path: layer
        for path, layer in layers.items()
        if is_prunable(layer)
        and id(layer) not in outputs.layers
        and not isinstance(layer, (keras.layers.Embedding, keras.layers.RNN))
    }
    return others, outputs


def _is_matrix_of_block(path: str, layer: Layer) -> bool:
    kinds = (keras.layers.Dense, keras.layers.EinsumDense)
    is_chosen = isinstance(layer, kinds) or hasattr(layer, "get_prunable_weights")
    return is_chosen and not _ROUTER.search(path)


def check_layer(path: str, layer: Layer) -> None:
    """Raises ValueError if a layer cannot be pruned as it is."""
    if not layer.built:
        raise ValueError(_not_built(path, layer))
    for owner in compat.all_layers(layer):
        if compat.is_quantized(owner):
            raise ValueError(
                f"{path!r} ({type(layer).__name__}) computes with quantized weights "
                f"({owner.quantization_mode}), which masks do not reach. Prune the model first, "
                "and quantize what tf_movprune.strip_pruning returns."
            )
        if getattr(owner, "lora_enabled", False):
            raise ValueError(
                f"{path!r} ({type(layer).__name__}) has LoRA enabled, which freezes the kernel and "
                "adds to it past the mask. Merge the adapter first, or leave the layer out, with a "
                "mapping of path patterns to schedules or a pruning_policy."
            )


def _not_built(path: str, layer: Layer) -> str:
    return (
        f"{path!r} ({type(layer).__name__}) is not built, so there is no kernel to mask. Call "
        "the model once on example inputs before pruning, for instance model(batch)."
    )


def check_holders(models: Iterable[Layer], targets: Iterable[Layer]) -> None:
    """Raises ValueError if another layer of some models or layers has a kernel of a target."""
    check_only_holders(
        [
            (layer, compat.all_layers(layer), [p.variable for p in kernel_places(layer)])
            for layer in targets
        ],
        (
            (layer, name, value)
            for model in models
            for layer in compat.all_layers(model)
            for name, value in compat.own_attributes(layer).items()
        ),
    )


def _check_blocks(layers: Mapping[str, Layer], settings: Mapping[str, Settings]) -> None:
    """Raises ValueError if kernels cannot be cut into their blocks; it names all of them."""
    shapes: dict[Blocks, dict[str, tuple[int, ...]]] = {}
    for path, layer in layers.items():
        size = settings[path].block_size
        if isinstance(size, Blocks):
            shapes.setdefault(size, {}).update(
                {
                    f"{path}.{place.short_name}": matrix_shape(place.variable.shape, place.layout)
                    for place in kernel_places(layer)
                }
            )
    for size, those in shapes.items():
        check_blocks(those, size)


def _named(model: Layer) -> str:
    return f"{type(model).__name__} {model.name!r}"


def _nothing_to_prune(
    model: Layer, policy: Any, others: Mapping[str, Layer], note: str | None
) -> str:
    message = f"Nothing to prune in {_named(model)}."
    if policy is not None:
        message += " Its pruning_policy refused every layer: allow_pruning() returned False."
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
        message += " None of its layers is prunable. Give your own get_prunable_weights()."
    return message
