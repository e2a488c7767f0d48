"""Grids for the tests of forecasts."""

from datetime import UTC, datetime, timedelta

import numpy as np

from gridsweep.carbon.forecaster import from_history
from gridsweep.carbon.forecasts import Forecast
from gridsweep.carbon.traces import HOUR, Trace

START = datetime(2024, 3, 1, tzinfo=UTC)
HORIZON = timedelta(hours=96)


def weather(seed: int, hours: int = 35 * 24) -> np.ndarray:
    """A day's course and a slow deviation, in round numbers, which add up exactly."""
    random = np.random.default_rng(seed)
    course = random.integers(-100, 100, 24)
    return 400.0 + np.resize(course, hours) + np.clip(np.cumsum(random.integers(-15, 16, hours)), -250, 250)


def issued(
    values: np.ndarray, step: timedelta = HOUR, horizon: timedelta = HORIZON, start: datetime = START
) -> Forecast:
    """The forecast when the last of these slots has begun."""
    history = Trace(start, step, values)
    forecast = from_history(history, history.end - step, horizon)
    assert forecast is not None
    return forecast


def everything(forecast: Forecast) -> list[np.ndarray]:
    return [forecast.mean.values, forecast.paths, *(side.values for side in forecast.band()), forecast.error]
