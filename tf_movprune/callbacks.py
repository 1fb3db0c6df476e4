"""Callbacks of `fit` of either Keras: each hands its hooks on to that of the model's Keras."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

from tf_movprune.core.arguments import check_fraction, check_integer
from tf_movprune.core.summaries import check_summaries
from tf_movprune.shells import module_for, shell_name


class _OfObjects:
    """A method that says so if it is called on the class, as Keras does with a class in a list."""

    def __init__(self, function: Callable[..., None]):
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, callback: Any, cls: type) -> Callable[..., None]:
        if callback is None:
            return MethodType(_refuse_class, cls)
        return MethodType(self._function, callback)


def _refuse_class(cls: type, *args: Any) -> None:
    needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    raise TypeError(
        f"Pass {cls.__name__}({'...' if needed else ''}), not the class {cls.__name__}: callbacks "
        "are objects."
    )


class OfEitherKeras:
    """A callback that becomes one of the model's Keras when `fit` gives it the model."""

    _place = "", ""  # module and name of the callback in the shells
    _supports_tf_logs = True  # as tf_keras asks

    def __init__(self, *arguments: Any):
        self._arguments = arguments
        self._callback: Any = None

    @_OfObjects
    def set_model(self, model: Any) -> None:
        """Takes the callback of the model's Keras, to which all hooks are handed on."""
        module, name = self._place
        cls = getattr(module_for(model, module), name)
        if type(self._callback) is not cls:
            self._callback = cls(*self._arguments)
        self._callback.set_model(model)

    def __getattr__(self, name: str) -> Any:
        if vars(self).get("_callback") is None:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r} before set_model(model)."
            )
        return getattr(self._callback, name)

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


def _handed_on(name: str) -> Any:
    def hook(self: OfEitherKeras, *args: Any, **kwargs: Any) -> Any:
        return self.__getattr__(name)(*args, **kwargs)

    hook.__name__ = name
    return hook


for _what in ("train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch"):
    for _when in ("begin", "end"):
        setattr(OfEitherKeras, f"on_{_what}_{_when}", _handed_on(f"on_{_what}_{_when}"))
for _hook in ("on_batch_begin", "on_batch_end", "set_params"):
    setattr(OfEitherKeras, _hook, _handed_on(_hook))


class UpdatePruningStep(OfEitherKeras):
    """Refreshes the masks before each training step, as their schedules say.

    It is a callback of `fit` of either Keras. The step is the optimizer's `iterations`, so that
    training goes on where a restored optimizer left off; one that accumulates gradients takes one
    step for several batches. With `steps_per_execution` above 1, masks are refreshed once per
    execution. After training, and after an early stop, they are refreshed a last time from the
    final scores. Overall `sparsity` appears in the progress bar and in `History`.

    After each step, and before masks are refreshed, it looks for NaN and infinity in the scores and
    all trainable weights, and raises before masks change. That takes 0.5 % of a step of MiniLM on a
    CPU (docs/performance.md). A step that a `LossScaleOptimizer` skips leaves nothing to find.

    Put it first in the list of callbacks, so that those that save or log see its effect, and none
    saves the weights of a step that left NaN. Callbacks that restore earlier weights, such as
    `EarlyStopping(restore_best_weights=True)`, restore their masks too: let them choose among the
    epochs at the final sparsity only.

    Args:
      num_train_steps: steps of the whole training, if it takes several calls of `fit`. Schedules
        are then checked against it instead of each call, and the last refresh waits for the last
        step.

    Raises:
      RuntimeError: when `fit` starts, `strip_pruning` has folded the masks in; after 64 batches, or
        one epoch, or, if it is more, after the number of batches that the optimizer has as its
        `gradient_accumulation_steps`, `model.optimizer` has not taken a step.
      ValueError: when `fit` starts, nothing in the model is pruned, or it is not built yet; a
        schedule ends after the run, or never fires in it; scores are frozen, or unknown to the
        optimizer; there is no loss but the penalty of pruning, or no optimizer; masks of
        `KeepZeros` have no zeros; then, and at any step, a score or a trainable weight is NaN or
        infinite, or so large that the sum of its matrix is; after the first step, or after the
        first epoch if the model has a `train_step` of its own, a pruned layer is not used in
        training, or computes with a kernel that is not masked.

    Warns of runs that go on after the learning rate of `create_optimizer` has fallen to 0, of
    scores that are zero less than 1,000 steps before the first weights go, of masks that are ahead
    of their schedule, of weights that were assigned after pruning if scores or masks started from
    others, and of training that stops before a schedule ends.
    """

    _place = "callbacks", "UpdatePruningStep"

    def __init__(self, num_train_steps: int | None = None):
        if num_train_steps is not None:
            check_integer("num_train_steps", num_train_steps, example=1500, minimum=1)
        self.num_train_steps = num_train_steps
        super().__init__(num_train_steps)


class PruningSummaries(OfEitherKeras):
    """Writes overall and layer sparsity, thresholds and mask churn to TensorBoard.

    Churn is the fraction of mask entries that changed since the last summary.

    Args:
      log_dir: folder for event files, which are written below `log_dir/pruning`.
      update_freq: `"epoch"`, or a number of training steps of at least 1.

    Raises:
      ImportError: TensorBoard is not installed.
      TypeError: `update_freq` is neither a string nor an integer.
      ValueError: `update_freq` is another string, or less than 1.
    """

    _place = "summaries", "PruningSummaries"

    def __init__(self, log_dir: str, update_freq: str | int = "epoch"):
        check_summaries(update_freq)
        self.log_dir = log_dir
        self.update_freq = update_freq
        super().__init__(log_dir, update_freq)


class OnceSparse(OfEitherKeras):
    """Holds another callback back until pruning has reached its target.

    While sparsity still rises, the best epoch is an early one, of a model that is not sparse yet.
    Wrap `ModelCheckpoint(save_best_only=True)`, `EarlyStopping` and `ReduceLROnPlateau`, so that
    they see only the epochs in which every schedule has come to its end:

        tf_movprune.OnceSparse(keras.callbacks.ModelCheckpoint(path, save_best_only=True))

    Put it after `UpdatePruningStep` in the list of callbacks. The callback that it holds always
    sees training and epochs begin and training end, but sees batches and ends of epochs only after
    the target is reached.

    Args:
      callback: a callback of the model's Keras.
      min_sparsity: overall sparsity in [0, 1) below which epochs are ignored too, for methods whose
        schedule does not set the sparsity: `SoftMovement` without a target, and `L0`.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: `min_sparsity` is out of range; or, when training starts, nothing is pruned, or a
        schedule has no `end_step`.
    """

    _place = "once_sparse", "OnceSparse"

    def __init__(self, callback: Any, min_sparsity: float = 0.0):
        if not callable(getattr(callback, "set_model", None)) or isinstance(callback, type):
            raise TypeError(
                "callback must be a Keras callback such as keras.callbacks.EarlyStopping(), got "
                f"{callback!r}."
            )
        self.callback = callback
        self.min_sparsity = check_fraction("min_sparsity", min_sparsity)
        super().__init__(callback, self.min_sparsity)

    @_OfObjects
    def set_model(self, model: Any) -> None:
        is_other = not isinstance(self.callback, OfEitherKeras) and (
            shell_name(self.callback) != shell_name(model)
        )
        if is_other:
            raise TypeError(
                f"{type(self.callback).__name__} is not a callback of the Keras of {model.name!r}."
            )
        super().set_model(model)
