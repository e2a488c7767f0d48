"""The token bucket and the circuit breaker, at times that Hypothesis chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.grid.http.budget import HOUR, CircuitBreaker, TokenBucket

GAPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 900), st.floats(0, 8000)), max_size=150)


@given(st.floats(0, 1e9), GAPS)
def test_no_rolling_hour_sees_more_than_twelve_requests(start, gaps):
    bucket, taken, now = TokenBucket(), [], start
    for gap in gaps:
        now += gap
        if bucket.take(now):
            taken.append(now)
    for first in taken:
        assert sum(first <= other < first + HOUR for other in taken) <= 12


@given(st.floats(0, 1e9), st.integers(20, 60))
def test_a_client_that_asks_at_once_when_it_may_gets_twelve_in_its_first_hour_and_eight_then(start, times):
    bucket, taken, now = TokenBucket(), [], start
    for _ in range(times):
        now += bucket.wait(now)
        assert bucket.take(now)
        taken.append(now - start)
    assert sum(moment <= HOUR + 1e-3 for moment in taken) == 12
    assert sum(HOUR + 1e-3 < moment <= 2 * HOUR + 1e-3 for moment in taken) == 8


@given(st.floats(0, 1e6), GAPS)
def test_a_token_is_there_after_exactly_the_wait_and_not_before(start, gaps):
    bucket, now = TokenBucket(), start
    for gap in gaps:
        now += gap
        wait = bucket.wait(now)
        assert bucket.take(now) == (wait == 0)
        if wait > 1:
            assert not bucket.take(now + wait - 0.5)
            now += wait
            assert bucket.take(now)


def test_a_clock_that_goes_back_gives_no_tokens():
    bucket = TokenBucket(1, 60)
    assert bucket.take(1000)
    assert not bucket.take(0)
    assert not bucket.take(1000)
    assert bucket.take(1060)


@pytest.mark.parametrize(("capacity", "refill"), [(0, 8), (4, 0), (4, -1)])
def test_a_bucket_that_lets_nothing_through_is_refused(capacity, refill):
    with pytest.raises(ValueError, match="lets nothing through"):
        TokenBucket(capacity, refill)


def test_a_breaker_opens_at_the_fifth_failure_in_a_row():
    breaker = CircuitBreaker()
    for _ in range(4):
        breaker.failed(0)
        assert breaker.wait(0) == 0
    breaker.answered()
    for _ in range(4):
        breaker.failed(0)
    assert breaker.wait(0) == 0
    breaker.failed(0)
    assert breaker.wait(0) == 30
    assert breaker.wait(29) == 1
    assert breaker.wait(30) == 0


def test_a_failed_probe_doubles_the_rest_up_to_an_hour_and_a_good_one_forgets_it():
    breaker, now, rests = CircuitBreaker(), 0.0, []
    for _ in range(4):
        breaker.failed(now)
    for _ in range(10):
        breaker.failed(now)
        rests.append(breaker.wait(now))
        now += rests[-1]
    assert rests == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    breaker.answered()
    for _ in range(5):
        assert breaker.wait(now) == 0
        breaker.failed(now)
    assert breaker.wait(now) == 30
