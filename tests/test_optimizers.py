"""`create_optimizer` for models of either Keras: its updates, against formulas written out here."""

import json

import numpy as np
import pytest
import tensorflow as tf
from shells import kernels
from small_models import X, Y, fit, mlp, prune

import tf_movprune

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def linear(step, peak, total, warmup):
    """The rate, as the paper's code has it."""
    if step < warmup:
        return peak * step / warmup
    return peak * max(0.0, (total - step) / (total - warmup))


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


def create(keras, *args, **kwargs):
    return tf_movprune.create_optimizer(*args, model=keras.layers.Dense(1), **kwargs)


def variables_of(keras, values):
    """Variables of some values, with the names that those of pruned models end in."""
    make = tf.Variable if keras.__name__ == "tf_keras" else keras.Variable
    names = ["movement_scores", "kernel", "bias", "kernel"]
    return [make(value.astype("float32"), name=name) for value, name in zip(values, names)]


def random_values():
    random = np.random.RandomState(2)
    return [random.standard_normal(shape) for shape in [(3, 4), (3, 4), (4,), (4, 2)]]


def random_gradients(steps, seed=3):
    """Gradients are of very different sizes, so that the clip cuts some steps and leaves others."""
    random = np.random.RandomState(seed)
    return [
        [(scale * random.standard_normal(v.shape)).astype("float32") for v in random_values()]
        for scale in np.geomspace(1e-3, 1e2, steps)
    ]


def apply_all(optimizer, variables, steps, jit_compile=False):
    optimizer.build(variables)

    def apply(gradients):
        optimizer.apply_gradients(list(zip(gradients, variables)))

    apply = tf.function(apply, jit_compile=True) if jit_compile else apply
    for gradients in steps:
        apply([tf.constant(gradient) for gradient in gradients])


def numpy_of(variables):
    return [np.array(variable) for variable in variables]


def assert_all_close(found, expected, rtol=1e-5, atol=1e-6):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


# ---- the update


@pytest.mark.parametrize("own, jit_compile", [(False, False), (True, False), (True, True)])
def test_updates_are_those_of_adamw_with_one_schedule_and_clip(keras, own, jit_compile):
    steps, variables = random_gradients(8), variables_of(keras, random_values())
    sgd = keras.optimizers.SGD(2.0) if own else None
    expected = reference_adamw(
        random_values(),
        steps,
        lambda step: linear(step, 0.05, 8, 2),
        decay=[0.0, 0.1, 0.0, 0.1],
        sgd=[0] if own else [],
        sgd_rate=lambda step: linear(step, 2.0, 8, 2),
    )
    optimizer = create(keras, 0.05, 8, 2, weight_decay=0.1, score_optimizer=sgd)
    apply_all(optimizer, variables, steps, jit_compile)
    assert_all_close(variables, expected)
    assert int(optimizer.iterations) == 8


def test_without_clip_and_decay(keras):
    steps, variables = random_gradients(5), variables_of(keras, random_values())
    expected = reference_adamw(
        random_values(), steps, lambda step: linear(step, 0.05, 5, 0), clipnorm=None
    )
    apply_all(create(keras, 0.05, 5, 0, clipnorm=None), variables, steps)
    assert_all_close(variables, expected)


def test_betas_and_epsilon(keras):
    optimizer = create(keras, 1e-3, 10, 0)
    config = optimizer.get_config()
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (BETA_1, BETA_2, EPSILON)

    # Gradients so small that Keras's own epsilon of 1e-7 would move the weight less than half as
    # far.
    (variable,) = variables_of(keras, [np.ones(1)])
    steps = [[np.array([1e-6], "float32")]] * 3
    (expected,), (other,) = (
        reference_adamw(
            [np.ones(1)], steps, lambda step: linear(step, 1e-3, 10, 0), epsilon=epsilon
        )
        for epsilon in (EPSILON, 1e-7)
    )
    apply_all(optimizer, [variable], steps)
    np.testing.assert_allclose(1 - np.array(variable), 1 - expected, rtol=1e-3)
    assert 1 - other[0] < 0.6 * (1 - expected[0])


# ---- decay


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
    assert len(optimizer.variables) == 1  # the counter of steps: those of the model are not its own
    before = model.get_weights()
    optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in model.trainable_variables])
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert changed == [False, False, True, False]


# ---- an optimizer for the scores


@pytest.mark.parametrize(
    "make, slots_per_score",
    [
        (lambda keras: None, 2),
        (lambda keras: keras.optimizers.SGD(1.0), 0),
        (lambda keras: keras.optimizers.SGD(1.0, momentum=0.9), 1),
        (lambda keras: keras.optimizers.Adam(1e-2), 2),
    ],
)
def test_slots(keras, make, slots_per_score):
    model = prune(mlp(keras))
    optimizer = create(keras, 1e-3, 10, 0, score_optimizer=make(keras))
    optimizer.build(model.trainable_variables)
    scores = 8 * 16 + 16 * 16
    others = mlp(keras).count_params()
    slots = [variable for variable in optimizer.variables if len(variable.shape)]
    assert len(slots) == 2 * 6 + slots_per_score * 2
    sizes = sum(int(np.prod(slot.shape)) for slot in slots)
    assert sizes == 2 * others + slots_per_score * scores
    assert len(optimizer.variables) - len(slots) <= 2  # counters of steps


def test_a_score_optimizer_is_copied(keras):
    given = keras.optimizers.SGD(1.0)
    optimizer = create(keras, 1e-3, 10, 0, score_optimizer=given)
    assert optimizer.score_optimizer is not given
    assert float(given.learning_rate) == 1.0
    create(keras, 1e-3, 20, 0, score_optimizer=given)  # may be given again


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


def test_averages_without_an_optimizer_of_the_scores(keras):
    pruned = prune(mlp(keras))
    fit(keras, pruned, keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.5))
    for kernel in kernels(pruned):
        found, mask = kernel.scores.numpy(), kernel.mask.numpy()
        assert mask.sum() == mask.size // 4 and found[mask].min() > found[~mask].max()
    masked = pruned(X)
    np.testing.assert_array_equal(tf_movprune.strip_pruning(pruned)(X), masked)


@pytest.mark.parametrize(
    "has_score_optimizer, jit_compile",
    [(False, False), (True, False), pytest.param(True, True, marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings(r"error:.*learning rate")
def test_gradients_of_several_batches_make_one_step(keras, has_score_optimizer, jit_compile):
    """Half batches, two to a step, train as whole ones do: weights, scores, masks and rates."""

    def trained(batches):
        keras.utils.set_random_seed(0)
        pruned = prune(mlp(keras), tf_movprune.CubicSparsity(0.75, 1, 4))
        scores = keras.optimizers.SGD(1.0, momentum=0.5) if has_score_optimizer else None
        optimizer = tf_movprune.create_optimizer(
            0.05, 6, 2, 0.01, 1.0, scores, model=pruned, gradient_accumulation_steps=batches
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        pruned.compile(optimizer, loss, jit_compile=jit_compile)
        size = 8 // batches
        data = tf.data.Dataset.from_tensor_slices((X[:16], Y[:16])).batch(size).repeat(3)
        pruned.fit(data, shuffle=False, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
        assert int(optimizer.iterations) == 6
        return pruned

    whole, halves = trained(1), trained(2)
    for one, other in zip(kernels(whole), kernels(halves), strict=True):
        np.testing.assert_array_equal(other.mask, one.mask)
        np.testing.assert_allclose(other.scores, one.scores, rtol=1e-4, atol=1e-6)
    for one, other in zip(whole.trainable_variables, halves.trainable_variables, strict=True):
        np.testing.assert_allclose(np.array(other), np.array(one), rtol=1e-4, atol=1e-6)


def test_sums_of_gradients_survive_a_checkpoint(keras, tmp_path):
    """Training that stopped between the two batches of a step goes on as if it had not."""
    values = random_values()

    def optimizer_and_variables():
        optimizer = create(keras, 0.1, 10, 0, gradient_accumulation_steps=2)
        variables = variables_of(keras, values)
        optimizer.build(variables)
        return optimizer, variables

    def step(optimizer, variables, number):
        gradients = [tf.constant(np.cos(number + v), tf.float32) for v in values]
        optimizer.apply_gradients(list(zip(gradients, variables)))

    straight, expected = optimizer_and_variables()
    for number in range(4):
        step(straight, expected, number)
        if number == 0:
            state = [np.array(v) for v in straight.variables]
    resumed, found = optimizer_and_variables()
    for variable, value in zip(resumed.variables, state, strict=True):
        variable.assign(value)
    for number in range(1, 4):
        step(resumed, found, number)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))
    assert int(resumed.iterations) == 2


def test_batches_to_a_step_are_those_of_the_rate(keras):
    if keras.__name__ == "tf_keras":
        pytest.skip("optimizers of tf_keras get the number when they are made")
    optimizer = create(keras, 1e-3, 10, 0)
    optimizer.gradient_accumulation_steps = 2
    with pytest.raises(ValueError, match=r"counts 1 batches as a step.*Pass that number"):
        optimizer.build([keras.Variable([[1.0]])])
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps must be.* 0"):
        create(keras, 1e-3, 10, 0, gradient_accumulation_steps=0)


# ---- serialisation and state


def test_a_schedule_is_made_again(keras):
    schedule = create(keras, 3e-5, 20, 5)._learning_rate
    config = keras.optimizers.schedules.serialize(schedule)
    restored = keras.optimizers.schedules.deserialize(json.loads(json.dumps(config)))
    assert type(restored) is type(schedule)
    assert restored.get_config() == {
        "peak_learning_rate": 3e-5,
        "num_train_steps": 20,
        "num_warmup_steps": 5,
        **({} if keras.__name__ == "tf_keras" else {"batches_per_step": 1}),
    }


def make_optimizer(keras, own):
    sgd = keras.optimizers.SGD(2.0, momentum=0.5) if own else None
    return create(keras, 0.05, 12, 2, weight_decay=0.1, score_optimizer=sgd)


@pytest.mark.parametrize("own", [False, True])
def test_an_optimizer_is_made_again(keras, own):
    optimizer = make_optimizer(keras, own)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    restored = keras.optimizers.deserialize(config)
    pairs = [(restored, optimizer)]
    if own:
        pairs.append((restored.score_optimizer, optimizer.score_optimizer))
    for one, other in pairs:
        assert type(one) is type(other) and one.get_config() == other.get_config()
        assert type(one._learning_rate) is type(optimizer._learning_rate)
    ours, theirs = (variables_of(keras, random_values()) for _ in range(2))
    for each, variables in ((optimizer, ours), (restored, theirs)):
        apply_all(each, variables, random_gradients(4))
    assert_all_close(theirs, ours, 0, 0)
    assert not np.array_equal(numpy_of(ours)[0], random_values()[0].astype("float32"))


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_checkpoints_restore_everything(keras, own, built, tmp_path):
    optimizer, variables = make_optimizer(keras, own), variables_of(keras, random_values())
    steps = random_gradients(6)
    apply_all(optimizer, variables, steps[:3])
    path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "checkpoint"))

    restored, copies = make_optimizer(keras, own), variables_of(keras, numpy_of(variables))
    if built:
        restored.build(copies)
    status = tf.train.Checkpoint(optimizer=restored).restore(path)
    restored.build(copies)
    if built or keras.__name__ == "tf_keras":  # Keras 3 tracks the weights beside the slots
        status.assert_existing_objects_matched()
    assert int(restored.iterations) == 3
    assert_all_close(restored.variables, optimizer.variables, 0, 0)

    apply_all(optimizer, variables, steps[3:])
    apply_all(restored, copies, steps[3:])
    assert_all_close(copies, variables, 0, 0)


# ---- errors


ARGUMENTS = [
    ({"learning_rate": 0.0}, r"learning_rate must be greater than 0, got 0"),
    ({"num_train_steps": "10"}, r"num_train_steps must be an integer such as 1500, got '10'"),
    ({"num_warmup_steps": 10}, r"num_warmup_steps must be .* less than .* got 10 and 10"),
    ({"weight_decay": -0.1}, r"weight_decay must be at least 0, got -0\.1"),
    ({"weight_decay": "0"}, r"weight_decay must be a number such as 0\.01, got '0'"),
    ({"clipnorm": 0}, r"clipnorm must be greater than 0, got 0"),
    ({"clipnorm": "1"}, r"clipnorm must be a number such as 1\.0, got '1'"),
    *(
        ({"score_optimizer": given}, r"must be a .*[kK]eras optimizer such as .*SGD\(1\.0\), got")
        for given in ("sgd", 1.0)
    ),
]


@pytest.mark.parametrize("arguments, message", ARGUMENTS)
def test_arguments_that_are_refused(keras, arguments, message):
    defaults = {"learning_rate": 1e-3, "num_train_steps": 10, "num_warmup_steps": 0}
    with pytest.raises((TypeError, ValueError), match=message):
        create(keras, **{**defaults, **arguments})


def test_a_class_in_the_place_of_a_score_optimizer(keras):
    with pytest.raises(TypeError, match=r"optimizer such as .*SGD\(1\.0\), got <class"):
        create(keras, 1e-3, 10, 0, score_optimizer=keras.optimizers.SGD)


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
    is_whole = format_ == ".keras" or keras.__name__ == "tf_keras"  # Keras 3 builds it for nothing
    loaded = keras.saving.load_model(path, compile=is_whole)
    if is_whole:
        assert int(loaded.optimizer.iterations) == 2
        for each in (model, loaded):
            each.fit(x, x[:, :2], batch_size=4, verbose=0)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
