"""Places of the weight matrices of transformers: the layer of each, and its role there."""

from __future__ import annotations

import re
from typing import NamedTuple

MATRIX_TITLES = ("query", "key", "value", "attention output", "intermediate", "output")
"""The matrices of a transformer's layer, in the order of the computation."""

_LAYER = re.compile(r"(?:^|[._])(?:[a-z_]*(?:layer|block|group)s?|h)[._](\d+)(?=[._]|$)")
_WEIGHT = re.compile(r"\.(kernel|weight|weights|embeddings)$")
_ENDS = [
    ("query", r"(^|[._])(query(_dense|_proj)?|q(_lin|_proj)?)"),
    ("key", r"(^|[._])(key(_dense|_proj)?|k(_lin|_proj)?)"),
    ("value", r"(^|[._])(value(_dense|_proj)?|v(_lin|_proj)?)"),
    (
        "attention output",
        r"(attention|attn)\w*\.(_?output_dense|(dense_)?output(\.dense)?|dense|c_proj|o)"
        r"|attention_output(\.dense)?|out_lin|out_proj|o_proj",
    ),
    ("intermediate", r"intermediate(_dense)?(\.dense)?|lin1|fc1|c_fc|wi(_0)?"),
    ("output", r"output(_dense)?(\.dense)?|lin2|fc2|c_proj|wo"),
]


class Place(NamedTuple):
    """The place of a matrix.

    Attributes:
      layer: index of the transformer's layer; None if the path does not tell.
      title: one of `MATRIX_TITLES`, after `"decoder"` in decoders; the path itself if it is not
        known which matrix of a layer it is.
    """

    layer: int | None
    title: str


def place_of(path: str) -> Place:
    """Reads the place of a matrix off its path.

    Args:
      path: path of its layer, with or without the name of the weight, as `summarize_sparsity` has
        it: `"bert.encoder.layer.0.intermediate.dense.kernel"`.
    """
    lower = _WEIGHT.sub("", path.lower())
    number = _LAYER.search(lower)
    title = next((title for title, end in _ENDS if re.search(f"(?:{end})$", lower)), None)
    if number is None or title is None:
        return Place(None, path)
    return Place(int(number[1]), f"decoder {title}" if "decoder" in lower else title)
