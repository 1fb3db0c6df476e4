"""Loaded checkpoints are good for everything that other models are."""

import importlib

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints
import tensorflow as tf

import tf_movprune

NAME = "bert_without_heads"


pytestmark = pytest.mark.filterwarnings("ignore:No tokenizer")


@pytest.fixture(params=[None, "hub"], ids=["hugging_face", "keras_hub"])
def target(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """The folder of a BERT without some heads, with empty neurons, scattered zeros, and a head
    whose query and key are zero but whose value is not."""
    source = checkpoints.load(NAME, None)
    tf_movprune.save_pytorch(source, tmp_path / "a", heads="removed")
    arrays = checkpoints.arrays(tmp_path / "a")
    for i in range(2):
        block = f"bert.encoder.layer.{i}."
        arrays[f"{block}output.dense.weight"][:, ::3] = 0
        arrays[f"{block}attention.self.value.weight"][::2, ::2] = 0
    for name in ("query", "key"):
        for part in ("weight", "bias"):
            arrays[f"bert.encoder.layer.1.attention.self.{name}.{part}"][4:8] = 0
    return checkpoints.write(tmp_path / "b", arrays, checkpoints.config_of(tmp_path / "a"))


@pytest.fixture
def model(folder, target):
    return tf_movprune.load_pytorch(folder, checkpoints.hub_class(NAME) if target else None)


def test_compact_removes_what_is_empty_and_no_more(model):
    before, size = checkpoints.logits(model), model.count_params()
    small = tf_movprune.compact(model)
    np.testing.assert_allclose(checkpoints.logits(small), before, atol=1e-5)
    assert size - small.count_params() == 2 * 8 * (16 + 1 + 16)


def saved_heads(model, folder):
    tf_movprune.save_pytorch(model, folder, heads="removed")
    return checkpoints.config_of(folder)["pruned_heads"]


def test_compact_names_heads_by_their_first_places(folder, tmp_path, target):
    arrays = checkpoints.arrays(folder)
    for part in ("weight", "bias"):
        for name in ("query", "key", "value"):
            arrays[f"bert.encoder.layer.1.attention.self.{name}.{part}"][4:8] = 0
    checkpoints.write(folder, arrays, checkpoints.config_of(folder))
    cls = checkpoints.hub_class(NAME) if target else None
    model = tf_movprune.load_pytorch(folder, cls)
    before = checkpoints.logits(model)
    small = tf_movprune.compact(model)
    assert saved_heads(small, tmp_path / "c") == {"0": [0, 2], "1": [1, 2]}
    again = tf_movprune.load_compacted(tmp_path / "c", cls)
    np.testing.assert_allclose(checkpoints.logits(again), before, atol=1e-5)


def test_exports(model, tmp_path):
    small = tf_movprune.compact(model)
    report = tf_movprune.export_saved_model(small, tmp_path / "saved_model", sequence_length=9)
    assert report.max_abs_diff < 1e-5
    pytest.importorskip("ai_edge_litert")
    report = tf_movprune.export_tflite(
        small, tmp_path / "a.tflite", sequence_length=9, quantization=None
    )
    assert report.max_abs_diff < 1e-4
    tf_movprune.export_compressed(small, tmp_path / "a.movprune", quantization=None)
    expected = checkpoints.logits(small)
    for weight in small.trainable_weights:
        weight.assign(tf.zeros(weight.shape))
    tf_movprune.load_compressed(tmp_path / "a.movprune", small)
    np.testing.assert_array_equal(checkpoints.logits(small), expected)


def test_summary_counts_the_zeros(model, folder):
    arrays = checkpoints.arrays(folder)
    matrices = [x for name, x in arrays.items() if ".layer." in name and x.ndim == 2]
    report = tf_movprune.summarize_sparsity(model)
    found = [(w.total, w.remaining) for w in report.weights if "layer" in w.path]
    assert sorted(found) == sorted((x.size, np.count_nonzero(x)) for x in matrices)
    assert all(w.remaining == w.total for w in report.weights if "pooled" in w.path)


@pytest.mark.slow
def test_a_checkpoint_as_a_teacher(model, folder, target):
    keras = importlib.import_module("keras" if target else "tf_keras")
    cls = checkpoints.hub_class(NAME) if target else None
    teacher, student = model, tf_movprune.load_pytorch(folder, cls)
    schedule = tf_movprune.CubicSparsity(0.5, begin_step=0, end_step=2)
    tf_movprune.prune_low_movement(student, schedule, tf_movprune.Magnitude())
    distiller = tf_movprune.Distiller(student, teacher)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = ("start_logits", "end_logits")
    optimizer = tf_movprune.create_optimizer(1e-3, 2, 0, model=distiller)
    distiller.compile(optimizer, dict.fromkeys(names, loss), jit_compile=False)
    ids = np.random.RandomState(0).randint(5, 30, [8, 6]).astype("int32")
    features = {"token_ids": ids, "padding_mask": ids * 0 + 1, "segment_ids": ids * 0}
    if target is None:
        features = {"input_ids": ids, "attention_mask": ids * 0 + 1}
    answers = {name: np.arange(8) % 6 for name in names}
    callback = tf_movprune.UpdatePruningStep()
    distiller.fit(features, answers, batch_size=4, verbose=0, callbacks=[callback])
    assert tf_movprune.summarize_sparsity(student).sparsity == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_keras_hub_model_keeps_its_gelu_in_files(folder, tmp_path, is_compacted):
    import keras

    model = tf_movprune.load_pytorch(folder, checkpoints.hub_class(NAME))
    if is_compacted:
        tf_movprune.compact(model)
    expected = checkpoints.logits(model)
    model.save(tmp_path / "a.keras")
    again = tf_movprune.load_compacted(tmp_path / "a.keras")
    np.testing.assert_allclose(checkpoints.logits(again), expected, atol=1e-6)
    texts = checkpoints.load("bert_texts", "hub")
    texts.save_to_preset(str(tmp_path / "preset"))
    loaded = tf_movprune.load_compacted(tmp_path / "preset")
    np.testing.assert_allclose(
        checkpoints.logits(loaded), checkpoints.expected("bert_texts"), atol=1e-5
    )
    assert keras.activations.relu is (
        loaded.backbone.transformer_layers[0]._feedforward_intermediate_dense.activation
    )


def test_a_tf_model_is_saved_and_loaded_as_others_are(folder, tmp_path):
    model = tf_movprune.load_pytorch(folder)
    model.save_pretrained(tmp_path / "saved")
    again = tf_movprune.load_compacted(tmp_path / "saved")
    np.testing.assert_array_equal(checkpoints.logits(again), checkpoints.logits(model))
