"""The two pictures of a report, as plotly figures in JSON.

A colour written `var(--name)` is a CSS variable of the page, put in when the figure is drawn, so that one figure
serves light and dark. Plotly reads text as HTML: whatever a user named is escaped here.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from gridsweep.carbon import utc
from gridsweep.render import wording
from gridsweep.render.figures import energy, grams, hours, loss, mass_scale, signed
from gridsweep.reports import Bar, Report, Row
from gridsweep.sweep import number

TIER_COLOURS = ("#1a6fb5", "#b35c00", "#0b7a5c", "#8a4fb0", "#b8407f", "#5b6b7a")
"""Told apart in every common colour blindness, and dark enough for white text."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

LANE_PX = 26
GRID_PX = 270
Point = tuple[str, float | None, str]


def colours(report: Report) -> dict[str, str]:
    """A colour for every tier, in the order of their ranks."""
    return {name: TIER_COLOURS[i % len(TIER_COLOURS)] for i, name in enumerate(wording.tiers(report))}


# -- the grid's intensity, and every stint on it


def timeline(report: Report, limits: dict[str, float] | None = None) -> str:
    """The intensity as a step line with every stint on it, and below a lane a device: as it ran, and as if at once.

    `limits` are the tiers' thresholds (gCO2eq/kWh), drawn as dashed lines.
    """
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    lanes = _lanes(report)
    tall = LANE_PX * (lanes.depth + 0.5)
    figure = make_subplots(
        rows=2,
        shared_xaxes=True,
        row_heights=[GRID_PX, tall],
        vertical_spacing=38 / (GRID_PX + tall),
    )
    figure.add_trace(_curve(report, go), row=1, col=1)
    for tier, colour in colours(report).items():
        ran = [bar for bar in report.bars if bar.tier == tier]
        atonce = [bar for bar in report.immediate_bars if bar.tier == tier]
        if ran or atonce:
            figure.add_trace(_spans(report, ran, tier, colour, go), row=1, col=1)
            figure.add_trace(_bars(report, ran, lanes.actual, tier, colour, go), row=2, col=1)
        if atonce:
            figure.add_trace(_ghosts(report, atonce, lanes.other, tier, colour, go), row=2, col=1)
    for tier, limit in (limits or {}).items():
        figure.add_hline(
            limit,
            line={"color": colours(report).get(tier, "var(--muted)"), "width": 1, "dash": "dash"},
            annotation={"text": f"{_safe(tier)} ≤ {number(limit)}", "font": {"size": 11}, "yanchor": "bottom"},
            annotation_position="right",
            row=1,
            col=1,
        )
    for start, end in _unknown(report):
        figure.add_vrect(_at(start), _at(end), fillcolor="var(--muted)", opacity=0.16, line_width=0, row=1, col=1)
    figure.add_vline(_at(report.submitted_at), line={"color": "var(--muted)", "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=_at(report.submitted_at), y=1, xref="x", yref="y domain", text="submitted", showarrow=False,
        xanchor="left", yanchor="top", xshift=4, font={"size": 11, "color": "var(--muted)"},
    )  # fmt: skip
    _head(figure, "carbon intensity, gCO₂eq/kWh", "y domain", 1)
    for y, text in lanes.heads:
        _head(figure, text, "y2", y)
    first, last = _window(report)
    margin = {"l": 8, "r": 12, "t": 54, "b": 40}
    figure.update_layout(
        **_looks(GRID_PX + tall + 38 + margin["t"] + margin["b"]), barmode="overlay", margin=margin,
    )  # fmt: skip
    figure.update_xaxes(range=[_at(first), _at(last)], **_axis(), hoverformat="%a %d %b %H:%M")
    figure.update_xaxes(title={"text": "time (UTC)", "standoff": 6}, showticklabels=True, row=2, col=1)
    figure.update_yaxes(rangemode="tozero", **_axis(), row=1, col=1)
    figure.update_yaxes(
        range=[lanes.depth + 0.1, -0.4], tickvals=lanes.ticks, ticktext=lanes.names, showgrid=False, zeroline=False,
        automargin=True, fixedrange=True, row=2, col=1,
    )  # fmt: skip
    return str(figure.to_json())


class _lanes:
    """Where each device's lane lies: those of the run, and under a gap those of running at once."""

    def __init__(self, report: Report):
        devices = sorted({b.device for b in (*report.bars, *report.immediate_bars)}, key=lambda d: (len(d), d))
        self.actual = {device: 0.75 + i for i, device in enumerate(devices)}
        self.heads = [(0.0, f"as it ran: {_safe(report.policy)}")] if devices else []
        self.depth = len(devices) + 0.4
        self.other: dict[str, float] = {}
        if report.immediate_bars:
            below = self.depth + 0.35
            self.heads.append((below, "for comparison, run at once"))
            self.other = {device: below + 0.6 + 0.62 * i for i, device in enumerate(devices)}
            self.depth = below + 0.4 + 0.62 * len(devices)
        self.ticks = [*self.actual.values(), *self.other.values()]
        self.names = [_safe(_short(device)) for device in devices] * (2 if self.other else 1)


def _curve(report: Report, go: Any) -> Any:
    """The intensity, held within each slot."""
    step = timedelta(hours=report.intensity_step_h)
    values = [*report.intensity, *report.intensity[-1:]]
    return go.Scatter(
        x=[_at(report.intensity_start + i * step) for i in range(len(values))],
        y=values,
        mode="lines",
        name="the grid",
        line={"shape": "hv", "width": 1.6, "color": "var(--curve)"},
        hovertemplate="%{x|%a %d %b %H:%M}: %{y:.0f} gCO₂eq/kWh<extra>the grid</extra>",
    )


def _spans(report: Report, bars: Sequence[Bar], tier: str, colour: str, go: Any) -> Any:
    """The stints of a tier, on the line at the intensity they met.

    Stints at the same time meet the same intensity: each device has its own small offset, or they would hide each other.
    """
    devices = sorted({bar.device for bar in report.bars}, key=lambda d: (len(d), d))
    highest = max((v for v in report.intensity if v is not None), default=0.0)
    apart = highest * min(0.024, 0.1 / max(1, len(devices)))
    points: list[Point] = []
    for bar in bars:
        lane = (len(devices) - 1) / 2 - devices.index(bar.device)
        text = _told(report, bar)
        for moment, level in _met(report, bar.start, bar.end):
            points.append((_at(moment), None if level is None else level + lane * apart, text))
        points.append((_at(bar.end), None, text))
    return go.Scatter(
        x=[p[0] for p in points],
        y=[p[1] for p in points],
        customdata=[p[2] for p in points],
        mode="lines",
        name=_safe(tier),
        legendgroup=_safe(tier),
        line={"shape": "hv", "width": 6, "color": colour},
        hovertemplate="%{customdata}<extra></extra>",
    )


def _bars(report: Report, bars: Sequence[Bar], lanes: dict[str, float], tier: str, colour: str, go: Any) -> Any:
    """The stints of a tier in their devices' lanes; the number on a bar is its place in the ranking."""
    places = {row.experiment: row for row in report.rows}
    return go.Bar(
        **_lying(bars, lanes),
        width=0.74,
        text=[_mark(places.get(bar.experiment), bar) for bar in bars],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": "#ffffff", "size": 11},
        constraintext="none",
        marker={
            "color": colour,
            "line": {"width": 1, "color": "var(--card)"},
            "pattern": {"shape": ["x" if bar.how == "lost" else "" for bar in bars], "size": 6, "solidity": 0.25},
        },
        customdata=[_told(report, bar) for bar in bars],
        hovertemplate="%{customdata}<extra></extra>",
        name=_safe(tier),
        legendgroup=_safe(tier),
        showlegend=False,
    )


def _ghosts(report: Report, bars: Sequence[Bar], lanes: dict[str, float], tier: str, colour: str, go: Any) -> Any:
    """The same work run at once, thin and hatched: it never happened."""
    return go.Bar(
        **_lying(bars, lanes),
        width=0.4,
        marker={
            "color": "var(--card)",
            "line": {"width": 1, "color": colour},
            "pattern": {"shape": "/", "size": 5, "solidity": 0.3, "fgcolor": colour},
        },
        customdata=[_told(report, bar, atonce=True) for bar in bars],
        hovertemplate="%{customdata}<extra></extra>",
        name=_safe(tier),
        legendgroup=_safe(tier),
        showlegend=False,
    )


def _lying(bars: Sequence[Bar], lanes: dict[str, float]) -> dict[str, Any]:
    return {
        "orientation": "h",
        "y": [lanes[bar.device] for bar in bars],
        "base": [_at(bar.start) for bar in bars],
        "x": [(bar.end - bar.start) / timedelta(milliseconds=1) for bar in bars],
    }


def _mark(row: Row | None, bar: Bar) -> str:
    if bar.how == "lost" or (row is not None and row.status == "failed"):
        return "×"
    return str(row.place) if row is not None and row.place is not None else ""


def _told(report: Report, bar: Bar, *, atonce: bool = False) -> str:
    """What hovering over a stint says."""
    row = next((row for row in report.rows if row.experiment == bar.experiment), None)
    lines = [
        f"<b>{_safe(bar.experiment)}</b>{' run at once' if atonce else ''}",
        f"{_safe(bar.tier)}, on {_safe(bar.device)}, {_safe(bar.how)}",
        f"{bar.start:%a %d %b %H:%M} to {bar.end:%a %d %b %H:%M} ({hours((bar.end - bar.start) / timedelta(hours=1))})",
    ]
    if row is not None and not atonce:
        lines.append(_safe(row.reason or row.why))
        if row.loss is not None:
            lines.append(f"place {row.place}, loss {loss(row.loss)}, {grams(row.emissions_g)} CO₂eq")
    elif row is not None and row.immediate_g is not None:
        lines.append(f"{grams(row.immediate_g)} CO₂eq, against {grams(row.emissions_g)} as it ran")
    return "<br>".join(lines)


def _met(report: Report, start: datetime, end: datetime) -> Iterable[tuple[datetime, float | None]]:
    """The intensity at a stint's start, at every slot's edge within it, and at its end."""
    step = timedelta(hours=report.intensity_step_h)
    slot = (start - report.intensity_start) // step
    level = report.intensity[slot] if 0 <= slot < len(report.intensity) else None
    yield start, level
    edge = report.intensity_start + (slot + 1) * step
    while edge < end:
        slot += 1
        level = report.intensity[slot] if 0 <= slot < len(report.intensity) else None
        yield edge, level
        edge += step
    yield end, level


def _unknown(report: Report) -> list[tuple[datetime, datetime]]:
    """The times within the picture whose intensity nobody knows, joined."""
    step = timedelta(hours=report.intensity_step_h)
    found: list[tuple[datetime, datetime]] = []
    for i, value in enumerate(report.intensity):
        if value is None:
            start = report.intensity_start + i * step
            begun = found.pop()[0] if found and found[-1][1] == start else start
            found.append((begun, start + step))
    return found


def _window(report: Report) -> tuple[datetime, datetime]:
    ends = [bar.end for bar in (*report.bars, *report.immediate_bars)]
    last = max([*ends, report.ended_at, report.submitted_at + timedelta(hours=1)])
    first = min(report.submitted_at, report.intensity_start)
    return first, last + (last - first) * 0.015


# -- loss against carbon


def loss_against_carbon(report: Report) -> str | None:
    """Validation loss over emissions, one point an experiment; None while no experiment has a loss."""
    from plotly import graph_objects as go

    rows = [row for row in report.rows if row.loss is not None]
    best = report.best
    if best is None or best.loss is None:
        return None
    scale = mass_scale(row.emissions_g for row in rows)
    figure = go.Figure()
    if report.loss_noise is not None:
        figure.add_hrect(best.loss, best.loss + report.loss_noise, fillcolor="var(--curve)", opacity=0.15, line_width=0)
        _head(figure, "not separable from the best", "y", best.loss + report.loss_noise)
    by_tier = defaultdict(list)
    for row in rows:
        by_tier[row.tier].append(row)
    for i, (tier, colour) in enumerate(colours(report).items()):
        if not by_tier[tier]:
            continue
        figure.add_scatter(
            x=[row.emissions_g * scale.factor for row in by_tier[tier]],
            y=[row.loss for row in by_tier[tier]],
            customdata=[_described(row) for row in by_tier[tier]],
            mode="markers",
            name=_safe(tier),
            marker={
                "color": colour,
                "symbol": SYMBOLS[i % len(SYMBOLS)],
                "size": 11,
                "line": {"width": 1, "color": "var(--card)"},
            },
            hovertemplate="%{customdata}<extra></extra>",
        )
    base = wording.baseline(report)
    for marked, name in ((best, "best"), (base, "baseline")):
        if marked is None or (name == "baseline" and marked == best):
            continue
        figure.add_annotation(
            x=marked.emissions_g * scale.factor, y=marked.loss,
            text=f"<b>{name}</b>" if marked is not base or base is not best else "<b>best, the baseline</b>",
            showarrow=True, arrowhead=0, arrowwidth=1, arrowcolor="var(--ink)", standoff=8, ax=34,
            ay=30 if name == "best" else -30, font={"color": "var(--ink)"},
        )  # fmt: skip
    figure.update_layout(**_looks(440), margin={"l": 8, "r": 16, "t": 54, "b": 44})
    figure.update_xaxes(title={"text": f"emissions of the experiment, {scale.unit} CO₂eq"}, **_axis(), rangemode="tozero")
    figure.update_yaxes(title={"text": "validation loss (lower is better)"}, **_axis())
    return str(figure.to_json())


def _described(row: Row) -> str:
    lines = [
        f"<b>{_safe(row.experiment)}</b>, place {row.place}",
        f"r {row.r}, alpha {number(row.alpha)}, lr {number(row.lr)}, dropout {number(row.dropout)}",
        f"loss {loss(row.loss)}" + (f" ({signed(row.difference)} against the baseline)" if row.difference is not None else ""),
        f"{grams(row.emissions_g)} CO₂eq with {energy(row.energy_kwh)}",
    ]
    if row.immediate_g is not None:
        lines.append(f"{grams(row.immediate_g)} if run at once")
    return "<br>".join(lines)


# -- what both share


def _looks(height: float) -> dict[str, Any]:
    return {
        "height": round(height),
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "var(--muted)"},
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)", "size": 13}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "yref": "container", "font": {"color": "var(--ink)"}},
        "hovermode": "closest",
        "uirevision": "kept",
    }  # fmt: skip


def _axis() -> dict[str, Any]:
    return {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "tickcolor": "var(--line)",
        "showline": False,
        "automargin": True,
    }


def _head(figure: Any, text: str, yref: str, y: float) -> None:
    """A small heading at the left edge, above what it names: it needs no width, unlike an axis title."""
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=y, yref=yref, yanchor="bottom", text=text, showarrow=False,
        font={"size": 12, "color": "var(--muted)"},
    )  # fmt: skip


def _at(moment: datetime) -> str:
    return f"{utc(moment):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def _safe(text: str) -> str:
    """Text that plotly shows as it is written."""
    return html.escape(text, quote=False)


def _short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:7]}…{text[-8:]}"
