"""The published sweep, replayed over a year of real start instants on every trace of a folder.

    python benchmarks/published_sweep.py TRACES

TRACES holds `ZONE_YEAR.csv` files (`timestamp,carbon_intensity`, hourly). An independent replay of the same sweep (21
jobs of 90 minutes at 425 W on 2 devices, half-hour ticks, a start every 6 h) gave the figures in REFERENCE; each
reduction must be reproduced within 0.5 points. Exits 1 where one is not.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

from gridsweep import load
from gridsweep.grid.providers.trace import open_trace
from gridsweep.simulation.backtest import simulate, start_instants
from gridsweep.simulation.conditions import Conditions

REFERENCE = {
    "US-CAL-CISO_2024": (31.5, 64.6),
    "DE_2023": (5.0, 104.0),
    "GB_2023": (20.4, 61.0),
    "NO_2023": (0.0, 16.0),
    "ZA_2023": (0.0, 104.0),
}
TOLERANCE = 0.5
SPEC = Path(__file__).parent.parent / "examples" / "published.yaml"


def main(folder: Path) -> int:
    sweep = load(SPEC)
    print(
        f"{'trace':<18}{'starts':>7}{'reduction %':>13}{'reference':>11}"
        f"{'makespan h':>12}{'reference':>11}{'late':>7}{'seconds':>9}"
    )
    missed = 0
    for name, (reduction, hours) in REFERENCE.items():
        provider = open_trace(str(folder / f"{name}.csv"))
        starts = start_instants(provider.trace, timedelta(hours=6))
        begun = time.perf_counter()
        (result,) = simulate(sweep, provider, starts, Conditions(policies=["threshold"])).policies
        seconds = time.perf_counter() - begun
        off = abs(100 * result.reduction - reduction) > TOLERANCE
        missed += off
        print(
            f"{name:<18}{len(starts):>7}{100 * result.reduction:>13.2f}{reduction:>11.1f}"
            f"{result.makespan_h_mean:>12.1f}"
            f"{hours:>11.1f}{result.late_starts:>7}{seconds:>9.1f}{'   MISSED' if off else ''}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
