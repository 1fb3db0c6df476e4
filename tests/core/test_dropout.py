"""The rate of dropout of models of both Kerases, and of layers that are not theirs."""

import keras as keras3
import pytest
import tf_keras as keras2
from transformers.models.deberta_v2 import modeling_tf_deberta_v2 as deberta

from tf_movprune.core.dropout import set_dropout

EVERY_KERAS = pytest.mark.parametrize("keras", [keras2, keras3], ids=["keras2", "keras3"])


@EVERY_KERAS
def test_layers_that_drop_out_get_the_rate_and_others_none(keras):
    kinds = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.GaussianDropout)
    layers = [keras.layers.Dense(2), *(kind(0.1) for kind in kinds), keras.layers.Dropout(0.0)]
    set_dropout("model", layers, 0.25)
    assert [layer.rate for layer in layers[1:]] == [0.25, 0.25, 0.25, 0.0]
    set_dropout("model", layers, 0.0)
    assert [layer.rate for layer in layers[1:]] == [0.0] * 4


def test_dropout_of_deberta_is_known():
    layer = deberta.TFDebertaV2StableDropout(0.1)
    set_dropout("model", [layer], 0.0)
    assert layer.drop_prob == 0.0


@EVERY_KERAS
def test_a_rate_without_a_layer_that_drops_out_is_refused(keras):
    with pytest.raises(ValueError, match=r"dropout is 0\.1, and 'model' has no layer"):
        set_dropout("model", [keras.layers.Dense(2), keras.layers.Dropout(0.0)], 0.1)
    set_dropout("model", [keras.layers.Dense(2)], 0.0)


@EVERY_KERAS
def test_dropout_of_an_unknown_kind_is_refused(keras):
    class WordDropout(keras.layers.Layer):
        """Drops whole words at a rate of its own."""

    layers = [keras.layers.Dropout(0.1), WordDropout(name="words")]
    with pytest.raises(ValueError, match="'words', whose class WordDropout"):
        set_dropout("model", layers, 0.0)
    assert layers[0].rate == 0.1
