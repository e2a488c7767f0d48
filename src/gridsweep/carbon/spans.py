"""Spans of time as text."""

from __future__ import annotations

from datetime import timedelta

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def hours(span: timedelta | float) -> str:
    """Return a span, or a number of hours, as text: `45 s`, `30 min`, `1.5 h`, `51.3 h`."""
    value = span / HOUR if isinstance(span, timedelta) else span
    seconds = round(value * 3600)
    if seconds and abs(seconds) < 60:
        return f"{seconds} s"
    minutes = round(value * 60)
    if seconds and abs(minutes) < 60:
        return f"{minutes} min"
    if abs(value) >= 1000:
        return f"{value:,.0f} h"
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0") + " h"  # + 0.0 turns -0.0 into 0.0
