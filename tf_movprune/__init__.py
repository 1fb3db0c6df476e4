"""Movement pruning for TensorFlow: prune pretrained models while they are fine-tuned.

Names are loaded when they are first used; `__init__.pyi` lists them. Importing the package starts
no TensorFlow runtime and loads no Keras.
"""

from typing import Any

import lazy_loader

__version__ = "0.1.0.dev0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "prune_low_magnitude":
        raise AttributeError(
            "tf_movprune has no prune_low_magnitude. For pruning by magnitude, use "
            "tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())."
        )
    return _load(name)
