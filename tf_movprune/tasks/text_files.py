"""Text files of tables and of records, with errors that name file and line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from tf_movprune.tasks.examples import listed


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes:
      path: the file, or the name of a data set.
      columns: names of the columns.
      rows: the fields of each row; in tables of CSV and TSV they are strings.
      lines: number of the line that each row ends at, from 1.
      remedy: hint for who looks for a column that is not there.
    """

    path: pathlib.Path | str
    columns: list[str]
    rows: Sequence[Sequence[Any]]
    lines: Sequence[int]
    remedy: str = ""

    def column(self, *names: str) -> list[Any]:
        """The fields of the first of these columns that the table has.

        Raises:
          ValueError: the table has none of them.
        """
        for name in names:
            if name in self.columns:
                index = self.columns.index(name)
                return [row[index] for row in self.rows]
        raise ValueError(
            f"{self.path} has no column {' or '.join(map(repr, names))}. Its columns are "
            f"{listed([repr(name) for name in self.columns], 20)}.{self.remedy}"
        )

    def select(self, indices: Sequence[int]) -> Table:
        """The rows of these indices."""
        rows, lines = [self.rows[i] for i in indices], [self.lines[i] for i in indices]
        return dataclasses.replace(self, rows=rows, lines=lines)

    def place(self, row: int) -> str:
        """The file and line of a row, for a message."""
        return f"{self.path}, line {self.lines[row]}"


def read_text(path: pathlib.Path) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises:
      ValueError: the file is empty, is not UTF-8, or has a NUL in it.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: expected UTF-8, got the byte 0x{data[error.start]:02x} after "
            f"{error.start} bytes. Convert the file, for example with `iconv -t UTF-8`."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}, line {line}: expected text, got a NUL character. The file is damaged or "
            "not a text file: get it again."
        )
    if not text.strip():
        raise ValueError(f"{path} is empty: it has {len(data)} bytes. Get it again.")
    return text


def read_tsv(
    path: pathlib.Path,
    columns: Sequence[str] | None = None,
    *,
    skip_incomplete: bool = False,
) -> tuple[Table, int]:
    """A table of tab-separated values, in which quotes are characters like any others.

    Args:
      path: the file.
      columns: names of the columns of a file without a header line; None reads the header.
      skip_incomplete: whether rows with another number of fields are left out.

    Returns:
      The table, and the number of rows that were left out.

    Raises:
      ValueError: a row has another number of fields, or the text is no text.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    start = 0
    if columns is None:
        columns, start = lines[0].split("\t"), 1
    rows: list[Sequence[str]] = []
    numbers, skipped = [], 0
    for number, line in enumerate(lines[start:], start + 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) == len(columns):
            rows.append(fields)
            numbers.append(number)
        elif skip_incomplete:
            skipped += 1
        else:
            raise _wrong_fields(path, number, columns, fields, "tabs")
    return Table(path, list(columns), rows, numbers, _other_format(columns, "tabs")), skipped


def read_csv(path: pathlib.Path) -> Table:
    """A table of comma-separated values with a header line; fields may be in quotes.

    Raises:
      ValueError: a row has another number of fields, a quote is never closed, or the text is no
        text.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    csv.field_size_limit(2**31 - 1)
    columns: list[str] = []
    rows: list[Sequence[str]] = []
    lines = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not columns:
                columns = fields
            elif len(fields) == len(columns):
                rows.append(fields)
                lines.append(reader.line_num)
            else:
                raise _wrong_fields(path, reader.line_num, columns, fields, "commas")
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: expected comma-separated values, got: {error}. "
            'Quote fields that contain commas, and double the quotes inside of them ("").'
            f"{_other_format(columns or text.splitlines()[:1], 'commas')}"
        ) from None
    return Table(path, columns, rows, lines, _other_format(columns, "commas"))


def read_json_lines(path: pathlib.Path) -> Table:
    """A table of JSON objects, one a line, which all have the keys of the first.

    Raises:
      ValueError: a line is no JSON object, or has other keys.
    """
    columns: list[str] = []
    rows: list[Sequence[Any]] = []
    lines = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, column {error.colno}: expected a JSON object, got "
                f"{_start(line)}: {error.msg}. Write one complete object a line."
            ) from None
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}, line {number}: expected a JSON object, got {_start(line)}. Write "
                '{"text": ..., "label": ...} on each line.'
            )
        columns = columns or list(record)
        missing = [name for name in columns if name not in record]
        if missing:
            raise ValueError(
                f"{path}, line {number}: expected the keys {listed(columns)} of the first line, "
                f"got {listed(list(record))}. Add {listed(missing)}."
            )
        rows.append([record[name] for name in columns])
        lines.append(number)
    return Table(path, columns, rows, lines)


def read_json(path: pathlib.Path) -> Any:
    """The value that a JSON file holds.

    Raises:
      ValueError: the file is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}, column {error.colno}: expected JSON, got "
            f"{_start(text[error.pos :])}: {error.msg}. If the file was cut off, get it again."
        ) from None


def _wrong_fields(
    path: pathlib.Path, line: int, columns: Sequence[str], fields: Sequence[str], separator: str
) -> ValueError:
    return ValueError(
        f"{path}, line {line}: expected {len(columns)} fields ({listed(columns, 16)}) separated "
        f"by {separator}, got {len(fields)}: {_start(' | '.join(fields))}. Correct or remove the "
        f"line.{_other_format(columns, separator)}"
    )


_SEPARATORS = {
    "tabs": ("\t", "Name it .tsv, or convert it."),
    "semicolons": (";", "Save it with commas, as spreadsheet programs do on request."),
    "commas": (",", "Name it .csv, or convert it."),
}


def _other_format(columns: Sequence[str], expected: str) -> str:
    """A hint for a header of one column that has other separators than those of its format."""
    if len(columns) != 1:  # names of several columns may have other separators in them
        return ""
    for name, (separator, remedy) in _SEPARATORS.items():
        if separator in columns[0] and name != expected:
            return f" Its header has {name}, where {expected} should be. {remedy}"
    return ""


def _start(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[:most] + "…")
