"""Variables that keep their values if what was to change them fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import tensorflow as tf


@contextlib.contextmanager
def unchanged_on_error(variables: Iterable[tf.Variable]) -> Iterator[None]:
    """Gives variables their values again if the context raises."""
    variables = list(variables)
    before = [tf.identity(variable) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, before):
            variable.assign(value)
        raise
