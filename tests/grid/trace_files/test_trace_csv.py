"""Traces in CSV, and tables that are none."""

from datetime import UTC, timedelta

import pytest
from trace_writers import HEADER, START, lines, problems, rows

from gridsweep.carbon.traces import HOUR
from gridsweep.grid.trace_files import read_trace


def test_offsets_and_z_become_utc(write):
    text = HEADER + "2024-05-01T00:00Z,1\n2024-05-01 03:00:00+02:00,2\n2024-04-30T21:00:00-05:00,3\n"
    trace = read_trace(write(text))
    assert (trace.start, trace.step) == (START, HOUR)
    assert trace.start.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("zone,carbon_intensity, timestamp\nA,100,2024-05-01T00:00Z\nA,200,2024-05-01T01:00Z\n", [100, 200]),
        ('"timestamp","carbon_intensity"\n"2024-05-01T00:00Z","1"\n\n , \n"2024-05-01T01:00Z", 2 \n', [1, 2]),
        (HEADER + rows(1e3, "1e1", "+3", 0), [1000, 10, 3, 0]),
        (HEADER + rows(1) + "2024-05-01T01:00:00.000000Z,2,and,more\n", [1, 2]),
    ],
)
def test_tables_of_many_kinds(write, text, values):
    assert read_trace(write(text)).values.tolist() == values


@pytest.mark.parametrize("change", [lambda t: b"\xef\xbb\xbf" + t, lambda t: t.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize("name", ["grid.csv", "grid.jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(write, change, name):
    text = HEADER + rows(1, 2) if name == "grid.csv" else lines(1, 2)
    assert read_trace(write(change(text.encode()), name)).values.tolist() == [1, 2]


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", " , \n"])
def test_an_empty_csv(write, text):
    assert problems(write(text)) == [
        "grid.csv:1: is empty; write the header `timestamp,carbon_intensity` and a row a slot"
    ]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("timestamp,carbon_intensty", ["no column is named `carbon_intensity`; rename `carbon_intensty`"]),
        ("Timestamp,carbon_intensity", ["no column is named `timestamp`; rename `Timestamp`"]),
        ("TIMESTAMP,CARBON_INTENSITY", ["`timestamp`; name the columns", "`carbon_intensity`; name the columns"]),
        ("when,g", ["no column is named `timestamp`; name", "no column is named `carbon_intensity`; name"]),
        ("timestamp;carbon_intensity", ["separate columns by commas"]),
        ("timestamp\tcarbon_intensity", ["is one column; separate columns by commas"]),
        ("timestamp", ["no column is named `carbon_intensity`"]),
        ("timestamp,timestamp,carbon_intensity", ["`timestamp` is there 2 times; keep one"]),
        ("timestamp,carbon_intensity,unit,unit", ["`unit` is there 2 times; keep one"]),
        ("2024-05-01T00:00Z,100", ["no column is named `timestamp`", "no column is named `carbon_intensity`"]),
        ('"timestamp,carbon_intensity"', ["no column is named `timestamp`", "no column is named `carbon_intensity`"]),
    ],
)
def test_a_wrong_header(write, header, wanted):
    found = problems(write(header + "\n" + rows(1, 2)))
    assert len(found) == len(wanted)
    for line, part in zip(found, wanted, strict=True):
        assert line.startswith("grid.csv:1: ")
        assert part in line


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("-0.1", "-0.1 is negative"),
        ("-1e-9", "is negative"),
        ("many", "`many` is no number"),
        ("1_0", "`1_0` is no number"),
        ('"1,5"', "`1,5` is no number"),
        ("100 g", "`100 g` is no number"),
        ("12\x00", "`12\\x00` is no number"),
        ("nan", "`nan` is no amount of carbon"),
        ("inf", "`inf` is no amount of carbon"),
        ("-inf", "`-inf` is no amount of carbon"),
        ("1e999", "`1e999` is no amount of carbon"),
        ("1e9", "is more than 5000, so it is not gCO2eq/kWh; convert the column"),
        ("5000.1", "5000.1 is more than 5000"),
        ("9" * 5000, "`" + "9" * 60 + "…` is no amount of carbon"),
        ("x" * 100_000, "`" + "x" * 60 + "…` is no number"),
    ],
)
def test_a_wrong_value(write, cell, what):
    found = problems(write(HEADER + rows(1, cell, 3)))
    assert [what in line and line.startswith("grid.csv:3: ") for line in found] == [True]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (HEADER, "grid.csv:1: has no rows; add rows"),
        (HEADER + rows(1), "grid.csv:2: has a single row, which does not say how long a slot is; add rows"),
        (HEADER + rows("", "", ""), "grid.csv:2: no row has a `carbon_intensity`; fill the column"),
        (
            HEADER + rows(1) + "2024-05-01T01:00Z\n" + rows(3, 4, start=START + 2 * HOUR),
            "grid.csv:3: has 1 of 2 columns; complete the row or take it out",
        ),
        (HEADER + rows(1, 2)[:-22], "grid.csv:3: has 1 of 2 columns; complete the row or take it out"),
        (
            HEADER + rows(1, 2) + rows(2.5, 3, start=START + HOUR),
            "grid.csv:4: 2024-05-01T01:00Z is there already, in line 3; keep one",
        ),
        (
            HEADER + rows(1) + rows(3, start=START + 2 * HOUR) + rows(2, start=START + HOUR),
            "grid.csv:4: 2024-05-01T01:00Z comes after 2024-05-01T02:00Z; order the rows by time",
        ),
        (
            HEADER + rows(1, 2, 3) + rows(4, 5, start=START + timedelta(hours=2, minutes=20)),
            "grid.csv:5: 2024-05-01T02:20Z is 0:20:00 after the row before, and most are 1:00:00 apart; use one step",
        ),
        (
            HEADER + rows(1, 2, 3) + rows(4, 5, start=START + timedelta(hours=3, microseconds=5)),
            "grid.csv:5: 2024-05-01T03:00:00.000005Z is 1:00:00.000005 after the row before, and most are 1:00:00 "
            "apart; use one step",
        ),
        (
            HEADER.encode() + b"2024-05-01T00:00Z,1\n\xff\xfe,2\n",
            "grid.csv:3: is not UTF-8; save the file as UTF-8 text",
        ),
        (
            HEADER + '"' + "x" * 200_000,
            "grid.csv:2: is no CSV (field larger than field limit (131072)); look for an open quote",
        ),
        (
            HEADER + "x" * 1_000_000,
            "grid.csv:2: is no CSV (field larger than field limit (131072)); look for an open quote",
        ),
    ],
)
def test_a_table_that_is_no_trace(write, text, wanted):
    assert problems(write(text))[0] == wanted
