"""The weights of KerasHub's models, and the tensors of PyTorch checkpoints.

Their names are those of KerasHub's own converters of Hugging Face's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_movprune.core.encoder_families import family_of, todays_name
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.matrix_layout import layout_of
from tf_movprune.core.ported_weight import PortedWeight
from tf_movprune.core.stored_tensor import StoredTensor
from tf_movprune.core.wording import listed
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.layer_tree import kernels_by_path, pruned_layers, walk
from tf_movprune.keras3.pytorch_kinds import (
    KINDS,
    backbone_of,
    converter_of,
    head_layers,
    model_type_of,
)
from tf_movprune.keras3.resizing import dense_layers

_FIRST_POSITION = family_of("roberta").first_position  # KerasHub has none of those before
_SEGMENTS = "roberta.embeddings.token_type_embeddings.weight"
_POSITIONS = "roberta.embeddings.position_embeddings.weight"


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


def added_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights that PyTorch's class has and the model has not, which are zeros."""
    backbone = backbone_of(model)
    is_roberta = model_type_of(backbone) == "roberta"
    return {_SEGMENTS: np.zeros([1, backbone.hidden_dim], np.float32)} if is_roberta else {}


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
    model_type = model_type_of(backbone)
    recorder = _Recorder()
    converter_of(KINDS[model_type]).convert_weights(backbone, recorder, {})
    prefix = f"{model_type}."
    names = {
        key: todays_name(name if name.startswith(prefix) else prefix + name)
        for key, (_, name) in recorder.names.items()
    }
    for layer, name in head_layers(model, backbone, model_type):
        names |= {id(layer.kernel): f"{name}.weight", id(layer.bias): f"{name}.bias"}
    dense = {
        id(variable): layer
        for layer in dense_layers(compat.all_layers(model))
        for variable in (layer.kernel, layer.bias)
        if variable is not None
    }
    unknown = [weight.path for weight in model.weights if id(weight) not in names]
    if unknown:
        raise ValueError(
            f"{model.name!r} has weights that PyTorch's class does not have: {listed(unknown)}. "
            "Save a model of the backbone and its head alone."
        )
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

    return PortedWeight(
        variable,
        name,
        (columns, rows),
        lambda matrix: layout.kernel_of(matrix.T, shape),
        lambda kernel: layout.matrix_of(kernel).T,
    )


def _without_first(table: np.ndarray) -> np.ndarray:
    return table[_FIRST_POSITION:]


def _with_first(table: np.ndarray) -> np.ndarray:
    return np.pad(table, [(_FIRST_POSITION, 0), (0, 0)])


def unread_weights(model: keras.Model) -> set[str]:
    """Names of the weights of a model that its outputs do not depend on: those of a pooler."""
    backbone = backbone_of(model)
    if model is backbone or keras_hub.is_text_classifier(type(model)):
        return set()
    return set(family_of(model_type_of(backbone)).pooler)


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
