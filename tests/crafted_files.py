"""Compressed files whose bytes somebody made up."""

import hashlib
import json

import numpy as np
import tf_keras as keras
import zstandard
from exporting import arrays_of

import tf_movprune
from tf_movprune.export.compressed_files.container import FORMAT
from tf_movprune.export.compressed_files.streams import decode_stream, encode_stream


def network():
    """A model with scales along both axes, positions, and weights without either."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Embedding(7, 3, input_length=2),
        keras.layers.Flatten(),
        keras.layers.Dense(50),
        keras.layers.Dense(2, bias_initializer="normal"),
    ]
    model = keras.Sequential(layers)
    kernel = layers[2].kernel
    kernel.assign(kernel * (np.random.RandomState(0).uniform(size=kernel.shape) < 0.1))
    return model


class Parts:
    """The parts of a file, to change and put together again with a right checksum."""

    def __init__(self, path):
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        self.about = json.loads(header.pop("__metadata__")[FORMAT])
        start = end + header["table"]["shape"][0]
        coded, size = memoryview(data)[end:start], self.about["table"]
        self.table = json.loads(decode_stream(coded, np.dtype(np.uint8), size).tobytes())
        self.payload = data[start:]
        self.original_size = size
        self.header_changes = []

    @property
    def rows(self):
        return self.table["tensors"]

    def data(self):
        text = json.dumps(self.table).encode()
        coded = encode_stream(np.frombuffer(text, np.uint8))
        about = {**self.about}
        about.update({key: "0" * 64 for key in about if key == "checksum"})
        if type(about.get("table")) is int:
            about["table"] += len(text) - self.original_size
        ends = len(coded), len(coded) + len(self.payload)
        header = {
            "__metadata__": {FORMAT: json.dumps(about)},
            "table": {"dtype": "U8", "shape": [ends[0]], "data_offsets": [0, ends[0]]},
            "weights": {"dtype": "U8", "shape": [ends[1] - ends[0]], "data_offsets": list(ends)},
        }
        for change in self.header_changes:
            change(header)
        return with_checksum(json.dumps(header).encode(), coded + self.payload)

    def replace_payload(self, index, *streams, gaps=None):
        """Gives a weight other streams, and lets the table say so."""
        start = sum(sum(row["sizes"]) for row in self.rows[:index])
        row = self.rows[index]
        end = start + sum(row["sizes"])
        row["sizes"] = [len(stream) for stream in streams]
        row.pop("gaps", None)
        if gaps is not None:
            row["gaps"] = gaps
        self.payload = self.payload[:start] + b"".join(streams) + self.payload[end:]


def with_checksum(header, payload):
    data = len(header).to_bytes(8, "little") + header + payload
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(b"0" * 64, digest.encode(), 1)


def frame(data, **options):
    """A stream that is a Zstandard frame."""
    return b"\0" + zstandard.ZstdCompressor(**options).compress(bytes(data))


def are_equal(arrays, others):
    return all(map(np.array_equal, arrays, others))


def loader(model, path):
    """A function that loads bytes into a model, and returns its weights; None if it refuses.

    Args:
      model: model of the architecture that is in the bytes.
      path: file to write them to.
    """
    for weight in model.weights:
        weight.assign(weight * 0 - 5)
    before = arrays_of(model)

    def load(data):
        path.write_bytes(data)
        try:
            tf_movprune.load_compressed(path)
        except ValueError as error:
            assert str(path) in str(error)
        try:
            tf_movprune.load_compressed(path, model)
        except ValueError as error:
            assert str(path) in str(error)
            assert are_equal(arrays_of(model), before)
            return None
        found = arrays_of(model)
        model.set_weights(before)
        return found

    return load
