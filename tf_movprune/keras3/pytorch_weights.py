"""KerasHub's models, and the PyTorch checkpoints of the same models.

The names of weights are those of KerasHub's own converters of Hugging Face's checkpoints.
"""

from __future__ import annotations

import importlib
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tf_movprune.core.empty_units import KeptUnits, Matrices
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.matrix_layout import layout_of
from tf_movprune.core.ported_weight import EncoderSizes, PortedWeight
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.attention import group_count, kept_heads
from tf_movprune.keras3.compact import shrink
from tf_movprune.keras3.compacted_layer import record_sizes, set_activation
from tf_movprune.keras3.layer_tree import kernels_by_path, pruned_layers, walk
from tf_movprune.keras3.resizing import dense_layers
from tf_movprune.keras3.saving import check_stripped
from tf_movprune.keras3.units import find_units

_CONVERTERS = "keras_hub.src.utils.transformers.convert_"


class _Kind(NamedTuple):
    """What a kind of backbone is called.

    Attributes:
      converter: last part of the name of KerasHub's converter.
      architecture: first part of the names of Hugging Face's classes.
      defaults: what a configuration says that lacks the keys.
      classifier: tensors of PyTorch by the attribute of a text classifier that holds their layer.
    """

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
_KINDS = {
    "bert": _Kind("bert", "Bert", _COMMON, {"output_dense": "classifier"}),
    "distilbert": _Kind(
        "distilbert",
        "DistilBert",
        _DISTILBERT,
        {"pooled_dense": "pre_classifier", "output_dense": "classifier"},
    ),
    "roberta": _Kind(
        "roberta",
        "Roberta",
        {**_COMMON, "vocab_size": 50265},
        {"pooled_dense": "classifier.dense", "output_dense": "classifier.out_proj"},
    ),
}
_SIZE_KEYS = {
    "bert": {
        "layer_count": "num_hidden_layers",
        "head_count": "num_attention_heads",
        "width": "hidden_size",
        "neuron_count": "intermediate_size",
    },
    "distilbert": {
        "layer_count": "n_layers",
        "head_count": "n_heads",
        "width": "dim",
        "neuron_count": "hidden_dim",
    },
}
_SIZE_KEYS["roberta"] = _SIZE_KEYS["bert"]
_SOURCE = "_movement_source"
_QUESTIONS, _TOKENS = "qa_outputs", "classifier"
_SEGMENTS = "roberta.embeddings.token_type_embeddings.weight"
_POSITIONS = "roberta.embeddings.position_embeddings.weight"
_FIRST_POSITION = 2  # RoBERTa's positions begin there, and KerasHub has none of those before


def check_model_class(model_class: Any) -> None:
    """Raises TypeError if a class is not a backbone or text classifier of KerasHub."""
    is_classifier = hasattr(model_class, "backbone_cls") and "TextClassifier" in {
        base.__name__ for base in model_class.__mro__
    }
    if not (is_classifier or keras_hub.is_backbone_class(model_class)):
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
    kind = _kind_of(config)
    config = {**kind.defaults, **config}
    converter = importlib.import_module(_CONVERTERS + kind.converter)
    is_classifier = not keras_hub.is_backbone_class(model_class)
    backbone_class = model_class.backbone_cls if is_classifier else model_class
    if not issubclass(backbone_class, converter.backbone_cls):
        raise ValueError(
            f"The checkpoint is a {config['model_type']}, which {model_class.__name__} is not. "
            f"Pass {converter.backbone_cls.__name__}, or its text classifier."
        )
    activation = str(config.get("hidden_act", config.get("activation")))
    if activation not in keras_hub.ACTIVATIONS:
        raise ValueError(
            f"The activation of blocks must be one of {', '.join(keras_hub.ACTIVATIONS)}, got "
            f"{activation!r}."
        )
    heads, neurons = _size(config, "head_count"), _size(config, "neuron_count")
    is_whole = all(len(size.heads) == heads and size.neurons == neurons for size in sizes)
    backbone = _backbone(backbone_class, converter, config, neurons if is_whole else 1)
    _check_epsilon(backbone, config)
    set_activation(backbone, activation)
    vars(backbone)[_SOURCE] = config.get("_name_or_path", "")
    if not is_whole:
        _resize(backbone, sizes, neurons)
    return _with_head(backbone, config, names, model_class if is_classifier else None)


def _kind_of(config: Mapping[str, Any]) -> _Kind:
    if config["model_type"] not in _KINDS:
        raise ValueError(
            f"A checkpoint for KerasHub must be one of {', '.join(_KINDS)}, got "
            f"{config['model_type']!r}. Load it into Hugging Face's TF classes."
        )
    return _KINDS[config["model_type"]]


def _size(config: Mapping[str, Any], which: str) -> int:
    return config[_SIZE_KEYS[config["model_type"]][which]]


def _backbone(backbone_class: Any, converter: Any, config: Mapping[str, Any], neurons: int) -> Any:
    arguments = converter.convert_backbone_config(config)
    arguments["intermediate_dim"] = neurons
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
    units, weights = [KeptUnits(group) for group in groups], Matrices(groups, is_blank=True)
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
    heads = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    labels = len(config.get("id2label") or range(config.get("num_labels", 2)))
    kind = _kind_of(config)
    if task is not None:
        if not heads.issuperset(kind.classifier.values()):
            raise ValueError(
                f"{task.__name__} classifies texts, and the checkpoint has no {_and(kind)} for "
                f"that. Pass {type(backbone).__bases__[1].__name__}, or no model_class."
            )
        return task(backbone, num_classes=labels)
    if _QUESTIONS in heads:
        return _with_dense(backbone, _QUESTIONS, 2)
    if not any(name.split(".")[0] in ("classifier", "pre_classifier") for name in heads):
        return backbone
    is_of_texts = len(kind.classifier) > 1 and heads.issuperset(kind.classifier.values())
    architecture = next(iter(config.get("architectures") or ()), "")
    if is_of_texts or "ForSequenceClassification" in architecture:
        raise ValueError(
            f"The checkpoint classifies texts. Pass keras_hub.models.{kind.architecture}"
            "TextClassifier as model_class."
        )
    return _with_dense(backbone, _TOKENS, labels, config.get("classifier_dropout"))


def _and(kind: _Kind) -> str:
    return " and ".join(kind.classifier.values())


def _with_dense(backbone: Any, name: str, units: int, dropout: float | None = None) -> keras.Model:
    """A model of a backbone and a dense layer over each token."""
    inputs = {
        key: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=key)
        for key, tensor in backbone.input.items()
    }
    features = backbone(inputs)
    tokens = features
    if isinstance(features, dict):
        tokens = features["sequence_output"]
        backbone.pooled_dense.trainable = False  # nothing reads it
    if name == _TOKENS:
        rate = backbone.dropout if dropout is None else dropout
        tokens = keras.layers.Dropout(rate, name="classifier_dropout")(tokens)
    logits = keras.layers.Dense(units, name=name)(tokens)
    if name == _QUESTIONS:
        outputs = {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        return keras.Model(inputs, outputs)
    return keras.Model(inputs, logits)


# ---- configurations


def describe(model: keras.Model) -> tuple[dict[str, Any], list[EncoderSizes]]:
    """The configuration of a model in full size, and what is left of each encoder layer.

    Raises:
      ValueError: PyTorch has no class for such a model.
    """
    check_stripped(model)
    backbone = backbone_of(model)
    model_type = _model_type(backbone)
    blocks = backbone.transformer_layers
    activations = {keras_hub.first_dense_layer(block).activation for block in blocks}
    activation = keras_hub.activation_name(activations)
    common = {"model_type": model_type, "vocab_size": backbone.vocabulary_size}
    sizes = {
        "layer_count": backbone.num_layers,
        "head_count": backbone.num_heads,
        "width": backbone.hidden_dim,
        "neuron_count": backbone.intermediate_dim,
    }
    keys = _SIZE_KEYS[model_type]
    config = {**common, **{keys[name]: value for name, value in sizes.items()}}
    if model_type == "distilbert":
        rest = {"activation": activation, "dropout": backbone.dropout}
    else:
        rest = {
            "attention_probs_dropout_prob": backbone.dropout,
            "hidden_act": activation,
            "hidden_dropout_prob": backbone.dropout,
            "layer_norm_eps": blocks[0].layer_norm_epsilon,
            "type_vocab_size": getattr(backbone, "num_segments", 1),
        }
    first = _FIRST_POSITION if model_type == "roberta" else 0
    rest["max_position_embeddings"] = backbone.max_sequence_length + first
    if model_type == "roberta":
        rest |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return {**config, **rest, **_head_config(model, backbone, model_type)}, _sizes(blocks)


def _sizes(blocks: Sequence[Any]) -> list[EncoderSizes]:
    found = []
    for block in blocks:
        attention = keras_hub.attention_of(block)
        heads = kept_heads(attention) or range(group_count(attention))
        found.append(EncoderSizes(tuple(heads), keras_hub.first_dense_layer(block).units))
    return found


def _head_config(model: keras.Model, backbone: Any, model_type: str) -> dict[str, Any]:
    layers = _head_layers(model, backbone, model_type)
    if not layers:
        task = "Model"
    elif keras_hub.is_task(type(model)):
        task = "ForSequenceClassification"
    else:
        task = "ForQuestionAnswering" if layers[-1][1] == _QUESTIONS else "ForTokenClassification"
    config: dict[str, Any] = {"architectures": [_KINDS[model_type].architecture + task]}
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


def added_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights that PyTorch's class has and the model has not, which are zeros."""
    backbone = backbone_of(model)
    is_roberta = _model_type(backbone) == "roberta"
    return {_SEGMENTS: np.zeros([1, backbone.hidden_dim], np.float32)} if is_roberta else {}


# ---- weights


def adapted(tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """The tensors of a checkpoint, with RoBERTa's one segment added to its positions.

    Raises:
      ValueError: there are several segments, which KerasHub's RoBERTa does not have.
    """
    segments = tensors.get(_SEGMENTS)
    if segments is None:
        return tensors
    if segments.shape[0] != 1:
        raise ValueError(
            f"KerasHub's RoBERTa has no segments, and the checkpoint has {segments.shape[0]}. Load "
            "it into Hugging Face's TF classes."
        )
    positions = tensors[_POSITIONS]
    both = StoredTensor(
        positions.shape, positions.dtype, lambda: positions.array() + segments.array()
    )
    rest = {name: tensor for name, tensor in tensors.items() if name != _SEGMENTS}
    return {**rest, _POSITIONS: both}


class _Recorder:
    """Stands in for the reader of a converter, and takes down where it puts what."""

    def __init__(self) -> None:
        self.names: dict[int, tuple[Any, str]] = {}

    def get_tensor(self, key: str) -> Any:
        raise KeyError(key)  # converters then take the names of today's classes

    def port_weight(self, keras_variable: Any, hf_weight_key: str, hook_fn: Any = None) -> None:
        self.names[id(keras_variable)] = keras_variable, hf_weight_key


def ported_weights(model: keras.Model) -> list[PortedWeight]:
    """The weights of a model, and the tensors of PyTorch that they stand for.

    Raises:
      ValueError: there is a layer that PyTorch's classes do not have.
    """
    backbone = backbone_of(model)
    model_type = _model_type(backbone)
    recorder = _Recorder()
    converter = importlib.import_module(_CONVERTERS + _KINDS[model_type].converter)
    converter.convert_weights(backbone, recorder, {})
    prefix = f"{model_type}."
    names = {
        key: name if name.startswith(prefix) else prefix + name
        for key, (_, name) in recorder.names.items()
    }
    for layer, name in _head_layers(model, backbone, model_type):
        names |= {id(layer.kernel): f"{name}.weight", id(layer.bias): f"{name}.bias"}
    dense = {
        id(variable): layer
        for layer in dense_layers(compat.all_layers(model))
        for variable in (layer.kernel, layer.bias)
        if variable is not None
    }
    unknown = [weight.path for weight in model.weights if id(weight) not in names]
    if unknown:
        raise ValueError(f"{model.name!r} has weights that PyTorch's class has not: {unknown}.")
    return [_ported(weight, names[id(weight)], dense.get(id(weight))) for weight in model.weights]


def _ported(weight: Any, name: str, layer: Any) -> PortedWeight:
    variable, shape = compat.tensorflow_variable(weight), tuple(weight.shape)
    if layer is None:
        if name == _POSITIONS:
            padded = (shape[0] + _FIRST_POSITION, shape[1])
            return PortedWeight(variable, name, padded, _without_first, _with_first)
        return PortedWeight(variable, name, shape, np.asarray, np.asarray)
    if weight is layer.bias:
        size = int(np.prod(shape))
        return PortedWeight(variable, name, (size,), lambda x: x.reshape(shape), np.ravel)
    layout = layout_of(layer)
    rows, columns = layout.shape(shape)

    def to_keras(matrix: np.ndarray) -> np.ndarray:
        in_order = matrix.T.reshape([shape[axis] for axis in layout.axes])
        return in_order.transpose(np.argsort(layout.axes))

    def to_pytorch(kernel: np.ndarray) -> np.ndarray:
        return kernel.transpose(layout.axes).reshape(rows, columns).T

    return PortedWeight(variable, name, (columns, rows), to_keras, to_pytorch)


def _without_first(table: np.ndarray) -> np.ndarray:
    return table[_FIRST_POSITION:]


def _with_first(table: np.ndarray) -> np.ndarray:
    return np.pad(table, [(_FIRST_POSITION, 0), (0, 0)])


def _model_type(backbone: Any) -> str:
    """The `model_type` that Hugging Face has for a backbone."""
    for model_type, kind in _KINDS.items():
        converter = importlib.import_module(_CONVERTERS + kind.converter)
        if isinstance(backbone, converter.backbone_cls):
            return model_type
    raise ValueError(
        f"{type(backbone).__name__} must be a backbone of {', '.join(_KINDS)}: others have no "
        "counterpart here."
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


def _head_layers(model: keras.Model, backbone: Any, model_type: str) -> list[tuple[Any, str]]:
    """The dense layers of the head, with their names in PyTorch."""
    if model is backbone:
        return []
    if keras_hub.is_task(type(model)):
        classifier = _KINDS[model_type].classifier
        return [(getattr(model, attribute), name) for attribute, name in classifier.items()]
    inside = {id(layer) for layer in compat.all_layers(backbone)}
    dense = [x for x in dense_layers(compat.all_layers(model)) if id(x) not in inside]
    if [layer.name for layer in dense] not in ([_QUESTIONS], [_TOKENS]):
        raise ValueError(
            f"{model.name!r} must have one dense layer after its backbone, {_QUESTIONS!r} or "
            f"{_TOKENS!r}, and has {[layer.name for layer in dense]}."
        )
    return [(dense[0], dense[0].name)]


def unread_weights(model: keras.Model) -> set[str]:
    """Names of the weights of a model that its outputs do not depend on: those of a pooler."""
    backbone = backbone_of(model)
    if model is backbone or keras_hub.is_task(type(model)):
        return set()
    prefix = _model_type(backbone)
    return {f"{prefix}.pooler.dense.{part}" for part in ("weight", "bias")}


# ---- pruned models


def kernel_paths(model: keras.Model) -> dict[int, str]:
    """The paths of the dense layers of a model, by the ids of their kernels."""
    return {
        id(compat.tensorflow_variable(layer.kernel)): path
        for path, layer in walk(model).items()
        if isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))
    }


def masked_kernels(model: keras.Model) -> dict[str, MaskedKernel]:
    """The masked kernel of each pruned layer of a model."""
    return {path: found[0] for path, found in kernels_by_path(pruned_layers(model)).items()}


def write_tokenizer(model: keras.Model, folder: pathlib.Path) -> bool:
    """Writes the tokenizer of a task's preprocessor as Hugging Face has it.

    Returns:
      True if there is one.
    """
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    if tokenizer is None:
        return False
    tokenizer.save_assets(str(folder))
    for name in ("vocabulary.txt", "vocabulary.json"):
        if (folder / name).is_file():
            (folder / name).rename(folder / name.replace("vocabulary", "vocab"))
    merges = folder / "merges.txt"
    if merges.is_file():  # Hugging Face does not read its first line
        text = merges.read_text(encoding="utf-8")
        merges.write_text(f"#version: 0.2\n{text}", encoding="utf-8")
    kind = _KINDS[_model_type(backbone_of(model))].architecture
    settings = {"tokenizer_class": f"{kind}Tokenizer"}
    if hasattr(tokenizer, "lowercase"):
        settings["do_lower_case"] = tokenizer.lowercase
    text = json.dumps(settings, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    return True


def source_of(model: keras.Model) -> str:
    """The folder or name that a model was loaded from; empty if it was not."""
    return str(vars(backbone_of(model)).get(_SOURCE, ""))
