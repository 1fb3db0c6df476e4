"""The marks in files of weights that tell how a layer was pruned, besides its variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_movprune.core.settings import Settings

_KEY = "movement_settings"


def save_settings(store: Any, settings: Settings) -> None:
    """Adds the method and the units of the scores to the variables of a layer in a file."""
    store[_KEY] = np.frombuffer(_words(settings).encode(), "uint8")


def checked_variables(name: str, store: Any, settings: Settings) -> dict[str, Any]:
    """The variables of a layer in a file, without what `save_settings` added.

    Raises:
      ValueError: scores in the file mean something else than those of the layer `name`.
    """
    variables = {key: store[key] for key in set(store.keys())}
    if _KEY in variables:
        saved, own = np.array(variables.pop(_KEY)).tobytes().decode(), _words(settings)
        if saved != own:
            raise ValueError(
                f"The file holds scores of {saved} for the layer {name!r}, which is pruned by "
                f"{own}. Prune the model as the saved one was, and load then."
            )
    return variables


def _words(settings: Settings) -> str:
    method = settings.method
    scale = settings.score_scale.multiplier
    unit = f" at score_learning_rate_multiplier {scale:g}" if method.has_scores else ""
    return type(method).__name__ + unit
