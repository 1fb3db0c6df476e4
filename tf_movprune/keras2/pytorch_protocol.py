"""Hugging Face's TF models, and the PyTorch checkpoints of the same models."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_movprune.core.encoder_families import family_of
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.ported_weight import EncoderSizes, PortedWeight
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.core.wording import listed
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compact import in_sizes
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.layer_tree import LayerTree, pruned_layers
from tf_movprune.keras2.saving import check_stripped


def check_model_class(model_class: Any) -> None:
    """Raises TypeError if a class is not one of Hugging Face's TF models."""
    if not hugging_face.has_configuration(model_class):
        raise TypeError(
            "model_class must be a class of Hugging Face TF models or of KerasHub, such as "
            f"transformers.TFBertForQuestionAnswering, got {model_class!r}."
        )


def model_of(
    config: Mapping[str, Any],
    sizes: Sequence[EncoderSizes],
    names: Collection[str],
    model_class: Any = None,
) -> keras.Model:
    """Makes a model of some sizes, whose weights are arbitrary.

    Args:
      config: configuration of the model in full size.
      sizes: what is left of each encoder layer.
      names: names of the weights of the checkpoint, by which its head is known if `config` does not
        name its architecture.
      model_class: the class of the model.

    Raises:
      ValueError: the class is not known.
    """
    model_class = model_class or hugging_face.tf_class(config, names)
    made = hugging_face.configuration(model_class, dict(config))
    made = hugging_face.with_tf_activation(made)
    heads = made.num_attention_heads
    neurons = max(size.neurons for size in sizes)
    if any(len(size.heads) < heads or size.neurons < neurons for size in sizes):
        layers = [(np.array(size.heads), size.neurons) for size in sizes]
        return in_sizes(model_class, hugging_face.with_sizes(made, layers), sizes)
    model = model_class(made)
    hugging_face.build(model)
    return model


def adapted(tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """The tensors of a checkpoint, as these classes have them too."""
    return tensors


def ported_weights(model: keras.Model) -> list[PortedWeight]:
    """The weights of a model, and the tensors of PyTorch that they stand for."""
    found = []
    for tf_name, variable in hugging_face.names_in(model):
        name, is_transposed = hugging_face.pytorch_name(tf_name, variable.shape)
        change = np.transpose if is_transposed else np.asarray
        shape = tuple(variable.shape)[::-1] if is_transposed else tuple(variable.shape)
        found.append(PortedWeight(variable, name, shape, change, change))
    return found


def unread_weights(model: keras.Model) -> set[str]:
    """Names of the weights of a model that its outputs do not depend on: none."""
    return set()


def added_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights that PyTorch's class has and the model has not: none."""
    return {}


def _check_plain(model: keras.Model) -> None:
    """Refuses a model with other weights than its class and configuration make."""
    config = model.config
    positions = getattr(config, "position_embedding_type", "absolute")
    is_roberta = family_of(config.model_type).first_position > 0
    is_shifted = is_roberta and config.pad_token_id != 1
    if getattr(config, "is_decoder", False) or positions != "absolute" or is_shifted:
        raise ValueError(
            f"{model.name!r} must be an encoder with absolute positions, padded with token 1 if it "
            f"is a RoBERTa; got is_decoder={getattr(config, 'is_decoder', False)}, "
            f"position_embedding_type={positions!r} and pad_token_id={config.pad_token_id}."
        )
    names = [weight.name for weight in ported_weights(model)]
    wanted = hugging_face.pytorch_names(type(model), model.config)
    missing, others = sorted(wanted - set(names)), sorted(set(names) - wanted)
    if missing or others or len(set(names)) < len(names):
        raise ValueError(
            f"{model.name!r} does not have the weights of a {type(model).__name__} that its "
            f"configuration describes, missing {listed(missing) or 'none'}, with "
            f"{listed(others) or 'none'} besides: PyTorch's class would not find them. Save a "
            "model whose layers are its class's own."
        )


def source_of(model: keras.Model) -> str:
    """The folder or name that a model was loaded from; empty if it was not."""
    return str(getattr(model.config, "_name_or_path", "") or "")


def write_tokenizer(model: keras.Model, folder: pathlib.Path) -> bool:
    """Writes the tokenizer that a model has. Returns false: none of these has any."""
    return False


def describe(model: keras.Model) -> tuple[dict[str, Any], list[EncoderSizes] | None]:
    """The configuration of a model in full size, and what is left of each encoder layer.

    The latter is None if nothing was removed.

    Raises:
      ValueError: it is not one of Hugging Face's classes, or pruned.
    """
    check_stripped(model)
    if not hugging_face.is_hugging_face(model):
        raise ValueError(
            f"{model.name!r} is a {type(model).__name__}, which PyTorch has no class for. Pass a "
            "model of Hugging Face's TF classes or of KerasHub."
        )
    _check_plain(model)
    config = json.loads(model.config.to_json_string(use_diff=False))
    removed = hugging_face.remaining_sizes(model.config)
    config["architectures"] = [type(model).__name__.removeprefix("TF")]
    if not removed:
        return config, None
    return config, [EncoderSizes(tuple(map(int, heads)), int(n)) for heads, n in removed]


def kernel_paths(model: keras.Model) -> dict[int, str]:
    """The paths of the dense layers of a model, by the ids of their kernels."""
    return {
        id(layer.kernel): path
        for path, layer in LayerTree(model).walk()
        if isinstance(layer, keras.layers.Dense)
    }


def masked_kernels(model: keras.Model) -> dict[str, MaskedKernel]:
    """The masked kernel of each pruned layer of a model."""
    return {path: wrapper.kernels[0] for path, wrapper in pruned_layers(model).items()}
