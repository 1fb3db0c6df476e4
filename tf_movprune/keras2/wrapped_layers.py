"""A register of the layers that are pruned at the moment, so that none is pruned twice."""

from __future__ import annotations

import gc
import weakref
from typing import Any, Protocol

from tf_movprune.keras2.compat import Layer
from tf_movprune.keras2.training_guard import Guarded


class Wrapper(Guarded, Protocol):
    """A pruning wrapper; `owner` is a weak reference to the model that it was made for."""

    owner: Any


_WRAPPERS: weakref.WeakKeyDictionary[Layer, weakref.ref[Wrapper]] = weakref.WeakKeyDictionary()


def remember_wrapper(layer: Layer, wrapper: Wrapper) -> None:
    """Notes that a layer is pruned."""
    _WRAPPERS[layer] = weakref.ref(wrapper)


def forget_wrapper(layer: Layer) -> None:
    """Undoes `remember_wrapper`."""
    _WRAPPERS.pop(layer, None)


def check_not_wrapped(layer: Layer) -> None:
    """Raises ValueError if a layer is pruned in a model that is still there, and not stripped."""
    if _is_wrapped(layer):
        gc.collect()  # a pruned model that is no longer used may still be there
        if _is_wrapped(layer):
            raise ValueError(
                f"The layer {layer.name!r} is pruned already, in another model that has it too: "
                "both would train its weights. Strip that model first with "
                "tf_movprune.strip_pruning, or delete it; or prune a model with layers of its own, "
                "such as tf_keras.models.clone_model(model) with the weights of this one."
            )


def _is_wrapped(layer: Layer) -> bool:
    wrapper = _WRAPPERS[layer]() if layer in _WRAPPERS else None
    # Calls in graphs keep wrappers alive, but not their models.
    return wrapper is not None and not wrapper.guard.is_folded and wrapper.usage.owner() is not None
