"""Datasets as people have them: functions that write one below a folder and return its path."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

Writer = Callable[[Path], Path]
Row = dict[str, object]

COUNT = 40
Q = [f"Write a function that adds {n} to its argument." for n in range(COUNT)]
A = [f"def add_{n}(x):\n    return x + {n}\n" for n in range(COUNT)]
PLAIN: list[Row] = [{"prompt": q, "response": a} for q, a in zip(Q, A, strict=True)]


def each(row: Callable[[str, str], Row]) -> list[Row]:
    return [row(q, a) for q, a in zip(Q, A, strict=True)]


def turn(role: str, content: object, **more: object) -> Row:
    return {"role": role, "content": content, **more}


def chat(q: object, a: object, *before: Row) -> list[Row]:
    return [*before, turn("user", q), turn("assistant", a)]


def lines(rows: Sequence[object], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def raw(name: str, content: bytes) -> Writer:
    def write(folder: Path) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
        return file

    return write


def jsonl(rows: Sequence[object], name: str = "d.jsonl") -> Writer:
    return raw(name, lines(rows))


def table(name: str, rows: Sequence[Row], delimiter: str = ",") -> Writer:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return raw(name, text.getvalue().encode())


def parquet(name: str, rows: Sequence[object]) -> Writer:
    def write(folder: Path) -> Path:
        import pyarrow
        from pyarrow.parquet import write_table

        whole = io.BytesIO()
        write_table(pyarrow.Table.from_pylist(list(rows)), whole)
        return raw(name, whole.getvalue())(folder)

    return write


def folder(*writers: Writer) -> Writer:
    def write(below: Path) -> Path:
        home = below / "a folder"
        for writer in writers:
            writer(home)
        return home

    return write


def saved(**splits: Sequence[Row]) -> Writer:
    """What `save_to_disk` writes: a Dataset if the only split is called `alone`, else a DatasetDict."""

    def write(below: Path) -> Path:
        from datasets import Dataset, DatasetDict

        made = {name: Dataset.from_list(list(rows)) for name, rows in splits.items()}
        (made["alone"] if "alone" in made else DatasetDict(made)).save_to_disk(str(below / "saved"))
        return below / "saved"

    return write
