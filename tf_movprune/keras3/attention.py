"""The heads of attention layers of Keras and KerasHub, and fewer of them.

A group is a key and value head with the query heads that share it. If none share, it is one head.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import keras

from tf_movprune.core.matrix_layout import layout_of
from tf_movprune.keras3 import compat, keras_hub
from tf_movprune.keras3.compat import AttentionNames, Layer


def names_of(layer: Any) -> AttentionNames | None:
    """The names of the attributes of an attention layer; None for any other layer."""
    plain = type(layer).__bases__[1] if isinstance(layer, _Smaller) else type(layer)
    return compat.attention_names(plain) or keras_hub.attention_names(plain)


def has_known_heads(layer: Any) -> bool:
    """Returns whether a layer is built, and an attention layer whose heads can be told apart."""
    names = names_of(layer)
    if names is None or not layer.built or compat.has_gate(layer):
        return False
    others = (names.groups, names.head_size, *names.widths)
    needed = (*names.projections, names.heads, *filter(None, others))
    return all(hasattr(layer, name) for name in needed)  # as releases of KerasHub differ


def projections(layer: Any) -> tuple[Layer, ...]:
    """The dense layers of query, key, value and output of a built attention layer."""
    return tuple(getattr(layer, name) for name in _names(layer).projections)


def query_heads_of_group(layer: Any) -> int:
    """The number of query heads that share a key and a value head."""
    return getattr(layer, _names(layer).heads) // group_count(layer)


def group_count(layer: Any) -> int:
    """The number of groups that an attention layer computes with."""
    names = _names(layer)
    return getattr(layer, names.groups or names.heads)


def can_lose_heads(layer: Any) -> bool:
    """Returns whether heads can be removed: none if other layers take its bias of all heads."""
    return not getattr(layer, "use_relative_attention_bias", False)


def kept_heads(layer: Any) -> Sequence[int] | None:
    """The places of the groups that are left, among all before; None if all are."""
    return vars(layer).get(_KEPT)


def groups_in_kernels(layer: Any) -> int:
    """The number of groups that the dense layers of an attention layer have."""
    names = _names(layer)
    key = getattr(layer, names.projections[1])
    columns = key.kernel.shape[layout_of(key).columns[0]]
    return columns if names.head_size is None else columns // getattr(layer, names.head_size)


def fit_attention(layer: Any, kept: Sequence[int]) -> None:
    """Gives an attention layer the groups that its dense layers have.

    Args:
      layer: attention layer with resized dense layers.
      kept: the places of these groups among those that it had.
    """
    names = _names(layer)
    before, each, groups = group_count(layer), query_heads_of_group(layer), len(kept)
    for name in names.widths:  # they have as much for each head as before
        setattr(layer, name, getattr(layer, name) // (before * each) * groups * each)
    setattr(layer, names.heads, groups * each)
    if names.groups is not None:
        setattr(layer, names.groups, groups)
    known = kept_heads(layer) or range(before)
    vars(layer)[_KEPT] = [int(known[place]) for place in kept]
    parameters = inspect.signature(type(layer).call).parameters
    if not isinstance(layer, _Smaller) and (names.takes_bias or "cache" in parameters):
        plain: Any = type(layer)
        layer.__class__ = _smaller(plain)


def _names(layer: Any) -> AttentionNames:
    names = names_of(layer)
    assert names is not None
    return names


# ---- what models make for all heads

_KEPT = "_movement_kept_heads"


class _Smaller:
    """Marks classes of attention that take caches and biases of more heads than they have."""


@functools.cache
def _smaller(plain: Any) -> Any:
    @functools.wraps(plain.call)  # keeps the signature, which Keras reads
    def call(self: Any, *args: Any, cache: Any = None, **kwargs: Any) -> Any:
        heads = group_count(self)  # the last axes of a cache are heads and their size

        def join(small: Any, whole: Any) -> Any:
            rest = keras.ops.cast(whole[..., heads:, :], small.dtype)
            return keras.ops.concatenate([small, rest], axis=-2)

        bias = kwargs.get("position_bias")
        if bias is not None:
            kwargs["position_bias"] = keras.ops.take(bias, vars(self)[_KEPT], axis=1)
        if cache is not None:
            kwargs["cache"] = keras.tree.map_structure(lambda x: x[..., :heads, :], cache)
        outputs = plain.call(self, *args, **kwargs)
        if bias is not None:  # which the next layer takes
            outputs = outputs[0], bias, *outputs[2:]
        if cache is not None:
            outputs = *outputs[:-1], keras.tree.map_structure(join, outputs[-1], cache)
        return outputs

    members = {"call": call, "__module__": plain.__module__}
    return type(plain.__name__, (_Smaller, plain), members)
