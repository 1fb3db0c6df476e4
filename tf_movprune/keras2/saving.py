"""Guards against saving pruned models in ways in which they would not load again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py

from tf_movprune.core.nested import named_leaves
from tf_movprune.core.saved_settings import add_to_h5, check_h5
from tf_movprune.core.settings import Settings
from tf_movprune.core.unchanged import unchanged_on_error
from tf_movprune.keras2 import compat, hugging_face
from tf_movprune.keras2.compat import (
    Layer,
    PlainSGD,
    check_keras_object,
    is_graph_network,
    keras,
    registered_name,
    save_format_of,
)
from tf_movprune.keras2.instance_method import InstanceMethod, take_back_methods
from tf_movprune.keras2.layer import PruneLowMovement
from tf_movprune.keras2.layer_tree import LayerTree, pruned_layers
from tf_movprune.keras2.optimizers import LinearWarmupDecay, MovementAdamW
from tf_movprune.keras2.serialization import SERIALIZABLE
from tf_movprune.keras2.weight_files import holds_masks


def guard_saving(tree: LayerTree) -> None:
    """Makes `save_pretrained` raise, and saving that would lose what was changed in place.

    Errors of `load_weights` say which files fit.

    Args:
      tree: layer tree of a pruned model.
    """
    hugging_face.refuse_saving(tree.root)
    for layer in tree.holders():
        if isinstance(layer, keras.Model):
            vars(layer)["load_weights"] = _LoadWeights(layer, is_pruned=True)
            vars(layer)["save_weights"] = _SaveWeights(layer)
            if type(layer).save is keras.Model.save:
                vars(layer)["save"] = _SafeSave(layer)
        # Keras would save a layer that was changed in place as its class makes it, without
        # wrappers. The file would not load, or would load another model.
        if not is_graph_network(layer):
            vars(layer)["get_config"] = _CompleteConfig(layer)


def unguard(tree: LayerTree) -> None:
    """Undoes `guard_saving`, and takes back all other methods that models were given."""
    hugging_face.allow_saving(tree.root)
    for layer in tree.layers():
        take_back_methods(layer)


def guard_loading(model: Layer) -> None:
    """Makes `load_weights` of a stripped model refuse weights of pruned ones."""
    if isinstance(model, keras.Model):
        vars(model)["load_weights"] = _LoadWeights(model, is_pruned=False)


def refuse_files(model: Layer, why: str) -> None:
    """Makes saving of a model raise ValueError, before Keras opens a file."""

    def refuse() -> None:
        raise ValueError(why)

    if isinstance(model, keras.Model):
        for name in ("save", "save_weights"):
            vars(model)[name] = _Refusal(refuse)


class _Refusal(InstanceMethod):
    """A method of one model that refuses before Keras opens the file, which would be lost.

    Args:
      refuse: a function that raises.
    """

    def __init__(self, refuse: Callable[[], Any]):
        self.refuse = refuse

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.refuse()


class _SafeSave(InstanceMethod):
    """The `save` of a model, which raises what configurations do before Keras opens the file."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(
        self, filepath: Any, overwrite: bool = True, save_format: Any = None, **kwargs: Any
    ) -> None:
        tree = LayerTree(self.model)
        for layer in (*tree.holders(), *tree.pruned_layers().values()):
            try:
                layer.get_config()
            except NotImplementedError:
                if save_format_of(filepath, save_format) != "tf":  # SavedModels do without
                    raise
        type(self.model).save(self.model, filepath, overwrite, save_format, **kwargs)
        if save_format_of(filepath, save_format) == "h5":
            add_to_h5(filepath, _settings(self.model))


class _SaveWeights(InstanceMethod):
    """The `save_weights` of a model, whose `.h5` files tell how it is pruned."""

    def __init__(self, model: keras.Model):
        self.model = model

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        result = type(self.model).save_weights(self.model, filepath, *args, **kwargs)
        if h5py.is_hdf5(filepath) and not str(filepath).endswith(".weights.h5"):
            add_to_h5(filepath, _settings(self.model))
        return result


def _settings(model: keras.Model) -> dict[str, Settings]:
    return {path: wrapper.settings for path, wrapper in pruned_layers(model).items()}


_PRUNED = (
    "is pruned and takes weights of a model that was pruned in the same way, scores and masks "
    "among them; call it once on example inputs first if it is not built. Load dense weights "
    "before tf_movprune.prune_low_movement, and those of a stripped model into a plain one."
)
_STRIPPED = (
    "was stripped of pruning. Load them into a model that is pruned in the same way, and strip "
    "that; or save what tf_movprune.strip_pruning returned, and load this."
)


class _LoadWeights(InstanceMethod):
    """The `load_weights` of a model, which refuses files of models that are not pruned like it.

    Whatever raises, the model keeps its weights.
    """

    def __init__(self, model: keras.Model, *, is_pruned: bool):
        self.model, self.is_pruned = model, is_pruned

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        found = holds_masks(filepath)
        if found is not None and found != self.is_pruned:
            raise ValueError(
                f"{str(filepath)!r} holds weights of a {'pruned' if found else 'plain'} model, and "
                f"{self.model.name!r} {_PRUNED if self.is_pruned else _STRIPPED}"
            )
        if h5py.is_hdf5(filepath):
            check_h5(filepath, _settings(self.model))
        try:
            with unchanged_on_error(compat.all_variables(self.model)):  # Keras loads in parts
                return type(self.model).load_weights(self.model, filepath, *args, **kwargs)
        except ValueError as error:
            if self.is_pruned:
                raise ValueError(f"{error}\n{self.model.name!r} {_PRUNED}") from error
            raise


class _CompleteConfig(InstanceMethod):
    """The `get_config` of a layer, which raises if it does not tell of the wrappers inside."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def __call__(self) -> dict[str, Any]:
        layer = self.layer
        config = type(layer).get_config(layer)
        leaves = [leaf for _, leaf in named_leaves(config)]
        name = registered_name(PruneLowMovement)
        found = sum(isinstance(leaf, str) and leaf == name for leaf in leaves)
        found += sum(len(pruned_layers(leaf)) for leaf in leaves if isinstance(leaf, Layer))
        inside = pruned_layers(layer).values()
        if found < len(inside):
            # Keras takes NotImplementedError for a layer without configuration. SavedModels need
            # none, but do not bring back wrappers of attention.
            lost = any(isinstance(w.layer, keras.layers.MultiHeadAttention) for w in inside)
            raise (ValueError if lost else NotImplementedError)(
                f"{layer.name!r} ({type(layer).__name__}) has pruning wrappers inside that its "
                "get_config() does not tell of: a file of the whole model would not load. Use "
                "save_weights or tf.train.Checkpoint, and load into a fresh model that is pruned "
                "in the same way; or save what tf_movprune.strip_pruning returns."
            )
        return config


def prune_scope():
    """Returns a scope in which files of whole pruned models load, with their optimizers.

    with tf_movprune.prune_scope():
        model = tf_keras.models.load_model("pruned.keras")
    """
    classes = (PruneLowMovement, *SERIALIZABLE, MovementAdamW, LinearWarmupDecay, PlainSGD)
    return keras.saving.custom_object_scope({cls.__name__: cls for cls in classes})


def check_stripped(model: Any) -> None:
    """Raises TypeError if `model` is not a Keras model, ValueError if it is still pruned."""
    check_keras_object(model, keras.Model, "a tf_keras model")
    if pruned_layers(model):
        raise ValueError(
            f"{model.name!r} still has pruning wrappers. Use what "
            "tf_movprune.strip_pruning(model) returns."
        )
