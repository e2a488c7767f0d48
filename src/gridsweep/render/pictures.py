"""Shared parts of a report's pictures: colours, layout, and text that plotly shows literally.

A colour written `var(--name)` is a CSS variable of the page, inserted when the figure is drawn, so one figure
serves the light and the dark scheme. Plotly reads text as HTML, so names from users are escaped here.
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any  # plotly has no types

from gridsweep.accounting.report import Report
from gridsweep.carbon.traces import utc
from gridsweep.render import wording

TIER_COLOURS = ("#1a6fb5", "#b35c00", "#0b7a5c", "#8a4fb0", "#b8407f", "#5b6b7a")
"""Colours distinct in every common colour blindness, and dark enough for white text."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def colours(report: Report) -> dict[str, str]:
    """Return a colour for every tier, in rank order."""
    return {name: TIER_COLOURS[i % len(TIER_COLOURS)] for i, name in enumerate(wording.tiers(report))}


def looks(height: float) -> dict[str, Any]:
    return {
        "height": round(height),
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 13,
            "color": "var(--muted)",
        },
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)", "size": 13},
            "align": "left",
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0.995,
            "yanchor": "top",
            "yref": "container",
            "font": {"color": "var(--ink)"},
        },
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "uirevision": "kept",
    }


def axis(**more: Any) -> dict[str, Any]:
    quiet = dict.fromkeys(("gridcolor", "linecolor", "zerolinecolor", "tickcolor"), "var(--line)")
    return {**quiet, "showline": False, "ticks": "", "automargin": True, "title_font_size": 12, **more}


def note(figure: Any, **where: Any) -> None:
    """Add a small label to a figure; placed above its subject, it needs no width, unlike an axis title."""
    quiet = {"xanchor": "left", "yanchor": "bottom", "showarrow": False, "borderpad": 1}
    quiet["font"] = {"size": 12, "color": "var(--muted)"}
    figure.add_annotation(**{**quiet, **where})


def at(moment: datetime) -> str:
    return f"{utc(moment):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def safe(text: str) -> str:
    """Return text escaped so that plotly shows it literally."""
    return html.escape(text, quote=False)


def short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:7]}…{text[-8:]}"
