"""Layers that compute with masked kernels, by a class that is made for each class of layers.

A pruned layer stays the object that it was, in all places in which a model has it. Its class
becomes `Pruned<Base>`, a subclass of its own class, whose `call` puts masked tensors where the
layer looks for its kernels. The masks are sublayers. Keras itself changes layers in place in this
way, for LoRA and quantization: once a model is built, its layers cannot be replaced by others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from tf_movprune.core.blocks import block_shape, check_blocks
from tf_movprune.core.checkpoint_marker import Marker, refuse_plain_checkpoint
from tf_movprune.core.kernel_usage import as_tensors
from tf_movprune.core.masked_kernel import Part
from tf_movprune.core.recomputation import is_recomputed
from tf_movprune.core.saved_settings import (
    check_config_being_saved,
    check_masks_are_own,
    checked_variables,
    save_settings,
)
from tf_movprune.core.settings import Settings
from tf_movprune.core.traced_functions import untraced, untraced_functions, untraced_in_bases
from tf_movprune.core.training_guard import is_in_train_step, resolve_mode
from tf_movprune.keras3 import compat
from tf_movprune.keras3.compat import Layer
from tf_movprune.keras3.kernel_places import by_owner, kernel_places
from tf_movprune.keras3.later_changes import allow_changes, refuse_changes
from tf_movprune.keras3.movement_mask import MovementMask
from tf_movprune.keras3.pruning_state import (
    STATE,
    MaskedPlace,
    PruningState,
    is_pruned,
    kernel_names,
    state_of,
)
from tf_movprune.keras3.serialization import deserialize_settings, serialize_settings


def attach(layer: Layer, settings: Settings) -> None:
    """Prunes a built layer in place, with a mask for each of its kernels.

    Raises:
      ValueError: a kernel cannot be cut into blocks, or the layer has none.
    """
    places = kernel_places(layer)
    names = kernel_names(layer, places)
    size: Any = settings.block_size
    parts = [
        Part.in_blocks(compat.tensorflow_variable(place.variable), place.layout, size)
        for place in places
    ]
    check_blocks({f"{layer.name}.{n}": p.covered_shape for n, p in zip(names, parts)}, size)
    begin(layer)
    for name, place, part in zip(names, places, parts):
        mask = add_mask(layer, name, settings, [part], block_shape(part.covered_shape, size))
        state_of(layer).places.append(MaskedPlace(place, [(mask, part)], place.variable))
    watch(layer)


def begin(layer: Layer) -> None:
    """Makes a layer a pruned one, so far without masks."""
    base: Any = type(layer)
    layer.__class__ = pruned_class(base)
    vars(layer)[STATE] = PruningState(layer)
    refuse_changes(layer)


def add_mask(
    layer: Layer, name: str, settings: Settings, parts: Sequence[Part], shape: tuple[int, ...]
) -> MovementMask:
    """Makes a mask that a pruned layer owns, of a shape, for parts of it and of other layers."""
    state = state_of(layer)
    with compat.open_to_changes(layer):
        mask = MovementMask(
            settings,
            parts,
            shape,
            state.guard,
            name=f"movement_{name}",
            dtype=layer.dtype_policy,
        )
        mask.trainable = layer.trainable
        setattr(layer, mask.name, mask)  # not in a list, which tf.train.Checkpoint does not see
    state.masks[mask.name] = mask
    return mask


def watch(layer: Layer) -> None:
    """Begins to watch the weights and masks of a pruned layer, which has them all by now."""
    state = state_of(layer)
    places = [masked.place for masked in state.places]
    refuse = functools.partial(refuse_plain_checkpoint, layer.name)
    for owner, kernels in by_owner(places):
        items: dict[str, Any] = {f"masked_{name}": kernel for name, kernel in kernels.items()}
        for name, kernel in kernels.items():
            items[name] = Marker(compat.tensorflow_variable(kernel).dtype, refuse)
        compat.hold_in_checkpoints(owner, items)
    for stack in _stacks(layer):  # Keras leaves its cells, with all their weights, out
        cells = {f"cells_{index}": cell for index, cell in enumerate(stack.cells)}
        compat.hold_in_checkpoints(stack, cells)
    names = kernel_names(layer, places)
    state.usage.watch_weights(
        [
            (name, compat.tensorflow_variable(masked.variable))
            for name, masked in zip(names, state.places)
        ],
        [variable for mask in state.masks.values() for variable in mask.record.variables],
    )


def _stacks(layer: Layer) -> list[Any]:
    """The stacks of cells inside a recurrent layer."""
    return [x for x in compat.all_layers(layer) if isinstance(x, keras.layers.StackedRNNCells)]


def detach(layer: Layer) -> None:
    """Makes a pruned layer the plain layer that it was. Its kernels stay as they are."""
    state = vars(layer).pop(STATE)
    state.usage.end_watch()
    state.guard.release()
    for owner, _ in by_owner([masked.place for masked in state.places]):
        compat.hold_nothing_else_in_checkpoints(owner)
    for stack in _stacks(layer):
        compat.hold_nothing_else_in_checkpoints(stack)
    allow_changes(layer)
    with compat.open_to_changes(layer):
        for name, mask in state.masks.items():
            compat.untrack(layer, mask)
            delattr(layer, name)
    layer.__class__ = plain_class(type(layer))


def fold(layer: Layer) -> None:
    """Writes the masked kernels of a pruned layer into its weights."""
    for masked in state_of(layer).places:
        masked.variable.assign(masked.masked(False))


def _training_mode(state: PruningState) -> Any:
    """Returns whether the call that runs is part of a training step.

    Keras passes no `training` to a model whose `call` has no such argument. A call from which
    gradients are taken is part of a step then, if a model's train step runs or masks are refreshed.
    """
    told, outermost = compat.training_modes()
    training = resolve_mode(told, outermost, state.guard.is_open)
    if told is None and outermost is None and is_recomputed():
        training = is_in_train_step()
    has_noise = any(kernel.method.has_noise for kernel in state.kernels)
    return state.modes.mode_of_call(training) if has_noise else training


@contextmanager
def _computing(layer: Layer) -> Iterator[None]:
    """A context in which a pruned layer finds masked tensors in place of its kernels.

    A `tf.function` of the layer would remember the tensors of its first call. It is replaced by the
    function that it was made of.
    """
    state = state_of(layer)
    training = _training_mode(state)
    with state.lock:
        tensors = [masked.masked(training) for masked in state.places]
        if state.guard.is_open:
            tensors = state.usage.watched(tensors)
        values: dict[tuple[Layer, str], Any] = {}
        for masked, tensor in zip(state.places, tensors):
            values.update(dict.fromkeys(masked.place.attributes, tensor))
        for owner in compat.all_layers(layer):
            functions = untraced_functions(owner)
            values.update({(owner, name): function for name, function in functions.items()})
        before = {(owner, name): vars(owner).get(name) for owner, name in values}
        try:
            # Assigning the attribute would be refused, or drop the variable from the layer's.
            for (owner, name), value in values.items():
                vars(owner)[name] = value
            with as_tensors(layer.name), untraced_in_bases(compat.all_layers(layer)):
                yield
        finally:
            for (owner, name), value in before.items():
                if value is None:  # a method, which its class has
                    del vars(owner)[name]
                else:
                    vars(owner)[name] = value


@keras.saving.register_keras_serializable("tf_movprune")
class PrunedLayer:
    """What the classes of pruned layers have besides their plain class.

    Files of whole models name this class for all of them.
    """

    def get_config(self: Any) -> dict[str, Any]:
        settings = state_of(self).kernels[0].settings
        check_masks_are_own(self.name, settings)
        pruned = type(self)
        self.__class__ = plain_class(pruned)
        try:
            plain = keras.saving.serialize_keras_object(self)
        finally:
            self.__class__ = pruned
        return {"layer": plain, "pruning": serialize_settings(settings)}

    def save_own_variables(self: Any, store: Any) -> None:
        """Saves the plain layer's variables, and more, so that plain layers refuse to load them.

        Raises:
          ValueError: they go to a file of a whole model that does not tell of all pruned layers.
        """
        name = keras.saving.get_registered_name(PrunedLayer)
        check_config_being_saved(name, lambda m: sum(map(is_pruned, compat.all_layers(m))))
        plain_class(type(self)).save_own_variables(self, store)
        save_settings(store, state_of(self).kernels[0].settings)

    def load_own_variables(self: Any, store: Any) -> None:
        variables = checked_variables(self.name, store, state_of(self).kernels[0].settings)
        plain_class(type(self)).load_own_variables(self, variables)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        layer = keras.saving.deserialize_keras_object(config["layer"])
        if not layer.built:
            raise ValueError(
                f"The pruned layer {layer.name!r} ({type(layer).__name__}) cannot be made from its "
                "configuration, which tells no input shape. Give it a get_build_config(), or "
                "load weights into a fresh model that is pruned in the same way."
            )
        attach(layer, deserialize_settings(config["pruning"]))
        return layer


@functools.cache
def pruned_class(plain: Any) -> type:
    """The class of pruned layers whose plain class is `plain`."""

    plain_call = untraced(plain.call)

    @functools.wraps(plain_call)  # keeps the signature, which Keras reads
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _computing(self):
            return plain_call(self, *args, **kwargs)

    members = {"call": call, "__module__": __name__}
    cls = type(f"Pruned{plain.__name__}", (PrunedLayer, plain), members)
    compat.register_as(cls, keras.saving.get_registered_name(PrunedLayer))
    return cls


def plain_class(pruned: type) -> Any:
    """The plain class of a class of pruned layers."""
    return pruned.__bases__[1]
