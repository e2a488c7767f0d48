"""Make the README's pictures again: the demo's plan and its report.

    python scripts/pictures.py [--run FOLDER] [--to docs/pictures]

`plan.png` is what `gridsweep plan examples/demo.yaml --png` draws. `report.png` shows the figures of the demo's HTML
report: when it trained and at which carbon intensity, how far the experiments are apart, and what the same work emits
otherwise. Without `--run` the demo is run first, in a temporary folder (about four minutes on two cores). Needs the
extras `train` and `report`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from matplotlib import dates
from matplotlib.figure import Figure
from PIL import Image

from gridsweep import load, plan, report, run
from gridsweep.accounting.report import Bar, Report
from gridsweep.render.figures import percent
from gridsweep.render.pictures import TIER_COLOURS
from gridsweep.render.plan import png

ROOT = Path(__file__).parent.parent
COLOURS = 128
"""So many colours a picture keeps: a third of the bytes, and no visible difference."""
SHOWN = 6
"""So many experiments are listed at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished run of examples/demo.yaml; otherwise it is run first")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    demo = load(ROOT / "examples" / "demo.yaml")
    png(plan(demo), options.to / "plan.png")
    with tempfile.TemporaryDirectory() as folder:
        made = report(options.run) if options.run else run(demo, Path(folder) / "demo").report
    if made.reduction is None:
        sys.exit("the run has no saving to show; name a finished run of examples/demo.yaml")
    draw(made, options.to / "report.png")
    for picture in (options.to / "plan.png", options.to / "report.png"):
        shrink(picture)
        print(f"wrote {picture}, {picture.stat().st_size / 1000:.0f} kB")


def shrink(path: Path) -> None:
    """Reduce a PNG to a width of 1200 pixels and to a palette, in place."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        if image.width > 1200:
            image = image.resize((1200, round(image.height * 1200 / image.width)), Image.Resampling.LANCZOS)
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def draw(made: Report, path: Path) -> None:
    """Draw the figures of a report into one PNG."""
    colours = {name: TIER_COLOURS[i % len(TIER_COLOURS)] for i, name in enumerate(made.thresholds)}
    figure = Figure(figsize=(10, 7.2), dpi=150, layout="constrained")
    rows = figure.add_gridspec(3, 2, height_ratios=(2.2, 1.2, 1.9), width_ratios=(1.1, 1))
    grid = figure.add_subplot(rows[0, :])
    work = figure.add_subplot(rows[1, :], sharex=grid)
    intensity(grid, made, colours)
    devices(work, made, colours)
    losses(figure.add_subplot(rows[2, 0]), made, colours)
    ways(figure.add_subplot(rows[2, 1]), made)
    for axes in figure.axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    grid.set_title(
        f"{made.sweep}: {percent(made.reduction)} less carbon than at once, in {made.makespan_h:.1f} h "
        f"instead of {made.immediate_makespan_h:.1f} h (synthetic grid)",
        loc="left",
        fontsize=11,
    )
    figure.savefig(path, format="png")


def stints(bars: Sequence[Bar]) -> Mapping[tuple[str, datetime, datetime], list[Bar]]:
    """Group the bars that were trained in one go."""
    found: dict[tuple[str, datetime, datetime], list[Bar]] = {}
    for bar in bars:
        found.setdefault((bar.device, bar.start, bar.end), []).append(bar)
    return found


def shade(members: Sequence[Bar], colours: Mapping[str, str]) -> str:
    """The tier's colour, or a neutral one for a pack of several tiers."""
    return colours[members[0].tier] if len({bar.tier for bar in members}) == 1 else "#3d4c57"


def intensity(axes: Any, made: Report, colours: Mapping[str, str]) -> None:
    """Carbon intensity over time, with the stints on it."""
    step = timedelta(hours=made.intensity_step_h)
    edges = [made.intensity_start + i * step for i in range(len(made.intensity) + 1)]
    values = [float("nan") if value is None else value for value in made.intensity]
    axes.stairs(values, edges, baseline=None, color="#8a98a3", linewidth=1.4, label="carbon intensity")
    for (_, start, end), members in stints(made.bars).items():
        for left, level in zip(edges, values, strict=False):
            first, last = max(start, left), min(end, left + step)
            if first < last:
                axes.plot([first, last], [level, level], color=shade(members, colours), linewidth=5,
                          solid_capstyle="butt")  # fmt: skip
    axes.axvline(made.submitted_at, color="#222222", linewidth=0.8, linestyle=":")
    axes.text(made.submitted_at, 4, " submitted", fontsize=8, va="bottom")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("gCO2eq/kWh")
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.tick_params(axis="x", labelbottom=False)


def devices(axes: Any, made: Report, colours: Mapping[str, str]) -> None:
    """What ran on which device, and hatched above it the same work run at once."""
    names = sorted({bar.device for bar in made.bars})
    for hatch, bars in (("////", made.immediate_bars), ("", made.bars)):
        for (device, start, end), members in stints(bars).items():
            colour = shade(members, colours)
            axes.barh(names.index(device), end - start, left=start, height=0.7, color="white" if hatch else colour,
                      edgecolor="#8a98a3" if hatch else "white", hatch=hatch, linewidth=0.7)  # fmt: skip
            if not hatch and len(members) > 1 and (end - start) > timedelta(minutes=30):
                axes.text(start + (end - start) / 2, names.index(device), f"{len(members)}", color="white",
                          ha="center", va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(dates.DateFormatter("%a %H:%M"))
    axes.set_xlabel("UTC; solid: as it ran, with the number of experiments in a pack; hatched: at once", fontsize=8)


def losses(axes: Any, made: Report, colours: Mapping[str, str]) -> None:
    """How far each experiment trained to the end is from the best, with 95 % intervals and the stated noise."""
    rows = [row for row in made.rows if row.place is not None and row.loss is not None][:SHOWN]
    best = rows[0].loss or 0.0
    noise = made.loss_noise or 0.0
    axes.axvspan(0, noise, color="#1a6fb5", alpha=0.12, linewidth=0)
    for y, row in enumerate(rows):
        x = (row.loss or 0.0) - best
        if row.low is not None and row.high is not None:
            half = (row.high - row.low) / 2
            axes.plot([x - half, x + half], [y, y], color=colours[row.tier], linewidth=2)
        axes.plot([x], [y], "o", color=colours[row.tier], markersize=7)
    named = [f"{row.place}  r{row.r}, alpha {row.alpha:g}\nlr {row.lr:g}, dropout {row.dropout:g}" for row in rows]
    axes.set_yticks(range(len(rows)), named, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Trained to the end: loss above the best, 95 % interval", loc="left", fontsize=10)
    axes.set_xlabel(f"validation loss above {best:.4f}; shaded: what another seed may change", fontsize=8)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)


def ways(axes: Any, made: Report) -> None:
    """What the same work emits as it ran, under the published gate, and at once."""
    assert made.immediate_g is not None and made.saving_g is not None
    found = [(way.name, way.emissions_g) for way in getattr(made, "alternatives", ()) if way.emissions_g is not None]
    found = found or [("this run", made.immediate_g - made.saving_g), ("at once", made.immediate_g)]
    names, emitted = [name for name, _ in found], [grams * 1000 for _, grams in found]
    bars = axes.barh(names, emitted, height=0.6, color=["#0b7a5c"] + ["#b9c3ca"] * (len(found) - 1))
    axes.bar_label(bars, [f"{mg:.1f} mg" for mg in emitted], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Emissions of the same work", loc="left", fontsize=10)
    axes.set_xlabel("mg CO2eq", fontsize=8)


if __name__ == "__main__":
    main()
