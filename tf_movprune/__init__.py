"""Movement pruning for TensorFlow: prune pretrained models while they are fine-tuned.

Names are loaded when they are first used; `__init__.pyi` lists them. Importing the package starts
no TensorFlow runtime and loads no Keras.
"""

import lazy_loader

__version__ = "0.1.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
