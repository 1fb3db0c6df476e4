"""Methods: what they select, what they add to the loss, and how they train through `fit`."""

import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras
from modes import precision
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule import (
    PruningSchedule,
)
from wrapped import mask_of, scores_of, threshold_of, wrappers

import tf_movprune

# ---- in training


def data(n=240):
    random = np.random.RandomState(0)
    x = random.standard_normal([n, 12]).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, (x[:, 0] * x[:, 1] > 0).astype("int32"))).batch(
        20
    )


def pruned(schedule, method, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(24, "relu", input_shape=[12]), keras.layers.Dense(16, "relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    return tf_movprune.prune_low_movement(model, schedule, method, **kwargs)


def train(model, optimizer=None, epochs=2, jit_compile=False, callbacks=()):
    model.compile(
        optimizer or tf_movprune.create_optimizer(1e-2, 12 * epochs, 3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    return model.fit(data(), epochs=epochs, callbacks=callbacks, verbose=0)


def scaled_scores(layer):
    return layer.settings.score_learning_rate_multiplier * scores_of(layer)


SPARSITY = tf_movprune.CubicSparsity(0.75, 2, 18)
THRESHOLD = tf_movprune.CubicThreshold(0.1, 2, 18)


def assert_same_after_stripping(model):
    x = np.random.RandomState(1).standard_normal([7, 12]).astype("float32")
    before = model(x, training=False).numpy()
    np.testing.assert_array_equal(tf_movprune.strip_pruning(model)(x).numpy(), before)


@pytest.mark.xla_refresh
def test_global_selection_in_training():
    model = pruned(SPARSITY, tf_movprune.HardMovement(scope="global"), seed=3)
    history = train(model, jit_compile=True)
    first, second = wrappers(model)
    scores = [scaled_scores(layer) for layer in (first, second)]
    expected = reference.global_topk_masks(scores, reference.kept_count(12 * 24 + 24 * 16, 0.75))
    for layer, want in zip((first, second), expected):
        np.testing.assert_array_equal(mask_of(layer), want)
    assert mask_of(first).mean() != mask_of(second).mean()
    assert threshold_of(first) == threshold_of(second)
    assert history.history["sparsity"][-1] == pytest.approx(0.75)
    assert_same_after_stripping(model)


def test_global_magnitude_with_a_minimum():
    method = tf_movprune.Magnitude(scope="global", minimum_remaining=0.2)
    model = pruned(SPARSITY, method)
    wrappers(model)[1].layer.kernel.assign(1e-3 * wrappers(model)[1].layer.kernel)
    tf_movprune.update_masks(model, 18)
    kept = [int(np.sum(mask_of(layer))) for layer in wrappers(model)]
    assert kept == [168 - 76, 76]  # 76 = int(0.2 * 384); without it, all would be of the first


def test_local_minimum():
    model = pruned(SPARSITY, tf_movprune.HardMovement(minimum_remaining=0.4))
    tf_movprune.update_masks(model, 18)
    assert [int(np.sum(mask_of(layer))) for layer in wrappers(model)] == [115, 153]


@pytest.mark.parametrize(
    "start", ["ones", {"class_name": "Ones", "config": {}}, keras.initializers.Ones, np.float32(1)]
)
def test_ways_to_give_the_first_scores(start):
    tf_movprune.HardMovement(start)


def test_different_block_sizes_are_not_compared():
    layers = [
        tf_movprune.PruneLowMovement(
            keras.layers.Dense(8, input_shape=[8]),
            SPARSITY,
            tf_movprune.HardMovement(scope="global"),
            block_size=block_size,
        )
        for block_size in [(1, 1), (4, 1)]
    ]
    model = keras.Sequential(layers)
    assert float(tf_movprune.update_masks(model, 18)) == 0.75
    assert [int(np.sum(mask_of(layer))) for layer in layers] == [16, 4]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_soft_movement_adds_its_penalty_to_the_loss(jit_compile):
    def penalty(model):
        sigmoids = [reference.sigmoid(scaled_scores(layer)).mean() for layer in wrappers(model)]
        return sum(sigmoids) / 2

    model = pruned(THRESHOLD, tf_movprune.SoftMovement(40.0), score_learning_rate_multiplier=5.0)
    assert float(tf.add_n(model.losses)) == 0  # has not begun
    for step in (6, 18, 23):
        tf_movprune.update_masks(model, step)
        weight = 40 * float(reference.cubic(step, 0, 0.1, 2, 18)) / 0.1
        assert float(tf.add_n(model.losses)) == pytest.approx(weight * penalty(model), rel=1e-5)
    assert len(model.losses) == 2

    model = pruned(THRESHOLD, tf_movprune.SoftMovement(40.0), score_learning_rate_multiplier=5.0)
    tf_movprune.update_masks(model, 0)
    train(model, jit_compile=jit_compile)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = next(iter(data().unbatch().batch(240)))
    total = float(crossentropy(y, model(x))) + 40 * penalty(model)
    assert model.evaluate(x, y, batch_size=240, verbose=0) == pytest.approx(total, rel=1e-5)


def test_soft_movement_in_a_custom_loop():
    model = pruned(THRESHOLD, tf_movprune.SoftMovement(400.0), score_learning_rate_multiplier=20.0)
    optimizer = keras.optimizers.Adam(1e-2)
    before = [scaled_scores(layer).mean() for layer in wrappers(model)]

    @tf.function
    def step(x, y):
        tf_movprune.update_masks(model, optimizer.iterations)
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(
                y, model(x, training=True), from_logits=True
            )
            loss = tf.reduce_mean(losses) + tf.add_n(model.losses)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    for _ in range(3):
        for x, y in data():
            step(x, y)
    sparsity = float(tf_movprune.update_masks(model, optimizer.iterations, force=True))
    after = [scaled_scores(layer).mean() for layer in wrappers(model)]
    assert all(a < b - 1 for a, b in zip(after, before))  # the penalty lowers them
    assert 0.05 < sparsity < 0.999
    for layer in wrappers(model):
        np.testing.assert_array_equal(
            mask_of(layer), reference.soft_mask(scaled_scores(layer), np.float32(0.1))
        )
    assert_same_after_stripping(model)


@pytest.mark.parametrize("final_lambda, jit_compile", [(0.0, False), (100.0, True)])
def test_soft_movement_reaches_its_target(final_lambda, jit_compile):
    method = tf_movprune.SoftMovement(final_lambda, target=True)
    model = pruned(SPARSITY, method, seed=2, score_learning_rate_multiplier=5.0)
    history = train(model, jit_compile=jit_compile)
    assert history.history["sparsity"][-1] == pytest.approx(0.75, abs=1e-3)
    first, second = wrappers(model)
    threshold = threshold_of(first)
    assert threshold == threshold_of(second) and 0 < threshold < 1
    for layer in (first, second):
        np.testing.assert_array_equal(mask_of(layer), tf.sigmoid(scaled_scores(layer)) >= threshold)
    if final_lambda:
        assert float(first.kernels[0].penalty_weight) == pytest.approx(final_lambda / 2)


def test_soft_movement_reaches_its_target_in_a_convolutional_regression():
    keras.utils.set_random_seed(3)
    images = np.random.RandomState(3).standard_normal([96, 8, 8, 3]).astype("float32")
    means = images[:, 2:6, 2:6].mean(axis=(1, 2))
    model = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, activation="relu", input_shape=(8, 8, 3)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=4, end_step=30, frequency=3)
    method = tf_movprune.SoftMovement(50.0, target=True)
    model = tf_movprune.prune_low_movement(model, schedule, method)
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    history = model.fit(
        images, means, 8, 3, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()]
    ).history
    assert history["sparsity"][-1] == pytest.approx(0.9, abs=0.005)
    assert tf_movprune.summarize_sparsity(model).sparsity == pytest.approx(0.9, abs=0.005)
    assert np.std([mask_of(layer).mean() for layer in wrappers(model)]) > 0.01


@pytest.mark.xla_refresh
def test_l0_closes_gates():
    model = pruned(None, tf_movprune.L0(20.0), score_learning_rate_multiplier=30.0)
    first = wrappers(model)[0]
    np.testing.assert_allclose(scaled_scores(first), 2.197, rtol=1e-6)
    history = train(model, epochs=4, jit_compile=True)
    gates = reference.hard_concrete_gate(scaled_scores(first))
    assert np.any(gates == 0) and np.any(gates > 0)
    np.testing.assert_array_equal(mask_of(first), gates > 0)
    zeros = sum(np.sum(~mask_of(layer)) for layer in wrappers(model))
    assert history.history["sparsity"][-1] == pytest.approx(zeros / 672)
    kernel = first.layer.kernel.numpy()
    assert_same_after_stripping(model)
    np.testing.assert_allclose(first.layer.kernel, kernel * gates, atol=1e-6)


def test_penalty_of_l0_and_its_gradient():
    model = pruned(None, tf_movprune.L0(20.0), score_learning_rate_multiplier=30.0)
    for layer in wrappers(model):
        layer.kernels[0].scores.assign_add(
            tf.random.stateless_normal(layer.kernels[0].scores.shape, [1, 2]) / 30
        )
    tf_movprune.update_masks(model, 0)
    scores = [layer.kernels[0].scores for layer in wrappers(model)]
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    expected = 0.0
    for layer, gradient in zip(wrappers(model), tape.gradient(loss, scores)):
        p = reference.sigmoid(scaled_scores(layer).astype(np.float64) - 2 / 3 * np.log(0.1 / 1.1))
        expected += 20 / 2 * p.mean()
        np.testing.assert_allclose(gradient, 20 / 2 * p * (1 - p) / p.size, rtol=1e-4)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_mean_of_the_penalty_is_over_all_matrices_of_the_method():
    def weights(schedules):
        keras.backend.clear_session()
        layers = [keras.layers.Dense(8, input_shape=[8], name=name) for name in "abc"]
        model = tf_movprune.prune_low_movement(
            keras.Sequential(layers), schedules, tf_movprune.SoftMovement(40.0)
        )
        tf_movprune.update_masks(model, 18)
        return [float(layer.kernels[0].penalty_weight) for layer in wrappers(model)]

    other = tf_movprune.CubicThreshold(0.1, 3, 18)
    assert weights(THRESHOLD) == weights({"a": THRESHOLD, "b": other}) == [20.0, 20.0]


def test_noise_of_groups_differs():
    keras.backend.clear_session()
    layers = [keras.layers.Dense(8, input_shape=[8], name=name) for name in "abc"]
    methods = {"a": tf_movprune.L0(100.0), "b": tf_movprune.L0(50.0)}
    model = tf_movprune.prune_low_movement(keras.Sequential(layers), method=methods)
    tf_movprune.update_masks(model, 3)
    seeds = [layer.kernels[0].noise_seed for layer in wrappers(model)]
    assert [seed.numpy().tolist() for seed in seeds] == [[3, 0], [3, 1]]
    # Variables of int32 live on the CPU, where a program of the GPU does not find them.
    assert not any(weight.dtype == tf.int32 for weight in model.weights)


def test_l0_is_random_in_training_only():
    model = pruned(None, tf_movprune.L0(1.0, seed=1))
    x = next(iter(data()))[0]
    tf_movprune.update_masks(model, 0)
    first, again = model(x, training=True), model(x, training=True)
    np.testing.assert_array_equal(first, again)  # of the same step
    tf_movprune.update_masks(model, 1)
    assert np.any(model(x, training=True) != first)
    np.testing.assert_array_equal(model(x, training=False), model(x))
    symbolic = tf.function(lambda x, training: model(x, training=training))
    np.testing.assert_allclose(symbolic(x, tf.constant(False)), model(x), atol=1e-6)
    np.testing.assert_allclose(symbolic(x, tf.constant(True)), model(x, training=True), atol=1e-6)


def test_seed_of_l0():
    def outputs(seed):
        model = pruned(None, tf_movprune.L0(seed=seed))
        tf_movprune.update_masks(model, 5)
        return model(next(iter(data()))[0], training=True).numpy()

    np.testing.assert_array_equal(outputs(1), outputs(1))
    assert np.any(outputs(1) != outputs(2))


@pytest.mark.parametrize(
    "schedule, method",
    [
        pytest.param(THRESHOLD, tf_movprune.SoftMovement(40.0), marks=pytest.mark.slow),
        (SPARSITY, tf_movprune.SoftMovement(40.0, target=True)),
        (None, tf_movprune.L0(20.0)),
        pytest.param(SPARSITY, tf_movprune.HardMovement(scope="global"), marks=pytest.mark.slow),
    ],
    ids=["soft", "target", "l0", "global"],
)
@pytest.mark.parametrize("format_", [".keras", pytest.param(".h5", marks=pytest.mark.slow)])
def test_saved_model_goes_on_to_the_same_bits(schedule, method, format_, tmp_path):
    def optimizer():
        return tf_movprune.create_optimizer(1e-2, 24, 3)

    straight = pruned(schedule, method, score_learning_rate_multiplier=30.0)
    train(straight, optimizer(), epochs=2)

    half = pruned(schedule, method, score_learning_rate_multiplier=30.0)
    half.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    update = tf_movprune.UpdatePruningStep(num_train_steps=24)
    half.fit(data(), epochs=1, callbacks=[update], verbose=0)
    half.save(tmp_path / f"model{format_}")
    loaded = keras.models.load_model(tmp_path / f"model{format_}")
    assert wrappers(loaded)[0].settings.method == method
    assert type(wrappers(loaded)[0].settings.schedule) is type(wrappers(half)[0].settings.schedule)
    loaded.fit(data(), epochs=2, initial_epoch=1, callbacks=[update], verbose=0)
    for got, want in zip(loaded.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "method, jit_compile", [(tf_movprune.SoftMovement(40.0), False), (tf_movprune.L0(20.0), True)]
)
def test_mixed_precision(policy, method, jit_compile):
    with precision(policy):
        schedule = THRESHOLD if method.schedule_value else None
        model = pruned(schedule, method, score_learning_rate_multiplier=30.0)
        optimizer = tf_movprune.create_optimizer(1e-2, 24, 3)
        if policy == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        history = train(model, optimizer, jit_compile=jit_compile)
    layer = wrappers(model)[0]
    assert (
        layer.kernels[0].scores.dtype == tf.float32
        and layer.kernels[0].penalty_weight.dtype == tf.float32
    )
    assert np.all(np.isfinite(history.history["loss"]))
    assert np.std(layer.kernels[0].scores) > 0


def test_methods_by_pattern():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(24, "relu", input_shape=[12], name="first"),
        keras.layers.Dense(16, "relu", name="second"),
        keras.layers.Dense(16, "relu", name="third"),
    ]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    schedules = {"first": None, "second": THRESHOLD, "third": SPARSITY}
    methods = {
        "first": tf_movprune.L0(),
        "second": tf_movprune.SoftMovement(40.0),
        "*": tf_movprune.Magnitude(),
    }
    model = tf_movprune.prune_low_movement(model, schedules, methods)
    names = [type(layer.settings.method).__name__ for layer in wrappers(model)]
    assert names == ["L0", "SoftMovement", "Magnitude"]
    train(model)
    assert np.mean(mask_of(wrappers(model)[2])) == 0.25

    report = tf_movprune.summarize_sparsity(model)
    names = ["L0", "SoftMovement to threshold 0.1", "Magnitude to sparsity 0.75"]
    assert list(report.groups) == names
    assert [group.total for group in report.groups.values()] == [288, 384, 256]
    assert report.as_dict()["groups"][names[2]] == {"remaining": 64, "total": 256, "sparsity": 0.75}
    last = str(report).splitlines()[-4:]
    assert [line.split("  ")[0] for line in last] == [*names, "all"]
    plain = tf_movprune.strip_pruning(model)
    with pytest.raises(ValueError, match=r"pattern 'fourth' in method matches no prunable layer"):
        tf_movprune.prune_low_movement(plain, SPARSITY, {"fourth": tf_movprune.Magnitude()})
    with pytest.raises(ValueError, match=r"Magnitude is the method of third, but no pattern"):
        tf_movprune.prune_low_movement(plain, {"second": THRESHOLD}, methods)

    # One schedule is for those that take one, and L0 needs no pattern there.
    mixed = {"first": tf_movprune.L0(), "*": tf_movprune.Magnitude()}
    model = tf_movprune.prune_low_movement(plain, SPARSITY, mixed)
    assert [type(layer.settings.method).__name__ for layer in wrappers(model)] == [
        "L0",
        *["Magnitude"] * 2,
    ]
    plain = tf_movprune.strip_pruning(model)
    model = tf_movprune.prune_low_movement(plain, {"second": SPARSITY}, mixed)
    assert [type(layer.settings.method).__name__ for layer in wrappers(model)] == [
        "L0",
        "Magnitude",
    ]


# ---- what is refused


@pytest.mark.parametrize(
    "schedule, method, message",
    [
        (SPARSITY, tf_movprune.SoftMovement(1.0), r"SoftMovement with CubicSparsity.*target=True"),
        (THRESHOLD, tf_movprune.HardMovement(), r"sparsity schedule.*HardMovement with CubicThres"),
        (THRESHOLD, tf_movprune.Magnitude(), r"sparsity schedule.*Magnitude with CubicThreshold"),
        (THRESHOLD, tf_movprune.SoftMovement(target=True), r"sparsity schedule"),
        (SPARSITY, tf_movprune.L0(), r"L0 takes no schedule, got L0 with CubicSparsity"),
    ],
)
def test_schedule_of_another_method(schedule, method, message):
    with pytest.raises(ValueError, match=message):
        pruned(schedule, method)


def test_schedule_is_needed_but_for_l0():
    with pytest.raises(TypeError, match=r"pruning_schedule must be a PruningSchedule.*got None"):
        pruned(None, tf_movprune.HardMovement())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tf_movprune.HardMovement(scope="all"), r"scope must be 'local' or 'global', got"),
        (lambda: tf_movprune.Magnitude(minimum_remaining=1.0), r"minimum_remaining must be in \["),
        (lambda: tf_movprune.SoftMovement(-1.0), r"final_lambda must be at least 0, got -1\.0"),
        (lambda: tf_movprune.SoftMovement(1.0, minimum_remaining=-0.1), r"minimum_remaining"),
        (lambda: tf_movprune.L0(float("nan")), r"final_lambda must be at least 0, got nan"),
        (lambda: tf_movprune.HardMovement(float("nan")), r"score_initializer must be finite"),
        (lambda: tf_movprune.L0(seed=-1), r"seed must be at least 0, got -1"),
        (lambda: tf_movprune.CubicThreshold(0.0, 0, 5), r"final_threshold must be greater than 0"),
        (
            lambda: tf_movprune.CubicThreshold(1.2, 0, 5),
            r"final_threshold must be in \[0, 1\), got",
        ),
        (
            lambda: tf_movprune.CubicThreshold(0.1, 5, 5),
            r"end_step must be greater than begin_step",
        ),
        (lambda: tf_movprune.CubicThreshold(0.1, 0, 5, 0.2), r"initial_threshold must be at most"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tf_movprune.CubicThreshold(0.1), r"begin_step must be an integer .*, got None"),
        (lambda: tf_movprune.SoftMovement("400"), r"final_lambda must be a number such as 100\.0"),
        (lambda: tf_movprune.HardMovement(minimum_remaining="x"), r"minimum_remaining must be a"),
        (lambda: tf_movprune.SoftMovement(target="no"), r"target must be True or False, got 'no'"),
        *(
            (functools.partial(cls, score_initializer=value), r"score_initializer must be a number")
            for cls in (tf_movprune.HardMovement, tf_movprune.SoftMovement, tf_movprune.L0)
            for value in (None, True, [0.1], tf_movprune.MagnitudeScores)
        ),
        (lambda: tf_movprune.L0(seed=True), r"seed must be an integer such as 0, got True"),
        (lambda: tf_movprune.MagnitudeScores("x"), r"scale must be a number such as 1\.0, got 'x'"),
    ],
)
def test_arguments_of_the_wrong_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()


class Ramp(PruningSchedule):
    """A schedule of one's own: from 0 to 0.75, with attributes of any names."""

    def __init__(self, end_step=None):
        self.begin_step = 0
        self._value = 0.75
        if end_step is not None:
            self.end_step = end_step

    def __call__(self, step):
        return True, 0.75 * tf.minimum(tf.cast(step, tf.float64) / 16, 1.0)

    def get_config(self):
        return {"class_name": "Ramp", "config": {}}


def test_schedule_of_ones_own():
    model = pruned(Ramp(), tf_movprune.HardMovement())
    assert float(tf_movprune.update_masks(model, 16)) == 0.75
    assert list(tf_movprune.summarize_sparsity(model).groups) == ["HardMovement"]
    with pytest.raises(ValueError, match=r"penalty of SoftMovement .* but Ramp has no end_step"):
        pruned(Ramp(), tf_movprune.SoftMovement(1.0, target=True))
    model = pruned(Ramp(end_step=16), tf_movprune.SoftMovement(8.0, target=True))
    tf_movprune.update_masks(model, 8)
    assert (
        float(wrappers(model)[0].kernels[0].penalty_weight) == 8 / 2 / 2
    )  # half the way, two matrices


def test_schedule_of_a_threshold_that_does_not_fit_the_run():
    model = pruned(tf_movprune.CubicThreshold(0.1, 0, 100), tf_movprune.SoftMovement(1.0))
    with pytest.raises(ValueError, match=r"ends at step 100.*would stop at threshold 0\.06"):
        train(model)


def test_initial_values_hold_from_the_first_step():
    schedule = tf_movprune.CubicSparsity(0.75, 6, 18, initial_sparsity=0.25)
    model = pruned(schedule, tf_movprune.Magnitude())
    assert float(tf_movprune.update_masks(model, 0)) == pytest.approx(0.25)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("cls", [tf_movprune.HardMovement, tf_movprune.Magnitude])
def test_one_weight_of_each_matrix_stays_unless_none_is_asked_for(cls, scope):
    scores = [tf.random.normal([n], i) for i, n in ((0, 80), (5, 9))]
    for minimum, least in ((None, 1), (0, 0), (0.5, 4)):
        method = cls(scope=scope, minimum_remaining=minimum)
        kept = [int(tf.reduce_sum(tf.cast(m, tf.int32))) for m, _ in method.select(scores, 0.99)]
        assert min(kept) == least, (minimum, kept)
    with pytest.raises(ValueError, match="minimum_remaining"):
        cls(minimum_remaining=1.0)
