"""Knowledge of Hugging Face's TF models: their layers, names, files and configurations.

All of it is here, long as it is, so that no other module knows how they are made.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
import tensorflow as tf

from tf_movprune.core.encoder_families import task_of
from tf_movprune.core.versions import check_versions
from tf_movprune.core.wording import counted, listed
from tf_movprune.keras2.compat import Layer, keras

PACKAGE = "transformers."
"""Start of the names of the modules that define their classes."""

# The dense layers that Sanh et al. prune, in BERT and its relatives: query, key, value, attention
# output, intermediate and output of each encoder layer. Embeddings, pooler and head stay dense.
_ENCODER_LAYER = re.compile(
    r"(^|\.)(encoder|transformer)"
    r"\.(layer|layers|block|blocks|encoder_layers|albert_layer_groups)\.\d+\."
)
# Blocks of encoders and decoders are numbered, whatever the list of them is called.
_BLOCK = re.compile(r"\.\d+\.")
_NOT_KERNELS = re.compile(r"bias|embed|table|token")

# Kernels that layers other than Keras's hold themselves.
_KERNEL_NAMES = {"TFConv1D": ["weight"], "TFXLNetRelativeAttention": ["q", "k", "v", "o", "r"]}

# Encoder layers that are laid out as in BERT, or in DistilBERT. Others look alike but compute
# differently.
_LIKE_BERT = {
    f"TF{name}Layer" for name in ("Bert", "Camembert", "Electra", "Roberta", "XLMRoberta")
}
_LIKE_DISTILBERT = {"TFTransformerBlock"}

_SIZES = "intermediate_sizes"  # attribute of a configuration: one size for each encoder layer


def is_hugging_face(layer: Layer) -> bool:
    """Returns whether a layer is a Hugging Face model or the main layer of one."""
    return is_of_transformers(layer) and hasattr(layer, "config")


def is_of_transformers(obj: Any) -> bool:
    """Returns whether the class of an object is one of the package `transformers`."""
    return type(obj).__module__.startswith(PACKAGE)


def is_in_encoder_layer(path: str) -> bool:
    """Returns whether a path is that of a layer inside an encoder layer."""
    return _ENCODER_LAYER.search(path) is not None


def is_encoder_layer(path: str) -> bool:
    """Returns whether a path is that of an encoder layer itself."""
    return is_in_encoder_layer(f"{path}.") and not is_in_encoder_layer(path)


def is_in_block(path: str) -> bool:
    """Returns whether a path is that of a layer inside a block of an encoder or decoder."""
    return _BLOCK.search(path) is not None


def kernel_names(layer: Layer) -> list[str]:
    """Names of the attributes that are kernels, in layers that are not Keras's own.

    Embedding layers have their table of words in `weight`, once they are built.
    """
    if not is_of_transformers(layer):
        return []
    kind = type(layer).__name__
    if kind.endswith("Embeddings") and isinstance(getattr(layer, "weight", None), tf.Variable):
        return ["weight"]
    return _KERNEL_NAMES.get(kind, [])


def check_not_tied(model: Layer, layers: Collection[Layer]) -> None:
    """Raises ValueError if a model computes its logits with the `weights` of one of the layers.

    These are no attribute of the layer, in which a masked table could be put.
    """
    find = getattr(model, "get_output_embeddings", None)
    tied = find() if is_hugging_face(model) and find is not None else None
    if isinstance(tied, keras.layers.Embedding) and any(layer is tied for layer in layers):
        raise ValueError(
            f"The embedding {tied.name!r} of {type(model).__name__} computes its logits as well, "
            "by a way that cannot be masked: it is read from the layer's weights. Leave it dense."
        )


def is_kernel(path: str, name: str) -> bool:
    """Returns whether a weight, by its layer's path and its name, is a matrix of a block."""
    return is_in_block(f"{path}.") and _NOT_KERNELS.search(f"{path}.{name}") is None


# ---- how a model is called


def takes_its_signature(model: keras.Model) -> bool:
    """Returns whether a model is called as its class, or one that it inherits from, says."""
    module = getattr(model.call, "__module__", None) or ""
    return module.startswith(PACKAGE) and hasattr(model, "input_signature")


def input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Specs of the inputs of a model, by name."""
    return dict(model.input_signature)


def build(model: keras.Model) -> None:
    """Makes the weights of a model."""
    if not model.built:
        model(model.dummy_inputs)


def vocabulary_size(model: keras.Model) -> int | None:
    """Number of token ids; None for a model that takes none."""
    return getattr(getattr(model, "config", None), "vocab_size", None)


def positions(model: keras.Model) -> int | None:
    """The number of tokens for which a model has positions; None if there is no such limit."""
    counts = []
    for module in model.submodules:
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, tf.Variable):
            offset = getattr(module, "padding_idx", -1) + 1  # RoBERTa's positions begin there
            counts.append(table.shape[0] - offset)
    return min(counts, default=None)


# ---- how encoder layers are laid out


class EncoderLayer(NamedTuple):
    """The dense layers of an encoder layer, and what belongs to its heads and neurons.

    Attributes:
      attention: the layer that computes attention.
      projections: query, key and value, with one block of columns for each head, and output, with
        one block of rows for each head.
      heads: number of heads.
      per_head: attributes of `attention` by name, and how much each head adds to them.
      intermediate, output: the layers before and after the neurons.
      activation: function that is applied to the neurons in between.
    """

    attention: Layer
    projections: tuple[Layer, Layer, Layer, Layer]
    heads: int
    per_head: dict[str, int]
    intermediate: Layer
    output: Layer
    activation: Any


def encoder_layer(layer: Layer) -> EncoderLayer | None:
    """The parts of a built encoder layer of a known kind; None for any other layer."""
    kind = type(layer).__name__
    attention: Any = getattr(layer, "attention", None)
    if not is_of_transformers(layer):
        return None
    if kind in _LIKE_BERT and layer.bert_output.dense.built:
        inner = attention.self_attention
        found = EncoderLayer(
            inner,
            (inner.query, inner.key, inner.value, attention.dense_output.dense),
            inner.num_attention_heads,
            {"num_attention_heads": 1, "all_head_size": inner.attention_head_size},
            layer.intermediate.dense,
            layer.bert_output.dense,
            layer.intermediate.intermediate_act_fn,
        )
    elif kind in _LIKE_DISTILBERT and layer.ffn.lin2.built:
        found = EncoderLayer(
            attention,
            (attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin),
            attention.n_heads,
            {"n_heads": 1, "dim": attention.dim // attention.n_heads},
            layer.ffn.lin1,
            layer.ffn.lin2,
            layer.ffn.activation,
        )
    else:
        return None
    is_gated = found.output.kernel.shape[0] != found.intermediate.units  # neurons act in pairs
    return None if is_gated else found


# ---- loading


def load_pretrained(
    cls: Any, source: str | os.PathLike[str], *, with_new_head: bool, **arguments: Any
) -> keras.Model:
    """Loads a model, all of whose weights but those of a new head must be the source's.

    The pooler counts as part of the head, as many sources have none. One that is left over, and
    lists of numbers that PyTorch keeps with the embeddings, do not matter.

    Args:
      cls: TF class, or one of transformers' classes that choose it.
      source: folder, or name on the hub.
      with_new_head: whether weights of the head may be missing, or of other shapes.
      **arguments: more arguments for `from_pretrained`.

    Raises:
      ValueError: weights are missing, left over, or of another shape.
    """
    model, found = cls.from_pretrained(
        source, ignore_mismatched_sizes=True, output_loading_info=True, **arguments
    )
    encoder = getattr(model, model.base_model_prefix)
    inside = {_parts(w.name.partition(f"/{encoder.name}/")[2])[0] for w in encoder.weights}
    new = {layer.name for layer in model.layers if not layer.weights}
    if with_new_head:
        new |= {"pooler", *(layer.name for layer in model.layers if layer is not encoder)}

    def may_be_new(name: str) -> bool:
        return not new.isdisjoint(_parts(name))

    def is_needless(name: str) -> bool:
        parts = _parts(name)
        return inside.isdisjoint(parts) or "pooler" in parts or parts[-1] in _NUMBERS

    problems = {
        "missing": [name for name in found["missing_keys"] if not may_be_new(name)],
        "left over": [name for name in found["unexpected_keys"] if not is_needless(name)],
        "of another shape": [
            f"{name} {tuple(there)} instead of {tuple(wanted)}"
            for name, there, wanted in found["mismatched_keys"]
            if not may_be_new(name)
        ],
    }
    told = [f"{what}: {listed(sorted(names))}" for what, names in problems.items() if names]
    if told:
        raise ValueError(
            f"The weights in {source} are not those of the {type(model).__name__} that its "
            f"config.json describes: {'; '.join(told)}. Correct its config.json, or get it again."
        )
    return model


_NUMBERS = ("position_ids", "token_type_ids")


def _parts(name: str) -> list[str]:
    """The layers in the name of a weight, as TensorFlow or PyTorch has it."""
    return re.split(r"[/.]", name.partition(":")[0])


# ---- saving


def refuse_saving(model: Layer) -> None:
    """Makes `save_pretrained` raise: it would silently save the unmasked weights."""
    if hasattr(type(model), "save_pretrained"):

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise ValueError(
                f"{model.name!r} still has pruning wrappers, and save_pretrained would write its "
                "unmasked weights. Save what tf_movprune.strip_pruning(model) returns; to go on "
                "training later, use save_weights or tf.train.Checkpoint."
            )

        vars(model)["save_pretrained"] = refuse


def allow_saving(model: Layer) -> None:
    """Undoes `refuse_saving`."""
    vars(model).pop("save_pretrained", None)


def describe(model: keras.Model) -> dict[str, Any] | None:
    """The class and configuration of a model, without the path it was loaded from.

    The result is None for a model that is not of Hugging Face's classes.
    """
    if not is_hugging_face(model):
        return None
    config = json.loads(model.config.to_json_string(use_diff=True))
    config.pop("_name_or_path", None)
    return {"class": type(model).__name__, "config": config}


def has_configuration(cls: Any) -> bool:
    """Returns whether models of a class are made from a configuration."""
    return (
        isinstance(cls, type)
        and issubclass(cls, keras.Model)
        and bool(getattr(cls, "config_class", None))
    )


def configuration(cls: Any, values: dict[str, Any]) -> Any:
    """The configuration of the values that `describe` returned."""
    return cls.config_class.from_dict(values)


def full_size_shapes(cls: Any, config: Any) -> list[tf.TensorShape]:
    """Shapes of the weights of a model of full size, without the memory that it would take."""
    with tf.Graph().as_default():
        model = cls(config)
        model.build_in_name_scope()
        return [weight.shape for weight in model.weights]


# ---- configurations of compacted models

RemainingSizes = tuple[np.ndarray, int]
"""The numbers of the heads that an encoder layer has left, among all, and how many neurons."""


def is_compacted(config: Any) -> bool:
    """Returns whether a configuration, or one inside it, is that of a compacted model."""
    return any(hasattr(part, _SIZES) for part in (config, *vars(config).values()))


def are_alike(one: Any, other: Any) -> bool:
    """Returns whether two configurations describe encoders of the same full size."""
    names = ("num_attention_heads", "num_hidden_layers", "hidden_size")
    return type(one) is type(other) and all(
        getattr(one, name, None) == getattr(other, name, None) for name in names
    )


def remaining_sizes(config: Any, layers: int | None = None) -> list[RemainingSizes]:
    """Reads what the configuration of a compacted model leaves each of its encoder layers.

    The result is empty for a model that was not compacted.

    Args:
      config: the configuration.
      layers: number of encoder layers, if it is known.

    Raises:
      ValueError: it leaves a layer nothing, or more than there is, or is not of so many layers.
    """
    sizes = getattr(config, _SIZES, None)
    if not sizes:
        return []
    full = _full_neurons(config)
    if layers is not None and len(sizes) != layers:
        raise ValueError(
            f"{_SIZES} must have a number for each of the {layers} encoder layers, got {sizes}."
        )
    for size in sizes:
        if not isinstance(size, int) or not 1 <= size <= full:
            raise ValueError(f"{_SIZES} must be whole numbers from 1 to {full}, got {sizes}.")
    remaining = []
    for i, size in enumerate(sizes):
        heads = _heads_without_pruned(config, i)
        if heads is None:
            raise ValueError(
                f"pruned_heads of layer {i} must be some of the heads 0 to "
                f"{config.num_attention_heads - 1}, but not all, got {_pruned_heads(config, i)}."
            )
        remaining.append((heads, size))
    return remaining


def present_heads(config: Any, layer: int, count: int, path: str) -> np.ndarray:
    """The numbers of the heads that an encoder layer has.

    A configuration may list heads as removed that are still there, as those on the hub do whose
    weights were converted before heads were removed. Such a list does not count.

    Args:
      config: configuration of the encoder.
      layer: place of the layer in it.
      count: number of heads that the layer has.
      path: path of the attention, for messages.

    Raises:
      ValueError: the layer has lost heads, and not as many as are listed.
    """
    every = np.arange(config.num_attention_heads)
    if count == len(every):
        return every
    heads = _heads_without_pruned(config, layer)
    if heads is None or len(heads) != count:
        raise ValueError(
            f"{path!r} has {count} of the {len(every)} heads in its configuration, whose "
            f"pruned_heads lists {_pruned_heads(config, layer)} for layer {layer}. Which heads it "
            f"has is not known, and nothing was changed: set pruned_heads[{layer}] to the heads "
            f"that this layer has lost, {len(every) - count} of the numbers 0 to {len(every) - 1}."
        )
    return heads


def check_neurons(config: Any, layer: int, count: int, path: str) -> None:
    """Raises ValueError if an encoder layer has another number of neurons than is recorded.

    Args:
      config: configuration of the encoder.
      layer: place of the layer in it.
      count: number of neurons that the layer has.
      path: path of the attention before them, for messages.
    """
    full, recorded = _full_neurons(config), getattr(config, _SIZES, None)
    if count == full or (recorded is None and count < full):
        return
    if recorded is None or list(recorded)[layer : layer + 1] != [count]:
        has = counted(count, "neuron")
        also = "" if recorded is None else f", and {_SIZES} {recorded}"
        raise ValueError(
            f"The layer of {path!r}, number {layer}, has {has}, but its config "
            f"has a full size of {full}{also}. Nothing was changed: give the layer the config "
            "that it was made or compacted with"
            + (f", or delete its {_SIZES}." if count < full else ".")
        )


def with_sizes(config: Any, layers: Sequence[RemainingSizes]) -> Any:
    """A copy of a configuration that tells what is left of each encoder layer."""
    described = copy.deepcopy(config)
    every = np.arange(config.num_attention_heads)
    removed = {i: np.setdiff1d(every, heads).tolist() for i, (heads, _) in enumerate(layers)}
    described.pruned_heads = {i: heads for i, heads in removed.items() if heads}
    setattr(described, _SIZES, [neurons for _, neurons in layers])
    return described


def with_one_neuron(config: Any) -> Any:
    """A copy of a configuration, of an encoder with one neuron in each layer."""
    narrow = copy.deepcopy(config)
    setattr(
        narrow, "intermediate_size" if hasattr(narrow, "intermediate_size") else "hidden_dim", 1
    )
    return narrow


def _full_neurons(config: Any) -> int:
    return getattr(config, "intermediate_size", None) or config.hidden_dim  # in DistilBERT's


def _heads_without_pruned(config: Any, layer: int) -> np.ndarray | None:
    """The heads that are not listed as removed; None if others are listed than there are, or all.

    PyTorch and JSON leave lists in any order, and some heads twice.
    """
    every, pruned = np.arange(config.num_attention_heads), _pruned_heads(config, layer)
    heads = np.setdiff1d(every, pruned)
    return heads if len(heads) and np.isin(pruned, every).all() else None


def _pruned_heads(config: Any, layer: int) -> list[int]:
    """The heads that are listed as removed; keys of dictionaries from JSON are strings."""
    pruned = config.pruned_heads
    return list(pruned.get(layer, pruned.get(str(layer), [])))


_LOAD_OTHERS = (
    "Other compacted models are saved with model.save and loaded with tf_keras.models.load_model."
)


class CompactedFolder(NamedTuple):
    """Contents of a folder that `save_pretrained` of a compacted model wrote."""

    config: Any
    weights: pathlib.Path
    model_class: Any


def check_compacted_class(model_class: Any) -> None:
    """Raises TypeError if a class is given and is none of Hugging Face's models."""
    if model_class is not None and not has_configuration(model_class):
        raise TypeError(
            f"model_class must be a class of Hugging Face TF models, got {model_class!r}. "
            f"{_LOAD_OTHERS}"
        )


def read_compacted(
    path: str | os.PathLike[str], model_class: type[keras.Model] | None
) -> CompactedFolder:
    """Reads the configuration of a compacted model, and finds its class and weights.

    Raises:
      ImportError: transformers is of a release that is not supported.
      ValueError: no compacted TF model is there, or its class is not known.
    """
    import transformers

    check_versions(transformers)
    folder = pathlib.Path(path)
    files = [folder / name for name in ("tf_model.h5", "model.safetensors")]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json, or neither tf_model.h5 nor model.safetensors. Pass the "
            "folder that save_pretrained of a compacted Hugging Face TF model wrote, in one file: "
            "with a larger max_shard_size if it was split; or load PyTorch's weights with "
            f"tf_movprune.load_pytorch. {_LOAD_OTHERS}"
        )
    config = transformers.AutoConfig.from_pretrained(folder)
    if not is_compacted(config) or not config.architectures:
        raise ValueError(
            f"The configuration in {folder} has no {_SIZES}, or no architectures: it is not that "
            "of a compacted model. Load it with from_pretrained."
        )
    name = "TF" + config.architectures[0].removeprefix("TF")
    model_class = model_class or getattr(transformers, name, None)
    if model_class is None:
        raise ValueError(f"transformers has no {name}. Pass the class of the model as model_class.")
    return CompactedFolder(config, weights, model_class)


def load_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Loads the weights of a file into a model that has their shapes.

    Raises:
      ValueError: the weights are not those of the model.
    """
    from transformers import modeling_tf_utils

    try:
        missing, unexpected, mismatched = modeling_tf_utils.load_tf_weights(
            model, str(path), ignore_mismatched_sizes=False
        )
        empty = _layers_without_weights(model, path)
        missing, unexpected = set(missing) - empty, set(unexpected) - empty
        if missing or unexpected or mismatched:
            raise ValueError(f"missing {missing}, unexpected {unexpected}, {mismatched}")
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"The weights in {path} are not those of the configuration beside it: {error}"
        ) from error


def _layers_without_weights(model: keras.Model, path: pathlib.Path) -> set[str]:
    """Names of layers without weights, whose numbers Keras changes from process to process."""
    names = {layer.name for layer in model.layers if not layer.weights}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            names |= {name for name in file if not len(file[name].attrs.get("weight_names", ()))}
    return names


# ---- checkpoints of PyTorch

_TF_NAMES = {
    "bert": "TFBert",
    "camembert": "TFCamembert",
    "distilbert": "TFDistilBert",
    "electra": "TFElectra",
    "roberta": "TFRoberta",
    "xlm-roberta": "TFXLMRoberta",
}


def tf_class(config: Mapping[str, Any], names: Collection[str]) -> Any:
    """The TF class of a PyTorch checkpoint.

    Args:
      config: its configuration.
      names: names of its weights, which tell the head if the configuration does not.

    Raises:
      ImportError: transformers is not installed, or of a release that is not supported.
      ValueError: no class is known.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "Loading into Hugging Face's TF classes needs transformers from 4.46 to 4.54. Install "
            "it, or pass a class of KerasHub as model_class."
        ) from error
    check_versions(transformers)
    architecture = next(iter(config.get("architectures") or ()), None)
    if architecture is None:
        architecture = _TF_NAMES[config["model_type"]] + task_of(config, names)
    name = "TF" + str(architecture).removeprefix("TF").removeprefix("Masked")
    found = getattr(transformers, name, None)
    if not has_configuration(found):
        raise ValueError(
            f"transformers {transformers.__version__} has no {name} that works. Pass the class of "
            "the model as model_class, and see that transformers is from 4.46 to 4.54."
        )
    return found


_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new", "gelu_python": "gelu"}
"""Names that TF classes have for activations, by others that PyTorch has for them."""


def with_tf_activation(config: Any) -> Any:
    """A configuration whose activation is one of the TF classes'.

    Raises:
      ValueError: they have none like it.
    """
    from transformers.activations_tf import ACT2FN

    key = "hidden_act" if hasattr(config, "hidden_act") else "activation"
    name = _ACTIVATIONS.get(getattr(config, key), getattr(config, key))
    if name not in ACT2FN:
        raise ValueError(f"{key} in config.json must be one of {', '.join(ACT2FN)}, got {name!r}.")
    setattr(config, key, name)
    return config


def pytorch_names(cls: Any, config: Any) -> set[str]:
    """The names that PyTorch has for the weights of a new model, without their memory."""
    with tf.Graph().as_default():
        model = cls(config)
        model.build_in_name_scope()
        return {pytorch_name(name, weight.shape)[0] for name, weight in names_in(model)}


def names_in(model: keras.Model) -> list[tuple[str, Any]]:
    """The weights of a model by name, without the scopes of models around it."""
    scope = f"{model.name}/"
    found = []
    for weight in model.weights:
        _, is_inside, rest = f"/{weight.name}".partition(f"/{scope}")
        found.append((f"model/{rest}" if is_inside else weight.name, weight))
    return found


def pytorch_name(name: str, shape: Sequence[int]) -> tuple[str, bool]:
    """The name that PyTorch has for a weight of a TF class, and whether it is transposed there.

    Raises:
      ImportError: transformers, which knows the names, is not installed or has no TF classes.
    """
    try:
        from transformers import modeling_tf_pytorch_utils as utils
    except ImportError as error:
        raise ImportError(
            "The names of weights of TF classes are known to transformers from 4.46 to 4.54 alone. "
            "Install it to read or write them."
        ) from error

    found, transpose = utils.convert_tf_weight_name_to_pt_weight_name(name, tf_weight_shape=shape)
    return found, transpose is utils.TransposeType.SIMPLE
