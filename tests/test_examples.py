"""The demo's own code, on less."""

import json

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("tensorflow_datasets")

from examples import movie_sentiment, sentiment_data  # noqa: E402

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
