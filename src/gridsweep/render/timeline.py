"""The report's first picture: carbon intensity over time, with every stint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any  # plotly has no types

from gridsweep.accounting.report import Bar, Report
from gridsweep.carbon.traces import HOUR
from gridsweep.render.figures import grams, hours, loss
from gridsweep.render.packs import Pack, lying, mark, packs
from gridsweep.render.pictures import at, axis, colours, looks, note, safe, short
from gridsweep.sweep.experiments import number

LANE_PX = 29
GRID_PX = 270
GAP_PX = 16
BAR, GHOST = 0.74, 0.4
"""Heights of a stint's bar and of its hypothetical one; the lanes lie 1 apart."""
NAMED = 8
"""Number of a stint's experiments named in its hover text."""

Point = tuple[str, float | None, str]


def timeline(report: Report, limits: dict[str, float] | None = None) -> str | None:
    """Return the figure as JSON: the intensity as a step line with every stint, and below it one lane per device.

    A second set of lanes shows the same work run at once. `limits` are the tiers' thresholds (gCO2eq/kWh), drawn as
    dashed lines. Return None before any data exists.
    """
    if not report.bars and all(value is None for value in report.intensity):
        return None
    from plotly import graph_objects as go

    lanes, told = Lanes(report), _Told(report)
    lanes_px = LANE_PX * (lanes.depth + 0.5)
    whole = GRID_PX + GAP_PX + lanes_px
    figure = go.Figure(_curve(report, go))
    ran, at_once = packs(report.bars), packs(report.immediate_bars)
    for tier, colour in colours(report).items():
        if own := [pack for pack in ran if tier in pack.tiers]:
            figure.add_trace(_spans(told, own, tier, colour, go))
            figure.add_trace(_bars(told, own, lanes.actual, tier, colour, go))
        if own := [pack for pack in at_once if tier in pack.tiers]:
            figure.add_trace(_ghosts(told, own, lanes.other, tier, colour, go))
    if ran:
        figure.add_trace(_marks(told, ran, lanes.actual, go))
    for tier, limit in (limits or {}).items():
        _limit(figure, tier, limit, colours(report).get(tier, "var(--muted)"))
    _moments(figure, report)
    for y, text in lanes.heads:
        note(figure, x=0, xref="paper", y=y, yref="y2", text=text, bgcolor="var(--card)")
    margin = {"l": 8, "r": 12, "t": 62, "b": 48}
    figure.update_layout(**looks(whole + margin["t"] + margin["b"]), barmode="overlay", margin=margin)
    figure.update_layout(uniformtext={"mode": "hide", "minsize": 10})  # hides a number that does not fit its bar
    figure.update_layout(
        xaxis=_time_axis(report),
        yaxis=axis(domain=[1 - GRID_PX / whole, 1], range=[0, 1.1 * _highest(report)], nticks=6),
        yaxis2=axis(
            domain=[0, lanes_px / whole],
            range=[lanes.depth + 0.15, -0.35],
            tickvals=lanes.ticks,
            ticktext=lanes.names,
            showgrid=False,
            zeroline=False,
            fixedrange=True,
            ticklabelstandoff=6,
        ),
    )
    return str(figure.to_json())


def _moments(figure: Any, report: Report) -> None:
    """Draw bands for hours of unknown intensity, a line at the submission, and the axis label."""
    for start, end in _unknown(report):
        figure.add_shape(
            type="rect",
            x0=at(start),
            x1=at(end),
            y0=0,
            y1=1,
            yref="y domain",
            fillcolor="var(--curve)",
            opacity=0.18,
            line_width=0,
        )
        note(figure, x=at(start), xshift=4, y=1, yref="y domain", yanchor="top", text="unknown", textangle=-90)
    submitted = at(report.submitted_at)
    figure.add_shape(
        type="line",
        x0=submitted,
        x1=submitted,
        y0=0,
        y1=1,
        yref="paper",
        line={"color": "var(--muted)", "width": 1, "dash": "dot"},
    )
    note(figure, x=submitted, xshift=4, y=0, yref="y domain", text="submitted")
    note(figure, x=0, xref="paper", y=1, yref="y domain", text="carbon intensity, gCO₂eq/kWh")


def _time_axis(report: Report) -> dict[str, Any]:
    """Return the time axis that both parts of the picture share."""
    first, last = _window(report)
    return axis(
        type="date",
        anchor="y2",
        tickangle=0,
        tickformatstops=[
            {"dtickrange": [None, 43_200_000], "value": "%H:%M\n%d %b"},
            {"dtickrange": [43_200_001, None], "value": "%d %b\n%Y"},
        ],
        range=[at(first), at(last)],
        hoverformat="%a %d %b %H:%M",
        title_text="time (UTC)",
        title_standoff=8,
    )


def _limit(figure: Any, tier: str, limit: float, colour: str) -> None:
    """Draw a tier's threshold as a dashed line across the intensity."""
    line = {"color": colour, "width": 1, "dash": "dash"}
    figure.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=limit, y1=limit, line=line)
    text = f"{safe(short(tier))} starts at or below {number(limit)}"
    note(figure, x=1, xref="paper", xanchor="right", y=limit, text=text)


class Lanes:
    """Positions of the devices' lanes: the run's lanes on top, those of running at once below a gap."""

    def __init__(self, report: Report):
        devices = _devices((*report.bars, *report.immediate_bars))
        self.actual = {device: 0.6 + i for i, device in enumerate(devices)}
        self.heads = [(0.0, f"this run: {safe(report.policy)}")] if devices else []
        self.depth = len(devices) + 0.2
        self.other: dict[str, float] = {}
        if report.immediate_bars:
            below = self.depth + 0.9
            self.heads.append((below, "for comparison: run at once"))
            self.other = {device: below + 0.45 + 0.66 * i for i, device in enumerate(devices)}
            self.depth = below + 0.2 + 0.66 * len(devices)
        self.ticks = [*self.actual.values(), *self.other.values()]
        self.names = [safe(short(device)) for device in devices] * (2 if self.other else 1)


def _devices(bars: Iterable[Bar]) -> list[str]:
    """Return the devices in natural order: cpu2 before cpu10."""
    return sorted({bar.device for bar in bars}, key=lambda name: (len(name), name))


def _curve(report: Report, go: Any) -> Any:
    """Return the trace of the intensity, constant within each slot."""
    step = report.intensity_step_h * HOUR
    values = [*report.intensity, *report.intensity[-1:]]
    return go.Scatter(
        x=[at(report.intensity_start + i * step) for i in range(len(values))],
        y=values,
        mode="lines",
        name="the grid",
        line={"shape": "hv", "width": 1.6, "color": "var(--curve)"},
        hovertemplate="%{x|%a %d %b %H:%M}: %{y:.0f} gCO₂eq/kWh<extra>the grid</extra>",
    )


def _spans(told: _Told, own: Sequence[Pack], tier: str, colour: str, go: Any) -> Any:
    """Return the trace of a tier's stints, drawn on the line at their carbon intensity.

    Simultaneous stints, and the tiers of one stint, have the same intensity: each is shifted a little, so that all of
    them are visible.
    """
    report, lines = told.report, told.lines
    apart = _highest(report) * min(0.024, 0.1 / max(1, len(lines)))
    points: list[Point] = []
    for pack in own:
        bar = pack.first
        shift = ((len(lines) - 1) / 2 - lines.index((bar.device, tier))) * apart
        text = told.of(pack)
        for moment, level in _met(report, bar.start, bar.end):
            points.append((at(moment), None if level is None else level + shift, text))
        points.append((at(bar.end), None, text))
    return go.Scatter(
        x=[p[0] for p in points],
        y=[p[1] for p in points],
        customdata=[p[2] for p in points],
        mode="lines",
        name=safe(tier),
        legendgroup=safe(tier),
        line={"shape": "hv", "width": 4 if len(lines) <= 4 else 3, "color": colour},
        hovertemplate="%{customdata}<extra></extra>",
    )


def _lines(report: Report) -> list[tuple[str, str]]:
    """Return every pair of a device and a tier that it trained, by device, then by rank."""
    ran, order = {(bar.device, bar.tier) for bar in report.bars}, list(colours(report))
    return [(device, tier) for device in _devices(report.bars) for tier in order if (device, tier) in ran]


def _bars(told: _Told, own: Sequence[Pack], lanes: dict[str, float], tier: str, colour: str, go: Any) -> Any:
    """Return a tier's part of its stints as bars in their lanes."""
    return go.Bar(
        **lying(own, lanes, tier, told.tiers, BAR),
        marker={
            "color": colour,
            "line": {"width": 0},
            "pattern": {
                "shape": ["x" if pack.first.how == "lost" else "" for pack in own],
                "size": 6,
                "solidity": 0.25,
            },
        },
        customdata=[told.of(pack) for pack in own],
        hovertemplate="%{customdata}<extra></extra>",
        name=safe(tier),
        legendgroup=safe(tier),
        showlegend=False,
        yaxis="y2",
    )


def _marks(told: _Told, ran: Sequence[Pack], lanes: dict[str, float], go: Any) -> Any:
    """Return the outline of every stint, with the number of its experiments, or the place of its only one."""
    return go.Bar(
        **lying(ran, lanes),
        width=BAR,
        text=[mark(told.rows, pack) for pack in ran],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"color": "#ffffff", "size": 12},
        marker={"color": "rgba(0,0,0,0)", "line": {"width": 1, "color": "var(--card)"}},
        hoverinfo="skip",
        name="stints",
        showlegend=False,
        yaxis="y2",
    )


def _ghosts(told: _Told, own: Sequence[Pack], lanes: dict[str, float], tier: str, colour: str, go: Any) -> Any:
    """Return bars for the same work run at once, thin and hatched because it is hypothetical."""
    return go.Bar(
        **lying(own, lanes, tier, told.tiers, GHOST),
        marker={
            "color": "var(--card)",
            "line": {"width": 1, "color": colour},
            "pattern": {"shape": "/", "size": 5, "solidity": 0.3, "fgcolor": colour},
        },
        customdata=[told.of(pack, at_once=True) for pack in own],
        hovertemplate="%{customdata}<extra></extra>",
        name=safe(tier),
        legendgroup=safe(tier),
        showlegend=False,
        yaxis="y2",
    )


class _Told:
    """The hover texts of stints; holds what they have in common."""

    def __init__(self, report: Report):
        self.report, self.tiers, self.lines = report, list(colours(report)), _lines(report)
        self.rows = {row.experiment: row for row in report.rows}
        self.order = {id: n for n, id in enumerate(self.rows)}

    def of(self, pack: Pack, *, at_once: bool = False) -> str:
        """Return the hover text of a stint."""
        lot, bar, ran = pack.bars, pack.first, " run at once" if at_once else ""
        ids = {other.experiment for other in lot if other.experiment in self.rows}
        rows = [self.rows[id] for id in sorted(ids, key=self.order.__getitem__)]
        named = [f"<b>{len(lot)} experiments{ran}</b>", *(safe(row.experiment) for row in rows[:NAMED])]
        if len(rows) > NAMED:
            named.append(f"and {len(rows) - NAMED} more")
        tiers = ", ".join(f"{pack.tiers[tier]} of {safe(tier)}" for tier in self.tiers if tier in pack.tiers)
        row = rows[0] if rows else None
        lines = [
            *(named if len(lot) > 1 else [f"<b>{safe(bar.experiment)}</b>{ran}"]),
            f"{safe(bar.tier) if len(pack.tiers) == 1 else tiers}, on {safe(bar.device)}, {safe(bar.how)}",
            f"{bar.start:%a %d %b %H:%M} to {bar.end:%a %d %b %H:%M} ({hours((bar.end - bar.start) / HOUR)})",
        ]
        if row is None or len(lot) > 1:
            return "<br>".join(lines)
        if not at_once:
            lines.append(safe(row.reason or row.why))
            if row.loss is not None:
                place = f"place {row.place}" if row.place else row.tier_reason
                lines.append(f"{place}, loss {loss(row.loss)}, {grams(row.emissions_g)} CO₂eq")
        elif row.immediate_g is not None and self.report.saving_g is not None:
            lines.append(f"{grams(row.immediate_g)} CO₂eq, against {grams(row.emissions_g)} in this run")
        return "<br>".join(lines)


def _met(report: Report, start: datetime, end: datetime) -> Iterable[tuple[datetime, float | None]]:
    """Yield the intensity at a stint's start, at every slot edge within it, and at its end."""
    step = report.intensity_step_h * HOUR
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


def _highest(report: Report) -> float:
    return max((value for value in report.intensity if value is not None), default=0.0) or 1.0


def _unknown(report: Report) -> list[tuple[datetime, datetime]]:
    """Return the spans of unknown intensity within the picture; adjacent slots are merged."""
    step = report.intensity_step_h * HOUR
    found: list[tuple[datetime, datetime]] = []
    for i, value in enumerate(report.intensity):
        if value is None:
            start = report.intensity_start + i * step
            begun = found.pop()[0] if found and found[-1][1] == start else start
            found.append((begun, start + step))
    return found


def _window(report: Report) -> tuple[datetime, datetime]:
    ends = [bar.end for bar in (*report.bars, *report.immediate_bars)]
    last = max([*ends, report.ended_at, report.submitted_at + HOUR])
    first = min(report.submitted_at, report.intensity_start)
    return first, last + (last - first) * 0.015
