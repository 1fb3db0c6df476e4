"""Containers whose bytes somebody made up."""

import json
import lzma
import os
import re
import tracemalloc

import numpy as np
import pytest
import tf_keras as keras
from crafted_files import Parts, are_equal, frame, loader, network, with_checksum
from exporting import arrays_of

import tf_movprune
from tf_movprune.export.compressed_files import container
from tf_movprune.export.compressed_files.container import FORMAT, MAX_TABLE

zstandard = pytest.importorskip("zstandard")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "x"
    tf_movprune.export_compressed(network(), path)
    return path


@pytest.fixture(scope="module")
def loading(tmp_path_factory):
    return loader(network(), tmp_path_factory.mktemp("crafted") / "crafted")


def test_numbers_of_layers_may_differ(written, loading):
    parts = Parts(written)
    for row in parts.rows:
        row["name"] = row["name"].replace("dense", "dense_8", 1)
    assert loading(parts.data()) is None  # `dense_8` and `dense_8_1` are different layers
    parts = Parts(written)
    for row in parts.rows:
        row["name"] = row["name"].replace("dense/", "dense_8/").replace("dense_1/", "dense_9/")
    assert are_equal(loading(parts.data()), loading(written.read_bytes()))


def test_names_that_come_to_one_are_not_mixed_up(tmp_path):
    def model(names):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [keras.layers.Dense(2, input_shape=(2,), use_bias=False, name=name) for name in names]
        )

    tf_movprune.export_compressed(model(["a", "a_7", "a_1_2"]), tmp_path / "x")
    with pytest.raises(ValueError, match="The weights in"):
        tf_movprune.load_compressed(tmp_path / "x", model(["a", "a_8", "a_1_2"]))


def with_rows(change):
    def crafted(parts):
        change(parts.rows)

    return crafted


def with_header(change):
    return lambda parts: parts.header_changes.append(change)


def like(index, other):
    """Says that a weight repeats another one that it cannot repeat."""

    def crafted(parts):
        parts.replace_payload(index)
        parts.rows[index].update(sizes=[0, 0, 0], same=other)

    return crafted


CRAFTED = {
    "a row twice": with_rows(lambda rows: rows.append(rows[0])),
    "a name twice": with_rows(lambda rows: rows[1].update(name=rows[0]["name"])),
    "a missing row": with_rows(lambda rows: rows.pop()),
    "a row like itself": like(1, 1),
    "a row like a later one": like(1, 3),
    "a row like none": like(1, 99),
    "a row like one of another shape": like(3, 1),
    "no rows": with_rows(lambda rows: rows.clear()),
    "an unknown dtype": with_rows(lambda rows: rows[0].update(dtype="float8")),
    "an object dtype": with_rows(lambda rows: rows[0].update(dtype="object", stored="object")),
    "an unknown key": with_rows(lambda rows: rows[0].update(extra=1)),
    "a missing key": with_rows(lambda rows: rows[0].pop("stored")),
    "true for one": with_rows(lambda rows: rows[0].update(axis=True)),
    "trailing bytes": lambda parts: setattr(parts, "payload", parts.payload + b"\0"),
    "a number of gaps": with_rows(lambda rows: rows[0].update(gaps=3)),
    "other format": lambda parts: parts.about.update(format="other"),
    "a version of text": lambda parts: parts.about.update(version="1"),
    "a table that is longer": lambda parts: parts.about.update(table=parts.about["table"] + 1),
    "a table that is negative": lambda parts: parts.about.update(table=-(10**6)),
    "a table that is too large": lambda parts: parts.about.update(table=10**12),
    "an unknown key of the file": lambda parts: parts.about.update(extra=1),
    "no model": lambda parts: parts.table.pop("model"),
    "a model without class": lambda parts: parts.table.update(model={"config": {}}),
    "an unknown key of the table": lambda parts: parts.table.update(extra=1),
    "a third vector": with_header(lambda header: header.update(more=header["table"])),
    "floats": with_header(lambda header: header["weights"].update(dtype="F32")),
    "a shape of bytes": with_header(lambda header: header["table"].update(shape=[1])),
    "a shape of none": with_header(lambda header: header["table"].update(shape=[])),
    "a shape of text": with_header(lambda header: header["table"].update(shape="x")),
    "a large table": with_header(lambda header: header["table"].update(shape=[10**12])),
    "overlap": with_header(lambda header: header["weights"].update(header["table"])),
    "more of metadata": with_header(lambda header: header["__metadata__"].update(x="y")),
}


@pytest.mark.parametrize("change", CRAFTED.values(), ids=CRAFTED)
def test_crafted_tables(change, written, tmp_path):
    parts = Parts(written)
    change(parts)
    (tmp_path / "x").write_bytes(parts.data())
    with pytest.raises(ValueError, match=r"x is damaged, or was not written by .* Expected .* got"):
        tf_movprune.load_compressed(tmp_path / "x")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{}",
        b'{"__metadata__": {"tf_movprune.compressed": 3}}',
        b'{"__metadata__": {"tf_movprune.compressed": "[]"}}',
        b'{"__metadata__": {"tf_movprune.compressed": "{\\"checksum\\": 1}"}}',
        b'{"__metadata__": {"tf_movprune.compressed": "{\\"checksum\\": \\"1\\"}"}}',
        json.dumps({"__metadata__": {FORMAT: "[" * 100_000}}).encode(),
        b'{"n": 1' + b"0" * 5000 + b"}",
    ],
    ids=lambda header: repr(header[:50]),
)
def test_headers_that_are_none(header, tmp_path):
    for data in (header, with_checksum(header, b""), with_checksum(header, b"\0" * 99)):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(ValueError, match="x has no checksum of export_compressed"):
            tf_movprune.load_compressed(tmp_path / "x")


def test_keys_that_occur_twice(written, tmp_path):
    data = Parts(written).data()
    for old, new in [
        (b'{\\"checksum', b'{\\"version\\": 1, \\"checksum'),
        (b'{"__metadata__', b'{"table": {}, "__metadata__'),
    ]:
        end = 8 + int.from_bytes(data[:8], "little")
        header = data[8:end].replace(old, new, 1)
        assert len(header) > end - 8
        (tmp_path / "x").write_bytes(with_checksum(header, data[end:]))
        with pytest.raises(ValueError, match="x has no checksum"):
            tf_movprune.load_compressed(tmp_path / "x")


def test_a_header_that_is_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "MAX_TABLE", 300)
    with pytest.raises(ValueError, match=r"4 weights .* take .* has 300 for them"):
        tf_movprune.export_compressed(network_of_four(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def of_twins(tmp_path_factory):
    path = tmp_path_factory.mktemp("twins") / "x"
    tf_movprune.export_compressed(twins(), path)
    return path


def twins():
    """Three layers with the same kernel, one of them with another bias."""
    layers = [keras.layers.Dense(40, name=name, input_shape=(40,)) for name in "abc"]
    model = keras.Sequential(layers)
    for layer in layers:
        layer.kernel.assign(np.random.RandomState(0).standard_normal([40, 40]))
    layers[2].bias.assign(np.arange(40))
    return model


def test_equal_weights_are_stored_once(of_twins):
    parts, arrays = Parts(of_twins), tf_movprune.load_compressed(of_twins)
    assert [row.get("same") for row in parts.rows] == [None, None, 0, 1, 0, None]
    assert [any(row["sizes"]) for row in parts.rows] == [True, True, False, False, False, True]
    for found, array in zip(arrays.values(), arrays_of(twins())):
        assert np.abs(found - array).max() < 0.02
    assert np.array_equal(arrays["a/kernel"], arrays["c/kernel"])
    assert arrays["a/kernel"] is not arrays["c/kernel"]
    other = keras.models.clone_model(twins())
    tf_movprune.load_compressed(of_twins, other)
    assert are_equal(arrays_of(other), arrays.values())


def test_a_weight_is_not_like_one_that_is_like_another(of_twins, tmp_path):
    parts = Parts(of_twins)
    parts.rows[4]["same"] = 2
    (tmp_path / "x").write_bytes(parts.data())
    with pytest.raises(ValueError, match="Expected 'c/kernel' like an earlier weight, got Entry"):
        tf_movprune.load_compressed(tmp_path / "x")


def network_of_four():
    layers = [keras.layers.Dense(3, input_shape=(2,)), keras.layers.Dense(2)]
    return keras.Sequential(layers)


# ---- memory


def peak_of(function):
    """Bytes that a function that raises ValueError takes at most."""
    tracemalloc.start()  # sees nothing of what was there before
    try:
        with pytest.raises(ValueError) as error:
            function()
        return tracemalloc.get_traced_memory()[1], str(error.value)
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb():
    """A frame of 8 MB of zeros that is as small as those of a small weight."""
    return frame(bytes(8_000_000))


def bombs(bomb):
    empty, small = frame(b""), frame(bytes(200))
    yield "values", lambda parts: parts.replace_payload(1, b"", frame(bytes(200)), bomb)
    yield "scales", lambda parts: parts.replace_payload(1, b"", bomb, frame(bytes(300)))
    yield "positions", lambda parts: parts.replace_payload(1, bomb, small, empty, gaps=300)
    long_positions = frame(b"\xff" * 1_000_000)
    yield "zeros", lambda parts: parts.replace_payload(1, long_positions, small, empty, gaps=300)
    yield "many", lambda parts: parts.replace_payload(1, bomb, small, empty, gaps=8_000_000)
    unstated = frame(bytes(8_000_000), write_content_size=False)
    yield "not stated", lambda parts: parts.replace_payload(1, b"", small, unstated)
    lying = bytearray(bomb)
    lying[7:11] = (300).to_bytes(4, "little")  # the size of the content that the frame states
    assert zstandard.frame_content_size(bytes(lying[1:])) == 300
    yield "lying", lambda parts: parts.replace_payload(1, b"", small, bytes(lying))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    long = b"\1" + lzma.compress(bytes(400_000), lzma.FORMAT_RAW, filters=filters)
    yield "LZMA", lambda parts: parts.replace_payload(1, b"", small, long)


def test_bombs_take_no_memory(bomb, written, tmp_path):
    path, model = tmp_path / "x", network()
    for name, change in bombs(bomb):
        parts = Parts(written)
        assert parts.rows[1]["shape"] == [6, 50]
        change(parts)
        path.write_bytes(parts.data())
        for arguments in ((path,), (path, model)):
            peak, message = peak_of(lambda a=arguments: tf_movprune.load_compressed(*a))
            assert peak < 2_000_000, name
            assert re.search("frame|decompresses to|a number of gaps", message)


def test_shapes_are_compared_before_anything_is_decoded(written, tmp_path, monkeypatch):
    parts = Parts(written)
    parts.rows[1]["shape"] = [2**20, 2**20]
    parts.rows[1]["axis"] = 1
    parts.replace_payload(1, frame(b""), frame(bytes(2**22)), frame(b""), gaps=0)
    path = tmp_path / "x"
    path.write_bytes(parts.data())
    peak, message = peak_of(lambda: tf_movprune.load_compressed(path, network()))
    assert peak < 2_000_000
    assert "(6, 50), in the file (1048576, 1048576)" in message

    def decode(*args):
        raise MemoryError

    monkeypatch.setattr(container, "decode", decode)
    with pytest.raises(ValueError, match="x has weights that this machine has no memory for"):
        tf_movprune.load_compressed(path)


def test_long_files_and_headers_are_not_read(written, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(written.read_bytes())
    os.truncate(path, 10**12)
    peak, message = peak_of(lambda: tf_movprune.load_compressed(path))
    assert peak < 2_000_000 and "Expected weights as" in message
    path.write_bytes((10**11).to_bytes(8, "little"))
    os.truncate(path, 10**12)
    peak, message = peak_of(lambda: tf_movprune.load_compressed(path))
    assert peak < 2_000_000 and "no checksum" in message
    nested = b"[" + b"[],[]," * (MAX_TABLE // 6 - 2) + b"[]]"
    path.write_bytes(with_checksum(nested, b""))
    peak, message = peak_of(lambda: tf_movprune.load_compressed(path))
    assert peak < 200_000_000 and "no checksum" in message


@pytest.mark.parametrize("density", [0.001, 0.9, 1])
@pytest.mark.parametrize("quantization", ["int8", "float16", None])
def test_memory_is_in_proportion_to_the_weights(quantization, density, tmp_path):
    model = keras.Sequential([keras.layers.Dense(1000, input_shape=(1000,), use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.random.RandomState(0).uniform(size=kernel.shape) < density))
    tf_movprune.export_compressed(model, tmp_path / "x", quantization=quantization)
    tracemalloc.start()
    try:
        arrays = tf_movprune.load_compressed(tmp_path / "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (array,) = arrays.values()
    assert array.nbytes == 4_000_000
    assert peak < 4 * array.nbytes + 3_000_000
