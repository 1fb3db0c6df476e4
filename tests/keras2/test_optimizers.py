"""create_optimizer: its rate, clip, decay and state, against formulas written out here."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune
from tf_movprune.keras2.optimizers import LinearWarmupDecay, MovementAdamW

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def linear(step, peak, total, warmup):
    """The rate, as the paper's code has it."""
    if step < warmup:
        return peak * step / warmup
    return peak * max(0.0, (total - step) / (total - warmup))


def pruned_model(dtype=None, final_sparsity=0.75, end_step=10):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", name="first", dtype=dtype),
            keras.layers.Dense(4, activation="tanh", name="second", dtype=dtype),
            keras.layers.Dense(2, name="output"),
        ]
    )
    schedule = tf_movprune.CubicSparsity(final_sparsity, begin_step=0, end_step=end_step)
    return tf_movprune.prune_low_movement(model, schedule)


def data(batches=12, size=4):
    random = np.random.RandomState(1)
    inputs = random.standard_normal((batches * size, 8)).astype("float32")
    return inputs, inputs[:, :2] * 2


def scores_and_weights():
    """Variables with the names that wrapped layers give theirs."""
    random = np.random.RandomState(2)
    names = ["dense/kernel/movement_scores", "dense/kernel", "dense/bias", "head/kernel"]
    shapes = [(3, 4), (3, 4), (4,), (4, 2)]
    return [
        tf.Variable(random.standard_normal(shape).astype("float32"), name=name)
        for name, shape in zip(names, shapes)
    ]


def random_gradients(variables, steps, seed=3):
    """Of very different sizes, so that the clip cuts some steps and leaves others."""
    random = np.random.RandomState(seed)
    return [
        [(scale * random.standard_normal(tuple(v.shape))).astype("float32") for v in variables]
        for scale in np.geomspace(1e-3, 1e2, steps)
    ]


def apply_all(optimizer, variables, steps):
    for gradients in steps:
        optimizer.apply_gradients([(tf.constant(g), v) for g, v in zip(gradients, variables)])


def reference_adamw(
    values, steps, rate, decay=None, clipnorm=1.0, sgd=(), sgd_rate=None, epsilon=EPSILON
):
    """AdamW in Keras's form in float64, with one clip; the indices in `sgd` learn by plain SGD."""
    values = [value.astype(np.float64) for value in values]
    decay = decay or [0.0] * len(values)
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]
    for step, gradients in enumerate(steps):
        gradients = [g.astype(np.float64) for g in gradients]
        if clipnorm is not None:
            norm = np.sqrt(sum(np.sum(g * g) for g in gradients))
            gradients = [g * min(1.0, clipnorm / norm) for g in gradients]
        for i, g in enumerate(gradients):
            if i in sgd:
                values[i] -= sgd_rate(step) * g
                continue
            values[i] -= values[i] * decay[i] * rate(step)
            first[i] = BETA_1 * first[i] + (1 - BETA_1) * g
            second[i] = BETA_2 * second[i] + (1 - BETA_2) * g * g
            corrected = rate(step) * np.sqrt(1 - BETA_2 ** (step + 1)) / (1 - BETA_1 ** (step + 1))
            values[i] -= corrected * first[i] / (np.sqrt(second[i]) + epsilon)
    return values


def numpy_of(variables):
    return [variable.numpy() for variable in variables]


def assert_all_equal(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


# ---- the rate


def test_rate_at_the_corners():
    schedule = LinearWarmupDecay(0.5, num_train_steps=100, num_warmup_steps=10)
    assert float(schedule(0)) == 0.0
    assert float(schedule(5)) == 0.25
    assert float(schedule(10)) == 0.5
    assert float(schedule(55)) == 0.25
    assert float(schedule(100)) == 0.0
    assert float(schedule(1000)) == 0.0


def test_optimizer_follows_the_rate_from_its_own_iterations():
    optimizer = tf_movprune.create_optimizer(0.5, num_train_steps=6, num_warmup_steps=2)
    variable = tf.Variable([[1.0]], name="head/kernel")
    rates = []
    for _ in range(8):
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [linear(step, 0.5, 6, 2) for step in range(8)], rtol=1e-6)
    assert int(optimizer.iterations) == 8


def test_schedule_round_trip():
    schedule = LinearWarmupDecay(3e-5, num_train_steps=20, num_warmup_steps=5)
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(json.loads(json.dumps(config)))
    assert type(restored) is LinearWarmupDecay
    assert restored.get_config() == {
        "peak_learning_rate": 3e-5,
        "num_train_steps": 20,
        "num_warmup_steps": 5,
    }


# ---- the update


def test_updates_are_those_of_adamw_with_one_clip():
    variables = scores_and_weights()
    steps = random_gradients(variables, steps=8)
    decay = [0.0, 0.1, 0.0, 0.1]
    expected = reference_adamw(
        numpy_of(variables), steps, lambda step: linear(step, 0.05, 8, 2), decay
    )
    optimizer = tf_movprune.create_optimizer(0.05, 8, 2, weight_decay=0.1)
    apply_all(optimizer, variables, steps)
    for variable, value in zip(variables, expected):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)


def test_betas_and_epsilon():
    optimizer = tf_movprune.create_optimizer(1e-3, 10, 0)
    config = optimizer.get_config()
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (BETA_1, BETA_2, EPSILON)

    # Gradients so small that Keras's own epsilon of 1e-7 would move the weight less than half as
    # far.
    variable = tf.Variable([1.0], name="head/kernel")
    steps = [[np.array([1e-6], "float32")]] * 3
    expected = reference_adamw([np.ones(1)], steps, lambda step: linear(step, 1e-3, 10, 0))[0]
    other = reference_adamw([np.ones(1)], steps, lambda s: linear(s, 1e-3, 10, 0), epsilon=1e-7)[0]
    apply_all(optimizer, [variable], steps)
    np.testing.assert_allclose(1 - variable.numpy(), 1 - expected, rtol=1e-3)
    assert 1 - other[0] < 0.6 * (1 - expected[0])


def test_without_clip():
    variables = scores_and_weights()
    steps = random_gradients(variables, steps=5)
    expected = reference_adamw(
        numpy_of(variables), steps, lambda step: linear(step, 0.05, 5, 0), clipnorm=None
    )
    apply_all(tf_movprune.create_optimizer(0.05, 5, 0, clipnorm=None), variables, steps)
    for variable, value in zip(variables, expected):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score_optimizer", [None, keras.optimizers.SGD(1.0)])
def test_one_clip_spans_weights_and_scores(score_optimizer):
    variables = scores_and_weights()
    before = numpy_of(variables)
    # The scores' gradient is by far the largest: clipped apart, the weights' would stay whole.
    gradients = [np.full(v.shape, 0.1, "float32") for v in variables]
    gradients[0] = np.full((3, 4), 100.0, "float32")
    clipped = [g.numpy() for g in tf.clip_by_global_norm(gradients, 0.5)[0]]
    optimizer = tf_movprune.create_optimizer(
        0.1, 10, 0, clipnorm=0.5, score_optimizer=score_optimizer
    )
    apply_all(optimizer, variables, [gradients])

    moments = {v.name: v.numpy() for v in optimizer.variables if "/m/" in v.name}
    for variable, gradient in list(zip(variables, clipped))[1:]:
        moment = moments[f"MovementAdamW/m/{variable.name}"]
        np.testing.assert_allclose(moment, (1 - BETA_1) * gradient, rtol=1e-5)
    if score_optimizer is None:
        moment = moments[f"MovementAdamW/m/{variables[0].name}"]
        np.testing.assert_allclose(moment, (1 - BETA_1) * clipped[0], rtol=1e-5)
    else:
        np.testing.assert_allclose(before[0] - variables[0].numpy(), clipped[0], rtol=1e-4)


# ---- decay


def decayed_variables(model, optimizer):
    """Names of what shrinks when every gradient is zero, and by what factor."""
    before = numpy_of(model.trainable_variables)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    return {
        variable.name: variable.numpy() / value
        for variable, value in zip(model.trainable_variables, before)
        if not np.array_equal(variable.numpy(), value)
    }


def filled_with_random_values(model):
    random = np.random.RandomState(4)
    for variable in model.trainable_variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.mark.parametrize("score_optimizer", [None, keras.optimizers.SGD(1.0)])
def test_only_kernels_decay(score_optimizer):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(4, name="first"),
            keras.layers.LayerNormalization(),
            keras.layers.LayerNormalization(name="LayerNorm"),  # as Hugging Face names it
            keras.layers.LayerNormalization(name="final"),
            keras.layers.BatchNormalization(name="batch"),
            keras.layers.Dense(2, name="output"),
        ]
    )
    model = tf_movprune.prune_low_movement(model, tf_movprune.CubicSparsity(0.5, 0, 5))
    filled_with_random_values(model)
    names = {variable.name for variable in model.trainable_variables}
    assert "first/kernel/movement_scores:0" in names
    assert {name for name in names if name.startswith("layer_normalization")}
    assert len(names) == 2 + 1 + 2 + 4 * 2

    optimizer = tf_movprune.create_optimizer(
        0.5, 10, 0, weight_decay=0.1, score_optimizer=score_optimizer
    )
    factors = decayed_variables(model, optimizer)
    assert set(factors) == {"first/kernel:0", "output/kernel:0"}
    for factor in factors.values():
        np.testing.assert_allclose(factor, 1 - 0.5 * 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", ["debiased", "beta_branch", "gamma"])
def test_kernels_decay_whatever_their_layer_is_called(name):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name=name)])
    filled_with_random_values(model)
    factors = decayed_variables(model, tf_movprune.create_optimizer(0.5, 10, 0, weight_decay=0.1))
    assert set(factors) == {f"{name}/kernel:0"}


def test_nothing_decays_by_default():
    model = filled_with_random_values(pruned_model())
    assert decayed_variables(model, tf_movprune.create_optimizer(0.5, 10, 0)) == {}


def test_decay_follows_the_schedule():
    variable = tf.Variable([[1.0]], name="head/kernel")
    optimizer = tf_movprune.create_optimizer(0.5, 4, 2, weight_decay=0.4)
    expected = 1.0
    for step in range(5):
        optimizer.apply_gradients([(tf.zeros([1, 1]), variable)])
        expected *= 1 - 0.4 * linear(step, 0.5, 4, 2)
        np.testing.assert_allclose(variable.numpy(), [[expected]], rtol=1e-6)
    assert expected < 0.7


# ---- an optimizer for the scores


def test_sgd_scores_follow_the_same_schedule_and_clip():
    variables = scores_and_weights()
    steps = random_gradients(variables, steps=8)
    expected = reference_adamw(
        numpy_of(variables),
        steps,
        lambda step: linear(step, 0.05, 8, 2),
        decay=[0.0, 0.1, 0.0, 0.1],
        sgd=[0],
        sgd_rate=lambda step: linear(step, 2.0, 8, 2),
    )
    optimizer = tf_movprune.create_optimizer(
        0.05, 8, 2, weight_decay=0.1, score_optimizer=keras.optimizers.SGD(2.0)
    )
    apply_all(optimizer, variables, steps)
    for variable, value in zip(variables, expected):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations) == 8


def sizes_of(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize(
    "score_optimizer, slots_per_score",
    [
        (None, 2),
        (keras.optimizers.SGD(1.0), 0),
        (keras.optimizers.SGD(1.0, momentum=0.9), 1),
        (keras.optimizers.Adam(1e-2), 2),
    ],
)
def test_slots(score_optimizer, slots_per_score):
    model = pruned_model()
    scores = [v for v in model.trainable_variables if "movement_scores" in v.name]
    others = [v for v in model.trainable_variables if "movement_scores" not in v.name]
    assert sizes_of(scores) == 8 * 8 + 8 * 4

    optimizer = tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=score_optimizer)
    optimizer.build(model.trainable_variables)
    slots = [variable for variable in optimizer.variables if variable.shape.rank]
    assert len(slots) == 2 * len(others) + slots_per_score * len(scores)
    assert sizes_of(slots) == 2 * sizes_of(others) + slots_per_score * sizes_of(scores)
    assert len(optimizer.variables) - len(slots) <= 2  # counters of steps
    assert len(optimizer.variables()) == len(optimizer.variables)  # Keras allows both


def test_score_optimizer_is_copied():
    given = keras.optimizers.SGD(1.0)
    optimizer = tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=given)
    assert optimizer.score_optimizer is not given
    assert float(given.learning_rate) == 1.0
    tf_movprune.create_optimizer(1e-3, 20, 0, score_optimizer=given)  # may be given again


# ---- serialisation and state

OPTIMIZERS = {
    "adam": lambda: tf_movprune.create_optimizer(0.05, 12, 2, weight_decay=0.1),
    "sgd": lambda: tf_movprune.create_optimizer(
        0.05, 12, 2, weight_decay=0.1, score_optimizer=keras.optimizers.SGD(2.0, momentum=0.5)
    ),
}


def fresh_variables(values):
    names = [variable.name.split(":")[0] for variable in scores_and_weights()]
    return [tf.Variable(value, name=name) for value, name in zip(values, names)]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_serialisation_round_trip(make):
    optimizer = make()
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    restored = keras.optimizers.deserialize(config)
    assert type(restored) is MovementAdamW
    assert restored.get_config() == optimizer.get_config()
    assert type(restored.score_optimizer) is type(optimizer.score_optimizer)
    assert type(restored._learning_rate) is LinearWarmupDecay
    if optimizer.score_optimizer is not None:
        assert type(restored.score_optimizer._learning_rate) is LinearWarmupDecay
        assert restored.score_optimizer.get_config() == optimizer.score_optimizer.get_config()

    ours, theirs = scores_and_weights(), scores_and_weights()
    start = numpy_of(ours)
    steps = random_gradients(ours, steps=4)
    apply_all(optimizer, ours, steps)
    apply_all(restored, theirs, steps)
    assert_all_equal(theirs, ours)
    assert not np.array_equal(ours[0], start[0])


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_checkpoint_restores_everything(make, built, tmp_path):
    optimizer, variables = make(), scores_and_weights()
    steps = random_gradients(variables, steps=6)
    apply_all(optimizer, variables, steps[:3])
    path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "checkpoint"))

    restored, copies = make(), fresh_variables(numpy_of(variables))
    if built:
        restored.build(copies)
    status = tf.train.Checkpoint(optimizer=restored).restore(path)
    restored.build(copies)
    status.assert_existing_objects_matched()
    assert int(restored.iterations) == 3
    assert_all_equal(restored.variables, optimizer.variables)

    apply_all(optimizer, variables, steps[3:])
    apply_all(restored, copies, steps[3:])
    assert_all_equal(copies, variables)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_set_weights_takes_what_variables_gives(make):
    optimizer, variables = make(), scores_and_weights()
    steps = random_gradients(variables, steps=6)
    apply_all(optimizer, variables, steps[:3])

    restored, copies = make(), fresh_variables(numpy_of(variables))
    restored.build(copies)
    restored.set_weights(numpy_of(optimizer.variables))
    assert_all_equal(restored.variables, optimizer.variables)
    apply_all(optimizer, variables, steps[3:])
    apply_all(restored, copies, steps[3:])
    assert_all_equal(copies, variables)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_set_weights_refuses_what_does_not_fit(make):
    optimizer = make()
    with pytest.raises(ValueError):
        optimizer.set_weights([np.zeros(3)] * 9)  # not built
    optimizer.build(scores_and_weights())
    weights = numpy_of(optimizer.variables)
    with pytest.raises(ValueError):
        optimizer.set_weights(weights[:-1])
    with pytest.raises(ValueError):
        optimizer.set_weights([*weights[:-1], np.zeros((7, 7))])


# ---- errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": 0.0}, r"learning_rate must be greater than 0, got 0"),
        ({"learning_rate": -1.0}, r"learning_rate must be greater than 0, got -1"),
        ({"learning_rate": float("nan")}, r"learning_rate must be greater than 0, got nan"),
        ({"num_warmup_steps": 10}, r"num_warmup_steps must be .* less than .* got 10 and 10"),
        ({"num_warmup_steps": 11}, r"num_warmup_steps must be .* less than .* got 11 and 10"),
        ({"num_warmup_steps": -1}, r"num_warmup_steps must be at least 0.* got -1 and 10"),
        ({"num_train_steps": 0}, r"num_warmup_steps must be .* got 0 and 0"),
        ({"weight_decay": -0.1}, r"weight_decay must be at least 0, got -0\.1"),
        ({"clipnorm": 0}, r"clipnorm must be greater than 0, got 0"),
        ({"clipnorm": -1.0}, r"clipnorm must be greater than 0, got -1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    defaults = {"learning_rate": 1e-3, "num_train_steps": 10, "num_warmup_steps": 0}
    with pytest.raises(ValueError, match=message):
        tf_movprune.create_optimizer(**{**defaults, **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": "1e-3"}, r"learning_rate must be a number such as 3e-05, got '1e-3'"),
        ({"learning_rate": None}, r"learning_rate must be a number such as 3e-05, got None"),
        ({"num_train_steps": 10.5}, r"num_train_steps must be an integer such as 1500, got 10\.5"),
        ({"num_train_steps": "10"}, r"num_train_steps must be an integer such as 1500, got '10'"),
        ({"num_warmup_steps": 0.1}, r"num_warmup_steps must be an integer such as 150, got 0\.1"),
        ({"weight_decay": "0"}, r"weight_decay must be a number such as 0\.01, got '0'"),
        ({"clipnorm": "1"}, r"clipnorm must be a number such as 1\.0, got '1'"),
    ],
)
def test_arguments_of_another_type(arguments, message):
    defaults = {"learning_rate": 1e-3, "num_train_steps": 10, "num_warmup_steps": 0}
    with pytest.raises(TypeError, match=message):
        tf_movprune.create_optimizer(**{**defaults, **arguments})


def test_numbers_of_numpy():
    optimizer = tf_movprune.create_optimizer(np.float32(1e-3), np.int64(10), np.int32(0))
    assert optimizer._learning_rate.num_train_steps == 10


@pytest.mark.parametrize("score_optimizer", ["sgd", 1.0, keras.optimizers.SGD])
def test_score_optimizer_of_another_type(score_optimizer):
    with pytest.raises(TypeError, match=r"must be a tf_keras optimizer such as .*SGD\(1\.0\), got"):
        tf_movprune.create_optimizer(1e-3, 10, 0, score_optimizer=score_optimizer)


# ---- in training


def float16_scaled():
    return keras.mixed_precision.LossScaleOptimizer(
        tf_movprune.create_optimizer(
            0.05, 12, 2, weight_decay=0.01, score_optimizer=keras.optimizers.SGD(1.0)
        )
    )


@pytest.mark.parametrize(
    "optimizer, dtype",
    [
        (lambda: keras.optimizers.SGD(0.1), None),
        (lambda: keras.optimizers.Adam(0.05), None),
        (float16_scaled, "mixed_float16"),
    ],
    ids=["sgd", "adam", "ours-float16"],
)
def test_trains_to_the_target_sparsity(optimizer, dtype):
    model = pruned_model(dtype)
    kernels = [layer.get_prunable_weights()[0] for layer in model.layers[:2]]
    scores = [layer.kernels[0].scores for layer in model.layers[:2]]
    start = numpy_of(kernels) + numpy_of(scores)
    model.compile(optimizer(), "mse")
    inputs, targets = data()
    history = model.fit(
        inputs,
        targets,
        batch_size=4,
        shuffle=False,
        callbacks=[tf_movprune.UpdatePruningStep()],
        verbose=0,
    )
    assert history.history["sparsity"] == [0.75]
    assert [np.count_nonzero(layer.kernels[0].mask) for layer in model.layers[:2]] == [16, 8]
    assert int(model.optimizer.iterations) == 12
    for variable, value in zip(kernels + scores, start):
        assert np.all(np.isfinite(variable.numpy()))
        assert not np.array_equal(variable.numpy(), value)
    for variable in scores:
        assert variable.dtype == tf.float32
    assert tf_movprune.summarize_sparsity(tf_movprune.strip_pruning(model)).sparsity == 0.75


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_compiled_training_equals_training_in_a_graph(make):
    inputs, targets = data()
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(5)
        model = pruned_model()
        model.compile(make(), "mse", jit_compile=jit_compile)
        callbacks = [tf_movprune.UpdatePruningStep()]
        model.fit(inputs, targets, batch_size=4, shuffle=False, callbacks=callbacks, verbose=0)
        assert [np.count_nonzero(layer.kernels[0].mask) for layer in model.layers[:2]] == [16, 8]
        results.append(numpy_of(model.trainable_variables))
    for graph, compiled in zip(*results):
        np.testing.assert_allclose(compiled, graph, rtol=1e-3, atol=1e-4)


def test_averages_without_one_work():
    model = tf_movprune.prune_low_movement(
        keras.Sequential([keras.layers.Dense(8, input_shape=[8]), keras.layers.Dense(2)]),
        tf_movprune.CubicSparsity(0.75, 0, 4),
        tf_movprune.HardMovement(tf_movprune.MagnitudeScores()),
    )
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.5), "mse")
    x = np.random.RandomState(0).standard_normal([24, 8]).astype("float32")
    model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    (layer,) = tf_movprune.pruned_layers(model).values()
    scores, mask = layer.scores[0].numpy(), layer.masks[0].numpy()
    assert mask.sum() == 16 and scores[mask].min() > scores[~mask].max()
    masked = model(x)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(model)(x), masked)
