"""Knowledge of KerasHub's models. KerasHub is not imported: whoever has one has imported it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from tf_movprune.core.user_warnings import warn
from tf_movprune.keras3.compat import AttentionNames, Layer, all_layers


def is_backbone(layer: Any) -> bool:
    """Returns whether a layer is a backbone."""
    return _is_of_class(type(layer), "Backbone")


def is_backbone_class(cls: type) -> bool:
    """Returns whether a class is one of backbones."""
    return _is_of_class(cls, "Backbone")


def is_task(cls: type) -> bool:
    """Returns whether a class is one of tasks, models of a backbone and a preprocessor."""
    return _is_of_class(cls, "Task")


def is_text_classifier(cls: type) -> bool:
    """Returns whether a class is one of tasks that classify texts."""
    return _is_of_class(cls, "TextClassifier")


def is_causal_lm(model: Any) -> bool:
    """Returns whether a model is a task whose output is the logits of tokens."""
    return _is_of_class(type(model), "CausalLM")


def inside_blocks(model: Layer, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The layers inside composite layers of backbones; none that stands in a graph itself.

    Args:
      model: a model or layer.
      layers: the layers below it, by path.
    """
    blocks = _block_paths(model, layers)
    return {path: layer for path, layer in layers.items() if blocks[path] not in ("", path)}


def blocks(model: Layer, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """The blocks of backbones by path.

    They are the layers in the graphs of backbones with dense layers inside; or the layers in a list
    that such a layer has.

    Args:
      model: a model or layer.
      layers: the layers below it, by path.
    """
    paths = _block_paths(model, layers)
    kinds = (keras.layers.Dense, keras.layers.EinsumDense)
    found = set()
    for path, layer in inside_blocks(model, layers).items():
        if isinstance(layer, kinds):
            in_list = re.match(r"(\.[^.]+)*?\.\d+(?=\.)", path.removeprefix(paths[path]))
            found.add(paths[path] + (in_list[0] if in_list else ""))
    return {path: layer for path, layer in layers.items() if path in found}


def _block_paths(model: Layer, layers: Mapping[str, Layer]) -> dict[str, str]:
    """The layers in the graphs of backbones that layers are, or are in; "" outside of backbones."""
    backbones = [""] if is_backbone(model) else []
    backbones += [f"{path}." for path, layer in layers.items() if is_backbone(layer)]

    def block_of(path: str) -> str:
        prefix = max((p for p in backbones if path.startswith(p)), key=len, default=path)
        return prefix + path.removeprefix(prefix).partition(".")[0] if path != prefix else ""

    return {path: block_of(path) for path in layers}


def holds_positions(layer: Any) -> bool:
    """Returns whether a layer is a table of embeddings of positions."""
    return _is_of_class(type(layer), "PositionEmbedding")


def positions(model: Layer) -> int | None:
    """The number of tokens for which a model has positions; None if there is no such limit."""
    layers = filter(holds_positions, all_layers(model))
    return min((layer.sequence_length for layer in layers), default=None)


def _is_of_class(cls: type, name: str) -> bool:
    """Returns whether a class is one of KerasHub's of that name, or below it."""
    return any(
        base.__name__ == name and base.__module__.startswith("keras_hub.") for base in cls.__mro__
    )


def vocabulary_size(model: Layer) -> int | None:
    """The number of token ids that a backbone in a model takes; None if it is not known."""
    sizes = (getattr(x, "vocabulary_size", None) for x in all_layers(model) if is_backbone(x))
    return next((size for size in sizes if isinstance(size, int)), None)


def load_preset(path: str | os.PathLike[str], cls: Any) -> Any:
    """Loads a preset as a task of a class, or the backbone in it.

    The `from_preset` of tasks takes just the backbone class that a task names, and no subclass.

    Warns of a task whose head is not in the preset, but new.

    Raises:
      ValueError: the preset is not of that class, nor its backbone one for such a task.
    """
    utils = importlib.import_module("keras_hub.src.utils.preset_utils")
    loader = utils.get_preset_loader(str(path))
    backbone = loader.check_backbone_class()
    saved = _class_in(utils, path, utils.TASK_CONFIG_FILE) or backbone
    if not is_task(cls):
        if not issubclass(backbone, cls):
            raise _of_another_class(path, saved, cls)
        return loader.load_backbone(backbone, True)
    if not issubclass(saved, cls):
        if cls.backbone_cls is None or not issubclass(backbone, cls.backbone_cls):
            raise _of_another_class(path, saved, cls)
        warn(
            f"{path} holds a {_name(saved)}. {cls.__name__} has its backbone, and all other "
            "weights are new and random: train it, or load the model without model_class."
        )
    return loader.load_task(cls, True, True)


def load_tokenizer(path: str | os.PathLike[str], cls: Any) -> Any:
    """Loads the tokenizer of a preset as one of a class.

    The `from_preset` of tokenizers looks at the backbone too, and knows no compacted one.
    """
    utils = importlib.import_module("keras_hub.src.utils.preset_utils")
    return utils.get_preset_loader(str(path)).load_tokenizer(cls)


def _class_in(utils: Any, path: str | os.PathLike[str], name: str) -> type | None:
    """The class that a configuration of a preset names; None if it has no such file."""
    if not os.path.isfile(os.path.join(path, name)):
        return None
    return utils.check_config_class(utils.load_json(str(path), name))


def _name(cls: type) -> str:
    """The name of the public class that a class of compacted models stands for."""
    known: type = next(filter(is_of_keras_hub, cls.__mro__), cls)
    return known.__name__


def _of_another_class(path: str | os.PathLike[str], saved: type, cls: type) -> ValueError:
    return ValueError(
        f"{path} holds a {_name(saved)}, which model_class={cls.__name__} does not load. Pass the "
        "class that was saved, or none."
    )


# ---- how blocks are laid out

_PARTS = ("query_dense", "key_dense", "value_dense", "output_dense")
_HIDDEN_PARTS = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
_HEADS, _GROUPS = "num_query_heads", "num_key_value_heads"
_GROUPED = AttentionNames(_HIDDEN_PARTS, _HEADS, _GROUPS)
_ATTENTION = {
    "CachedMultiHeadAttention": AttentionNames(_HIDDEN_PARTS, "_num_heads"),
    "WhisperCachedMultiHeadAttention": AttentionNames(_HIDDEN_PARTS, "_num_heads"),
    **{f"{name}Attention": _GROUPED for name in ("Llama", "Qwen", "Qwen3", "Qwen3Moe")},
    "CachedMistralAttention": AttentionNames(_HIDDEN_PARTS, f"_{_HEADS}", f"_{_GROUPS}"),
    "QwenMoeAttention": AttentionNames((*_PARTS[:3], "_output_dense"), _HEADS, _GROUPS),
    "CachedMixtralAttention": AttentionNames(_PARTS, _HEADS, _GROUPS),
    "Phi3Attention": AttentionNames(_PARTS, _HEADS, _GROUPS),
    # The scale of Gemma's scores may come from its width, as hidden_dim // num_query_heads.
    "CachedGemmaAttention": AttentionNames(_PARTS, _HEADS, _GROUPS, widths=("hidden_dim",)),
    "CachedGemma3Attention": AttentionNames(_PARTS, _HEADS, _GROUPS, widths=("hidden_dim",)),
    "DisentangledSelfAttention": AttentionNames(_HIDDEN_PARTS, "num_heads", widths=("hidden_dim",)),
    "T5MultiHeadAttention": AttentionNames(
        ("query_projector", "key_projector", "value_projector", "output_projector"),
        "num_heads",
        head_size="key_value_dim",
        widths=("inner_dim",),
        takes_bias=True,
    ),
}
# Attributes of blocks by class: the feed-forward layers, the one that reads the neurons last. Two
# before it are multiplied, after the activation of the first.
_PLAIN = ("_feedforward_intermediate_dense", "_feedforward_output_dense")
_GATED = ("_feedforward_gate_dense", *_PLAIN)
_GEMMA = ("gating_ffw", "gating_ffw_2", "ffw_linear")
_T5 = ("input_projector", "gate_projector", "output_projector")
_FEED_FORWARD: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("TransformerEncoder", "TransformerDecoder"), _PLAIN),
    **dict.fromkeys(("WhisperEncoder", "WhisperDecoder"), _PLAIN),
    "FNetEncoder": ("_intermediate_dense", "_output_dense"),
    "MLP": ("dense_1", "dense_2"),  # of ViT
    "DisentangledAttentionEncoder": _PLAIN,
    "T5TransformerLayer": _T5,
    **{f"{name}TransformerDecoder": _GATED for name in ("Llama", "Mistral", "Qwen", "Qwen3")},
    "Phi3Decoder": tuple(name.lstrip("_") for name in _GATED),
    **{f"{name}DecoderBlock": _GEMMA for name in ("Gemma", "Gemma3")},
}


class FeedForward(NamedTuple):
    """The feed-forward layers of a block.

    Attributes:
      sources: the layer whose outputs the neurons are; or two, whose outputs are multiplied.
      reader: the layer that reads the neurons.
      activations: functions that are applied to the first of the sources' outputs.
    """

    sources: Sequence[Layer]
    reader: Layer
    activations: Sequence[Callable[[Any], Any]]


def feed_forward(layer: Any) -> FeedForward | None:
    """The feed-forward layers of a built block of a known kind; None for any other layer."""
    cls = type(layer)
    known: Any = next(filter(is_of_keras_hub, cls.__mro__), None)
    names = _FEED_FORWARD.get(known.__name__) if known else None
    if names is None or cls.call is not known.call or not layer.built:
        return None
    if names is _T5 and not layer.use_gated_activation:
        names = _T5[0], _T5[2]
    *sources, reader = (getattr(layer, name, None) for name in names)
    if len(sources) == 1 or names is _T5:
        activation = getattr(sources[0], "activation", None)  # ViT's MLP is not the only one
    else:
        activation = getattr(layer, "activation", _gelu_approximate)  # Gemma's is in its code
    if activation is None or reader is None:
        return None
    return FeedForward(sources, reader, [activation])


def _gelu_approximate(x: Any) -> Any:
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "gelu": keras.activations.gelu,
    "gelu_new": _gelu_approximate,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
}
"""The activations of blocks by the names that Hugging Face's configurations have for them."""


def known_activation(name: Any) -> str:
    """The name of an activation, one of `ACTIVATIONS`; different names are of one function.

    Raises:
      ValueError: it is not known.
    """
    name = {"gelu_pytorch_tanh": "gelu_new", "gelu_python": "gelu"}.get(name, name)
    if name not in ACTIVATIONS:
        raise ValueError(
            f"The activation of blocks must be one of {', '.join(ACTIVATIONS)}, got {name!r}."
        )
    return name


def activation_of(backbone: Any) -> str:
    """The name of the one activation of a backbone's blocks; see `activation_name`."""
    blocks = backbone.transformer_layers
    return activation_name({first_dense_layer(block).activation for block in blocks})


def activation_name(functions: Collection[Any]) -> str:
    """The name that Hugging Face has for the one activation of all blocks.

    Raises:
      ValueError: there are several, or there is no name.
    """
    found = {
        next((name for name, known in ACTIVATIONS.items() if known is function), None)
        or ("gelu_new" if function is not None and is_elementwise(function) else None)
        for function in functions
    }
    if len(found) != 1 or None in found:
        raise ValueError(
            f"The blocks must have one of the activations {', '.join(ACTIVATIONS)}, got "
            f"{[getattr(function, '__name__', function) for function in functions]}."
        )
    return str(found.pop())


_ATTENTION_LAYER = "_self_attention_layer"


def first_dense_layer(block: Any) -> Any:
    """The dense layer of a `TransformerEncoder` that has the activation."""
    return getattr(block, _PLAIN[0])


def attention_of(block: Any) -> Any:
    """The attention layer of a `TransformerEncoder`."""
    return getattr(block, _ATTENTION_LAYER)


def is_elementwise(function: Any) -> bool:
    """Returns whether a function is one of KerasHub's own activations."""
    return function is _gelu_approximate or (
        getattr(function, "__name__", "") == "gelu_approximate"
        and function.__module__.startswith("keras_hub.")
    )


def attention_names(cls: type) -> AttentionNames | None:
    """The names of the attributes of KerasHub's attention layers; None for other classes."""
    return _ATTENTION.get(cls.__name__) if is_of_keras_hub(cls) else None


def is_of_keras_hub(cls: type) -> bool:
    """Returns whether a class is one of KerasHub's own."""
    return cls.__module__.startswith("keras_hub.")
