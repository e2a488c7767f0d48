"""What providers answer, part by part: what is accepted, and what is refused with which words."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import START

from gridsweep.carbon.readings import Provenance
from gridsweep.errors import AnswerError
from gridsweep.grid.http.parsing import (
    Point,
    column,
    expect,
    field,
    forecast_of,
    fresh,
    grams,
    history_of,
    moment,
    nullable_number,
    number,
    objects,
    same_zone,
)

HOUR = timedelta(hours=1)
ORIGIN = Provenance("Electricity Maps, DE", provider="electricity-maps", zone="DE", basis="lifecycle")
KNOWN = st.one_of(st.none(), st.floats(0, 5000))


def at(*hours: float) -> list[Point]:
    return [Point(START + hour * HOUR, 100.0 + hour) for hour in hours]


@given(st.dictionaries(st.integers(0, 200), KNOWN, min_size=1), st.randoms())
def test_every_value_stands_in_its_slot_whatever_the_order_and_gaps_are_unknown(values, random):
    points = [Point(START + slot * HOUR, value) for slot, value in values.items()]
    random.shuffle(points)
    trace = column(points, HOUR, "p: history")
    assert trace.start == START + min(values) * HOUR
    assert trace.end == START + (max(values) + 1) * HOUR
    for slot, found in enumerate(trace.values, min(values)):
        value = values.get(slot)
        assert math.isnan(found) if value is None else found == value


def test_of_two_values_for_a_slot_the_last_counts_but_a_null_replaces_nothing():
    points = [Point(START, 1.0), Point(START, 1.0), Point(START, 2.0), Point(START, None)]
    assert column(points, HOUR, "p").values.tolist() == [2.0]


def test_times_of_any_zone_fall_on_the_same_grid():
    points = [Point(START.astimezone(timezone(timedelta(hours=5.5))), 1.0), Point(START + HOUR, 2.0)]
    trace = column(points, HOUR, "p")
    assert (trace.start, trace.values.tolist()) == (START, [1.0, 2.0])


def test_a_point_off_the_grid_is_refused():
    with pytest.raises(AnswerError, match=r"p: history has a point at 2026-10-15 12:30:00 UTC.*multiple of 1:00:00"):
        column(at(0, 0.5), HOUR, "p: history")


def test_an_answer_without_points_is_refused_and_one_of_nulls_is_unknown():
    with pytest.raises(AnswerError, match="p: history is empty"):
        column([], HOUR, "p: history")
    trace, stretches = history_of([Point(START, None)], HOUR, ORIGIN)
    assert np.isnan(trace.values).all()
    assert [stretch.provenance for stretch in stretches] == [ORIGIN]


def test_an_answer_of_more_than_400_days_is_refused_before_it_fills_the_memory():
    assert len(column(at(0, 400 * 24 - 1), HOUR, "p")) == 9600
    with pytest.raises(AnswerError, match="spans 400 days"):
        column(at(0, 400 * 24), HOUR, "p")
    with pytest.raises(AnswerError, match="spans"):
        column(
            [Point(datetime(1, 1, 1, tzinfo=UTC), 1.0), Point(datetime(9999, 12, 31, 23, tzinfo=UTC), 1.0)],
            timedelta(minutes=5),
            "p",
        )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_no_number_is_refused_in_a_column(value):
    with pytest.raises(AnswerError, match="has the value"):
        column([Point(START, value)], HOUR, "p")


def test_qualities_become_stretches_and_a_gap_belongs_to_the_one_before():
    points = [
        Point(START, None, "measured"),
        Point(START + HOUR, 1.0, "measured"),
        Point(START + 5 * HOUR, 4.0, "estimated"),
        Point(START + 3 * HOUR, None, "estimated"),
        Point(START + 4 * HOUR, 3.0, "measured"),
        Point(START + 6 * HOUR, 4.0, "estimated"),
    ]
    trace, stretches = history_of(points, HOUR, ORIGIN)
    assert len(trace) == 7
    assert [(stretch.start, stretch.provenance.quality) for stretch in stretches] == [
        (START, "measured"),
        (START + 5 * HOUR, "estimated"),
    ]
    assert {stretch.provenance.title for stretch in stretches} == {ORIGIN.title}


def test_a_forecast_is_one_path_with_the_title_of_its_source():
    forecast = forecast_of(at(0, 2), HOUR, START, ORIGIN)
    assert forecast.paths.shape == (1, 3)
    assert (forecast.start, forecast.issued_at, forecast.source) == (START, START, ORIGIN.title)
    with pytest.raises(AnswerError, match="electricity-maps: forecast is empty"):
        forecast_of([], HOUR, START, ORIGIN)


@pytest.mark.parametrize("value", [0, 1, 302, 41.5, 5000, -0.0])
def test_a_number_is_taken_as_it_is(value):
    assert number(value, "p: v") == nullable_number(value, "p: v") == float(value)


@pytest.mark.parametrize("value", [True, math.nan, math.inf, -1, 5001, 10**400, "5", "", None, [], {}, 1e999])
def test_what_is_no_intensity_is_refused_by_name(value):
    with pytest.raises(AnswerError, match=r"^p: carbonIntensity is "):
        number(value, "p: carbonIntensity")


def test_a_null_is_none_only_where_it_may_be():
    assert nullable_number(None, "p: v") is None


@pytest.mark.parametrize(("text", "value"), [("5123", 5123), (" 12.5 ", 12.5), ("1e2", 100), ("-3", -3)])
def test_a_numeric_string_is_a_number_where_that_is_asked_for(text, value):
    assert number(text, "p: v", text=True, least=-1e6, most=1e6) == value


@pytest.mark.parametrize("text", ["1_000", "1,5", "٣", "nan", "inf", "0x10", "", "1 2", "9" * 400, "1e999"])
def test_a_string_that_is_no_plain_decimal_is_refused(text):
    with pytest.raises(AnswerError, match="p: v is "):
        number(text, "p: v", text=True)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_a_number_is_finite_and_within_its_limits_or_refused(value):
    try:
        found = number(value, "p: v", text=True)
    except AnswerError as error:
        assert len(str(error)) < 200
    else:
        assert 0 <= found <= 5000


def test_pounds_a_megawatthour_are_grams_a_kilowatthour_by_their_exact_factor():
    assert grams(870, "lbs_co2_per_mwh", "p: v") == pytest.approx(394.6253619, abs=1e-9)
    assert grams(302, "gCO2eq/kWh", "p: v") == grams(302, "g/kWh", "p: v") == 302


@pytest.mark.parametrize("unit", ["percentile", "", None, 5, ["g/kWh"], "kg/MWh"])
def test_an_unknown_unit_is_refused_by_name(unit):
    with pytest.raises(AnswerError, match=r"p: meta.units is in .*no unit known here"):
        grams(1, unit, "p: meta.units")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-10-15T00:30Z", datetime(2026, 10, 15, 0, 30, tzinfo=UTC)),
        ("2026-10-15T00:30:15Z", datetime(2026, 10, 15, 0, 30, 15, tzinfo=UTC)),
        ("2026-05-04T14:00:00.000Z", datetime(2026, 5, 4, 14, tzinfo=UTC)),
        ("2026-05-04T14:00:00.123456789+02:00", datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)),
        ("2026-05-04T14:00:00+0530", datetime(2026, 5, 4, 8, 30, tzinfo=UTC)),
        ("2026-05-04 14:00:00-08", datetime(2026, 5, 4, 22, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T05:29:60.9+05:30", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_with_its_zone(text, instant):
    assert moment(text, "p: t") == instant
    assert moment(text, "p: t").tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-14 * 60, 14 * 60))
def test_what_iso_8601_writes_is_read_back(instant, minutes):
    try:
        elsewhere = instant.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        return
    assert moment(elsewhere.isoformat(), "p: t") == instant


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-04T14:00:00",
        "2026-05-04",
        "2026-05-04T14Z",
        "2026-02-30T14:00Z",
        "2026-05-04T24:00Z",
        "2026-05-04T14:00:60Z",
        "2026-05-04T14:00:61Z",
        "2026-05-04T14:00:00.1234567890Z",
        "2026-05-04T14:00:00+99:00",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59:60Z",
        "٢٠٢٦-05-04T14:00Z",
        "1760486400",
        "",
        None,
        1760486400,
        True,
    ],
)
def test_what_is_no_instant_is_refused_by_name(text):
    with pytest.raises(AnswerError, match=r"^p: history\[3\]\.datetime is "):
        moment(text, "p: history[3].datetime")


def test_a_naive_time_is_refused_for_having_no_zone():
    with pytest.raises(AnswerError, match="without a zone"):
        moment("2026-05-04T14:00:00", "p: t")


def test_a_part_is_found_by_key_and_kind():
    body = {"zone": "DE", "history": [{}, {}], "n": True}
    assert field(body, "zone", str, "p") == "DE"
    assert objects(field(body, "history", list, "p"), "p.history") == [{}, {}]
    assert field(body, "n", bool, "p") is True


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: field({"a": 1}, "zone", str, "p: body"), r"p: body has no 'zone'; it has \['a'\]"),
        (lambda: field([], "zone", str, "p: body"), "p: body is a list of 0 where an object"),
        (lambda: field({"zone": 5}, "zone", str, "p: body"), "p: body.zone is 5 where a string"),
        (lambda: field({"n": True}, "n", int, "p: body"), "p: body.n is True where an integer"),
        (lambda: objects([{}, None], "p: data"), r"p: data\[1\] is null where an object"),
        (lambda: objects({}, "p: data"), "p: data is an object with nothing in it where a list"),
        (lambda: expect("x" * 999, dict, "p"), r"xxx\.\.\. where an object"),
    ],
)
def test_a_part_that_is_not_as_promised_is_named(ask, words):
    with pytest.raises(AnswerError, match=words):
        ask()


def test_an_answer_of_another_zone_is_refused():
    same_zone("DE", "DE", "p")
    same_zone("13", 13, "p")
    for echoed in ("FR", "de", None, "", 5, True, ["DE"]):
        with pytest.raises(AnswerError, match="DE"):
            same_zone("DE", echoed, "p")


@given(st.integers(-10_000, 10_000))
def test_the_latest_point_is_present_history_or_of_an_impossible_future(minutes):
    latest = START + timedelta(minutes=minutes)
    if minutes > 60:
        with pytest.raises(AnswerError, match="this machine's clock"):
            fresh(latest, HOUR, START, "p: latest")
    else:
        assert fresh(latest, HOUR, START, "p: latest") == (minutes >= -3 * 24 * 60)


@given(st.text(max_size=80))
def test_no_text_breaks_a_line_of_a_message(text):
    for ask in (lambda: moment(text, "p"), lambda: grams(1, text, "p"), lambda: field({text: 1}, "no-key", int, "p")):
        try:
            ask()
        except AnswerError as error:
            assert str(error).isprintable() and json.dumps(str(error))
