"""Warnings about tier limits that have no effect on a given grid."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon.outlook import WEEK
from gridsweep.carbon.readings import Reading
from gridsweep.carbon.spans import hours
from gridsweep.policy.registry import uses_limits
from gridsweep.sweep.sweep import Sweep
from gridsweep.sweep.tiers import TRAILING, Percentile


def useless_limits(sweep: Sweep, reading: Reading, now: datetime) -> list[str]:
    """Return a warning for each tier whose limit every slot, or no slot, of the last week met.

    A sweep whose policy ignores the limits gets a warning only if the grid cannot be read.
    """
    if not uses_limits(sweep):
        return [f"the grid cannot be read: {reading.why}"] if reading.lost else []
    if reading.lost:
        return [f"tier limits cannot be checked without grid data: {reading.why}"]
    history, found = reading.history, []
    week = history.between(now - WEEK, now + timedelta(microseconds=1))
    known = week.values[np.isfinite(week.values)]
    if not len(known):
        return []
    marginal = reading.provenance.kind == "marginal"
    hint = " (published limits are for average intensity; this signal is marginal)" if marginal else ""
    for tier in sweep.tiers:
        limit = tier.threshold
        if isinstance(limit, Percentile):
            limit = history.percentile(limit.percent, history.end, TRAILING)
        share = float(np.mean(known <= limit))
        if share in (0.0, 1.0):
            what = "no slot" if share == 0 else "every slot"
            effect = f"work would always wait {hours(tier.max_delay)}" if share == 0 else "work would never wait"
            found.append(
                f"{tier.name}: {what} of the last week met its limit of {tier.limit}; intensity ranged from "
                f"{known.min():.0f} to {known.max():.0f} g/kWh, so {effect}; try a percentile such as p40{hint}"
            )
    return found
