"""Pictures of scores: against weights, and their distribution about the threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from tf_movprune.reports.drawing import ACCENT, INK, MUTED, new_figure, shortened, titled, to_svg

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_OUTSIDE = 0.004  # share of the points at either end that the axes leave out


def weight_against_score(group: Mapping[str, Any]) -> str | None:
    """Points, kept and pruned; None if there are no scores."""
    points = group.get("points") or {}
    if not points.get("score"):
        return None
    weights, scores = np.asarray(points["weight"], float), np.asarray(points["score"], float)
    kept = np.asarray(points["kept"], bool)
    scale, unit = _scaled(scores)
    scores = scores / scale
    figure = new_figure(250)
    axes = figure.subplots()
    for values, limit in ((weights, axes.set_xlim), (scores, axes.set_ylim)):
        low, high = np.quantile(values, [_OUTSIDE, 1 - _OUTSIDE])
        margin = 0.06 * (high - low) or 0.5
        limit(low - margin, high + margin)
    size = 2.2 if len(scores) > 300 else 4.5
    _dots(axes, weights[~kept], scores[~kept], MUTED, size, 0.6)
    _dots(axes, weights[kept], scores[kept], ACCENT, size, 1.0)
    _cut(axes, group, scale, is_horizontal=True)
    axes.set_xlabel(shortened(str(points.get("weight_is") or "weight")))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    titled(axes, f"{_quantity(group)}{unit}")
    _key(axes)
    return to_svg(figure, "Each dot is a weight and its score. Those above the threshold are kept.")


def score_histogram(group: Mapping[str, Any]) -> str | None:
    """The distribution of scores, kept and pruned, and the threshold between them."""
    histogram = group.get("histogram") or {}
    if not histogram.get("edges"):
        return None
    edges = np.asarray(histogram["edges"], float)
    scale, unit = _scaled(edges)
    edges = edges / scale
    kept, pruned = (np.asarray(histogram[key], float) for key in ("kept", "pruned"))
    total = max(kept.sum() + pruned.sum(), 1)
    figure = new_figure(200)
    axes = figure.subplots()
    axes.stairs(100 * pruned / total, edges, fill=True, color=MUTED, alpha=0.45, linewidth=0)
    axes.stairs(
        100 * (kept + pruned) / total,
        edges,
        baseline=100 * pruned / total,
        fill=True,
        color=ACCENT,
        linewidth=0,
    )
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.2 * 100 * max((kept + pruned).max() / total, 1e-9))
    _cut(axes, group, scale, is_horizontal=False)
    axes.set_xlabel(f"{_quantity(group)}{unit}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    titled(axes, "share of all, in %")
    _key(axes)
    return to_svg(figure, "Histogram of scores, split into what is kept and what is pruned.")


def _quantity(group: Mapping[str, Any]) -> str:
    return shortened(str(group.get("quantity") or "score"))


def _dots(
    axes: Axes, x: np.ndarray, y: np.ndarray, color: str, size: float, opacity: float
) -> None:
    """Draws dots within the limits of the axes as lines without length, which are short in SVG."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    is_inside = (left <= x) & (x <= right) & (low <= y) & (y <= high)
    ends = np.repeat(np.stack([x[is_inside], y[is_inside]], axis=1), 2, axis=0)
    if len(ends):
        path = Path(ends, [Path.MOVETO, Path.LINETO] * (len(ends) // 2))
        path.should_simplify = False
        dots = PathPatch(path, edgecolor=color, alpha=opacity, linewidth=size, capstyle="round")
        axes.add_patch(dots)


def _cut(axes: Axes, group: Mapping[str, Any], scale: float, *, is_horizontal: bool) -> None:
    low, high = axes.get_ylim() if is_horizontal else axes.get_xlim()
    if group.get("threshold") is None or not low < group["threshold"] / scale < high:
        return
    threshold = group["threshold"] / scale
    draw = axes.axhline if is_horizontal else axes.axvline
    draw(threshold, color=INK, linewidth=1, linestyle=(0, (3, 2)))
    if is_horizontal:
        place, offset, side = (axes.get_xlim()[1], threshold), (0, 3), "right"
        vertical = "bottom"
    else:
        place, offset, side = (threshold, axes.get_ylim()[1]), (4, 0), "left"
        vertical = "top"
        if threshold > low + 0.7 * (high - low):
            offset, side = (-4, 0), "right"
    axes.annotate(
        "threshold", place, offset, textcoords="offset points", ha=side, va=vertical, fontsize=10.5
    )


def _scaled(values: np.ndarray) -> tuple[float, str]:
    """A power of ten that makes numbers short, and how to name it behind a title."""
    highest = float(np.abs(values).max(initial=0.0))
    exponent = math.floor(math.log10(highest)) if highest > 0 else 0
    if -2 <= exponent <= 3:
        return 1.0, ""
    return 10.0**exponent, f" in 10{str(exponent).translate(_RAISED)}"


def _key(axes: Axes) -> None:
    """Names the two colours at the upper right, in these colours."""
    axes.annotate(
        "kept",
        (1, 1),
        (0, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        color=ACCENT,
        fontsize=10.5,
        fontweight="bold",
    )
    axes.annotate(
        "pruned",
        (1, 1),
        (-34, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        color=MUTED,
        fontsize=10.5,
        fontweight="bold",
    )
