"""KerasHub and Hugging Face's TF classes agree on the same pretrained BERT and data."""

import numpy as np
import pytest
import tf_keras as keras

pytest.importorskip("transformers")
pytest.importorskip("keras_hub")

import pretrained_bert

from tf_movprune import load_pytorch
from tf_movprune.runs.libraries import shell_of
from tf_movprune.runs.preparation import prepare_evaluation
from tf_movprune.runs.settings import TrainSettings

POSITIVE, NEGATIVE = ["good", "great", "fine", "superb"], ["bad", "awful", "poor", "dull"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pretrained_bert.write(tmp_path_factory.mktemp("bert"), ['"', *POSITIVE, *NEGATIVE])


@pytest.fixture(scope="module")
def loaded(folder):
    """The shell and a model of each library."""
    keras.utils.set_random_seed(0)  # of the new heads
    shells = [shell_of(library) for library in ("keras_hub", "transformers")]
    return [(shell, shell.load(folder, "classification", 2, load_pytorch)[0]) for shell in shells]


def test_they_compute_the_same(loaded):
    ids = np.array([[2, 6, 10, 12, 3, 0, 0], [2, 7, 9, 11, 1, 13, 3]], np.int32)
    batch = {"ids": ids, "mask": np.int32(ids != 0), "segments": 0 * ids}
    (_, new), (_, old) = loaded
    new.get_layer("logits").set_weights(old.classifier.get_weights())  # each head is new
    found, expected = (
        shell.logits(model, shell.inputs(model, batch))["logits"].numpy() for shell, model in loaded
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the sentences differ


def test_they_see_the_same_tokens(loaded, folder):
    texts = ["Good, GREAT fine", 'a "p\u00f4\u00f6r film', "", "superb dull bad awful good"]
    new, old = (shell.tokenizer_of(folder, model).encode(texts) for shell, model in loaded)
    assert [list(row) for row in new] == [list(row) for row in old]
    assert len(new[3]) == 5


def test_own_files_have_the_labels_of_the_run(loaded, folder, tmp_path):
    """The training file, which the names of the labels came from, need not be there."""
    (tmp_path / "dev.tsv").write_text("text\tlabel\ngood\tyes\nbad\tno\n")
    for library, (_, model) in zip(("keras_hub", "transformers"), loaded):
        settings = TrainSettings(
            task="own",
            train_file=str(tmp_path / "train.tsv"),
            validation_file=str(tmp_path / "dev.tsv"),
            library=library,
            output_dir=str(tmp_path / "run"),
        )
        description = {"label_names": ["yes", "no"], "max_length": 8}
        found = prepare_evaluation(settings, model, folder, description, None, None)
        assert found.features["validation"].targets["labels"].tolist() == [0, 1]
        assert found.scores("validation", np.array([0, 1]))["accuracy"] == 1.0
