"""NaN, infinity and their like in training: what is reported, when, and what stays as it was."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from accumulating import accumulating_sgd
from shells import kernels, refresh, sparsities
from small_models import RAMP, START, X, Y, mlp, scaled

import tf_movprune
from tf_movprune import CubicThreshold, HardMovement, Magnitude, SoftMovement

METHODS = {
    "hard": (RAMP, HardMovement(START)),
    "global": (RAMP, HardMovement(START, scope="global")),
    "soft": (CubicThreshold(0.1, 0, 6), SoftMovement(1.0)),
    "target": (RAMP, SoftMovement(1.0, target=True, score_initializer=START)),
    "magnitude": (RAMP, Magnitude()),
    "l0": (None, tf_movprune.L0(1.0)),
}
SLOW = ("target",)


def methods(*, slow=SLOW):
    """A parameter for each method; tests of some of them are slow."""
    return [pytest.param(m, marks=pytest.mark.slow if m in slow else ()) for m in METHODS]


every_method = pytest.mark.parametrize("method", methods())


def with_faults(fault, other):
    """Parameters for each method and either fault; tests of the other are slow for most methods."""
    most = [method for method in METHODS if method not in ("hard", "magnitude")]
    pairs = [*((fault, m) for m in methods()), *((other, m) for m in methods(slow=most))]
    values = [pytest.param(fault, *m.values, marks=m.marks) for fault, m in pairs]
    return pytest.mark.parametrize("fault, method", values)


BAD = 2  # the batch in whose step something goes wrong: it is the third step


def pruned_by(method, model):
    schedule, rule = METHODS[method]
    return tf_movprune.prune_low_movement(model, schedule, rule)


def batches(x=X):
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)


def bad_batches():
    x = X.copy()
    x[8 * BAD + 5, 3] = np.nan
    return batches(x)


def train(keras, pruned, data, *callbacks, optimizer=None, loss=None, epochs=2, **kwargs):
    """Trains with callbacks behind the one that refreshes masks."""
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(optimizer or keras.optimizers.SGD(0.1), loss, **kwargs)
    callbacks = [tf_movprune.UpdatePruningStep(), *callbacks]
    return pruned.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)


class ScaledGradient:
    """A loss that is finite whatever its gradient, which is multiplied by `factor`."""

    def __init__(self, keras, factor=1.0):
        self.factor = tf.Variable(factor)
        self.entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def __call__(self, labels, logits):
        @tf.custom_gradient
        def with_scaled_gradient(value):
            return tf.identity(value), lambda upstream: upstream * self.factor

        return self.entropy(labels, with_scaled_gradient(logits))


def at_bad_batch(keras, when, action):
    """A callback that does something at the begin or the end of a batch."""

    def act(batch, logs):
        if batch == BAD:
            action()

    return keras.callbacks.LambdaCallback(**{f"on_train_batch_{when}": act})


@contextlib.contextmanager
def refused(keras, pruned, where, steps=BAD + 1):
    """Expects an error, after which masks are those with which the last step was taken.

    Yields:
      A callback that notes the masks.
    """
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            [kernel.mask.numpy() for kernel in kernels(pruned)]
        )
    )
    message = rf"^NaN or infinity at step {steps} in {where}.*Masks stay as they were"
    with pytest.raises(ValueError, match=message):
        yield watch
    assert int(pruned.optimizer.iterations) == steps == len(seen)
    for kernel, before in zip(kernels(pruned), seen[-1], strict=True):
        np.testing.assert_array_equal(kernel.mask, before)


IN_STEP = r"first \(kernel.*, after batch 2 of its epoch, counted from 0\. Look for NaN"


# ---- what is reported


@with_faults("batch", "gradient")
def test_a_step_that_leaves_nan_is_reported_at_once(keras, fault, method):
    pruned = pruned_by(method, mlp(keras))
    loss, data = ScaledGradient(keras), bad_batches() if fault == "batch" else batches()
    with refused(keras, pruned, IN_STEP) as watch:
        callbacks = [watch]
        if fault == "gradient":
            callbacks.append(at_bad_batch(keras, "begin", lambda: loss.factor.assign(np.inf)))
        train(keras, pruned, data, *callbacks, loss=loss, run_eagerly=True)


@with_faults("score", "weight")
def test_what_is_set_between_steps_is_reported_before_masks_follow(keras, fault, method):
    pruned = pruned_by(method, mlp(keras))
    kernel = kernels(pruned)[1]
    is_score = fault == "score" and kernel.scores is not None
    what, name = (kernel.scores, "movement scores") if is_score else (kernel.parts[0].weight, "ke")
    value = what.numpy()
    value[1, 2] = np.inf if is_score else np.nan
    with refused(keras, pruned, rf"second \({name}") as watch:
        set_it = at_bad_batch(keras, "end", lambda: what.assign(value))
        train(keras, pruned, batches(), watch, set_it, run_eagerly=True)


def test_weights_of_layers_that_are_not_pruned(keras):
    pruned = pruned_by("hard", mlp(keras))
    weights = pruned.layers[-1].get_weights()
    broken = [weights[0], np.full_like(weights[1], np.nan)]
    with refused(keras, pruned, r"out \(bias\)") as watch:
        set_it = at_bad_batch(keras, "end", lambda: pruned.layers[-1].set_weights(broken))
        train(keras, pruned, batches(), watch, set_it, run_eagerly=True)


@pytest.mark.parametrize("method", ["hard", "magnitude"])
def test_weights_that_are_nan_before_the_first_step(keras, method):
    pruned = pruned_by(method, mlp(keras))
    kernels(pruned)[0].parts[0].weight.assign(np.full([8, 16], np.nan))
    with pytest.raises(ValueError, match=r"at step 0 in first \(kernel\)\. Masks stay"):
        train(keras, pruned, batches())
    assert sparsities(pruned) == [0, 0]


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_last_good_checkpoints_stay_and_training_goes_on_from_them(
    keras, jit_compile, tmp_path
):
    """Files that are written after each batch are of the step before, and so is the backup."""
    keras.utils.set_random_seed(1)
    pruned = pruned_by("hard", mlp(keras))
    file = str(tmp_path / "last.weights.h5")
    saved = []

    def save():
        pruned.save_weights(file)
        saved.append(int(pruned.optimizer.iterations))

    saving = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: save())
    each_batch = keras.callbacks.BackupAndRestore(
        str(tmp_path / ("backup.weights.h5" if keras.__name__ == "keras" else "backup")),
        save_freq=1,
    )
    with refused(keras, pruned, IN_STEP) as watch:
        callbacks = [watch, saving, each_batch]
        train(keras, pruned, bad_batches(), *callbacks, jit_compile=jit_compile)
    assert saved == [1, 2]
    again = pruned_by("hard", mlp(keras))
    again.load_weights(file)
    assert all(np.isfinite(weight).all() for weight in again.get_weights())
    steps = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: steps.append(int(again.optimizer.iterations))
    )
    train(keras, again, batches(), each_batch, note, jit_compile=jit_compile)
    assert steps[0] == 2 and sparsities(again) == [0.75, 0.75]


@pytest.mark.parametrize("method", ["hard", "magnitude"])
def test_epochs_are_not_saved_whatever_the_order_of_callbacks(keras, method, tmp_path):
    pruned = pruned_by(method, mlp(keras))
    path = str(tmp_path / "{epoch}.weights.h5")
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    loss = ScaledGradient(keras)
    pruned.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    last = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: loss.factor.assign(np.nan if epoch == 1 else 1)
    )
    with pytest.raises(ValueError, match=r"at step 5 in first"):
        callbacks = [save, last, tf_movprune.UpdatePruningStep()]
        pruned.fit(batches(), epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert [file.name for file in tmp_path.iterdir()] == ["1.weights.h5"]


def test_several_steps_of_one_execution_are_looked_at_together(keras):
    pruned = pruned_by("hard", mlp(keras))
    message = r"at step 4 in first .* after batches 2 to 3 of its epoch"
    with pytest.raises(ValueError, match=message):
        train(keras, pruned, bad_batches(), steps_per_execution=2)


def test_batches_whose_gradients_are_summed_are_named(keras):
    pruned = pruned_by("hard", mlp(keras))
    optimizer = accumulating_sgd(keras, 2)
    message = r"NaN or infinity at step . in first .* after batches 2 to 3 of its epoch"
    with pytest.raises(ValueError, match=message):
        train(keras, pruned, bad_batches(), optimizer=optimizer, epochs=4)


# ---- loops of one's own


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_masks_stay_in_loops_of_ones_own(keras, mode):
    pruned = pruned_by("hard", mlp(keras))
    scores = kernels(pruned)[1].scores
    scores.assign(np.full([16, 16], np.nan))

    def update(step):
        return tf_movprune.update_masks(pruned, step)

    if mode != "eager":
        update = tf.function(update, jit_compile=mode == "xla")
    step = tf.constant(6, tf.int64)
    if mode == "eager":
        with pytest.raises(ValueError, match=r"at step 6 in second \(movement scores\)"):
            update(step)
        with pytest.raises(RuntimeError, match="nothing refreshes its masks"):
            pruned.compile("sgd", "mse")
            pruned.train_on_batch(X, X[:, :3])
    elif mode == "graph":
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[6\] \[in second\. Masks"):
            update(step)
    else:
        assert np.isnan(update(step))  # assertions are left out there
    assert sparsities(pruned) == [0, 0]
    scores.assign(tf.zeros_like(scores))
    assert update(step) == 0.75
    assert sparsities(pruned) == [0.75, 0.75]


# ---- what is no fault


@pytest.mark.parametrize("method", ["hard", "magnitude", "l0"])
def test_steps_that_overflow_are_skipped_and_not_reported(keras, method):
    pruned = pruned_by(method, mlp(keras, dtype="mixed_float16"))
    optimizer = scaled(keras, keras.optimizers.SGD(0.1), initial_scale=2.0**20)
    train(keras, pruned, batches(), optimizer=optimizer, epochs=5)
    scale = getattr(optimizer, "dynamic_scale", None)
    assert float(optimizer.loss_scale if scale is None else scale) < 2.0**20
    assert all(np.isfinite(weight).all() for weight in pruned.get_weights()[:3])
    if method != "l0":
        assert sparsities(pruned) == [0.75, 0.75]


@every_method
def test_gradients_that_are_all_zero(keras, method):
    """Scores stay where they started, which is said; those that are equal go by their place."""
    pruned = pruned_by(method, mlp(keras))
    start = [None if k.scores is None else k.scores.numpy() for k in kernels(pruned)]
    moves = method in ("magnitude", "soft", "target", "l0")  # by nothing, or by the penalty
    expected = contextlib.nullcontext() if moves else pytest.warns(UserWarning, match="not moved")
    with expected:
        train(keras, pruned, batches(), loss=ScaledGradient(keras, 0.0), run_eagerly=True)
    if not moves:
        for kernel, scores in zip(kernels(pruned), start, strict=True):
            np.testing.assert_array_equal(kernel.scores, scores)
    if method in ("hard", "magnitude"):
        assert sparsities(pruned) == [0.75, 0.75]
    elif method in ("global", "target"):
        assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.75


@pytest.mark.parametrize("method", ["hard", "global", "target", "magnitude"])
def test_scores_and_weights_that_are_all_equal(keras, method):
    pruned = pruned_by(method, mlp(keras, kernel_initializer="ones"))
    for kernel in kernels(pruned):
        if kernel.scores is not None:
            kernel.scores.assign(tf.zeros_like(kernel.scores))
    refresh(pruned, 6)
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.75
    first = kernels(pruned)[0].mask.numpy().ravel()
    assert list(first) == sorted(first, reverse=True)  # the first places stay


def narrow(keras):
    layers = [keras.layers.Dense(1, name="narrow"), keras.layers.Dense(3, name="out")]
    return keras.Sequential([keras.Input([8]), *layers])


@every_method
def test_a_kernel_with_one_column(keras, method):
    pruned = pruned_by(method, narrow(keras))
    train(keras, pruned, batches(), run_eagerly=True)
    assert np.isfinite(pruned.predict(X, verbose=0)).all()
    if method not in ("soft", "l0"):
        assert sparsities(pruned) == [0.75]


@pytest.mark.parametrize("method", ["hard", "magnitude", "l0"])
def test_an_empty_batch(keras, method):
    pruned = pruned_by(method, narrow(keras))
    empty = tf.data.Dataset.from_tensors((X[:0], Y[:0]))
    train(keras, pruned, batches().concatenate(empty))
    assert np.isfinite(pruned.predict(X, verbose=0)).all()
    if method != "l0":
        assert sparsities(pruned) == [0.75]
