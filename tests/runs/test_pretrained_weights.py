"""Models that runs start from: all of their weights but the head are those of the source."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
import tiny_pretrained

from tf_movprune.pytorch.load import load_pytorch
from tf_movprune.runs.libraries import shell_of

every_library = pytest.mark.parametrize("library", ["keras_hub", "transformers"])
QUERY = "encoder.layer.0.attention.self.query.weight"


def load(library, folder, outputs=2):
    return shell_of(library).load(folder, "classification", outputs, load_pytorch)


@pytest.fixture
def changed(tmp_path):
    """A function that writes the tiny BERT into a folder, with other weights or configuration."""

    def write(*, without="none", config=None, **weights):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_pretrained.folder(), folder)
        file = folder / "model.safetensors"
        found = {**safetensors.numpy.load_file(file), **weights}
        found = {name: x for name, x in found.items() if not name.startswith(without)}
        safetensors.numpy.save_file(found, file, {"format": "pt"})
        values = json.loads((folder / "config.json").read_text()) | (config or {})
        (folder / "config.json").write_text(json.dumps(values))
        return str(folder)

    return write


@every_library
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"without": "encoder.layer.0.output.dense"}, r"missing.*layer.0.output.dense.bias"),
        ({QUERY: np.zeros([32, 48], np.float32)}, rf"{re.escape(QUERY)}.*\(32, 48\)"),
        ({QUERY.replace("weight", "more"): np.zeros([32], np.float32)}, r"query.more"),
        ({"config": {"num_hidden_layers": 2}}, r"encoder\.layer\.1\..*"),
        ({"config": {"architectures": ["BertForSequenceClassification"]}}, r"missing.*classifier"),
    ],
)
def test_weights_of_an_encoder_that_would_be_new(library, changes, message, changed):
    with pytest.raises(ValueError, match=message):
        load(library, changed(**changes))


@every_library
def test_lists_of_positions_are_no_weights(library, changed):
    ids = {"embeddings.position_ids": np.arange(64, dtype=np.int64)[None]}
    assert load(library, changed(**ids))[1]


def test_a_pooler_is_part_of_a_new_head(changed):
    """KerasHub's models are refused without one."""
    assert load("transformers", changed(without="pooler"))[1]


@every_library
def test_a_saved_model_of_other_weights(library, tmp_path):
    """Files as `save` writes them are of another format than those of PyTorch."""
    shell, folder = shell_of(library), tmp_path / "saved"
    shell.save(load(library, tiny_pretrained.folder())[0], None, str(folder), ["no", "yes"])
    _, is_new = load(library, folder)
    assert not is_new and load(library, folder, outputs=3)[1]
    for name in ("config.json", "task.json"):
        if (file := pathlib.Path(folder, name)).exists():
            text = re.sub(r'"(num_layers|num_hidden_layers)": 1\b', r'"\1": 2', file.read_text())
            file.write_text(text)
    for outputs in (2, 3):
        with pytest.raises(ValueError, match=r"layer_\._1|feedforward"):
            load(library, folder, outputs)
    with pytest.raises(ValueError, match=r"layer_\._1|feedforward"):
        shell.load_saved(folder, load_pytorch)


def test_a_preset_without_the_weights_of_its_head_has_none(tmp_path):
    shell, folder = shell_of("keras_hub"), tmp_path / "saved"
    shell.save(load("keras_hub", tiny_pretrained.folder())[0], None, str(folder))
    (folder / "task.weights.h5").unlink()
    assert load("keras_hub", folder)[1]
