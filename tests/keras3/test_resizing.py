"""Kernels of other shapes, as files of compacted models tell them."""

import keras
import numpy as np
import pytest

from tf_movprune.keras3.resizing import apply_shapes


def dense():
    layers = [keras.layers.Dense(4), keras.layers.Dense(3, use_bias=False)]
    for layer in layers:
        layer.build([None, 6])
    return layers


def test_layers_get_zeros_of_their_new_shapes():
    layers = dense()
    apply_shapes(layers, {0: (6, 2), 1: (5, 3)}, {})
    assert [layer.kernel.shape for layer in layers] == [(6, 2), (5, 3)]
    assert layers[0].bias.shape == (2,)
    assert not np.any(layers[0].kernel) and not np.any(layers[1].kernel)


@pytest.mark.parametrize("place, shape", [(0, (6, 5)), (0, (7, 4)), (0, (6,)), (2, (6, 2))])
def test_shapes_that_no_layer_could_be_cut_to(place, shape):
    layers = dense()
    with pytest.raises(ValueError, match=rf"dense layer number {place} cannot be cut to"):
        apply_shapes(layers, {place: shape}, {})
    assert [layer.kernel.shape for layer in layers] == [(6, 4), (6, 3)]
