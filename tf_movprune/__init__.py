"""Movement pruning for TensorFlow: prune pretrained models while they are fine-tuned.

Names are loaded when they are first used; `__init__.pyi` lists them. Importing the package starts
no TensorFlow runtime and loads no Keras.
"""

from typing import Any

import lazy_loader

__version__ = "0.1.0.dev0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


_ELSEWHERE = {
    "prune_low_magnitude": "For pruning by magnitude, use "
    "tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude()).",
    "load_model": "Load files of whole pruned models by keras.saving.load_model(path) within "
    "tf_movprune.prune_scope(), and compressed files by tf_movprune.load_compressed.",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise AttributeError(f"tf_movprune has no {name}. {_ELSEWHERE[name]}")
    try:
        return _load(name)
    except AttributeError as error:
        import difflib

        nearest = difflib.get_close_matches(name, __all__, n=1)
        if not nearest or name in __all__:
            raise
        raise AttributeError(
            f"tf_movprune has no {name}. Did you mean tf_movprune.{nearest[0]}?"
        ) from error
