"""Compute Gardener's annotations, as it writes them and as nobody should."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gridsweep.accounting.compute_gardener import PREFIX, Gardened, facts, from_facts, gardened

WRITTEN = {
    PREFIX + "initial-carbon-intensity": "180.00",
    PREFIX + "bind-time-carbon-intensity": "110.25",
    PREFIX + "carbon-delay-timestamp": "2024-06-10T08:00:00Z",
    PREFIX + "bind-timestamp": "2024-06-10T14:30:00+02:00",
}
READ = Gardened(180.0, 110.25, datetime(2024, 6, 10, 8, tzinfo=UTC), datetime(2024, 6, 10, 12, 30, tzinfo=UTC))


def test_as_it_writes_them():
    assert gardened(WRITTEN) == READ
    assert from_facts(facts("e00", READ) | {"device": "x", "a/b": "c"}) == {"e00": READ}


def test_a_pod_that_was_never_delayed_says_nothing():
    assert not gardened({}) and not gardened({"another": "1"}) and facts("e00", gardened({})) == {}


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "1e999", "12,5", "180 g", "None", "\x00", "x" * 10_000])
def test_what_is_no_intensity_is_left_out(text: str):
    read = gardened({**WRITTEN, PREFIX + "initial-carbon-intensity": text})
    assert read.initial_intensity is None and read.bind_intensity == 110.25


@pytest.mark.parametrize("text", ["", "yesterday", "2024-06-10T08:00:00", "2024-13-01T00:00:00Z", "0", "1718006400"])
def test_what_is_no_moment_is_left_out(text: str):
    assert gardened({**WRITTEN, PREFIX + "bind-timestamp": text}).bound_at is None


def test_values_of_another_kind_are_no_reason_to_fail():
    assert gardened({PREFIX + "bind-timestamp": None, PREFIX + "initial-carbon-intensity": ["1"]}) == Gardened()
