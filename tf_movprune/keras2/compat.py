"""The one file that knows what tf_keras and tensorflow_model_optimization keep private.

Each function says what it gives in public terms; `tests/keras2/test_compat.py` holds each to it, so
that a new release that keeps something elsewhere is found here. The file is long so that there is
one place to look.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tf_movprune.core.versions import check_versions

check_versions(tf, keras)  # before anything private is imported


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
from tf_keras.src.backend import RandomGenerator
from tf_keras.src.engine.base_layer_utils import call_context
from tf_keras.src.engine.functional import Functional
from tf_keras.src.layers.preprocessing.index_lookup import VocabWeightHandler
from tf_keras.src.models.cloning import _insert_ancillary_layers
from tf_keras.src.saving import saving_api
from tf_keras.src.saving.legacy.saved_model import save_impl
from tf_keras.src.saving.legacy.saved_model.utils import in_tf_saved_model_scope
from tf_keras.src.utils.layer_utils import CallFunctionSpec

from tf_movprune.core import traced_functions
from tf_movprune.core.checkpoint_marker import Marker
from tf_movprune.core.optimizer_steps import inner_optimizer
from tf_movprune.keras2.instance_method import InstanceMethod

__all__ = [
    "ConstantSparsity",
    "ExportArchive",
    "Functional",
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
    if is_keras3_object(obj):
        raise TypeError(
            f"{type(obj).__name__} is a Keras 3 object, and what it is given to is of tf_keras "
            "(docs/keras3.md): build the model with tf_keras (`import tf_keras as keras`). For a "
            "library that uses `tf.keras`, set the environment variable TF_USE_LEGACY_KERAS=1 "
            "before TensorFlow is imported."
        )
    raise TypeError(f"Expected {expected}, got {type(obj).__name__}.")


def is_keras3_object(obj: Any) -> bool:
    """Returns whether the class of an object, or one above it, is of Keras 3."""
    return any(base.__module__.split(".")[0] == "keras" for base in type(obj).__mro__)


def save_format_of(path: Any, save_format: str | None) -> str:
    """The format in which `save` writes a model: `"keras"`, `"h5"` or `"tf"`."""
    return saving_api.get_save_format(path, save_format)


def is_saving() -> bool:
    """Returns whether a SavedModel is being made, which traces calls of layers, or loaded."""
    if in_tf_saved_model_scope() or call_context().saving:
        return True
    # Layers inside one whose function is being saved are not told.
    return tf.inside_function() and any(
        frame.f_globals.get("__name__") == save_impl.__name__
        for frame, _ in traceback.walk_stack(None)
    )


def calling_layer() -> Layer | None:
    """The layer whose `call` runs at the moment, the innermost one; None outside of all."""
    return call_context().layer if call_context().in_call else None


def is_making_graph() -> bool:
    """Returns whether a layer is called to become part of a graph of layers, without values."""
    return bool(call_context().in_keras_graph)


def is_building() -> bool:
    """Returns whether the `build` of a layer runs at the moment, and no call inside of it."""
    for frame, _ in traceback.walk_stack(sys._getframe()):
        name = frame.f_code.co_name
        if name in ("build", "call", "__call__") and isinstance(frame.f_locals.get("self"), Layer):
            return name == "build"
    return False


def training_mode() -> Any:
    """The value of `training` in the innermost call of a layer; None if it has none."""
    return call_context().training


def outermost_training_mode() -> Any:
    """The value of `training` in the outermost call of a layer; None if it has none."""
    frames = [frame for frame in _calls() if _MODES & {*frame.f_locals}]
    if not frames:
        return None
    values = frames[-1].f_locals
    return (
        values["propagated"].get("training") if "propagated" in values else values["training_mode"]
    )


def outermost_calling_layer() -> Layer | None:
    """The layer or model whose call runs at the moment, the outermost one; None outside of all."""
    calls = _calls()
    return calls[-1].f_locals["self"] if calls else None


def _calls() -> list[types.FrameType]:
    """The calls of layers that run at the moment, the innermost one first."""
    return [frame for frame, _ in traceback.walk_stack(None) if frame.f_code is _CALL]


_CALL = Layer.__call__.__wrapped__.__code__
_MODES = {"propagated", "training_mode"}  # the latter before tf-keras 2.20


# ---- layers


def own_attributes(layer: Layer) -> list[str]:
    """Names of the attributes of a layer that are not Keras's own, in the order of assignment."""
    theirs = _GRAPH_STATE if is_graph_network(layer) else ()
    return [
        name
        for name, value in vars(layer).items()
        if not is_keras_attribute(layer, name)
        and name not in theirs
        and not isinstance(value, InstanceMethod)
    ]


def adopt_arguments(wrapper: Layer, layer: Layer) -> None:
    """Lets a layer be called with the arguments of another layer, and with `training`."""
    context = getattr(wrapper, "_call_context_args", None)  # None before tf-keras 2.20
    argspec = layer._call_spec.full_argspec
    spec = CallFunctionSpec(argspec) if context is None else CallFunctionSpec(argspec, context)
    spec.arg_names = list(layer._call_spec.arg_names)
    spec.expects_mask_arg = layer._call_spec.expects_mask_arg
    spec.expects_training_arg = True
    if context is not None:
        spec.expected_context_args = spec.expected_context_args | {"training"}
    wrapper._call_spec = spec


def takes_training(layer: Layer) -> bool:
    """Returns whether the `call` of a layer has an argument `training`."""
    return layer._call_spec.expects_training_arg


def arguments_by_name(
    layer: Layer, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Arguments of the `call` of a layer as they are given to the layer itself.

    Some layers, such as recurrent ones, have others in their place when they are called. Functions
    that are being saved have those of `call`.
    """
    names = layer._call_spec.arg_names
    if len(args) > len(names):
        return args, dict(kwargs)
    return args[:1], {**dict(zip(names[1:], args[1:])), **kwargs}


def training_argument(layer: Layer, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The value of `training` among the arguments of a call of a layer; None if it has none."""
    if not layer._call_spec.arg_was_passed("training", args, kwargs, inputs_in_args=True):
        return None
    return layer._call_spec.get_arg_value("training", args, kwargs, inputs_in_args=True)


def forget_deferred(layer: Layer, names: Sequence[str]) -> None:
    """Forgets values that a checkpoint, read before, would give to a layer's variables by name."""
    for name in names:
        layer._deferred_dependencies.pop(name, None)


def forget_traces(layer: Layer) -> None:
    """Makes each `tf.function` among the attributes and methods of a layer be traced anew."""
    own = [value for name, value in vars(layer).items() if not is_keras_attribute(layer, name)]
    traced_functions.forget_traces(layer, own)


def registered_kernels(layer: Layer) -> list[str]:
    """Attribute paths of the kernels of a layer that tfmot knows, or a subclass of one it knows."""
    registry: dict[type, list[str]] = PruneRegistry._LAYERS_WEIGHTS_MAP
    return next((registry[cls] for cls in type(layer).__mro__ if cls in registry), [])


@functools.cache
def _keras_attributes() -> tuple[frozenset[str], frozenset[str]]:
    """Names of the attributes of any layer, and of the public ones that models have besides."""
    # Explicit names keep the numbers in the names of the user's own models unchanged.
    with tf.init_scope():
        layer, model = set(vars(Layer(name="layer"))), set(vars(keras.Model(name="model")))
    of_models = frozenset(name for name in model - layer if not name.startswith("_"))
    return frozenset(layer | model) - of_models, of_models


def is_keras_attribute(layer: Layer, name: str) -> bool:
    """Returns whether Keras uses an attribute that any layer has, or gets later.

    A layer in one of the public attributes of models, such as `outputs`, is the user's own.
    """
    later = ("_self_unconditional", "_self_name_based", "_obj_reference_counts")
    loaded = ("_serialized_attributes", "keras_api")  # from a SavedModel
    of_layers, of_models = _keras_attributes()
    if name in of_layers or name in loaded or name.startswith(later):
        return True
    if name not in of_models or not isinstance(layer, keras.Model):
        return False
    return not any(isinstance(value, Layer) for value in tf.nest.flatten(vars(layer).get(name)))


def prunable_weights_method(layer: Any) -> Callable[[], Any] | None:
    """The `get_prunable_weights` of a layer; None if it has none, or one that tfmot has added.

    tfmot adds one to every layer that it wraps, also to those without kernels, and leaves it there.
    """
    method = getattr(layer, "get_prunable_weights", None)
    return None if getattr(method, "__module__", None) == PruneRegistry.__module__ else method


def is_tfmot_wrapper(layer: Any) -> bool:
    """Returns whether a layer is the wrapper with which tfmot prunes another."""
    return any(
        cls.__name__ == "PruneLowMagnitude"
        and cls.__module__.startswith("tensorflow_model_optimization.")
        for cls in type(layer).__mro__
    )


def is_own_layer(layer: Layer) -> bool:
    """Returns whether the class of a layer is one of Keras's own."""
    return type(layer).__module__.startswith("tf_keras.")


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
    vars(layer)["_self_tracked_trackables"] = list(items)  # metrics would be tracked once more


def declared_input_shape(layer: Layer) -> tuple[int | None, ...] | None:
    """The `batch_input_shape` that a layer was given when it was made."""
    return getattr(layer, "_batch_input_shape", None)


def declare_input_shape(layer: Layer, shape: tuple[int | None, ...] | None) -> None:
    """Gives a layer a `batch_input_shape`, from which Sequential models make their input."""
    if shape is not None:
        layer._batch_input_shape = shape


def set_precision(layer: Layer, policy: Any) -> None:
    """Changes the precision policy of a layer."""
    layer._set_dtype_policy(policy)


# ---- preprocessing


def lookup_layer_of(weight: Any) -> Layer | None:
    """The layer whose vocabulary an object among the weights stands for; None for any other."""
    return weight._layer if isinstance(weight, VocabWeightHandler) else None


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


def all_variables(model: keras.Model) -> list[tf.Variable]:
    """The variables of a model and of its optimizer, which files of weights hold too."""
    optimizer = getattr(model, "optimizer", None)
    theirs = optimizer.variables if isinstance(optimizer, keras.optimizers.Optimizer) else []
    return [v for v in [*model.weights, *theirs] if isinstance(v, tf.Variable)]


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


_GRAPH_STATE = {
    *("inputs", "outputs", "input_names", "output_names", "built", "_auto_config"),
    *("_build_input_shape", "_created_nodes", "_enable_dict_to_input_mapping"),
    *("_feed_input_names", "_feed_input_shapes", "_feed_inputs", "_graph_initialized"),
    *("_has_explicit_input_shape", "_inferred_input_shape", "_input_coordinates", "_input_dtype"),
    *("_input_layers", "_is_graph_network", "_layer_call_argspecs", "_nested_inputs"),
    *("_nested_outputs", "_network_nodes", "_nodes_by_depth", "_output_coordinates"),
    *("_output_layers", "_output_mask_cache", "_output_shape_cache", "_output_tensor_cache"),
    *("_saved_model_arg_spec", "_saved_model_inputs_spec", "_self_tracked_trackables"),
    *("_tensor_usage_count", "_use_legacy_deferred_behavior"),
}


def graph_state(model: keras.Model) -> dict[str, Any]:
    """The attributes that make the graph of a Sequential or Functional model."""
    return {name: value for name, value in vars(model).items() if name in _GRAPH_STATE}


def bare_sequence(model: keras.Sequential) -> keras.Sequential:
    """A model of Keras's own class around the layers of another, without added losses and metrics.

    It shares the graph of the other, and is there to be cloned.
    """
    bare = keras.Sequential(name=model.name)
    vars(bare).update(graph_state(model))
    added = {id(node.layer) for node, depth in calls_in_order(model) if depth < 0}
    if added:
        reorder_tracked_items(bare, [x for x in tracked_items(model) if id(x) not in added])
        by_depth = model._nodes_by_depth
        bare._nodes_by_depth = {depth: by_depth[depth] for depth in by_depth if depth >= 0}
    return bare


def copy_settings(model: keras.Model, clone: keras.Model) -> None:
    """Gives a clone the precision, names of outputs and trainability of a model's own."""
    set_precision(clone, model.dtype_policy)
    vars(clone)["_trainable"] = model.trainable  # an assignment would reach the layers
    if getattr(model, "output_names", None):
        vars(clone)["output_names"] = list(model.output_names)


def input_layers(model: keras.Model) -> list[Layer]:
    """The input layers of a Functional model, in the order of `model.inputs`."""
    return list(model._input_layers)


def graph_ends(model: keras.Model) -> tuple[Any, Any]:
    """The input and output tensors of a Functional model, in the structure it was made with."""
    return model._nested_inputs, model._nested_outputs


def calls_in_order(model: keras.Model) -> list[tuple[Any, int]]:
    """The calls in a graph, inputs first, each with its depth.

    The depth of losses and metrics that were added to the model is below 0.
    """
    by_depth = getattr(model, "_nodes_by_depth", {})
    order = [(node, depth) for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [(node, depth) for node, depth in order if not node.is_input]


def insert_losses_and_metrics(model: keras.Model, calls: list[Any], names: list[str]) -> None:
    """Adds calls of layers that compute losses and metrics to a Functional model.

    Args:
      names: names of the metrics, in their order.
    """
    layers = list({id(call.layer): call.layer for call in calls}.values())
    if layers:
        _insert_ancillary_layers(model, layers, names, calls)


def callable_losses(model: Layer) -> list[Callable[[], Any]]:
    """The mutable list of the losses that a layer computes when it is asked for them."""
    return model._callable_losses


def forget_last_call(layer: Layer) -> None:
    """Removes the last of the calls of a layer in graphs."""
    node = layer._inbound_nodes.pop()
    for parent in node.parent_nodes:
        outbound = parent.layer._outbound_nodes
        outbound[:] = [other for other in outbound if other is not node]


def output_nodes(model: keras.Model) -> list[Any]:
    """The calls of layers from which the outputs of a Functional model come."""
    return [layer._inbound_nodes[index] for layer, index, _ in model._output_coordinates]


def call_nodes(layer: Layer) -> list[Any]:
    """All calls of a layer in graphs."""
    return list(layer._inbound_nodes)


def sequential_input_shape(model: keras.Sequential) -> tuple[Any, ...]:
    """The shape of the inputs on which a Sequential model was built."""
    return model._build_input_shape


def builder_like(model: keras.Model) -> Callable[[keras.Sequential], None]:
    """Returns a function that builds a Sequential model as the first call has built `model`.

    It does nothing to a model that is built. The layers of the other have to be built already.
    """
    names = ("built", "_build_input_shape", "_saved_model_arg_spec", "_saved_model_inputs_spec")
    called = {name: vars(model)[name] for name in names}
    shape = getattr(model, "_inferred_input_shape", None)
    dtype = None if shape is None else model.inputs[0].dtype

    def build(other: keras.Sequential) -> None:
        if other.built:
            return
        if shape is not None:
            other._build_graph_network_for_inferred_shape(shape, dtype)
        elif called["built"]:  # by a call that no graph can be made of
            vars(other).update(called, _use_legacy_deferred_behavior=True)

    return build


# ---- calls


def runs_its_graph(model: keras.Model) -> bool:
    """Returns whether a call of a model runs its graph, and no `call` of a class of its own."""
    call = getattr(model.call, "__func__", None)
    return is_graph_network(model) and call in (Functional.call, keras.Sequential.call)


def recorded_call(model: keras.Model) -> tuple[list[Any], dict[str, Any]] | None:
    """Type specs of the arguments of the first call of a model, by position and by keyword.

    Positional arguments that are no tensors are None, and so are leaves of nested ones; keyword
    arguments that are no tensors are left out. Before the first call there is None.
    """
    recorded = model.save_spec(dynamic_batch=False)
    if recorded is None:
        return None
    args, kwargs = recorded
    return list(args), dict(kwargs)


def input_type_spec(tensor: Any) -> tf.TypeSpec:
    """The type spec of a symbolic input, which tells ragged and sparse from dense ones."""
    return tensor.type_spec


# ---- training


_FUNCTIONS = ("train_function", "train_tf_function", "test_function", "predict_function")


def forget_compilation(model: Layer) -> None:
    """Undoes `compile`, whose functions and optimizer know the model before it was changed.

    Layers that are not models are left as they are.
    """
    if isinstance(model, keras.Model):
        model._reset_compile_cache()
        model._is_compiled = False
        model.optimizer = None
        for name in ("optimizer", *_FUNCTIONS):
            model._delete_tracking(name)  # checkpoints would hold its earlier value


def is_compiled(model: keras.Model) -> bool:
    """Returns whether a model was compiled."""
    return model._is_compiled


def replace_compile_check(model: keras.Model, check: Callable[[], None]) -> None:
    """Lets `check` raise if a model is not compiled, in the place of Keras's own check."""
    vars(model)["_assert_compile_was_called"] = check


def forget_functions(model: Layer) -> None:
    """Makes a model make its functions for training, testing and predicting anew."""
    if isinstance(model, keras.Model):
        for name in _FUNCTIONS:
            if getattr(model, name, None) is not None:
                setattr(model, name, None)


@contextlib.contextmanager
def unchanged_losses(model: Layer) -> Iterator[None]:
    """Restores, at the end of a context, the losses that a model's last call has added."""
    layers = [module for module in (model, *model.submodules) if isinstance(module, Layer)]
    losses = [list(layer._eager_losses) for layer in layers]
    try:
        yield
    finally:
        for layer, before in zip(layers, losses):
            layer._thread_local._eager_losses = before  # an assignment to the layer would track


def added_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The mutable list of the metrics that a model has besides those of `compile`."""
    return model._metrics


def steps_per_execution(model: keras.Model) -> int:
    """Number of steps that one call of the train function of a compiled model takes."""
    return int(tf.convert_to_tensor(getattr(model, "_steps_per_execution", None) or 1))


def loss_scale(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The factor by which an optimizer scales the loss, if it adapts it; else None."""
    scales = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) and optimizer.dynamic
    return float(tf.convert_to_tensor(optimizer.loss_scale)) if scales else None


def batches_done(model: keras.Model, steps: int, epoch: int) -> int:
    """Number of batches of an epoch that were taken before the run that goes on with it.

    Args:
      steps: batches of an epoch.
      epoch: the epoch that is about to begin, the first one of the run.
    """
    return int(model._maybe_load_initial_counters_from_ckpt(steps, epoch)[1])


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


def is_built(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer has made its slots."""
    return bool(getattr(inner_optimizer(optimizer), "_built", False))


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, list[Any]]:
    """The lists in which an optimizer has a slot for each of its variables, or None, by name."""
    count = len(optimizer._index_dict)
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and len(value) == count
        and name != "_variables"
        and any(isinstance(slot, tf.Variable) for slot in value)
    }


def slot_index(optimizer: keras.optimizers.Optimizer, variable: tf.Variable) -> int | None:
    """The place of a variable's slots in their lists; None if it has none."""
    return optimizer._index_dict.get(optimizer._var_key(variable))


def hidden_variables(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Names of attributes that are variables of an optimizer, but not among those that it lists."""
    known = {id(variable) for variable in optimizer._variables}
    rates = ("_learning_rate", "_current_learning_rate")  # of the configuration, and of a step
    return [
        name
        for name, value in vars(optimizer).items()
        if isinstance(value, tf.Variable) and id(value) not in known and name not in rates
    ]


def is_decayed(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Returns whether weight decay, if there is any, is for a variable too."""
    return bool(optimizer._use_weight_decay(variable))


def counters(optimizer: keras.optimizers.Optimizer) -> list[tf.Variable]:
    """The scalars that an optimizer, and one that is wrapped in it, keep beside slots."""
    inner = inner_optimizer(optimizer)
    hidden = {id(slot) for members in slots(inner).values() for slot in members}
    own = [v for v in inner._variables if id(v) not in hidden and not v.shape.rank]
    return [*own, *loss_scale_variables(optimizer)]


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

    def apply_clipped(self, grads_and_vars: list[Any], apply: Callable[[list[Any]], Any]) -> Any:
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


# ---- what checkpoints of training hold beside the weights


def loss_scale_variables(optimizer: Any) -> list[tf.Variable]:
    """The scale of the loss and the steps since it changed, of an optimizer that scales it."""
    scale = getattr(optimizer, "_loss_scale", None)
    found = (getattr(scale, name, None) for name in ("current_loss_scale", "counter"))
    return [variable for variable in found if isinstance(variable, tf.Variable)]


@contextlib.contextmanager
def checkpointed_dropout() -> Iterator[None]:
    """A scope in which layers with randomness get generators whose states are variables."""
    backend = keras.backend.experimental
    was_enabled = backend.is_tf_random_generator_enabled()
    backend.enable_tf_random_generator()
    try:
        yield
    finally:
        if not was_enabled:
            backend.disable_tf_random_generator()


def dropout_states(model: keras.Model) -> list[tf.Variable]:
    """The states of the generators of a model's layers, in their order."""
    states = []
    for layer in model.submodules:
        owner = getattr(layer, "_random_generator", None)
        if isinstance(owner, RandomGenerator):
            owner._maybe_init()  # as a layer does when it is called first
            if owner._generator is not None:
                states.append(owner._generator.state)
    return states


# ---- checkpoints


class MarkedInCheckpoints(Layer):
    """A layer whose checkpoints do not pass for those of another layer, nor the reverse.

    Markers stand in them where the other layer has its variables.
    """

    def add_to_checkpoints(self, name: str, item: Any) -> None:
        """Adds an object to checkpoints, which SavedModels do without."""
        self.__dict__["_in_checkpoints"] = {**vars(self).get("_in_checkpoints", {}), name: item}
        self._handle_deferred_dependencies(name=name, trackable=item)

    def mark(
        self,
        variables: Mapping[tuple[str, ...], tf.Variable],
        own: str,
        refuse: Callable[[], None],
    ) -> None:
        """Sets the markers.

        Args:
          variables: variables of the other layer, by the attributes that lead to them.
          own: name of an attribute that the other layer has not.
          refuse: a function that raises, for checkpoints of the other layer. It is called at once
            if one was restored before there were variables, and waits for them.
        """
        ours = self._waiting_restores(own)
        if any(self._waiting_restores(path[0]) - ours for path in variables):
            refuse()
        root = tf.__internal__.tracking.AutoTrackable()
        for path, variable in variables.items():
            node = root
            for name in path[:-1]:
                if name not in vars(node):
                    setattr(node, name, tf.__internal__.tracking.AutoTrackable())
                node = vars(node)[name]
            setattr(node, path[-1], Marker(variable.dtype, refuse))
        for name, child in root._trackable_children().items():
            self.add_to_checkpoints(name, child)

    def _waiting_restores(self, name: str) -> set[int]:
        """Ids of the checkpoints that have an object of that name, which the layer has not yet."""
        return {id(place.checkpoint) for place in self._deferred_dependencies.get(name, ())}

    def _children_of_checkpoints(self) -> dict[str, Any]:
        return {} if is_saving() else vars(self).get("_in_checkpoints", {})

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = dict(super()._trackable_children(save_type, **kwargs))
        if save_type == "checkpoint":
            children.update(self._children_of_checkpoints())
        return children

    def _lookup_dependency(self, name, *args, **kwargs):
        found = super()._lookup_dependency(name, *args, **kwargs)
        return self._children_of_checkpoints().get(name) if found is None else found
