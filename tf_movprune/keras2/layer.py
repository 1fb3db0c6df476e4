"""The layer wrapper that owns scores and masks, and computes with masked kernels.

Variables, computation and configuration of one class stay in one module, long as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_movprune.core.checkpoint_marker import refuse_plain_checkpoint
from tf_movprune.core.granularity import WEIGHTS, Units
from tf_movprune.core.kernel_usage import as_tensors, own_reads
from tf_movprune.core.masked_kernel import MaskedKernel
from tf_movprune.core.pruning_method import PruningMethod
from tf_movprune.core.recomputation import CallModes
from tf_movprune.core.saved_settings import (
    SettingsInCheckpoint,
    check_config_being_saved,
    check_masks_are_own,
    checked_variables,
    save_settings,
)
from tf_movprune.core.schedules import PruningSchedule
from tf_movprune.core.settings import Settings
from tf_movprune.core.training_guard import (
    TrainingGuard,
    may_take_step,
    mode_of,
    resolve_mode,
)
from tf_movprune.core.user_warnings import warn
from tf_movprune.keras2 import compat
from tf_movprune.keras2.compat import (
    Layer,
    PrunableLayer,
    keras,
    register,
)
from tf_movprune.keras2.kernel_attributes import (
    Attribute,
    CallLock,
    attributes_by_weight,
    build_attention,
    find_kernels,
    kernel_names,
    knows_its_inputs,
    paths_to_owners,
    prunable_weights,
    replaced,
)
from tf_movprune.keras2.kernel_usage import KernelUsage
from tf_movprune.keras2.kernel_variables import (
    VARIABLE_NAMES,
    SharedKernel,
    make_kernels,
    masked_attributes,
)
from tf_movprune.keras2.serialization import (
    deserialize_layer,
    deserialize_method,
    deserialize_schedule,
    serialize_method,
    serialize_schedule,
)
from tf_movprune.keras2.training_guard import refused_when_loaded
from tf_movprune.keras2.transparent_wrapper import TransparentWrapper
from tf_movprune.keras2.wrapped_layers import (
    check_not_wrapped,
    forget_wrapper,
    remember_wrapper,
)


@register
class PruneLowMovement(TransparentWrapper, PrunableLayer):
    """Computes with masked kernels while it trains the layer's own weights and their scores.

        kernel used in the layer = mask * kernel

    The layer's weights are never overwritten. Masks change only when `UpdatePruningStep` or
    `update_masks` refresh them; tracing a training step that has neither raises.

    Use `prune_low_movement` to make wrappers. Once built, `kernels` has a `MaskedKernel` for each
    prunable kernel, with its variables `movement_scores` (float32 under every precision policy,
    trainable), `mask` (bool, all true at first but for `KeepZeros`) and `threshold`, named after
    the kernel. Heads and neurons, whose weights lie in several layers, have one that all their
    wrappers share; their biases are masked too. Penalties are added to the layer's losses.

    Args:
      layer: the layer to prune: one that tfmot's registry knows, or a subclass of it, or a layer
        that implements `get_prunable_weights()`. It may be unbuilt, except attention layers.
      pruning_schedule: a tfmot `PruningSchedule` whose value is the fraction of zeros, or another
        value that the method asks for; None for methods that take none.
      method: a `PruningMethod`.
      block_size: rows and columns of the blocks that are kept or masked as one, on kernels of
        shape [in, out]; `HEADS` or `NEURONS` with `shared_kernels`.
      score_learning_rate_multiplier: learning rate of the scores over the optimizer's own rate; the
        method's own by default. The gradient that the optimizer sees, and clips, is that of the
        scores themselves.
      shared_kernels: the heads and neurons that the layer has a part in; made by
        `prune_low_movement`.
      **kwargs: arguments of `tf_keras.layers.Layer`.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: nothing in the layer can be pruned, or not in blocks of this size.
    """

    def __init__(
        self,
        layer: Layer,
        pruning_schedule: PruningSchedule | None = None,
        method: PruningMethod | None = None,
        block_size: tuple[int, int] | Units = WEIGHTS,
        score_learning_rate_multiplier: float | None = None,
        shared_kernels: Sequence[SharedKernel] = (),
        **kwargs: Any,
    ):
        settings = Settings(pruning_schedule, method, block_size, score_learning_rate_multiplier)
        _check_layer(layer)
        check_not_wrapped(layer)
        if isinstance(settings.block_size, Units) and not shared_kernels:
            raise TypeError(
                f"block_size {settings.block_size!r} is for models: heads and neurons have weights "
                "in several layers. Give a layer two integers, or prune the model that it is in."
            )
        kwargs.setdefault("name", f"prune_low_movement_{layer.name}")
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)
        super().__init__(layer, **kwargs)
        self._settings = settings
        told = SettingsInCheckpoint(layer.name, lambda: self.settings)
        self.add_to_checkpoints("movement_settings", told)
        self.guard = TrainingGuard(self.name)
        self.usage = KernelUsage(layer.name, self.guard, self)
        self.__dict__["_modes"] = CallModes(layer.name)
        self.__dict__["_is_unmasked"] = False
        self.__dict__["_read_too_early"] = None
        self.__dict__["_shared_kernels"] = list(shared_kernels)  # untracked: their variables are
        self.show_layer()
        if layer.built:
            self.build((layer.get_build_config() or {}).get("input_shape"))
        remember_wrapper(layer, self)

    # ---- variables

    def build(self, input_shape=None):
        if self.built:
            return
        around = tf.get_current_name_scope()
        is_built_by_another = around != "" and around.split("/")[-1] != self.name
        with self._scope_around():
            # A layer that builds the one inside of it, as TimeDistributed does, gives it no scope.
            self._build_layer(input_shape, "" if is_built_by_another else self.layer.name)
        attributes = attributes_by_weight(self.layer)
        weights = find_kernels(self.layer, attributes)
        if len(weights) > 1:
            # Deferred values of checkpoints go by names, which several kernels share. They come
            # back with `kernel_variables`.
            compat.forget_deferred(self, VARIABLE_NAMES)
        kernels, made = make_kernels(
            self, self.settings, weights, self._shared_kernels, set(attributes)
        )
        vars(self)["_built_kernels"] = kernels
        vars(self)["_masked_attributes"] = masked_attributes(attributes, weights, kernels)
        self.usage.watch_weights(
            [(attribute.name, attribute.weight) for attribute, _ in self._masked_attributes],
            [variable for kernel in made for variable in kernel.variables],
        )
        self.__dict__["_layers_inside"] = [self.layer, *self.layer.submodules]
        self.__dict__["_call_lock"] = CallLock()
        self._mark_in_checkpoints(attributes)
        # Layers and checkpoints track these, whichever wrapper made them.
        self.kernel_variables = [kernel.variables for kernel in kernels]
        vars(self)["_made_kernels"] = made
        if self.adds_penalty:
            self.add_loss(self._penalty)  # a bound method: copies of the layer get their own
        super().build(input_shape)

    def _build_layer(self, input_shape: Any, scope: str) -> None:
        if not self.layer.built:
            with tf.name_scope(scope) if scope else contextlib.nullcontext():
                self.layer.build(input_shape)
            self.layer.built = True
        if isinstance(self.layer, keras.layers.MultiHeadAttention) and not self.layer.weights:
            build_attention(self.layer)

    def _mark_in_checkpoints(self, attributes: Mapping[int, Attribute]) -> None:
        """Keeps checkpoints of pruned and of plain models apart, which look alike from outside."""

        paths = paths_to_owners(self.layer)
        places = [attributes[id(w)] for w in self.layer.weights if id(w) in attributes]
        self.mark(
            {
                (*paths[id(place.owner)], place.name): place.weight
                for place in places
                if id(place.owner) in paths
            },
            "kernel_variables",
            functools.partial(refuse_plain_checkpoint, self.layer.name),
        )

    def save_own_variables(self, store):
        check_config_being_saved(compat.registered_name(PruneLowMovement), _count_in)
        super().save_own_variables(store)
        save_settings(store, self.settings)

    def load_own_variables(self, store):
        super().load_own_variables(checked_variables(self.layer.name, store, self.settings))

    @property
    def settings(self) -> Settings:
        """How the layer is pruned. Assigning other settings changes those of its kernels."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        for kernel in vars(self).get("_built_kernels", ()):
            kernel.settings = settings

    @property
    def pruning_schedule(self) -> PruningSchedule:
        """The schedule among the settings."""
        return self.settings.schedule

    @pruning_schedule.setter
    def pruning_schedule(self, schedule: PruningSchedule) -> None:
        self.settings = dataclasses.replace(self.settings, schedule=schedule)

    @property
    def adds_penalty(self) -> bool:
        """True if a penalty of the layer's scores is among its losses, and not of another's."""
        return bool(self._made_kernels) and self.settings.method.has_penalty

    def _penalty(self) -> tf.Tensor:
        with own_reads():
            return tf.add_n([kernel.penalty() for kernel in self._made_kernels])

    @property
    def kernels(self) -> list[MaskedKernel]:
        """The masked kernels that the layer has a part in.

        Raises:
          ValueError: the layer is not built.
        """
        if "_built_kernels" not in vars(self):
            raise ValueError(
                f"The pruned layer {self.name!r} is not built yet, and has no masks. Call it, or "
                "the model, once on example inputs first, for instance model(batch)."
            )
        return self._built_kernels

    @property
    def masks(self) -> list[tf.Variable]:
        """The bool variables `mask` of `kernels`."""
        return [kernel.mask for kernel in self.kernels]

    @property
    def scores(self) -> list[tf.Variable]:
        """The float32 variables `scores` of `kernels`, of methods that have any."""
        return [kernel.scores for kernel in self.kernels if kernel.scores is not None]

    # ---- forward pass

    def call(self, *args, **kwargs):
        self._check_read_too_early()
        if self.usage.owner() is None:  # another model was made with the wrapper
            self.usage.owner = weakref.ref(compat.outermost_calling_layer() or self)
        training = compat.training_argument(self, args, kwargs)
        if compat.is_saving():
            args, kwargs = compat.arguments_by_name(self.layer, args, kwargs)
        if not compat.takes_training(self.layer):
            kwargs.pop("training", None)
        mode = training if compat.is_saving() else self._mode(training)
        if may_take_step(mode) and not compat.is_saving():
            self.guard.check()
        with self._computing(mode) as tensors, self._scope_around():
            outputs = self.layer(*args, **kwargs)
        if mode_of(training) is True and compat.is_saving():
            return refused_when_loaded(self.layer.name, outputs)
        if self._is_watched:
            self.usage.check_call(tensors)
        return outputs

    def _check_read_too_early(self) -> None:
        name = vars(self)["_read_too_early"]
        if name is not None:
            raise ValueError(
                f"The {name} of the pruned layer {self.layer.name!r} is read while another layer "
                "is built, which would keep it as it is masked at that moment. Call the model once "
                f"on example inputs before pruning; or leave {self.layer.name!r} out, with a "
                "mapping of path patterns to schedules or a pruning_policy."
            )

    def _mode(self, told: Any) -> Any:
        """Returns whether a call is part of a training step, whatever mode it is told."""
        if compat.is_making_graph() and not self.guard.is_open:
            return False
        return resolve_mode(told, compat.outermost_training_mode(), self.guard.is_open)

    @property
    def _is_watched(self) -> bool:
        """True in a call while steps are taken."""
        is_called = compat.calling_layer() is not None
        return self.guard.is_open and is_called and not compat.is_saving()

    def computed_attributes(self) -> set[str]:
        masked = vars(self).get("_masked_attributes", ())
        places = [place for attribute, _ in masked for place in attribute.places]
        names = {name for owner, name in places if owner is self.layer}
        return names | set(kernel_names(self.layer))

    def computed_attribute(self, name: str) -> tf.Tensor | None:
        """The masked weight of that name."""
        for i, (attribute, _) in enumerate(vars(self).get("_masked_attributes", ())):
            if (self.layer, name) in attribute.places:
                if compat.is_building():
                    self.__dict__["_read_too_early"] = name  # Sequential models go on
                self._check_read_too_early()
                tensors = self._masked_weights(self._mode(compat.training_mode()))
                if self._is_watched:
                    tensors = self.usage.watched(tensors)
                return tensors[i]
        return None

    def computed_method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the layer, which computes with masked weights."""

        @functools.wraps(method)
        def masked(*args: Any, **kwargs: Any) -> Any:
            if "_built_kernels" not in vars(self):
                return method(*args, **kwargs)
            with self._computing(self._mode(compat.training_mode())):
                return method(*args, **kwargs)

        return masked

    @contextlib.contextmanager
    def _computing(self, training: Any) -> Iterator[list[tf.Tensor]]:
        """A context in which the layer has masked weights, which it gives."""
        tensors = self._masked_weights(training)
        if self._is_watched:
            tensors = self.usage.watched(tensors)
        attributes = [attribute for attribute, _ in self._masked_attributes]
        with (
            self._call_lock.held(self.layer.name),
            as_tensors(self.layer.name),
            replaced(self._layers_inside, attributes, tensors),
        ):
            yield tensors

    @contextlib.contextmanager
    def unmasked(self) -> Iterator[None]:
        """A context in which the layer computes with its weights as they are."""
        self.__dict__["_is_unmasked"] = True
        try:
            yield
        finally:
            self.__dict__["_is_unmasked"] = False

    def _masked_weights(self, training: Any = False) -> list[tf.Tensor]:
        if not self.settings.method.has_noise:
            return self._masked_weights_for(False)
        training = self._modes.mode_of_call(training)
        if tf.is_tensor(training):
            return tf.cond(
                tf.cast(training, tf.bool),
                lambda: self._masked_weights_for(True),
                lambda: self._masked_weights_for(False),
            )
        return self._masked_weights_for(bool(training))

    def _masked_weights_for(self, training: bool) -> list[tf.Tensor]:
        tensors = []
        for attribute, masked_by in self._masked_attributes:
            with own_reads():
                tensor = tf.convert_to_tensor(attribute.weight)
                for kernel, part in () if self._is_unmasked else masked_by:
                    tensor = kernel.masked(part, tensor, training=training)
            tensors.append(tensor)
        return tensors

    # ---- pruning

    def get_prunable_weights(self) -> list[tf.Variable]:
        """The unmasked kernels, in the layer's own order."""
        _ = self.kernels  # raises before the layer is built
        return prunable_weights(self.layer)

    def check_run(self, trained: Collection[int]) -> None:
        """Raises ValueError if training did not use the layer, or gave its scores no gradient.

        Args:
          trained: ids of the variables that are trained.
        """
        attributes = [attribute for attribute, _ in self._masked_attributes]
        names = [x.name for x in attributes if id(x.weight) in trained]
        self.usage.check_run(names if self.settings.method.has_scores else [])

    def join(self, model: Layer, position: int) -> None:
        """Makes the wrapper one of a model's, with the number of the layer in it."""
        self.usage.owner = weakref.ref(model)
        self.__dict__["position"] = position

    def let_go(self) -> None:
        """Leaves the layer as if it had never been wrapped."""
        self.usage.end_watch()
        forget_wrapper(self.layer)

    def fold_masks(self) -> None:
        """Writes the masked weights into the layer. Training raises thereafter."""
        _ = self.kernels
        for (attribute, _), tensor in zip(self._masked_attributes, self._masked_weights()):
            attribute.weight.assign(tensor)
        self.guard.fold()
        self.usage.end_watch()

    # ---- saving

    def get_config(self):
        settings = self.settings
        check_masks_are_own(self.name, settings)
        return {
            **super().get_config(),
            "pruning_schedule": serialize_schedule(settings.schedule),
            "method": serialize_method(settings.method),
            "block_size": list(settings.block_size),
            "score_learning_rate_multiplier": settings.score_learning_rate_multiplier,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        with keras.saving.custom_object_scope(custom_objects or {}), _heard_in_saved_models():
            config["pruning_schedule"] = deserialize_schedule(config["pruning_schedule"])
            config["method"] = deserialize_method(config["method"])
            return cls(deserialize_layer(config.pop("layer")), **config)


@contextlib.contextmanager
def _heard_in_saved_models() -> Iterator[None]:
    """Warns of errors, after which Keras loads a layer of a SavedModel without its class."""
    try:
        yield
    except Exception as error:
        if compat.is_saving():
            warn(f"A pruned layer is loaded without its class. {error}")
        raise


def is_prunable(layer: Any) -> bool:
    """Returns whether `PruneLowMovement` can wrap the layer itself, whatever it contains."""
    return not isinstance(layer, PruneLowMovement) and (
        compat.prunable_weights_method(layer) is not None or bool(kernel_names(layer))
    )


def _check_layer(layer: Any) -> None:
    if not is_prunable(layer):
        raise ValueError(
            f"Expected a layer with prunable weights, got {type(layer).__name__}. Known are the "
            "layers of tfmot's registry (dense, convolution, attention, recurrent, embedding) and "
            "layers that implement get_prunable_weights()."
        )
    hidden = sorted(name for name in _NAMES if hasattr(type(layer), name) or name in vars(layer))
    if hidden:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) has its own "
            f"{' and '.join(map(repr, hidden))}, and so has its wrapper: code that reads them "
            "would find the wrapper's. Rename them, or leave the layer out, with a mapping of path "
            "patterns to schedules or a pruning_policy."
        )
    if not knows_its_inputs(layer):
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) makes its kernels when it is first "
            "called. Call it, or the model, once on example inputs before pruning."
        )


_NAMES = {"guard", "kernel_variables", "position", "usage"} | {
    name
    for name in set(dir(PruneLowMovement)) - set(dir(keras.layers.Wrapper))
    if not name.startswith("_") and name not in ("get_prunable_weights", "reset_states")
}
"""Names of what a wrapper has, and a layer has not."""


def _count_in(model: keras.Model) -> int:
    """The number of pruned layers in a model."""
    return sum(isinstance(module, PruneLowMovement) for module in model.submodules)
