"""How data and kernels meet in the graph of a model's forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import tensorflow as tf

_SIZES = ("Shape", "ShapeN", "Size", "Rank")  # results do not depend on the values of tensors
_PRODUCTS = ("MatMul", "Einsum", "Conv", "XlaDot")  # parts of the names of operations


def resources(weights: Iterable[Any]) -> dict[int, int]:
    """The ids of weights by those of the resources behind them: one on each device if mirrored."""
    return {
        id(component.handle): id(weight)
        for weight in weights
        for component in getattr(weight, "values", (weight,))
    }


class DataFlow:
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
