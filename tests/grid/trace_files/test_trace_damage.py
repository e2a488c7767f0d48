"""Any file at all is a trace or a `TraceError`, and nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_writers import FORMATS, HEADER, sdk, written

from gridsweep.errors import TraceError
from gridsweep.grid.trace_files import read_recording


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A good file with bytes flipped, cut out or put in, or lines dropped, doubled or swapped."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        at = draw(st.integers(0, max(0, size - 1)))
        match draw(st.sampled_from(["flip", "cut", "insert", "end", "drop", "double", "swap"])):
            case "flip":
                content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
            case "cut":
                content = content[:at] + content[at + draw(st.integers(1, 40)) :]
            case "insert":
                content = content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:]
            case "end":
                content = content[:at]
            case change:
                parts = content.split(b"\n")
                i = draw(st.integers(0, len(parts) - 1))
                if change == "swap":
                    parts[i], parts[-1 - i] = parts[-1 - i], parts[i]
                else:
                    parts[i : i + 1] = [parts[i]] * (2 if change == "double" else 0)
                content = b"\n".join(parts)
    return content


def only_a_trace_or_an_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        recording = read_recording(path)
    except TraceError as error:
        first = str(error).splitlines()[0]
        assert re.match(rf"{re.escape(str(path))}(:\d+|: row \d+)?: ", first)
        assert all(line.isprintable() and len(line) < 1000 for line in str(error).splitlines())
    else:
        values = recording.trace.values
        assert len(values) >= 1
        assert np.nanmin(values) >= 0
        assert np.nanmax(values) <= 5000


VALUES: list[float | None] = [100, 110.5, None, 130, 140, 150, 160, 170]
WORDS = ["measured"] * 4 + ["estimated"] * 4
UNITS = ["gCO2eq/kWh"] * 8


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=250)
@given(data=st.data())
def test_a_damaged_file_is_a_trace_or_an_error(tmp_path_factory, format, data):
    content = data.draw(damaged(written(format, VALUES, quality=WORDS, unit=UNITS)))
    only_a_trace_or_an_error(tmp_path_factory.getbasetemp() / f"damaged.{format}", content)


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_answer_of_the_sdk_is_a_trace_or_an_error(tmp_path_factory, data):
    content = data.draw(damaged(sdk(1, 2, None, 4).encode()))
    only_a_trace_or_an_error(tmp_path_factory.getbasetemp() / "damaged.json", content)


@given(st.binary(max_size=200), st.sampled_from([*FORMATS, "csv with a header"]))
def test_no_file_breaks_the_reader(tmp_path_factory, content, kind):
    format = kind.split()[0]
    content = HEADER.encode() + content if kind != format else content
    only_a_trace_or_an_error(tmp_path_factory.getbasetemp() / f"any.{format}", content)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["timestamp", "carbon_intensity", "quality", "unit", "time", "rating", "duration", "location"]
            ),
            scalars | st.lists(scalars, max_size=2) | st.sampled_from(["2024-05-01T00:00Z", "2024-05-01T01:00Z", 100]),
        ),
        max_size=4,
    )
)
def test_no_json_breaks_the_reader(tmp_path_factory, objects):
    text = "".join(json.dumps(found) + "\n" for found in objects)
    only_a_trace_or_an_error(tmp_path_factory.getbasetemp() / "any.ndjson", text.encode())
