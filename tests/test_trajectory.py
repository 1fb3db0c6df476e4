"""Short trainings of either Keras follow the paper's algorithm, step by step."""

import itertools

import numpy as np
import pytest
import reference
from shells import kernels

import tf_movprune

NUM_STEPS = 20
BATCH_SIZE = 16
WARMUP = 3
SCHEDULE = {"final_sparsity": 0.75, "begin_step": 4, "end_step": 16}
OPTIMIZER = {"learning_rate": 0.05, "weight_decay": 0.1, "clipnorm": 0.6}


class Everything:
    """A policy that prunes the output layer too, which is left dense by default."""

    def allow_pruning(self, layer):
        return True

    def ensure_model_supports_pruning(self, model):
        pass


def recorder(keras, layers):
    """A callback that keeps what each step computed with, and what it left."""

    class Recorder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.masks, self.kernels, self.scores, self.biases = [], [], [], []

        def on_train_batch_begin(self, batch, logs=None):
            self.masks.append([kernel.mask.numpy() for kernel in kernels(self.model)])

        def on_train_batch_end(self, batch, logs=None):
            self.kernels.append([k.parts[0].weight.numpy() for k in kernels(self.model)])
            self.biases.append([np.array(layer.bias) for layer in layers])
            found = [kernel for kernel in kernels(self.model) if kernel.scores is not None]
            self.scores.append([kernel.paper_scores().numpy() for kernel in found])

    return Recorder()


def example():
    """Inputs, labels, kernels and biases.

    With this seed weights come back under every method, and the scores on both sides of a cut are
    never closer than 9e-4, so that float32 selects what float64 does.
    """
    random = np.random.default_rng(157)
    inputs = random.normal(size=(NUM_STEPS * BATCH_SIZE, 8)).astype(np.float32)
    labels = np.argmax(inputs @ random.normal(size=(8, 3)), axis=1)
    kernels = [0.5 * random.normal(size=shape) for shape in ((8, 16), (16, 3))]
    biases = [0.1 * random.normal(size=shape) for shape in (16, 3)]
    return inputs, labels, *([a.astype(np.float32) for a in each] for each in (kernels, biases))


def train(keras, method, score_rate, score_optimizer=None, jit_compile=False, schedule=None):
    """A training through the public API: what was recorded, and the pruned model."""
    inputs, labels, *weights = example()
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input([8]), *layers])
    for layer, kernel, bias in zip(layers, *weights):
        layer.set_weights([kernel, bias])
    pruned = tf_movprune.prune_low_movement(
        model,
        schedule or tf_movprune.CubicSparsity(**SCHEDULE),
        method,
        pruning_policy=Everything(),
        score_learning_rate_multiplier=score_rate,
    )
    pruned.compile(
        optimizer=tf_movprune.create_optimizer(
            num_train_steps=NUM_STEPS,
            num_warmup_steps=WARMUP,
            score_optimizer=score_optimizer,
            model=pruned,
            **OPTIMIZER,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    record = recorder(keras, layers)
    pruned.fit(
        inputs,
        labels,
        batch_size=BATCH_SIZE,
        shuffle=False,
        callbacks=[tf_movprune.UpdatePruningStep(), record],
        verbose=0,
    )
    return record, pruned


def expected(first_scores, **options):
    inputs, labels, kernels, biases = example()
    batches = [
        (inputs[i : i + BATCH_SIZE].astype(np.float64), labels[i : i + BATCH_SIZE])
        for i in range(0, len(inputs), BATCH_SIZE)
    ]
    return reference.train(
        kernels,
        biases,
        first_scores and [first_scores(kernel.astype(np.float64)) for kernel in kernels],
        batches,
        sparsity=lambda step: reference.cubic(
            step, 0, SCHEDULE["final_sparsity"], SCHEDULE["begin_step"], SCHEDULE["end_step"]
        ),
        num_warmup_steps=WARMUP,
        **OPTIMIZER,
        **options,
    )


def assert_follows(record, pruned, trajectory):
    assert len(record.kernels) == len(trajectory.steps) == NUM_STEPS
    for t, step in enumerate(trajectory.steps):
        pairs = (
            ("mask", record.masks, step.masks),
            ("kernel", record.kernels, step.kernels),
            ("bias", record.biases, step.biases),
            ("scores", record.scores, step.scores),
        )
        for name, recorded, reference_arrays in pairs:
            assert len(recorded[t]) == len(reference_arrays)
            for i, (got, want) in enumerate(zip(recorded[t], reference_arrays)):
                message = f"{name} of layer {i} at step {t}"
                if name == "mask":
                    np.testing.assert_array_equal(got, want, err_msg=message)
                else:
                    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6, err_msg=message)
    for kernel, want in zip(kernels(pruned), trajectory.final_masks, strict=True):
        np.testing.assert_array_equal(kernel.mask, want)


def assert_tells_apart(trajectory):
    """The run has a step of everything that the algorithm does: else it would pin less."""
    norms = [step.gradient_norm for step in trajectory.steps]
    assert min(norms) < OPTIMIZER["clipnorm"] < max(norms)
    masks = [step.masks for step in trajectory.steps] + [trajectory.final_masks]
    came_back = [
        np.any(later[0] & ~earlier[0]) or np.any(later[1] & ~earlier[1])
        for earlier, later in itertools.pairwise(masks)
    ]
    assert any(came_back)
    assert [mask.sum() for mask in trajectory.final_masks] == [128 // 4, 48 // 4]


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_hard_movement_follows_the_reference(keras, jit_compile):
    trajectory = expected(np.zeros_like, score_rate=5.0)
    assert_tells_apart(trajectory)
    assert np.any(trajectory.final_masks[0] != trajectory.steps[-1].masks[0])
    assert_follows(
        *train(keras, tf_movprune.HardMovement(), score_rate=5.0, jit_compile=jit_compile),
        trajectory,
    )


def test_magnitude_follows_the_reference(keras):
    trajectory = expected(None)
    assert_tells_apart(trajectory)
    assert_follows(*train(keras, tf_movprune.Magnitude(), score_rate=None), trajectory)


@pytest.mark.parametrize("score_rate", [pytest.param(1.0, marks=pytest.mark.slow), 4.0])
def test_scores_under_plain_gradient_descent_follow_the_reference(keras, score_rate):
    trajectory = expected(
        lambda kernel: np.abs(kernel) / np.abs(kernel).mean(), score_rate=score_rate, sgd_rate=1.0
    )
    assert_tells_apart(trajectory)
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores())
    recorded = train(keras, method, score_rate, keras.optimizers.SGD(1.0))
    assert_follows(*recorded, trajectory)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_soft_movement_follows_the_reference(keras, jit_compile):
    span = {name: SCHEDULE[name] for name in ("begin_step", "end_step")}
    final_lambda, rate = 30.0, 10.0

    def threshold(step):
        return float(reference.cubic(step, 0, 0.1, *span.values()))

    trajectory = expected(
        np.zeros_like,
        score_rate=rate,
        select=lambda scores, step: [reference.soft_mask(s, threshold(step)) for s in scores],
        penalty_weight=lambda step: final_lambda * threshold(step) / 0.1,
    )
    kept = [mask.mean() for mask in trajectory.final_masks]
    assert all(0.05 < share < 0.95 for share in kept)
    assert_follows(
        *train(
            keras,
            tf_movprune.SoftMovement(final_lambda),
            score_rate=rate,
            jit_compile=jit_compile,
            schedule=tf_movprune.CubicThreshold(0.1, **span),
        ),
        trajectory,
    )


def test_global_selection_follows_the_reference(keras):
    def select(scores, step):
        sparsity = reference.cubic(step, 0, *SCHEDULE.values())
        count = reference.kept_count(sum(s.size for s in scores), sparsity)
        return reference.global_topk_masks(scores, count)

    trajectory = expected(np.zeros_like, score_rate=5.0, select=select)
    assert [mask.sum() for mask in trajectory.final_masks] != [128 // 4, 48 // 4]
    method = tf_movprune.HardMovement(scope="global")
    assert_follows(*train(keras, method, score_rate=5.0), trajectory)
