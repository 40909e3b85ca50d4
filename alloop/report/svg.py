"""One look for every figure, and its way into a page: a matplotlib figure as an inline SVG element that scales."""

import re
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b2733", "#66727f", "#dfe4ea", "#ffffff"
BLUE, ORANGE, TEAL, VIOLET, GREY, SAND = "#1d5b8f", "#c8622a", "#2a8c7a", "#77609f", "#a3adb8", "#d9a441"
SIZE_INCHES = (4.7, 3.5)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it is small, it can be searched and read aloud
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "mathtext.fontset": "dejavusans",
}


def draw(name: str, description: str, paint: Callable[[Axes], None], *, size: tuple[float, float] = SIZE_INCHES) -> str:
    """An `<svg>` element that `paint` filled; `name` keeps its ids apart from other figures', `description` is read aloud.

    The same arguments give the same characters.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        paint(axes)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name, description)


def _inline(document: str, name: str, description: str) -> str:
    """Drop what only a file of its own needs, prefix ids that figures share, and let the page decide on the size."""
    body = document[document.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(description, quote=True)}"', 1)
