"""The weights of a model of any Keras version, by name."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from tf_movprune.core.variable_names import plain_name
from tf_movprune.core.vocabulary import Vocabulary

PARTS = ("embeddings", "layers", "other")
"""Parts of a model whose sizes are reported separately.

Embeddings are the embedding layers, and all that Hugging Face's models hold under `embeddings`;
layers are those that are pruned by default, with their biases, and whole blocks of Hugging Face's
encoders and decoders, whose pruning policies may take them; the output layer, poolers, recurrent
layers, normalization between layers and vocabularies are other.
"""


class NamedWeight(NamedTuple):
    """A weight of a model.

    Attributes:
      name: its name.
      part: one of `PARTS`.
      array: its values.
      is_exact: whether it must not be rounded, because it is no matrix to multiply with.
    """

    name: str
    part: str
    array: np.ndarray
    is_exact: bool = False


def unique_names(names: Iterable[str]) -> list[str]:
    """The names of variables without `:0`, with `#1`, `#2`, ... after those that repeat others."""
    found: dict[str, None] = {}
    for given in names:
        name = base = plain_name(given)
        count = 0
        while name in found:
            count += 1
            name = f"{base}#{count}"
        found[name] = None
    return list(found)


def renumbered(names: Iterable[str]) -> list[str]:
    """Names with layers numbered as in a new process, in the order in which they occur."""
    ranks: dict[tuple[str, str], dict[str, int]] = {}

    def rank(parent: str, component: str) -> str:
        base = re.sub(r"_\d+$", "", component)
        among = ranks.setdefault((parent, base), {})
        number = among.setdefault(component, len(among))
        return f"{base}_{number}" if number else base

    def of(name: str) -> str:
        components = name.split("/")
        parents = ["/".join(components[:i]) for i in range(len(components))]
        return "/".join(map(rank, parents, components))

    return [of(name) for name in names]


class Assignable(Protocol):
    """A weight that takes values: a variable of TensorFlow, or the vocabulary of a layer."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tf.TensorShape: ...

    @property
    def dtype(self) -> tf.DType: ...

    def assign(self, value: Any) -> Any: ...


_Weight = TypeVar("_Weight", bound=Assignable)


def matching(
    model_name: str,
    weights: Mapping[str, _Weight],
    specs: Mapping[str, tf.TensorSpec],
    path: str | pathlib.Path,
) -> dict[str, _Weight]:
    """The weights of a model by their names in a file.

    Names may differ in the numbers that Keras gives to layers, if their order is the same; and in
    the layers around them, which Keras 3 leaves out of the names in models from whole files.

    Args:
      model_name: name of the model, for messages.
      weights: its weights by name.
      specs: shapes and dtypes of the weights in the file by name.
      path: path of the file, for messages.

    Raises:
      ValueError: names, shapes or dtypes are not those of the model. Floats may be of another
        precision.
    """
    in_file, in_model = list(specs), list(weights)
    if set(in_file) != set(in_model):
        if not _differ_around(in_file, in_model):
            in_file, in_model = renumbered(in_file), renumbered(in_model)
        if _differ_around(in_file, in_model):
            in_model = in_file
    places = {name: i for i, name in enumerate(in_model)}
    missing = [name for name in in_model if name not in set(in_file)]
    extra = [name for name in in_file if name not in places]
    if missing or extra or not len(in_file) == len(in_model) == len(set(in_file)):
        raise ValueError(
            f"The weights in {path} are not those of {model_name!r}. Missing in the file: "
            f"{_listed(missing)}. Missing in the model: {_listed(extra)}. (Numbers of layers are "
            "counted anew here.) Build the model that was written, and call it once."
        )
    ordered = list(weights.values())
    found = {name: ordered[places[place]] for name, place in zip(specs, in_file)}
    for kind in ("shape", "dtype"):
        wrong = [
            f"{weight.name} {_shown(getattr(weight, kind))}, in the file "
            f"{_shown(getattr(specs[name], kind))}"
            for name, weight in found.items()
            if not _fits(specs[name], weight, kind)
        ]
        if wrong:
            raise ValueError(
                f"{kind.capitalize()}s in {path} are not those of {model_name!r}: {_listed(wrong)}."
            )
    return found


def _differ_around(names: Sequence[str], others: Sequence[str]) -> bool:
    """Returns whether names are in one order, and those of one side are the ends of the other's.

    There is no second way then to pair them so.
    """
    if not len(names) == len(others) == len(set(names)):
        return False
    return _are_ends(names, others) or _are_ends(others, names)


def _are_ends(short: Sequence[str], long: Sequence[str]) -> bool:
    ends, wholes = [f"/{name}" for name in short], [f"/{name}" for name in long]
    if not all(whole.endswith(end) for whole, end in zip(wholes, ends)):
        return False
    # Two ways to pair them differ in two names that change places, as the ends of one name are
    # ends of each other.
    return not any(
        wholes[j].endswith(ends[i]) and wholes[i].endswith(ends[j])
        for i in range(len(ends))
        for j in range(i)
    )


def assign(
    model_name: str,
    weights: Mapping[str, Assignable],
    arrays: Mapping[str, np.ndarray],
    path: str | pathlib.Path,
) -> None:
    """Gives weights the values of a file.

    Args:
      model_name: name of the model, for messages.
      weights: what `matching` returned.
      arrays: arrays by name.
      path: path of the file, for messages.

    Raises:
      ValueError: a weight cannot have the values of its array. No weight has changed then.
    """
    try:
        values = {name: _value_for(weight, arrays[name]) for name, weight in weights.items()}
    except ValueError as error:
        raise ValueError(f"{path} does not fit {model_name!r}: {error}") from error
    for name, weight in weights.items():
        weight.assign(values[name])


def _value_for(weight: Assignable, array: np.ndarray) -> Any:
    if isinstance(weight, Vocabulary):
        return weight.checked(array)
    dtype = weight.dtype.as_numpy_dtype
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        value = array.astype(dtype)
    if np.isfinite(array).all() and not np.isfinite(value).all():
        raise ValueError(f"{weight.name} of {weight.dtype.name} overflows with {array.dtype}.")
    return value


def _fits(spec: tf.TensorSpec, weight: Assignable, kind: str) -> bool:
    if kind == "shape":
        return weight.shape.is_compatible_with(spec.shape)
    return spec.dtype == weight.dtype or (spec.dtype.is_floating and weight.dtype.is_floating)


def _shown(value: tf.TensorShape | tf.DType) -> str:
    return value.name if isinstance(value, tf.DType) else str(value)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none") + more
