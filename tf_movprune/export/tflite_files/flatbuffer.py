"""TFLite files as objects of TensorFlow's schema, which can be changed and written again."""

from __future__ import annotations

from typing import Any

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema


def read(data: bytes) -> Any:
    """The `ModelT` of a file. Its buffers are views of `data`."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


def written(model: Any) -> bytes:
    """The file of a `ModelT`, with buffers where LiteRT wants them."""
    for buffer in model.buffers:
        buffer.__class__ = _AlignedBuffer
    size = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(size + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _AlignedBuffer(schema.BufferT):
    """Buffer that starts at a multiple of 16 bytes: the schema asks it, its `Pack` ignores it."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  its name in the schema
        if self.data is not None:
            builder.Prep(16, len(self.data))
        return super().Pack(builder)


def main_graph(model: Any) -> Any:
    """The subgraph that the signature runs; others are the bodies of loops and branches."""
    return model.subgraphs[model.signatureDefs[0].subgraphIndex if model.signatureDefs else 0]


def builtin(code: Any) -> int:
    """The `BuiltinOperator` of an operator code. Old files have a byte for it, new ones more."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def builtin_of(model: Any, operator: Any) -> int:
    """The `BuiltinOperator` of an operator."""
    return builtin(model.operatorCodes[operator.opcodeIndex])


def readers_of(graph: Any, tensor: int) -> list[Any]:
    """The operators that read a tensor."""
    return [operator for operator in graph.operators if tensor in operator.inputs]


def operator_code(model: Any, operator: int, version: int) -> int:
    """Index of the code of a `BuiltinOperator` in a version, which is added if there is none."""
    for i, code in enumerate(model.operatorCodes):
        if code.builtinCode == operator and code.version == version:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = operator
    code.deprecatedBuiltinCode = min(operator, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def text(name: Any) -> str:
    """A name, which files have as bytes, as a string."""
    return name.decode() if isinstance(name, bytes) else name
