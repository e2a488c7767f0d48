"""A backtest as a table, and as a picture of saving against makespan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from gridsweep.carbon.readings import Provenance, titled
from gridsweep.errors import GridsweepError
from gridsweep.render.figures import energy, grams, hours, percent
from gridsweep.render.screen import console, table
from gridsweep.simulation.backtest import Simulation
from gridsweep.simulation.comparison import Bound, PolicyResult
from gridsweep.sweep.counting import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "policy", "less carbon", "p10", "p50", "p90", "of achievable", "makespan", "p90", "emissions", "energy",
    "at once", "pauses", "late starts", "late ends",
)  # fmt: skip
COLOURS = ("#1a6fb5", "#0b7a5c", "#c2571a", "#8a3ea8", "#b8860b", "#444444")


def text(made: Simulation, grid: Provenance) -> None:
    """Print the policies side by side, the bounds below, and the conditions of the backtest."""
    out = console()
    rows = table(*COLUMNS, right=COLUMNS[1:])
    for p in made.policies:
        rows.add_row(
            p.name, percent(p.reduction), percent(p.reduction_p10), percent(p.reduction_p50), percent(p.reduction_p90),
            percent(p.share_of_bound) if p.share_of_bound is not None else "", hours(p.makespan_h_mean),
            hours(p.makespan_h_p90), grams(p.emissions_g_mean), energy(p.kwh_mean), percent(p.never_waited),
            f"{p.pauses_mean:.1f}", str(p.late_starts), str(p.late_ends),
        )  # fmt: skip
    out.print(rows)
    out.print()
    for bound, rule in _bounds(made):
        short = "" if bound.starts == made.starts else f" (over {bound.starts} starts whose deadlines can be met)"
        proven = "" if bound.proven else ", or slightly more"
        out.print(f"achievable {rule}: {percent(bound.reduction)} in {hours(bound.makespan_h_mean)}{proven}{short}")
    if made.chain:
        parts = " → ".join(f"{members} up to step {step}" for members, step in made.chain)
        out.print(f"rungs: {parts} (ties would add experiments)")
    if made.energy_share is not None:
        source = (
            f", from costs measured on: {escape(made.measured)}" if made.measured else ", from the spec's estimates"
        )
        out.print(f"energy: {percent(made.energy_share)} of the energy of {escape(made.against or '')}{source}")
    within = f", all within {hours(made.finish_by_h)}" if made.finish_by_h is not None else ""
    if made.unknown_starts:
        left = counted(made.unknown_starts, "start")
        out.print(f"{left} left out: from there, some work falls into hours of unknown intensity")
    out.print(
        f"{made.starts} starts on {counted(made.devices, 'device')}{within}, "
        f"{escape(titled(grid.title, grid.quality))}, forecast: {escape(made.forecast)}; against running "
        f"{escape(made.against) + ' ' if made.against else ''}at once on the same devices"
    )


def png(made: Simulation, path: Path, title: str = "") -> None:
    """Write a PNG of saving against makespan: one point per policy with its spread over the starts, and the bounds.

    Raise `GridsweepError` if matplotlib is missing or the path cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GridsweepError("a picture needs the extra `report`; pip install 'gridsweep[report]'") from None
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    for i, p in enumerate(made.policies):
        _point(axes, p, COLOURS[i % len(COLOURS)])
    for bound, rule in _bounds(made):
        dashes = "--" if rule == NEVER else ":"
        label = f"achievable {rule}: {percent(bound.reduction)}"
        axes.axhline(100 * bound.reduction, color="#555555", linewidth=1, linestyle=dashes, label=label)
    axes.axhline(0, color="#999999", linewidth=0.6)
    axes.set_xlabel("mean makespan, h (line: to the 90th percentile)")
    axes.set_ylabel("less carbon than at once, % (line: 10th to 90th percentile)")
    axes.set_xlim(left=0)
    axes.set_title(title or f"{made.starts} starts on {counted(made.devices, 'device')}", loc="left", fontsize=11)
    axes.grid(linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, frameon=False, fontsize=8)
    try:
        figure.savefig(path, format="png")
    except (OSError, ValueError) as error:
        raise GridsweepError(f"cannot write {path}: {error}; name a .png file in a folder that exists") from None


NEVER, PAUSING = "without pauses", "with free pauses"


def _bounds(made: Simulation) -> list[tuple[Bound, str]]:
    return [(bound, rule) for bound, rule in ((made.bound, NEVER), (made.bound_pausing, PAUSING)) if bound]


def _point(axes: Axes, p: PolicyResult, colour: str) -> None:
    x, y = p.makespan_h_mean, 100 * p.reduction
    spread = [[max(0.0, y - 100 * p.reduction_p10)], [max(0.0, 100 * p.reduction_p90 - y)]]
    axes.errorbar(x, y, yerr=spread, xerr=[[0.0], [max(0.0, p.makespan_h_p90 - x)]], fmt="o", color=colour,
                  elinewidth=0.8, capsize=2, label=f"{p.name}: {percent(p.reduction)} in {hours(x)}")  # fmt: skip
    axes.annotate(p.name, (x, y), xytext=(6, 6), textcoords="offset points", fontsize=8, color=colour)
