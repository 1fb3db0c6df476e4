"""What `create_optimizer` promises for models of either Keras."""

import numpy as np
import pytest
import tensorflow as tf

import tf_movprune


def norm(keras, name, axes):
    """A layer with one weight of a name, as RMS normalisations have."""

    class Norm(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(name=name, shape=(8,) * axes, initializer="ones")
            self.built = True

        def call(self, x):
            return x * tf.convert_to_tensor(self.w)

    return Norm(name=f"norm_{axes}")


def test_only_matrices_decay(keras):
    layers = [keras.layers.Dense(8, bias_initializer="ones"), keras.layers.LayerNormalization()]
    layers += [norm(keras, "weight", 1), norm(keras, "scale", 2)]
    model = keras.Sequential([keras.Input([8]), *layers])
    optimizer = tf_movprune.create_optimizer(0.5, 10, 0, weight_decay=0.1, model=model)
    before = model.get_weights()
    gradients = [(tf.zeros(v.shape), v) for v in model.trainable_variables]
    optimizer.apply_gradients(gradients)
    kernel, *others = model.get_weights()
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.5 * 0.1), rtol=1e-6)
    for old, new in zip(before[1:], others, strict=True):
        np.testing.assert_array_equal(old, new)


def test_users_exclude_more_from_decay(keras):
    model = keras.Sequential([keras.Input([8]), keras.layers.Dense(8), keras.layers.Dense(4)])
    optimizer = tf_movprune.create_optimizer(0.5, 10, 0, weight_decay=0.1, model=model)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    before = model.get_weights()
    optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in model.trainable_variables])
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert changed == [False, False, True, False]


OWN_SETTINGS = {
    "clipnorm": 1.0,
    "global_clipnorm": 2.0,
    "clipvalue": 0.5,
    "weight_decay": 0.1,
    "use_ema": True,
    "gradient_accumulation_steps": 2,
    "loss_scale_factor": 8.0,
}


@pytest.mark.parametrize("name", OWN_SETTINGS)
def test_settings_of_a_score_optimizer_that_take_no_part(keras, name):
    value = OWN_SETTINGS[name]
    try:
        sgd = keras.optimizers.SGD(1.0, **{name: value})
    except TypeError:
        pytest.skip("tf_keras has no such setting")
    with pytest.raises(ValueError, match=rf"must not set {name}, got {value}"):
        tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=sgd)


def test_rates_of_a_score_optimizer_that_are_no_numbers(keras):
    sgd = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(1.0, 10))
    with pytest.raises(ValueError, match=r"number as its learning rate, got .* warm-up and decay"):
        tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=sgd)


def test_a_score_optimizer_around_another(keras):
    module = getattr(keras.mixed_precision, "LossScaleOptimizer", None)
    wrap = module or keras.optimizers.LossScaleOptimizer
    with pytest.raises(ValueError, match=r"must not wrap another .* around what create_optimizer"):
        tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=wrap(keras.optimizers.SGD(1.0)))


def test_averages_of_scores_with_an_optimizer_of_their_own(keras):
    optimizer = tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=keras.optimizers.SGD(1.0))
    with pytest.raises(ValueError, match="use_ema averages all variables"):
        type(optimizer).from_config({**optimizer.get_config(), "use_ema": True})


def test_rates_of_the_paper_would_fall_with_each_batch(keras):
    """Only optimizers of Keras 3 can accumulate gradients; their rates count batches."""
    if keras.__name__ == "tf_keras":
        pytest.skip("tf_keras accumulates no gradients")
    optimizer = tf_movprune.create_optimizer(1e-3, 10, 0, model=keras.layers.Dense(2))
    optimizer.gradient_accumulation_steps = 2
    with pytest.raises(ValueError, match=r"step for each batch.* keras\.optimizers\.AdamW"):
        optimizer.build([keras.Variable([[1.0]])])


@pytest.mark.filterwarnings("ignore:.*HDF5")
@pytest.mark.parametrize("format_", [".keras", ".h5"])
def test_whole_models_are_saved_with_an_optimizer_of_scores(keras, format_, tmp_path):
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input([4]), dense])
    sgd = keras.optimizers.SGD(1.0)
    optimizer = tf_movprune.create_optimizer(1e-2, 8, 0, score_optimizer=sgd, model=model)
    model.compile(optimizer, keras.losses.MeanSquaredError())
    x = np.ones([8, 4], "float32")
    model.fit(x, x[:, :2], batch_size=4, verbose=0)
    path = str(tmp_path / f"model{format_}")
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert int(loaded.optimizer.iterations) == 2
    for each in (model, loaded):
        each.fit(x, x[:, :2], batch_size=4, verbose=0)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
