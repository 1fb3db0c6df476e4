"""Watching whether training uses the masked kernels of a layer, and nothing else in their place."""

from __future__ import annotations

import abc
import contextlib
import functools
import re
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.record import could_possibly_record

from tf_movprune.core.call_stack import callers
from tf_movprune.core.recomputation import CUSTOM_GRADIENT, is_recorded
from tf_movprune.core.training_guard import TrainingGuard
from tf_movprune.core.variable_names import last_name

_BACKWARD = ("tensorflow.python.eager.backprop", CUSTOM_GRADIENT)
_WATCHER = "_movement_usage"


class _OwnReads(threading.local):  # replicas call layers in threads
    depth = 0


_own = _OwnReads()


class KernelUsage(abc.ABC):
    """Keeps note of the masked kernels that training computes with, and gets gradients of.

    A kernel that reaches the computation by another way than the attribute of its layer is not
    masked there: through a function that was traced before, a list, a closure, the `weights` of a
    model, or another layer that holds the same variable. Such a read raises while the pruned model
    is called or trained.

    Args:
      layer: name of the layer, for messages.
      guard: its guard, which is open while steps are taken.
      owner: the pruned model that the layer is in.

    Attributes:
      layer: the name.
      owner: weak reference to it; another one may be assigned. Calls in graphs keep layers, and not
        models, alive: a layer is in use as long as the model is there.
    """

    def __init__(self, layer: str, guard: TrainingGuard, owner: Any):
        self.layer = layer
        self._guard = guard
        self.owner = weakref.ref(owner)
        self.was_called = False
        self.may_have_trained = False
        self._sum_at_update: float | None = None
        self._names: list[str] = []
        self._reached: set[str] = set()
        self._unwatch: list[Callable[[], None]] = []

    regularizers = ""
    """Name of the module of Keras's regularizers, which may read what they penalize."""

    operations: tuple[str, ...] = ()
    """Names with which the modules begin through which they read it."""

    @abc.abstractmethod
    def is_saving(self) -> bool:
        """Returns whether calls of layers are traced to be saved."""

    @abc.abstractmethod
    def calling_layer(self) -> Any:
        """The layer whose `call` runs at the moment, the innermost one; None outside of all."""

    @abc.abstractmethod
    def training_mode(self) -> Any:
        """The value of `training` in that call."""

    def forget(self) -> None:
        """Forgets calls and gradients, before the training step is traced anew."""
        self.was_called = self.may_have_trained = False
        self._reached.clear()

    def end_watch(self) -> None:
        """Lets variables be read as they were before `watch_weights`."""
        while self._unwatch:
            self._unwatch.pop()()

    def watch_weights(
        self, weights: Sequence[tuple[str, tf.Variable]], others: Sequence[tf.Variable]
    ) -> None:
        """Makes reads of variables raise that reach the outputs and are not in `own_reads`.

        Args:
          weights: pairs of the name of a layer's attribute, and the masked weight in it.
          others: scores and masks, which code may take for weights of the layer.

        Raises:
          ValueError: another pruned layer has one of the weights, as layers that share a cell have
            once they are built.
        """
        for _, variable in weights:
            other = vars(variable).get(_WATCHER, lambda: None)()
            if other not in (None, self) and other.owner() is not None:  # which is in use
                raise ValueError(
                    f"The pruned layers {other.layer!r} (in {other.owner().name!r}) and "
                    f"{self.layer!r} have one kernel, so that two masks would decide on it. Prune "
                    "one of them, if the other computes with that one's kernel, or leave both out, "
                    "with a mapping of path patterns to schedules or a pruning_policy."
                )
        self._names = [name for name, _ in weights]
        named = [(last_name(v.name), v) for v in others]
        for name, variable in [*weights, *named]:
            read = functools.partial(self._check_read, name)
            self._unwatch.append(watch_reads(variable, read))
        for _, variable in weights:
            vars(variable)[_WATCHER] = weakref.ref(self)
            self._unwatch.append(functools.partial(vars(variable).pop, _WATCHER, None))

    def _check_read(self, name: str) -> None:
        if _own.depth or self.is_saving():
            return
        reader = self.calling_layer()
        if not self._reaches_outputs(reader) or _is_harmless(self.regularizers, self.operations):
            return
        where = f"{reader.name!r} ({type(reader).__name__})" if reader else "a backward pass"
        raise ValueError(
            f"The {name} of the pruned layer {self.layer!r} is read by {where}, where nothing "
            "masks it. Read kernels as attributes of the layer, and not through weights, lists, "
            "layers inside the layer, variables of another layer, functions that remember them, or "
            f"a gradient that computes the layer anew. Or leave {self.layer!r} out, with a "
            "mapping of path patterns to schedules or a pruning_policy."
        )

    def _reaches_outputs(self, reader: Any) -> bool:
        """Returns whether a read takes part in what the pruned model computes or trains.

        Optimizers, reports, and calls of the layer by itself or in the original model may read.
        """
        if reader is None:
            return self._guard.is_open and _in_backward()
        if self._guard.is_open and (self.training_mode() or could_possibly_record()):
            return True
        return _is_calling(self.owner())

    def watched(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The masked kernels of a call, from which gradients are noted."""
        self.was_called = True
        # Eager calls that no tape records train nothing. Graphs may get gradients without one.
        self.may_have_trained |= not tf.executing_eagerly() or is_recorded()
        return [self._noting(name, tensor) for name, tensor in zip(self._names, tensors)]

    def _noting(self, name: str, tensor: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def noting(tensor: tf.Tensor):
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                self._reached.add(name)
                return upstream

            return tf.identity(tensor), gradient

        return noting(tensor)

    def was_passed_by(self, weight: tf.Variable) -> bool:
        """Returns whether a weight was trained since the last time, and the layer in no step."""
        if self.may_have_trained:
            return False
        before, self._sum_at_update = self._sum_at_update, float(tf.reduce_sum(weight))
        return before is not None and before != self._sum_at_update

    def check_call(self, tensors: Sequence[tf.Tensor]) -> None:
        """Raises ValueError if a call computed without one of its masked kernels."""
        for name, tensor in zip(self._names, tensors):
            if tf.is_symbolic_tensor(tensor) and not tensor.consumers():
                raise ValueError(self._message(f"computes without its attribute {name!r}"))

    def check_run(self, trained: Iterable[str]) -> None:
        """Raises ValueError if steps were taken without the layer, or without a gradient of it.

        Args:
          trained: attributes of the kernels that are trained.
        """
        if not self.was_called:
            raise ValueError(self._message("was not called"))
        for name in trained:
            if name not in self._reached:
                raise ValueError(self._message(f"gets no gradient of its {name}"))

    def _message(self, what: str) -> str:
        return (
            f"The pruned layer {self.layer!r} {what} in training, so its masks would have no "
            "effect, or could not learn. Did a function that was traced before pruning (tf.function"
            "), a list, a closure or another wrapper take the place of the layer or of its "
            "kernel, or does no loss depend on it? Make those after pruning, or leave "
            f"{self.layer!r} out, with a mapping of path patterns to schedules or a "
            "pruning_policy."
        )


_MISSING = re.compile(r"Tensor' object has no attribute '(\w+)'")


@contextlib.contextmanager
def as_tensors(layer: str) -> Iterator[None]:
    """A context in which a layer has tensors in place of its kernels.

    Raises:
      ValueError: the layer takes one for a variable, to assign it for instance.
    """
    try:
        yield
    except AttributeError as error:
        missing = _MISSING.search(str(error))
        if missing is None:
            raise
        raise ValueError(
            f"The layer {layer!r} uses {missing[1]!r} of a tensor, which has none. A pruned layer "
            "computes with masked tensors in place of its kernels, and cannot assign these in its "
            "call: constrain them with a kernel_constraint, or assign them in a callback. Or leave "
            f"{layer!r} out, with a mapping of path patterns to schedules or a pruning_policy."
        ) from error


@contextlib.contextmanager
def own_reads() -> Iterator[None]:
    """A context in which kernels may be read, in order to be masked."""
    _own.depth += 1
    try:
        yield
    finally:
        _own.depth -= 1


def _is_calling(layer: Any) -> bool:
    """Returns whether a call of a layer led here."""
    return layer is not None and any(
        frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is layer
        for frame, _ in traceback.walk_stack(None)
    )


def _in_backward() -> bool:
    return any(module in _BACKWARD for module, _ in callers())


def _is_harmless(regularizers: str, operations: tuple[str, ...]) -> bool:
    """Returns whether a regularizer reads, or `tf.custom_gradient`, which only lists variables."""
    for module, function in callers():
        if module == CUSTOM_GRADIENT and function.endswith("_mode_decorator"):
            return True
        if not module.startswith(("tensorflow.", "tf_movprune.", *operations)):
            return module == regularizers
    return False


def watch_reads(variable: tf.Variable, read: Callable[[], None]) -> Callable[[], None]:
    """Calls `read` whenever Python code reads the value of a variable, or some of its rows.

    Returns a function that ends this.
    """
    variable = getattr(variable, "_variable", variable)  # of one that casts itself, in tf_keras
    components = list(getattr(variable, "values", None) or [variable])
    names = ("_read_variable_op", "sparse_read", "gather_nd")
    for component in components:
        # The variable must not refer to itself, or it would wait for the garbage collector.
        reference = weakref.ref(component)
        for name in names:

            def watched(*args: Any, _name: str = name, _of: Any = reference, **kwargs: Any) -> Any:
                read()
                return getattr(type(_of()), _name)(_of(), *args, **kwargs)

            vars(component)[name] = watched

    def unwatch() -> None:
        for component in components:
            for name in names:
                vars(component).pop(name, None)

    return unwatch
