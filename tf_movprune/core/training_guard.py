"""Refusal of training steps for which nothing refreshed the masks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager.record import could_possibly_record

from tf_movprune.core.call_stack import objects_running
from tf_movprune.core.user_warnings import warn


class Running(NamedTuple):
    """Models that are trained: the one in a `fit`, and the one in a `train_step`; None if none is.

    Where one is in another, they are the outermost ones.
    """

    fit: Any
    step: Any


def running_models() -> Running:
    """The models that are trained at the moment."""
    found: dict[str, Any] = {}
    for method, model in objects_running("fit", "train_step"):
        if hasattr(model, "train_function"):
            found[method] = model
    return Running(found.get("fit"), found.get("train_step"))


def mode_of(training: Any) -> Any:
    """The `training` of a call as True or False; a tensor, if its value is not known yet."""
    if not tf.is_tensor(training):
        return bool(training)
    value = tf.get_static_value(tf.convert_to_tensor(training))
    return training if value is None else bool(value)


def is_in_train_step() -> bool:
    """Returns whether the `train_step` of a model runs, or is traced, at the moment."""
    return running_models().step is not None


def resolve_mode(told: Any, outermost: Any, is_open: bool) -> Any:
    """Returns whether a call of a pruned layer is part of a training step.

    A layer may be told to be in training mode although the model is evaluated, such as one whose
    dropout estimates uncertainty: then masks are as in evaluation. If nobody tells the outermost
    call, a gradient tape has to record the layer's, and either that is told or steps are taken:
    masks are refreshed for one, or the train step of a model runs.

    Args:
      told: the mode of the layer's call: a bool of any kind, a tensor, or None.
      outermost: the mode that the outermost call was given.
      is_open: whether the guard of the layer is open.

    Returns:
      True or False; a bool tensor, if its value is not known yet.
    """
    if told is not None:
        told = mode_of(told)
        if tf.is_tensor(told) or not told:
            return told
    if outermost is None:
        return could_possibly_record() and (bool(told) or is_open or is_in_train_step())
    outermost = mode_of(outermost)
    return bool(told) and (tf.is_tensor(outermost) or outermost)


def may_take_step(mode: Any) -> bool:
    """Returns whether a call in a mode of `resolve_mode` is, or may be, part of a training step.

    One whose mode is not known before the step runs is so if a gradient tape records it.
    """
    return mode is True or (tf.is_tensor(mode) and could_possibly_record())


def not_compiled(name: str) -> str:
    """The message that a pruned model is not compiled."""
    return (
        f"{name!r} is not compiled: pruning undoes compile(), which KerasHub's tasks call when "
        "they are made. Compile the pruned model with a new optimizer, as in model.compile("
        "recipe.create_optimizer(learning_rate, model=model), loss)."
    )


def warn_of_stripped(name: str) -> None:
    """Warns that a stripped model is about to be trained."""
    warn(
        f"{name!r} was stripped of pruning, and is about to be trained: its zeros are ordinary "
        "weights now, and will not stay zero. To train on with them, prune it again by "
        "prune_low_movement(model, method=tf_movprune.KeepZeros()), and strip it when it is "
        "trained. Models that tf_movprune.compact made smaller may be trained as they are."
    )


class TrainingGuard:
    """Lets a pruned layer train only while something refreshes its masks.

    Args:
      name: name of the layer, for messages.
    """

    def __init__(self, name: str):
        self.name = name
        self._is_open = False
        self._is_open_once = False
        self._opened_in = Running(None, None)  # of weak references
        self._opened_in_graph: Any = None
        self._stepped_by: Any = None
        self._watchers: list[Any] = []
        self._is_folded = False
        self.has_refused = False

    @property
    def is_open(self) -> bool:
        """True while steps may be taken."""
        return self._is_open

    @property
    def allows_step(self) -> bool:
        """True while a new step may be taken: the one step of an update was not taken yet."""
        return self._is_open and not (self._is_open_once and self._stepped_by is not None)

    @property
    def is_folded(self) -> bool:
        """True if the masks were written into the weights."""
        return self._is_folded

    def allow(self, value: bool, *, once: bool = False) -> None:
        """Opens or closes the guard for the steps to come, or opens it for one."""
        self._check_not_folded()
        self._is_open, self._is_open_once = value, value and once
        self._opened_in_graph = _reference(_outermost_graph())
        self._stepped_by = None
        running = running_models() if self._is_open_once else Running(None, None)
        self._opened_in = Running(_reference(running.fit), _reference(running.step))

    def end_step(self) -> None:
        """Closes the guard after a step of a train function: the next one is allowed anew.

        A run may end between two batches, by an error in another callback.
        """
        self._is_open = False

    def fold(self) -> None:
        """Closes the guard for good: the masks are in the weights."""
        self._is_open, self._is_folded = False, True

    def release(self) -> None:
        """Lets the models around a layer that is no longer pruned trace their steps anew."""
        for reference in self._watchers:
            model = reference()
            if isinstance(getattr(model, "train_function", None), GuardedTrainFunction):
                model.train_function = None
        self._watchers.clear()

    @property
    def is_open_in_graph(self) -> bool:
        """True if the update that opened the guard is part of a graph, and runs with that."""
        return self._opened_in_graph is not None

    @property
    def repeats(self) -> bool:
        """True while what is traced has the update that opened the guard, which runs with it."""
        graph = _outermost_graph()
        return graph is not None and _refers_to(self._opened_in_graph, graph)

    def check(self) -> None:
        """Raises RuntimeError if nothing refreshes the masks, or they are in the weights."""
        running = running_models()
        self._check(
            self._is_open and not (self._is_open_once and self._is_of_another_model(running))
        )
        if not self.repeats:
            self._watch_steps(running.step)

    def check_new_step(self) -> None:
        """Raises RuntimeError too if the one step was taken for which the guard was opened."""
        self._check(self.allows_step)

    def _check(self, is_open: bool) -> None:
        self._check_not_folded()
        self.has_refused = not is_open
        if self.has_refused:
            _forget_failed_trace()
            raise RuntimeError(
                f"The pruned layer {self.name!r} is being trained, but nothing refreshes its "
                "masks. Add tf_movprune.UpdatePruningStep() to the callbacks of fit, or call "
                "tf_movprune.update_masks(model, step) before each step of your own loop. If it is "
                "not to be trained, such as a teacher, call it with training=False, or call what "
                "tf_movprune.strip_pruning returns."
            )

    def _is_of_another_model(self, running: Running) -> bool:
        """Returns whether the one step that the guard was opened for is not the one that runs."""
        if running.step is not None:
            takers = (self._opened_in.step, self._stepped_by)
            if any(x is not None and x() is not running.step for x in takers):
                return True
        # A model around the pruned one, which was not pruned itself and has no callback.
        is_around = not isinstance(
            getattr(running.fit, "train_function", None), GuardedTrainFunction
        )
        return (
            running.fit is not None
            and is_around
            and not _refers_to(self._opened_in.fit, running.fit)
        )

    def _watch_steps(self, model: Any) -> None:
        """Lets the model whose train step runs end the step, if it is one around the pruned one."""
        function = getattr(model, "train_function", None)
        if function is None:
            return
        if not isinstance(function, GuardedTrainFunction):
            function = GuardedTrainFunction(model, function, [], may_refresh=True)
            model.train_function = function
        if function.watch(self):
            # A step may have been taken, and is traced once more by a new function.
            self._check(not self._is_open_once or self._stepped_by is None)
            self._stepped_by = weakref.ref(model)
            self._watchers.append(self._stepped_by)

    def _check_not_folded(self) -> None:
        if self._is_folded:
            raise RuntimeError(
                f"The pruned layer {self.name!r} cannot be trained further: "
                "tf_movprune.strip_pruning wrote its masks into the weights. Prune a fresh model "
                "in the same way, and load weights into it that were saved before."
            )


def _forget_failed_trace() -> None:
    """Lets a model whose step is refused while it is traced trace it anew the next time."""
    model = running_models().step
    function = getattr(model, "train_function", None)
    is_guarded = isinstance(function, GuardedTrainFunction) and not function.may_refresh
    if model is not None and not is_guarded:
        model.train_function = None


def _outermost_graph() -> Any:
    """The graph of the function that is traced at the moment, the outermost one; None eagerly."""
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    while hasattr(getattr(graph, "outer_graph", None), "outer_graph"):  # which is of a function too
        graph = graph.outer_graph
    return graph


def _refers_to(reference: Any, found: Any) -> bool:
    return reference is not None and reference() is found


def _reference(model: Any) -> Any:
    return None if model is None else weakref.ref(model)


class GuardedTrainFunction:
    """A model's train function, which raises unless the masks were refreshed for the step.

    The layers raise too, but only while they are traced. This stays with the model, whether `fit`
    ended or was interrupted.

    Args:
      model: the model, whose `train_function` is set to None where it has to be made anew.
      function: the train function that Keras made, which takes an iterator.
      guards: the guards of its pruned layers.
      may_refresh: whether the function itself may refresh masks, by `update_masks` in a train step
        of one's own, or around it.
    """

    def __init__(
        self,
        model: Any,
        function: Callable[[Any], Any],
        guards: Sequence[TrainingGuard],
        may_refresh: bool,
    ):
        self.model = model
        self.function = function
        self.guards = list(guards)
        self.may_refresh = may_refresh
        self._refreshes = False

    def watch(self, guard: TrainingGuard) -> bool:
        """Adds the guard of a layer that the function was seen to train. Returns if it is new."""
        is_new = all(guard is not other for other in self.guards)
        if is_new:
            self.guards.append(guard)
        return is_new

    def __call__(self, iterator: Any) -> Any:
        is_attempt = self.may_refresh and not any(guard.allows_step for guard in self.guards)
        if not is_attempt and not self._refreshes:
            self._check()
        for guard in self.guards:
            guard.has_refused = False
        try:
            result = self.function(iterator)
        except BaseException:
            if is_attempt:
                self.model.train_function = None  # cannot make variables any more
            if any(guard.has_refused for guard in self.guards):
                self._check()  # raises the same, without the frames of traced code
            for guard in self.guards:
                guard.allow(False)
            raise
        if is_attempt:
            if not any(guard.allows_step for guard in self.guards):
                self.model.train_function = None  # was traced without being watched
            self._check()
            self._refreshes = all(guard.is_open_in_graph for guard in self.guards)
        self.may_refresh = is_attempt and not self._refreshes
        for guard in self.guards:
            guard.end_step()
        return result

    def _check(self) -> None:
        for guard in self.guards:
            guard.check_new_step()
