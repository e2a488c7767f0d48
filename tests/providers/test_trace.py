import re
import time
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsweep.carbon import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.providers import trace as module
from gridsweep.providers.trace import TraceProvider, open_trace, read_trace

START = datetime(2024, 5, 1, tzinfo=UTC)
HEADER = "timestamp,carbon_intensity\n"
DAY = timedelta(days=1)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "grid.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def rows(*values: object, start: datetime = START, step: timedelta = HOUR) -> str:
    return "".join(f"{(start + i * step).isoformat()},{value}\n" for i, value in enumerate(values))


def problems(path: Path) -> list[str]:
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    return [line.removeprefix(f"{path.parent}/") for line in str(caught.value).splitlines()]


# Files that are read


def test_rows_become_slots(write):
    trace = read_trace(write(HEADER + rows(100, 200.5, 300)))
    assert (trace.start, trace.step) == (START, HOUR)
    assert trace.values.tolist() == [100, 200.5, 300]


@pytest.mark.parametrize("step", [timedelta(minutes=5), timedelta(minutes=30), HOUR, DAY])
def test_the_step_is_what_the_rows_say(write, step):
    assert read_trace(write(HEADER + rows(1, 2, 3, step=step))).step == step


def test_offsets_and_z_become_utc(write):
    text = HEADER + "2024-05-01T00:00Z,1\n2024-05-01 03:00:00+02:00,2\n2024-04-30T21:00:00-05:00,3\n"
    trace = read_trace(write(text))
    assert trace.start == START
    assert trace.values.tolist() == [1, 2, 3]


def test_local_times_over_a_clock_change_are_regular(write):
    text = HEADER + "2024-10-27T02:00+02:00,1\n2024-10-27T02:00+01:00,2\n2024-10-27T03:00+01:00,3\n"
    assert read_trace(write(text)).step == HOUR


def test_an_empty_value_is_unknown_and_kept(write):
    trace = read_trace(write(HEADER + rows(100, "", "  ", 300)))
    assert [isnan(value) for value in trace.values] == [False, True, True, False]


def test_other_columns_their_order_and_blank_lines_do_not_matter(write):
    header = "\nzone, carbon_intensity , timestamp\n"
    text = header + 'X,100,2024-05-01T00:00Z\n\n,,\n"X, Y",200,2024-05-01T01:00Z\n\n'
    assert read_trace(write(text)).values.tolist() == [100, 200]


@pytest.mark.parametrize("change", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(write, change):
    assert read_trace(write(change((HEADER + rows(1, 2)).encode()))).values.tolist() == [1, 2]


@given(st.lists(st.one_of(st.none(), st.floats(0, 5000)), min_size=2, max_size=40).filter(any))
def test_what_is_written_is_read_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("trace") / "grid.csv"
    path.write_text(HEADER + rows(*("" if value is None else repr(value) for value in values)))
    read = [None if isnan(value) else value for value in read_trace(path).values.tolist()]
    assert read == values


def test_a_year_of_hours_is_read_at_once(write):
    path = write(HEADER + rows(*[226.5] * 8784))
    read_trace(path)
    started = time.process_time()
    read_trace(path)
    assert time.process_time() - started < 0.1


# Files that are not


def test_a_missing_file(tmp_path):
    assert "there is no such file" in problems(tmp_path / "absent.csv")[0]


def test_a_folder(tmp_path):
    assert "is a folder" in problems(tmp_path)[0]


def test_a_file_that_may_not_be_read(write, monkeypatch):
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(HEADER + rows(1, 2))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "cannot be read (Permission denied)" in problems(path)[0]


def test_a_huge_file_is_refused_unread(write):
    path = write("")
    with path.open("r+b") as file:
        file.truncate(200_000_001)  # sparse: takes no room on the disk
    assert "a trace may have 200 MB" in problems(path)[0]


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file(write, text):
    assert problems(write(text)) == [
        "grid.csv:1: is empty; write the header `timestamp,carbon_intensity` and a row a slot"
    ]


def test_a_header_without_rows(write):
    assert problems(write(HEADER)) == ["grid.csv:1: has no rows; add rows"]


def test_a_single_row(write):
    assert problems(write(HEADER + rows(1)))[0].startswith("grid.csv:2: has a single row")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("timestamp,carbon_intensty", ["no column is named `carbon_intensity`; rename `carbon_intensty`"]),
        ("Timestamp,carbon_intensity", ["no column is named `timestamp`; rename `Timestamp`"]),
        ("when,g", ["no column is named `timestamp`; open", "no column is named `carbon_intensity`; open"]),
        ("timestamp;carbon_intensity", ["separate columns by commas"]),
        ("timestamp,timestamp,carbon_intensity", ["`timestamp` is there 2 times; keep one"]),
        (
            "2024-05-01T00:00Z,100",
            ["no column is named `timestamp`", "no column is named `carbon_intensity`"],
        ),
    ],
)
def test_a_wrong_header(write, header, wanted):
    found = problems(write(header + "\n" + rows(1, 2)))
    assert len(found) == len(wanted)
    for line, part in zip(found, wanted, strict=True):
        assert line.startswith("grid.csv:1: ")
        assert part in line


def test_a_file_that_is_not_utf8(write):
    assert problems(write(HEADER.encode() + b"2024-05-01T00:00Z,1\n\xff\xfe,2\n")) == [
        "grid.csv:3: is not UTF-8; save the file as UTF-8 text"
    ]


def test_a_file_that_is_no_csv(write):
    assert "is no CSV" in problems(write(HEADER + '"' + "x" * 200_000))[0]


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("2024-05-01T01:00", "`2024-05-01T01:00` has no time zone; add Z"),
        ("2024-05-01", "has no time zone"),
        ("yesterday", "`yesterday` is no time; write it as 2024-05-01T13:00:00Z"),
        ("", "`` is no time"),
        ("2024-13-01T01:00Z", "is no time"),
        ("0001-01-01T00:00+10:00", "is no time"),
        ("1024-05-01T01:00Z", "is not between 1970 and 2200"),
    ],
)
def test_a_wrong_time(write, cell, what):
    found = problems(write(HEADER + rows(1) + f"{cell},2\n" + rows(3, 4, start=START + 2 * HOUR)))
    assert len(found) == 1
    assert found[0].startswith("grid.csv:3: ")
    assert what in found[0]


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("-0.1", "-0.1 is negative"),
        ("many", "`many` is no number"),
        ("1_0", "`1_0` is no number"),
        ("nan", "`nan` is no amount of carbon"),
        ("inf", "`inf` is no amount of carbon"),
        ("-inf", "`-inf` is no amount of carbon"),
        ("5000.1", "5000.1 is more than 5000, so it is not gCO2eq/kWh"),
    ],
)
def test_a_wrong_value(write, cell, what):
    found = problems(write(HEADER + rows(1, cell, 3)))
    assert len(found) == 1
    assert found[0].startswith("grid.csv:3: ")
    assert what in found[0]


def test_a_column_without_values(write):
    assert "no row has a `carbon_intensity`" in problems(write(HEADER + rows("", "", "")))[0]


def test_a_short_row(write):
    assert problems(write(HEADER + rows(1) + "2024-05-01T01:00Z\n" + rows(3, 4, start=START + 2 * HOUR))) == [
        "grid.csv:3: has 1 of 2 columns; complete the row or take it out"
    ]


def test_a_row_twice(write):
    assert problems(write(HEADER + rows(1, 2) + rows(2.5, 3, start=START + HOUR))) == [
        "grid.csv:4: 2024-05-01T01:00Z is there already, in line 3; keep one"
    ]


def test_rows_out_of_order(write):
    text = HEADER + rows(1) + rows(3, start=START + 2 * HOUR) + rows(2, start=START + HOUR)
    assert problems(write(text)) == [
        "grid.csv:4: 2024-05-01T01:00Z comes after 2024-05-01T02:00Z; order the rows by time"
    ]


def test_a_gap_names_the_missing_rows(write):
    text = HEADER + rows(1, 2, 3) + rows(5, 6, start=START + 4 * HOUR) + rows(9, start=START + 8 * HOUR)
    found = problems(write(text))
    assert found[0].startswith("grid.csv:5: 1 row is missing before it: 2024-05-01T03:00Z; add them")
    assert found[1].startswith("grid.csv:7: 2 rows are missing before it: 2024-05-01T06:00Z to 2024-05-01T07:00Z;")
    assert len(found) == 2


def test_an_irregular_step(write):
    text = HEADER + rows(1, 2, 3) + rows(4, 5, start=START + timedelta(hours=2, minutes=20))
    found = problems(write(text))
    assert len(found) == 1
    assert found[0].startswith("grid.csv:5: 2024-05-01T02:20Z is 0:20:00 after the row before, and most are 1:00:00")


def test_all_problems_come_at_once_in_order_of_lines(write):
    text = HEADER + rows(1, -2, 3) + rows("x", start=START + 5 * HOUR) + "noon,4\n"
    assert [line.split(": ")[0] for line in problems(write(text))] == [
        "grid.csv:3",
        "grid.csv:5",
        "grid.csv:5",
        "grid.csv:6",
    ]


def test_ten_problems_are_shown_and_the_rest_counted(write):
    found = problems(write(HEADER + rows(*[-1] * 50)))
    assert [line.split(": ")[0] for line in found[:10]] == [f"grid.csv:{n}" for n in range(2, 12)]
    assert found[10:] == ["and 40 more problems"]


@given(st.binary(max_size=200))
def test_no_file_breaks_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("trace") / "grid.csv"
    path.write_bytes(HEADER.encode() + content)
    try:
        assert len(read_trace(path)) >= 2
    except TraceError as error:
        assert re.match(rf"{re.escape(str(path))}(:\d+)?: ", str(error))


# The provider


def hours(count: int, start: datetime = START) -> Trace:
    return Trace(start, HOUR, np.arange(count, dtype=float))


def test_a_reading_ends_with_the_present_slot():
    provider = TraceProvider(hours(100), "X", "a file")
    for now in (START + 30 * HOUR, START + 30 * HOUR + timedelta(minutes=59)):
        reading = provider.read(now)
        assert reading.history.start == START
        assert reading.history.values.tolist() == list(range(31))
        assert (reading.source, reading.quality) == ("a file", "measured")
    assert len(provider.read(START + 31 * HOUR).history) == 32


def test_a_reading_is_a_view_of_the_trace():
    trace = hours(100)
    history = TraceProvider(trace, "X", "a file").read(START + 50 * HOUR).history
    assert np.shares_memory(history.values, trace.values)


def test_history_goes_back_28_days():
    now = START + 60 * DAY
    history = TraceProvider(hours(100 * 24), "X", "a file").read(now).history
    assert len(history) == 28 * 24
    assert history.end == now + HOUR
    assert history.at(now) == 60 * 24


@given(st.integers(-100, 300), st.integers(0, 59))
def test_nothing_of_the_future_is_shown(hour, minute):
    trace = hours(200)
    now = START + hour * HOUR + timedelta(minutes=minute)
    reading = TraceProvider(trace, "X", "a file", history=timedelta(days=3)).read(now)
    history = reading.history
    assert history.end <= max(START, now + HOUR)
    assert len(history) <= 72
    assert all(history.values == trace.between(history.start, history.end).values)
    if reading.forecast is not None:
        assert reading.forecast.paths.max() <= trace.at(now)


def test_before_the_trace_nothing_is_known():
    reading = TraceProvider(hours(100), "X", "a file").read(START - HOUR)
    assert len(reading.history) == 0
    assert reading.forecast is None


def test_after_the_trace_the_present_is_unknown():
    provider = TraceProvider(hours(100), "X", "a file")
    reading = provider.read(START + 101 * HOUR)
    assert reading.history.end == START + 100 * HOUR
    assert isnan(reading.history.at(START + 101 * HOUR))
    assert reading.forecast is None
    assert len(provider.read(START + 90 * DAY).history) == 0


def test_the_forecast_repeats_the_last_day():
    now = START + 50 * HOUR
    forecast = TraceProvider(hours(100), "X", "a file").read(now).forecast
    assert forecast is not None
    assert forecast.issued_at == now
    assert forecast.end >= now + timedelta(hours=96)
    assert [forecast.mean.at(now + i * HOUR) for i in (0, 1, 24, 25)] == [50, 27, 50, 27]


def test_readings_may_go_back_in_time():
    provider = TraceProvider(hours(100), "X", "a file")
    first = provider.read(START + 40 * HOUR).history.values.tolist()
    provider.read(START + 90 * HOUR)
    assert provider.read(START + 40 * HOUR).history.values.tolist() == first


def test_a_reading_takes_microseconds():
    provider = TraceProvider(hours(8760), "X", "a file")
    moments = [START + 28 * DAY + i * timedelta(minutes=30) for i in range(2000)]
    started = time.process_time()
    for now in moments:
        provider.read(now)
    assert (time.process_time() - started) / len(moments) < 50e-6


# A year that repeats


@pytest.fixture(scope="module")
def plain_year() -> Trace:
    return hours(8760, start=datetime(2023, 1, 1, tzinfo=UTC))


def test_a_year_repeats_on_the_same_days(plain_year):
    provider = TraceProvider(plain_year, "X", "a file", yearly=True)
    for year in (1999, 2023, 2024, 2031):
        for month, day in ((1, 1), (2, 28), (3, 1), (12, 31)):
            now = datetime(year, month, day, 17, 20, tzinfo=UTC)
            wanted = plain_year.at(now.replace(year=2023))
            assert provider.read(now).history.at(now) == wanted


def test_a_leap_day_is_28_february_again(plain_year):
    history = TraceProvider(plain_year, "X", "a file", yearly=True).read(datetime(2024, 3, 2, tzinfo=UTC)).history
    leap, before = datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 28, tzinfo=UTC)
    assert history.between(leap, leap + DAY).values.tolist() == history.between(before, leap).values.tolist()


def test_history_reaches_over_the_new_year(plain_year):
    now = datetime(2025, 1, 3, 5, tzinfo=UTC)
    reading = TraceProvider(plain_year, "X", "a file", yearly=True).read(now)
    assert len(reading.history) == 28 * 24
    assert reading.history.end == now + HOUR
    assert reading.history.at(datetime(2024, 12, 31, 23, tzinfo=UTC)) == 8759
    assert reading.history.at(datetime(2025, 1, 1, tzinfo=UTC)) == 0
    assert reading.forecast is not None


def test_a_leap_year_or_a_year_from_the_middle_repeats_too():
    leap = hours(8784, start=datetime(2024, 1, 1, tzinfo=UTC))
    now = datetime(2023, 3, 1, tzinfo=UTC)
    assert TraceProvider(leap, "X", "a file", yearly=True).read(now).history.at(now) == 60 * 24
    middle = hours(8760, start=datetime(2022, 7, 1, 6, tzinfo=UTC))
    now = datetime(2030, 7, 1, 5, tzinfo=UTC)
    assert TraceProvider(middle, "X", "a file", yearly=True).read(now).history.at(now) == 8759
    now = datetime(2030, 7, 1, 6, tzinfo=UTC)
    assert TraceProvider(middle, "X", "a file", yearly=True).read(now).history.at(now) == 0


def test_of_two_years_the_first_repeats():
    provider = TraceProvider(hours(2 * 8760, start=datetime(2022, 1, 1, tzinfo=UTC)), "X", "a file", yearly=True)
    now = datetime(2023, 1, 1, tzinfo=UTC)
    assert provider.read(now).history.at(now) == 0


def test_what_is_unknown_stays_unknown_every_year():
    values = np.full(8760, 100.0)
    values[17] = np.nan
    trace = Trace(datetime(2023, 1, 1, tzinfo=UTC), HOUR, values)
    now = datetime(2030, 1, 1, 17, tzinfo=UTC)
    assert isnan(TraceProvider(trace, "X", "a file", yearly=True).read(now).history.at(now))


def test_less_than_a_year_or_broken_days_cannot_repeat():
    with pytest.raises(TraceError, match=r"364\.0 days cannot repeat yearly"):
        TraceProvider(hours(364 * 24), "X", "a file", yearly=True)
    with pytest.raises(TraceError, match="do not fill whole days"):
        TraceProvider(Trace(START, 7 * HOUR, np.ones(2000)), "X", "a file", yearly=True)
    with pytest.raises(TraceError, match="do not fill whole days"):
        TraceProvider(hours(9000, start=START + timedelta(minutes=15)), "X", "a file", yearly=True)


# Names


def test_the_bundled_trace_is_marked_and_serves_any_date():
    provider = open_trace("solar-valley", None)
    now = datetime(2037, 8, 9, 20, tzinfo=UTC)
    reading = provider.read(now)
    assert provider.zone == "synthetic-solar-valley"
    assert reading.quality == "synthetic"
    assert "synthetic" in reading.source
    assert len(reading.history) == 28 * 24
    assert reading.history.at(now) > 0


def test_a_file_is_looked_for_beside_the_spec(write):
    path = write(HEADER + rows(100, 200))
    provider = open_trace("grid.csv", path.parent)
    assert (provider.zone, provider.source, provider.quality) == ("grid", "grid.csv", "measured")
    assert provider.read(START).history.values.tolist() == [100]
    assert open_trace(str(path), None, zone="DE").zone == "DE"
    assert open_trace(str(path), Path("/elsewhere")).trace.values.tolist() == [100, 200]


def test_a_misspelt_bundled_trace_is_put_right(tmp_path):
    with pytest.raises(TraceError, match="did you mean the bundled trace `solar-valley`"):
        open_trace("solar-valey", tmp_path)
    with pytest.raises(TraceError, match="there is no such file"):
        open_trace("other.csv", tmp_path)


def test_the_reader_keeps_ten_problems_however_many_there_are():
    found = module._Problems(Path("grid.csv"))
    for line in range(1000):
        found.add(line, "wrong")
    assert len(found.shown) == 10
    assert found.count == 1000
