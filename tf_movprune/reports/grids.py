"""Pictures of layers: shares by matrix and by head, and neurons, with numbers in the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tf_movprune.core.matrix_places import MATRIX_TITLES
from tf_movprune.reports.drawing import (
    ACCENT,
    CELL,
    GRID,
    INK,
    MUTED,
    ON_CELL,
    new_figure,
    shortened,
    titled,
    to_svg,
)
from tf_movprune.reports.formats import percent

_STRONG = 0.7  # opacity of a cell above which its number has the other colour
_MOST_ROWS = 40
_SHORT = {
    "attention output": "attention\noutput",
    "intermediate": "inter-\nmediate",
}


def by_matrix(matrices: Sequence[Mapping[str, Any]], key: str, most: float | None) -> str | None:
    """A share of each matrix, by layer and matrix; by path if the architecture is not known.

    Args:
      matrices: entries of `pruning.json`.
      key: "remaining", whose share of the total is drawn, or "agreement".
      most: the share that has the full colour; the highest one if None.
    """
    shares = [(m, share) for m in matrices if (share := _share(m, key)) is not None]
    if not shares:
        return None
    what = "Share of weights that remain" if key == "remaining" else "Agreement with magnitude"
    if any(m.get("layer") is None for m, _ in shares):
        named = [(str(m.get("title") or m.get("path")), share) for m, share in shares]
        return _bars(named, f"{what}, by matrix.")
    sums: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for m, share in shares:
        sums.setdefault((int(m["layer"]), m["title"]), []).append((share, m.get("total") or 1))
    cells = {
        place: float(np.average([s for s, _ in found], weights=[w for _, w in found]))
        for place, found in sums.items()
    }
    titles = [*dict.fromkeys(title for _, title in cells)]
    order = {title: i for i, title in enumerate(MATRIX_TITLES)}
    titles.sort(key=lambda title: (title not in order, order.get(title, 0)))
    rows = sorted({layer for layer, _ in cells})
    names = [_SHORT.get(title, title.replace(" ", "\n")) for title in titles]
    values = [[cells.get((layer, title)) for title in titles] for layer in rows]
    return _grid(values, rows, names, most, f"{what}, by layer and matrix.")


def by_head(heads: Sequence[Mapping[str, Any]]) -> str | None:
    """What remains of each head, by layer; None if nothing is known of heads."""
    rows = [head for head in heads if head.get("remaining")]
    if not rows:
        return None
    width = max(len(row["remaining"]) for row in rows)
    if width > 24:
        return None
    values = [[*row["remaining"], *[None] * (width - len(row["remaining"]))] for row in rows]
    names = [str(i) for i in range(width)]
    layers = [_layer(row, i) for i, row in enumerate(rows)]
    is_whole = all(value in (0, 1, None) for row in values for value in row)
    text = "Heads that remain, by layer." if is_whole else "Share of each head that remains."
    return _grid(values, layers, names, 1.0 if is_whole else None, text, is_whole=is_whole)


def by_neurons(neurons: Sequence[Mapping[str, Any]]) -> str | None:
    """The share of neurons between the dense layers of each layer that remain."""
    rows = [n for n in neurons if n.get("total")]
    if not rows:
        return None
    named = [
        (
            f"{_layer(n, i)}",
            n["kept"] / n["total"],
            f"{n['kept']:,.0f} of {n['total']:,.0f}",
        )
        for i, n in enumerate(rows)
    ]
    return _bars(named, "Share of neurons that remain, by layer.", label="layer")


def _layer(row: Mapping[str, Any], position: int) -> int:
    """The layer of a row, or its position if that is not known."""
    return position if row.get("layer") is None else int(row["layer"])


def _share(matrix: Mapping[str, Any], key: str) -> float | None:
    if key == "agreement":
        return matrix.get(key)
    return matrix["remaining"] / matrix["total"] if matrix.get("total") else None


def _grid(
    values: Sequence[Sequence[float | None]],
    rows: Sequence[int],
    columns: Sequence[str],
    most: float | None,
    description: str,
    *,
    is_whole: bool = False,
) -> str:
    known = [value for row in values for value in row if value is not None]
    most = most or max(*known, 2 * sum(known) / len(known), 1e-9)
    height = 22 if len(rows) <= 16 else 18
    figure = new_figure(height * len(rows) + 48)
    axes = figure.subplots()
    size = 11 if len(columns) <= 8 else 10.5 if len(columns) <= 12 else 8
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value is not None:
                opacity = 0.07 + 0.93 * min(value / most, 1.0)
                _cell(axes, x, y, opacity)
                color = ON_CELL if opacity > _STRONG else INK
                text = "" if is_whole else _number(value, len(columns))
                axes.text(x, y, text, ha="center", va="center", color=color, fontsize=size)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, linespacing=0.95, fontsize=10)
    axes.set_yticks(range(len(rows)), [str(row) for row in rows])
    axes.tick_params(length=0, pad=3)
    axes.xaxis.tick_top()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("layer")
    return to_svg(figure, description)


def _number(value: float, columns: int) -> str:
    digits = 1 if columns <= 8 and value < 0.9995 else 0
    return f"{100 * value:.{digits}f}"


def _cell(axes: Axes, x: int, y: int, opacity: float) -> None:
    axes.add_patch(
        Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=CELL, alpha=opacity, linewidth=0)
    )


def _bars(named: Sequence[tuple[Any, ...]], description: str, label: str = "") -> str:
    rows = named[:_MOST_ROWS]
    figure = new_figure(21 * len(rows) + (34 if label else 22))
    axes = figure.subplots()
    for y, (_, share, *text) in enumerate(rows):
        axes.barh(y, 1, height=0.7, color=GRID, alpha=0.45, linewidth=0)
        axes.barh(y, share, height=0.7, color=ACCENT, linewidth=0)
        shown = f"{percent(share)}  ({text[0]})" if text else percent(share)
        axes.annotate(
            shown, (1, y), (5, 0), textcoords="offset points", va="center", fontsize=10.5, color=INK
        )
    names = [shortened(str(name), 26) for name, *_ in rows]
    axes.set_yticks(range(len(rows)), names, color=MUTED)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if label:
        titled(axes, label)
    return to_svg(figure, description)
