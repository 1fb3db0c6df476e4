"""Layers that are pruned, and what their wrappers hold."""

import tf_movprune


class Everything:
    """A policy that also prunes the output layer and recurrent ones."""

    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


def wrappers(model):
    return list(tf_movprune.pruned_layers(model).values())


def mask_of(layer, i=0):
    return layer.kernels[i].mask.numpy()


def scores_of(layer, i=0):
    return layer.kernels[i].scores.numpy()


def threshold_of(layer, i=0):
    return float(layer.kernels[i].threshold)
