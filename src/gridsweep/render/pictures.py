"""What the pictures of a report share: colours, looks, and text that plotly shows as it is written.

A colour written `var(--name)` is a CSS variable of the page, put in when the figure is drawn: one figure
serves light and dark. Plotly reads text as HTML, so whatever a user named is escaped here.
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any  # plotly has no types

from gridsweep.accounting.report import Report
from gridsweep.carbon.traces import utc
from gridsweep.render import wording

TIER_COLOURS = ("#1a6fb5", "#b35c00", "#0b7a5c", "#8a4fb0", "#b8407f", "#5b6b7a")
"""Told apart in every common colour blindness, and dark enough for white text."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def colours(report: Report) -> dict[str, str]:
    """A colour for every tier, in the order of their ranks."""
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
    """A few small words; as a head above what they name they need no width, unlike an axis title."""
    quiet = {"xanchor": "left", "yanchor": "bottom", "showarrow": False, "borderpad": 1}
    quiet["font"] = {"size": 12, "color": "var(--muted)"}
    figure.add_annotation(**{**quiet, **where})


def at(moment: datetime) -> str:
    return f"{utc(moment):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def safe(text: str) -> str:
    """Text that plotly shows as it is written."""
    return html.escape(text, quote=False)


def short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:7]}…{text[-8:]}"
