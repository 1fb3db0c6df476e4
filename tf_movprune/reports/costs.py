"""Pictures of what a model costs: sizes by part and format, and the trade for accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tf_movprune.reports.curves import PERCENTS
from tf_movprune.reports.drawing import (
    MUTED,
    SERIES,
    line_style,
    new_figure,
    shortened,
    titled,
    to_svg,
)
from tf_movprune.reports.formats import as_fraction, byte_count, is_in_percent, metric_name
from tf_movprune.reports.runs import Run

_PARTS = ("embeddings", "layers", "other")
_LABEL = 10.5  # size of text


def size_name(size: Mapping[str, Any]) -> str:
    """A format with its type of values, such as `"TFLite, int8"`."""
    return ", ".join(str(size[k]) for k in ("format", "quantization") if size.get(k)) or "unnamed"


def sizes(run: Run) -> str | None:
    """Bars of the bytes of each format, split by part of the model; None if none is known."""
    rows = run.sizes
    if not rows:
        return None
    largest = max(size["bytes"] for size in rows)
    figure = new_figure(34 * len(rows) + 30)
    axes = figure.subplots()
    for y, size in enumerate(rows):
        parts = size.get("parts") or {}
        parts = {name: parts[name] for name in _PARTS if parts.get(name)} or {"": size["bytes"]}
        left = 0.0
        for name, count in parts.items():
            color = SERIES[_PARTS.index(name)] if name else MUTED
            axes.barh(y + 0.14, count, left=left, height=0.42, color=color, linewidth=0)
            left += count
        text = byte_count(size["bytes"])
        if size.get("gzip_bytes"):
            text += f", gzip {byte_count(size['gzip_bytes'])}"
        axes.text(0, y - 0.32, shortened(size_name(size), 28), va="center", fontsize=10.5)
        axes.text(largest, y - 0.32, text, va="center", ha="right", fontsize=10.5, color=MUTED)
    axes.set_xlim(0, largest)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if any(size.get("parts") for size in rows):
        for i, name in enumerate(_PARTS):
            axes.annotate(
                name,
                (0.34 * i, 1),
                (0, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                color=SERIES[i],
                fontsize=10.5,
                fontweight="bold",
            )
    return to_svg(figure, "Bytes of the model by format and part.")


def trade(runs: Sequence[Run], labels: Sequence[str], kind: str) -> str | None:
    """The main metric of each run against its size or latency.

    Args:
      runs: several runs.
      labels: a label for each.
      kind: "sizes" or "latency".

    Returns:
      The picture; None unless two runs have a result, and a format in common.
    """
    key = "bytes" if kind == "sizes" else "milliseconds"
    entries = [run.sizes if kind == "sizes" else run.info.get("latency") or () for run in runs]
    costs = [{size_name(e): e[key] for e in found if e.get(key)} for found in entries]
    known = [i for i, run in enumerate(runs) if costs[i] and run.result is not None]
    names = {runs[i].main_metric for i in known}
    common = set.intersection(*(set(costs[i]) for i in known)) if known else set()
    if len(known) < 2 or not common or len(names) > 1:
        return None
    name = min(sorted(common), key=lambda name: sum(costs[i][name] for i in known))
    metric = runs[known[0]].main_metric or ""
    figure = new_figure(230)
    axes = figure.subplots()
    points = []
    for i in known:
        value = runs[i].result or 0.0
        points.append((costs[i][name], as_fraction(value) if is_in_percent(metric) else value))
        axes.plot(*points[-1], "o", color=line_style(i)["color"], markersize=8)
    axes.set_xlim(0, 1.12 * max(x for x, _ in points))
    axes.margins(y=0.25)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if is_in_percent(metric):
        axes.yaxis.set_major_formatter(PERCENTS)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if kind == "sizes":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: byte_count(v) if v else "0"))
    unit = "size as" if kind == "sizes" else "milliseconds,"
    axes.set_xlabel(f"{unit} {shortened(name)}")
    titled(axes, metric_name(metric))
    figure.draw_without_rendering()
    _label_points(
        axes, points, [shortened(labels[i]) for i in known], [line_style(i)["color"] for i in known]
    )
    what = "size" if kind == "sizes" else "latency"
    return to_svg(figure, f"{metric_name(metric)} of each run against its {what}.")


def _label_points(
    axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str], colors: Sequence[str]
) -> None:
    """Writes a label beside each point, where it is on no other label or point if possible."""
    places = axes.transData.transform(points) * 72 / axes.figure.dpi
    right = axes.bbox.x1 * 72 / axes.figure.dpi
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (x, y), point, label, color in zip(places, points, labels, colors):
        width = 0.6 * _LABEL * len(label)
        offsets = [(side, up) for up in (0, 8, -8, 15, -15, 24, -24) for side in (8, -8 - width)]
        boxes = {
            offset: _Box(x + offset[0], y + offset[1] - 5, x + offset[0] + width, y + offset[1] + 6)
            for offset in offsets
        }
        free = [
            offset
            for offset, box in boxes.items()
            if box.right <= right and box.left >= 0 and not any(map(box.overlaps, taken))
        ]
        offset = (free or offsets)[0]
        taken.append(boxes[offset])
        is_left = offset[0] < 0
        axes.annotate(
            label,
            point,
            (-8 if is_left else 8, offset[1]),
            textcoords="offset points",
            ha="right" if is_left else "left",
            va="center",
            fontsize=_LABEL,
            color=color,
        )


class _Box(NamedTuple):
    left: float
    low: float
    right: float
    high: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.low < other.high
            and other.low < self.high
        )
