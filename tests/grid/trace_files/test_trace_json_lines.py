"""Traces in JSON Lines, with our names and with those of the Carbon Aware SDK, and lines that are none."""

import json
import os
from datetime import timedelta

import pytest
from trace_writers import DAY, START, lines, problems, sdk

from gridsweep.carbon.traces import HOUR
from gridsweep.grid.trace_files import read_trace


@pytest.mark.parametrize("name", ["grid.jsonl", "grid.ndjson", "grid.json"])
def test_json_lines_by_any_of_their_names(write, name):
    assert read_trace(write(lines(1, 2.5) + "\n \n" + lines(3, start=START + 2 * HOUR), name)).values.tolist() == [
        1,
        2.5,
        3,
    ]


@pytest.mark.parametrize("extra", ["\u2028", "a\x85b", "ü"])
def test_a_line_ends_only_at_its_end(write, extra):
    text = lines(1, 2, note=extra).encode().decode("unicode_escape").encode()
    assert len(read_trace(write(text, "grid.jsonl"))) == 2


def test_what_the_carbon_aware_sdk_answers_is_read(write):
    trace = read_trace(write(sdk(430, 420.5, None), "grid.jsonl"))
    assert (trace.start, trace.step) == (START, HOUR)
    assert trace.values[:2].tolist() == [430, 420.5]


@pytest.mark.parametrize(
    ("duration", "step"),
    [
        ("00:05:00", timedelta(minutes=5)),
        ("1.00:00:00", DAY),
        ("08:00:00", 8 * HOUR),
        ("01:00:00.0000000", HOUR),
    ],
)
def test_a_duration_is_the_slot_even_of_a_single_row(write, duration, step):
    assert read_trace(write(sdk(430, duration=duration), "grid.jsonl")).step == step


@pytest.mark.parametrize("duration", [None, "00:00:00"])
def test_without_a_duration_the_rows_say_the_step(write, duration):
    assert read_trace(write(sdk(1, 2, 3, duration=duration), "grid.jsonl")).step == HOUR
    assert "a single row" in problems(write(sdk(1, duration=duration), "grid.jsonl"))[0]


TWO = lines(1, 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ":1: is empty; write one object a line"),
        ("\n \n", ":1: is empty; write one object a line"),
        ("\n[" + lines(1).strip() + "]\n", ":2: is a JSON array; write one object a line, as `jq -c '.[]'` does"),
        (lines(1), ":1: has a single row"),
        (lines(None, None), ":1: no row has a `carbon_intensity`"),
        ('{"timestamp": "2024-05-01T00:00Z"}\n' + TWO, ":1: no key is named `carbon_intensity`; name the keys"),
        (
            TWO.replace("carbon_intensity", "carbon_intensty"),
            ":1: no key is named `carbon_intensity`; rename `carbon_i",
        ),
        (TWO.replace("timestamp", "Timestamp"), ":1: no key is named `timestamp`; rename `Timestamp`"),
        ("{}\n", ":1: no key is named `timestamp`; name the keys"),
        (TWO + '{"timestamp": "2024-05-01T02:00Z"}', ":3: has no key `carbon_intensity`; complete the line"),
        (TWO + "{}", ":3: has no key `timestamp` and no key `carbon_intensity`; complete the line"),
        (TWO + "[1, 2]\n", ":3: `[1, 2]` is no object; write {"),
        (TWO + "null\n", ":3: `null` is no object"),
        (TWO + "7\n", ":3: `7` is no object"),
        (TWO + '"text"\n', ':3: `"text"` is no object'),
        (TWO + TWO.splitlines()[0][:40], ":3: is no JSON (Unterminated string starting at at character"),
        (TWO[:-4] + "\n", ":2: is no JSON ("),
        (TWO.replace("}", ", "), ":1: is no JSON ("),
        (TWO.replace("\n", ""), ":1: is no JSON (Extra data at character"),
        (TWO.replace('"', "'"), ":1: is no JSON (Expecting property name"),
        (json.dumps({"timestamp": "x"}, indent=1), ":1: is no JSON (Expecting property name"),
        (TWO.replace("}", ', "carbon_intensity": 3}'), ":1: the key `carbon_intensity` is there 2 times; keep one"),
        (TWO.replace("}", ', "a": {"b": 1, "b": 1}}'), ":1: the key `b` is there 2 times; keep one"),
        (TWO.replace(": 2}", ": NaN}"), ":2: `NaN` is no JSON; write null where the value is unknown"),
        (TWO.replace(": 2}", ": -Infinity}"), ":2: `-Infinity` is no JSON; write null"),
        (TWO.replace(": 2}", ": true}"), ":2: `true` is no number"),
        (TWO.replace(": 2}", ': "231.5"}'), ":2: `231.5` is no number; write gCO2eq/kWh as 231.5, or null"),
        (TWO.replace(": 2}", ': ""}'), ":2: `` is no number"),
        (TWO.replace(": 2}", ": [2]}"), ":2: `[…]` is no number"),
        (TWO.replace(": 2}", ": {}}"), ":2: `{…}` is no number"),
        (TWO.replace(": 2}", ": -2}"), ":2: -2.0 is negative"),
        (TWO.replace(": 2}", ": 1e9}"), ":2: 1000000000.0 is more than 5000"),
        (TWO.replace(": 2}", ": 1e999}"), ":2: inf is more than 5000"),
        (TWO.replace(": 2}", ": " + "9" * 4000 + "}"), ":2: inf is more than 5000"),
        (TWO.replace(": 2}", ": " + "9" * 5000 + "}"), ":2: is no JSON of a trace"),
        (TWO + "[" * 1_000_000, ":3: is no JSON of a trace (`[[["),
        (TWO + "x" * 1_000_000, ":3: is no JSON (Expecting value at character 1)"),
        (TWO + '{"a":' * 100_000, ":3: is no JSON of a trace"),
        (TWO + "\0\0\0", ":3: is no JSON (Expecting value"),
        (TWO.replace(": 2}", ": 2, 'x'}"), ":2: is no JSON ("),
        (TWO.encode() + b"\xff\xff\n", ":3: is not UTF-8"),
        (os.urandom(0) + bytes(range(128, 256)), ":1: is not UTF-8"),
        (TWO.replace('"2024-05-01T01:00:00+00:00"', "1714525200"), ":2: `1714525200` is no time"),
        (TWO.replace('"2024-05-01T01:00:00+00:00"', "null"), ":2: the time is null; write it as"),
        (TWO.replace('"2024-05-01T01:00:00+00:00"', "[1]"), ":2: `[…]` is no time"),
        (TWO + TWO, ":3: 2024-05-01T00:00Z is there already, in line 1; keep one"),
        (lines(2, start=START + HOUR) + lines(1), ":2: 2024-05-01T00:00Z comes after 2024-05-01T01:00Z"),
        (lines(1, 2, unit=5), ":1: `5` is no unit of a trace"),
        (lines(1, 2, unit=["kg"]), ":1: `[…]` is no unit of a trace"),
        (lines(1, 2, quality=5), ":1: `5` is no quality; write one of"),
        (lines(1, 2, quality={"a": 1}), ":1: `{…}` is no quality"),
        (sdk(1, 2, step=2 * HOUR), ":2: 1 row is missing before it: 2024-05-01T01:00Z"),
        (
            sdk(1, 2, step=HOUR / 2),
            ":2: 2024-05-01T00:30Z is 0:30:00 after the row before, and slots last 1:00:00; use",
        ),
        (sdk(1, duration="PT1H"), ":1: `PT1H` is no duration; write an hour as 01:00:00"),
        (sdk(1, duration="-01:00:00"), ":1: `-01:00:00` is no duration"),
        (sdk(1).replace('"01:00:00"', "60"), ":1: `60` is no duration"),
        (
            sdk(1, duration="999.23:59:59"),
            ":1: its slot would last 999 days, 23:59:59; give slots of a minute to a day",
        ),
        (
            sdk(1, 2).replace('01:00:00"}', '00:05:00"}', 1),
            ":2: its slot lasts 1:00:00, and those before it 0:05:00; use",
        ),
        (
            sdk(1) + sdk(1, 2, location="westus"),
            ":2: `westus` is another location than before; keep one location a file",
        ),
        (sdk(1, 2).replace("rating", "Rating"), ":1: no key is named `rating`; rename `Rating`"),
        (sdk(1) + lines(2, start=START + HOUR), ":2: has no key `time` and no key `rating`"),
        (lines(1) + sdk(1, 2), ":2: has no key `timestamp` and no key `carbon_intensity`"),
    ],
)
def test_lines_that_are_no_trace(write, text, wanted):
    assert f"grid.jsonl{wanted}" in "\n".join(problems(write(text, "grid.jsonl")))
