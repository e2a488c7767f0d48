"""Rows of data files: .jsonl, .json, .csv, .tsv and .parquet and their synonyms, each also as .gz."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import data_suffix

LINES = (".jsonl", ".ndjson", ".jsonlines")
TABLES = {".csv": ",", ".tsv": "\t"}
ONE_ROW = {"messages", "conversations", "conversation"}
LONGEST_FIELD = 2**31 - 1  # of a CSV file in characters; the library's own limit is 131,072


class Row(NamedTuple):
    """A row and where it stands, as messages name it: `pairs.jsonl:3`."""

    where: str
    values: Mapping[str, object]


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file. Raise `SpecError` if the file or a row of it cannot be read."""
    suffix = data_suffix(path.name)
    with guarded(str(path), "check that the file is whole"):
        _refuse_other_content(path)
        try:
            if suffix in LINES:
                yield from _lines(path)
            elif suffix == ".json":
                yield from _json(path)
            elif suffix in TABLES:
                yield from _table(path, TABLES[suffix])
            else:
                yield from _parquet(path)
        except UnicodeDecodeError:
            raise _undecodable(path) from None


@contextmanager
def guarded(what: str, remedy: str) -> Iterator[None]:
    """Turn any error of a library into a `SpecError` that names `what` was read and a remedy."""
    try:
        yield
    except (SpecError, UnicodeDecodeError):
        raise
    except ImportError as error:
        raise SpecError(f"{what}: needs the package {error.name}; pip install 'gridsweep[train]'") from None
    except Exception as error:  # formats have many libraries, each with errors of its own
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise SpecError(f"{what}: cannot be read ({cause}); {remedy}") from error


def _lines(path: Path) -> Iterator[Row]:
    """Yield one object per line; only line feeds and carriage returns end a line."""
    with _text(path) as file:
        for number, line in enumerate(file, 1):
            line = line.strip("\ufeff \t\r\n")
            if line:
                yield Row(f"{path}:{number}", _object(line, number, path))


def _object(line: str, number: int, path: Path) -> Mapping[str, object]:
    where = f"{path}:{number}"
    try:
        row = json.loads(line)
    except ValueError as error:
        if number == 1 and line[0] in "{[" and line[-1] not in "}]":
            raise SpecError(
                f"{where}: not a whole JSON object; each line must hold one: "
                f"`jq -c . {path.name} > NEW` writes it so (`jq -c '.[]'` for a list)"
            ) from None
        raise SpecError(f"{where}: not JSON ({error}); mend or remove the line") from None
    if isinstance(row, list):
        raise SpecError(f"{where}: a list, not an object; name the file .json if it is one list of objects")
    if not isinstance(row, dict):
        raise SpecError(f'{where}: not an object such as {{"prompt": ..., "response": ...}}; mend or remove the line')
    return row


def _json(path: Path) -> Iterator[Row]:
    """Yield the rows of a list of objects, of the only such list in an object, or of one object per line."""
    with _text(path) as file:
        text = file.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and error.msg == "Extra data":
            yield from _lines(path)
            return
        raise SpecError(f"{path}:{error.lineno}: not JSON ({error}); mend it, or export the data again") from None
    rows = _rows_in(value, path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            what = f'row {number} is not an object such as {{"prompt": ..., "response": ...}}'
            raise SpecError(f"{path}: {what}; mend or remove it")
        yield Row(f"{path}, row {number}", row)


def _rows_in(value: object, path: Path) -> list[object]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise SpecError(f"{path}: does not hold a list of objects; write one object per row")
    if ONE_ROW & value.keys():
        return [value]
    lists = {key: v for key, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    if len(lists) != 1:
        held = f"lists of objects under {', '.join(lists)}" if lists else f"no list of objects, but {_keys(value)}"
        raise SpecError(f"{path}: holds {held}; write one list of objects, one for each row")
    return next(iter(lists.values()))


def _keys(value: dict[str, object]) -> str:
    return f"the keys {', '.join(list(value)[:8])}" if value else "nothing"


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    """Yield the rows below a header; without a comma in it, semicolons or tabs separate the columns."""
    csv.field_size_limit(LONGEST_FIELD)
    with _text(path, newline="") as file:
        header = file.readline()
        if delimiter == "," and "," not in header:
            delimiter = next((other for other in ";\t" if other in header), delimiter)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SpecError(f"{path}:1: the column {twice[0]!r} is there twice; rename one")
            for fields in reader:
                if fields and len(fields) != len(names):
                    what = f"{len(fields)} fields, but the header has {len(names)}"
                    raise SpecError(f"{path}:{reader.line_num}: {what}; quote fields with separators in them")
                if fields:
                    yield Row(f"{path}:{reader.line_num}", dict(zip(names, fields, strict=True)))
        except csv.Error as error:
            raise SpecError(f"{path}:{reader.line_num}: not a CSV row ({error}); mend or remove it") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SpecError(f"{path}: Parquet files need pyarrow; pip install 'gridsweep[parquet]'") from None
    with _binary(path) as file:
        source = io.BytesIO(file.read()) if path.suffix.lower() == ".gz" else file
        number = 0
        for batch in ParquetFile(source).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield Row(f"{path}, row {number}", row)


@contextmanager
def _binary(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as file:
                yield cast(BinaryIO, file)
        else:
            yield raw


@contextmanager
def _text(path: Path, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    with _binary(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
        yield text


def _refuse_other_content(path: Path) -> None:
    """Raise `SpecError` for a pointer in place of the file, and for a file in UTF-16."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise SpecError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    if b"/annex/objects/" in start:
        raise SpecError(f"{path}: a git-annex pointer, not the file itself; run `git annex get` in its folder")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError(f"{path}:1: UTF-16, not UTF-8; `iconv -f utf-16 -t utf-8 {path.name} > NEW` converts it")


def _undecodable(path: Path) -> SpecError:
    """Return the error for a file that is not UTF-8, with the first line and byte that are not."""
    with _binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
                convert = f"`iconv -f latin1 -t utf-8 {path.name} > NEW` converts it from Latin-1"
                return SpecError(f"{path}:{number}: not UTF-8 ({byte}); {convert}")
    return SpecError(f"{path}: not UTF-8; convert it")
