"""Damaged files of compacted models load as some model, or are refused by name."""

import io
import json
import zipfile

import numpy as np
import pytest
from fuzzing.damage import damaged, damaged_json, in_little_memory, refused
from fuzzing.profiles import each_of
from hypothesis import strategies as st

import tf_movprune

KEYS = ("registered_name", "class_name", "module", "config", "compacted", "kernel_shapes", "units")


def empty(layer, axis, count=2):
    kernel = np.array(layer.kernel)
    np.moveaxis(kernel, axis, 0)[:count] = 0
    layer.kernel.assign(kernel)


def keras_file(folder):
    """A `.keras` file of a block that lost neurons."""
    keras_hub = pytest.importorskip("keras_hub")
    import keras

    keras.utils.set_random_seed(0)
    x = keras.Input([3, 8])
    block = keras_hub.layers.TransformerEncoder(6, 2, name="block")
    model = keras.Model(x, keras.layers.Dense(2)(block(x)))
    empty(block._feedforward_output_dense, 0)
    tf_movprune.compact(model).save(folder / "model.keras")
    return folder / "model.keras"


def preset(folder):
    """A preset of KerasHub of a backbone that lost neurons."""
    keras_hub = pytest.importorskip("keras_hub")
    import keras

    keras.utils.set_random_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 6}
    model = keras_hub.models.BertBackbone(
        vocabulary_size=9, max_sequence_length=8, num_segments=2, dropout=0.0, **sizes
    )
    empty(model.transformer_layers[0]._feedforward_output_dense, 0)
    tf_movprune.compact(model).save_to_preset(folder / "preset")
    return folder / "preset"


def hugging_face(folder):
    """A folder of Hugging Face's TF classes with a model that lost neurons."""
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    config = transformers.BertConfig(
        vocab_size=9, intermediate_size=6, max_position_embeddings=8, **sizes
    )
    model = transformers.TFBertForSequenceClassification(config)
    model(model.dummy_inputs)
    empty(model.bert.encoder.layer[0].bert_output.dense, 0)
    tf_movprune.compact(model).save_pretrained(folder / "saved")
    return folder / "saved"


def change_archive(choose, path, whole):
    """Damages an archive, or the configuration in it."""
    if choose.randrange(3) == 0:
        path.write_bytes(damaged(choose, whole))
        return
    name = choose.choice(["config.json", "config.json", "config.json", "metadata.json"])
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            is_changed = member == name
            new.writestr(
                member, damaged_json(choose, json.loads(data), KEYS) if is_changed else data
            )


def change_folder(choose, path, whole):
    """Damages the configuration in a folder."""
    (path / "config.json").write_bytes(damaged_json(choose, json.loads(whole), KEYS))


KINDS = {
    "keras": (keras_file, change_archive),
    "preset": (preset, change_folder),
    "hugging face": (hugging_face, change_folder),
}


def fuzz(kind, folder, count, *, is_quick):
    make, damage = KINDS[kind]
    path, seen = make(folder), {"loaded": 0, "refused": 0}
    whole = (path / "config.json" if path.is_dir() else path).read_bytes()
    tf_movprune.load_compacted(path)

    @each_of(st.randoms(use_true_random=False), count, is_quick=is_quick)
    def is_loaded_or_refused(choose):
        damage(choose, path, whole)
        with in_little_memory():
            is_refused, _ = refused(lambda: tf_movprune.load_compacted(path), str(path))
        seen["refused" if is_refused else "loaded"] += 1

    print(seen)
    assert seen["refused"] and seen["loaded"]


@pytest.mark.parametrize("kind", KINDS)
def test_some_models(kind, tmp_path):
    fuzz(kind, tmp_path, 15, is_quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_models(kind, tmp_path):
    fuzz(kind, tmp_path, 120, is_quick=False)
