"""Parquet files, read by pyarrow in batches so that a small file cannot expand into a huge table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import isnan, nan
from typing import Any  # pyarrow has no types

from gridsweep.grid.trace_files.cells import amount_of, moment_of, quality_of
from gridsweep.grid.trace_files.problems import QUALITY, TIME, UNIT, VALUE, Problems, column_faults, shown
from gridsweep.grid.trace_files.slots import Slots

MOST_ROWS = 5_000_000  # 47 years of five-minute slots
MOST_BYTES = 2_000_000_000
BATCH = 65_536
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(content: bytes, slots: Slots, problems: Problems) -> None:
    """Read the rows of a Parquet file into `slots`.

    Times are timestamps with a time zone or ISO 8601 texts; values are any numbers, null or NaN if unknown. Raises
    `TraceError` if pyarrow is not installed or the file is not such a table.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise problems.error("needs pyarrow: pip install 'gridsweep[parquet]'") from None
    if not content:
        raise problems.error(f"is empty; write a table with the columns `{TIME}` and `{VALUE}`")
    try:
        whole = parquet.ParquetFile(pyarrow.BufferReader(content))
        wanted = _columns(pyarrow, whole, problems)
        texts = [name for name, kind in wanted.items() if _is_text(pyarrow, kind)]
        # Parquet stores a repeated text once; reading it as a dictionary keeps it small.
        table = parquet.ParquetFile(pyarrow.BufferReader(content), read_dictionary=texts)
        row = 0
        for batch in table.iter_batches(BATCH, columns=list(wanted), use_threads=False):
            columns = [_cells(pyarrow, batch, name) for name in (TIME, VALUE, UNIT, QUALITY)]
            for moment, value, unit, quality in zip(*columns, strict=True):
                row += 1
                slots.add(
                    row,
                    moment_of(moment, row, problems),
                    nan if value is None or isnan(value) else amount_of(float(value), unit, row, problems),
                    quality_of(quality, row, problems),
                )
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError, LookupError) as error:
        what = shown((str(error).splitlines() or [type(error).__name__])[0])
        raise problems.error(f"is no Parquet file that can be read ({what}); write it anew") from None


def _columns(pyarrow: Any, table: Any, problems: Problems) -> dict[str, Any]:
    """Return the types of the columns to read, by name. Raises `TraceError` for bad columns or too large a table."""
    schema = table.schema_arrow
    for fault in column_faults(schema.names):
        problems.add(0, fault)
    problems.check()
    wanted = {name: schema.field(name).type for name in (TIME, VALUE, QUALITY, UNIT) if name in schema.names}
    for name, kind in wanted.items():
        if name == VALUE:
            number = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)
            if not number and not pyarrow.types.is_null(kind):
                problems.add(0, f"the column `{name}` holds {shown(str(kind))}; give numbers in gCO2eq/kWh")
        elif name == TIME and pyarrow.types.is_timestamp(kind):
            if kind.tz is None:
                problems.add(0, f"the column `{name}` has no time zone; convert it to timestamps in UTC")
        elif not _is_text(pyarrow, kind) and not pyarrow.types.is_null(kind):
            what = "timestamps with a time zone" if name == TIME else "texts"
            problems.add(0, f"the column `{name}` holds {shown(str(kind))}; give {what}")
    about = table.metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if about.num_rows > MOST_ROWS or size > MOST_BYTES:
        problems.add(
            0,
            f"has {about.num_rows:,} rows in {size / 1e6:,.0f} MB unpacked, and a trace may have {MOST_ROWS:,} in "
            f"{MOST_BYTES / 1e6:,.0f} MB; keep the columns `{TIME}` and `{VALUE}` and the years you need",
        )
    problems.check()
    return wanted


def _is_text(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _cells(pyarrow: Any, batch: Any, name: str) -> Iterator[Any]:
    """Yield a column of a batch as Python values; a missing column yields only None.

    Timestamps become aware datetimes, or text if they are outside the range of `datetime`.
    """
    if name not in batch.schema.names:
        return iter([None] * batch.num_rows)
    column = batch.column(name)
    if pyarrow.types.is_dictionary(column.type):
        words = column.dictionary.to_pylist()
        return iter([None if i is None else words[i] for i in column.indices.to_pylist()])
    if not pyarrow.types.is_timestamp(column.type):
        return iter(column.to_pylist())
    a_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    return (None if ticks is None else _instant(ticks, a_second) for ticks in column.cast(pyarrow.int64()).to_pylist())


def _instant(ticks: int, a_second: int) -> datetime | str:
    try:
        return EPOCH + timedelta(microseconds=ticks * 10**6 // a_second)
    except OverflowError:
        return f"{ticks / a_second:.0f} seconds since 1970"
