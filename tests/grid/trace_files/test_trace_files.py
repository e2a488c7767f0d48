"""Traces in CSV, JSON Lines and Parquet: all say the same, and are refused with the same words."""

import json
import re
import time
from datetime import timedelta
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_writers import DAY, FORMATS, HEADER, START, lines, moments, problems, rows, same, table, written

from gridsweep.carbon.readings import Quality
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.trace_files import Recording, read_recording, read_trace
from gridsweep.grid.trace_files.cells import QUALITIES
from gridsweep.grid.trace_files.problems import Problems

YEAR = 105_120  # slots of five minutes


@pytest.mark.parametrize("format", FORMATS)
def test_rows_become_slots(write, format):
    trace = read_trace(write(written(format, [100, 200.5, None, 300]), f"grid.{format}"))
    assert (trace.start, trace.step) == (START, HOUR)
    assert trace.values[[0, 1, 3]].tolist() == [100, 200.5, 300]
    assert isnan(trace.values[2])
    assert not trace.values.flags.writeable


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("step", [timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), HOUR, DAY])
def test_the_step_is_what_the_rows_say(write, format, step):
    assert read_trace(write(written(format, [1, 2, 3], step), f"grid.{format}")).step == step


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("step", [timedelta(seconds=59), timedelta(microseconds=1), timedelta(days=2)])
def test_a_slot_lasts_a_minute_to_a_day(write, format, step):
    assert "slots of a minute to a day" in problems(write(written(format, [1, 2, 3], step), f"grid.{format}"))[0]


@pytest.mark.parametrize("format", FORMATS)
def test_pounds_are_converted_where_the_file_says_so(write, format):
    units = ["lbs_co2_per_mwh", "lbs_co2_per_mwh", "gCO2eq/kWh", None]
    trace = read_trace(write(written(format, [870, None, 870, 100], unit=units), f"grid.{format}"))
    assert trace.values[[0, 2, 3]].tolist() == pytest.approx([394.6253619, 870, 100])
    assert isnan(trace.values[1])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("unit", "hint"),
    [("gCO2/kWh", "did you mean `gCO2eq/kWh`?"), ("t", "convert it to gCO2eq/kWh or lbs_co2_per_mwh")],
)
def test_another_unit_is_refused(write, format, unit, hint):
    found = problems(write(written(format, [1, 2], unit=["gCO2eq/kWh", unit]), f"grid.{format}"))
    assert len(found) == 1
    assert f"`{unit}` is no unit of a trace; {hint}" in found[0]


@pytest.mark.parametrize("format", FORMATS)
def test_the_limit_is_in_grams(write, format):
    path = write(written(format, [9000, 9000], unit=["lbs_co2_per_mwh"] * 2), f"grid.{format}")
    assert read_trace(path).values[0] == pytest.approx(4082.33, abs=0.01)
    path = write(written(format, [1, 12000], unit=["lbs_co2_per_mwh"] * 2), f"grid.{format}")
    assert "12000" in problems(path)[0]
    assert "more than 5000 gCO2eq/kWh; correct the unit" in problems(path)[0]


@pytest.mark.parametrize("format", FORMATS)
def test_the_quality_of_rows_comes_in_stretches(write, format):
    words = ["estimated", "estimated", "measured", None, None, "imputed"]
    values = [1, 2, 3, 4, None, 6]
    recording = read_recording(write(written(format, values, quality=words), f"grid.{format}"))
    assert recording.qualities == (
        (START, "estimated"),
        (START + 2 * HOUR, "measured"),
        (START + 5 * HOUR, "imputed"),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_an_unknown_value_without_quality_belongs_to_the_stretch_before_it(write, format):
    values, words = [None, 2, None, 4], [None, "estimated", None, "estimated"]
    recording = read_recording(write(written(format, values, quality=words), f"grid.{format}"))
    assert recording.qualities == ((START, "estimated"),)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_says_nothing_of_quality_has_no_stretches(write, format):
    assert read_recording(write(written(format, [1, 2]), f"grid.{format}")).qualities == ()
    path = write(written(format, [1, 2], quality=["", ""]), f"grid.{format}")
    assert read_recording(path).qualities == ()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("word", "hint"), [("Measured", "did you mean `measured`?"), ("good", "write one of measured, estimated")]
)
def test_another_quality_is_refused(write, format, word, hint):
    found = problems(write(written(format, [1, 2], quality=["measured", word]), f"grid.{format}"))
    assert len(found) == 1
    assert f"`{word}` is no quality; {hint}" in found[0]


@given(st.lists(st.tuples(st.none() | st.floats(0, 5000), st.sampled_from(QUALITIES)), min_size=2, max_size=30))
def test_what_is_written_is_read_back_from_every_format(tmp_path_factory, slots):
    folder = tmp_path_factory.mktemp("trace")
    values, words = [value for value, _ in slots], [word for _, word in slots]
    if not any(value is not None for value in values):
        return
    found = []
    for format in FORMATS:
        path = folder / f"grid.{format}"
        path.write_bytes(written(format, values, quality=words))
        found.append(read_recording(path))
    for recording in found:
        assert same(recording.trace, Trace(START, HOUR, [nan if value is None else value for value in values]))
        assert spread(recording) == words


def spread(recording: Recording) -> list[Quality]:
    """The quality of each slot."""
    return [
        next(quality for start, quality in reversed(recording.qualities) if start <= moment)
        for moment in moments(len(recording.trace))
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_a_year_of_five_minutes_is_read_in_a_second_and_a_half(write, format):
    path = write(written(format, [226.5] * YEAR, timedelta(minutes=5)), f"grid.{format}")
    started = time.process_time()
    assert len(read_trace(path)) == YEAR
    assert time.process_time() - started < 1.5


WRONG_TIMES = [
    ("2024-05-01T01:00", "`2024-05-01T01:00` has no time zone; add Z"),
    ("2024-05-01", "has no time zone"),
    ("yesterday", "`yesterday` is no time; write it as 2024-05-01T13:00:00Z"),
    ("", "`` is no time"),
    ("1714525200", "is no time"),
    ("2024-13-01T01:00Z", "is no time"),
    ("2024-02-30T01:00Z", "is no time"),
    ("2024-05-01T23:59:60Z", "`2024-05-01T23:59:60Z` is no time"),
    ("01/05/2024 01:00", "is no time"),
    ("2024-05-01T01:00Z" + " " * 60 + "x", "is no time"),
    ("2024-05-01T01:00 CET", "is no time"),
    ("0001-01-01T00:00+10:00", "is no time"),
    ("9999-12-31T23:00-10:00", "is no time"),
    ("9999-12-31T23:00Z", "is not between 1970 and 2200"),
    ("1024-05-01T01:00Z", "is not between 1970 and 2200"),
    ("2024-05-01T01:00Z\x1b[31m", "`2024-05-01T01:00Z\\x1b[31m` is no time"),
]


@pytest.mark.parametrize(("cell", "what"), WRONG_TIMES)
def test_a_wrong_time(write, cell, what):
    path = write(HEADER + rows(1) + f"{cell},2\n" + rows(3, 4, start=START + 2 * HOUR))
    assert [what in line and line.startswith("grid.csv:3: ") for line in problems(path)] == [True]
    wrong = json.dumps({"timestamp": cell, "carbon_intensity": 2})
    path = write(lines(1) + wrong + "\n" + lines(3, 4, start=START + 2 * HOUR), "grid.jsonl")
    assert [what in line and line.startswith("grid.jsonl:2: ") for line in problems(path)] == [True]
    times = [moment.isoformat() for moment in moments(4)]
    path = write(table([times[0], cell, *times[2:]], [1, 2, 3, 4]), "grid.parquet")
    assert [what in line and line.startswith("grid.parquet: row 2: ") for line in problems(path)] == [True]


@pytest.mark.parametrize("format", FORMATS)
def test_a_gap_names_the_missing_rows(write, format):
    hours = [0, 1, 2, 4, 5, 8]
    if format == "parquet":
        content = table([START + h * HOUR for h in hours], hours)
    else:
        kind = rows if format == "csv" else lines
        content = (HEADER * (format == "csv") + "".join(kind(h, start=START + h * HOUR) for h in hours)).encode()
    found = problems(write(content, f"grid.{format}"))
    places = {"csv": (":5", ":7"), "jsonl": (":4", ":6"), "parquet": (": row 4", ": row 6")}[format]
    assert found[0].startswith(f"grid.{format}{places[0]}: 1 row is missing before it: 2024-05-01T03:00Z; add them")
    assert found[1].startswith(f"grid.{format}{places[1]}: 2 rows are missing before it: 2024-05-01T06:00Z to ")
    assert len(found) == 2


def test_all_problems_come_at_once_in_order_of_lines(write):
    text = HEADER + rows(1, -2, 3) + rows("x", start=START + 5 * HOUR) + "noon,4\n"
    places = [line.split(": ")[0] for line in problems(write(text))]
    assert places == ["grid.csv:3", "grid.csv:5", "grid.csv:5", "grid.csv:6"]


@pytest.mark.parametrize("format", FORMATS)
def test_ten_problems_are_shown_and_the_rest_counted(write, format):
    found = problems(write(written(format, [-1] * 50), f"grid.{format}"))
    numbers = [int(re.findall(r"\d+", line)[0]) for line in found[:10]]
    assert numbers == list(range(2, 12) if format == "csv" else range(1, 11))
    assert found[10:] == ["and 40 more problems"]


def test_the_reader_keeps_ten_problems_however_many_there_are():
    found = Problems("grid.csv")
    for line in range(1000):
        found.add(line, "wrong")
    assert len(found.shown) == 10
    assert found.count == 1000
