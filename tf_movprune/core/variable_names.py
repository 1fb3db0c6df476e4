"""Names of variables, of which only a part is the variable's own."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"(/replica_\d+)?(:\d+)?$")


def plain_name(name: str) -> str:
    """The name that a variable was given, with its scopes.

    TensorFlow appends the number of an output, `:0`, and `tf.distribute` that of a replica, as in
    `dense/bias/replica_1:0`: copies of one variable have the same plain name.
    """
    return _SUFFIX.sub("", name)


def last_name(name: str) -> str:
    """The last part of a variable's name, without its scopes: `bias`."""
    return plain_name(name).rpartition("/")[2]
