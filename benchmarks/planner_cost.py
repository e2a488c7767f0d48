"""What a look of the planner costs, by the size of the sweep: seconds of one core, and memory.

    python benchmarks/planner_cost.py [--png docs/planner-cost.png]

Experiments of 90 minutes on a tenth as many devices, submitted on a synthetic grid of 5-minute slots with 96 hours
ahead; all of it has to end by then. A look is one decision of `planned` while all of it still waits: the dearest of
thirteen, six hours apart, at some of which hundreds start; the first one also judges whether waiting is worth it.
The bound is the exact optimum that never pauses.
Each size runs in a process of its own, so that its peak memory is its own. Exits 1 where 10,000 experiments on 1,000
devices take more than 10 s or 1 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from gridsweep import Sweep, load
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.readings import Provenance, Reading
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.policy.planner.planned import Planned
from gridsweep.policy.situation import Start
from gridsweep.schedule.step import situation
from gridsweep.simulation.bounds import optimum
from gridsweep.simulation.conditions import under
from gridsweep.state.events import Submitted
from gridsweep.state.observations import observed
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Experiment
from gridsweep.sweep.stints import Device

SPEC = Path(__file__).parent.parent / "examples" / "published.yaml"
SIZES = (20, 100, 500, 1_000, 2_000, 5_000, 10_000)
SLOT = timedelta(minutes=5)
START = datetime(2024, 6, 10, tzinfo=UTC)
AHEAD = 96 * HOUR
GIB = 1024 * 1024
"""In KiB, as the kernel counts."""


def sized(n: int) -> Sweep:
    """The published sweep with so many experiments on a tenth as many devices."""
    from dataclasses import replace

    sweep = under(load(SPEC), finish_by=AHEAD)
    one = sweep.experiments[0]
    experiments = tuple(Experiment(f"e{i:05}", one.params, one.seed, one.tier, one.reason) for i in range(n))
    devices = tuple(Device(f"d{i:04}", power_w=425.0) for i in range(max(1, n // 10)))
    return replace(sweep, experiments=experiments, devices=devices)


def grid() -> Trace:
    """Four weeks of history, and what comes."""
    hours = np.arange(0, (28 * 24 + 24 * 6) * 12) / 12
    noise = np.random.default_rng(5).normal(0, 20, len(hours))
    levels = 250 + 120 * np.cos(hours * 2 * np.pi / 24) + 40 * np.sin(hours * 2 * np.pi / 67) + noise
    return Trace(START - timedelta(days=28), SLOT, np.maximum(levels, 20))


def measured(n: int) -> dict[str, Any]:
    """Seconds and the peak of one size."""
    sweep, whole = sized(n), grid()
    found: dict[str, Any] = {"experiments": n, "devices": len(sweep.devices), "first": 0.0, "look": 0.0, "starts": 0}
    policy = Planned()
    for hours in range(0, 84, 6):
        now = START + hours * HOUR
        comes = whole.between(now, now + AHEAD)
        forecast = Forecast(now, now, SLOT, comes.values[np.newaxis], "synthetic")
        reading = Reading(whole.between(whole.start, now + SLOT), forecast, Provenance("synthetic"))
        state = State([Submitted(START, sweep)])
        for fact in observed(state, reading, now):
            state.apply(fact)
        begun = time.process_time()
        decisions = policy.decide(situation(state, reading, now))
        name = "look" if hours else "first"
        found[name] = max(found[name], time.process_time() - begun)
        found["starts"] = max(found["starts"], sum(isinstance(d, Start) for d in decisions))
    found["peak_look_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.process_time()
    assert optimum(sweep, whole, START) is not None
    found["bound"] = time.process_time() - begun
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory against the number of experiments, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = [row["experiments"] for row in rows]
    for name, label, colour in (
        ("first", "the first look, which judges", "#c2571a"),
        ("look", "every other look", "#1a6fb5"),
        ("bound", "the exact bound", "#444444"),
    ):
        left.loglog(sizes, [max(row[name], 1e-4) for row in rows], "o-", color=colour, label=label, markersize=4)
    left.axhline(10, color="#a02020", linewidth=0.8, linestyle=":")
    left.annotate("goal: 10 s", (sizes[0], 10), xytext=(0, 3), textcoords="offset points", fontsize=8)
    left.set_ylabel("seconds of one core")
    left.legend(frameon=False, fontsize=8)
    right.loglog(sizes, [row["peak_look_mib"] for row in rows], "o-", color="#1a6fb5", label="a look", markersize=4)
    right.loglog(sizes, [row["peak_mib"] for row in rows], "o-", color="#444444", label="with the bound", markersize=4)
    right.axhline(1024, color="#a02020", linewidth=0.8, linestyle=":")
    right.annotate("goal: 1 GiB", (sizes[0], 1024), xytext=(0, -10), textcoords="offset points", fontsize=8)
    right.set_ylabel("peak memory of the process, MiB")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("experiments, on a tenth as many devices")
        axes.grid(linewidth=0.4, alpha=0.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--png", type=Path, help="draw the cost here, too")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one)))
        return 0
    rows = []
    titles = (("experiments", 11), ("devices", 9), ("first look s", 14), ("look s", 9), ("peak MiB", 10))
    print("".join(f"{title:>{width}}" for title, width in (*titles, ("bound s", 9), ("peak MiB", 10))))
    for n in SIZES:
        told = subprocess.run([sys.executable, __file__, "--one", str(n)], check=True, capture_output=True, text=True)
        rows.append(row := json.loads(told.stdout))
        print(
            f"{row['experiments']:>11,}{row['devices']:>9,}{row['first']:>14.3f}{row['look']:>9.3f}"
            f"{row['peak_look_mib']:>10.0f}{row['bound']:>9.3f}{row['peak_mib']:>10.0f}",
            flush=True,
        )
    if given.png:
        picture(rows, given.png)
    last = rows[-1]
    dearest = max(last["first"], last["look"])
    met = dearest <= 10 and last["peak_look_mib"] <= 1024
    print(f"{'met' if met else 'MISSED'}: {last['experiments']:,} experiments on {last['devices']:,} devices "
          f"replanned in {dearest:.1f} s (<= 10 s), {last['peak_look_mib']:.0f} MiB (<= 1 GiB)")  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
