"""The one file that knows what tf_keras and tensorflow_model_optimization keep private.

Each function says what it gives in public terms; `tests/keras2/test_compat.py` holds each to it, so
that a new release that keeps something elsewhere is found here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras


@contextlib.contextmanager
def _unchanged_environment() -> Iterator[None]:
    """Restores the environment, in which tfmot sets TF_USE_LEGACY_KERAS without needing it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


with _unchanged_environment():
    from tensorflow_model_optimization.python.core.sparsity.keras.prunable_layer import (
        PrunableLayer,
    )
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import (
        PruneRegistry,
    )
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_policy import (
        PruningPolicy,
    )
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import (
        ConstantSparsity,
        PolynomialDecay,
    )

from tf_keras.export import ExportArchive
from tf_keras.layers import Layer
from tf_keras.src.saving.legacy.saved_model.utils import in_tf_saved_model_scope

__all__ = [
    "ConstantSparsity",
    "ExportArchive",
    "Layer",
    "PolynomialDecay",
    "PrunableLayer",
    "PruningPolicy",
    "keras",
]


# ---- objects and their registration


def register(cls):
    """Registers a class under its own name, so that saved models find it again."""
    return keras.saving.register_keras_serializable(package="tf_movprune")(cls)


def registered_name(cls) -> str:
    """The name under which saved models find a class."""
    return keras.saving.get_registered_name(cls)


def check_keras_object(
    obj: Any,
    cls: type = Layer,
    expected: str = "a tf_keras model, a layer or a list of layers",
) -> None:
    """Raises TypeError if `obj` is not a `cls` of Keras 2, with a remedy if it is of Keras 3."""
    if isinstance(obj, cls):
        return
    if any(base.__module__.split(".")[0] == "keras" for base in type(obj).__mro__):
        raise TypeError(
            f"{type(obj).__name__} is a Keras 3 object, and tf_movprune works with Keras 2: build "
            "the model with tf_keras (`import tf_keras as keras`). For a library that uses "
            "`tf.keras`, set the environment variable TF_USE_LEGACY_KERAS=1 before TensorFlow is "
            "imported."
        )
    raise TypeError(f"Expected {expected}, got {type(obj).__name__}.")


def is_saving() -> bool:
    """Returns whether a SavedModel is being made at the moment, which traces calls of layers."""
    return in_tf_saved_model_scope()


# ---- layers


def registered_kernels(layer: Layer) -> list[str]:
    """Attribute paths of the kernels of a layer that tfmot knows, or a subclass of one it knows."""
    registry: dict[type, list[str]] = PruneRegistry._LAYERS_WEIGHTS_MAP
    return next((registry[cls] for cls in type(layer).__mro__ if cls in registry), [])


@functools.cache
def _keras_attributes() -> frozenset[str]:
    # Explicit names keep the numbers in the names of the user's own models unchanged.
    with tf.init_scope():
        return frozenset(vars(Layer(name="layer"))) | frozenset(vars(keras.Model(name="model")))


def is_keras_attribute(name: str) -> bool:
    """Returns whether Keras uses a name for attributes that any layer has, or gets later."""
    return name in _keras_attributes() or name.startswith(
        ("_self_unconditional", "_self_name_based", "_obj_reference_counts")
    )


def copy_of_books(value: Any) -> Any:
    """A copy of a list or mapping in which Keras keeps books, around the same items."""
    copied = copy.copy(value)
    storage = getattr(value, "_storage", None)
    if isinstance(storage, dict):  # mappings by identity copy no deeper
        copied._storage = dict(storage)
    return copied


def tracked_items(layer: Layer) -> list[Any]:
    """The items that Keras tracks of a layer, in the order in which it counts weights."""
    return list(layer._self_tracked_trackables)


def reorder_tracked_items(layer: Layer, items: Sequence[Any]) -> None:
    """Makes Keras count the weights of a layer in the order of `items`, which it tracks."""
    layer._self_tracked_trackables = list(items)


def takes_mask(layer: Layer) -> bool:
    """Returns whether the `call` of a layer has an argument `mask`."""
    return layer._expects_mask_arg


def declared_input_shape(layer: Layer) -> tuple | None:
    """The `batch_input_shape` that a layer was given when it was made."""
    return getattr(layer, "_batch_input_shape", None)


def declare_input_shape(layer: Layer, shape: tuple | None) -> None:
    """Gives a layer a `batch_input_shape`, from which Sequential models make their input."""
    if shape is not None:
        layer._batch_input_shape = shape


def set_precision(layer: Layer, policy: str) -> None:
    """Changes the precision policy of a layer."""
    layer._set_dtype_policy(policy)


# ---- attention


def attention_shapes(layer: keras.layers.MultiHeadAttention) -> tuple[Any, Any, Any]:
    """Shapes of query, value and key that an attention layer was built for; None if not known."""
    return layer._query_shape, layer._value_shape, layer._key_shape


def attention_projections(
    layer: keras.layers.MultiHeadAttention,
) -> tuple[Layer, Layer, Layer, Layer]:
    """The layers inside a built attention layer: query, key, value and output."""
    return layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense


def head_count(layer: keras.layers.MultiHeadAttention) -> int:
    """The number of heads of an attention layer."""
    return layer._num_heads


# ---- graphs of layers


def is_graph_network(layer: Any) -> bool:
    """Returns whether a layer is a Sequential or Functional model, which is changed by cloning."""
    return isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and layer._is_graph_network
    )


def graph_nodes(model: keras.Model) -> list[Any]:
    """The calls of layers in a graph, with `layer`, `parent_nodes` and `call_kwargs`.

    There are none in a Sequential model whose input shape is not known.
    """
    by_depth = getattr(model, "_nodes_by_depth", {})
    return [node for nodes in by_depth.values() for node in nodes]


def output_nodes(model: keras.Model) -> list[Any]:
    """The calls of layers from which the outputs of a Functional model come."""
    return [layer._inbound_nodes[index] for layer, index, _ in model._output_coordinates]


def call_nodes(layer: Layer) -> list[Any]:
    """All calls of a layer in graphs."""
    return list(layer._inbound_nodes)


def sequential_input_shape(model: keras.Sequential) -> tuple:
    """The shape of the inputs on which a Sequential model was built."""
    return model._build_input_shape


# ---- training


def forget_compilation(model: Layer) -> None:
    """Undoes `compile`, whose functions and optimizer know the model before it was changed."""
    if isinstance(model, keras.Model):
        model._reset_compile_cache()
        model._is_compiled = False
        model.optimizer = None
        functions = ("train_function", "train_tf_function", "test_function", "predict_function")
        for name in ("optimizer", *functions):
            model._delete_tracking(name)  # checkpoints would hold its earlier value


def added_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The mutable list of the metrics that a model has besides those of `compile`."""
    return model._metrics


def steps_per_execution(model: keras.Model) -> int:
    """Number of steps that one call of the train function of a compiled model takes."""
    return int(tf.convert_to_tensor(getattr(model, "_steps_per_execution", None) or 1))


def keras_mask(tensor: tf.Tensor) -> tf.Tensor | None:
    """The Keras mask that a tensor carries."""
    return getattr(tensor, "_keras_mask", None)


def attach_keras_mask(tensor: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Gives a tensor the mask that Keras's losses and metrics look for, and returns it."""
    tensor._keras_mask = mask
    return tensor


# ---- optimizers


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate of an optimizer, or its schedule instead of the rate at this step."""
    return getattr(optimizer, "_learning_rate", None)


def was_built_without(optimizer: keras.optimizers.Optimizer, variable: tf.Variable) -> bool:
    """Returns whether an optimizer has made its slots, but none for a variable."""
    if not getattr(optimizer, "_built", False):
        return False
    return optimizer._var_key(variable) not in optimizer._index_dict


def apply_unclipped(
    optimizer: keras.optimizers.Optimizer,
    grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]],
    step: tf.Variable,
) -> None:
    """Takes a step of an optimizer as a part of another one, which clips and counts for both."""
    optimizer.iterations.assign(step)
    optimizer._compute_current_learning_rate()
    optimizer._internal_apply_gradients(grads_and_vars)


class OpenAdamW(keras.optimizers.AdamW):
    """AdamW that lets subclasses say which variables decay, and how clipped gradients are applied.

    Override `decays(variable)` and `apply_clipped(grads_and_vars, apply)`.
    """

    def decays(self, variable: tf.Variable) -> bool:
        """Returns whether a variable is decayed, unless it is excluded by name."""
        return True

    def apply_clipped(self, grads_and_vars: list, apply: Callable[[list], Any]) -> Any:
        """Applies the gradients, already clipped, through `apply`."""
        return apply(grads_and_vars)

    def _use_weight_decay(self, variable):
        return self.decays(variable) and super()._use_weight_decay(variable)

    def _internal_apply_gradients(self, grads_and_vars):
        return self.apply_clipped(list(grads_and_vars), super()._internal_apply_gradients)


@register
class PlainSGD(keras.optimizers.SGD):
    """Gradient descent without momentum, and without the slots that Keras makes for it anyway."""

    def build(self, var_list):
        super(keras.optimizers.SGD, self).build(var_list)
        vars(self)["momentums"] = [None] * len(var_list)  # Keras's update knows this case
        self._built = True
