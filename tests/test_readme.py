"""The README's code, run as it stands there."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

README = pathlib.Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_pretrained_example(tmp_path, monkeypatch, capsys):
    for name in ("transformers", "keras_hub", "tensorflow_datasets", "ai_edge_litert"):
        pytest.importorskip(name)
    import pretrained_bert

    from examples import downloads, sentiment_data

    monkeypatch.chdir(tmp_path)
    words = ["good", "bad"]
    folder = pretrained_bert.write(tmp_path, words)
    labels = np.random.RandomState(0).randint(0, 2, 160).astype("int32")
    texts = [" ".join([words[label]] * 5) for label in labels]
    splits = {"train": (texts, labels), "test": (texts[:20], labels[:20])}
    monkeypatch.setattr(downloads, "minilm_folder", lambda cache: folder)
    monkeypatch.setattr(sentiment_data, "load_task", lambda task, data_dir: splits)
    namespace = {}
    exec(SNIPPETS[0], namespace)
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=0.01)
    printed = capsys.readouterr().out
    assert "sentiment.tflite: int8" in printed
    assert 0 <= float(printed.split()[-1]) <= 1


def test_tf_keras_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()  # layer names as in a new process
    keras.utils.set_random_seed(0)
    namespace = {}
    exec(SNIPPETS[1], namespace)
    accuracy = namespace["pruned"].history.history["accuracy"][-1]
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=1e-3)
    assert accuracy > 0.9
    assert (tmp_path / "model.tflite").exists()
    printed = capsys.readouterr().out
    assert "dense.kernel" in printed and "model.tflite" in printed


def test_bert_example(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.BertConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )

    def from_pretrained(name):
        model = transformers.TFBertForSequenceClassification(config)
        model(model.dummy_inputs)
        return model

    auto = transformers.TFAutoModelForSequenceClassification
    monkeypatch.setattr(auto, "from_pretrained", from_pretrained)
    ids = np.random.RandomState(0).randint(0, 99, [80, 8])
    batches = tf.data.Dataset.from_tensor_slices({"input_ids": ids, "labels": ids[:, 0] % 2})
    exec(SNIPPETS[2], {"dataset": batches.batch(4)})
    loaded = transformers.TFBertForSequenceClassification.from_pretrained("pruned-bert")
    assert tf_movprune.summarize_sparsity(loaded).sparsity == pytest.approx(0.9, abs=0.01)


def test_tfmot_schedule_of_the_comparison():
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule

    schedule = pruning_schedule.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=1)
    model = keras.Sequential([keras.layers.Dense(8, input_shape=(8,)), keras.layers.Dense(1)])
    pruned = tf_movprune.prune_low_movement(model, schedule)
    pruned.compile("adam", "mse")
    x = np.ones([12, 8], np.float32)
    pruned.fit(x, x[:, :1], 2, verbose=0, callbacks=[tf_movprune.UpdatePruningStep()])
    assert tf_movprune.summarize_sparsity(tf_movprune.strip_pruning(pruned)).sparsity == 0.5


def test_compressed_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("zstandard")
    monkeypatch.chdir(tmp_path)
    plain = keras.Sequential([keras.layers.Dense(8, input_shape=(8,)), keras.layers.Dense(1)])
    namespace = {"tf_movprune": tf_movprune, "plain": plain}
    exec(SNIPPETS[5], namespace)
    assert len(namespace["weights"]) == 4
    for weight, array in zip(plain.get_weights(), namespace["weights"].values()):
        np.testing.assert_array_equal(weight, array)
    printed = capsys.readouterr().out
    assert "compressed int8" in printed and "model.movprune: int8" in printed
