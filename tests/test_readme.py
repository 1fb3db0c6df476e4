"""The README's code, run as it stands there."""

import importlib
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tf_movprune

README = pathlib.Path(__file__).parents[1] / "README.md"
FIRST, PRETRAINED, HUGGING_FACE, PUBLISHED, HEADS, FILES = re.findall(
    r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
)


def test_pretrained_example(tmp_path, monkeypatch, capsys):
    for name in ("transformers", "keras_hub", "tensorflow_datasets", "ai_edge_litert"):
        pytest.importorskip(name)
    import pretrained_bert

    from examples import downloads

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()  # where the download is
    words = ["good", "bad"]
    folder = pretrained_bert.write(tmp_path, words)
    rows = [f"{word} {word} {word}\t{word}" for word in np.random.RandomState(0).choice(words, 160)]
    files = {"train": tmp_path / "train.tsv", "test": tmp_path / "test.tsv"}
    for path, count in zip(files.values(), (160, 20)):
        path.write_text("\n".join(["text\tlabel", *rows[:count]]))
    monkeypatch.setattr(downloads, "minilm_folder", lambda cache: folder)
    monkeypatch.setattr(downloads, "movie_review_files", lambda cache: files)
    namespace = {}
    exec(PRETRAINED, namespace)
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert report.sparsity == pytest.approx(0.9, abs=0.01)
    printed = capsys.readouterr().out
    assert "runs/sentiment.tflite: int8" in printed
    assert 0 <= float(printed.split()[-1]) <= 1


@pytest.mark.parametrize("name", ["keras", pytest.param("tf_keras", marks=pytest.mark.slow)])
def test_first_example(name, tmp_path, monkeypatch, capsys):
    """The first example runs as it stands, and with the import of the other Keras."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    module.backend.clear_session()  # layer names as in a new process
    module.utils.set_random_seed(0)
    namespace = {}
    exec(FIRST.replace("import keras\n", f"import {name} as keras\n"), namespace)
    accuracy = namespace["model"].history.history["accuracy"][-1]
    report = tf_movprune.summarize_sparsity(namespace["plain"])
    assert isinstance(namespace["plain"], module.Model)
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
    exec(HUGGING_FACE, {"dataset": batches.batch(4)})
    loaded = transformers.TFBertForSequenceClassification.from_pretrained("pruned-bert")
    assert tf_movprune.summarize_sparsity(loaded).sparsity == pytest.approx(0.9, abs=0.01)


def test_published_example(tmp_path, monkeypatch, capsys):
    import huggingface_hub
    import pytorch_checkpoints as checkpoints

    arrays = checkpoints.weights("bert_questions")
    table = np.random.RandomState(0).standard_normal([128, 16]).astype("float32")
    arrays["bert.embeddings.position_embeddings.weight"] = table
    config = {**checkpoints.config("bert_questions"), "max_position_embeddings": 128}
    folder = checkpoints.write(tmp_path / "published", arrays, config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    exec(PUBLISHED, {})
    assert "published.tflite: int8" in capsys.readouterr().out


def test_heads_and_neurons_example(tmp_path, monkeypatch):
    keras_hub = pytest.importorskip("keras_hub")
    monkeypatch.chdir(tmp_path)
    model = keras_hub.models.BertBackbone(99, 2, 4, 16, 32, max_sequence_length=20)
    trained = "tf_movprune.update_masks(model, 1500)"
    namespace = {"model": model, "tf_movprune": tf_movprune}
    exec(HEADS.replace("\n...\n", f"\n{trained}\n"), namespace)
    blocks = [x for x in namespace["small"].layers if hasattr(x, "_self_attention_layer")]
    assert [x._self_attention_layer._num_heads for x in blocks] == [2, 2]
    assert [x._feedforward_intermediate_dense.units for x in blocks] == [8, 8]


def test_compressed_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("zstandard")
    monkeypatch.chdir(tmp_path)
    plain = keras.Sequential([keras.layers.Dense(8, input_shape=(8,)), keras.layers.Dense(1)])
    namespace = {"tf_movprune": tf_movprune, "plain": plain}
    exec(FILES, namespace)
    assert len(namespace["weights"]) == 4
    for weight, array in zip(plain.get_weights(), namespace["weights"].values()):
        np.testing.assert_array_equal(weight, array)
    printed = capsys.readouterr().out
    assert "compressed int8" in printed and "model.movprune: int8" in printed
