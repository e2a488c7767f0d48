"""A forecast from history alone, with scenarios and past errors, and its blend with a provider's forecast.

The expected week is the mean of the last 28 days at the same time of day: two thirds of the weight decay by a fifth per
day back, one third is on the same weekday. The deviation of the current slot from that mean fades with a time constant
of 24 hours. Values stay within the range of the 28 days. The forecast is additive: a constant added to the history is
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
"""The time after which a deviation has faded to 37 percent."""
LATEST = timedelta(hours=6)
"""The maximum age of a slot used in place of an unknown current slot."""
SOURCE = "our own forecast from history"


def _weights() -> tuple[Column, Column]:
    """Return the weights of the last 28 days, oldest first: for the next 7 days (7, 28), and the current slot (28,)."""
    fading = 0.8 ** np.arange(DAYS - 1, -1, -1.0)
    week = np.tile(2 / 3 * fading / fading.sum(), (7, 1))
    for ahead in range(1, 8):
        week[ahead - 1, DAYS - 1 + ahead - 7 * np.arange(1, 5)] += 1 / 12
    present = week[6].copy()
    present[-1] = 0.0  # the current slot is compared with the days before it
    return week, present


_WEEK, _PRESENT = _weights()


def from_history(history: Trace, now: datetime, horizon: timedelta) -> Forecast | None:
    """Return the forecast from the history up to the slot of `now`, from that slot until `now + horizon`.

    Unknown slots are skipped; a time of day without any known value is interpolated from its neighbours. Scenarios and
    past errors are computed on first use, from up to 28 more days. None with less than 24 hours known in the last
    28 days, or if a day is not a whole number of slots.
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
    """Return the point forecast from the last of `values` on, shape (slots,); None with less than a day known."""
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
    """Return the next 7 days as the weighted mean of the known days, shape (7, slots per day)."""
    weight = _WEEK @ known
    never = weight <= 0
    week = (_WEEK @ filled) / np.where(never, 1.0, weight)
    if never.any():
        # Times of day without a known value are interpolated between those before and after, around the clock.
        flat, at = week.ravel(), np.arange(week.size)
        there = ~never.ravel()
        week = np.interp(at, at[there], flat[there], period=week.size).reshape(week.shape)
    return week


def _deviation(days: Column, known: Mask) -> tuple[float, int]:
    """Return the last known slot's deviation from the days before it, and its age in slots; 0 if unknown."""
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
    """Return the remaining share of a deviation from `first` slots after it on, shape (slots,)."""
    return np.asarray(np.exp(np.arange(first, first + slots) * (-(DAY / FADE) / a_day)))


def _scenarios(values: Column, a_day: int, point: Column) -> Column:
    """Return scenarios: the point forecast plus the differences between the courses of the last 28 days.

    Each course starts at this time of day and is shifted to begin at the current value; the shift fades. Shape (paths,
    slots), at most 28 paths: only courses that have ended count, so 28 paths need 28 days plus the horizon. Without
    any, the point forecast is the only path.
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
    """Return the forecasts issued 1 to 28 days ago, and the observed values; shapes (issues, slots)."""
    expected, came = [], []
    for then in range(len(values) - a_day, max(0, len(values) - (DAYS + 1) * a_day), -a_day):
        point = _expected(values[:then], a_day, slots)
        if point is not None:
            seen = values[then - 1 : then - 1 + slots]
            expected.append(point)
            came.append(np.concatenate([seen, np.full(slots - len(seen), np.nan)]))
    return np.reshape(expected, (-1, slots)), np.reshape(came, (-1, slots))


def bent(forecast: Forecast, history: Trace) -> Forecast:
    """Return a forecast shifted to start at the known value of the current slot; the shift fades over later slots.

    `history` ends with the current slot. The forecast is unchanged if it does not cover this slot, or if it is unknown.
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
    """Return a provider's forecast with the past errors of its earlier forecasts, by lead, as far as history is known.

    Errors refer to the same time of day if the earlier forecasts were issued a whole number of days before.
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
    """Return a blend of a provider's forecast and ours, weighted by past errors, over the slots of ours.

    Weights are set per day ahead: ours has weight 0 if its error equals the provider's, and weight 1 if its error is
    half of it. While the provider's errors are unknown, ours counts only where the provider has no value. Scenarios
    and past errors are ours around the blend, scaled to its error; past errors are unknown where that error is.
    """
    point = own.mean.values
    told = _on_slots(given.mean, own.mean)
    theirs = _on_slots(Trace(given.start, given.step, _by_day(given.error, max(1, DAY // given.step))), own.mean)
    ours = _by_day(own.error, DAY // own.step)
    known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
    ratio = np.divide(theirs, ours, out=np.ones(len(point)), where=known)  # below 1 if our error is larger
    weight = np.clip(2 - 2 / np.maximum(ratio, 0.5), 0.0, 1.0)
    weight[~np.isfinite(told)] = 1.0
    weight[0] = 1.0  # the current slot, with which ours begins
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
    """Return the mean error of each day ahead, interpolated between mid-days; shape (slots,), NaN if unknown."""
    ahead = np.arange(len(error)) - 0.5
    days = [error[1 + first : 1 + first + a_day] for first in range(0, max(1, len(error) - 1), a_day)]
    known = [(first, float(np.nanmean(day))) for first, day in enumerate(days) if np.isfinite(day).any()]
    if not known:
        return np.full(len(error), np.nan)
    by_lead: Column = np.interp(ahead, [(first + 0.5) * a_day for first, _ in known], [mean for _, mean in known])
    return by_lead


def _on_slots(told: Trace, slots: Trace) -> Column:
    """Return a trace resampled to other slots by the mean over each; NaN where it has no value."""
    if told.step == slots.step and (slots.start - told.start) % slots.step == timedelta(0):
        at = np.arange(len(slots)) + told.index(slots.start)
        there = (at >= 0) & (at < len(told))
        values = np.full(len(slots), np.nan)
        values[there] = told.values[at[there]]
        return values
    starts = [slots.start + i * slots.step for i in range(len(slots))]
    return np.array([told.mean(start, start + slots.step) for start in starts])
