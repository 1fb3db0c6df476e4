"""Physical removal of the attention heads and neurons that pruning left empty, in Keras 3."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from tf_movprune.core.archives import read_member
from tf_movprune.core.arguments import check_integer
from tf_movprune.core.empty_units import (
    Cut,
    KeptUnits,
    Matrices,
    check_has_weights,
    fold_empty_units,
    removed_of_each_kind,
    warn_of_nothing_removed,
)
from tf_movprune.core.granularity import HEADS
from tf_movprune.core.json_files import parse_object, read_object
from tf_movprune.core.user_warnings import warn
from tf_movprune.core.wording import listed
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.attention import can_lose_heads, fit_attention
from tf_movprune.keras3.compacted_layer import record_sizes, register_classes
from tf_movprune.keras3.resizing import resize_dense, restorer
from tf_movprune.keras3.same_outputs import Example
from tf_movprune.keras3.saving import check_stripped
from tf_movprune.keras3.training_guard import unguard_training
from tf_movprune.keras3.units import find_units


def compact(model: keras.Model, *, multiple_of: int = 1) -> keras.Model:
    """Removes empty heads and neurons in place; see `tf_movprune.compact`."""
    return compact_and_tell(model, multiple_of=multiple_of)[0]


def compact_and_tell(model: keras.Model, *, multiple_of: int = 1) -> tuple[keras.Model, Cut]:
    """Does `compact`, and tells how the weights were cut."""
    check_stripped(model)
    multiple_of = check_integer("multiple_of", multiple_of, example=8, minimum=1)
    check_has_weights(model)
    units, weights = fold_empty_units(find_units(model), multiple_of=multiple_of)
    _warn_of_heads_that_stay(model)
    if all(unit.keeps_all for unit in units):
        warn_of_nothing_removed(model.name)
        return model, Cut(units)
    units, weights = _fitting(model, units, weights, multiple_of=multiple_of)
    restore, empty = _restorer(model, units), compat.emptier(model.variables)
    try:
        record_sizes(model, shrink(units, weights))
        compat.forget_compilation(model)
        compat.forget_all_traces(model)
        unguard_training(model)  # nothing that could come back is left
    except BaseException:
        restore()
        raise
    empty()
    return model, Cut(units)


@contextlib.contextmanager
def compacted(
    model: keras.Model, rows: int = 1, min_sparsity: float = 0.0
) -> Iterator[tuple[keras.Model, dict[str, tuple[int, int]]]]:
    """Compacts a model for the duration of a context.

    Args:
      model: built model without pruned layers.
      rows: rows of a block. If at least `min_sparsity` of the blocks that are left in a kernel are
        zero, only whole blocks are removed from it, so that the other blocks stay what they are.
      min_sparsity: fraction of the blocks.

    Yields:
      The model, and the numbers of removed and of all `"heads"` and `"neurons"`.
    """
    sizes: dict[str, Any] = {"rows": rows, "min_sparsity": min_sparsity}
    units, weights = fold_empty_units(find_units(model), **sizes)
    units, weights = _fitting(model, units, weights, **sizes)
    removed = removed_of_each_kind(units)
    restore = _restorer(model, units)
    try:
        shrink(units, weights)
        yield model, removed
    finally:
        restore()


def _warn_of_heads_that_stay(model: keras.Model) -> None:
    """Warns of empty heads in attention layers that cannot lose any."""
    groups = [
        group
        for group in find_units(model, to_remove=False)
        if group.owner is not None and not can_lose_heads(group.owner)
    ]
    units, _ = fold_empty_units(groups)
    paths = [unit.group.owner.path for unit in units if not unit.keeps_all]
    if paths:
        warn(
            f"The empty heads of {listed(paths)} stay: these layers compute the position bias of "
            "all heads, which the layers after them take."
        )


def _fitting(
    model: keras.Model, units: list[KeptUnits], weights: Matrices, **sizes: Any
) -> tuple[list[KeptUnits], Matrices]:
    """The units without those that something outside of the graph reads, and their matrices.

    Args:
      model: the model, which is as before thereafter.
      units: all heads and neurons.
      weights: their matrices.
      **sizes: arguments of `fold_empty_units`, by which they were chosen.

    Raises:
      ValueError: the outputs change, whatever single layer keeps its units.

    Warns of empty units that stay, and if outputs cannot be compared that hang on code of a user's.
    """
    if all(unit.keeps_all for unit in units):
        return units, weights
    example = Example(model)
    unseen = example.unseen_code()
    if unseen:
        warn(
            f"The outputs of {model.name!r} with and without its empty heads and neurons were not "
            "compared: no inputs can be made up for it, or they are random. Compare them yourself, "
            f"as code of {listed(map(repr, unseen))} may read other layers than the graph shows."
        )

    def fit(units: Sequence[KeptUnits], weights: Matrices) -> bool:
        restore = _restorer(model, units)
        try:
            shrink(units, weights)
            return example.is_unchanged()
        finally:
            restore()

    if fit(units, weights):
        return units, weights
    groups = [unit.group for unit in units]
    stay = [group for group in groups if not fit(*fold_empty_units([group], **sizes))]
    units, weights = fold_empty_units([x for x in groups if x not in stay], **sizes)
    if not stay or not fit(units, weights):
        raise ValueError(
            f"The outputs of {model.name!r} change when its empty heads and neurons are removed, "
            "and it was left as it is. Does its code read the sizes of layers, or their weights?"
        )
    names = listed(repr((group.owner or group.sources[0]).name) for group in stay)
    warn(
        f"The empty heads and neurons of {names} stay: without them {model.name!r} would give "
        "other outputs or fail, as something besides the layers that follow counts on them, such "
        "as a function in a Lambda layer, or an attention mask with an axis of heads."
    )
    return units, weights


def _restorer(model: keras.Model, units: Sequence[KeptUnits]) -> Callable[[], None]:
    tensors = [tensor for unit in units for tensor in unit.group.tensors]
    return restorer(compat.all_layers(model), tensors)


def shrink(units: Sequence[KeptUnits], weights: Matrices) -> set[int]:
    """Gives layers their smaller matrices. Returns the ids of the layers."""
    layers = {id(x): x for unit in units for x in (*unit.sources, unit.reader)}
    shapes = {key: list(layer.kernel.shape) for key, layer in layers.items()}
    for unit in units:
        for layer, axis in unit.group.axes:
            shapes[id(layer)][axis] = shapes[id(layer)][axis] // unit.group.size * len(unit.kept)
    changed = {key for key, layer in layers.items() if not weights[key].is_that_of(layer)}
    for key in changed:
        layer, matrix, shape = layers[key], weights[key], shapes[key]
        bias = matrix.bias
        if bias is not None:
            bias = bias.reshape(shape[len(shape) - len(layer.bias.shape) :])
        resize_dense(layer, matrix.to_kernel(shape), bias)
    for unit in units:
        if unit.keeps_all:
            continue
        if unit.group.kind == HEADS:
            fit_attention(unit.group.owner, unit.kept.tolist())
        for tensor in unit.group.tensors:
            compat.set_last_dimension(tensor, len(unit.kept))
    return changed


def load_compacted(
    path: str | os.PathLike[str], model_class: type[keras.Model] | None = None
) -> keras.Model:
    """Loads a compacted Keras 3 model from a `.keras` file or a preset of KerasHub.

    Args:
      path: file that `save` wrote, or folder that `save_to_preset` wrote.
      model_class: class of KerasHub whose `from_preset` loads the folder, if it is not the one that
        was saved.

    Raises:
      ValueError: no compacted model is there, or a class that it is made of is not known.
    """
    path = pathlib.Path(path)
    config, what = _configuration(path)
    if "keras_hub" in json.dumps(config):
        importlib.import_module("keras_hub")  # registers its classes
    if not register_classes(config):
        if path.is_dir():
            raise ValueError(
                f"{what} is not that of a compacted model. Load it with from_pretrained or "
                "from_preset."
            )
        return keras.saving.load_model(path)  # its layers tell their sizes themselves
    if not path.is_dir():
        return keras.saving.load_model(path)
    cls: Any = model_class or compat.registered_class(str(config[0].get("registered_name")))
    if not hasattr(cls, "from_preset"):
        raise ValueError(f"{what} names {cls!r}, which is no class of KerasHub's models.")
    return keras_hub.load_preset(path, cls)


def check_model_class(model_class: Any) -> None:
    """Raises TypeError if a class is given and is none of KerasHub's."""
    if model_class is not None and not hasattr(model_class, "from_preset"):
        raise TypeError(f"model_class must be a class of KerasHub's models, got {model_class!r}.")


def _configuration(path: pathlib.Path) -> tuple[list[Any], str]:
    """The configurations in a file or folder, that of the whole model first, and their name."""
    what = f"The configuration in {path}"
    if path.is_dir():
        files = [path / "task.json", path / "config.json"]
        return [read_object(file) for file in files if file.is_file()], what
    try:
        return [parse_object(read_member(path, "config.json"), path)], what
    except ValueError as error:
        raise ValueError(
            f"{path} is no .keras file and no folder of a model, or damaged. Pass what save or "
            "save_to_preset of a compacted Keras 3 model wrote."
        ) from error
