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

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import tensorflow as tf

from tf_movprune.keras2 import hugging_face
from tf_movprune.keras2.compat import keras
from tf_movprune.keras2.forward_pass import trace
from tf_movprune.keras2.kernel_attributes import prunable_weights
from tf_movprune.keras2.layer import is_prunable
from tf_movprune.keras2.layer_tree import LayerTree

_SIZES = ("Shape", "ShapeN", "Size", "Rank")  # results do not depend on the values of tensors
_PRODUCTS = ("MatMul", "Einsum", "Conv", "XlaDot")  # parts of the names of operations


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
    flow = _Flow(
        graph,
        _resources(w for w in tree.root.weights if id(w) in layers or id(w) in others),
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


def _resources(weights: Iterable[Any]) -> dict[int, int]:
    """The ids of weights by those of the resources behind them: one on each device if mirrored."""
    return {
        id(component.handle): id(weight)
        for weight in weights
        for component in getattr(weight, "values", (weight,))
    }


class _Flow:
    """How data and kernels meet in a graph.

    Args:
      graph: graph of a function.
      kernels: keys of kernels, by the ids of the tensors outside of the graph that it captures.
      prunable: keys of the kernels that count wherever they meet data. The others count where they
        multiply it.

    Attributes:
      consumed: keys of the kernels that each operation applies to data, by operation.
    """

    def __init__(self, graph: Any, kernels: Mapping[int, int], prunable: Set[int]):
        self.consumed: dict[tf.Operation, frozenset[int]] = {}
        self._has_data: set[tf.Operation] = set()
        captures = {
            inner.op: frozenset([kernels[id(outer)]] if id(outer) in kernels else [])
            for outer, inner in graph.captures
        }
        inputs = {tensor.op for tensor in graph.inputs}
        made_of: dict[tf.Operation, frozenset[int]] = {}  # operations without data
        for op in graph.get_operations():  # in the order in which they were made
            parents = list(_parents(op))
            if op in captures:
                made_of[op] = captures[op]
            elif op in inputs or any(parent in self._has_data for parent in parents):
                if op.type not in _SIZES:
                    self._has_data.add(op)
                    keys = _union(made_of, parents)
                    if not any(product in op.type for product in _PRODUCTS):
                        keys &= prunable
                    if keys:
                        self.consumed[op] = keys
            else:
                made_of[op] = _union(made_of, parents)

    def last_kernels(self, output: tf.Tensor) -> set[int]:
        """Keys of the kernels from which an output comes through no other kernel."""
        reached = self._ancestors([_source(output)], stop=self.consumed)
        last = [op for op in reached if op in self.consumed]
        read = self._ancestors([parent for op in last for parent in _parents(op)])
        return set().union(*(self.consumed[op] for op in last if op not in read))

    def _ancestors(
        self, ops: Iterable[tf.Operation], stop: Mapping[tf.Operation, Any] | None = None
    ) -> set[tf.Operation]:
        """Operations and those before them that have data, up to those in `stop`."""
        found: set[tf.Operation] = set()
        pending = list(ops)
        while pending:
            op = pending.pop()
            if op in self._has_data and op not in found:
                found.add(op)
                if not stop or op not in stop:
                    pending.extend(_parents(op))
        return found


def _parents(op: tf.Operation) -> Iterator[tf.Operation]:
    return (_source(tensor) for tensor in op.inputs)


def _source(tensor: tf.Tensor) -> tf.Operation:
    """The operation that computes a tensor, before those that only name or group tensors."""
    while tensor.op.type in ("Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor.op


def _union(made_of: Mapping[Any, frozenset[int]], ops: Iterable[tf.Operation]) -> frozenset[int]:
    return frozenset().union(*(made_of.get(op, frozenset()) for op in ops))
