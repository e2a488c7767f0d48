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
from gridsweep.train.forms import CHATS, is_row
from gridsweep.train.turns import TOO_DEEP

LINES = (".jsonl", ".ndjson", ".jsonlines")
TABLES = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**31 - 1  # of a CSV file in characters; the library's own limit is 131,072
TOO_LONG = "a number of thousands of digits; write it as text, or remove it"
FORMATS = {
    b"\x1f\x8b": ("gzip", ""),
    b"PAR1": ("Parquet", ""),
    b"PK\x03\x04": ("a zip archive", "unzip it, and name the file in it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "`zstd -d` expands it; only .gz is read compressed"),
    b"\xfd7zXZ\x00": ("compressed by xz", "`xz -d` expands it; only .gz is read compressed"),
    b"BZh": ("compressed by bzip2", "`bzip2 -d` expands it; only .gz is read compressed"),
    b"ARROW1": ("Arrow", "write it as Parquet, or as a folder with save_to_disk of datasets"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "write it as Parquet, or name the folder that save_to_disk wrote"),
    b"SQLite format 3": ("a SQLite database", "export its table as CSV"),
    b"\x89HDF": ("HDF5", "write it as Parquet"),
    b"Obj\x01": ("Avro", "write it as Parquet"),
}
"""The first bytes of formats, what they are called, and what to do where a file is named otherwise."""
WIDE = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
"""Byte order marks of other encodings than UTF-8."""


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
    except RecursionError:
        raise SpecError(f"{where}: {TOO_DEEP}") from None
    except json.JSONDecodeError as error:
        raise SpecError(f"{where}: {_no_object(line, number, path, error)}") from None
    except ValueError:  # Python reads no number of so many digits
        raise SpecError(f"{where}: {TOO_LONG}") from None
    if isinstance(row, list):
        raise SpecError(f"{where}: a list, not an object; name the file .json if it is one list of objects")
    if not isinstance(row, dict):
        raise SpecError(f'{where}: not an object such as {{"prompt": ..., "response": ...}}; mend or remove the line')
    return row


def _no_object(line: str, number: int, path: Path, error: json.JSONDecodeError) -> str:
    """Return why a line is no JSON object, with a remedy that fits the cause."""
    if error.msg == "Extra data":
        rest = line[error.pos :]
        if rest.strip() == ",":
            return f"a comma after the object; `sed 's/,[[:space:]]*$//' {path.name} > NEW` removes it from every line"
        if rest.startswith(("{", ",")):
            return f"a second value in the line, at character {error.pos + 1}; write each object in a line of its own"
        return f"text after the object, at character {error.pos + 1}; remove it"
    if number == 1 and line[0] in "{[" and error.pos >= len(line):
        return (
            "not a whole JSON object; each line must hold one: "
            f"`jq -c . {path.name} > NEW` writes it so (`jq -c '.[]'` for a list)"
        )
    if error.msg == "Illegal trailing comma before end of object" or (
        error.msg.startswith("Expecting property name") and line[: error.pos].rstrip().endswith(",")
    ):
        return f"a comma before the end of an object, at character {error.pos + 1}; remove it"
    return f"not JSON ({error}); mend or remove the line"


def _json(path: Path) -> Iterator[Row]:
    """Yield the rows of a list of objects, of the only such list in an object, or of one object per line."""
    with _text(path) as file:
        text = file.read()
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except RecursionError:
        raise SpecError(f"{path}: {TOO_DEEP}") from None
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{") and error.msg == "Extra data":
            yield from _lines(path)
            return
        raise SpecError(f"{path}:{error.lineno}: not JSON ({error}); mend it, or export the data again") from None
    except ValueError:
        raise SpecError(f"{path}: holds {TOO_LONG}") from None
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
    lists = {key: v for key, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    if len(lists) == 1 and not set(CHATS) & value.keys():
        (rows,) = lists.values()
        return [value] if is_row(value, text=False) and not is_row(rows[0]) else rows
    if is_row(value) or (value and not any(isinstance(v, list) for v in value.values())):
        return [value]
    held = f"lists of objects under {', '.join(lists)}" if lists else f"no list of objects, but {_keys(value)}"
    raise SpecError(f"{path}: holds {held}; write one list of objects, one for each row")


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
    """Raise `SpecError` for a pointer in place of the file, for another format than the name tells, and for UTF-16."""
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise SpecError(f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    if b"/annex/objects/" in start:
        raise SpecError(f"{path}: a git-annex pointer, not the file itself; run `git annex get` in its folder")
    name, zipped, kind = path.name, path.suffix.lower() == ".gz", data_suffix(path.name)
    if zipped and start and not start.startswith(b"\x1f\x8b"):
        named = next((f"is {what}, not gzip" for magic, (what, _) in FORMATS.items() if start.startswith(magic)), "")
        plain = name[: -len(".gz")]
        raise SpecError(f"{path}: {named or 'is not compressed by gzip'}; rename it to {plain}")
    if zipped:
        with _binary(path) as file:
            start = file.read(64)
    parquet = kind in (".parquet", ".pq")
    for magic, (what, remedy) in FORMATS.items():
        if start.startswith(magic) and not (parquet and what == "Parquet"):
            if zipped and what == "gzip":
                raise SpecError(f"{path}: is compressed by gzip twice; `gunzip` it once")
            plain = name[: -len(".gz")] if zipped else name
            new = f"{name}.gz" if what == "gzip" else f"{plain[: -len(kind or '')]}.parquet{'.gz' if zipped else ''}"
            raise SpecError(f"{path}: is {what}, not what its name says; {remedy or f'rename it to {new}'}")
    if parquet:
        if not start:
            raise SpecError(f"{path}: is empty; write it again")
        return
    if code := _wide(start):
        raise SpecError(f"{path}:1: {code.upper()}, not UTF-8; `iconv -f {code} -t utf-8 {name} > NEW` converts it")


def _wide(start: bytes) -> str:
    """Return the encoding of a text's first bytes if each character takes two or four; '' for others."""
    for mark, code in WIDE.items():
        if start.startswith(mark):
            return code
    if len(start) < 8 or 0 not in start[:8]:
        return ""
    if start[1:8:2] == bytes(4) and start[2:8:4] != bytes(2):
        return "utf-16le"
    if start[:8:2] == bytes(4) and start[1:8:4] != bytes(2):
        return "utf-16be"
    return "utf-32le" if start[1:4] == bytes(3) and start[0] else "utf-32be" if start[:3] == bytes(3) else ""


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
