"""The layers that a model's outputs come from, read off its forward pass.

An output of a model comes from the last prunable kernel on its way: from each one that acts on the
data and whose result no other kernel reads before it becomes this output. Normalisation,
activations, scaling, reshapes and residual connections may follow. The layer of the kernel may be
held by anything: a wrapper such as `TimeDistributed`, a head of one's own, a nested model, a list.
If the last matrix that multiplies the data belongs to no layer that can be pruned, the output comes
from no layer. If one operation holds several layers, as a `tf.while_loop` does, all of them count.

The model is traced once on inputs like those of its first call. If it was never called or cannot be
traced, the last of its layers is taken for the output layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tf_movprune.core.data_flow import DataFlow, resources
from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.forward_pass import trace
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree


class Outputs(NamedTuple):
    """The layers that a model's outputs come from, as far as they are known.

    Attributes:
      layers: ids of the output layers.
      other_kernels: trainable matrices that multiply data and belong to no layer that can be
        pruned; None if the model was not traced.
      guessed: path of the layer that was taken for the output layer without tracing, or None.
      reason: why the model was not traced.
    """

    layers: frozenset[int] = frozenset()
    other_kernels: tuple[tf.Variable, ...] | None = None
    guessed: str | None = None
    reason: str = ""


def find_outputs(tree: LayerTree) -> Outputs:
    """Finds where the outputs of a model come from.

    Composite layers have no output layer, as they are parts of a model, and neither have Hugging
    Face models, of which encoder layers alone are chosen.
    """
    model = tree.root
    if not isinstance(model, keras.Model) or hugging_face.is_hugging_face(model):
        return Outputs()
    try:
        return _read_off(tree, trace(model).graph)
    except Exception as error:  # whatever a user's call raises in a graph
        reason = _reason(error)
    prunable = [(path, layer) for path, layer in tree.walk(is_prunable) if is_prunable(layer)]
    if len(prunable) < 2:
        return Outputs(reason=reason)
    path, layer = prunable[-1]
    is_certain = isinstance(model, keras.Sequential) and any(layer is x for x in model.layers)
    return Outputs(frozenset([id(layer)]), None, None if is_certain else path, reason)


def _reason(error: Exception) -> str:
    """The first line of an error, without Keras's line on the layer in which it was raised."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered"):
        lines = lines[1:]
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _read_off(tree: LayerTree, graph: Any) -> Outputs:
    layers: dict[int, int] = {}  # the layer of each prunable kernel, both by id
    owned: set[int] = set()  # all weights of these layers
    for _, layer in tree.walk(is_prunable):
        if is_prunable(layer) and layer.built:
            layers.update((id(weight), id(layer)) for weight in prunable_weights(layer))
            owned.update(id(weight) for weight in layer.weights)
    others = {id(w): w for w in tree.root.trainable_weights if id(w) not in owned and is_matrix(w)}
    flow = DataFlow(
        graph,
        resources(w for w in tree.root.weights if id(w) in layers or id(w) in others),
        set(layers),
    )
    found = set().union(*map(flow.last_kernels, graph.outputs))
    if not found:
        raise ValueError("its outputs come from no kernel by way of TensorFlow operations")
    used = set().union(*flow.consumed.values())
    return Outputs(
        frozenset(layers[key] for key in found if key in layers),
        tuple(weight for key, weight in others.items() if key in used),
    )


def is_matrix(weight: tf.Variable) -> bool:
    """Returns whether a weight has two axes and more, apart from those of size 1."""
    return sum(size > 1 for size in weight.shape) > 1
