"""The pictures of an evaluation's page, as SVG text that stands in the page itself.

Colours are Okabe and Ito's, which people with any colour vision tell apart (jfly.uni-koeln.de/color, 2008).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfm.evaluation.intervals import Estimate

DRAFTS, CONTROL, CEILING = "#0072B2", "#7f7f7f", "#009E73"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

LONGEST = 40
"""Characters of the name of a group; its end has n."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text: it can be selected, and the page stays small
}


def dots(panels: Mapping[str, Mapping[str, Estimate]], *, first: str, ceiling: str | None = None) -> str:
    """Returns one panel a score: a dot with its interval for the drafts and each control.

    Args:
        panels: title of the score to who scored how; what is undefined is left out.
        first: who is drawn in colour.
        ceiling: who is drawn as what can be reached at most.
    """
    order = max(panels.values(), key=len)  # who has most scores says in which order all stand
    names = list(dict.fromkeys([*order, *(name for each in panels.values() for name in each)]))[::-1]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = _figure(rows, columns, width=3.6 * columns + 0.8, height=rows * (0.8 + 0.24 * len(names)))
    for place, (title, scores) in enumerate(panels.items()):
        axis = axes[place // columns][place % columns]
        for y, name in enumerate(names):
            colour = DRAFTS if name == first else CEILING if name == ceiling else CONTROL
            _dot(axis, y, scores.get(name), colour)
        axis.set_yticks(range(len(names)), names if place % columns == 0 else [""] * len(names))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(title, loc="left", fontweight="bold")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    for place in range(len(panels), rows * columns):
        axes[place // columns][place % columns].set_axis_off()
    return _svg(figure, "dots")


def bars(scores: Mapping[str, Estimate], *, label: str, limits: tuple[float, float] = (0, 1)) -> str:
    """Returns one bar with its interval for each name; the names should say n."""
    names = list(scores)[::-1]
    figure, axes = _figure(1, 1, width=7.5, height=0.6 + 0.26 * len(names))
    axis = axes[0][0]
    for y, name in enumerate(names):
        each = scores[name]
        if each.value is not None:
            axis.barh(y, each.value, color=DRAFTS, alpha=0.35, height=0.7)
        _dot(axis, y, each, DRAFTS)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlim(*limits)
    axis.set_xlabel(label)
    return _svg(figure, label)


def forest(
    groups: Sequence[tuple[str, Mapping[str, Any]]], *, columns: Mapping[str, str], flagged: Iterable[str]
) -> str:
    """Returns one line a group, one column a score, with intervals; flagged groups in another colour.

    Args:
        groups: name, with n, and score to anything with ``value``, ``low`` and ``high``; no score makes a heading.
        columns: score to title.
        flagged: names of groups to mark.
    """
    marked = set(flagged)
    lines = list(groups)[::-1]
    figure, axes = _figure(1, len(columns), width=3 * len(columns) + 1.5, height=0.8 + 0.25 * len(lines))
    for place, (score, title) in enumerate(columns.items()):
        axis = axes[0][place]
        for y, (name, scores) in enumerate(lines):
            _dot(axis, y, scores.get(score), CYCLE[1] if name in marked else DRAFTS)
        axis.set_yticks(range(len(lines)), [_label(name) for name, _ in lines] if place == 0 else [""] * len(lines))
        axis.set_ylim(-0.6, len(lines) - 0.4)
        axis.set_xlim(-0.02, 1.02)
        axis.set_title(title, loc="left", fontweight="bold")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    return _svg(figure, "forest")


def lines(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    axes_labels: Mapping[str, tuple[str, str]],
    diagonal: Iterable[str] = (),
    levels: Mapping[str, float] | None = None,
) -> str:
    """Returns one panel a kind of curve, one line a name.

    Args:
        panels: title to name to x and y.
        axes_labels: title to what x and y are.
        diagonal: titles of panels with a line from 0, 0 to 1, 1.
        levels: title to the height of a level line, such as a base rate.
    """
    names = list(dict.fromkeys(name for each in panels.values() for name in each))
    figure, axes = _figure(1, len(panels), width=3.8 * len(panels), height=3.6)
    for place, (title, curves) in enumerate(panels.items()):
        axis = axes[0][place]
        if title in diagonal:
            axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
        if levels and title in levels:
            axis.axhline(levels[title], color="#999999", linewidth=0.8, linestyle=":")
        for name, (x, y) in curves.items():
            place_of = names.index(name)
            style = ("-", "--", ":", "-.")[place_of // len(CYCLE) % 4]
            colour = CYCLE[place_of % len(CYCLE)]
            axis.plot(x, y, color=colour, linewidth=1.2, linestyle=style, label=name)
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xlabel(axes_labels[title][0])
        axis.set_ylabel(axes_labels[title][1])
    axes[0][0].legend(fontsize=7, frameon=False)
    return _svg(figure, " ".join(panels))


def _figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    # Imported late, and without pyplot: no window system, no figures that stay in memory.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


def _dot(axis: Any, y: float, estimate: Any, colour: str) -> None:
    if estimate is None or estimate.value is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axis.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    axis.plot([estimate.value], [y], marker="o", markersize=4.5, color=colour)


def _label(name: str) -> str:
    """The name of a group, which the data states: short enough for a picture, and never read as a formula."""
    return (name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}").replace("$", r"\$")


def _svg(figure: Any, name: str) -> str:
    """The figure as an ``svg`` element; the same figure gives the same bytes."""
    import matplotlib

    out = io.StringIO()
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the fonts
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
