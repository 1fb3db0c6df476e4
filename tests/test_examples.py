"""The demo's own code, on less."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("tensorflow_datasets")
pytest.importorskip("keras_hub")
pytest.importorskip("safetensors")

import pretrained_bert  # noqa: E402

import tf_movprune  # noqa: E402
from examples import deploy, fine_tuning, movie_sentiment, sentiment_data  # noqa: E402

POSITIVE, NEGATIVE = ["good", "great", "fine", "superb"], ["bad", "awful", "poor", "dull"]


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A task of four words, in GLUE's file format."""
    folder, random = tmp_path_factory.mktemp("glue"), np.random.RandomState(0)
    for split, size in (("train", 1300), ("dev", 60)):
        rows = ["sentence\tlabel"]
        for _ in range(size):
            label = random.randint(2)
            words = random.choice([NEGATIVE, POSITIVE][label], random.randint(3, 20))
            rows.append(f'{" ".join(words)} "\t{label}')  # a lone quote is no quoting
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    return pretrained_bert.write(tmp_path_factory.mktemp("bert"), ['"', *POSITIVE, *NEGATIVE])


@pytest.mark.slow
@pytest.mark.parametrize("keras", ["3", "2"])
def test_demo(glue, tiny_bert, keras, tmp_path, capsys):
    results = movie_sentiment.main(
        f"--keras {keras} --quick --data_dir {glue} --model {tiny_bert} --learning_rate 3e-3 "
        f"--num_train_steps 40 --output_dir {tmp_path}".split()
    )
    assert [r.method for r in results] == ["dense", "movement", "magnitude"]
    assert results[0].remaining == 1.0 and results[0].test_accuracy > 0.9
    for result in results[1:]:
        assert result.remaining == pytest.approx(0.1, abs=0.002)
        assert result.sparsity[-1] == pytest.approx(0.9, abs=0.002)
        assert result.tflite.max_abs_diff is not None
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [r["test_accuracy"] for r in saved] == [r.test_accuracy for r in results]
    assert (tmp_path / "picture.png").stat().st_size > 20_000
    printed = capsys.readouterr().out
    assert "| movement | 10.0% |" in printed and "sparsity:" in printed
    deployed = deploy.main(
        f"--data_dir {glue} --model {tmp_path}/movement/pretrained --max_examples 5 --rounds 1 "
        f"--dense {tmp_path}/dense/pretrained --sequence_length 24 --output_dir {tmp_path}".split()
    )
    assert len(deployed) == 8


@pytest.mark.slow
@pytest.mark.parametrize("keras", ["3", "2"])
def test_deploy(glue, tiny_bert, keras, tmp_path, capsys):
    bert = fine_tuning.bert_for(keras)
    model = bert.load(tiny_bert)
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=1)
    tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 1)
    bert.save(tf_movprune.strip_pruning(model), tmp_path / "pruned", tiny_bert)
    formats = deploy.main(
        f"--data_dir {glue} --model {tmp_path}/pruned --max_examples 30 --rounds 2 "
        f"--dense {tiny_bert} --sequence_length 24 --output_dir {tmp_path}".split()
    )
    dense, by_name = formats[0], {f.name: f for f in formats}
    assert len(by_name) == len(formats) == 8
    pruned = by_name["TFLite float32"]
    assert dense.bytes >= pruned.bytes > by_name["TFLite float32, sparse"].bytes
    assert pruned.bytes > by_name["TFLite float16"].bytes > by_name["TFLite int8"].bytes
    assert by_name["compressed int8"].bytes < by_name["compressed float32"].bytes
    assert all(f.max_abs_diff < 1e-4 for f in formats if "float32" in f.name)
    assert by_name["compressed float32"].accuracy == pruned.accuracy
    assert (tmp_path / "formats.md").read_text().count("\n") == 10
    with pytest.raises(SystemExit):
        deploy.main(["--model", str(tmp_path)])
    assert "Run `make demo` first" in capsys.readouterr().err


def test_a_hugging_face_folder_computes_the_same_with_both_kerases(tiny_bert):
    ids = np.array([[2, 6, 10, 12, 3, 0, 0], [2, 7, 9, 11, 1, 13, 3]], np.int32)
    modules = {keras: fine_tuning.bert_for(keras) for keras in ("3", "2")}
    loaded = {keras: bert.load(tiny_bert) for keras, bert in modules.items()}
    old = modules["2"].logits(loaded["2"], modules["2"].inputs(ids))
    head = loaded["2"].classifier.get_weights()
    loaded["3"].get_layer("logits").set_weights(head)  # KerasHub makes a new one
    new = modules["3"].logits(loaded["3"], modules["3"].inputs(ids))
    np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)
    assert np.ptp(old, axis=0).min() > 1e-3  # the sentences differ


@pytest.mark.parametrize("keras", ["3", "2"])
def test_a_saved_model_computes_what_was_trained(keras, tiny_bert, tmp_path):
    bert = fine_tuning.bert_for(keras)
    model = bert.load(tiny_bert)
    inputs = bert.inputs(np.array([[2, 6, 10, 12, 3, 0, 0]], np.int32))
    expected = bert.logits(model, inputs)
    bert.save(model, tmp_path, tiny_bert)
    loaded = bert.load(str(tmp_path), seed=1)
    np.testing.assert_allclose(bert.logits(loaded, inputs), expected, rtol=0, atol=1e-6)
    assert deploy.bert_of(str(tmp_path)) is bert


@pytest.mark.parametrize("keras", ["3", "2"])
def test_embeddings_are_not_trained(keras, tiny_bert):
    model = fine_tuning.bert_for(keras).load(tiny_bert)
    names = [getattr(w, "path", w.name) for w in model.trainable_weights]
    assert names and not any("embedding" in name for name in names)
    assert any("embedding" in getattr(w, "path", w.name) for w in model.weights)


@pytest.mark.parametrize("length", [4, 64])
def test_both_kerases_see_the_same_tokens(length, tiny_bert):
    texts = ["Good, GREAT fine", 'a "p\u00f4\u00f6r film', "", "superb dull bad awful good"]
    new, old = (
        fine_tuning.bert_for(keras).encoder(tiny_bert, length)(texts) for keras in ("3", "2")
    )
    assert [list(row) for row in new] == [list(row) for row in old]
    assert max(len(row) for row in new) == min(length, 7)


def test_the_demo_for_keras_3_imports_no_other_keras():
    program = (
        "import sys; from examples import deploy, movie_sentiment, fine_tuning; "
        "fine_tuning.bert_for('3'); sys.exit('tf_keras' in sys.modules)"
    )
    variables = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    assert subprocess.run([sys.executable, "-c", program], env=variables).returncode == 0


def test_a_sentence_is_padded_or_cut():
    ids = np.array([5, 6, 7], np.int32)
    assert sentiment_data.padded(ids, 4).tolist() == [[5, 6, 7, 0]]
    assert sentiment_data.padded(ids, 2).tolist() == [[5, 6]]


@pytest.mark.parametrize(
    "keras, names",
    [
        ("3", ["token_ids", "padding_mask", "segment_ids"]),
        ("2", ["input_ids", "attention_mask", "token_type_ids"]),
    ],
)
def test_inputs_mask_the_padding(keras, names):
    inputs = fine_tuning.bert_for(keras).inputs(np.array([[5, 6, 7, 0]], np.int32))
    expected = zip(names, [[5, 6, 7, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    assert {name: x.numpy()[0].tolist() for name, x in inputs.items()} == dict(expected)


def test_batches_have_few_shapes_and_hold_what_they_should():
    random = np.random.RandomState(0)
    ids = [random.randint(1, 50, random.randint(2, 65)) for _ in range(300)]
    data = sentiment_data.Sentences(ids, np.arange(300))
    seen = set()
    for rows, labels in sentiment_data.training_batches(data, 8, seed=1).take(60):
        assert rows.shape[0] == 8 and rows.shape[1] in sentiment_data.LENGTHS
        for row, label in zip(rows.numpy(), labels.numpy()):
            length = len(ids[label])
            np.testing.assert_array_equal(row[:length], ids[label])
            assert not row[length:].any()
            seen.add(label)
    assert len(seen) > 200
    rows = [label for _, labels in sentiment_data.evaluation_batches(data) for label in labels]
    assert sorted(rows) == list(range(300))


def test_steps_must_fit_the_evaluations(capsys):
    with pytest.raises(SystemExit):
        movie_sentiment.parse_arguments(["--num_train_steps", "15", "--evaluations", "10"])
    assert "multiple of --evaluations" in capsys.readouterr().err
