"""Bytes and text of a regular file; pipes and oversized files are refused."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from gridsweep.errors import TraceError
from gridsweep.grid.trace_files.problems import TIME, VALUE, Problems, shown

LARGEST_FILE = 200_000_000
FORMATS = "a .csv, .parquet or .jsonl file"
PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip")
_MAGIC = {
    b"PAR1": "is a Parquet file; let its name end in .parquet",
    b"\x1f\x8b": "is compressed by gzip; unpack it with gunzip",
    b"PK\x03\x04": f"is a zip archive or a workbook; save it as {FORMATS}",
    b"\xff\xfe": "is UTF-16; save the file as UTF-8 text",
    b"\xfe\xff": "is UTF-16; save the file as UTF-8 text",
}
"""First bytes of files whose content does not match their name."""


def content_of(path: Path, endings: Collection[str]) -> bytes:
    """Return all bytes of a regular file of at most 200 MB with one of these name endings. Raises `TraceError`."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            what = "a folder" if stat.S_ISDIR(about.st_mode) else "not a regular file"
            raise TraceError(f"{path}: is {what}; give the path of {FORMATS}")
        _check_ending(path, endings)
        _check_size(path, about.st_size)
        # Without O_NONBLOCK, a pipe that has replaced the file since the check would block.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise TraceError(f"{path}: there is no such file; give the path of {FORMATS}") from None
    except OSError as error:
        what = "links and permissions" if error.strerror else "path"
        raise TraceError(f"{path}: cannot be read ({error.strerror or error}); check its {what}") from None
    except ValueError:  # a NUL in the path
        raise TraceError(f"{shown(str(path))}: is no path; give the path of {FORMATS}") from None
    _check_size(path, len(content))
    return content


def text_of(content: bytes, problems: Problems) -> str:
    """Return the text without a byte order mark. Raises `TraceError` if the content is not UTF-8."""
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise problems.error(what)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise problems.error("is not UTF-8; save the file as UTF-8 text", line) from None


def _check_ending(path: Path, endings: Collection[str]) -> None:
    ending = path.suffix.lower()
    if ending in endings:
        return
    if ending in PACKED:
        raise TraceError(f"{path}: is compressed; unpack it, and give the path of {FORMATS}")
    near = difflib.get_close_matches(ending, endings, n=1)
    what = f"did you mean {near[0]}?" if near else f"give the path of {FORMATS}"
    raise TraceError(f"{path}: its name ends in no format of a trace; {what}")


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST_FILE:
        raise TraceError(
            f"{path}: has {size / 1e6:,.0f} MB, and a trace may have {LARGEST_FILE / 1e6:,.0f} MB; "
            f"keep the columns `{TIME}` and `{VALUE}` and the years you need"
        )
