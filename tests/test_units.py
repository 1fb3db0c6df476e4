"""Tests of pruning whole heads and neurons of models of either Keras."""

import numpy as np
import pytest
import tensorflow as tf
from shells import KERASES, keras_of, kernels
from unit_masks import assert_movement_is_summed, draw_scores, outputs_of
from wrapped import Everything

import tf_movprune
from tf_movprune import HEADS, NEURONS

SCHEDULE = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=4)
START = tf_movprune.MagnitudeScores(0.01)
X = np.random.RandomState(0).standard_normal([24, 6]).astype("float32")
SEQUENCES = np.random.RandomState(1).standard_normal([24, 5, 8]).astype("float32")


def draw_biases(model):
    random = np.random.RandomState(0)
    for weight in model.weights:
        if "bias" in weight.name:
            weight.assign(random.normal(0, 0.2, weight.shape))
    return model


def chain(keras):
    model = keras.Sequential(
        [
            keras.Input([6]),
            keras.layers.Dense(8, "gelu", name="first"),
            keras.layers.Dense(10, "sigmoid", name="second"),
            keras.layers.Dense(3, name="output"),
        ]
    )
    return draw_biases(model)


def attentive(keras):
    inputs = keras.Input([5, 8])
    x = keras.layers.MultiHeadAttention(4, 6, value_dim=5, name="attention")(inputs, inputs)
    x = keras.layers.Dense(12, "relu", name="up")(x)
    x = keras.layers.Dense(8, name="down")(keras.layers.Dropout(0.1)(x))
    x = keras.layers.Flatten()(keras.layers.LayerNormalization()(x + inputs))
    return draw_biases(keras.Model(inputs, keras.layers.Dense(3, name="output")(x)))


MODELS = {
    "chain": (chain, NEURONS, X, [8, 10]),
    "attentive": (attentive, {"attention*": HEADS, "*": NEURONS}, SEQUENCES, [4, 12]),
}


def prune(model, method=None, schedule=SCHEDULE, block_size=NEURONS, **kwargs):
    return tf_movprune.prune_low_movement(model, schedule, method, block_size=block_size, **kwargs)


def fit(keras, model, inputs, shuffle=True, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **kwargs)
    return model.fit(
        inputs,
        np.arange(24) % 3,
        batch_size=4,
        shuffle=shuffle,
        verbose=0,
        callbacks=[tf_movprune.UpdatePruningStep()],
    )


def kept(model):
    return [np.count_nonzero(kernel.mask) for kernel in kernels(model)]


# ---- what is shared


@pytest.mark.parametrize(
    "kind, off",
    [
        *(("chain", off) for off in [(), (1,), (0, 3)]),
        ("attentive", (0, 3)),
        *(pytest.param("attentive", off, marks=pytest.mark.slow) for off in [(), (1,)]),
    ],
)
def test_movement_is_the_sum_over_all_weights_of_a_unit(keras, kind, off):
    make, block_size, inputs, sizes = MODELS[kind]
    model = make(keras)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    pruned = prune(model, block_size=block_size)
    masks = kernels(pruned)
    assert [mask.size for mask in masks] == sizes
    biases = [sum(part.is_bias for part in mask.parts) for mask in masks]
    assert biases == {"chain": [1, 1], "attentive": [3, 1]}[kind]
    assert_movement_is_summed(pruned, inputs, off)


def test_scores_are_trained_once(keras):
    model = prune(attentive(keras), block_size=MODELS["attentive"][1])
    scores = [w for w in model.trainable_weights if "movement_scores" in w.name]
    assert [tuple(w.shape) for w in scores] == [(4,), (12,)]
    assert [k.mask.shape.as_list() for k in kernels(model)] == [[4], [12]]


# ---- training and removal


every_kind = pytest.mark.parametrize(  # the second has neurons besides heads
    "kind", [pytest.param("chain", marks=pytest.mark.slow), "attentive"]
)


@every_kind
def test_both_shells_train_alike(kind):
    make, block_size, inputs, _ = MODELS[kind]
    found = []
    for name in KERASES:
        keras = keras_of(name)
        model = make(keras)
        random = np.random.RandomState(7)
        model.set_weights([random.normal(0, 0.3, weight.shape) for weight in model.get_weights()])
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        model = prune(model, tf_movprune.HardMovement(START), block_size=block_size)
        loss = fit(keras, model, inputs, jit_compile=False, shuffle=False).history["loss"]
        found.append((loss, [(k.scores.numpy(), k.mask.numpy()) for k in kernels(model)]))
    (loss, one), (other_loss, other) = found
    np.testing.assert_allclose(loss, other_loss, rtol=1e-4)
    for (scores, mask), (other_scores, other_mask) in zip(one, other, strict=True):
        np.testing.assert_allclose(scores, other_scores, rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(mask, other_mask)


@pytest.mark.parametrize(
    "method",
    ["hard", *(pytest.param(m, marks=pytest.mark.slow) for m in ("soft", "global", "magnitude"))],
)
@pytest.mark.parametrize("kind", MODELS)
def test_training_stripping_and_compacting(keras, kind, method):
    make, block_size, inputs, sizes = MODELS[kind]
    methods = {
        "hard": tf_movprune.HardMovement(START),
        "soft": tf_movprune.SoftMovement(10.0, target=True),
        "global": tf_movprune.HardMovement(START, scope="global"),
        "magnitude": tf_movprune.Magnitude(),
    }
    dense = make(keras)
    dense(inputs)
    before, outputs = dense.count_params(), outputs_of(dense, inputs)
    model = prune(dense, methods[method], block_size=block_size)
    np.testing.assert_array_equal(outputs_of(model, inputs), outputs)
    start = [k.scores.numpy() for k in kernels(model) if k.scores is not None]
    history = fit(keras, model, inputs, jit_compile=False, run_eagerly=kind == "chain")
    assert history.history["sparsity"][-1] >= 0.3
    if method in ("hard", "magnitude"):
        assert kept(model) == [size // 2 for size in sizes]
    if method == "global" and kind == "chain":
        assert sum(kept(model)) == sum(sizes) // 2
    for old, kernel in zip(start, kernels(model)):
        assert np.any(old != kernel.scores)
    masked, left = outputs_of(model, inputs), kept(model)
    report = tf_movprune.summarize_sparsity(model)
    assert all("of heads" in name or "of neurons" in name for name in report.groups)
    plain = tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(outputs_of(plain, inputs), masked)
    smaller = tf_movprune.compact(plain)
    np.testing.assert_allclose(outputs_of(smaller, inputs), masked, rtol=0, atol=1e-5)
    assert smaller.count_params() < before
    if kind == "chain":
        assert [layer.units for layer in smaller.layers] == [*left, 3]
    else:
        assert smaller.get_layer("attention")._num_heads == left[0]


def test_dense_layers_in_a_row_and_the_output_layer_that_reads_the_last_neurons(keras):
    model = prune(chain(keras))
    assert list(tf_movprune.pruned_layers(model)) == ["first", "second", "output"]
    overall = float(tf_movprune.update_masks(model, 4))
    report = tf_movprune.summarize_sparsity(model)
    assert [(w.path, w.remaining) for w in report.weights] == [
        ("first.kernel", 6 * 4),
        ("second.kernel", 4 * 5),
        ("output.kernel", 5 * 3),
    ]
    assert overall == pytest.approx(report.sparsity)


def test_fit_says_what_is_pruned(keras, capsys):
    model = prune(chain(keras), tf_movprune.HardMovement(START))
    model.compile("sgd", "mse", run_eagerly=True)
    data = tf.data.Dataset.from_tensors((X, tf.zeros([24, 3]))).repeat(6)
    model.fit(data, callbacks=[tf_movprune.UpdatePruningStep()], verbose=2)
    line = "Pruning 18 neurons in 2 layers. Sparsity by step: 0.00 at 0, 0.44 at 2, 0.50 at 4."
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    "method",
    [
        tf_movprune.HardMovement(),
        tf_movprune.HardMovement(scope="global"),
        tf_movprune.Magnitude(),
        tf_movprune.SoftMovement(10.0, target=True),
    ],
)
def test_at_least_one_stays_and_more_where_the_method_says(keras, method):
    schedule = tf_movprune.CubicSparsity(0.99, begin_step=0, end_step=4)
    attention = keras.layers.MultiHeadAttention(4, 6)
    attention(SEQUENCES, SEQUENCES)
    attention = prune(attention, method, schedule, HEADS)
    tf_movprune.update_masks(attention, 4)
    assert kept(attention) == [1]
    if hasattr(method, "scope"):
        method = type(method)(scope=method.scope, minimum_remaining=0.4)
        model = prune(chain(keras), method, schedule)
        tf_movprune.update_masks(model, 4)
        assert kept(model) == [3, 4]


def two_encoders(keras):
    """Two layers of attention with four heads, and two chains with 12 neurons."""
    x = inputs = keras.Input([5, 8])
    for i in range(2):
        x = keras.layers.MultiHeadAttention(4, 6, name=f"attention_{i}")(x, x) + x
        x = keras.layers.Dense(12, "relu")(x)
        x = keras.layers.LayerNormalization()(keras.layers.Dense(8)(x))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_heads_are_compared_with_heads_and_neurons_with_neurons(keras):
    method = tf_movprune.HardMovement(scope="global")
    model = prune(two_encoders(keras), method, block_size={"attention*": HEADS, "*": NEURONS})
    pairs = list(zip(*draw_scores(model)))
    tf_movprune.update_masks(model, 4)
    for size in (4, 12):
        of_kind = [(values, mask.mask.numpy()) for values, mask in pairs if len(values) == size]
        values, stay = (np.concatenate(column) for column in zip(*of_kind))
        assert len(values) == 2 * size
        np.testing.assert_array_equal(stay, values >= np.sort(values)[size])
    # A layer that the threshold empties keeps its best head, and four stay in all, as asked.
    heads = [mask for _, mask in pairs if mask.size == 4]
    heads[0].scores.assign([1.0, 2.0, 4.0, 3.0])
    heads[1].scores.assign([5.0, 6.0, 7.0, 8.0])
    tf_movprune.update_masks(model, 4)
    assert heads[0].mask.numpy().tolist() == [False, False, True, False]
    assert heads[1].mask.numpy().tolist() == [False, True, True, True]


def test_magnitude_compares_the_means_of_units(keras):
    model = chain(keras)
    (first, bias), (second, _) = (layer.get_weights() for layer in model.layers[:2])
    means = np.abs(np.concatenate([first.T, bias[:, None], second], axis=1)).mean(axis=1)
    model = prune(model, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 4)
    np.testing.assert_array_equal(kernels(model)[0].mask, means >= np.sort(means)[4])


def test_scores_start_from_the_means_of_magnitudes(keras):
    model = attentive(keras)
    attention = model.get_layer("attention")
    query, *others, output, _ = attention.get_weights()
    parts = [np.moveaxis(w, w.ndim - 2, 0) for w in (query, *others)] + [output]
    rows = np.abs(np.concatenate([part.reshape(4, -1) for part in parts], axis=1))
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(2.0))
    (mask,) = kernels(prune(model, method, {"attention*": SCHEDULE}, HEADS))
    np.testing.assert_allclose(mask.scores, 2 * rows.mean(axis=1) / rows.mean(), rtol=1e-5)


def test_soft_penalty_counts_shared_scores_once(keras):
    schedule = tf_movprune.CubicThreshold(0.1, begin_step=0, end_step=4)
    method = tf_movprune.SoftMovement(36.0)
    model = prune(chain(keras), method, schedule, score_learning_rate_multiplier=1.0)
    values, _ = draw_scores(model)
    tf_movprune.update_masks(model, 4)
    expected = np.mean([np.mean(1 / (1 + np.exp(-value))) for value in values])
    np.testing.assert_allclose(tf.add_n(model.losses), 36.0 * expected, rtol=1e-5)


def test_blocks_in_one_part_of_a_model_and_heads_in_another(keras):
    most = tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=4)
    model = prune(
        attentive(keras),
        schedule={"attention*": SCHEDULE, "*": most},
        block_size={"attention*": HEADS, "up": tf_movprune.BLOCKS_FLOAT32},
    )
    tf_movprune.update_masks(model, 4)
    assert [tuple(kernel.mask.shape) for kernel in kernels(model)] == [(4,), (2, 12), (12, 8)]
    groups = tf_movprune.summarize_sparsity(model).groups
    assert sorted(group.sparsity for group in groups.values()) == [0.5, 0.75, 0.75]


def test_mixed_precision_without_biases_and_with_a_frozen_layer(keras):
    kwargs = {"use_bias": False, "dtype": "mixed_bfloat16"}
    inputs = keras.Input([6])
    hidden = keras.layers.Dense(8, "relu", trainable=False, **kwargs)(inputs)
    hidden = keras.layers.Dense(8, "relu", **kwargs)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(hidden))
    model = prune(model, tf_movprune.HardMovement(START))
    trained = [
        sum("movement_scores" in weight.name for weight in layer.trainable_weights)
        for layer in model.layers
    ]
    assert trained[:3] == [0, 0, 2]  # of its own neurons, and of those that it reads
    fit(keras, model, X)
    assert kept(model) == [4, 4]
    assert {kernel.scores.dtype for kernel in kernels(model)} == {tf.float32}
    (expected,) = outputs_of(model, X)
    smaller = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert [layer.units for layer in smaller.layers[1:]] == [4, 4, 3]
    np.testing.assert_allclose(outputs_of(smaller, X)[0], expected, rtol=0, atol=0.01)


def test_cross_attention_whose_scores_are_shown(keras):
    inputs = [keras.Input([5, 8]), keras.Input([7, 6])]
    attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5, use_bias=False)
    model = keras.Model(inputs, attention(*inputs, return_attention_scores=True))
    model = prune(model, block_size=HEADS, pruning_policy=Everything())
    tf_movprune.update_masks(model, 4)
    (mask,) = kernels(model)
    assert kept(model) == [2] and len(mask.parts) == 4
    plain = tf_movprune.strip_pruning(model)
    with pytest.warns(UserWarning, match="nothing was removed"):  # the heads are seen
        tf_movprune.compact(plain)


def test_attention_alone(keras):
    attention = keras.layers.MultiHeadAttention(4, 6)
    attention(SEQUENCES, SEQUENCES)
    pruned = prune(attention, block_size=HEADS)
    tf_movprune.update_masks(pruned, 4)
    assert kept(pruned) == [2]
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.5
    masked = np.array(pruned(SEQUENCES, SEQUENCES))
    stripped = tf_movprune.strip_pruning(pruned)
    np.testing.assert_array_equal(stripped(SEQUENCES, SEQUENCES), masked)


# ---- files


@every_kind
@pytest.mark.parametrize("way", ["weights", "checkpoint"])
def test_weights_and_masks_come_back(keras, kind, way, tmp_path):
    make, block_size, inputs, _ = MODELS[kind]
    source, target = (prune(make(keras), block_size=block_size) for _ in range(2))
    draw_scores(source)
    tf_movprune.update_masks(source, 4)
    if way == "weights":
        source.save_weights(str(tmp_path / "model.weights.h5"))
        target.load_weights(str(tmp_path / "model.weights.h5"))
    else:
        path = tf.train.Checkpoint(model=source).save(str(tmp_path / "checkpoint"))
        tf.train.Checkpoint(model=target).restore(path).assert_existing_objects_matched()
    for one, other in zip(kernels(source), kernels(target)):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(outputs_of(target, inputs), outputs_of(source, inputs))


def test_whole_models_are_refused(keras, tmp_path):
    path = tmp_path / "model.keras"
    model = prune(chain(keras))
    with pytest.raises(ValueError, match=r"shares masks of neurons .* save_weights"):
        model.save(path)
    with pytest.raises(ValueError, match=r"shares masks of neurons .* save_weights"):
        model.get_config()
    tf_movprune.update_masks(model, 4)
    tf_movprune.strip_pruning(model).save(path)


# ---- errors


@pytest.fixture
def is_left_alone(keras):
    """A function that asserts that a model is not pruned, nor has other weights than before."""

    def check(model, names):
        assert not tf_movprune.pruned_layers(model)
        assert [weight.name for weight in model.weights] == names

    return check


def test_layers_without_heads_or_neurons_that_can_be_told_apart(keras, is_left_alone):
    model = chain(keras)
    names = [weight.name for weight in model.weights]
    with pytest.raises(
        ValueError,
        match=r"HEADS for layers that have no heads .*: first, second, each .* Known are",
    ):
        prune(model, block_size=HEADS)
    is_left_alone(model, names)
    with pytest.raises(ValueError, match=r"first, which is in no Sequential or Functional model"):
        prune(model.layers[0])
    with pytest.raises(ValueError, match=r"NEURONS for layers that have no neurons"):
        prune(model.layers)
    with pytest.raises(TypeError, match=r"block_size must be .*got 'neurons'"):
        prune(model, block_size="neurons")
    with pytest.raises(ValueError, match=r"pattern 'x' in block_size matches no prunable layer"):
        prune(model, block_size={"x": NEURONS})
    is_left_alone(model, names)
    unbuilt = keras.Sequential([keras.layers.Dense(3, name="a"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"a'? ?.* is not built"):
        prune(unbuilt)


def test_layers_of_one_head_or_neuron_are_refused(keras, is_left_alone):
    inputs = keras.Input([5, 8])
    attention = keras.layers.MultiHeadAttention(1, 6, name="attention")
    x = keras.layers.Dense(1, "relu", name="up")(attention(inputs, inputs))
    model = keras.Model(inputs, keras.layers.Dense(8, name="down")(x))
    names = [weight.name for weight in model.weights]
    for kind, pattern in ((HEADS, "attention*"), (NEURONS, "up")):
        with pytest.raises(ValueError, match=f"have one of the {kind} each.* such as {pattern}"):
            prune(model, block_size=kind, schedule={pattern: SCHEDULE})
    is_left_alone(model, names)


def model_with_obstacles(keras):
    x = inputs = keras.Input([6, 4])
    shared = keras.layers.Dense(4, name="twice")
    for layer in (
        *(keras.layers.Conv1D(4, 1, name="conv"), shared, shared),
        keras.layers.Dense(4, "softmax", name="sharp"),
        *(keras.layers.Dense(4, name="early"), keras.layers.LayerNormalization(name="norm")),
        *(keras.layers.Dense(4, "relu", name="makes"), keras.layers.Dense(4, name="reads")),
    ):
        x = layer(x)
    return keras.Model(inputs, keras.layers.Add()([x, inputs]))


def test_all_layers_without_neurons_are_named_with_what_is_in_the_way(keras):
    with pytest.raises(ValueError, match="no neurons that can be told apart") as error:
        prune(model_with_obstacles(keras), pruning_policy=Everything())
    assert (
        "apart: conv, which is a Conv1D; twice, which is used in 2 places; sharp, which has the "
        "activation softmax; early, which is followed by 'norm' (LayerNormalization). Known are"
    ) in str(error.value)


def test_a_layer_that_others_read_too_has_no_neurons(keras):
    inputs = keras.Input([4])
    both = keras.layers.Dense(4, name="both")(inputs)
    model = keras.Model(inputs, keras.layers.Add()([both, keras.layers.Dense(4)(both)]))
    with pytest.raises(ValueError, match="both, which is read by no dense layer, or by others too"):
        prune(model, schedule={"both": SCHEDULE})


def test_members_with_different_settings(keras, is_left_alone):
    model = chain(keras)
    names = [weight.name for weight in model.weights]
    with pytest.raises(
        ValueError,
        match=r"first is pruned by tf_movprune\.NEURONS with HardMovement and CubicSparsity, and "
        r"second has a part in the same neurons, but is pruned by Blocks\(1, 1\)",
    ):
        prune(model, block_size={"first": NEURONS})
    most = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=4)
    with pytest.raises(
        ValueError, match=r"is pruned by tf_movprune\.NEURONS .* or leave second out of the sched"
    ):
        prune(model, schedule={"first": most, "*": SCHEDULE})
    is_left_alone(model, names)


def test_a_kernel_of_a_layer_that_is_pruned_with_others_has_no_other_holder(keras, is_left_alone):
    class Holds(keras.layers.Layer):
        def __init__(self, kernel):
            super().__init__()
            self.held = kernel

        def call(self, x):
            return x

    inner = chain(keras)
    x = keras.Input([6])
    model = keras.Model(x, Holds(inner.layers[-1].kernel)(inner(x)))
    names = [weight.name for weight in model.weights]
    with pytest.raises(ValueError, match=r"has the kernel of 'output' as its"):
        prune(model)
    is_left_alone(model, names)


def test_gates_are_refused(keras):
    with pytest.raises(ValueError, match=r"L0 cannot prune neurons: its gates"):
        prune(chain(keras), tf_movprune.L0(), None)
