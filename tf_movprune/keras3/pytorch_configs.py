"""Configurations and tokenizers of Hugging Face for KerasHub's models."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_movprune.core.encoder_families import family_of
from tf_movprune.core.ported_weight import EncoderSizes
from tf_movprune.keras3 import keras_hub
from tf_movprune.keras3.attention import group_count, kept_heads
from tf_movprune.keras3.pytorch_kinds import (
    KINDS,
    QUESTIONS,
    SOURCE,
    backbone_of,
    check_reads_tokens,
    head_layers,
    model_type_of,
)
from tf_movprune.keras3.saving import check_stripped

_KEPT = ("id2label", "label2id", "problem_type", "finetuning_task", "pad_token_id")


def describe(model: keras.Model) -> tuple[dict[str, Any], list[EncoderSizes]]:
    """The configuration of a model in full size, and what is left of each encoder layer.

    Raises:
      ValueError: PyTorch has no class for such a model.
    """
    check_stripped(model)
    backbone = backbone_of(model)
    model_type = model_type_of(backbone)
    blocks = backbone.transformer_layers
    activation = keras_hub.activation_of(backbone)
    family = family_of(model_type)
    config: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": backbone.vocabulary_size,
        family.layer_count: backbone.num_layers,
        family.head_count: backbone.num_heads,
        family.width: backbone.hidden_dim,
        family.neuron_count: backbone.intermediate_dim,
    }
    if model_type == "distilbert":
        config |= {"activation": activation, "dropout": backbone.dropout}
    else:
        config |= {
            "attention_probs_dropout_prob": backbone.dropout,
            "hidden_act": activation,
            "hidden_dropout_prob": backbone.dropout,
            "layer_norm_eps": blocks[0].layer_norm_epsilon,
            "type_vocab_size": getattr(backbone, "num_segments", 1),
        }
    config["max_position_embeddings"] = backbone.max_sequence_length + family.first_position
    if model_type == "roberta":
        config |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config |= _head_config(model, backbone, model_type)
    return {**config, **_kept_from_source(model, config)}, _sizes(blocks)


def _kept_from_source(model: keras.Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what KerasHub does not keep of the checkpoint that a model was loaded from.

    Names of labels are kept if there are as many.
    """
    file = pathlib.Path(source_of(model)) / "config.json"
    old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    is_same = len(old.get("id2label") or ()) == len(config.get("id2label") or ())
    return {key: old[key] for key in _KEPT if key in old} if is_same else {}


def _sizes(blocks: Sequence[Any]) -> list[EncoderSizes]:
    found = []
    for block in blocks:
        attention = keras_hub.attention_of(block)
        heads = kept_heads(attention) or range(group_count(attention))
        found.append(EncoderSizes(tuple(heads), keras_hub.first_dense_layer(block).units))
    return found


def _head_config(model: keras.Model, backbone: Any, model_type: str) -> dict[str, Any]:
    layers = head_layers(model, backbone, model_type)
    if not layers:
        task = "Model"
    elif keras_hub.is_text_classifier(type(model)):
        task = "ForSequenceClassification"
    else:
        check_reads_tokens(model, backbone, layers[-1][0])
        task = "ForQuestionAnswering" if layers[-1][1] == QUESTIONS else "ForTokenClassification"
    config: dict[str, Any] = {"architectures": [KINDS[model_type].architecture + task]}
    if task.endswith("Classification"):
        output = layers[-1][0]
        if output.activation not in (None, keras.activations.linear):
            raise ValueError(
                f"The output layer of {model.name!r} must have no activation, as in PyTorch, got "
                f"{output.activation.__name__}."
            )
        labels = range(output.units)
        config["id2label"] = {str(i): f"LABEL_{i}" for i in labels}
        config["label2id"] = {f"LABEL_{i}": i for i in labels}
    return config


def source_of(model: keras.Model) -> str:
    """The folder or name that a model was loaded from; empty if it was not."""
    return str(vars(backbone_of(model)).get(SOURCE, ""))


def write_tokenizer(model: keras.Model, folder: pathlib.Path) -> bool:
    """Writes the tokenizer of a task's preprocessor as Hugging Face has it.

    Returns:
      True if there is one.
    """
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    if tokenizer is not None:
        write_assets(tokenizer, folder)
    return tokenizer is not None


def write_assets(tokenizer: Any, folder: pathlib.Path) -> None:
    """Writes a tokenizer of KerasHub as Hugging Face has it.

    Raises:
      ValueError: it is of another kind than the models here have.
    """
    classes = {f"{kind.architecture}Tokenizer" for kind in KINDS.values()}
    name = next((c.__name__ for c in type(tokenizer).__mro__ if c.__name__ in classes), None)
    if name is None:
        raise ValueError(
            f"tokenizer must be one of {', '.join(sorted(classes))}, got a "
            f"{type(tokenizer).__name__}."
        )
    tokenizer.save_assets(str(folder))
    for file in ("vocabulary.txt", "vocabulary.json"):
        if (folder / file).is_file():
            (folder / file).rename(folder / file.replace("vocabulary", "vocab"))
    merges = folder / "merges.txt"
    if merges.is_file():  # Hugging Face does not read its first line
        text = merges.read_text(encoding="utf-8")
        merges.write_text(f"#version: 0.2\n{text}", encoding="utf-8")
    settings = {"tokenizer_class": name}
    if hasattr(tokenizer, "lowercase"):
        settings["do_lower_case"] = tokenizer.lowercase
        settings["strip_accents"] = tokenizer.strip_accents
    text = json.dumps(settings, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
