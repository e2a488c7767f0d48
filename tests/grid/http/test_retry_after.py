"""How long a server asks to be left alone, in any of its ways to say so."""

from __future__ import annotations

from datetime import UTC, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import START

from gridsweep.grid.http.verdicts import retry_after


@given(st.integers(0, 10**30))
def test_seconds_are_capped_at_an_hour(seconds):
    assert retry_after({"retry-after": str(seconds)}, START) == min(3600, seconds)


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_counted_from_now_and_never_negative(seconds):
    date = format_datetime(START.astimezone(UTC) + timedelta(seconds=seconds), usegmt=True)
    assert retry_after({"retry-after": date}, START) == min(3600, max(0, seconds))


@given(st.integers(0, 3600), st.timedeltas(timedelta(days=-900), timedelta(days=900)))
def test_a_date_is_counted_from_the_servers_own_clock_if_it_gives_that(seconds, skew):
    there = (START + skew).replace(microsecond=0)
    headers = {
        "retry-after": format_datetime(there + timedelta(seconds=seconds), usegmt=True),
        "date": format_datetime(there, usegmt=True),
    }
    assert retry_after(headers, START) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e3", "nan", "inf", "Thu, 99 Foo 2026", "٥", "5 5"])
def test_what_is_neither_is_ignored(value):
    assert retry_after({"retry-after": value}, START) is None
    assert retry_after({}, START) is None


@given(st.text())
def test_no_text_breaks_it(value):
    found = retry_after({"retry-after": value}, START)
    assert found is None or 0 <= found <= 3600
