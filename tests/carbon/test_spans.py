from datetime import timedelta

import pytest

from gridsweep.carbon.spans import hours


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=45), "45 s"),
        (timedelta(minutes=30), "30 min"),
        (timedelta(minutes=90), "1.5 h"),
        (timedelta(days=2), "48 h"),
        (timedelta(hours=-2), "-2 h"),
        (timedelta(0), "0 h"),
        (0.5, "30 min"),
        (1234.4, "1,234 h"),
    ],
)
def test_a_span_is_written_in_one_way(span, text):
    assert hours(span) == text
