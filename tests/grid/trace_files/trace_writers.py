"""Trace files for tests: the same rows in each format, and what is said of a wrong one."""

import io
import json
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.errors import TraceError
from gridsweep.grid.trace_files import read_trace

START = datetime(2024, 5, 1, tzinfo=UTC)
HEADER = "timestamp,carbon_intensity\n"
DAY = timedelta(days=1)
FORMATS = ("csv", "jsonl", "parquet")


def rows(*values: object, start: datetime = START, step: timedelta = HOUR) -> str:
    return "".join(f"{(start + i * step).isoformat()},{value}\n" for i, value in enumerate(values))


def lines(*values: object, start: datetime = START, step: timedelta = HOUR, **more: object) -> str:
    return "".join(
        json.dumps({"timestamp": (start + i * step).isoformat(), "carbon_intensity": value, **more}) + "\n"
        for i, value in enumerate(values)
    )


def sdk(*values: object, duration: str | None = "01:00:00", step: timedelta = HOUR, location: str = "eastus") -> str:
    return "".join(
        json.dumps(
            {"location": location, "time": (START + i * step).isoformat(), "rating": value, "duration": duration}
        )
        + "\n"
        for i, value in enumerate(values)
    )


def moments(count: int, start: datetime = START, step: timedelta = HOUR) -> list[datetime]:
    return [start + i * step for i in range(count)]


def table(times: Any, values: Any, **more: Any) -> bytes:
    """A Parquet file; `options` are those of the writer."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    options = more.pop("options", {})
    file = io.BytesIO()
    pq.write_table(pa.table({"timestamp": times, "carbon_intensity": values, **more}), file, **options)
    return file.getvalue()


def written(format: str, values: list[float | None], step: timedelta = HOUR, **more: list[Any]) -> bytes:
    """The same rows in each format, with columns beside."""
    times = moments(len(values), step=step)
    if format == "parquet":
        return table(times, values if any(value is not None for value in values) else [nan] * len(values), **more)
    cells = [
        {"timestamp": moment.isoformat(), "carbon_intensity": value, **{name: more[name][i] for name in more}}
        for i, (moment, value) in enumerate(zip(times, values, strict=True))
    ]
    if format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in cells).encode()
    text = ",".join(cells[0]) + "\n"
    text += "".join(",".join("" if v is None else str(v) for v in row.values()) + "\n" for row in cells)
    return text.encode()


def problems(path: Path) -> list[str]:
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    return [line.removeprefix(f"{path.parent}/") for line in str(caught.value).splitlines()]


def same(a: Trace, b: Trace) -> bool:
    return (a.start, a.step) == (b.start, b.step) and np.array_equal(a.values, b.values, equal_nan=True)
