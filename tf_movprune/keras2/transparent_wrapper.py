"""A wrapper that other code may take for the layer inside it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import tensorflow as tf

from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import Layer, MarkedInCheckpoints, keras

_POSITION = "position"  # in files; Keras numbers layers of a class, whichever they wrap


class TransparentWrapper(MarkedInCheckpoints, keras.layers.Wrapper):
    """Takes the arguments of the layer inside, and shows its attributes.

    Subclasses compute some of the attributes anew.

    Args:
      layer: the layer inside.
      **kwargs: arguments of `tf_keras.layers.Layer`.
    """

    def __init__(self, layer: Layer, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking
        self.stateful = getattr(layer, "stateful", False)
        compat.adopt_arguments(self, layer)
        self.__dict__["position"] = None  # number of the layer in its model, if that is known
        if compat.declared_input_shape(self) is None:
            compat.declare_input_shape(self, compat.declared_input_shape(layer))

    def show_layer(self) -> None:
        """Makes attributes that are assigned from here on those of the layer inside."""
        self.__dict__["_is_transparent"] = True

    def computed_attributes(self) -> Collection[str]:
        """Names of the attributes that are computed, and cannot be set."""
        return ()

    def computed_attribute(self, name: str) -> Any:
        """The value of one of `computed_attributes`; None if it cannot be computed yet."""
        return None

    def computed_method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function that stands for a method of the layer inside."""
        return method

    def __getattr__(self, name: str) -> Any:
        layer = vars(self).get("layer")
        if layer is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self.computed_attribute(name)
        if value is None:
            value = getattr(layer, name)
            if inspect.ismethod(value) and value.__self__ is layer:
                return self.computed_method(value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        layer: Any = vars(self).get("layer")
        is_own = not vars(self).get("_is_transparent") or name.startswith("_")
        if is_own or name in vars(self) or hasattr(type(self), name):
            super().__setattr__(name, value)
        elif name in self.computed_attributes():
            raise AttributeError(
                f"The {name} of the pruned layer {layer.name!r} is computed from its mask and "
                f"cannot be set. To change the weights, use layer.layer.{name}.assign(...). A "
                f"layer that computes the {name} of another, such as a weight normalization, "
                "cannot be pruned: leave the layer out, with a mapping of path patterns to "
                "schedules or a pruning_policy."
            )
        elif hasattr(layer, name):
            setattr(layer, name, value)
        else:
            super().__setattr__(name, value)

    def _scope_around(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the name scope of a call without that of the wrapper.

        What the layer inside makes there has the names that it has without a wrapper.
        """
        around, _, innermost = tf.get_current_name_scope().rpartition("/")
        if innermost != self.name:
            return contextlib.nullcontext()
        return tf.name_scope(f"{around}/" if around else "")

    @property
    def trainable_weights(self):
        return _inner_first(self.layer.trainable_weights, super().trainable_weights)

    @property
    def non_trainable_weights(self):
        return _inner_first(self.layer.non_trainable_weights, super().non_trainable_weights)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        if self.position is not None:
            store[_POSITION] = np.array(self.position)

    def load_own_variables(self, store):
        names = set(store.keys())
        own = {name: store[name] for name in names - {_POSITION}}
        if _POSITION in names and self.position is not None:
            position = int(np.array(store[_POSITION]))
            if position != self.position:
                raise ValueError(
                    f"The file holds a pruned layer in place {position} of its model, where this "
                    f"model has {self.layer.name!r} in place {self.position}: other layers were "
                    "pruned."
                )
        super().load_own_variables(own)

    def reset_states(self, *args, **kwargs):
        self.layer.reset_states(*args, **kwargs)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def _inner_first(inner: list[tf.Variable], weights: list[tf.Variable]) -> list[tf.Variable]:
    """The weights of a wrapper, those of the layer inside first, as code expects them."""
    order = {id(weight): i for i, weight in enumerate(inner)}
    return sorted(weights, key=lambda weight: order.get(id(weight), len(order)))
