"""KerasHub's models for tasks: their heads, inputs, losses and files."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_movprune.core import dropout
from tf_movprune.core.json_files import read_object
from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.versions import check_versions
from tf_movprune.keras3 import compat, keras_hub, layer_tree
from tf_movprune.keras3.compact import load_compacted
from tf_movprune.keras3.compacted_layer import register_classes
from tf_movprune.keras3.pytorch_kinds import KINDS, QUESTIONS, backbone_of, kind_of, with_dense
from tf_movprune.keras3.tokenizers import Tokenizer

callbacks = keras.callbacks
_FILE = "model.keras"
"""The file of a model for questions; others are presets."""


def load(
    source: str | os.PathLike[str], kind: str, outputs: int, load_pytorch: Callable[..., Any]
) -> tuple[keras.Model, bool]:
    """A model with a head for a task, and whether that head is new.

    The head that is there is kept if it is one of that kind and size.

    Args:
      source: folder that `save` wrote, a preset, a Hugging Face folder, or a name that KerasHub
        knows.
      kind: "classification", "regression" or "questions".
      outputs: number of classes; 1 for regression.
      load_pytorch: `tf_movprune.load_pytorch`.

    Raises:
      ValueError: KerasHub can load nothing from there.
    """
    return _with_head(load_saved(source, load_pytorch), kind, outputs)


def load_checkpoint(folder: pathlib.Path, load_pytorch: Callable[..., Any]) -> Any:
    """A model of a checkpoint of PyTorch.

    Raises:
      ValueError: it is not one that KerasHub has a class for.
    """
    return load_pytorch(folder, _pytorch_class(_config(folder)))


def load_saved(source: str | os.PathLike[str], load_pytorch: Callable[..., Any]) -> Any:
    """A text classifier, a model for questions or a backbone, as it was saved; see `load`."""
    config = _config(source)
    if config.get("model_type") in KINDS:
        return load_pytorch(source, _pytorch_class(config))
    return _from_preset(pathlib.Path(source), str(source))


def _config(source: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration in a folder; empty if there is none, or if it is a name."""
    return _json(pathlib.Path(source) / "config.json")


def _json(file: pathlib.Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}


def _pytorch_class(config: Mapping[str, Any]) -> Any:
    """KerasHub's class for what a configuration of Hugging Face describes."""
    kind = kind_of(config)
    is_classifier = "ForSequenceClassification" in str(config.get("architectures"))
    name = kind.backbone.replace("Backbone", "TextClassifier" if is_classifier else "Backbone")
    return getattr(_hub().models, name)


def _from_preset(folder: pathlib.Path, source: str) -> Any:
    hub = _hub()
    if (folder / _FILE).is_file():
        return load_compacted(folder / _FILE)
    # A task without weights of its own would have those of a new head, and not tell.
    has_head = all((folder / name).is_file() for name in ("task.json", "task.weights.h5"))
    cls = hub.models.TextClassifier if has_head else hub.models.Backbone
    if register_classes([_json(folder / "task.json"), _json(folder / "config.json")]):
        return load_compacted(folder, None if has_head else cls)
    arguments = {"preprocessor": None} if has_head else {}
    try:
        return cls.from_preset(source, **arguments)
    except Exception as error:  # of the network, of kagglehub, of converters
        raise ValueError(
            f"KerasHub cannot load {source!r} as a text model. Pass a preset such as "
            f"'bert_base_en_uncased', a handle such as 'hf://bert-base-uncased', or a folder of "
            f"one. {error}"
        ) from error


def _with_head(model: Any, kind: str, outputs: int) -> tuple[keras.Model, bool]:
    backbone = model if keras_hub.is_backbone(model) else backbone_of(model)
    if kind == "questions":
        if model is not backbone and not keras_hub.is_task(type(model)):
            return model, False
        return with_dense(backbone, keras.layers.Dense(2, name=QUESTIONS)), True
    if keras_hub.is_text_classifier(type(model)) and model.num_classes == outputs:
        return model, False
    return _classifier_class(backbone)(backbone, num_classes=outputs, preprocessor=None), True


def _classifier_class(backbone: Any) -> Any:
    models = _hub().models
    for name in dir(models):
        cls = getattr(models, name)
        is_classifier = isinstance(cls, type) and keras_hub.is_text_classifier(cls)
        if is_classifier and cls.backbone_cls and isinstance(backbone, cls.backbone_cls):
            return cls
    raise ValueError(
        f"KerasHub has no text classifier for {type(backbone).__name__}. Use an encoder, such as "
        "BERT, RoBERTa, DistilBERT, ALBERT or DeBERTaV3."
    )


def tokenizer_of(source: str | os.PathLike[str], model: keras.Model) -> Tokenizer:
    """The tokenizer that belongs to a model.

    Args:
      source: where the model was loaded from.
      model: the model.
    """
    cls = _classifier_class(backbone_of(model)).preprocessor_cls
    tokenizer = keras_hub.load_tokenizer(source, cls.tokenizer_cls)
    is_converted = str(source).startswith("hf://") or "model_type" in _config(source)
    if is_converted and hasattr(tokenizer, "strip_accents"):
        # Uncased vocabularies have no accents, which KerasHub's converters do not know.
        tokenizer.strip_accents = tokenizer.strip_accents or tokenizer.lowercase
    return Tokenizer(cls(tokenizer), keras_hub.positions(model))


def label_names(model: keras.Model) -> list[str]:
    """The names of a classifier's labels; none, as KerasHub's models have none."""
    return []


def masked_layers(model: keras.Model) -> NamedLayers:
    """The pruned layers of a model by path, with their masked kernels."""
    return layer_tree.named_kernels(layer_tree.built_layers(model))


def freeze_embeddings(model: keras.Model) -> None:
    """Makes the embeddings of a model untrainable, as in the paper."""
    for layer in backbone_of(model).layers:
        if "embedding" in layer.name:
            layer.trainable = False


def set_dropout(model: keras.Model, rate: float) -> None:
    """Sets the rate of all layers that drop out; see `tf_movprune.core.dropout`."""
    dropout.set_dropout(model.name, compat.all_layers(model), rate)


def inputs(model: keras.Model, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The model's inputs for a batch with int32 `ids`, `mask` and `segments` [batch, length]."""
    names = {"token_ids": "ids", "padding_mask": "mask", "segment_ids": "segments"}
    return {name: batch[names[name]] for name in backbone_of(model).input}


def labels(kind: str, targets: Any) -> Any:
    """The labels for `fit` of the targets of a batch."""
    if kind == "questions":
        return {f"{end}_logits": targets[end] for end in ("start", "end")}
    return targets


def logits(model: keras.Model, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Float32 logits in evaluation: of classes, or of the start and end of an answer."""
    outputs = model(inputs, training=False)
    outputs = outputs if isinstance(outputs, Mapping) else {"logits": outputs}
    return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}


def compile_for(model: keras.Model, kind: str, optimizer: Any, jit_compile: bool) -> None:
    """Compiles a model, or a Distiller, with the loss of a kind of task."""
    loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    weights = None
    if kind == "regression":
        loss = keras.losses.MeanSquaredError()
    if kind == "questions":
        loss = {"start_logits": loss, "end_logits": loss}
        weights = {"start_logits": 0.5, "end_logits": 0.5}
    model.compile(optimizer, loss, loss_weights=weights, metrics=[], jit_compile=jit_compile)


def state(model: keras.Model, optimizer: Any) -> list[tf.Variable]:
    """All variables of a model and its optimizer, with the seeds of dropout."""
    optimizer.build(model.trainable_variables)
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    mine = [v for v in model.variables if id(v) not in metrics]
    return [v.value for v in [*mine, *optimizer.variables]]


def trainable_weights(model: keras.Model) -> dict[str, list[tf.Variable]]:
    """The trainable weights of a model, by the path of their layer."""
    return layer_tree.trainable_weights(model)


def save(
    model: keras.Model, tokenizer: Tokenizer | None, folder: str, label_names: Sequence[str] = ()
) -> None:
    """Writes a model with its tokenizer. `load` and `tokenizer_of` read them."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    # Files would hold the slots of the optimizer.
    if keras_hub.is_task(type(model)):
        model.compile()  # with KerasHub's defaults, with which tasks are loaded
        model.save_to_preset(folder)
    else:
        compat.forget_compilation(model)
        backbone_of(model).save_to_preset(folder)
        model.save(pathlib.Path(folder) / _FILE)
    if tokenizer is not None:
        tokenizer.save(folder)


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """A scope in which layers are made with a precision policy, such as "mixed_bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def seed(number: int) -> None:
    """Forgets the models before, and seeds whatever is random."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(number)


def _hub() -> Any:
    try:
        hub = importlib.import_module("keras_hub")
    except ImportError as error:
        raise ImportError(
            "Tasks with KerasHub's models need the package keras-hub. Install it with `pip "
            "install \"tf_movprune[tasks]\"`, or pass library='transformers'."
        ) from error
    check_versions(hub)
    return hub
