"""What the measurements of speed share. Needs NumPy only."""

from __future__ import annotations

import collections
import pathlib
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")
IN_A_ROW = 10  # calls to a measurement on a GPU, where only the last is waited for


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(functions: dict[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """The median seconds of each function, all of them called in turn in each round."""
    times = collections.defaultdict(list)
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: float(np.median(values)) for name, values in times.items()}


def draw_scores(random: np.random.RandomState, shape: tuple[int, int]) -> np.ndarray:
    """Scores as movement makes them: heavy-tailed, and of another scale in each column."""
    scores = 1e-3 * random.standard_t(4, shape) * random.uniform(0.2, 1, (1, shape[1]))
    return scores.astype(np.float32)


def draw(name: str, shape: Sequence[int], dtype: str, how: Sequence) -> np.ndarray:
    """Values that depend on the name and not on machine or order: `how` is a kind and its numbers.

    The kinds are `constant`, `integers` from and below, `normal` of a mean and a deviation, and
    `scores`.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind, *numbers = how
    if kind == "constant":
        return np.full(shape, *numbers, dtype)
    if kind == "integers":
        return random.randint(*numbers, shape).astype(dtype)
    if kind == "normal":
        return random.normal(*numbers, shape).astype(dtype)
    if kind == "scores":
        return draw_scores(random, shape)
    raise ValueError(f"Expected a known kind of values for {name!r}, got {kind!r}.")


class Table:
    """Rows of a measurement and its target."""

    def __init__(self):
        self.rows: list[dict] = []

    def add(
        self,
        what: str,
        measured: float,
        target: float | None = None,
        unit: str = "",
        at_least: bool = False,
    ):
        """`target` is the most that is good, or the least."""
        row = {
            "what": what,
            "measured": measured,
            "target": target,
            "unit": unit,
            "at_least": at_least,
        }
        self.rows.append(row)
        print(self.line(row), flush=True)

    @staticmethod
    def line(row: dict) -> str:
        sign = "≥" if row["at_least"] else "≤"
        target = "" if row["target"] is None else f"{sign} {row['target']:g}{row['unit']}"
        mark = " **missed**" if Table.is_missed(row) else ""
        return f"| {row['what']} | {target} | {row['measured']:.2f}{row['unit']}{mark} |"

    @staticmethod
    def is_missed(row: dict) -> bool:
        """To the two digits that are printed."""
        if row["target"] is None:
            return False
        measured = round(row["measured"], 2)
        return measured < row["target"] if row["at_least"] else measured > row["target"]

    def __str__(self) -> str:
        head = ["| what | target | measured |", "|---|---|---|"]
        return "\n".join(head + [self.line(row) for row in self.rows])

    def report(self, file: pathlib.Path, circumstances: str) -> None:
        """Prints the table and writes it into a file; says what is missed."""
        text = f"{self}\n\n{circumstances}\n"
        print("\n" + text)
        file.write_text(text)
        if self.missed:
            print("Missed: " + "; ".join(self.missed))

    @property
    def missed(self) -> list[str]:
        return [row["what"] for row in self.rows if self.is_missed(row)]
