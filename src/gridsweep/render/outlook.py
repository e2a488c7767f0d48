"""The forecast of a grid zone for the coming days, as text and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any  # matplotlib's types know no dates

from rich.markup import escape

from gridsweep.carbon.outlook import Outlook, Window
from gridsweep.carbon.traces import DAY, HOUR, Trace, or_nan
from gridsweep.errors import GridsweepError
from gridsweep.render.figures import hours, percent
from gridsweep.render.screen import console, table

BARS = "▁▂▃▄▅▆▇█"
PLAIN = "12345678"
COLOURS = ("green", "green", "yellow", "yellow", "red", "red", "red", "red")


def text(made: Outlook) -> None:
    """Print the current intensity, one row of bars per day, the best windows, and the sources."""
    out = console()
    out.print(f"[bold]{escape(made.zone or made.provider)}[/bold]  {_present(made)}")
    if made.why:
        out.print(f"[yellow]{escape(made.why)}[/yellow]")
    if not made.expected:
        out.print("no forecast: too little recent history")
    else:
        bars = BARS if out.encoding.lower().startswith("utf") else PLAIN
        for line in _chart(made, bars):
            out.print(line)
        if made.typical_error is None:
            out.print("[dim]the usual error of this forecast is unknown[/dim]")
        else:
            out.print(f"[dim]mean error of this forecast on the first day: {percent(made.typical_error)}[/dim]")
    if made.windows:
        out.print(f"\nbest windows of {hours(made.duration_h)} (the {hours(made.duration_h)} from now: "
                  f"{_level(made.now_intensity)} gCO2eq/kWh on average):")  # fmt: skip
        less = "less than from now"
        rows = table("from", "to", "g/kWh", less, right=("g/kWh", less))
        for window in made.windows:
            saving = percent(window.saving) if window.saving is not None else ""
            rows.add_row(_clock(window.start), _clock(window.end), _level(window.intensity), saving)
        out.print(rows)
        if made.now_intensity is not None and made.windows[0].intensity >= made.now_intensity:
            out.print("no cleaner window ahead than now")
    out.print("\nsources:")
    rows = table("from", "to", "quality", "counts", "source")
    for source in made.sources:
        meaning = source.kind if source.basis == "unknown" else f"{source.kind}, {source.basis}"
        rows.add_row(_clock(source.start), _clock(source.end), source.quality, meaning, escape(source.title))
    out.print(rows)


def _present(made: Outlook) -> str:
    when = f"{made.now:%a %Y-%m-%d %H:%M} UTC"
    if made.intensity is None:
        return f"{when}: the intensity is unknown ({made.freshness})"
    return f"{when}: {made.intensity:.0f} gCO2eq/kWh ({_how(made)})"


def _how(made: Outlook) -> str:
    """Return how the current intensity is known; a trace or a constant is read directly but is not live."""
    observed = [source.quality for source in made.sources if source.quality != "forecast"]
    if made.freshness == "live" and observed and observed[-1] in ("synthetic", "static"):
        return observed[-1]
    return "recorded" if made.freshness == "live" and made.provider == "trace" else made.freshness


def _chart(made: Outlook, bars: str) -> list[str]:
    """Return a chart with two columns per hour; the past is dim, the best window underlined."""
    step = timedelta(hours=made.step_h)
    past = Trace(made.past_start, step, or_nan(made.past))
    ahead = Trace(made.start, step, or_nan(made.expected))
    known = [v for v in (*made.past, *made.expected) if v is not None]
    low, high = min(known), max(known)
    first = past.start.replace(hour=0, minute=0, second=0, microsecond=0)
    lines = ["            " + "".join(f"{hour:02}          " for hour in range(0, 24, 6)) + "  least  most"]
    day = first
    while day < ahead.end:
        cells, seen = [], []
        for hour in range(24):
            begin = day + hour * HOUR
            came = begin + HOUR <= made.now or begin >= ahead.end
            level = (past if came else ahead).mean(begin, begin + HOUR)
            if level != level:
                cells.append("  ")
                continue
            seen.append(level)
            step_up = min(7, int((level - low) / (high - low) * 8)) if high > low else 0
            style = "dim" if came else COLOURS[step_up]
            if any(window.start < begin + HOUR and begin < window.end for window in made.windows[:1]):
                style += " underline"
            cells.append(f"[{style}]{bars[step_up] * 2}[/]")
        if seen:
            lines.append(f"{day:%a %d %b}  {''.join(cells)}  {min(seen):5.0f} {max(seen):5.0f}")
        day += DAY
    return lines


def zones(rows: Sequence[Mapping[str, str]], silent: Mapping[str, str]) -> None:
    """Print a table of zones, and the providers that could not list theirs."""
    out = console()
    shown = table("provider", "zone", "where", "")
    for row in rows:
        shown.add_row(row["provider"], escape(row["zone"]), escape(row["title"]), escape(row["note"]))
    out.print(shown if rows else "no matching zone")
    for name, why in silent.items():
        out.print(f"[dim]{name} cannot list its zones now: {escape(why)}[/dim]")


def png(made: Outlook, path: Path) -> None:
    """Write the forecast with its band as a PNG picture.

    Raise `GridsweepError` if matplotlib is missing or the path cannot be written.
    """
    try:
        from matplotlib import dates
        from matplotlib.figure import Figure
    except ImportError:
        raise GridsweepError("a picture needs the extra `report`; pip install 'gridsweep[report]'") from None
    step = timedelta(hours=made.step_h)
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    axes: Any = figure.subplots()
    _line(axes, made.past_start, step, made.past, color="#5b6b7a", label="observed")
    if made.expected:
        moments, values = _stairs(made.start, step, made.expected)
        axes.fill_between(
            moments,
            _stairs(made.start, step, made.low)[1],
            _stairs(made.start, step, made.high)[1],
            color="#1a6fb5",
            alpha=0.18,
            linewidth=0,
            label="80 % interval",
        )
        axes.plot(moments, values, color="#1a6fb5", linewidth=1.8, label="expected")
    for window in made.windows[:1]:
        axes.axvspan(window.start, window.end, color="#0b7a5c", alpha=0.25, linewidth=0, label=_best(window))
    axes.axvline(made.now, color="#222222", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("gCO2eq/kWh")
    axes.set_title(f"{made.zone or made.provider}, {made.now:%Y-%m-%d %H:%M} UTC", loc="left", fontsize=11)
    axes.xaxis.set_major_locator(dates.DayLocator())
    axes.xaxis.set_major_formatter(dates.DateFormatter("%a %d %b"))
    axes.xaxis.set_minor_locator(dates.HourLocator(byhour=(6, 12, 18)))
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=4, frameon=False, fontsize=8)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise GridsweepError(f"cannot write {path}: {error}; name a .png file in a folder that exists") from None


def _best(window: Window) -> str:
    return f"best {hours((window.end - window.start) / HOUR)}: {window.intensity:.0f} g/kWh"


def _line(axes: Any, start: datetime, step: timedelta, values: tuple[float | None, ...], **looks: Any) -> None:
    moments, levels = _stairs(start, step, values)
    axes.plot(moments, levels, linewidth=1.8, **looks)


def _stairs(start: datetime, step: timedelta, values: tuple[float | None, ...]) -> tuple[list[datetime], list[float]]:
    """Return both ends of every slot with its value, so that each slot is drawn at its full length."""
    moments = [start + (i + side) * step for i in range(len(values)) for side in (0, 1)]
    return moments, [v for value in or_nan(values).tolist() for v in (value, value)]


def _level(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}"


def _clock(moment: datetime) -> str:
    return f"{moment:%a %d %b %H:%M}"
