"""The demo's own code, on less."""

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("tensorflow_datasets")

import tf_movprune  # noqa: E402
from examples import deploy, movie_sentiment, sentiment_data  # noqa: E402

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
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", '"', *POSITIVE, *NEGATIVE]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    model = transformers.TFBertForSequenceClassification(config)
    model(model.dummy_inputs)
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_demo(glue, tiny_bert, tmp_path, capsys):
    results = movie_sentiment.main(
        f"--quick --data_dir {glue} --model {tiny_bert} --learning_rate 3e-3 "
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


@pytest.mark.slow
def test_deploy(glue, tiny_bert, tmp_path, capsys):
    model = transformers.TFAutoModelForSequenceClassification.from_pretrained(tiny_bert)
    schedule = tf_movprune.CubicSparsity(0.9, begin_step=0, end_step=1)
    tf_movprune.prune_low_movement(model, schedule, tf_movprune.Magnitude())
    tf_movprune.update_masks(model, 1)
    tf_movprune.strip_pruning(model).save_pretrained(tmp_path / "pruned")
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "pruned")
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


def test_a_sentence_is_padded_or_cut():
    inputs = sentiment_data.padded(np.array([5, 6, 7], np.int32), 4)
    assert {name: x.tolist() for name, x in inputs.items()} == {
        "input_ids": [[5, 6, 7, 0]],
        "attention_mask": [[1, 1, 1, 0]],
        "token_type_ids": [[0, 0, 0, 0]],
    }
    assert sentiment_data.padded(np.array([5, 6, 7], np.int32), 2)["input_ids"].tolist() == [[5, 6]]


def test_batches_have_few_shapes_and_hold_what_they_should():
    random = np.random.RandomState(0)
    ids = [random.randint(1, 50, random.randint(2, 65)) for _ in range(300)]
    data = sentiment_data.Sentences(ids, np.arange(300))
    seen = {}
    for inputs, labels in sentiment_data.training_batches(data, 8, seed=1).take(60):
        assert inputs["input_ids"].shape[0] == 8
        assert inputs["input_ids"].shape[1] in sentiment_data.LENGTHS
        for row, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], labels.numpy()):
            np.testing.assert_array_equal(row[: len(ids[label])], ids[label])
            assert np.sum(mask) == len(ids[label])
            seen[label] = True
    assert len(seen) > 200
    rows = [label for _, labels in sentiment_data.evaluation_batches(data) for label in labels]
    assert sorted(rows) == list(range(300))


def test_steps_must_fit_the_evaluations(capsys):
    with pytest.raises(SystemExit):
        movie_sentiment.parse_arguments(["--num_train_steps", "15", "--evaluations", "10"])
    assert "multiple of --evaluations" in capsys.readouterr().err
