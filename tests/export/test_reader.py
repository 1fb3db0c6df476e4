"""Reading compressed files where TensorFlow, Keras and safetensors cannot be imported."""

import json
import os
import subprocess
import sys
import threading

import keras as keras_3
import numpy as np
import pytest
import tf_keras as keras
from exporting import compressed_files, network

import tf_movprune
from tf_movprune.export import reader

pytest.importorskip("zstandard")

BLOCKED = ("tensorflow", "keras", "tf_keras", "safetensors", "transformers")

PROGRAM = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
from tf_movprune.export import reader
{body}
assert not set({blocked}) & set(sys.modules)
"""

READ = """
import numpy as np
for path in sys.argv[1:]:
    with reader.read(path) as weights:
        np.savez(path + ".npz", **{str(i): value for i, value in enumerate(weights.values())})
        print(json.dumps([[name, str(weights[name].dtype)] for name in weights]))
"""


def run(body, *arguments):
    code = PROGRAM.format(blocked=BLOCKED, body=body)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def words():
    """A layer of strings, one of integers, and weights of other types."""
    x = keras_3.Input([1], dtype="string")
    lookup = keras_3.layers.StringLookup(name="words")
    lookup.adapt(np.array(["ä", "ä", "ä", "b c", "b c", "d"]))
    numbers = keras_3.layers.IntegerLookup(name="numbers")
    numbers.adapt(np.array([7, 7, -3]))
    y = keras_3.layers.Embedding(9, 4, name="table")(lookup(x) + numbers(lookup(x)))
    dense = keras_3.layers.Dense(3, name="half", dtype="bfloat16")
    return keras_3.Model(x, dense(keras_3.layers.Flatten()(y)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = compressed_files(network(), folder)
    paths.append(folder / "words.movprune")
    tf_movprune.export_compressed(words(), paths[-1])
    return paths


def test_arrays_are_those_of_load_compressed_without_tensorflow(files):
    for path, listed in zip(files, run(READ, *files), strict=True):
        expected = tf_movprune.load_compressed(path)
        assert [name for name, _ in listed] == list(expected)
        with np.load(f"{path}.npz") as found:
            for i, ((_, dtype), array) in enumerate(zip(listed, expected.values(), strict=True)):
                assert dtype == str(array.dtype) and found[str(i)].shape == array.shape
                assert found[str(i)].tobytes() == array.tobytes()


def test_a_listing_decodes_nothing(files, monkeypatch):
    def decode(*args):
        raise AssertionError

    monkeypatch.setattr("tf_movprune.export.compressed_files.container.decode", decode)
    with reader.read(files[0]) as weights:
        shapes = [weight.shape.as_list() for weight in network().weights]
        assert [list(entry.shape) for entry in weights.entries.values()] == shapes
        assert list(weights.entries) == list(weights) and len(weights) == len(shapes)
        assert {entry.dtype for entry in weights.entries.values()} == {"float32"}
        assert next(iter(weights)) in weights and "nothing" not in weights and 3 not in weights
        assert repr(weights) == f"<{len(shapes)} weights in {str(files[0])!r}>"
        assert weights.model is None and weights.vocabularies == []
        with pytest.raises(KeyError):
            weights["nothing"]
        with pytest.raises(TypeError):
            weights.entries["new"] = None


def test_vocabularies(files):
    with reader.read(files[-1]) as weights:
        assert sorted(weights.vocabularies) == ["numbers", "words"]
        assert weights.vocabulary("words") == ["ä", "b c", "d"]
        assert weights.vocabulary("numbers") == [7, -3]
        with pytest.raises(KeyError):
            weights.vocabulary("table")


def test_what_is_no_vocabulary_is_refused(tmp_path):
    layer = keras.layers.Layer(name="odd")
    layer.add_weight("odd/vocabulary", [3], "uint8", initializer="ones")
    model = keras.Sequential([layer])
    model.build([None, 3])
    tf_movprune.export_compressed(model, tmp_path / "x")
    with reader.read(tmp_path / "x") as weights:
        (name,) = weights.vocabularies
        with pytest.raises(ValueError, match=r"Expected the vocabulary of .*odd.* list of strings"):
            weights.vocabulary(name)


def test_the_description_of_a_hugging_face_model(tmp_path):
    pytest.importorskip("transformers")
    from berts import stripped_bert

    tf_movprune.export_compressed(stripped_bert(num_labels=3), tmp_path / "x")
    with reader.read(tmp_path / "x") as weights:
        assert weights.model["class"] == "TFBertForSequenceClassification"
        assert weights.model["config"]["hidden_size"] == 32


def test_damaged_files_are_refused_and_closed(files, tmp_path):
    whole, path = files[0].read_bytes(), tmp_path / "x"
    for place in [*range(0, len(whole), 61), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"checksum|damaged|is of version"):
            reader.read(path)
    with pytest.raises(FileNotFoundError):
        reader.read(tmp_path / "nothing")
    weights = reader.read(files[0])
    weights.close()
    with pytest.raises(ValueError, match=r"int8\.movprune is closed\. Take weights out of it"):
        weights[next(iter(weights))]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that share a file")
def test_processes_share_a_file(tmp_path):
    """They also share the position in it."""
    random = np.random.RandomState(0)
    model = keras.Sequential([keras.layers.Dense(60, use_bias=False) for _ in range(8)])
    model.build([None, 60])
    model.set_weights([random.normal(size=[60, 60]) for _ in range(8)])
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=None)
    program = """
import os, sys
from tf_movprune.export import reader
with reader.read(sys.argv[1]) as weights:
    expected, names = dict(weights), list(weights)
    children = []
    for child in range(4):
        if pid := os.fork():
            children.append(pid)
            continue
        try:
            for i in range(50):
                name = names[(3 * i + child) % len(names)]
                if (weights[name] != expected[name]).any():
                    os._exit(1)
            os._exit(0)
        except BaseException:
            os._exit(2)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], check=True)


def test_threads_share_a_file(files):
    with reader.read(files[2]) as weights:
        expected, wrong = dict(weights), []

        def decode():
            for _ in range(5):
                for name, array in expected.items():
                    if not np.array_equal(weights[name], array):
                        wrong.append(name)

        threads = [threading.Thread(target=decode) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
