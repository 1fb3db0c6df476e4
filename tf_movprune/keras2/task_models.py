"""Hugging Face's TF classes for tasks: their heads, inputs, losses and files."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import tensorflow as tf

from tf_movprune.core import dropout
from tf_movprune.core.remaining_units import NamedLayers
from tf_movprune.core.versions import check_versions
from tf_movprune.keras2 import compat, hugging_face, layer_tree
from tf_movprune.keras2.compact import load_compacted
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.tokenizers import Tokenizer

callbacks = keras.callbacks
_HEADS = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "questions": "ForQuestionAnswering",
}


def load(
    source: str | os.PathLike[str], kind: str, outputs: int, load_pytorch: Callable[..., Any]
) -> tuple[keras.Model, bool]:
    """A model with a head for a task, and whether that head is new.

    The head that is there is kept if it is one of that kind and size. All other weights must be
    those of the source; see `hugging_face.load_pretrained`.

    Args:
      source: folder that `save` or `save_pretrained` wrote, or a name on the hub.
      kind: "classification", "regression" or "questions".
      outputs: number of classes; 1 for regression.
      load_pytorch: not needed, as the TF classes read PyTorch's weights themselves.

    Raises:
      ValueError: transformers can load nothing from there, or not all of the encoder.
    """
    transformers = _transformers()
    head = _HEADS[kind]
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        has_head = any(name.endswith(head) for name in config.architectures or ())
        is_same = has_head and (kind == "questions" or config.num_labels == outputs)
        with compat.checkpointed_dropout():
            if hugging_face.is_compacted(config):
                if not is_same:
                    raise ValueError(
                        "It is a compacted model with another head, which stays as it is. Start "
                        "from the model that it was pruned from."
                    )
                return load_compacted(source), False
            sizes = {} if kind == "questions" else {"num_labels": outputs}
            cls = getattr(transformers, f"TFAutoModel{head}")
            model = hugging_face.load_pretrained(cls, source, with_new_head=not is_same, **sizes)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"transformers cannot load {str(source)!r} as a TF model {head}. Pass a folder or a "
            f"name on the hub, such as 'bert-base-uncased'. {error}"
        ) from error
    return model, not is_same


def load_checkpoint(folder: pathlib.Path, load_pytorch: Callable[..., Any]) -> keras.Model:
    """A model of a checkpoint of PyTorch."""
    return load_pytorch(folder)


def load_saved(source: str | os.PathLike[str], load_pytorch: Callable[..., Any]) -> keras.Model:
    """A model with the head that it was saved with; see `load`."""
    transformers = _transformers()
    config = transformers.AutoConfig.from_pretrained(source)
    if hugging_face.is_compacted(config):
        return load_compacted(source)
    cls = hugging_face.tf_class(config.to_dict(), ())
    return hugging_face.load_pretrained(cls, source, with_new_head=False)


def tokenizer_of(source: str | os.PathLike[str], model: keras.Model) -> Tokenizer:
    """The tokenizer that belongs to a model.

    Args:
      source: where the model was loaded from.
      model: the model.
    """
    tokenizer = _transformers().AutoTokenizer.from_pretrained(source)
    return Tokenizer(tokenizer, hugging_face.positions(model))


def label_names(model: keras.Model) -> list[str]:
    """The names of a classifier's labels; none if they were never named."""
    names = [str(name) for _, name in sorted(model.config.id2label.items())]
    return [] if all(name.startswith("LABEL_") for name in names) else names


def masked_layers(model: keras.Model) -> NamedLayers:
    """The pruned layers of a model by path, with their masked kernels."""
    return layer_tree.named_kernels(layer_tree.built_layers(model))


def freeze_embeddings(model: keras.Model) -> None:
    """Makes the embeddings of a model untrainable, as in the paper."""
    embeddings = getattr(getattr(model, model.base_model_prefix), "embeddings", None)
    if embeddings is None:
        raise ValueError(
            f"{type(model).__name__} has no embeddings that are known. Pass "
            "freeze_embeddings=False."
        )
    embeddings.trainable = False


def set_dropout(model: keras.Model, rate: float) -> None:
    """Sets the rate of all layers that drop out; see `tf_movprune.core.dropout`."""
    layers = (x for x in model.submodules if isinstance(x, keras.layers.Layer))
    dropout.set_dropout(model.name, layers, rate)


def inputs(model: keras.Model, batch: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The model's inputs for a batch with int32 `ids`, `mask` and `segments` [batch, length]."""
    names = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "segments"}
    takes_segments = getattr(model.config, "type_vocab_size", 0) > 1
    wanted = list(names) if takes_segments else list(names)[:2]
    return {name: batch[names[name]] for name in wanted}


def labels(kind: str, targets: Any) -> Any:
    """The labels for `fit` of the targets of a batch."""
    if kind == "questions":
        return {f"{end}_positions": targets[end] for end in ("start", "end")}
    return targets


def logits(model: keras.Model, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Float32 logits in evaluation: of classes, or of the start and end of an answer."""
    outputs = model(dict(inputs), training=False)
    return {name: tf.cast(x, tf.float32) for name, x in outputs.items() if "logits" in name}


def compile_for(model: keras.Model, kind: str, optimizer: Any, jit_compile: bool) -> None:
    """Compiles a model, or a Distiller, with the loss of a kind of task."""
    loss: dict[str, Any] = {}
    if kind == "classification":
        loss = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    if kind == "regression":
        loss = {"loss": keras.losses.MeanSquaredError()}
    # For questions the classes, and the Distiller, have a loss of their own: the mean of two.
    model.compile(optimizer, jit_compile=jit_compile, **loss)


def state(model: keras.Model, optimizer: Any) -> list[tf.Variable]:
    """All variables of a model and its optimizer, with the states of dropout."""
    optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    variables = variables() if callable(variables) else variables
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    mine = [v for v in compat.all_variables(model) if id(v) not in metrics]
    found = [*mine, *compat.dropout_states(model), *variables]
    found += compat.loss_scale_variables(optimizer)
    return list({id(v): v for v in found}.values())


def trainable_weights(model: keras.Model) -> dict[str, list[tf.Variable]]:
    """The trainable weights of a model, by the path of their layer."""
    return layer_tree.trainable_weights(model)


def save(
    model: keras.Model, tokenizer: Tokenizer | None, folder: str, label_names: Sequence[str] = ()
) -> None:
    """Writes a model with its tokenizer. `load` and `tokenizer_of` read them."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    if label_names:
        model.config.id2label = dict(enumerate(label_names))
        model.config.label2id = {name: i for i, name in enumerate(label_names)}
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save(folder)


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """A scope in which layers are made with a precision policy, such as "mixed_bfloat16"."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def seed(number: int) -> None:
    """Forgets the models before, and seeds whatever is random."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(number)


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "Tasks with Hugging Face's TF classes need transformers from 4.46 to 4.54. Install it "
            'with `pip install "tf_movprune[tasks,transformers]"`, or pass '
            "library='keras_hub'."
        ) from error
    check_versions(transformers)
    transformers.logging.set_verbosity_error()
    return transformers
