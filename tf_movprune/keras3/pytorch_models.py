"""KerasHub's models for PyTorch checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_movprune.core.empty_units import KeptUnits, Matrices, blank
from tf_movprune.core.encoder_families import family_of, task_of
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.keras3 import keras_hub
from tf_movprune.keras3.compact import shrink
from tf_movprune.keras3.compacted_layer import record_sizes, set_activation
from tf_movprune.keras3.pytorch_kinds import (
    QUESTIONS,
    SOURCE,
    TOKENS,
    converter_of,
    is_of,
    kind_of,
    with_dense,
)
from tf_movprune.keras3.units import find_units


def check_model_class(model_class: Any) -> None:
    """Raises TypeError if a class is not a backbone or text classifier of KerasHub."""
    is_known = keras_hub.is_backbone_class(model_class) or (
        keras_hub.is_text_classifier(model_class) and model_class.backbone_cls is not None
    )
    if not is_known:
        raise TypeError(
            "model_class must be a class of Hugging Face TF models, or a text classifier or "
            f"backbone of KerasHub, such as keras_hub.models.BertBackbone, got {model_class!r}."
        )


def model_of(
    config: Mapping[str, Any],
    sizes: Sequence[EncoderSizes],
    names: Collection[str],
    model_class: Any,
) -> keras.Model:
    """Makes a model of some sizes, whose weights are arbitrary.

    Args:
      config: configuration of the model in full size.
      sizes: what is left of each encoder layer.
      names: names of the weights of the checkpoint, which tell its head.
      model_class: class of KerasHub: a backbone or a text classifier.

    Raises:
      ValueError: the class is not one of the checkpoint's, or does not compute what it does.
    """
    kind = kind_of(config)
    config = {**kind.defaults, **config}
    converter = converter_of(kind)
    is_classifier = not keras_hub.is_backbone_class(model_class)
    backbone_class = model_class.backbone_cls if is_classifier else model_class
    if not is_of(backbone_class, kind):
        raise ValueError(
            f"The checkpoint is a {config['model_type']}, which {model_class.__name__} is not. "
            f"Pass {kind.backbone}, or its text classifier."
        )
    activation = keras_hub.known_activation(config.get("hidden_act", config.get("activation")))
    family = family_of(config["model_type"])
    heads, neurons = (family.size(config, which) for which in ("head_count", "neuron_count"))
    is_whole = all(len(size.heads) == heads and size.neurons == neurons for size in sizes)
    backbone = _backbone(backbone_class, converter, config, neurons if is_whole else 1)
    _check_epsilon(backbone, config)
    if keras_hub.activation_of(backbone) != activation:
        set_activation(backbone, activation)
    vars(backbone)[SOURCE] = config.get("_name_or_path", "")
    if not is_whole:
        _resize(backbone, sizes, neurons)
    return _with_head(backbone, config, names, model_class if is_classifier else None)


def _backbone(backbone_class: Any, converter: Any, config: Mapping[str, Any], neurons: int) -> Any:
    arguments = converter.convert_backbone_config(config)
    arguments["intermediate_dim"] = neurons
    first = family_of(config["model_type"]).first_position
    arguments["max_sequence_length"] = config["max_position_embeddings"] - first
    arguments["dropout"] = config.get("hidden_dropout_prob", config.get("dropout"))
    if config["model_type"] == "bert":
        arguments["num_segments"] = config["type_vocab_size"]
    return backbone_class(**arguments)


def _check_epsilon(backbone: Any, config: Mapping[str, Any]) -> None:
    """Refuses a model whose normalisations would divide by something else."""
    wanted = config.get("layer_norm_eps", 1e-12)  # DistilBERT's is in its code
    has = backbone.transformer_layers[0].layer_norm_epsilon
    if config["model_type"] != "distilbert" and has != wanted:
        raise ValueError(
            f"layer_norm_eps in config.json is {wanted}, and {type(backbone).__name__} has {has}. "
            "Load the checkpoint into Hugging Face's TF classes."
        )


def _resize(backbone: Any, sizes: Sequence[EncoderSizes], neurons: int) -> None:
    """Gives each block the heads and neurons that it is to have.

    Args:
      backbone: backbone with one neuron in each block, so that the memory of one of full size is
        never taken.
      sizes: what each block is to have.
      neurons: the number of neurons that the configuration is to tell.
    """
    groups = find_units(backbone)
    units, weights = [KeptUnits(group) for group in groups], Matrices(groups, blank)
    by_layer = {id(unit.group.owner or unit.sources[0]): unit for unit in units}
    for block, size in zip(backbone.transformer_layers, sizes, strict=True):
        by_layer[id(keras_hub.attention_of(block))].keep(np.array(size.heads), weights)
        by_layer[id(keras_hub.first_dense_layer(block))].resize(size.neurons, weights)
    changed = shrink(units, weights)
    for layer in (backbone, *backbone.transformer_layers):
        layer.intermediate_dim = neurons
    record_sizes(backbone, changed)


# ---- heads


def _with_head(
    backbone: Any, config: Mapping[str, Any], names: Collection[str], task: Any
) -> keras.Model:
    """The backbone with the head that a checkpoint has."""
    labels = len(config.get("id2label") or range(config.get("num_labels", 2)))
    kind, purpose = kind_of(config), task_of(config, names)
    is_of_texts = purpose == "ForSequenceClassification"
    if task is not None:
        if not is_of_texts:
            raise ValueError(
                f"{task.__name__} classifies texts, and the checkpoint is for something else "
                f"({purpose}). Pass {kind.backbone}, or no model_class."
            )
        return task(backbone, num_classes=labels)
    if is_of_texts:
        raise ValueError(
            f"The checkpoint classifies texts. Pass keras_hub.models.{kind.architecture}"
            "TextClassifier as model_class."
        )
    if purpose == "ForQuestionAnswering":
        return with_dense(backbone, keras.layers.Dense(2, name=QUESTIONS))
    if purpose == "ForTokenClassification":
        rate = config.get("classifier_dropout")
        dropout = backbone.dropout if rate is None else rate
        return with_dense(backbone, keras.layers.Dense(labels, name=TOKENS), dropout)
    if purpose != "Model":
        raise ValueError(
            f"The checkpoint is for {purpose.removeprefix('For')}, which has no counterpart in "
            "KerasHub here. Load it into Hugging Face's TF classes."
        )
    return backbone
