"""A plan as text and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any  # matplotlib's types know no dates

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gridsweep.carbon.traces import HOUR, or_nan
from gridsweep.errors import GridsweepError
from gridsweep.render.figures import energy, energy_scale, grams, hours, mass_scale, percent
from gridsweep.render.glance import clock
from gridsweep.render.pictures import TIER_COLOURS
from gridsweep.render.screen import console, table
from gridsweep.simulation.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT = 0.72
"""Height of a bar; the lanes lie 1 apart."""
DIGIT_EM = 0.64
"""Width of a digit in the picture's font, as a part of the font's size."""
WIDTH_PT = 640
"""Width of the time axis in points: that of the picture without the names of the devices."""
ROOM = 24
"""Largest number of devices that get a lane each in the picture; beyond it, devices are counted."""


def text(made: Plan) -> None:
    """Print the planned start times, the expected saving, and the notes of a plan."""
    out = console()
    out.print(_table(made))
    if any(len(row.legs) > 1 for row in made.rows):
        out.print("[dim]from step: the experiment resumes at this step, after a rung or a pause[/dim]")
    _summary(out, made)
    for note in made.notes:
        out.print(f"[yellow]{escape(note)}[/yellow]")
    if made.misses_finish_by:
        out.print(f"[red]the plan misses the deadline of {clock(made.deadline)} UTC[/red]")


def _table(made: Plan) -> Table:
    """Return a table with one row per experiment and one for each of its further legs."""
    mass = mass_scale(value for row in made.rows for value in (row.emissions_now_g, row.emissions_high_g))
    kwh = energy_scale(row.energy_kwh for row in made.rows)
    now, planned, band = f"now, {mass.unit}", f"planned, {mass.unit}", "80 % interval"
    columns = (
        "experiment", "tier", "device", "earliest", "planned", "until", "latest", kwh.unit, now, planned, band, "why",
    )  # fmt: skip
    rows = table(*columns, right=(kwh.unit, now, planned, band))
    for row in made.rows:
        latest = clock(row.latest_start)
        rows.add_row(
            row.experiment,
            escape(row.tier),
            escape(row.device),
            clock(row.earliest),
            clock(row.start),
            clock(row.legs[0].end),
            f"[red]{latest}, {hours(row.late_h)} late[/red]" if row.late_h else latest,
            kwh.text(row.energy_kwh),
            mass.text(row.emissions_now_g),
            mass.text(row.emissions_g),
            _range(mass.text, row.emissions_low_g, row.emissions_high_g),
            escape(row.why),
        )
        for leg in row.legs[1:]:
            begin, device = f"  from step {leg.from_step}", escape(leg.device)
            cells = (begin, "", device, "", clock(leg.start), clock(leg.end), *[""] * 5, escape(leg.why))
            rows.add_row(*cells, style="dim")
    return rows


def _summary(out: Console, made: Plan) -> None:
    """Print the planned emissions beside running at once, and the spread of the saving."""
    wait, atonce = (made.finish - made.issued_at) / HOUR, (made.finish_immediate - made.issued_at) / HOUR
    source = made.source if made.quality in made.source else f"{made.source}, {made.quality}"
    out.print(f"\nforecast: {escape(made.forecast)} ({escape(source)}), times in UTC")
    out.print(f"at once:  {grams(made.emissions_immediate_g)}, done after {hours(atonce)}")
    between = _range(grams, made.emissions_low_g, made.emissions_high_g)
    out.print(
        f"planned:  {grams(made.emissions_g)}{f' ({between})' if between else ''} with {energy(made.energy_kwh)}, "
        f"done after {hours(wait)} ({clock(made.finish)}), {made.slow_down:.1f} times as long"
    )
    if made.unknown_kwh:
        out.print("saving:   unknown, because part of the forecast is unknown")
    else:
        less = f"{percent(abs(made.reduction))} {'less' if made.reduction >= 0 else 'more'}"
        out.print(f"saving:   {less}, if the forecast is correct")
    if made.saving_p50 is not None:
        spread = " / ".join(percent(p) for p in (made.saving_p10, made.saving_p50, made.saving_p90))
        out.print(f"likely:   {spread} (p10 / p50 / p90): {escape(made.saving_from)}")
    if made.past_p50 is not None and made.past_from != made.saving_from:
        spread = " / ".join(percent(p) for p in (made.past_p10, made.past_p50, made.past_p90))
        out.print(f"past:     {spread} (p10 / p50 / p90): {escape(made.past_from)}")
    if made.idle_kwh:
        out.print(f"idle:     {energy(made.idle_kwh)}, {grams(made.idle_g)}, counted in both")


def _range(written: Callable[[float], str], low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{written(low)} to {written(high)}"


def png(made: Plan, path: Path) -> None:
    """Write `picture` as a PNG file.

    Raise `GridsweepError` if matplotlib is missing or the path cannot be written.
    """
    try:
        picture(made).savefig(path, format="png")
    except (OSError, ValueError) as error:
        raise GridsweepError(f"cannot write {path}: {error}; name a .png file in a folder that exists") from None


def picture(made: Plan) -> Figure:
    """Return a matplotlib figure: the forecast with its band, and below it every stint on its device.

    Raise `GridsweepError` if matplotlib is missing.
    """
    try:
        from matplotlib import dates
        from matplotlib.figure import Figure
    except ImportError:
        raise GridsweepError("a picture needs the extra `report`; pip install 'gridsweep[report]'") from None
    lanes = len(made.devices) if len(made.devices) <= ROOM else 8
    figure = Figure(figsize=(10, 3.6 + 0.26 * lanes), dpi=150, layout="constrained")
    grid, work = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 0.3 + 0.26 * lanes))
    _forecast(grid, made)
    tiers = list(dict.fromkeys(row.tier for row in sorted(made.rows, key=lambda row: row.latest_start)))
    colours = {tier: TIER_COLOURS[i % len(TIER_COLOURS)] for i, tier in enumerate(tiers)}
    (_bars if len(made.devices) <= ROOM else _counts)(work, made, colours)
    end = made.intensity_start + len(made.intensity) * timedelta(hours=made.intensity_step_h)
    for axes in (grid, work):
        axes.axvline(made.issued_at, color="#222222", linewidth=0.8, linestyle=":")
        if made.deadline is not None and made.deadline <= end:
            axes.axvline(made.deadline, color="#a02020", linewidth=1.0, label="finish_by")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    grid.set_title(_title(made), loc="left", fontsize=11)
    work.xaxis.set_major_locator(dates.DayLocator())
    work.xaxis.set_major_formatter(dates.DateFormatter("%a %d %b"))
    work.xaxis.set_minor_locator(dates.HourLocator(byhour=(6, 12, 18)))
    handles, labels = (a + b for a, b in zip(*(axes.get_legend_handles_labels() for axes in (grid, work)), strict=True))
    found = dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), [_plain(label) for label in found], loc="outside lower left", ncols=9, frameon=False, fontsize=8
    )
    return figure


def _plain(label: str) -> str:
    """Return text that matplotlib shows literally, with dollar signs escaped."""
    return label.replace("$", r"\$")


def _title(made: Plan) -> str:
    saving = "saving unknown" if made.unknown_kwh else f"{percent(made.reduction)} less than at once"
    if made.saving_p50 is not None:
        saving += f" (likely {percent(made.saving_p10)} to {percent(made.saving_p90)})"
    return _plain(f"{made.sweep}, {made.policy}: {saving}, in {hours((made.finish - made.issued_at) / HOUR)}")


def _forecast(axes: Any, made: Plan) -> None:
    """Draw observed and expected intensity as steps; forecast slots have a band."""
    step = timedelta(hours=made.intensity_step_h)
    edges = [made.intensity_start + i * step for i in range(len(made.intensity) + 1)]
    levels = or_nan(made.intensity).tolist()
    split = sum(edge <= made.issued_at for edge in edges[:-1])
    before, after = slice(0, split), slice(max(0, split - 1), None)
    for part, colour, label in ((before, "#5b6b7a", "observed"), (after, "#1a6fb5", "expected")):
        if shown := levels[part]:
            axes.stairs(shown, edges[part] + [edges[part][-1] + step] if part is before else edges[after],
                        baseline=None, color=colour, linewidth=1.6, label=label)  # fmt: skip
    if made.intensity_low:
        low, high = or_nan(made.intensity_low), or_nan(made.intensity_high)
        axes.fill_between(
            edges, [*low, low[-1]], [*high, high[-1]], step="post", color="#1a6fb5", alpha=0.18, linewidth=0,
            label="80 % interval",
        )  # fmt: skip
    axes.axvspan(made.issued_at, made.finish_immediate, ymax=0.03, color="#8c8c8c", alpha=0.9, linewidth=0,
                 label="duration when run at once")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("gCO2eq/kWh")
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


@dataclass(frozen=True, slots=True)
class _Stint:
    """Legs that a device trains together, with the number of experiments per tier."""

    device: str
    start: datetime
    end: datetime
    tiers: Mapping[str, int]


def _stints(made: Plan) -> list[_Stint]:
    """Return every stint once, with its experiments counted by tier."""
    found: dict[tuple[str, datetime, datetime], Counter[str]] = {}
    for row in made.rows:
        for leg in row.legs:
            found.setdefault((leg.device, leg.start, leg.end), Counter())[row.tier] += 1
    return [_Stint(*place, tiers) for place, tiers in found.items()]


def _bars(axes: Any, made: Plan, colours: dict[str, str]) -> None:
    """Draw a lane per device with a bar per stint; tiers share the bar's height, a number counts experiments."""
    at = {name: i for i, name in enumerate(made.devices)}
    stints = _stints(made)
    for tier, colour in colours.items():
        lot = [stint for stint in stints if stint.tiers.get(tier)]
        heights = [HEIGHT * stint.tiers[tier] / sum(stint.tiers.values()) for stint in lot]
        tops = [at[stint.device] + _above(stint, tier, colours) for stint in lot]
        axes.barh(
            [top + height / 2 for top, height in zip(tops, heights, strict=True)],
            [stint.end - stint.start for stint in lot], left=[stint.start for stint in lot],
            height=heights, color=colour, linewidth=0, label=tier,
        )  # fmt: skip
    axes.barh(  # the outline: a line between the tiers would strike through the number
        [at[stint.device] for stint in stints], [stint.end - stint.start for stint in stints],
        left=[stint.start for stint in stints], height=HEIGHT, color="none", edgecolor="white", linewidth=0.6,
    )  # fmt: skip
    for stint in stints:
        _number(axes, made, stint, at[stint.device], _space_after(stint, stints))
    axes.set_yticks(range(len(at)), [_plain(name) for name in at], fontsize=8)
    axes.set_ylim(len(at) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _number(axes: Any, made: Plan, stint: _Stint, lane: int, after: timedelta | None) -> None:
    """Write how many experiments a stint trains together into its bar; behind it, if it fits only there.

    `after` is the free time on the device behind the stint, None if it is endless.
    """
    together = sum(stint.tiers.values())
    if together == 1:
        return
    shown = len(made.intensity) * timedelta(hours=made.intensity_step_h)
    look: dict[str, Any] = {"va": "center", "clip_on": True}
    for size in (7, 5):
        needed = shown * ((DIGIT_EM * size * len(str(together)) + 2) / WIDTH_PT)
        if stint.end - stint.start >= needed:
            middle = stint.start + (stint.end - stint.start) / 2
            axes.text(middle, lane, str(together), ha="center", fontsize=size, color="white", **look)
            return
    if after is None or after >= needed:
        axes.text(stint.end, lane, f" {together}", ha="left", fontsize=5, color="#222222", **look)


def _space_after(stint: _Stint, stints: Sequence[_Stint]) -> timedelta | None:
    later = [other.start - stint.end for other in stints if other.device == stint.device and other.start >= stint.end]
    return min(later, default=None)


def _above(stint: _Stint, tier: str, colours: Mapping[str, str]) -> float:
    """Return the offset of a tier's part of a bar from the middle of its lane."""
    before = list(colours)[: list(colours).index(tier)]
    share = sum(stint.tiers.get(other, 0) for other in before) / sum(stint.tiers.values())
    return HEIGHT * (share - 0.5)


def _counts(axes: Any, made: Plan, colours: dict[str, str]) -> None:
    """Draw the number of busy devices by tier; a device that trains several tiers counts in parts."""
    stints = _stints(made)
    edges = sorted({moment for stint in stints for moment in (stint.start, stint.end)})
    floor = [0.0] * (len(edges) - 1)
    for tier, colour in colours.items():
        top = [below + n for below, n in zip(floor, _busy(edges, stints, tier), strict=True)]
        axes.stairs(top, edges, baseline=floor, fill=True, color=colour, label=tier)
        floor = top
    axes.set_ylabel(f"devices of {len(made.devices)}")
    axes.set_ylim(0, len(made.devices))


def _busy(edges: Sequence[datetime], stints: Sequence[_Stint], tier: str) -> list[float]:
    """Return the number of devices that train a tier between each edge and the next."""
    change = dict.fromkeys(edges, 0.0)
    for stint in stints:
        share = stint.tiers.get(tier, 0) / sum(stint.tiers.values())
        change[stint.start] += share
        change[stint.end] -= share
    count, found = 0.0, []
    for edge in edges[:-1]:
        count += change[edge]
        found.append(count)
    return found
