"""Physical removal of the attention heads and neurons that pruning left empty."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tf_movprune.keras2.checks import check_stripped
from tf_movprune.keras2.compat import Layer, keras
from tf_movprune.keras2.junctions import Attention, Hidden, Junction, find, of_keras_attention
from tf_movprune.keras2.slots import build_attention
from tf_movprune.keras2.tree import forget_compilation, replace_layers, unchanged, walk

_SIZES = "intermediate_sizes"  # in a Hugging Face configuration: one to each encoder layer


def compact(model: keras.Model) -> keras.Model:
    """Removes empty heads and neurons: a smaller dense model with the same outputs.

    A neuron between two dense layers goes where nothing reads it, and where it reads nothing: then
    it is a constant, which is added to the next bias. So do attention heads. At least one head and
    one neuron of each layer stay. Zeros here and there are no reason to remove anything.

    Looked at are the encoder layers of Hugging Face's BERT, RoBERTa (also CamemBERT, XLM-RoBERTa),
    ELECTRA and DistilBERT; every Keras `MultiHeadAttention`, unless a graph asks it for its
    attention scores; and, in Sequential and Functional models, dense layers that follow each other
    with nothing between them but dropout and activations that Keras knows, and that nothing else in
    the model holds. Attention scores that code of your own asks for (`output_attentions`,
    `return_attention_scores`), and a `head_mask`, have as many heads as remain.

    Sequential and Functional models are cloned around the layers that do not change, others are
    changed in place. A Hugging Face model gets a copy of its configuration that says what was
    removed, as `pruned_heads` and `intermediate_sizes`; `load_compacted` loads what its
    `save_pretrained` writes.

    Args:
      model: a built model without pruning wrappers.

    Returns:
      The smaller model, of the same class and not compiled. Its outputs are equal up to rounding.

    Raises:
      TypeError: not a Keras model.
      ValueError: the model is still pruned, or not built.

    Warns where there is nothing to remove.
    """
    check_stripped(model)
    if not (model.built and model.weights):
        raise ValueError(
            f"{model.name!r} has no weights. Call it once on example inputs before compacting it."
        )
    units, weights = _folded(model)
    if all(unit.keeps_all for unit in units):
        warnings.warn(
            f"No head and no neuron of {model.name!r} is empty, and nothing was removed. Single "
            "zeros, and blocks of them, leave all heads and neurons something to do.",
            stacklevel=2,
        )
        return model
    smaller = _rebuilt(model, units, weights)
    _record(smaller, units)
    forget_compilation(smaller)
    return smaller


@contextlib.contextmanager
def compacted(
    model: keras.Model, rows: int = 1, min_sparsity: float = 0.0
) -> Iterator[tuple[keras.Model, dict[str, tuple[int, int]]]]:
    """What `compact` would return, for a while: what is changed in place is changed back.

    Args:
      model: built, without wrappers.
      rows: of a block. In kernels in which at least `min_sparsity` of the blocks that are left are
        zero, only whole blocks go, so that the others stay what they are.
      min_sparsity: fraction of the blocks.

    Yields:
      The smaller model, and how many `"heads"` and `"neurons"` of how many were removed.
    """
    units, weights = _folded(model, rows, min_sparsity)
    removed = {}
    for kind, cls in (("heads", Attention), ("neurons", Hidden)):
        those = [unit for unit in units if isinstance(unit.junction, cls)]
        total = sum(unit.junction.size for unit in those)
        removed[kind] = (total - sum(len(unit.kept) for unit in those), total)
    if all(unit.keeps_all for unit in units):
        yield model, removed
        return
    with unchanged(model):
        yield _rebuilt(model, units, weights), removed


def _folded(
    model: keras.Model, rows: int = 1, min_sparsity: float = 0.0
) -> tuple[list[_Units], _Weights]:
    """The heads and neurons of a model that do something, and their matrices."""
    units = [_Units(junction, rows, min_sparsity) for junction in find(model)]
    weights = _Weights(units)
    while any([unit.fold_empty(weights) for unit in units]):
        pass  # what went may have been all that read something else
    return units, weights


def load_compacted(
    path: str | os.PathLike[str], model_class: type[keras.Model] | None = None
) -> keras.Model:
    """Loads a Hugging Face TF model that was compacted and then saved.

    Args:
      path: the folder that `save_pretrained` wrote.
      model_class: class of the model, where it is not one of `transformers`.

    Returns:
      The model, as it was saved.

    Raises:
      ValueError: no compacted TF model is there, its class is not known, or its weights are not
        those that its configuration describes.
    """
    import transformers
    from transformers import modeling_tf_utils

    folder = pathlib.Path(path)
    files = [folder / name for name in ("tf_model.h5", "model.safetensors")]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json, or neither tf_model.h5 nor model.safetensors. Pass the "
            "folder that save_pretrained of a compacted TF model wrote, in one file: with a larger "
            "max_shard_size where it was split."
        )
    config = transformers.AutoConfig.from_pretrained(folder)
    if not hasattr(config, _SIZES) or not config.architectures:
        raise ValueError(
            f"The configuration in {folder} has no {_SIZES}, or no architectures: it is not that "
            "of a compacted model. Load it with from_pretrained."
        )
    name = "TF" + config.architectures[0].removeprefix("TF")
    model_class = model_class or getattr(transformers, name, None)
    if model_class is None:
        raise ValueError(f"transformers has no {name}. Pass the class of the model as model_class.")
    model = resized(model_class(config))
    try:
        missing, unexpected, mismatched = modeling_tf_utils.load_tf_weights(
            model, str(weights), ignore_mismatched_sizes=False
        )
        empty = _without_weights(model, weights)
        missing, unexpected = set(missing) - empty, set(unexpected) - empty
        if missing or unexpected or mismatched:
            raise ValueError(f"missing {missing}, unexpected {unexpected}, {mismatched}")
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The weights in {weights} are not those of the configuration beside it: {error}"
        ) from error
    return model


def _without_weights(model: keras.Model, path: pathlib.Path) -> set[str]:
    """Names of layers without weights, to which Keras gives other numbers in each process."""
    names = {layer.name for layer in model.layers if not layer.weights}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            names |= {name for name in file if not len(file[name].attrs.get("weight_names", ()))}
    return names


def resized(model: keras.Model) -> keras.Model:
    """Gives a Hugging Face model the heads and neurons of its configuration, with any weights."""
    if not model.built:
        model(model.dummy_inputs)
    if not hasattr(model.config, _SIZES):
        return model
    units = [_Units(junction) for junction in find(model)]
    weights = _Weights(units)
    sizes = getattr(model.config, _SIZES)
    for layer, (_, heads, neurons) in enumerate(_encoder_layers(units)):
        heads.keep(_remaining_heads(model.config, layer), weights)
        neurons.keep(np.arange(sizes[layer]), weights)
    return _rebuilt(model, units, weights)


# ---- what a configuration says


def _encoder_layers(units: Sequence[_Units]) -> Iterator[tuple[Any, _Units, _Units]]:
    """The configuration, the heads and the neurons of each encoder layer of Hugging Face."""
    for heads, neurons in itertools.pairwise(units):
        if isinstance(heads.junction, Attention) and heads.junction.attributes:
            yield heads.junction.owner.config, heads, neurons


def _remaining_heads(config: Any, layer: int) -> np.ndarray:
    return np.setdiff1d(np.arange(config.num_attention_heads), config.pruned_heads.get(layer, []))


def _record(model: keras.Model, units: Sequence[_Units]) -> None:
    """Says in the configurations of encoders what was removed from their layers."""
    encoders: dict[int, tuple[Any, list[tuple[_Units, _Units]]]] = {}
    for config, heads, neurons in _encoder_layers(units):
        encoders.setdefault(id(config), (config, []))[1].append((heads, neurons))
    for config, members in encoders.values():
        described = copy.deepcopy(config)  # other models may have been made from the same one
        every = np.arange(config.num_attention_heads)
        removed = {}
        for i, (heads, _) in enumerate(members):
            stay = _remaining_heads(config, i)[heads.kept]
            removed[i] = np.setdiff1d(every, stay).tolist()
        described.pruned_heads = {i: heads for i, heads in removed.items() if heads}
        setattr(described, _SIZES, [len(neurons.kept) for _, neurons in members])
        _replace_config(model, config, described)


def _replace_config(model: keras.Model, old: Any, new: Any) -> None:
    for layer in (model, *(layer for _, layer in walk(model))):
        for owner in (layer, getattr(layer, "config", None)):  # configurations may hold others
            for name, value in list(getattr(owner, "__dict__", {}).items()):
                if value is old:
                    setattr(owner, name, new)


# ---- heads and neurons as columns and rows of matrices


class _Matrix:
    """The kernel of a layer as [in, out], and its bias or None: NumPy arrays."""

    def __init__(self, layer: Layer, inputs: int, outputs: int):
        self.kernel = np.array(layer.kernel).reshape(inputs, outputs)
        self.bias = None if layer.bias is None else np.array(layer.bias).reshape(-1)

    def write(self, layer: Layer) -> None:
        layer.kernel.assign(self.kernel.reshape(layer.kernel.shape))
        if self.bias is not None:
            layer.bias.assign(self.bias.reshape(layer.bias.shape))


class _Weights(dict[int, _Matrix]):
    """The matrices of layers, by the ids of these."""

    def __init__(self, units: Sequence[_Units]):
        super().__init__()
        for unit in units:
            for layer in unit.sources:
                width = int(np.prod(layer.kernel.shape[-unit.axes :]))
                self[id(layer)] = _Matrix(layer, -1, width)
            height = int(np.prod(unit.reader.kernel.shape[: unit.axes]))
            self[id(unit.reader)] = _Matrix(unit.reader, height, -1)


class _Units:
    """The heads or neurons of a junction, and which of them are kept."""

    def __init__(self, junction: Junction, rows: int = 1, min_sparsity: float = 0.0):
        self.junction = junction
        self._rows, self._min_sparsity = rows, min_sparsity  # of blocks that are left whole
        self.kept = np.arange(junction.size)
        self.sources, self.reader = junction.sources, junction.reader
        self.value = self.sources[-1]  # the outputs of which are passed on
        is_einsum = isinstance(self.reader, keras.layers.EinsumDense)
        self.axes = 2 if is_einsum else 1  # [heads, size of a head], or both in one

    @property
    def keeps_all(self) -> bool:
        return len(self.kept) == self.junction.size

    def keep(self, stay: np.ndarray, weights: _Weights) -> None:
        """Cuts the matrices down to the units at some of the places in `kept`."""
        for layer in self.sources:
            matrix = weights[id(layer)]
            matrix.kernel = self._blocks(matrix.kernel)[:, stay].reshape(len(matrix.kernel), -1)
            if matrix.bias is not None:
                matrix.bias = matrix.bias.reshape(len(self.kept), -1)[stay].reshape(-1)
        matrix = weights[id(self.reader)]
        columns = matrix.kernel.shape[1]
        matrix.kernel = self._blocks(matrix.kernel.T)[:, stay].reshape(columns, -1).T
        self.kept = self.kept[stay]

    def fold_empty(self, weights: _Weights) -> bool:
        """Removes the units that do nothing; the constant ones go into the reader's bias.

        Returns:
          Whether there were any.
        """
        reads = self._blocks(weights[id(self.value)].kernel).any(axis=(0, 2))
        rows = self._blocks(weights[id(self.reader)].kernel.T)
        is_read = rows.any(axis=(0, 2))
        bias = weights[id(self.reader)].bias
        constants = np.einsum("ous,us->uo", rows.astype(np.float64), self._constants(weights))
        can_fold = (bias is not None) | ~constants.any(axis=1)
        stays = is_read & (reads | ~can_fold)
        if not stays.any():
            stays[0] = True
        stays = self._in_blocks(stays, weights)
        if stays.all():
            return False
        if bias is not None:
            bias += constants[is_read & ~stays].sum(axis=0).astype(bias.dtype)
        self.keep(np.flatnonzero(stays), weights)
        return True

    def _in_blocks(self, stays: np.ndarray, weights: _Weights) -> np.ndarray:
        """Lets more units stay, so that whole blocks of rows go; where there are enough blocks."""
        kernel = weights[id(self.reader)].kernel
        if self._rows == 1 or len(kernel) % self._rows:
            return stays
        size = len(kernel) // len(stays)  # rows of a unit
        group = np.arange(len(stays)) // (self._rows // math.gcd(self._rows, size))
        in_blocks = np.isin(group, group[stays])
        left = kernel[np.repeat(in_blocks, size)]
        blocks = left.reshape(-1, self._rows, kernel.shape[1]).any(axis=1)
        return in_blocks if 1 - blocks.mean() >= self._min_sparsity else stays

    def _constants(self, weights: _Weights) -> np.ndarray:
        """What each unit is where it reads nothing: float64 [units, size]."""
        matrix = weights[id(self.value)]
        bias = matrix.bias
        if bias is None:
            bias = np.zeros(matrix.kernel.shape[1], matrix.kernel.dtype)
        if isinstance(self.junction, Hidden):
            values = tf.constant(bias)[None]
            for activation in self.junction.activations:
                values = activation(values)
            bias = values[0].numpy()
        # The weights of each head's attention sum to one: its output is the bias of its values.
        return bias.astype(np.float64).reshape(len(self.kept), -1)

    def _blocks(self, matrix: np.ndarray) -> np.ndarray:
        """[rows, units, size of a unit]."""
        return matrix.reshape(len(matrix), len(self.kept), -1)


# ---- smaller layers


def _rebuilt(model: keras.Model, units: Sequence[_Units], weights: _Weights) -> keras.Model:
    """The model with smaller layers; what it held is left as it was, but no longer held."""
    replacements: dict[int, Layer] = {}
    layers = {id(layer): layer for unit in units for layer in (*unit.sources, unit.reader)}
    for key, layer in layers.items():
        shape = tuple(layer.kernel.shape)
        if isinstance(layer, keras.layers.Dense) and weights[key].kernel.shape != shape:
            replacements[key] = _smaller_dense(layer, weights[key])
    for unit in units:
        attention = unit.junction
        if isinstance(attention, Hidden) or unit.keeps_all:
            continue
        owner = attention.owner
        if attention.attributes is None:
            replacements[id(owner)] = _smaller_attention(attention, len(unit.kept), weights)
        else:
            for name, per_head in attention.attributes.items():
                setattr(owner, name, per_head * len(unit.kept))
    rebuilt = replace_layers(model, replacements)
    if not rebuilt.built:  # a Sequential model that was made without an Input
        rebuilt.build((None, *model._build_input_shape[1:]))
    return rebuilt


def _smaller_dense(layer: keras.layers.Dense, matrix: _Matrix) -> keras.layers.Dense:
    inputs, units = matrix.kernel.shape
    smaller = keras.layers.Dense.from_config({**layer.get_config(), "units": units})
    with _scope_of(layer.kernel, 1):
        smaller.build([None, inputs])
    matrix.write(smaller)
    return smaller


def _smaller_attention(
    attention: Attention, heads: int, weights: _Weights
) -> keras.layers.MultiHeadAttention:
    config = {**attention.owner.get_config(), "num_heads": heads}
    smaller = keras.layers.MultiHeadAttention.from_config(config)
    with _scope_of(attention.query.kernel, 3):
        build_attention(smaller)
    new = of_keras_attention(smaller)
    pairs = zip((*attention.sources, attention.reader), (*new.sources, new.reader))
    for old_dense, dense in pairs:
        weights[id(old_dense)].write(dense)
        dense.trainable = old_dense.trainable
    return smaller


def _scope_of(variable: tf.Variable, levels: int) -> contextlib.AbstractContextManager[Any]:
    """The name scope a number of levels above a variable."""
    scope = "/".join(variable.name.split("/")[:-levels])
    return tf.name_scope(scope + "/") if scope else contextlib.nullcontext()
