"""Forecasts from history alone."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from gridsweep.carbon import Forecast, Trace

DAY = timedelta(hours=24)


def repeat_last_day(history: Trace, now: datetime, horizon: timedelta) -> Forecast | None:
    """The last 24 hours, repeated until `now + horizon`.

    Returns one path from the present slot on, or None without a full day of history up to it, or where a day
    is no whole number of slots. Unknown hours stay unknown.
    """
    slots, rest = divmod(DAY, history.step)
    present = history.index(now)
    if rest or present < 0 or len(history) < slots or present >= len(history):
        return None
    day = history.values[max(0, present + 1 - slots) : present + 1]
    if len(day) < slots:
        return None
    wanted = -(-horizon // history.step) + 1
    # The present is known, so the path opens with it; the next slot is the one a day before it.
    path = day[np.arange(-1, wanted - 1) % slots]
    start = history.start + present * history.step
    return Forecast(now, start, history.step, path[np.newaxis, :], source="last 24 hours repeated")
