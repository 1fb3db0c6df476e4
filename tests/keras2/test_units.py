"""Heads and neurons of Hugging Face models, and files of tf_keras."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from shells import kernels
from unit_masks import assert_movement_is_summed, draw_scores, outputs_of

import tf_movprune
from tf_movprune import HEADS, NEURONS

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


@pytest.mark.parametrize(
    "off", [(1,), *(pytest.param(x, marks=pytest.mark.slow) for x in [(), (0, 3)])]
)
def test_movement_is_the_sum_over_all_weights_of_a_unit(off):
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tf_movprune.prune_low_movement(model, SCHEDULE, block_size=BY_PART)
    assert sum(part.is_bias for mask in kernels(model) for part in mask.parts) == 8
    assert_movement_is_summed(model, TOKENS, off)


# ---- training, saving, removal


@pytest.mark.parametrize(
    ("method", "jit_compile"),
    [
        pytest.param("hard", True, marks=pytest.mark.slow),
        pytest.param("soft", False, marks=pytest.mark.slow),
    ],
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
    start = [shared.scores.numpy() for shared in kernels(model)]
    data = tf.data.Dataset.from_tensors((TOKENS, LABELS)).repeat(6)
    model.fit(data, callbacks=[tf_movprune.UpdatePruningStep()], verbose=0)
    masks = kernels(model)
    assert all(np.any(a != shared.scores.numpy()) for a, shared in zip(start, masks))
    report = tf_movprune.summarize_sparsity(model)
    assert report.sparsity == pytest.approx(0.5) if method == "hard" else report.sparsity > 0.3
    expected = outputs_of(model, TOKENS)
    heads = [np.count_nonzero(shared.mask) for shared in masks if shared.size == 4]
    neurons = [np.count_nonzero(shared.mask) for shared in masks if shared.size == 24]
    plain = tf_movprune.strip_pruning(model)
    np.testing.assert_array_equal(outputs_of(plain, TOKENS), expected)
    tf_movprune.compact(plain)
    assert [layer.intermediate.dense.units for layer in plain.bert.encoder.layer] == neurons
    assert [
        layer.attention.self_attention.num_attention_heads for layer in plain.bert.encoder.layer
    ] == heads
    np.testing.assert_allclose(outputs_of(plain, TOKENS), expected, rtol=0, atol=1e-5)
    plain.save_pretrained(tmp_path)
    loaded = tf_movprune.load_compacted(tmp_path)
    np.testing.assert_array_equal(outputs_of(loaded, TOKENS), outputs_of(plain, TOKENS))


@pytest.mark.parametrize(
    "make",
    [
        distilbert,
        pytest.param(lambda: bert("Roberta"), marks=pytest.mark.slow),
        pytest.param(lambda: bert("Electra"), marks=pytest.mark.slow),
    ],
)
def test_other_encoders(make):
    model = make()
    tf_movprune.prune_low_movement(model, SCHEDULE, block_size=BY_PART)
    tf_movprune.update_masks(model, 4)
    assert tf_movprune.summarize_sparsity(model).sparsity == 0.5
    expected = outputs_of(model, TOKENS)
    before = model.count_params()
    plain = tf_movprune.compact(tf_movprune.strip_pruning(model))
    assert plain.count_params() < before
    np.testing.assert_allclose(outputs_of(plain, TOKENS), expected, rtol=0, atol=1e-5)


def test_weights_in_a_file_of_the_old_format_come_back(tmp_path):
    source, target = (
        tf_movprune.prune_low_movement(chain(), SCHEDULE, block_size=NEURONS) for _ in range(2)
    )
    draw_scores(source)
    tf_movprune.update_masks(source, 4)
    source.save_weights(tmp_path / "model.h5")
    target.load_weights(tmp_path / "model.h5")
    for one, other in zip(kernels(source), kernels(target)):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.mask, other.mask)


# ---- errors


def test_layers_and_lists():
    with pytest.raises(TypeError, match=r"block_size tf_movprune\.NEURONS is for models"):
        tf_movprune.PruneLowMovement(chain().layers[0], SCHEDULE, block_size=NEURONS)
    with pytest.raises(TypeError, match=r"A list of layers takes one .*block_size"):
        tf_movprune.prune_low_movement(chain().layers, SCHEDULE, block_size={"*": (4, 1)})


def test_many_layers_without_heads_or_neurons_are_grouped_by_reason():
    with pytest.raises(ValueError) as error:
        tf_movprune.prune_low_movement(
            bert(), SCHEDULE, block_size={"*.attention.*": NEURONS, "*": HEADS}
        )
    message = str(error.value)  # 4 layers of attention and 2 others in each of 2 encoder layers
    assert message.count("each of which is in no Sequential") == message.count("is in no") == 1
    assert message.count("bert.encoder.layer.*.") == 6
    assert message.count("each of which is a Dense, and in no attention that is known") == 1
    assert message.count("Give other layers") == 1
