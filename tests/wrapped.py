"""Layers that are pruned, and what their wrappers hold."""

import tf_movprune


class Everything:
    """A policy that also prunes the output layer and recurrent ones."""

    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


def prune(model, **kwargs):
    """A model on its way to 75 % zeros at step 4, with scores that do not start at zero."""
    schedule = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=4)
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(0.01))
    return tf_movprune.prune_low_movement(model, schedule, method, **kwargs)


def wrappers(model):
    return list(tf_movprune.pruned_layers(model).values())


def mask_of(layer, i=0):
    return layer.kernels[i].mask.numpy()


def scores_of(layer, i=0):
    return layer.kernels[i].scores.numpy()


def threshold_of(layer, i=0):
    return float(layer.kernels[i].threshold)
