"""Traces in Parquet, and tables that are none."""

import io
import subprocess
import sys
from datetime import timezone
from decimal import Decimal
from math import isnan, nan

import numpy as np
import pytest
from trace_writers import HEADER, START, moments, problems, rows, same, table

from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.grid.trace_files import read_recording, read_trace

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "+05:45", "America/Los_Angeles"])
def test_timestamps_of_every_unit_and_zone_are_instants(write, unit, zone):
    path = write(table(pa.array(moments(3), pa.timestamp(unit, zone)), [1.0, 2.0, 3.0]), "grid.parquet")
    assert same(read_trace(path), Trace(START, HOUR, [1, 2, 3]))


@pytest.mark.parametrize(
    "times",
    [
        pa.array([moment.isoformat() for moment in moments(3)]),
        pa.array([moment.isoformat() for moment in moments(3)], pa.large_string()),
        pa.array([moment.isoformat() for moment in moments(3)]).dictionary_encode(),
        pa.array([moment.astimezone(timezone(HOUR)).isoformat() for moment in moments(3)]),
    ],
)
def test_times_may_be_texts(write, times):
    assert same(read_trace(write(table(times, [1, 2, 3]), "grid.parquet")), Trace(START, HOUR, [1, 2, 3]))


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.int32(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 3)],
)
def test_values_may_be_any_numbers(write, kind):
    values = [Decimal(1), None, Decimal(3)] if pa.types.is_decimal(kind) else [1, None, 3]
    read = read_trace(write(table(moments(3), pa.array(np.array(values, dtype=object), kind)), "grid.parquet")).values
    assert (read[0], isnan(read[1]), read[2]) == (1, True, 3)


def test_nan_in_parquet_is_unknown(write):
    assert isnan(read_trace(write(table(moments(3), [1.0, nan, 3.0]), "grid.parquet")).values[1])


@pytest.mark.parametrize(
    "options",
    [
        {"row_group_size": 1},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "gzip", "use_dictionary": False},
        {"version": "1.0", "compression": "none"},
        {"store_schema": False},
    ],
)
def test_parquet_of_every_make(write, options):
    words = ["measured", "measured", "estimated"]
    content = table(moments(3), [1.0, 2.0, 3.0], quality=words, note=[[1], [2], []], options=options)
    recording = read_recording(write(content, "grid.parquet"))
    assert same(recording.trace, Trace(START, HOUR, [1, 2, 3]))
    assert recording.qualities == ((START, "measured"), (START + 2 * HOUR, "estimated"))


GOOD = table(moments(3), [1.0, 2.0, 3.0])
NONE = pa.table({"timestamp": pa.array([], pa.timestamp("us", "UTC")), "carbon_intensity": pa.array([], pa.float64())})


def groupless() -> bytes:
    file = io.BytesIO()
    pq.ParquetWriter(file, NONE.schema).close()
    return file.getvalue()


def renamed(*names: str) -> bytes:
    file = io.BytesIO()
    columns = [pa.array(moments(2)), pa.array([1, 2]), pa.array([3, 4])]
    pq.write_table(pa.table(columns[: len(names)], names=names), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is empty; write a table"),
        (b"PAR1", "is no Parquet file that can be read ("),
        (b"PAR1PAR1", "is no Parquet file that can be read ("),
        (HEADER.encode() + rows(1, 2).encode(), "is no Parquet file that can be read (Parquet magic bytes"),
        (bytes(range(256)) * 40, "is no Parquet file that can be read ("),
        (GOOD[:-1], "is no Parquet file that can be read ("),
        (GOOD[: len(GOOD) // 2], "is no Parquet file that can be read ("),
        (GOOD[len(GOOD) // 2 :], "is no Parquet file that can be read ("),
        (GOOD[:4] + bytes(200) + GOOD[204:], "is no Parquet file that can be read ("),
        (GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", "is no Parquet file that can be read ("),
        (groupless(), "has no rows; add rows"),
        (table(NONE["timestamp"], NONE["carbon_intensity"]), "has no rows; add rows"),
        (table(moments(1), [1]), "row 1: has a single row"),
        (table(moments(2), [None, None]), "row 1: no row has a `carbon_intensity`"),
        (renamed("timestamp"), "no column is named `carbon_intensity`"),
        (renamed("Timestamp", "carbon_intensity"), "no column is named `timestamp`; rename `Timestamp`"),
        (
            renamed("timestamp", "carbon_intensity", "carbon_intensity"),
            "the column `carbon_intensity` is there 2 times; keep one",
        ),
        (
            table(pa.array(moments(2), pa.timestamp("us")), [1, 2]),
            "the column `timestamp` has no time zone; convert it",
        ),
        (
            table([1714521600, 1714525200], [1, 2]),
            "the column `timestamp` holds int64; give timestamps with a time zone",
        ),
        (table(pa.array(moments(2), pa.date32()), [1, 2]), "the column `timestamp` holds date32[day]; give timestamps"),
        (table([{"a": 1}, {"a": 2}], [1, 2]), "the column `timestamp` holds struct<a: int64>; give timestamps"),
        (table([None, None], [1, 2]), "row 1: the time is null; write it as"),
        (table([*moments(2), None], [1, 2, 3]), "row 3: the time is null; write it as"),
        (table(moments(2), ["1", "2"]), "the column `carbon_intensity` holds string; give numbers in gCO2eq/kWh"),
        (table(moments(2), [True, False]), "the column `carbon_intensity` holds bool; give numbers"),
        (table(moments(2), [[1], [2]]), "the column `carbon_intensity` holds list<element: int64>; give numbers"),
        (table(moments(2), [{"carbon_intensity": 1}] * 2), "the column `carbon_intensity` holds struct<"),
        (table(moments(2), pa.array([1, 2], pa.duration("s"))), "the column `carbon_intensity` holds duration[s]"),
        (table(moments(2), [1, 2], unit=[1, 2]), "the column `unit` holds int64; give texts"),
        (table(moments(2), [1, 2], quality=[["measured"]] * 2), "the column `quality` holds list<"),
        (table(moments(2), [1, -2]), "row 2: -2.0 is negative"),
        (table(moments(2), [1, float("inf")]), "row 2: inf is more than 5000"),
        (table(moments(2), [1.0, -float("inf")]), "row 2: -inf is negative"),
        (table(moments(2), [1, 1e9]), "row 2: 1000000000.0 is more than 5000"),
        (
            table(pa.array([0, 2**62], pa.timestamp("us", "UTC")), [1, 2]),
            "row 2: `4611686018427 seconds since 1970` is no time",
        ),
        (table(pa.array([0, -1], pa.timestamp("s", "UTC")), [1, 2]), "is not between 1970 and 2200; correct the year"),
        (table([*moments(2), START], [1, 2, 3]), "row 3: 2024-05-01T00:00Z is there already, in row 1; keep one"),
        (
            table([START + HOUR, START], [1, 2]),
            "row 2: 2024-05-01T00:00Z comes after 2024-05-01T01:00Z; order the rows",
        ),
        (
            table([*moments(3), START + 2.5 * HOUR], [1, 2, 3, 4]),
            "row 4: 2024-05-01T02:30Z is 0:30:00 after the row before",
        ),
        (table(pa.array([b"a\xff", b"b"]).cast(pa.binary()), [1, 2]), "the column `timestamp` holds binary; give"),
    ],
)
def test_a_parquet_file_that_is_no_trace(write, content, wanted):
    assert wanted in problems(write(content, "grid.parquet"))[0]


def test_a_small_parquet_file_of_millions_of_rows_is_refused_unread(write):
    rows = 5_000_001
    times = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int8)), pa.array(["x" * 1000]))
    path = write(table(times, pa.array(np.zeros(rows, dtype=np.int8))), "grid.parquet")
    assert path.stat().st_size < 1_000_000
    assert "has 5,000,001 rows" in problems(path)[0]


def test_a_long_text_in_many_rows_stays_one_text(write):
    rows, text = 50_000, "x" * 10_000
    times = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int8)), pa.array([text]))
    content = table(times, pa.array(np.zeros(rows, dtype=np.int8)), options={"store_schema": False})
    path = write(content, "grid.parquet")
    assert len(problems(path)) == 11
    assert pa.default_memory_pool().max_memory() < 200_000_000  # and not the 500 MB of all rows


def test_parquet_needs_pyarrow_and_says_so(write):
    path = write(GOOD, "grid.parquet")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from gridsweep.errors import TraceError\nfrom gridsweep.grid.trace_files import read_trace\n"
        "try: read_trace(sys.argv[1])\nexcept TraceError as error: sys.stdout.write(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{path}: needs pyarrow: pip install 'gridsweep[parquet]'"


def test_only_parquet_loads_pyarrow(write):
    code = (
        "import sys; from gridsweep.grid.trace_files import read_trace; read_trace(sys.argv[1])\n"
        "sys.exit('pyarrow' in sys.modules)"
    )
    path = write(HEADER + rows(1, 2))
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode == 0
