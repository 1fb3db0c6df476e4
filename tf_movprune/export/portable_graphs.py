"""Graphs of SavedModels, in operations that other tools have.

`tf.nn.gelu`, and so the exact GELU of every Keras, calls `Erfc`, an operation that ONNX and
TensorFlow.js lack. They have `Erf`, and erfc(x) = 1 − erf(x), but for the tails, which GELU hardly
sees. TensorFlow.js also lacks `Assert`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

_HALVES = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)


def make_portable(path: pathlib.Path, *, keep_assertions: bool = True) -> None:
    """Computes the `Erfc` of each exact GELU in the graphs of a SavedModel as 1 − `Erf`.

    In float32 GELU differs by at most 1.2e-7 times its input. Half precision is computed in
    float32: erfc(x) has more significant bits near 0 than 1 − erf(x). So other uses of it stay.

    Args:
      path: folder of the SavedModel.
      keep_assertions: whether assertions stay.
    """
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    has_changed = False
    for nodes, function in _graphs(saved_model):
        has_changed |= _replace_erfc(nodes, function)
        if not keep_assertions:
            has_changed |= _remove_assertions(nodes)
    if has_changed:
        file.write_bytes(saved_model.SerializeToString(deterministic=True))
        fingerprinting_utils.write_fingerprint(str(path))


def _graphs(saved_model: Any) -> Iterator[tuple[Any, Any]]:
    """The nodes of each graph in a SavedModel, and the function that it is of, or None."""
    for meta_graph in saved_model.meta_graphs:
        yield meta_graph.graph_def.node, None
        for function in meta_graph.graph_def.library.function:
            yield function.node_def, function


def _remove_assertions(nodes: Any) -> bool:
    """Makes assertions nodes that do nothing, in place; returns whether there were any."""
    assertions = [node for node in nodes if node.op == "Assert"]
    for node in assertions:
        controls = [name for name in node.input if name.startswith("^")]
        kept = {"name": node.name, "device": node.device, "input": controls}
        node.CopyFrom(tf.compat.v1.NodeDef(op="NoOp", **kept))
    return bool(assertions)


def _replace_erfc(nodes: Any, function: Any) -> bool:
    """Replaces `Erfc` among the nodes of a graph, in place; returns whether there were any."""
    kept, renamed = [], {}
    taken = {node.name for node in nodes}
    in_gelu = _names_in_gelu(nodes, function)
    for node in nodes:
        if node.name not in in_gelu:
            kept.append(node)
            continue
        replacement = _Replacement(node, taken, function is not None)
        kept += replacement.nodes
        renamed[f"{node.name}:y:0"] = replacement.output
    if not renamed:
        return False
    copies = [tf.compat.v1.NodeDef.FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(copies)
    if function is not None:  # there the name of a tensor has that of its operation's output
        for node in nodes:
            for i, name in enumerate(node.input):
                node.input[i] = renamed.get(name, name)
        for key, name in function.ret.items():
            function.ret[key] = renamed.get(name, name)
    return True


def _names_in_gelu(nodes: Any, function: Any) -> set[str]:
    """Names of the `Erfc` that are nothing but factors in (k·x)·erfc((−x)·c)."""
    by_name = {node.name: node for node in nodes}
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(_producer(name), []).append(node)
    returned = set(map(_producer, function.ret.values())) if function is not None else set()

    def inputs_of(node: Any) -> list[Any]:
        return [by_name[_producer(name)] for name in node.input if _producer(name) in by_name]

    def is_in_gelu(node: Any) -> bool:
        scaled = by_name.get(_producer(node.input[0]))
        if scaled is None or scaled.op != "Mul" or node.name in returned:
            return False
        negated = [i for i in inputs_of(scaled) if i.op == "Neg"]
        if not negated:
            return False
        x = negated[0].input[0]
        products = readers.get(node.name, [])
        return bool(products) and all(
            product.op == "Mul" and any(i.op == "Mul" and x in i.input for i in inputs_of(product))
            for product in products
        )

    return {node.name for node in nodes if node.op == "Erfc" and is_in_gelu(node)}


def _producer(name: str) -> str:
    """The name of the node that gives a tensor, or that an edge of control comes from."""
    return name.lstrip("^").split(":")[0]


class _Replacement:
    """The nodes that stand in for one `Erfc`; the last has its name.

    Attributes:
      nodes: their definitions.
      output: name of the tensor that they give, as other nodes of a function call it.
    """

    def __init__(self, node: Any, taken: set[str], is_function: bool):
        self._node, self._taken, self._is_function = node, taken, is_function
        self.nodes: list[Any] = []
        (x, *controls), dtype = node.input, node.attr["T"].type
        computed = tf.float32.as_datatype_enum if dtype in _HALVES else dtype
        if computed != dtype:
            x = self._add("Cast", "to_float32", [x], "y", SrcT=dtype, DstT=computed)
        one = self._add("Const", "one", controls, "output")
        value = tf.make_tensor_proto(1.0, tf.as_dtype(computed))
        self.nodes[-1].attr["value"].tensor.CopyFrom(value)
        self.nodes[-1].attr["dtype"].type = computed
        erf = self._add("Erf", "erf", [x], "y", T=computed)
        if computed != dtype:
            erfc = self._add("Sub", "erfc", [one, erf], "z", T=computed)
            self.output = self._add("Cast", None, [erfc], "y", SrcT=computed, DstT=dtype)
        else:
            self.output = self._add("Sub", None, [one, erf], "z", T=computed)

    def _add(
        self, op: str, suffix: str | None, inputs: list[str], output: str, **types: int
    ) -> str:
        """Adds a node, and returns the name of its output."""
        added = tf.compat.v1.NodeDef(op=op, device=self._node.device, input=inputs)
        added.name = self._node.name if suffix is None else self._free_name(suffix)
        for key, value in types.items():
            added.attr[key].type = value
        self.nodes.append(added)
        return f"{added.name}:{output}:0" if self._is_function else added.name

    def _free_name(self, suffix: str) -> str:
        name = f"{self._node.name}/{suffix}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
