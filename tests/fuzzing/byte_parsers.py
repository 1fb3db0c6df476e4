"""Feeds the two parsers of bytes with inputs that reach more and more of their code, by atheris.

    python -m fuzzing.byte_parsers compressed -runs=20000 -seed=1    # with tests/ in PYTHONPATH
    python -m fuzzing.byte_parsers pickle CRASH_FILE                 # tries one input again

Everything but ValueError ends it, and leaves the input in a file. libFuzzer's options follow the
name of the parser.
"""

import contextlib
import io
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["tf_movprune.export", "tf_movprune.pytorch"]):
    from tf_movprune.export.compressed_files.decoding import decode
    from tf_movprune.export.compressed_files.table import entry_of, parse_json
    from tf_movprune.pytorch.bin_files import read_bin
    from tf_movprune.pytorch.pickles import read_pickle

MOST_ELEMENTS = 2**16


def compressed(data):
    """A row of a table up to a zero byte, and the streams of its weight."""
    row, _, streams = data.partition(b"\0")
    entry = entry_of(parse_json(row.decode()))
    if entry.elements <= MOST_ELEMENTS and entry.same is None:
        assert decode(entry, streams).shape == entry.shape


def pickle(data):
    read_pickle(io.BytesIO(data))


def bin_file(data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for tensor in read_bin(file.name).values():
            assert tensor.array().shape == tensor.shape


PARSERS = {"compressed": compressed, "pickle": pickle, "bin_file": bin_file}


def main():
    parse = PARSERS[sys.argv.pop(1)]

    def try_one(data):
        with contextlib.suppress(ValueError):
            parse(data)

    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
