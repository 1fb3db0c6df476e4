"""The kinds of KerasHub's models that PyTorch has too, and what they are called there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.resizing import dense_layers

_CONVERTERS = "keras_hub.src.utils.transformers.convert_"


class Kind(NamedTuple):
    """Names of a kind of backbone, in KerasHub and Hugging Face.

    Attributes:
      backbone: name of KerasHub's class of backbones.
      converter: last part of the name of KerasHub's converter.
      architecture: first part of the names of Hugging Face's classes.
      defaults: what a configuration says that lacks the keys.
      classifier: tensors of PyTorch by the attribute of a text classifier that holds their layer.
    """

    backbone: str
    converter: str
    architecture: str
    defaults: Mapping[str, Any]
    classifier: Mapping[str, str]


_COMMON = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
_DISTILBERT = {
    "activation": "gelu",
    "dim": 768,
    "dropout": 0.1,
    "hidden_dim": 3072,
    "max_position_embeddings": 512,
    "n_heads": 12,
    "n_layers": 6,
    "vocab_size": 30522,
}
KINDS = {
    "bert": Kind("BertBackbone", "bert", "Bert", _COMMON, {"output_dense": "classifier"}),
    "distilbert": Kind(
        "DistilBertBackbone",
        "distilbert",
        "DistilBert",
        _DISTILBERT,
        {"pooled_dense": "pre_classifier", "output_dense": "classifier"},
    ),
    "roberta": Kind(
        "RobertaBackbone",
        "roberta",
        "Roberta",
        {**_COMMON, "vocab_size": 50265},
        {"pooled_dense": "classifier.dense", "output_dense": "classifier.out_proj"},
    ),
}
SOURCE = "_movement_source"
"""Attribute of a backbone: the folder that it was loaded from."""

QUESTIONS, TOKENS = "qa_outputs", "classifier"
"""Names of the dense layers that read each token of a backbone, here and in PyTorch."""


def converter_of(kind: Kind) -> Any:
    """KerasHub's converter of the checkpoints of a kind.

    Raises:
      ImportError: this release of KerasHub has none.
    """
    try:
        return importlib.import_module(_CONVERTERS + kind.converter)
    except ModuleNotFoundError as error:
        version = importlib.import_module("keras_hub").__version__
        raise ImportError(
            f"KerasHub {version} has no names for checkpoints of {kind.architecture}: install a "
            "later release, or load into Hugging Face's TF classes."
        ) from error


def is_of(cls: type, kind: Kind) -> bool:
    """Returns whether a class is the backbone of a kind, or a user's own below it.

    XLM-RoBERTa's is below RoBERTa's, and another kind.
    """
    known = next(filter(keras_hub.is_of_keras_hub, cls.__mro__), None)
    return known is not None and known.__name__ == kind.backbone


def kind_of(config: Mapping[str, Any]) -> Kind:
    """The kind of a configuration of Hugging Face.

    Raises:
      ValueError: it is not known.
    """
    if config["model_type"] not in KINDS:
        raise ValueError(
            f"A checkpoint for KerasHub must be one of {', '.join(KINDS)}, got "
            f"{config['model_type']!r}. Load it into Hugging Face's TF classes."
        )
    return KINDS[config["model_type"]]


def model_type_of(backbone: Any) -> str:
    """The `model_type` that Hugging Face has for a backbone.

    Raises:
      ValueError: it is not known.
    """
    for model_type, kind in KINDS.items():
        if is_of(type(backbone), kind):
            return model_type
    raise ValueError(
        f"{backbone.name!r} must be a backbone of {', '.join(KINDS)}, got a "
        f"{type(backbone).__name__}, which is not known here under PyTorch's names."
    )


def backbone_of(model: keras.Model) -> Any:
    """The one backbone in a model.

    Raises:
      ValueError: there is none, or more.
    """
    found = [layer for layer in compat.all_layers(model) if keras_hub.is_backbone(layer)]
    if len(found) != 1:
        raise ValueError(
            f"{model.name!r} must hold one backbone of KerasHub, and has {len(found)}: PyTorch has "
            "no class for others."
        )
    return found[0]


def head_layers(model: keras.Model, backbone: Any, model_type: str) -> list[tuple[Any, str]]:
    """The dense layers of the head, with their names in PyTorch.

    Raises:
      ValueError: it is no head that is known.
    """
    if model is backbone:
        return []
    if keras_hub.is_text_classifier(type(model)):
        classifier = KINDS[model_type].classifier
        _check_pooled(model, backbone, model_type)
        return [(getattr(model, attribute), name) for attribute, name in classifier.items()]
    inside = {id(layer) for layer in compat.all_layers(backbone)}
    dense = [x for x in dense_layers(compat.all_layers(model)) if id(x) not in inside]
    if [layer.name for layer in dense] not in ([QUESTIONS], [TOKENS]):
        raise ValueError(
            f"{model.name!r} must have one dense layer after its backbone, {QUESTIONS!r} or "
            f"{TOKENS!r}, and has {[layer.name for layer in dense]}."
        )
    return [(dense[0], dense[0].name)]


def _check_pooled(model: Any, backbone: Any, model_type: str) -> None:
    """Refuses a classifier whose hidden layer is not what PyTorch's class has."""
    wanted = "relu" if model_type == "distilbert" else "tanh"
    dense = backbone.pooled_dense if model_type == "bert" else model.pooled_dense
    width, found = backbone.hidden_dim, getattr(dense.activation, "__name__", None)
    if tuple(dense.kernel.shape) != (width, width) or found != wanted:
        raise ValueError(
            f"{dense.name!r} of {model.name!r} must have {width} units and the activation "
            f"{wanted}, as in PyTorch, got {dense.units} and {found}."
        )


def with_dense(backbone: Any, dense: Any, dropout: float = 0.0) -> keras.Model:
    """A model of a backbone and a dense layer over each token, `QUESTIONS` or `TOKENS`."""
    inputs = {
        key: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=key)
        for key, tensor in backbone.input.items()
    }
    tokens = backbone(inputs)
    if isinstance(tokens, dict):
        tokens = tokens["sequence_output"]
        backbone.pooled_dense.trainable = False  # nothing reads it
    if dense.name == TOKENS:
        tokens = keras.layers.Dropout(dropout, name="classifier_dropout")(tokens)
    logits = dense(tokens)
    if dense.name == QUESTIONS:
        outputs = {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        return keras.Model(inputs, outputs)
    return keras.Model(inputs, logits)


def check_reads_tokens(model: keras.Model, backbone: Any, dense: Any) -> None:
    """Refuses a model that computes something else from its layers than PyTorch's class does.

    Raises:
      ValueError: its outputs are not those of the dense layer on each token of the backbone.
    """
    ids = np.arange(10).reshape(2, 5) % backbone.vocabulary_size
    inputs = {key: np.int32(ids > -1 if key == "padding_mask" else ids) for key in backbone.input}
    if "segment_ids" in inputs:
        inputs["segment_ids"] = np.zeros_like(ids)
    is_linear = dense.activation in (None, keras.activations.linear)
    try:
        tokens = backbone(inputs)
        expected = dense(tokens["sequence_output"] if isinstance(tokens, dict) else tokens)
        if dense.name == QUESTIONS:
            expected = {"start_logits": expected[..., 0], "end_logits": expected[..., 1]}
        found = model(inputs)
        keras.tree.assert_same_structure(found, expected)
        pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
        is_same = all(x.shape == y.shape and np.allclose(x, y, atol=1e-3) for x, y in pairs)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _computes_otherwise(model, dense) from error
    if not (is_same and is_linear):
        raise _computes_otherwise(model, dense)


def _computes_otherwise(model: keras.Model, dense: Any) -> ValueError:
    shape = "start_logits and end_logits" if dense.name == QUESTIONS else "the logits of tokens"
    return ValueError(
        f"{model.name!r} must compute {shape} by {dense.name!r} of each token of its backbone and "
        "nothing else, as PyTorch's class does; its outputs are others."
    )
