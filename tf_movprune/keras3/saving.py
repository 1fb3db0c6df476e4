"""Guards against saving pruned Keras 3 models in ways in which they would not load again."""

from __future__ import annotations

from typing import Any

import keras

from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.layer_tree import pruned_layers


class _SaveRefusal:
    """The `save` of a pruned model, which Keras could not load again."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"{self.model.name!r} is pruned, and a file of the whole model would not bring its "
            "masks back. Use save_weights or tf.train.Checkpoint, and load into a fresh model that "
            "is pruned in the same way; or save what tf_movprune.strip_pruning returns."
        )


def guard_saving(model: Layer) -> None:
    """Makes `save`, `export` and `save_to_preset` of a pruned model raise before a file is open."""
    if isinstance(model, keras.Model):
        for name in ("save", "save_to_preset"):
            if hasattr(model, name):
                vars(model)[name] = _SaveRefusal(model)


def unguard_saving(model: Layer) -> None:
    """Undoes `guard_saving`."""
    for name in ("save", "save_to_preset"):
        vars(model).pop(name, None)


def check_stripped(model: Any) -> None:
    """Raises ValueError if a model is still pruned."""
    if pruned_layers(model):
        raise ValueError(
            f"{model.name!r} is still pruned. Use what tf_movprune.strip_pruning(model) returns."
        )
