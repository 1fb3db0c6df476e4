"""Heads and neurons with one score over all their weights."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from wrapped import Everything

import tf_movprune
from tf_movprune import HEADS, NEURONS

pytestmark = pytest.mark.usefixtures("refresh_without_xla")


SCHEDULE = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=4)
TOKENS = {
    "input_ids": tf.constant([[5, 9, 3, 7, 2], [8, 2, 4, 1, 1]]),
    "attention_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
LABELS = tf.constant([0, 1])
BY_PART = {"*.attention.*": HEADS, "*": NEURONS}


def bert(kind="Bert", **changes):
    transformers = pytest.importorskip("transformers")
    keras.utils.set_random_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=20,
        initializer_range=0.3,
        **changes,
    )
    model = getattr(transformers, f"TF{kind}ForSequenceClassification")(config)
    model(model.dummy_inputs)
    random = np.random.RandomState(0)
    for weight in model.weights:
        if "bias" in weight.name:
            weight.assign(random.normal(0, 0.2, weight.shape))
    return model


def distilbert():
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=20
    )
    model = transformers.TFDistilBertForSequenceClassification(config)
    model(model.dummy_inputs)
    return model


def chain():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input([6]),
            keras.layers.Dense(8, "gelu", bias_initializer="normal", name="first"),
            keras.layers.Dense(10, "sigmoid", bias_initializer="normal", name="second"),
            keras.layers.Dense(3, name="output"),
        ]
    )
    return model


def attention_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([5, 8])
    attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5, name="attention")
    x = attention(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def logits_of(model, inputs):
    outputs = model(inputs, training=False)
    return np.asarray(getattr(outputs, "logits", outputs))


def loss_of(model, inputs):
    logits = getattr(outputs := model(inputs, training=True), "logits", outputs)
    return tf.reduce_sum(tf.sin(3.0 * logits))


# ---- what is shared


def test_one_score_to_a_head_and_to_a_neuron():
    model = bert()
    tf_movprune.prune_low_movement(model, SCHEDULE, block_size=BY_PART)
    layers = tf_movprune.pruned_layers(model)
    assert len(layers) == 12
    first = "bert.encoder.layer.0."
    attention = [layer for path, layer in layers.items() if path.startswith(first + "attention.")]
    assert len(attention) == 4
    assert len({id(layer.kernels[0].scores) for layer in attention}) == 1
    assert attention[0].kernels[0].scores.shape == (4,)
    neurons = layers[first + "intermediate.dense"]
    assert neurons.kernels[0].scores is layers[first + "bert_output.dense"].kernels[0].scores
    assert neurons.kernels[0].scores.shape == neurons.kernels[0].mask.shape == (24,)
    scores = [w for w in model.trainable_weights if "movement_scores" in w.name]
    assert [w.shape[0] for w in scores] == [4, 24, 4, 24]  # each once


INPUTS = {
    bert: TOKENS,
    chain: tf.random.stateless_normal([4, 6], [0, 1]),
    attention_model: tf.random.stateless_normal([4, 5, 8], [0, 1]),
}
KINDS = {bert: BY_PART, chain: NEURONS, attention_model: HEADS}


def shared_masks_of(model):
    layers = tf_movprune.pruned_layers(model).values()
    return list({id(shared): shared for layer in layers for shared in layer.kernels}.values())


def keeps(shared, part):
    """The mask in the shape of a variable."""
    units = np.repeat(shared.mask.numpy(), part.weight.shape[part.axis] // shared.size)
    shape = [-1 if i == part.axis else 1 for i in range(part.weight.shape.rank)]
    return np.broadcast_to(units.reshape(shape), part.weight.shape)


@pytest.mark.parametrize("off", [(), (1,), (0, 3)])
@pytest.mark.parametrize("make", [bert, chain, attention_model])
def test_movement_is_the_sum_over_all_weights_of_a_unit(make, off):
    model = make()
    for layer in model.submodules:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model = tf_movprune.prune_low_movement(model, SCHEDULE, block_size=KINDS[make])
    tf_movprune.update_masks(model, 0)  # sparsity 0
    masks = shared_masks_of(model)
    assert len(masks) == {bert: 4, chain: 2, attention_model: 1}[make]
    for shared in masks:
        shared.mask.assign([i not in off for i in range(shared.size)])
    with tf.GradientTape() as tape:
        loss = loss_of(model, INPUTS[make])
    to_scores = tape.gradient(loss, [shared.scores for shared in masks])

    places = [(shared, part) for shared in masks for part in shared.parts]
    unmasked = [part.weight.numpy() for _, part in places]
    plain = tf_movprune.strip_pruning(model)
    with tf.GradientTape() as tape:  # in a plain model with the same zeros
        loss = loss_of(plain, INPUTS[make])
    slopes = tape.gradient(loss, [part.weight for _, part in places])
    expected = {id(shared): np.zeros(shared.size) for shared in masks}
    for (shared, part), weights, slope in zip(places, unmasked, slopes):
        movement = np.asarray(slope) * weights
        for other, same in places:  # what another mask took does not count
            if other is not shared and same.weight is part.weight:
                movement = movement * keeps(other, same)
        movement = np.moveaxis(movement, part.axis, 0).reshape(shared.size, -1)
        expected[id(shared)] += movement.sum(axis=1)
        zeros = np.asarray(part.weight) == 0
        np.testing.assert_array_equal(zeros[~keeps(shared, part)], True)
    for shared, gradient in zip(masks, to_scores):
        np.testing.assert_allclose(gradient, expected[id(shared)], rtol=1e-3, atol=1e-4)
        assert np.abs(gradient).max() > 0.01
    assert sum(part.is_bias for _, part in places) == {bert: 8, chain: 2}.get(make, 3)


# ---- selection


def scores_of(model):
    for seed, shared in enumerate(shared_masks_of(model)):
        values = np.random.RandomState(seed).normal(size=shared.size)
        shared.scores.assign(values.astype(np.float32) + seed)
        yield values + seed, shared


@pytest.mark.parametrize("scope", ["local", "global"])
def test_hard_selection(scope):
    model = bert()
    tf_movprune.prune_low_movement(
        model, SCHEDULE, tf_movprune.HardMovement(scope=scope), block_size=BY_PART
    )
    scores = list(scores_of(model))
    tf_movprune.update_masks(model, 4)
    for kind in (4, 24):  # heads with heads, neurons with neurons
        of_kind = [
            (values, shared.mask.numpy()) for values, shared in scores if len(values) == kind
        ]
        groups = [[pair] for pair in of_kind] if scope == "local" else [of_kind]
        for group in groups:
            values, kept = (np.concatenate(column) for column in zip(*group))
            expected = values >= np.sort(values)[len(values) // 2]
            np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(
    "method",
    [
        tf_movprune.HardMovement(),
        tf_movprune.HardMovement(scope="global"),
        tf_movprune.Magnitude(),
        tf_movprune.SoftMovement(10.0, target=True),
    ],
)
def test_at_least_one_stays_and_more_where_the_method_says(method):
    schedule = tf_movprune.CubicSparsity(0.99, begin_step=0, end_step=4)
    model = tf_movprune.prune_low_movement(attention_model(), schedule, method, block_size=HEADS)
    tf_movprune.update_masks(model, 4)
    (shared,) = shared_masks_of(model)
    assert np.count_nonzero(shared.mask) == 1
    if hasattr(method, "scope"):
        method = type(method)(scope=method.scope, minimum_remaining=0.4)
        model = tf_movprune.prune_low_movement(chain(), schedule, method, block_size=NEURONS)
        tf_movprune.update_masks(model, 4)
        assert [np.count_nonzero(shared.mask) for shared in shared_masks_of(model)] == [3, 4]


def test_where_a_global_threshold_empties_a_layer_its_best_head_stays():
    model = bert()
    method = tf_movprune.HardMovement(scope="global")
    tf_movprune.prune_low_movement(model, SCHEDULE, method, block_size=BY_PART)
    heads = [shared for shared in shared_masks_of(model) if shared.size == 4]
    heads[0].scores.assign([1.0, 2.0, 4.0, 3.0])
    heads[1].scores.assign([5.0, 6.0, 7.0, 8.0])
    tf_movprune.update_masks(model, 4)
    assert heads[0].mask.numpy().tolist() == [False, False, True, False]
    assert heads[1].mask.numpy().tolist() == [False, True, True, True]  # four in all, as asked


def test_magnitude_compares_the_means_of_units():
    model = tf_movprune.prune_low_movement(
        chain(), SCHEDULE, tf_movprune.Magnitude(), block_size=NEURONS
    )
    first, second = (layer.layer for layer in list(tf_movprune.pruned_layers(model).values())[:2])
    tf_movprune.update_masks(model, 4)
    weights = np.concatenate([first.kernel.numpy().T, first.bias[:, None], second.kernel], axis=1)
    means = np.abs(weights).mean(axis=1)
    mask = shared_masks_of(model)[0].mask.numpy()
    np.testing.assert_array_equal(mask, means >= np.sort(means)[4])


def test_scores_start_from_the_means_of_magnitudes():
    method = tf_movprune.HardMovement(tf_movprune.MagnitudeScores(2.0))
    model = tf_movprune.prune_low_movement(attention_model(), SCHEDULE, method, block_size=HEADS)
    (shared,) = shared_masks_of(model)
    attention = model.layers[1].layer
    kernels = [np.moveaxis(k, 1, 0) for k in attention.get_weights()[0:6:2]]
    biases = attention.get_weights()[1:6:2]
    parts = [*kernels, *biases, attention._output_dense.kernel.numpy()]
    rows = np.abs(np.concatenate([part.reshape(4, -1) for part in parts], axis=1))
    np.testing.assert_allclose(shared.scores, 2 * rows.mean(axis=1) / rows.mean(), rtol=1e-5)


# ---- training, saving, removal


@pytest.mark.parametrize(
    ("method", "jit_compile"),
    [pytest.param("hard", True, marks=pytest.mark.slow), ("soft", False)],
)
def test_training_and_removal(method, jit_compile, tmp_path):
    methods = {
        "hard": tf_movprune.HardMovement(),
        "soft": tf_movprune.SoftMovement(10.0, target=True),
    }
    model = bert()
    tf_movprune.prune_low_movement(model, SCHEDULE, methods[method], block_size=BY_PART)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=jit_compile)
    start = [shared.scores.numpy() for shared in shared_masks_of(model)]
    data = tf.data.Dataset.from_tensors((TOKENS, LABELS)).repeat(6)
    model.fit(data, callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    masks = shared_masks_of(model)
    assert all(np.any(a != shared.scores.numpy()) for a, shared in zip(start, masks))
    report = tf_movprune.summarize_sparsity(model)
    assert report.sparsity == pytest.approx(0.5) if method == "hard" else report.sparsity > 0.3
    expected = logits_of(model, TOKENS)
    heads = [np.count_nonzero(shared.mask) for shared in masks if shared.size == 4]
    neurons = [np.count_nonzero(shared.mask) for shared in masks if shared.size == 24]
    plain = tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(logits_of(plain, TOKENS), expected)
    tf_movprune.compact(plain)
    assert [layer.intermediate.dense.units for layer in plain.bert.encoder.layer] == neurons
    assert [
        layer.attention.self_attention.num_attention_heads for layer in plain.bert.encoder.layer
    ] == heads
    np.testing.assert_allclose(logits_of(plain, TOKENS), expected, rtol=0, atol=1e-5)
    plain.save_pretrained(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path)
    np.testing.assert_array_equal(logits_of(loaded, TOKENS), logits_of(plain, TOKENS))


@pytest.mark.parametrize("make", [distilbert, lambda: bert("Roberta"), lambda: bert("Electra")])
def test_other_encoders(make):
    model = make()
    tf_movprune.prune_low_movement(model, SCHEDULE, block_size=BY_PART)
    tf_movprune.update_masks(model, 4)
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.5
    expected = logits_of(model, TOKENS)
    before = model.count_params()
    plain = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert plain.count_params() < before
    np.testing.assert_allclose(logits_of(plain, TOKENS), expected, rtol=0, atol=1e-5)


def test_dense_layers_in_a_row_and_the_output_layer_that_reads_the_last_neurons():
    model = tf_movprune.prune_low_movement(chain(), SCHEDULE, block_size=NEURONS)
    assert list(tf_movprune.pruned_layers(model)) == ["first", "second", "output"]
    assert [len(layer.kernels) for layer in model.layers] == [1, 2, 1]
    tf_movprune.update_masks(model, 4)
    report = tf_movprune.summarize_sparsity(model)
    assert [(w.path, w.remaining) for w in report.weights] == [
        ("first.kernel", 6 * 4),
        ("second.kernel", 4 * 5),
        ("output.kernel", 5 * 3),
    ]
    assert float(tf_movprune.update_masks(model, 4)) == pytest.approx(report.sparsity)
    expected = logits_of(model, INPUTS[chain])
    smaller = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert [layer.units for layer in smaller.layers] == [4, 5, 3]
    np.testing.assert_allclose(logits_of(smaller, INPUTS[chain]), expected, rtol=0, atol=1e-6)


def test_fit_says_what_is_pruned(capsys):
    model = tf_movprune.prune_low_movement(chain(), SCHEDULE, block_size=NEURONS)
    model.compile("adam", "mse")
    data = tf.data.Dataset.from_tensors((INPUTS[chain], tf.zeros([1, 3]))).repeat(6)
    model.fit(data, callbacks=[tf_movprune.UpdatePruningStep()], verbose=2)
    line = "Pruning 18 neurons in 2 layers. Sparsity by step: 0.00 at 0, 0.44 at 2, 0.50 at 4."
    assert line in capsys.readouterr().out


def test_soft_penalty_counts_shared_scores_once():
    schedule = tf_movprune.CubicThreshold(0.1, begin_step=0, end_step=4)
    method = tf_movprune.SoftMovement(36.0)
    model = bert()
    tf_movprune.prune_low_movement(
        model, schedule, method, block_size=BY_PART, score_learning_rate_multiplier=1.0
    )
    scores = list(scores_of(model))
    tf_movprune.update_masks(model, 4)
    expected = np.mean([np.mean(1 / (1 + np.exp(-values))) for values, _ in scores])
    np.testing.assert_allclose(tf.add_n(model.losses), 36.0 * expected, rtol=1e-5)


def test_blocks_in_one_part_of_a_model_and_heads_in_another():
    model = bert()
    schedules = {
        "*.attention.*": SCHEDULE,
        "*": tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=4),
    }
    sizes = {"*.attention.*": HEADS, "*intermediate*": tf_movprune.BLOCKS_FLOAT32}
    tf_movprune.prune_low_movement(model, schedules, block_size=sizes)
    tf_movprune.update_masks(model, 4)
    layer = tf_movprune.pruned_layers(model)["bert.encoder.layer.0.intermediate.dense"]
    assert layer.kernels[0].mask.shape == (4, 24)
    groups = tf_movprune.summarize_sparsity(model).groups
    assert sorted(group.sparsity for group in groups.values()) == [0.5, 0.75, 0.75]


@pytest.mark.parametrize("how", ["checkpoint", "weights", "h5"])
def test_weights_are_saved_and_restored(how, tmp_path):
    def pruned():
        return tf_movprune.prune_low_movement(chain(), SCHEDULE, block_size=NEURONS)

    model, fresh = pruned(), pruned()
    list(scores_of(model))
    tf_movprune.update_masks(model, 4)
    if how == "checkpoint":
        path = tf.train.Checkpoint(model=model).save(tmp_path / "model")
        tf.train.Checkpoint(model=fresh).restore(path).assert_consumed()
    else:
        path = str(tmp_path / ("x.weights.h5" if how == "weights" else "x.h5"))
        model.save_weights(path)
        fresh.load_weights(path)
    for one, other in zip(shared_masks_of(model), shared_masks_of(fresh)):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(logits_of(model, INPUTS[chain]), logits_of(fresh, INPUTS[chain]))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved"])
def test_whole_models_are_refused(name, tmp_path):
    model = tf_movprune.prune_low_movement(chain(), SCHEDULE, block_size=NEURONS)
    chain().save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"shares masks of neurons .* save_weights"):
        model.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"shares masks of neurons .* save_weights"):
        model.get_config()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    tf_movprune.update_masks(model, 4)
    tf_movprune.strip_pruning(model).save(tmp_path / name)


def test_mixed_precision_without_biases_and_with_a_frozen_layer():
    policy = keras.mixed_precision.Policy("mixed_bfloat16")
    inputs = keras.Input([6])
    hidden = keras.layers.Dense(8, "relu", use_bias=False, trainable=False, dtype=policy)(inputs)
    hidden = keras.layers.Dense(8, "relu", use_bias=False, dtype=policy)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(hidden))
    model = tf_movprune.prune_low_movement(model, SCHEDULE, block_size=NEURONS)
    first, second = shared_masks_of(model)
    assert first.scores.dtype == tf.float32
    with tf.GradientTape() as tape:
        tf_movprune.update_masks(model, 4)
        loss = loss_of(model, INPUTS[chain])
    assert all(np.any(g) for g in tape.gradient(loss, [first.scores, second.scores]))
    assert any(w is first.scores for w in model.layers[2].trainable_weights)
    expected = logits_of(model, INPUTS[chain])
    smaller = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert [layer.units for layer in smaller.layers[1:]] == [4, 4, 2]
    np.testing.assert_allclose(logits_of(smaller, INPUTS[chain]), expected, rtol=0, atol=0.01)


def test_cross_attention_whose_scores_are_shown():
    inputs = [keras.Input([5, 8]), keras.Input([7, 6])]
    attention = keras.layers.MultiHeadAttention(4, 6, value_dim=5, use_bias=False)
    model = keras.Model(inputs, attention(*inputs, return_attention_scores=True))
    model = tf_movprune.prune_low_movement(
        model, SCHEDULE, block_size=HEADS, pruning_policy=Everything()
    )
    tf_movprune.update_masks(model, 4)
    (shared,) = shared_masks_of(model)
    assert np.count_nonzero(shared.mask) == 2 and len(shared.parts) == 4
    plain = tf_movprune.strip_pruning(model)
    with pytest.warns(UserWarning, match="nothing was removed"):  # the heads are seen
        tf_movprune.compact(plain)


def test_attention_alone():
    attention = keras.layers.MultiHeadAttention(4, 6)
    x = tf.random.stateless_normal([2, 5, 8], [0, 1])
    attention(x, x)
    pruned = tf_movprune.prune_low_movement(attention, SCHEDULE, block_size=HEADS)
    tf_movprune.update_masks(pruned, 4)
    assert np.count_nonzero(pruned.kernels[0].mask) == 2
    assert tf_movprune.summarize_sparsity(pruned).sparsity == 0.5


# ---- errors


def test_layers_without_heads_or_neurons_that_can_be_told_apart():
    def prune(model, block_size, **kwargs):
        tf_movprune.prune_low_movement(model, SCHEDULE, block_size=block_size, **kwargs)

    with pytest.raises(
        ValueError, match=r"HEADS for layers that have no heads .*: first, which .* Known are"
    ):
        prune(chain(), HEADS)
    unbuilt = keras.Sequential([keras.layers.Dense(3, name="a"), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"a, which is not built.* the model must be built"):
        prune(unbuilt, NEURONS)
    with pytest.raises(ValueError, match=r"first, which is in no Sequential or Functional model"):
        prune(chain().layers[0], NEURONS)
    with pytest.raises(TypeError, match=r"block_size must be .*NEURONS.*, got 'rows'"):
        prune(chain(), "rows")
    with pytest.raises(TypeError, match=r"block_size must be .*got 'neurons'"):
        prune(chain(), "neurons")
    with pytest.raises(ValueError, match=r"NEURONS for layers that have no neurons"):
        prune(chain().layers, NEURONS)
    with pytest.raises(TypeError, match=r"block_size tf_movprune\.NEURONS is for models"):
        tf_movprune.PruneLowMovement(chain().layers[0], SCHEDULE, block_size=NEURONS)
    with pytest.raises(TypeError, match=r"A list of layers takes one .*block_size"):
        prune(chain().layers, {"*": (4, 1)})
    with pytest.raises(ValueError, match=r"pattern 'x' in block_size matches no prunable layer"):
        prune(chain(), {"x": NEURONS})


def model_with_obstacles():
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


def test_all_layers_without_neurons_are_named_with_what_is_in_the_way():
    with pytest.raises(ValueError, match="no neurons that can be told apart") as error:
        tf_movprune.prune_low_movement(
            model_with_obstacles(), SCHEDULE, block_size=NEURONS, pruning_policy=Everything()
        )
    assert (
        "apart: conv, which is a Conv1D; twice, which is used in 2 places; sharp, which has the "
        "activation softmax; early, which is followed by 'norm' (LayerNormalization). Known are"
    ) in str(error.value)


def test_a_layer_that_others_read_too_has_no_neurons():
    inputs = keras.Input([4])
    both = keras.layers.Dense(4, name="both")(inputs)
    model = keras.Model(inputs, keras.layers.Add()([both, keras.layers.Dense(4)(both)]))
    with pytest.raises(ValueError, match="both, which is read by no dense layer, or by others too"):
        tf_movprune.prune_low_movement(model, {"both": SCHEDULE}, block_size=NEURONS)


def test_many_layers_without_heads_or_neurons_are_counted():
    with pytest.raises(ValueError) as error:
        tf_movprune.prune_low_movement(
            bert(), SCHEDULE, block_size={"*.attention.*": NEURONS, "*": HEADS}
        )
    message = str(error.value)  # 4 layers of attention and 2 others in each of 2 encoder layers
    assert message.count("so that what reads it is not known; ") == 6 and "; and 2 more." in message
    assert message.count("is a Dense, and in no attention that is known") == 4
    assert message.count("Give other layers") == 1


def test_members_with_different_settings():
    with pytest.raises(
        ValueError,
        match=r"dense is pruned by tf_movprune\.NEURONS with HardMovement and CubicSparsity, and .*"
        r"bert_output.dense has a part in the same neurons, but is pruned by Blocks\(1, 1\)",
    ):
        tf_movprune.prune_low_movement(
            bert(), SCHEDULE, block_size={"*.attention.*": HEADS, "*intermediate*": NEURONS}
        )
    schedules = {"*query": tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=4), "*": SCHEDULE}
    with pytest.raises(
        ValueError, match=r"is pruned by tf_movprune\.HEADS .* or leave .* out of the sched"
    ):
        tf_movprune.prune_low_movement(bert(), schedules, block_size=BY_PART)


def test_gates_are_refused():
    with pytest.raises(ValueError, match=r"L0 cannot prune heads: its gates"):
        tf_movprune.prune_low_movement(attention_model(), method=tf_movprune.L0(), block_size=HEADS)
