"""The model of a run as a function of texts."""

import json

import numpy as np
import pytest
import tiny_pretrained

import tf_movprune
from tf_movprune.runs import training
from tf_movprune.runs.record import RunPaths


@pytest.fixture(autouse=True)
def without_page(monkeypatch):
    monkeypatch.setattr(training, "report", lambda *args: None)


def trained(task, path, **changes):
    record = tiny_pretrained.run(task, path, method="dense", num_train_steps=2, **changes)
    split = next(split for split in record["data"] if split != "train")
    run = RunPaths(path / "run")
    return run, json.loads(run.predictions(split).read_text()), split


def examples(task, path, split):
    from tf_movprune.tasks.catalog import task as task_of

    return task_of(task).load(path / "data", splits=[split])[split]


@pytest.mark.parametrize(
    "library", ["keras_hub", pytest.param("transformers", marks=pytest.mark.slow)]
)
def test_pairs_of_texts(library, tmp_path):
    run, predictions, split = trained("mrpc", tmp_path, library=library)
    data = examples("mrpc", tmp_path, split)
    predict = tf_movprune.load_predictor(run.path)
    assert predict(data.texts, data.pairs) == predictions
    assert predict(np.array(data.texts), iter(data.pairs)) == predictions
    found = predict.probabilities(data.texts, data.pairs)
    assert found.dtype == np.float32 and found.shape == (len(data.texts), 2)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-6)
    assert [predict.label_names[i] for i in found.argmax(axis=-1)] == predictions
    assert predict.probabilities([], []).shape == (0, 2)
    with pytest.raises(ValueError, match=r"reads pairs of texts"):
        predict.probabilities(data.texts)
    with pytest.raises(TypeError, match=r"must be a list of texts, got 1 in it"):
        predict([1, 2], ["a", "b"])
    with pytest.raises(TypeError, match=r"texts must be a list"):
        predict("The film is superb.")
    with pytest.raises(ValueError, match=r"as many other texts as texts, got 1"):
        predict(data.texts, data.pairs[:1])
    with pytest.raises(ValueError, match=r"reads pairs of texts. Pass predict\(texts, others\)"):
        predict(data.texts)
    description = run.model / "tf_movprune.json"
    description.write_text(description.read_text().replace('"is_pair": true', '"is_pair": false'))
    with pytest.raises(ValueError, match=r"reads single texts, got pairs. Pass predict\(texts\)"):
        tf_movprune.load_predictor(run.path)(data.texts, data.pairs)


@pytest.mark.slow
def test_scores(tmp_path):
    run, predictions, split = trained("stsb", tmp_path)
    data = examples("stsb", tmp_path, split)
    found = tf_movprune.load_predictor(run.model)(data.texts, data.pairs)
    assert found == pytest.approx(predictions, abs=1e-5)


def test_answers(tmp_path):
    run, predictions, split = trained("squad", tmp_path)
    data = examples("squad", tmp_path, split)
    contexts = [data.contexts[i] for i in data.context_of]
    predict = tf_movprune.load_predictor(run.path)
    assert predict(data.questions, contexts) == list(predictions.values())
    assert predict([], []) == []
    with pytest.raises(ValueError, match=r"is for questions and has no classes"):
        predict.probabilities(data.questions, contexts)
    with pytest.raises(ValueError, match=r"Questions need a context each"):
        predict(data.questions)


def test_models_that_do_not_tell(tmp_path):
    with pytest.raises(ValueError, match=r"does not tell what its model is for"):
        tf_movprune.load_predictor(tiny_pretrained.folder())
    with pytest.raises(FileNotFoundError, match=r"no folder or file"):
        tf_movprune.load_predictor(tmp_path / "nothing")
