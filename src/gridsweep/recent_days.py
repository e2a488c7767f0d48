"""Forecasts from history alone: what is usual at this hour, bent to the present.

At this hour of the day each of the last 28 days began a window: those are the paths. What is usual is their mean, in
which a day's weight fades by exp(-age / 14 days) and a weekend's difference is moved to where weekends lie now. The
present's deviation from it is carried on, fading by exp(-lead / 24 h). All of it is adding and scaling, so adding a
constant to the history adds it to the forecast, and multiplying multiplies.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np

from gridsweep.carbon import Column, Forecast, Trace

DAY = timedelta(hours=24)
MONDAY = datetime.fromisoformat("2024-01-01T00:00:00+00:00")
DAYS = 28
MEMORY_DAYS = 14.0
"""The weight of a day fades by a factor e in so many days."""
WEATHER = timedelta(hours=24)
"""A deviation from what is usual fades by a factor e in so long a time."""
WEEKS = 52
PRIOR_WEEKS = 4
"""Weekends count as half as different as they looked when so many weeks were seen."""


def expected(history: Trace, now: datetime, horizon: timedelta) -> Trace | None:
    """The best single guess from the present slot to `now + horizon`, gCO2eq/kWh: the mean of `recent_days`, sooner.

    None without a full day before a known present, or where a day is no whole number of slots.
    """
    seen = _windows(history, now, horizon)
    if seen is None:
        return None
    (*_, usual), wanted = seen, -(-horizon // history.step) + 1
    present = history.index(now)
    path = usual + (history.values[present] - usual[0]) * _fading(len(usual), history.step)
    return Trace(history.start + present * history.step, history.step, path[:wanted])


def recent_days(history: Trace, now: datetime, horizon: timedelta) -> Forecast | None:
    """Up to 28 paths from the present slot to `now + horizon`, gCO2eq/kWh, whose mean is the best single guess.

    None where `expected` has none. Unknown hours of the past count for nothing; a window that is not over yet goes on
    as is usual.
    """
    seen = _windows(history, now, horizon)
    if seen is None:
        return None
    (windows, moved, usual), wanted = seen, -(-horizon // history.step) + 1
    present = history.index(now)
    fading = _fading(len(usual), history.step)
    here = history.values[present]
    windows = np.where(np.isnan(windows), usual, windows + moved)
    paths = windows + (here - windows[:, :1]) * fading
    paths += usual + (here - usual[0]) * fading - paths.mean(axis=0)
    start = history.start + present * history.step
    return Forecast(now, start, history.step, paths[:, :wanted], source="the last 28 days, bent to the present")


def bent(forecast: Forecast, history: Trace) -> Forecast:
    """A forecast from the present slot on, where it is what is known; the difference fades over the slots after it.

    `history` ends in the present slot. A forecast that does not hold this slot, or an unknown present, changes nothing.
    """
    here = len(history) - 1
    if not len(history) or history.step != forecast.step or not np.isfinite(history.values[here]):
        return forecast
    slot = (history.start + here * history.step - forecast.start) // forecast.step
    if not 0 <= slot < forecast.paths.shape[1]:
        return forecast
    paths = forecast.paths[:, slot:]
    off = history.values[here] - paths[:, 0].mean()
    if not np.isfinite(off):
        return forecast
    paths = paths + off * _fading(paths.shape[1], forecast.step)
    start = forecast.start + slot * forecast.step
    return Forecast(forecast.issued_at, start, forecast.step, paths, forecast.source)


def _windows(history: Trace, now: datetime, horizon: timedelta) -> tuple[Column, Column, Column] | None:
    """The windows, (days, slots), NaN where unknown; what moves their weekends, alike; what is usual, (slots,)."""
    slots, rest = divmod(DAY, history.step)
    present = history.index(now)
    if rest or not slots <= present < len(history) or not np.isfinite(history.values[present]):
        return None
    days, wanted = min(DAYS, present // slots), (-(-horizon // history.step) // slots + 1) * slots
    covered = days * slots + 1
    tail = np.zeros(covered - 1 + wanted)
    tail[:covered] = history.values[present + 1 - covered : present + 1]
    windows: Column = np.lib.stride_tricks.sliding_window_view(tail, wanted)[::slots][days - 1 :: -1]
    slot_of_week = ((history.start - MONDAY) // history.step + present) % (7 * slots)
    weights, moved, mean_moved = _weights(slots, days, wanted, slot_of_week)
    effect = np.resize(np.roll(_weekend(history, present, slots), -(slot_of_week % slots)), wanted)
    if np.isfinite(tail).all():
        usual = np.einsum("ij,ij->j", weights, windows) + effect * mean_moved
    else:
        weights = np.where(np.isfinite(windows), weights, 0.0)
        total = weights.sum(axis=0)
        usual = (weights * np.nan_to_num(windows + effect * moved)).sum(axis=0) / np.where(total > 0, total, 1.0)
        usual[total == 0] = usual[total > 0].mean() if total.any() else history.values[present]
    if covered < wanted:  # after the last slot that any window covers, its last day goes on
        usual[covered:] = np.resize(usual[covered - slots : covered], wanted - covered)
    return np.where(weights > 0, windows, np.nan), effect * moved, usual


@lru_cache(maxsize=1024)
def _weights(slots: int, days: int, wanted: int, slot_of_week: int) -> tuple[Column, Column, Column]:
    """Of every slot of the windows its share in the mean, and how many weekends it is moved by; the latter's mean."""
    ages = np.arange(1, days + 1)[:, np.newaxis]
    weights = np.where(np.arange(wanted) <= slots * ages, np.exp(-ages / MEMORY_DAYS), 0.0)
    total = weights.sum(axis=0)
    weights = weights / np.where(total > 0, total, 1.0)
    day = (slot_of_week + np.arange(wanted)) // slots
    moved = (day % 7 >= 5).astype(float) - ((day - ages) % 7 >= 5)
    return weights, moved, (weights * moved).sum(axis=0)


@lru_cache(maxsize=64)
def _fading(slots: int, step: timedelta) -> Column:
    fading: Column = np.exp(np.arange(slots) * (-(step / WEATHER)))
    return fading


def _weekend(history: Trace, present: int, slots: int) -> Column:
    """How a weekend's slots of the day differ from a weekday's, shape (slots,), by the whole weeks seen (UTC)."""
    midnight = -((history.start - MONDAY) // history.step) % slots
    days = (present - midnight) // slots
    weeks = min(WEEKS, days // 7)
    if weeks < 1:
        return np.zeros(slots)
    end = midnight + days * slots
    seen = history.values[end - weeks * 7 * slots : end].reshape(weeks, 7, slots)
    usual = seen.mean(axis=0)
    if not np.isfinite(usual).all():
        known = np.isfinite(seen)
        usual = np.where(known, seen, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        usual = np.where(known.any(axis=0), usual, np.nan)
    first = ((history.start - MONDAY) // history.step + end) // slots % 7
    usual = np.roll(usual, first, axis=0)  # row 0 is Monday
    difference = usual[5:].mean(axis=0) - usual[:5].mean(axis=0)
    effect: Column = np.nan_to_num(difference, nan=0.0) * (weeks / (weeks + PRIOR_WEEKS))
    return effect
