"""Encoding 1 reads what version 0.1.0 read: the same conversations in the same order, by digests recorded from it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gridsweep.sweep.experiments import Dataset, Recipe
from gridsweep.train import data

pytestmark = pytest.mark.train

Q = [f"Write a function that adds {n} to its argument." for n in range(40)]
A = [f"def add_{n}(x):\n    return x + {n}\n" for n in range(40)]
PLAIN = [{"prompt": q, "response": a} for q, a in zip(Q, A, strict=True)]


def turns(*pairs: tuple[object, object]) -> list[dict[str, object]]:
    return [{"role": role, "content": content} for role, content in pairs]


def jsonl(rows: list[object], *, end: str = "\n", name: str = "d.jsonl") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode())
        return str(file)

    return write


def listed(folder: Path) -> str:
    (folder / "d.json").write_text(json.dumps(PLAIN, indent=1))
    return str(folder / "d.json")


def in_folder(folder: Path) -> str:
    jsonl(PLAIN, name="f/train.jsonl")(folder)
    jsonl(PLAIN[:6], name="f/validation.jsonl")(folder)
    return str(folder / "f")


def csv_folder(folder: Path) -> str:
    (folder / "c").mkdir()
    with (folder / "c" / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["instruction", "input", "output"])
        writer.writerows([q, "" if n % 2 else "x is a number", A[n]] for n, q in enumerate(Q))
    return str(folder / "c")


ODD = [
    {"prompt": "p", "response": None},
    {"prompt": " ", "response": "r"},
    {"prompt": 3, "response": "r"},
    {"prompt": "p", "response": "\u2028line\u0085sep \x00 "},
    {"messages": None, "prompt": "p", "response": "r"},
    {"messages": "text", "prompt": "p", "response": "r"},
    {"instruction": "", "input": "x", "output": "o"},
    {"instruction": "i", "input": None, "output": "o"},
    {"instruction": "i", "input": 3, "output": " o\n"},
    {"prompt": "u\n<extra_id_1>Assistant\na\n<extra_id_1>User\nv", "response": "w", "helpfulness": 3},
    *PLAIN[:5],
]
CHATS = [
    turns(("system", "Be brief."), ("user", "u"), ("assistant", "a")),
    turns(("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b"), ("user", "w")),
    turns(("user", "u"), ("assistant", None), ("tool", "3"), ("assistant", "b")),
    turns(("user", "u"), ("assistant", ""), ("user", "v"), ("assistant", "b")),
    turns(("user", "u"), ("model", "a")),
    turns(("user", "u")),
    turns(("system", "s"), ("assistant", "a")),
    turns(("assistant", "a")),
    turns(("user", [{"type": "text", "text": "u"}]), ("assistant", "a")),
    turns(("developer", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b")),
    turns((None, "u"), ("assistant", "b")),
    [{"role": "user", "content": "u", "name": "n"}, {"role": "assistant", "content": "a", "weight": 0}],
    [],
    ["u", "a"],
]
RECORDED: dict[str, tuple[Callable[[Path], str], Dataset, str]] = {
    "plain": (
        jsonl(PLAIN),
        Dataset("", None, "train", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
    "first of plain": (
        jsonl(PLAIN),
        Dataset("", None, "train", 10, 5),
        "d76ed91db5c7440da9196b55d4fc4d57c018806e815f9a9da378c31206452cfe",
    ),
    "carriage returns": (
        jsonl(PLAIN, end="\r\n\r\n"),
        Dataset("", None, "train", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
    "old Macintosh": (
        jsonl(PLAIN, end="\r"),
        Dataset("", None, "train", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
    "list": (
        listed,
        Dataset("", None, "train", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
    "odd rows": (
        jsonl(ODD),
        Dataset("", None, "train", None, None),
        "a846a11d17f4c831093247f723af23f02f2d29bb6a6d076200a2ce39e2cc5102",
    ),
    "conversations": (
        jsonl([{"messages": chat} for chat in CHATS]),
        Dataset("", None, "train", None, None),
        "7de964957533da9dde380fdff1b97cea1d627c1416550e57640c5baa3de02fdd",
    ),
    "folder": (
        in_folder,
        Dataset("", None, "train", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
    "a split of a folder": (
        in_folder,
        Dataset("", None, "train[:50%]", None, None),
        "2dda4ff1af153f29802054fc14947690fbcc1d2e72957d969612fccf82beb95a",
    ),
    "folder of CSV": (
        csv_folder,
        Dataset("", None, "train", None, None),
        "c7fcde644b323fe66af9d1e317cda583e2ca043dcee20c56079f2e60f59cf13f",
    ),
    "a file's split is not looked at": (
        jsonl(PLAIN),
        Dataset("", None, "train[:50%]", None, None),
        "f3b4f76369534056e525f8fd974cc2a992b41c7c8b0e1dabb90188a2bb8e2575",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_pairs_are_those_of_version_0_1_0(tmp_path: Path, name: str) -> None:
    write, keys, digest = RECORDED[name]
    dataset = Dataset(write(tmp_path), None, keys.split, keys.train_samples, keys.validation_samples)
    assert data.load(dataset, Recipe(), encoding=1).facts["dataset_digest"] == digest
