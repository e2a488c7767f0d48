"""Carbon intensity over time: traces, forecasts, readings, the forecaster. Values and functions, no I/O.

May import `errors` only.
"""
