"""Hugging Face models, pruned in place."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 99,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTILBERT = {
    "vocab_size": 99,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 40,
}
CONFIGS = {
    "Bert": SMALL,
    "Roberta": SMALL,
    "Electra": {**SMALL, "embedding_size": 8},
    "Albert": {**SMALL, "embedding_size": 8},
    "DistilBert": DISTILBERT,
}
TASKS = ["SequenceClassification", "TokenClassification", "QuestionAnswering"]
IDS = np.random.RandomState(0).randint(2, 99, [4, 10]).astype(np.int32)
ENCODER_WEIGHTS = 4 * 16 * 16 + 2 * 16 * 32  # of one layer: what the paper prunes


def schedule():
    return tf_movprune.CubicSparsity(0.75, begin_step=0, end_step=2)


def make(family, task="SequenceClassification", **changes):
    config = getattr(transformers, f"{family}Config")(**{**CONFIGS[family], **changes})
    model = getattr(transformers, f"TF{family}For{task}")(config)
    model(IDS)
    return model


@pytest.mark.parametrize(
    "family, task",
    [
        ("Bert", TASKS[0]),
        ("DistilBert", TASKS[0]),
        *(
            pytest.param(f, TASKS[0], marks=pytest.mark.slow)
            for f in ("Roberta", "Electra", "Albert")
        ),
        *(pytest.param("Bert", task, marks=pytest.mark.slow) for task in TASKS[1:]),
    ],
)
def test_prunes_what_the_paper_prunes(family, task, tmp_path):
    model = make(family, task)
    names = [weight.name for weight in model.weights]
    pruned = tf_movprune.prune_low_movement(
        model, schedule(), tf_movprune.HardMovement(keras.initializers.RandomNormal(seed=1))
    )
    assert pruned is model
    layers = 1 if family == "Albert" else 2  # ALBERT uses one layer many times
    report = tf_movprune.summarize_sparsity(model)
    assert len(report.weights) == 6 * layers and report.total == layers * ENCODER_WEIGHTS

    tf_movprune.update_masks(model, 2)
    masked = model(IDS)
    stripped = tf_movprune.strip_pruning(model)
    outputs = stripped(IDS)
    for name in outputs:
        np.testing.assert_array_equal(outputs[name], masked[name])
    assert [weight.name for weight in model.weights] == names

    stripped.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    report = tf_movprune.summarize_sparsity(loaded)
    assert report.remaining == report.total // 4
    for name in outputs:
        np.testing.assert_array_equal(outputs[name], loaded(IDS)[name])


def test_paths_are_attribute_paths():
    pruned = tf_movprune.prune_low_movement(make("Bert"), {"bert.encoder.layer.1.*": schedule()})
    paths = list(tf_movprune.pruned_layers(pruned))
    assert len(paths) == 6
    assert paths[0] == "bert.encoder.layer.1.attention.self_attention.query"
    assert pruned.bert.encoder.layer[1].attention.self_attention.query.layer.name == "query"


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_trains_with_their_own_loss(jit_compile):
    model = tf_movprune.prune_low_movement(make("Bert", num_hidden_layers=1), schedule())
    model.compile(tf_movprune.create_optimizer(1e-3, 4, 1), jit_compile=jit_compile)
    data = tf.data.Dataset.from_tensors(
        {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "labels": np.array([0, 1, 0, 1])}
    )
    history = model.fit(
        data.repeat(4), epochs=1, callbacks=[tf_movprune.UpdatePruningStep()], verbose=0
    )
    assert history.history["sparsity"][-1] == pytest.approx(0.75)


def test_prunes_a_bert_inside_a_functional_model():
    bert = transformers.TFBertModel(transformers.BertConfig(**SMALL))
    ids = keras.Input([10], dtype=tf.int32, name="input_ids")
    pooled = bert(ids).last_hidden_state[:, 0]
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(pooled)
    model = keras.Model(ids, keras.layers.Dense(2, name="head")(hidden))
    pruned = tf_movprune.prune_low_movement(
        model, schedule(), tf_movprune.HardMovement(keras.initializers.RandomNormal(seed=1))
    )
    assert len(tf_movprune.pruned_layers(pruned)) == 13
    tf_movprune.update_masks(pruned, 2)
    masked = pruned(IDS)
    np.testing.assert_array_equal(masked, tf_movprune.strip_pruning(pruned)(IDS))


def test_save_pretrained_of_a_pruned_model_is_refused(tmp_path):
    model = tf_movprune.prune_low_movement(make("Bert"), schedule())
    with pytest.raises(ValueError, match="strip_pruning"):
        model.save_pretrained(tmp_path)
    tf_movprune.update_masks(model, 2)
    tf_movprune.strip_pruning(model).save_pretrained(tmp_path)


def test_unbuilt_models_are_refused():
    model = transformers.TFBertForSequenceClassification(transformers.BertConfig(**SMALL))
    with pytest.raises(ValueError, match=r"not built yet.*model\(model.dummy_inputs\)"):
        tf_movprune.prune_low_movement(model, schedule())


def test_main_layer_alone():
    model = make("Bert")
    tf_movprune.prune_low_movement(model.bert, schedule())
    assert len(tf_movprune.pruned_layers(model)) == 12
