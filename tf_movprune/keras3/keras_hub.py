"""Knowledge of KerasHub's models. KerasHub is not imported: whoever has one has imported it."""

from __future__ import annotations

from typing import Any

from tf_movprune.keras3.compat import Layer, all_layers


def is_backbone(layer: Any) -> bool:
    """Returns whether a layer is a backbone."""
    return _is_of_class(type(layer), "Backbone")


def is_task(cls: type) -> bool:
    """Returns whether a class is one of tasks, models of a backbone and a preprocessor."""
    return _is_of_class(cls, "Task")


def holds_positions(layer: Any) -> bool:
    """Returns whether a layer is a table of embeddings of positions."""
    return _is_of_class(type(layer), "PositionEmbedding")


def check_sequence_length(model: Layer, sequence_length: int) -> None:
    """Raises ValueError if a model has no positions for so many tokens.

    Without the check it would fail later, when it runs, and not on every device.
    """
    for layer in all_layers(model):
        if holds_positions(layer) and sequence_length > layer.sequence_length:
            raise ValueError(
                f"sequence_length must be at most {layer.sequence_length} for {model.name!r}, the "
                f"max_sequence_length that it was made with, got {sequence_length}. Pass a shorter "
                "sequence_length; export_tflite takes 128 unless it is given."
            )


def _is_of_class(cls: type, name: str) -> bool:
    """Returns whether a class is one of KerasHub's of that name, or below it."""
    return any(
        base.__name__ == name and base.__module__.startswith("keras_hub.") for base in cls.__mro__
    )


def vocabulary_size(model: Layer) -> int | None:
    """The number of token ids that a backbone in a model takes; None if it is not known."""
    sizes = (getattr(x, "vocabulary_size", None) for x in all_layers(model) if is_backbone(x))
    return next((size for size in sizes if isinstance(size, int)), None)
