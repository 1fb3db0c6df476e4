"""The layers that a Keras 3 model's outputs come from, read off its forward pass.

An output comes from the last prunable kernel on its way, whatever layer holds it: activations,
normalization and residual connections may follow. The model is traced once on inputs like its own.
If it cannot be traced, the last of its layers is taken for the output layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_movprune.core.data_flow import DataFlow, resources
from tf_movprune.core.traced_functions import inlined
from tf_movprune.core.user_warnings import warn
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import is_prunable, kernel_places
from tf_movprune.keras3.layer_tree import walk


class Outputs(NamedTuple):
    """The layers that a model's outputs come from, as far as they are known.

    Attributes:
      layers: ids of the output layers.
      other_kernels: ids of the trainable matrices that multiply data and belong to no layer that
        can be pruned; None if the model was not traced.
    """

    layers: frozenset[int] = frozenset()
    other_kernels: frozenset[int] | None = None


def find_outputs(model: Layer) -> Outputs:
    """Finds where the outputs of a model come from. Composite layers have none, as parts of models.

    Warns if a model cannot be traced, and its output layer was guessed.
    """
    if not isinstance(model, keras.Model):
        return Outputs()
    prunable = {path: x for path, x in walk(model, is_prunable).items() if is_prunable(x)}
    try:
        return _read_off(model, prunable)
    except Exception as error:  # whatever a user's call raises in a graph
        reason = str(error).strip().split("\n")[0].rstrip(".")
    if len(prunable) < 2:
        return Outputs()
    path, layer = list(prunable.items())[-1]
    warn(
        f"{path} is taken for the output layer of {type(model).__name__} {model.name!r} and stays "
        f"dense, as the last of its layers, because the model cannot be traced: {reason}. Choose "
        "layers with a pruning_policy or patterns, if it is another."
    )
    return Outputs(frozenset([id(layer)]))


def _read_off(model: keras.Model, prunable: dict[str, Layer]) -> Outputs:
    layers: dict[int, int] = {}  # the layer of each prunable kernel, both by id
    owned: set[int] = set()
    for layer in prunable.values():
        if layer.built:
            weights = (place.variable for place in kernel_places(layer))
            layers.update((id(compat.tensorflow_variable(w)), id(layer)) for w in weights)
            owned.update(id(compat.tensorflow_variable(w)) for w in layer.weights)
    variables = {id(compat.tensorflow_variable(w)): w for w in model.trainable_weights}
    others = {key: id(w) for key, w in variables.items() if key not in owned and is_matrix(w)}
    everything = {id(v): v for w in model.weights for v in [compat.tensorflow_variable(w)]}
    tracked = [v for key, v in everything.items() if key in layers or key in others]
    graph = _trace(model).graph
    flow = DataFlow(graph, resources(tracked), set(layers))
    found = set().union(*map(flow.last_kernels, graph.outputs))
    if not found:
        raise ValueError("its outputs come from no kernel by way of TensorFlow operations")
    used = set().union(*flow.consumed.values())
    return Outputs(
        frozenset(layers[key] for key in found if key in layers),
        frozenset(weight for key, weight in others.items() if key in used),
    )


def _trace(model: keras.Model) -> Any:
    """The forward pass in inference, as a function that was traced."""
    args, kwargs = compat.input_specs(model)

    def forward(*args: Any, **kwargs: Any) -> list[tf.Tensor]:
        outputs = model(*args, **kwargs, training=False)
        return [x for x in tf.nest.flatten(outputs, expand_composites=True) if tf.is_tensor(x)]

    with inlined():
        return tf.function(forward, autograph=False).get_concrete_function(*args, **kwargs)


def is_matrix(variable: Any) -> bool:
    """Returns whether a variable has two axes and more, apart from those of size 1."""
    return sum(size > 1 for size in variable.shape) > 1
