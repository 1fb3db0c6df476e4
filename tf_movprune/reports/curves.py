"""Pictures over the steps of training: metric, loss, sparsity and mask churn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tf_movprune.reports.drawing import (
    ACCENT,
    MUTED,
    line_style,
    new_figure,
    titled,
    to_svg,
)
from tf_movprune.reports.formats import as_fraction, is_in_percent, metric_name, percent
from tf_movprune.reports.runs import Run

PERCENTS = FuncFormatter(
    lambda value, _: percent(value, 0 if round(100 * value, 6) % 1 == 0 else 1)
)
_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
Series = Callable[[Run], tuple[list[float], list[float]]]


def progress(runs: Sequence[Run]) -> str | None:
    """Metric, loss and sparsity over steps, one below the other; None if nothing was recorded."""
    panels: list[tuple[str, Series, bool]] = []
    names = [run.main_metric for run in runs]
    name = next((name for name in names if name), None)
    if name is not None:

        def metric(run: Run) -> tuple[list[float], list[float]]:
            steps, values = run.metric_series(name)
            return steps, [as_fraction(v) if is_in_percent(name) else v for v in values]

        panels.append((metric_name(name), metric, is_in_percent(name)))
    panels.append(("loss in training", lambda run: run.series("loss"), False))
    panels.append(("sparsity", lambda run: run.series("sparsity"), True))
    panels = [panel for panel in panels if any(panel[1](run)[0] for run in runs)]
    if not panels:
        return None
    figure = new_figure(24 + 116 * len(panels))
    columns = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    last = max(max(panel[1](run)[0], default=0) for panel in panels for run in runs)
    for axes, (title, series, is_percent) in zip(columns, panels):
        _draw(axes, [series(run) for run in runs], is_percent, is_metric=title != "sparsity")
        titled(axes, title)
        axes.set_xlim(0, last)
    columns[-1].set_xlabel("step")
    columns[-1].xaxis.set_major_formatter(_THOUSANDS)
    columns[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    shown = ", ".join(title for title, *_ in panels)
    return to_svg(figure, f"Lines over the steps of training: {shown}.")


def _draw(
    axes: Axes,
    series: Sequence[tuple[list[float], list[float]]],
    is_percent: bool,
    is_metric: bool,
) -> None:
    for i, (steps, values) in enumerate(series):
        is_sparse = len(steps) <= 15
        axes.plot(steps, values, **line_style(i), marker="o" if is_sparse else None, markersize=3)
    if not is_metric:
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.5, 1])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    if is_percent:
        axes.yaxis.set_major_formatter(PERCENTS)
    axes.margins(y=0.12)


def churn(run: Run) -> str | None:
    """The share of mask entries that changed, over steps; None if no masks were compared."""
    steps, values = run.series("churn")
    if not any(values):
        return None
    steps, sums = [run.history[0]["step"], *steps], list(itertools.accumulate([0.0, *values]))
    total = sums[-1]
    figure = new_figure(240)
    axes = figure.subplots()
    axes.fill_between(steps, sums, color=ACCENT, alpha=0.15, linewidth=0)
    axes.plot(steps, sums, color=ACCENT)
    axes.set_xlim(0, max(steps))
    axes.set_ylim(0, 1.15 * total)
    sparsity_steps, sparsity = run.series("sparsity")
    axes.plot(sparsity_steps, sparsity, color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)))
    if sparsity:
        axes.annotate(
            "sparsity",
            (sparsity_steps[-1], sparsity[-1]),
            (-4, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            color=MUTED,
            fontsize=10.5,
        )
    axes.yaxis.set_major_formatter(PERCENTS)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_THOUSANDS)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step")
    titled(axes, "changes of masks so far")
    return to_svg(figure, f"Changes of masks add up to {percent(total)} of their entries.")
