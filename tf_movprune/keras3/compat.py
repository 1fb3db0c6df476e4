"""The one file that knows what Keras 3 keeps private, which the shell needs.

Each function says what it gives in public terms. The file is long so that there is one place to
look when a new release keeps something elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_movprune.core.versions import check_versions

check_versions(tf, keras)  # before anything private is imported

from keras.layers import Layer as Layer
from keras.src.backend.common import global_state
from keras.src.export import export_utils
from keras.src.models import Functional
from keras.src.models.functional import functional_like_constructor
from keras.src.saving import object_registration

from tf_movprune.core import traced_functions
from tf_movprune.core.optimizer_steps import inner_optimizer


def check_backend() -> None:
    """Raises RuntimeError if Keras does not run on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "tf_movprune prunes Keras 3 models on the TensorFlow backend, but Keras runs on "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow before keras is imported."
        )


def check_keras_object(obj: Any, cls: type = Layer, what: str = "a Keras model or layer") -> None:
    """Raises TypeError if `obj` is not of a class of Keras 3.

    Args:
      obj: any object.
      cls: the class.
      what: words for the class.
    """
    check_backend()
    if isinstance(obj, type):
        raise TypeError(f"Expected {what}, got the class {obj.__name__}. Make an object of it.")
    if not isinstance(obj, cls):
        raise TypeError(f"Expected {what}, got {type(obj).__name__}.")


# ---- variables


def is_variable(value: Any) -> bool:
    """Returns whether a value is a variable of Keras."""
    return isinstance(value, keras.Variable)


def tensorflow_variable(variable: keras.Variable) -> tf.Variable:
    """The TensorFlow variable behind a variable, in its own precision wherever it is read."""
    return variable._value


def all_variables(model: keras.Model) -> list[tf.Variable]:
    """The TensorFlow variables of a model and of its optimizer, which files of weights hold too."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    return [v._value for v in variables if is_variable(v) and tf.is_tensor(v._value)]


def resize(variable: keras.Variable, array: np.ndarray) -> None:
    """Gives a variable a value of another shape. What computed with the old one has to be remade.

    The variable stays the object that it was, in its place among the variables of its layer.
    """
    variable._initialize(array)
    variable._shape = tuple(array.shape)


def emptier(variables: Iterable[keras.Variable]) -> Callable[[], None]:
    """A function that empties the present values of those variables that were resized since.

    Functions that were traced with them may be anywhere. They raise thereafter.
    """
    before = [(variable, variable._value) for variable in variables]

    def empty() -> None:
        for variable, value in before:
            if variable._value is not value:
                for component in getattr(value, "values", None) or [value]:
                    nothing = tf.zeros([0], component.dtype)
                    tf.raw_ops.AssignVariableOp(resource=component.handle, value=nothing)

    return empty


def restorer(variables: Iterable[keras.Variable]) -> Callable[[], None]:
    """A function that gives variables that were resized their present values again."""
    before = [(variable, variable._value, variable._shape) for variable in variables]

    def restore() -> None:
        for variable, value, shape in before:
            variable._value, variable._shape = value, shape

    return restore


class Penalty(keras.regularizers.Regularizer):
    """A penalty on a variable, which earlier releases of Keras 3 take only as such an object.

    Args:
      function: returns the penalty, from the variable.
    """

    def __init__(self, function: Callable[[Any], tf.Tensor]):
        self.function = function

    def __call__(self, x: Any) -> tf.Tensor:
        return self.function(x)


# ---- checkpoints


class _Checkpointed:
    """The methods by which checkpoints find what a layer has, for one layer."""

    def __init__(self, layer: Layer, items: dict[str, Any]):
        self.layer, self.items = layer, items

    def children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        found = type(self.layer)._trackable_children(self.layer, save_type, **kwargs)
        return {**found, **self.items} if save_type == "checkpoint" else found

    def lookup(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in self.items:
            return self.items[name]
        return type(self.layer)._lookup_dependency(self.layer, name, *args, **kwargs)


def hold_in_checkpoints(layer: Layer, items: dict[str, Any]) -> None:
    """Lets checkpoints hold items under their names, in place of what a layer has there."""
    methods = _Checkpointed(layer, items)
    vars(layer)["_trackable_children"] = methods.children
    vars(layer)["_lookup_dependency"] = methods.lookup


def hold_nothing_else_in_checkpoints(layer: Layer) -> None:
    """Undoes `hold_in_checkpoints`."""
    for name in ("_trackable_children", "_lookup_dependency"):
        vars(layer).pop(name, None)


# ---- masks


def keras_mask(tensor: Any) -> Any:
    """The Keras mask that a tensor carries; None if it carries none."""
    return getattr(tensor, "_keras_mask", None)


def attach_keras_mask(tensor: Any, mask: Any) -> Any:
    """Gives a tensor the mask that Keras's losses look for, and returns it."""
    tensor._keras_mask = mask
    return tensor


# ---- layers


def own_attributes(layer: Layer) -> dict[str, Any]:
    """The attributes of a layer that are not Keras's own, in the order of assignment."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in _keras_attributes() and not name.startswith(_TENSORFLOW_ATTRIBUTES)
    }


@functools.cache
def _keras_attributes() -> frozenset[str]:
    # Explicit names keep the numbers in the names of the user's own models unchanged.
    with tf.init_scope():
        names = set(vars(Layer(name="layer"))) | set(vars(keras.Model(name="model")))
    return frozenset(names | {"_functional", "_layers", "_metrics", "_operations"})


_TENSORFLOW_ATTRIBUTES = (
    *("_self_unconditional", "_self_name_based", "_obj_reference_counts"),
    *("_self_update_uid", "_self_saveable_object_factories"),
)


def books_restorer(layer: Layer) -> Callable[[], None]:
    """A function that gives the books on what a layer holds their present items again."""
    books = [
        (book, dict(book) if isinstance(book, dict) else list(book))
        for name, book in vars(layer).items()
        if name.startswith((*_TENSORFLOW_ATTRIBUTES, "_tracked")) and isinstance(book, (dict, list))
    ]

    def restore() -> None:
        for book, items in books:  # as plain ones: Keras's would track what they are given
            if isinstance(book, dict):
                dict.clear(book)
                dict.update(book, items)
            else:
                list.__setitem__(book, slice(None), items)

    return restore


def all_layers(layer: Layer) -> list[Layer]:
    """A layer and all layers inside it, each once."""
    return list({id(x): x for x in layer._flatten_layers()}.values())


def direct_trainable_weights(layer: Layer) -> list[keras.Variable]:
    """The trainable weights of a layer without those of the layers inside it."""
    return list(layer._trainable_variables) if layer.trainable else []


@contextlib.contextmanager
def open_to_changes(layer: Layer) -> Iterator[None]:
    """A context in which a built layer takes and gives up sublayers, named after its path."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        with layer._open_name_scope():
            yield
    finally:
        if was_locked:
            layer._tracker.lock()


def untrack(layer: Layer, sublayer: Layer) -> None:
    """Takes a sublayer out of the books of a layer."""
    layer._tracker.untrack(sublayer)


def forget_traces(layer: Layer) -> None:
    """Makes each `tf.function` among the attributes and methods of a layer be traced anew."""
    traced_functions.forget_traces(layer, own_attributes(layer).values())


def forget_all_traces(model: Layer) -> None:
    """Forgets what a model and the layers inside it traced, compiled functions too."""
    for layer in all_layers(model):
        forget_traces(layer)
        forget_functions(layer)


def is_graph_network(layer: Any) -> bool:
    """Returns whether a layer is a built Sequential or a Functional model."""
    if isinstance(layer, keras.Sequential):
        return layer._functional is not None
    return isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth")


def runs_its_graph(model: Any) -> bool:
    """Returns whether a call of a model runs its graph, and no `call` of a class of its own."""
    call = getattr(model.call, "__func__", None)
    return is_graph_network(model) and call in (Functional.call, keras.Sequential.call)


def graph_inputs(model: keras.Model) -> Any:
    """The symbolic inputs of a Sequential or Functional model, nested as its call takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model._inputs_struct


def lists_its_layers(layer: Any) -> bool:
    """Returns whether the configuration of a model is that of its layers and graph."""
    if not is_graph_network(layer) or not layer.get_config.__module__.startswith("keras."):
        return False
    return isinstance(layer, keras.Sequential) or functional_like_constructor(type(layer))


def graph_nodes(model: keras.Model) -> list[Any]:
    """The nodes of the graph of a Sequential or Functional model: calls of its layers."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return [node for nodes in graph._nodes_by_depth.values() for node in nodes]


def output_operations(model: keras.Model) -> list[Any]:
    """The layers that the outputs of a Sequential or Functional model come from."""
    return [tensor._keras_history.operation for tensor in model.outputs]


def set_last_dimension(tensor: Any, size: int) -> None:
    """Changes the last dimension of a symbolic tensor."""
    tensor._shape = (*tensor._shape[:-1], size)


def set_built_width(layer: Layer, inputs: int) -> None:
    """Lets a layer of one input be built for another number of features from its configuration."""
    shapes = layer._build_shapes_dict
    if shapes:
        layer._build_shapes_dict = {name: (*shape[:-1], inputs) for name, shape in shapes.items()}


def input_name(tensor: Any) -> str:
    """The name of the input layer that a symbolic input comes from."""
    return tensor._keras_history.operation.name


def output_nodes(model: keras.Model) -> list[Any]:
    """The calls, as nodes of the graph, that the outputs of a graph of layers come from."""
    histories = (tensor._keras_history for tensor in tf.nest.flatten(model.outputs))
    return [h.operation._inbound_nodes[h.node_index] for h in histories]


def output_names(model: keras.Model) -> list[str]:
    """The names of the layers that the outputs of a Sequential or Functional model come from."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return graph.output_names


def recorded_shapes(model: keras.Model) -> dict[str, Any] | None:
    """Nested shapes in which a subclassed model was built, by argument of its `build`."""
    return getattr(model, "_build_shapes_dict", None)


def is_built_throughout(model: keras.Model) -> bool:
    """Returns whether a model and all layers inside it are built."""
    return all(layer.built for layer in all_layers(model))


def compute_in_float32(layer: Layer) -> None:
    """Gives a layer of mixed precision the precision of its variables; quantization stays."""
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[layer.path]
    quantized, separator, _ = policy.name.rpartition("_from_")
    layer._dtype_policy = keras.dtype_policies.get(f"{quantized}{separator}float32")


def lookup_layer(layer: Layer) -> Any:
    """The layer that looks words up for a layer, which may be itself; None if there is none."""
    if isinstance(layer, keras.layers.TextVectorization):
        return layer._lookup_layer
    is_lookup = isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup))
    return layer if is_lookup else None


class AttentionNames(NamedTuple):
    """The names of the attributes of an attention layer.

    Attributes:
      projections: the dense layers of query, key, value and output.
      heads: the number of query heads.
      groups: the number of key and value heads; None if it is the same.
      head_size: the columns of a head in the key, if its kernel has no axis of heads.
      widths: sizes that are proportional to the number of heads, and that its call reads.
      takes_bias: whether it is called with a `position_bias` of all heads.
    """

    projections: tuple[str, str, str, str]
    heads: str
    groups: str | None = None
    head_size: str | None = None
    widths: tuple[str, ...] = ()
    takes_bias: bool = False


def attention_names(cls: type) -> AttentionNames | None:
    """The names of the attributes of Keras's own attention layers; None for other classes."""
    parts = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
    if cls is keras.layers.MultiHeadAttention:
        return AttentionNames(parts, "_num_heads")
    if cls is keras.layers.GroupQueryAttention:
        return AttentionNames(parts, "num_query_heads", "num_key_value_heads")
    return None


def has_gate(layer: Layer) -> bool:
    """Returns whether the heads of an attention layer are multiplied by a gate."""
    return any(getattr(layer, name, False) for name in ("_use_gate", "use_gate"))


def is_quantized(layer: Layer) -> bool:
    """Returns whether a layer computes with quantized weights."""
    return getattr(layer, "quantization_mode", None) is not None


def training_modes() -> tuple[Any, Any]:
    """The values of `training` in the call that runs at the moment, and in the outermost one.

    Those that calls were given decide. Keras's own note of the mode is that of the layer which was
    called before, wherever one is called in another mode than the model. If the outermost call was
    given none, what Keras's own layers hand on are the defaults of their calls, and tell nothing;
    but a call may have True as the default of its own.
    """
    calls = list(_calls())
    if not calls:
        return None, None
    given = [_mode_given_to(frame) for frame in calls]
    outermost = given[-1]
    if outermost is None:
        given = [mode for mode, frame in zip(given, calls) if not _is_from_keras(frame)]
    default = calls[0].f_locals["call_spec"].arguments_dict.get("training")
    told = next((mode for mode in given if mode is not None), None)
    return default if told is None and default is True else told, outermost


def _mode_given_to(call: types.FrameType) -> Any:
    """The `training` that the call of a layer was given; None if it was given none."""
    mode = call.f_locals["call_spec"].user_arguments_dict.get("training")
    around = call.f_back
    if mode is None and around is not None and around.f_code is Layer.__call__.__code__:
        # Keras 3.8 drops it where the layer's own `call` has no such argument.
        mode = around.f_locals.get("kwargs", {}).get("training")
    return mode


def _is_from_keras(call: types.FrameType) -> bool:
    """Returns whether code of Keras or KerasHub made a call of a layer."""
    names = (frame.f_globals["__name__"] for frame, _ in traceback.walk_stack(call.f_back))
    caller = next(name for name in names if name != "keras.src.utils.traceback_utils")
    return caller.startswith(("keras.", "keras_hub."))


def _calls() -> Iterator[types.FrameType]:
    """The calls of layers that run at the moment, the innermost one first."""
    if global_state.get_global_attribute("current_call_ctx") is not None:
        for frame, _ in traceback.walk_stack(None):
            if (
                frame.f_code is Layer.__call__.__wrapped__.__code__
                and "call_spec" in frame.f_locals
            ):
                yield frame


def calling_layer() -> Layer | None:
    """The layer whose `call` runs at the moment, the innermost one; None outside of all."""
    frame = next(_calls(), None)
    return None if frame is None else frame.f_locals["self"]


def registered_class(name: str) -> type | None:
    """The class that is registered under a name, in the scope for custom objects too."""
    return object_registration.get_registered_object(name)


def register_as(cls: type, name: str) -> None:
    """Lets objects of a class be saved under the name of another one, which is registered."""
    object_registration.GLOBAL_CUSTOM_NAMES[cls] = name


def input_specs(model: keras.Model) -> tuple[list[Any], dict[str, Any]]:
    """Specs of the arguments of a model's call, by position and by keyword.

    Raises:
      ValueError: a subclassed model was never called.
    """
    if isinstance(model, Functional):  # of which Keras 3.8 gives a flat list
        signature = [keras.tree.map_structure(export_utils.make_input_spec, model._inputs_struct)]
    else:
        signature = export_utils.get_input_signature(model)
    specs = keras.tree.map_structure(export_utils.make_tf_tensor_spec, signature)
    return list(specs), {}


def store_variables_once(archive: keras.export.ExportArchive) -> None:
    """Lets an archive store each variable of the models that it tracks once.

    It would store those that its endpoints use twice, as Keras's and as TensorFlow's.
    """
    trackable = archive._tf_trackable
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        variables = [tensorflow_variable(variable) for variable in getattr(trackable, name)]
        setattr(trackable, name, variables)


# ---- training


def forget_compilation(model: Layer) -> None:
    """Forgets that a model was compiled, and its compiled functions."""
    if isinstance(model, keras.Model):
        model.compiled = False
        model._compile_loss = model._compile_metrics = model._loss_tracker = None
        if "optimizer" in vars(model):
            del model.optimizer  # `.h5` files would be of None
    forget_functions(model)


def replace_compile_check(model: keras.Model, check: Callable[..., None]) -> None:
    """Lets `check` raise if a model is not compiled, in the place of Keras's own check."""
    vars(model)["_assert_compile_called"] = check


def restore_compile_check(model: Layer) -> None:
    """Gives a model Keras's own check of whether it is compiled again."""
    vars(model).pop("_assert_compile_called", None)


def forget_functions(model: Layer) -> None:
    """Forgets the compiled functions of a model."""
    if isinstance(model, keras.Model):
        for name in ("train_function", "test_function", "predict_function", "generate_function"):
            if hasattr(model, name):  # KerasHub's models alone generate
                setattr(model, name, None)


def count_together(optimizer: keras.optimizers.Optimizer, other: Any) -> None:
    """Lets an optimizer count the steps of another as its own."""
    optimizer._iterations = other._iterations


def variables_without_counter(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables of an optimizer but its counters of steps, of which the first is its own."""
    return [v for v in optimizer._variables[1:] if v is not optimizer._iterations]


def was_built_without(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Returns whether an optimizer is built, and does not know a variable."""
    known = optimizer._trainable_variables if optimizer.built else [variable]
    return all(variable is not other for other in known)


def is_built(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer has made its slots."""
    return bool(inner_optimizer(optimizer).built)


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, list[Any]]:
    """The lists in which an optimizer has a slot for each of its variables, or None, by name."""
    count = len(optimizer._trainable_variables_indices)
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and len(value) == count
        and name not in ("_trainable_variables", "_variables")
        and any(isinstance(slot, keras.Variable) for slot in value)
    }


def slot_index(optimizer: keras.optimizers.Optimizer, variable: Any) -> int | None:
    """The place of a variable's slots in their lists; None if it has none."""
    return optimizer._trainable_variables_indices.get(optimizer._var_key(variable))


def hidden_variables(optimizer: keras.optimizers.Optimizer) -> list[str]:
    """Names of attributes that are variables of an optimizer, but not among those that it lists."""
    return []


def is_decayed(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Returns whether weight decay, if there is any, is for a variable too."""
    return bool(optimizer._use_weight_decay(variable))


def counters(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The scalars that an optimizer, and one that is wrapped in it, keep beside slots."""
    found = []
    for each in dict.fromkeys((optimizer, inner_optimizer(optimizer))):
        hidden = {id(slot) for members in slots(each).values() for slot in members}
        found += [v for v in each._variables if id(v) not in hidden and not len(v.shape)]
    return found


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate of an optimizer: a schedule, or a number."""
    rate = getattr(optimizer, "_learning_rate", None)
    return float(tf.convert_to_tensor(rate)) if is_variable(rate) else rate


def loss_of(model: keras.Model) -> Any:
    """What Keras makes of the loss that a model was compiled with; None if there is none."""
    return model._compile_loss


def task_loss(model: keras.Model, labels: Any, logits: Any, weights: Any) -> tf.Tensor:
    """The loss that a model was compiled with, summed over its outputs, over the replicas."""
    return model._compile_loss(labels, logits, weights)


def metrics_but_losses(model: keras.Model, metrics: list[Any]) -> list[Any]:
    """The metrics of a model without those of its losses, and without ones that are not built."""
    hidden = [model._loss_tracker, *(model._compile_loss.metrics if model._compile_loss else [])]
    compiled = model._compile_metrics
    if compiled is not None and not compiled.built:
        hidden.append(compiled)
    return [metric for metric in metrics if all(metric is not other for other in hidden)]


def update_compiled_metrics(
    model: keras.Model, labels: Any, logits: Any, valid: Any, weights: Any
) -> None:
    """Updates the metrics that a model was compiled with.

    Args:
      model: a compiled model.
      labels: labels by output, in the structure of `logits`.
      logits: logits by output.
      valid: weights of `metrics` in the same structure, in which Keras knows none; or None.
      weights: those of `weighted_metrics`, or None.
    """
    compiled = model._compile_metrics
    if compiled is None:
        return
    if not compiled.built:
        compiled.build(labels, logits)
    by_kind = ((compiled._flat_metrics, valid), (compiled._flat_weighted_metrics, weights))
    for metrics, given in by_kind:
        flat = (compiled._flatten_y(values) for values in (labels, logits, given))
        for metric, *arguments in zip(metrics, *flat):
            if metric is not None:
                metric.update_state(*arguments)


def scales_loss(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer scales the loss, and skips steps that overflow."""
    return inner_optimizer(optimizer) is not optimizer
