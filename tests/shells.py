"""What tests of both shells need to know of a model of either Keras."""

import contextlib
import importlib

import numpy as np
import tensorflow as tf

import tf_movprune
from tf_movprune.shells import module_for

KERASES = ("tf_keras", "keras")


def keras_of(name):
    return importlib.import_module(name)


def kernels(model):
    """The masked kernels of a pruned model."""
    tree = module_for(model, "layer_tree")
    return tree.kernels_of(tree.pruned_layers(model).values())


def sparsities(model):
    """The fraction of zeros of each mask."""
    return [1 - np.count_nonzero(kernel.mask) / kernel.size for kernel in kernels(model)]


def scores(model):
    return [kernel.paper_scores().numpy() for kernel in kernels(model)]


def weights_by_name(model):
    """The weights of a model, in order, by the last part of their names."""
    return [(w.name.split("/")[-1].split(":")[0], np.array(w)) for w in model.weights]


def gradients(model, loss):
    """Gradients of `loss(model)` for the trainable variables of a model, by variable's id."""
    with tf.GradientTape() as tape:
        value = loss(model)
    variables = model.trainable_variables
    targets = [getattr(variable, "_value", variable) for variable in variables]
    found = tape.gradient(value, targets)
    return {id(target): grad for target, grad in zip(targets, found)}


def interrupting(keras):
    """A callback that interrupts training after its first epoch."""

    class Interrupting(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    return Interrupting()


def backup(keras, folder):
    """A new callback that keeps a backup in a folder, and goes on from one."""
    name = "backup.weights.h5" if keras.__name__ == "keras" else "backup"
    return keras.callbacks.BackupAndRestore(str(folder / name))


@contextlib.contextmanager
def precision(keras, policy):
    """A scope in which layers are made in a policy."""
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy("float32")


def refresh(model, step):
    return float(tf_movprune.update_masks(model, step))
