"""SavedModels of tf_keras that were written after a training."""

import numpy as np
import tensorflow as tf
import tf_keras as keras
from saved import cubic, inputs_of, outputs_of, save, sequential

import tf_movprune


def test_trained_model_serves_its_masks(tmp_path):
    """With compiled functions, an optimizer and a bound callback, as after `fit`."""
    model = tf_movprune.prune_low_movement(sequential(), cubic())
    sgd = keras.optimizers.SGD(1.0, momentum=0.5)
    optimizer = tf_movprune.create_optimizer(0.05, 12, 2, weight_decay=0.01, score_optimizer=sgd)
    model.compile(optimizer, "mse")
    x = np.random.RandomState(7).standard_normal([48, 8]).astype("float32")
    callbacks = [tf_movprune.UpdatePruningStep()]
    model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=callbacks)
    expected = outputs_of(model)
    save(model, tmp_path / "trained_saved_model")
    restored = tf.saved_model.load(str(tmp_path / "trained_saved_model"))
    (outputs,) = restored.signatures["serving_default"](tf.constant(inputs_of(model))).values()
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)
    loaded = keras.models.load_model(str(tmp_path / "trained_saved_model"))
    assert tf_movprune.summarize_sparsity(loaded).sparsity == 0.75
    np.testing.assert_array_equal(outputs_of(loaded), expected)
