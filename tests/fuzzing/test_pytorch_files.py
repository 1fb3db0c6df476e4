"""Damaged and crafted checkpoints of PyTorch are read as what they say, or refused."""

import json

import numpy as np
import pytest
import pytorch_checkpoints as checkpoints
from fuzzing.damage import damaged, damaged_json, memory_of_at_most, refused
from fuzzing.profiles import each_of
from hypothesis import strategies as st

import tf_movprune
from tf_movprune.pytorch.checkpoint import read_checkpoint
from tf_movprune.pytorch.weight_files import read_weights

MOST_BYTES = 2**23  # some times the size of the files, with what errors say of them
CHOICES = st.randoms(use_true_random=False)
LAYERS = [f"bert.encoder.layer.0.{name}" for name in ("attention.self.query", "output.dense")]


def crafted_safetensors(choose, data):
    """A file whose header says something else."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = damaged_json(choose, json.loads(data[8:end]), ["dtype", "shape", "data_offsets"])
    return len(header).to_bytes(8, "little") + header + data[end:]


KINDS = {
    "archive": ("bert_texts/pytorch_model-00001-of-00002.bin", damaged),
    "before 1.6": ("bert_without_heads/pytorch_model.bin", damaged),
    "safetensors": ("bert_questions/model.safetensors", damaged),
    "header of safetensors": ("bert_questions/model.safetensors", crafted_safetensors),
}


def files(kind, folder, count, *, is_quick):
    name, change = KINDS[kind]
    source, seen = checkpoints.CHECKPOINTS / name, {"read": 0, "refused": 0}
    whole, path = source.read_bytes(), folder / source.name

    def read():
        return {name: tensor.array() for name, tensor in read_weights(path).items()}

    path.write_bytes(whole)
    right = read()

    @each_of(CHOICES, count, is_quick=is_quick)
    def is_read_or_refused(choose):
        path.write_bytes(change(choose, whole))
        with memory_of_at_most(MOST_BYTES):
            is_refused, found = refused(read, str(path))
        seen["refused" if is_refused else "read"] += 1
        if is_refused:
            return
        assert all(isinstance(array, np.ndarray) for array in found.values())
        if kind == "archive":  # which has a checksum of each part
            assert found.keys() == right.keys()
            for tensor, array in found.items():
                np.testing.assert_array_equal(array, right[tensor])

    print(seen)
    assert seen["refused"]


def folder_of_a_checkpoint(folder):
    """A checkpoint with scores of blocks, of rows and of columns, and what says what they mean."""
    random = np.random.RandomState(0)
    arrays = checkpoints.weights("bert_questions")
    arrays = {name: array for name, array in arrays.items() if "layer.1" not in name}
    scores = "mask_module.context_modules"
    layers = [name.removesuffix(".weight") for name in arrays if ".layer.0." in name]
    for layer in (name for name in layers if not name.endswith(("bias", "LayerNorm"))):
        shape = arrays[f"{layer}.weight"].shape
        arrays[f"{layer}.{scores}.0.mask_scores"] = random.normal(size=shape[0]).astype("float32")
        arrays[f"{layer}.{scores}.1.mask_scores"] = random.normal(size=shape[1]).astype("float32")
    config = {**checkpoints.config("bert_questions"), "num_hidden_layers": 1}
    said = {
        "attention_pruning_method": "topK:1d",
        "dense_pruning_method": "sigmoied_threshold:1d",
        "final_threshold": 0.4,
        "linear_min_parameters": 0.005,
        "bias_mask": True,
        "gelu_patch": True,
        "attention_output_with_dense": 1,
    }
    checkpoints.write(folder, arrays, config)
    (folder / "sparse_args.json").write_text(json.dumps(said))
    return arrays, config, said


def folders(folder, count, *, is_quick, is_whole):
    """Changes a configuration, what is said of masks, or scores.

    Args:
      is_whole: whether to make models of the checkpoints, too.
    """
    arrays, config, said = folder_of_a_checkpoint(folder)
    seen = {"read": 0, "refused": 0}

    def read():
        if is_whole:
            return tf_movprune.load_pytorch(folder)
        found = read_checkpoint(folder)
        return {name: found.array(name) for name in found.tensors}

    read()

    @each_of(CHOICES, count, is_quick=is_quick)
    def is_read_or_refused(choose):
        kind, changed = choose.randrange(3), dict(arrays)
        keys = ("pruned_heads", "num_attention_heads", "architectures", "model_type")
        if kind == 2:
            name = choose.choice([name for name in arrays if "mask_scores" in name])
            value = changed.pop(name)
            name = choose.choice(
                [name, name.replace(".0.mask", ".mask"), f"{LAYERS[1]}.mask_scores"]
            )
            shape = choose.choice([(), (0,), (1,), (8,), (2, 2), (16, 8), (1, 1, 1), value.shape])
            number = choose.choice([0.0, np.nan, np.inf, 1e38, -1e38])
            dtype = choose.choice(["float32", "float16", "int64", "bool", "uint8"])
            with np.errstate(all="ignore"):
                changed[name] = np.full(shape, number).astype(dtype)
        checkpoints.write(folder, changed, config)
        if kind == 0:
            (folder / "config.json").write_bytes(damaged_json(choose, config, keys))
        text = damaged_json(choose, said, [*said]) if kind == 1 else json.dumps(said).encode()
        (folder / "sparse_args.json").write_bytes(text)
        is_refused, _ = refused(read, str(folder), *NAMED)
        seen["refused" if is_refused else "read"] += 1

    print(seen)
    assert seen["refused"] and seen["read"]


NAMED = (
    *("config.json", "sparse_args.json", "pruned_heads", "The checkpoint", "The pruning method"),
    *("The scores of", "The weights in", "threshold must be", "transformers 4"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_some_files(kind, tmp_path):
    files(kind, tmp_path, 30, is_quick=True)


def test_some_folders(tmp_path):
    folders(tmp_path, 30, is_quick=True, is_whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_files(kind, tmp_path):
    files(kind, tmp_path, 600, is_quick=False)


@pytest.mark.slow
@pytest.mark.parametrize("is_whole", [False, True])
def test_many_folders(is_whole, tmp_path):
    folders(tmp_path, 100 if is_whole else 400, is_quick=False, is_whole=is_whole)
