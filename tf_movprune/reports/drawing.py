"""The style of all pictures, and how they become SVG that follows a page's colours and fonts."""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Colours that stand for the variables of the page, which has two values for each.
INK, MUTED, GRID, CELL, ON_CELL = "#000101", "#000102", "#000103", "#000104", "#000105"
SERIES = ("#000201", "#000202", "#000203", "#000204", "#000205")
ACCENT, SECOND = SERIES[0], SERIES[1]
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", CELL: "cell", ON_CELL: "on-cell"}
_VARIABLES.update({color: f"series-{i}" for i, color in enumerate(SERIES, 1)})
_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.5)))

WIDTH = 360  # units of a picture, as wide as a phone, so that text is readable there
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "tf_movprune",
    "font.size": 11.5,
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Sets the style of pictures that are made within; what the user has set comes back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(height: float) -> Figure:
    """An empty picture, `WIDTH` units wide."""
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, hspace=0.06)
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout=layout)
    FigureCanvasSVG(figure)
    return figure


def to_svg(figure: Figure, description: str) -> str:
    """The picture as an SVG element for a page, without ids, sizes and fonts of its own.

    Args:
      figure: the picture, drawn within `style()`.
      description: what it shows, for those who do not see it.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _plain_tag(tag[0]), text)
    text = re.sub(r">\s+<", "><", text)
    width, height = (72 * size for size in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{html.escape(description)}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def _plain_tag(tag: str) -> str:
    """A tag with variables for colours, short numbers, and neither a name nor a font."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?|font: [^;\"]*", _only_size, tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, f"var(--{variable})")
    return re.sub(r"\s+", " ", tag)


def _only_size(font: re.Match[str]) -> str:
    """The weight and the size of a font."""
    size = re.search(r"([\d.]+)px", font[0])
    weight = "font-weight: 700; " if re.search(r"bold|700", font[0]) else ""
    return f"{weight}font-size: {size[1]}px" if size else ""


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of one of several lines, no two of which look the same."""
    return {
        "color": SERIES[index % len(SERIES)],
        "linestyle": _DASHES[index // len(SERIES) % len(_DASHES)],
    }


def titled(axes: Axes, title: str) -> None:
    """Writes the name of what a panel shows above its vertical axis."""
    axes.set_title(
        shortened(title), loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=7, x=0
    )


def shortened(text: str, most: int = 36) -> str:
    """The end of a text that is too long for a picture: that of paths tells them apart."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
