"""Matrices of 4 bits in TFLite files."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_movprune.export.tflite_files.flatbuffer import main_graph
from tf_movprune.export.tflite_files.matrices import matrices_of, packed, values_of

_LARGEST_INT8, _LARGEST_INT4 = 127, 7


def store_in_int4(model: Any) -> int:
    """Rounds int8 matrices of fully connected layers to int4, in place.

    `q4 = round(q8 · 7 / 127)` with the scale of each output times 127 / 7: the largest weight of an
    output stays what it is, and zeros stay zeros. Rounding twice moves a weight by at most 1/36 of
    a step more than rounding the float would. Everything else stays int8, embeddings for example,
    and so do the versions of operators, which old runtimes refuse: without that, some of them
    would read int4 as int8.

    Args:
      model: a TFLite file of int8, with a scale for each output.

    Returns:
      The number of matrices that are int4 now.
    """
    graph, count = main_graph(model), 0
    for index in matrices_of(model, graph):
        tensor = graph.tensors[index]
        if tensor.type != schema.TensorType.INT8:
            continue  # too small for the converter
        values = np.rint(values_of(model, tensor) * (_LARGEST_INT4 / _LARGEST_INT8))
        model.buffers[tensor.buffer].data = packed(values.astype(np.int8))
        scales = np.asarray(tensor.quantization.scale, np.float32)
        tensor.quantization.scale = scales * np.float32(_LARGEST_INT8 / _LARGEST_INT4)
        tensor.type = schema.TensorType.INT4
        count += 1
    return count
