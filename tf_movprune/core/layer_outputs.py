"""The outputs of layers inside a model, as it computes them when it is called."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.recomputation import is_recomputed, is_recorded


class _Recordings(threading.local):  # replicas call models in threads, and may take turns
    def __init__(self) -> None:
        self.by_layer: dict[int, list[list[Any]]] = {}


class _Watched:
    """A layer that hands its outputs over, and how many contexts want them."""

    def __init__(self, layer: Any):
        # Keras 3 calls quantized layers by another method.
        self.names = [n for n in ("call", "quantized_call") if hasattr(layer, n)]
        # Those that a layer has in place of its class's.
        self.own = {name: vars(layer)[name] for name in self.names if name in vars(layer)}
        self.contexts = 0


_recordings = _Recordings()
_lock = threading.Lock()
_watched: dict[int, _Watched] = {}


@contextlib.contextmanager
def recorded_outputs(layers: Mapping[str, Any]) -> Iterator[dict[str, list[tf.Tensor]]]:
    """A context in which the outputs of layers are kept, by path, one for each call.

    The first tensor is kept of an output that is a tuple, list or mapping: blocks of transformers
    give their states first. Layers are as they were once the context ends.

    Args:
      layers: layers by path.

    Raises:
      TypeError: a layer gives no tensor of floats.
      ValueError: in or after the context: a gradient computes a layer anew, or a function that is
        traced by itself calls it, so that its output is out of reach; or it was not called.
    """
    found: dict[str, list[tf.Tensor]] = {path: [] for path in layers}
    for path, layer in layers.items():
        _recordings.by_layer.setdefault(id(layer), []).append(found[path])
        _watch(layer)
    try:
        yield found
    finally:
        for layer in layers.values():
            _unwatch(layer)
            recordings = _recordings.by_layer[id(layer)]
            recordings.pop()
            if not recordings:
                del _recordings.by_layer[id(layer)]
    for path, outputs in found.items():
        found[path] = _checked(path, outputs)


def _watch(layer: Any) -> None:
    """Makes a layer hand its outputs over, if it does not do so already."""
    with _lock:
        if id(layer) not in _watched:
            _watched[id(layer)] = watched = _Watched(layer)
            for name in watched.names:
                # Not by assigning an attribute, which Keras would track.
                vars(layer)[name] = _handing_over(layer, getattr(layer, name))
        _watched[id(layer)].contexts += 1


def _unwatch(layer: Any) -> None:
    with _lock:
        watched = _watched[id(layer)]
        watched.contexts -= 1
        if watched.contexts:
            return
        del _watched[id(layer)]
        for name in watched.names:
            del vars(layer)[name]
        vars(layer).update(watched.own)


def _handing_over(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def handing_over(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        _keep(layer, outputs)
        return outputs

    return handing_over


@tf.autograph.experimental.do_not_convert
def _keep(layer: Any, outputs: Any) -> None:
    for recording in _recordings.by_layer.get(id(layer), ())[-1:]:
        is_lost = is_recomputed() and is_recorded()
        recording.append(None if is_lost else _states(outputs))


def _states(outputs: Any) -> Any:
    """The first tensor of a layer's outputs."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, Sequence) and outputs:
        return _states(outputs[0])
    return outputs


def _checked(path: str, outputs: list[Any]) -> list[tf.Tensor]:
    if not outputs:
        raise ValueError(
            f"The layer {path!r} was not called with its model, so that it has no hidden states. "
            "Name other layers in hidden_states."
        )
    for output in outputs:
        if output is None or (tf.is_tensor(output) and not _is_within_reach(output)):
            raise ValueError(
                f"The hidden states of {path!r} are out of reach: a tf.function inside the model "
                "calls it, or tf.recompute_grad, which forgets what it computes. Call the layer "
                "without it, or name layers that hold it in hidden_states."
            )
        if not tf.is_tensor(output) or not output.dtype.is_floating:
            raise TypeError(
                f"Expected a tensor of floats as the first output of {path!r}, got "
                f"{getattr(output, 'dtype', type(output).__name__)}. Name other layers in "
                "hidden_states."
            )
    return outputs


def _is_within_reach(tensor: tf.Tensor) -> bool:
    """Returns whether the code that runs at the moment can compute with a tensor."""
    if not tf.is_symbolic_tensor(tensor):
        return True
    return not tf.executing_eagerly() and tensor.graph is tf.compat.v1.get_default_graph()
