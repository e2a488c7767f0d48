"""A forecast from history alone, with scenarios and past errors, and its blend with a provider's.

The week to come is expected to be the mean of the last 28 days at the same time of day: two thirds of the weight fall
by a fifth with every day back, one third is the same weekday's. How far the present is off that mean fades with
24 hours. Nothing leaves the range that the 28 days have seen. All of it is additive: a constant added to the history is
added to every expected value, and changes no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import DAY, Column, Trace

Mask = npt.NDArray[np.bool_]

DAYS = 28
FADE = timedelta(hours=24)
"""A deviation is down to 37 percent after so long."""
LATEST = timedelta(hours=6)
"""So old a slot may stand for an unknown present."""
SOURCE = "our own forecast from history"


def _weights() -> tuple[Column, Column]:
    """What the last 28 days count, oldest first: for each of the next 7 days, shape (7, 28), and beside the present."""
    fading = 0.8 ** np.arange(DAYS - 1, -1, -1.0)
    week = np.tile(2 / 3 * fading / fading.sum(), (7, 1))
    for ahead in range(1, 8):
        week[ahead - 1, DAYS - 1 + ahead - 7 * np.arange(1, 5)] += 1 / 12
    present = week[6].copy()
    present[-1] = 0.0  # the present is measured against the days before it
    return week, present


_WEEK, _PRESENT = _weights()


def from_history(history: Trace, now: datetime, horizon: timedelta) -> Forecast | None:
    """What the history up to the slot of `now` lets expect, from that slot until `now + horizon`.

    Unknown slots are passed over; a time of day that no day knows lies on the line between its neighbours. Scenarios
    and past errors are made when asked for, from up to 28 days more. None with less than 24 hours known in the
    last 28 days, or where a day is no whole number of slots.
    """
    a_day, rest = divmod(DAY, history.step)
    present = history.index(now)
    late = present + 1 - len(history)
    if rest or present < 0 or late > DAYS * a_day:
        return None
    values = history.values[: present + 1]
    if late > 0:
        values = np.concatenate([values, np.full(late, np.nan)])
    slots = max(1, -(-horizon // history.step) + 1)
    point = _expected(values, a_day, slots)
    if point is None:
        return None
    return Forecast(
        now,
        history.start + present * history.step,
        history.step,
        lambda: _scenarios(values, a_day, point),
        SOURCE,
        point,
        lambda: _reissued(values, a_day, slots),
    )


def _expected(values: Column, a_day: int, slots: int) -> Column | None:
    """The point forecast from the last of `values` on, shape (slots,); None with less than a day known."""
    recent = values[-DAYS * a_day :]
    if len(recent) < DAYS * a_day:
        recent = np.concatenate([np.full(DAYS * a_day - len(recent), np.nan), recent])
    days = recent.reshape(DAYS, a_day)
    known = np.isfinite(days)
    count = np.count_nonzero(known)
    if count < a_day:
        return None
    if count == known.size:
        week, low, high = _WEEK @ days, days.min(), days.max()
    else:
        week = _mean_week(np.where(known, days, 0.0), known)
        low, high = days[known].min(), days[known].max()
    off, age = _deviation(days, known)
    point = np.empty(slots)
    expected = np.resize(week, slots - 1)
    np.clip(expected + off * _fading(slots - 1, a_day, 1 + age), low, high, out=point[1:])
    point[0] = values[-1] if known[-1, -1] else np.clip(week[-1, -1] + off * _fading(1, a_day, age)[0], low, high)
    return point


def _mean_week(filled: Column, known: Mask) -> Column:
    """The next 7 days as the mean of those known, shape (7, slots a day)."""
    weight = _WEEK @ known
    never = weight <= 0
    week = (_WEEK @ filled) / np.where(never, 1.0, weight)
    if never.any():
        # Nobody knows these times of day: the line between those before and after, round the clock.
        flat, at = week.ravel(), np.arange(week.size)
        there = ~never.ravel()
        week = np.interp(at, at[there], flat[there], period=week.size).reshape(week.shape)
    return week


def _deviation(days: Column, known: Mask) -> tuple[float, int]:
    """How far the last known slot is off the days before it, and how many slots old it is; 0 where nobody can say."""
    a_day = days.shape[1]
    for age in range(min(a_day, int(LATEST / DAY * a_day) + 1)):
        if known[-1, -1 - age]:
            beside = known[:, -1 - age] * _PRESENT
            weight = beside.sum()
            if weight <= 0:
                break
            usual = np.where(beside > 0, days[:, -1 - age], 0.0) @ beside / weight
            return float(days[-1, -1 - age] - usual), age
    return 0.0, 0


def _fading(slots: int, a_day: int, first: int = 0) -> Column:
    """What is left of a deviation `first` slots after it and in the slots that follow, shape (slots,)."""
    return np.asarray(np.exp(np.arange(first, first + slots) * (-(DAY / FADE) / a_day)))


def _scenarios(values: Column, a_day: int, point: Column) -> Column:
    """The point forecast, and around it how the last 28 days' own courses from this time of day differ.

    Each course is bent to begin at the present, as deviations fade. Shape (paths, slots), paths at most 28: only
    courses that have ended count, so that 28 need 28 days and the horizon. One path, the point, without any.
    """
    slots = len(point)
    first = max(1, -(-(slots - 1) // a_day))
    starts = len(values) - 1 - a_day * np.arange(first, first + DAYS)
    courses = values[starts[starts >= 0][:, np.newaxis] + np.arange(slots)]
    courses = courses[np.isfinite(courses[:, 0])]
    if not len(courses):
        return point[np.newaxis, :]
    bent = courses - courses[:, :1] * _fading(slots, a_day)
    known = np.isfinite(bent)
    if known.all():
        differ = bent - bent.mean(axis=0)
    else:
        mean = np.where(known, bent, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        differ = np.where(known, bent - mean, 0.0)
    seen = values[-DAYS * a_day :]
    paths: Column = np.clip(point + differ, np.fmin.reduce(seen), np.fmax.reduce(seen))
    return paths


def _reissued(values: Column, a_day: int, slots: int) -> tuple[Column, Column]:
    """The same forecast 1 to 28 days ago, from what was known then, and what came of it; shapes (issues, slots)."""
    expected, came = [], []
    for then in range(len(values) - a_day, max(0, len(values) - (DAYS + 1) * a_day), -a_day):
        point = _expected(values[:then], a_day, slots)
        if point is not None:
            seen = values[then - 1 : then - 1 + slots]
            expected.append(point)
            came.append(np.concatenate([seen, np.full(slots - len(seen), np.nan)]))
    return np.reshape(expected, (-1, slots)), np.reshape(came, (-1, slots))


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
    paths = paths + off * _fading(paths.shape[1], DAY // forecast.step)
    start = forecast.start + slot * forecast.step
    return Forecast(forecast.issued_at, start, forecast.step, paths, forecast.source)


def with_past(given: Forecast, earlier: Sequence[Forecast], history: Trace) -> Forecast:
    """A provider's forecast that knows how earlier ones of it came out, by lead, as far as the history tells.

    Its errors are those of the same time of day where the earlier ones were issued a whole number of days before.
    """

    def past() -> tuple[Column, Column]:
        length = len(given.mean)
        expected, came = np.empty((len(earlier), length)), np.empty((len(earlier), length))
        for row, before in enumerate(earlier):
            start = given.start - (given.issued_at - before.issued_at)
            slots = Trace(start, given.step, np.empty(length))
            expected[row], came[row] = _on_slots(before.mean, slots), _on_slots(history, slots)
        return expected, came

    return Forecast(given.issued_at, given.start, given.step, given.paths, given.source, given.mean.values, past)


def blend(own: Forecast, given: Forecast) -> Forecast:
    """A provider's forecast, and ours where ours is known to err less, over the slots of ours.

    By day ahead: ours counts nothing where it erred as much as the provider, and all where it erred half as much. While
    the provider's errors are not known it counts only where the provider says nothing. Scenarios and past
    errors are ours about the blend, shrunk to its error; the latter are unknown where that is.
    """
    point = own.mean.values
    told = _on_slots(given.mean, own.mean)
    theirs = _on_slots(Trace(given.start, given.step, _by_day(given.error, max(1, DAY // given.step))), own.mean)
    ours = _by_day(own.error, DAY // own.step)
    known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
    ratio = np.divide(theirs, ours, out=np.ones(len(point)), where=known)  # below 1 where ours errs more
    weight = np.clip(2 - 2 / np.maximum(ratio, 0.5), 0.0, 1.0)
    weight[~np.isfinite(told)] = 1.0
    weight[0] = 1.0  # the present, which ours begins with
    mixed = np.where(weight < 1, weight * point + (1 - weight) * np.nan_to_num(told), point)
    shrink = weight + (1 - weight) * np.minimum(1.0, ratio)

    def paths() -> Column:
        around: Column = np.maximum(0.0, mixed + shrink * (own.paths - point))
        return around

    def past() -> tuple[Column, Column]:
        expected, came = own.past
        return np.where(weight == 1, expected, np.where(known, came - shrink * (came - expected), np.nan)), came

    source = own.source if (weight == 1).all() else given.source
    return Forecast(own.issued_at, own.start, own.step, paths, source, mixed, past)


def _by_day(error: Column, a_day: int) -> Column:
    """The mean error of each day ahead, on the line between the days' middles; shape (slots,), NaN where unknown."""
    ahead = np.arange(len(error)) - 0.5
    days = [error[1 + first : 1 + first + a_day] for first in range(0, max(1, len(error) - 1), a_day)]
    known = [(first, float(np.nanmean(day))) for first, day in enumerate(days) if np.isfinite(day).any()]
    if not known:
        return np.full(len(error), np.nan)
    by_lead: Column = np.interp(ahead, [(first + 0.5) * a_day for first, _ in known], [mean for _, mean in known])
    return by_lead


def _on_slots(told: Trace, slots: Trace) -> Column:
    """A trace on other slots, by the mean over each; NaN where it says nothing."""
    if told.step == slots.step and (slots.start - told.start) % slots.step == timedelta(0):
        at = np.arange(len(slots)) + told.index(slots.start)
        there = (at >= 0) & (at < len(told))
        values = np.full(len(slots), np.nan)
        values[there] = told.values[at[there]]
        return values
    starts = [slots.start + i * slots.step for i in range(len(slots))]
    return np.array([told.mean(start, start + slots.step) for start in starts])
