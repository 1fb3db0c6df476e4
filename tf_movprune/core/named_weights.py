"""The weights of a model of any Keras version, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

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
        name = base = given.removesuffix(":0")
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
