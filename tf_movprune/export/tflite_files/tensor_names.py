"""Names of a TFLite file's tensors, for tools that do not read signatures."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from tf_movprune.export.tflite_files.flatbuffer import main_graph, text


def name_as_signature(model: Any) -> None:
    """Gives the tensors of inputs and outputs the names that they have in the signature.

    The converter calls them `serving_default_x:0` and `StatefulPartitionedCall:0`. Names stay
    unique: a tensor that is an input and an output, or several outputs, has the first of its names;
    an output with the name of an input becomes `x_output`; and another tensor that has a name
    already gets a number after it.
    """
    if not model.signatureDefs:
        return
    tensors = main_graph(model).tensors
    names = _names(model.signatureDefs[0])
    taken = {text(tensor.name) for tensor in tensors} | set(names.values())
    for index, tensor in enumerate(tensors):
        if index in names:
            tensor.name = names[index]
        elif text(tensor.name) in names.values():
            tensor.name = _unused(text(tensor.name), taken)
            taken.add(tensor.name)


def _names(signature: Any) -> dict[int, str]:
    """Unique names of the tensors in a signature, by their indices."""
    names: dict[int, str] = {}
    taken = {text(entry.name) for entry in (*(signature.inputs or ()), *(signature.outputs or ()))}
    for entry in signature.inputs or ():
        names[entry.tensorIndex] = text(entry.name)
    for entry in signature.outputs or ():
        if entry.tensorIndex not in names:
            name = text(entry.name)
            if name in names.values():
                name = _unused(f"{name}_output", taken)
                taken.add(name)
            names[entry.tensorIndex] = name
    return names


def _unused(name: str, taken: Container[str]) -> str:
    number, unused = 0, name
    while unused in taken:
        number += 1
        unused = f"{name}_{number}"
    return unused
