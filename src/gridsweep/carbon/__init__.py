"""Carbon intensity over time: traces, forecasts, readings, the forecaster. Values and functions, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsweep import handed_on

if TYPE_CHECKING:
    from gridsweep.carbon.forecasts import Forecast
    from gridsweep.carbon.readings import Provenance, Reading
    from gridsweep.carbon.traces import Trace

__all__ = ["Forecast", "Provenance", "Reading", "Trace"]
__getattr__ = handed_on(
    __name__, {"Forecast": "forecasts", "Provenance": "readings", "Reading": "readings", "Trace": "traces"}
)
