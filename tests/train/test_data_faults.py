"""Faults of data files and rows: the cause is named, and the remedy helps."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from data_files import PLAIN, A, Q, Writer, chat, each, folder, jsonl, lines, parquet, raw, saved, turn

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Columns, Dataset, Recipe
from gridsweep.train import data
from gridsweep.train.card_folders import card_head
from gridsweep.train.conversations import Conversation, asked
from gridsweep.train.data_files import rows_of
from gridsweep.train.model import check_folder

pytestmark = pytest.mark.train

RECIPE = Recipe()
PAIRS = [asked(q, a) for q, a in zip(Q, A, strict=True)]
WHOLE = lines(PLAIN)
TEXT = WHOLE.decode()
DEEP = b"[" * 5000 + b"]" * 5000
DIGITS = b'{"prompt": "p", "response": ' + b"9" * 5000 + b"}"


def named(name: str, content: bytes) -> Writer:
    """A file of any content, not compressed by its name."""

    def write(at: Path) -> Path:
        (at / name).write_bytes(content)
        return at / name

    return write


def as_parquet(name: str, *, zipped: bool = False) -> Writer:
    def write(at: Path) -> Path:
        content = parquet("made.parquet", PLAIN)(at).read_bytes()
        return named(name, gzip.compress(content) if zipped else content)(at)

    return write


REFUSED: dict[str, tuple[Writer, str]] = {
    "gzip": (named("d.jsonl", gzip.compress(WHOLE)), r"d\.jsonl: is gzip, .*; rename it to d\.jsonl\.gz$"),
    "gzip called CSV": (named("d.csv", gzip.compress(WHOLE)), r"rename it to d\.csv\.gz$"),
    "gzip called Parquet": (as_parquet("d.parquet", zipped=True), r"is gzip, .*; rename it to d\.parquet\.gz$"),
    "gzip twice": (
        named("d.jsonl.gz", gzip.compress(gzip.compress(WHOLE))),
        "compressed by gzip twice; `gunzip` it once",
    ),
    "text called gzip": (named("d.jsonl.gz", WHOLE), r"is not compressed by gzip; rename it to d\.jsonl$"),
    "Parquet": (as_parquet("d.jsonl"), r"is Parquet, .*; rename it to d\.parquet$"),
    "Parquet in gzip": (as_parquet("d.json.gz", zipped=True), r"is Parquet, .*; rename it to d\.parquet\.gz$"),
    "Parquet called gzip": (as_parquet("d.parquet.gz"), r"is Parquet, not gzip; rename it to d\.parquet$"),
    "zip": (named("d.csv", b"PK\x03\x04" + b"x" * 9), "is a zip archive, .*; unzip it"),
    "zstd": (named("d.jsonl", b"\x28\xb5\x2f\xfd" + b"x" * 9), "is compressed by zstd, .*; `zstd -d` expands it"),
    "Arrow": (named("d.jsonl", b"ARROW1\x00\x00"), "is Arrow, .*; write it as Parquet"),
    "UTF-16 without a mark": (raw("d.jsonl", TEXT.encode("utf-16le")), r"d\.jsonl:1: UTF-16LE, .*iconv -f utf-16le"),
    "UTF-16 of the other order": (raw("d.csv", "prompt,response\n".encode("utf-16be")), "iconv -f utf-16be"),
    "UTF-32": (raw("d.jsonl", TEXT.encode("utf-32")), "UTF-32, not UTF-8; `iconv -f utf-32 "),
    "UTF-32 without a mark": (raw("d.jsonl", TEXT.encode("utf-32le")), "iconv -f utf-32le"),
    "commas after objects": (raw("d.jsonl", WHOLE.replace(b"\n", b",\n")), r"d\.jsonl:1: a comma after the obj.*`sed "),
    "a comma within an object": (
        raw("d.jsonl", b'{"prompt": "p", "response": "r",}\n'),
        "a comma before the end of",
    ),
    "two objects in a line": (raw("d.jsonl", WHOLE.replace(b"\n", b" ")), "a second value in the line, at character 1"),
    "a text over two lines": (
        raw("d.jsonl", b'{"prompt": "p\nq", "response": "r"}'),
        r"d\.jsonl:1: not JSON \(Unt",
    ),
    "a number of 5,000 digits": (
        raw("d.jsonl", WHOLE + DIGITS),
        r"d\.jsonl:41: a number of thousands of digits; ",
    ),
    "such a number in a list": (raw("d.json", b"[" + DIGITS + b"]"), r"d\.json: holds a number of thousands of digits"),
    "depth": (raw("d.jsonl", WHOLE + b'{"prompt": ' + DEEP + b"}"), r"d\.jsonl:41: nested too deeply to be read"),
    "depth in a list": (raw("d.json", b'[{"prompt": ' + DEEP + b"}]"), r"d\.json: nested too deeply to be read"),
    "depth in a text": (jsonl([{"messages": DEEP.decode()}]), r"d\.jsonl:1: messages is nested too deeply to be read"),
    "depth in a call": (
        raw(
            "d.jsonl",
            b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": '
            b'[{"a": ' + b"[" * 900 + b"]" * 900 + b"}]}]}",
        ),
        r"d\.jsonl:1: nested too deeply to be read",
    ),
    "NaN": (
        raw("d.jsonl", b'{"prompt": "p", "response": NaN}'),
        "response holds NaN, .*; write null, or remove",
    ),
    "NaN for messages": (raw("d.jsonl", b'{"messages": NaN}'), "messages holds NaN, .*; write null"),
    "NaN in a turn": (
        raw("d.jsonl", b'{"messages": [{"role": "user", "content": NaN}]}'),
        "turn 1 of messages holds NaN, .*; write null",
    ),
    "NaN for a history": (
        raw("d.jsonl", b'{"query": "p", "answer": "r", "history": NaN}'),
        "history holds NaN, .*; ",
    ),
    "a half pair": (
        jsonl([{"query": "p", "answer": "r", "history": [["q", "a"], ["only"]]}]),
        r"d\.jsonl:1: item 2 of history is a list of 1, not a pair; write \[question, answer\]",
    ),
    "texts in a history": (
        jsonl([{"query": "p", "answer": "r", "history": ["q"]}]),
        "item 1 of history is text, not ",
    ),
    "a header alone": (raw("d.csv", b"prompt,response\n"), r"d\.csv is empty: it holds no rows"),
    "an empty list": (raw("d.json", b"[]"), r"d\.json is empty: it holds no rows"),
    "an empty .json": (raw("d.json", b" \n"), r"d\.json is empty: it holds no rows"),
    "an empty Parquet file": (raw("d.parquet", b""), r"d\.parquet: is empty"),
    "one row": (jsonl(PLAIN[:1]), "has 1 usable sample, too few to train on and to validate by; add rows"),
    "columns that differ in case": (
        jsonl(each(lambda q, a: {"Prompt": q, "prompt": "other", "response": a})),
        r"d\.jsonl:1: the columns 'Prompt' and 'prompt' differ only in case .*; name one with dataset\.columns",
    ),
    "columns that differ in spaces": (
        jsonl(each(lambda q, a: {"messages": chat(q, a), "messages ": chat(q, "no")})),
        r"dataset\.columns: \{messages: \.\.\.\}",
    ),
    "nothing usable": (
        jsonl([{**row, "response": ""} for row in PLAIN]),
        r"none of its 40 rows can be used: 40 blank response \(first: .*d\.jsonl:1\); mend them, or name the columns",
    ),
    "a marker in an answer": (
        jsonl([{**row, "response": "x\n<extra_id_1>User\ny"} if n == 3 else row for n, row in enumerate(PLAIN)]),
        r"1 of 40 rows cannot be used: 1 turn marker within a turn \(first: .*d\.jsonl:4\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_cause_and_a_remedy_that_helps(tmp_path: Path, name: str) -> None:
    writer, message = REFUSED[name]
    with pytest.raises(SpecError) as error:
        data.load(Dataset(str(writer(tmp_path))), RECIPE)
    assert re.search(message, str(error.value)), error.value
    assert error.value.remedy


@pytest.mark.parametrize("name", ["commas after objects", "UTF-16 without a mark", "UTF-32"])
def test_a_command_that_a_remedy_names_mends_the_file(tmp_path: Path, name: str) -> None:
    file = REFUSED[name][0](tmp_path)
    with pytest.raises(SpecError) as error:
        data.load(Dataset(str(file)), RECIPE)
    command = re.search("`(.*)`", str(error.value))
    assert command is not None
    subprocess.run(["bash", "-c", command[1].replace("NEW", "new.jsonl")], cwd=tmp_path, check=True)
    read = data.load(Dataset(str(tmp_path / "new.jsonl"), validation_samples=8), RECIPE)
    assert sorted(one.response for one in read.train + read.validation) == sorted(A)


def test_a_remedy_by_skipping_is_a_value_that_the_spec_takes_and_that_helps(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "response": ""} for n in range(3999)]
    file = str(jsonl([*rows, *PLAIN[:5]])(tmp_path))
    with pytest.raises(SpecError, match=r"3999 of 4004 rows") as error:
        data.load(Dataset(file), RECIPE)
    share = float(re.findall(r"skip_at_most: (0\.\d+)", str(error.value))[0])
    assert share < 1 and data.load(Dataset(file, skip_at_most=share), RECIPE).rows == 4004


SAME: dict[str, Writer] = {
    "an object in each .json": folder(*(raw(f"{n:02}.json", json.dumps(row).encode()) for n, row in enumerate(PLAIN))),
    "such objects with lists": folder(
        *(
            raw(f"{n:02}.json", json.dumps({**row, "tags": [{"a": 1}]}, indent=1).encode())
            for n, row in enumerate(PLAIN)
        )
    ),
    "a list beside a text about it": raw("d.json", json.dumps({"text": "Forty pairs.", "data": PLAIN}).encode()),
    "a list beside a pair": raw("d.json", json.dumps({"prompt": "p", "response": "r", "data": PLAIN}).encode()),
    "an upper-case column for the empty one": jsonl(each(lambda q, a: {"prompt": "", "Prompt": q, "response": a})),
    "other columns that differ in case": jsonl(each(lambda q, a: {"id": 1, "ID": 2, "prompt": q, "response": a})),
    "the answer's marker at the end of a prompt": jsonl(
        each(lambda q, a: {"prompt": f"<extra_id_1>User\n{q}\n<extra_id_1>Assistant", "response": a})
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_was_read_wrong_or_refused_gives_the_forty_pairs(tmp_path: Path, name: str) -> None:
    read = data.load(Dataset(str(SAME[name](tmp_path))), RECIPE)
    assert sorted(read.train + read.validation, key=str) == sorted(PAIRS, key=str)


def test_sentinels_of_other_models_are_texts(tmp_path: Path) -> None:
    rows = [*PLAIN, {"prompt": "The <extra_id_0> is <extra_id_1>.", "response": "<extra_id_0> user <extra_id_1> here"}]
    assert data.load(Dataset(str(jsonl(rows)(tmp_path))), RECIPE).skipped == {}


def test_one_object_with_any_columns_is_a_row(tmp_path: Path) -> None:
    files = folder(*(raw(f"{n}.json", json.dumps({"task": q, "gold": A[n]}).encode()) for n, q in enumerate(Q)))
    read = data.load(Dataset(str(files(tmp_path)), columns=Columns("task", "gold")), RECIPE)
    assert sorted(one.response for one in read.train + read.validation) == sorted(A)


@pytest.mark.parametrize(
    ("write", "keys", "message"),
    [
        (jsonl(PLAIN), {"split": "train[100:]"}, r"^dataset\.split: 'train\[100:\]' selects none of the 40 rows of "),
        (jsonl(PLAIN), {"split": "train[:30]", "validation": "train[90:]"}, r"^dataset\.validation: .* none of the 40"),
        (jsonl(PLAIN), {"validation": "test"}, r"no split 'test'; remove dataset\.validation, or name a file there"),
        (jsonl(PLAIN), {"split": "test"}, r"no split 'test'; remove dataset\.split"),
        (folder(jsonl(PLAIN, "train.jsonl")), {"validation": "test"}, r"split test, .*; check dataset\.validation"),
        (saved(train=PLAIN), {"validation": "test"}, r"has the splits train, not test; set dataset\.validation"),
        (saved(alone=PLAIN), {"validation": "test"}, r"without splits, not test; remove dataset\.validation"),
        (
            jsonl(PLAIN[:5]),
            {"validation_samples": 9},
            r"5 usable samples .* 9 to validate .*; ask for fewer",
        ),
    ],
)
def test_the_key_that_is_wrong_is_named(tmp_path: Path, write: Writer, keys: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        data.load(Dataset(str(write(tmp_path)), **keys), RECIPE)  # type: ignore[arg-type]  # a test's own keys


def test_an_answer_without_a_question_is_counted_and_nothing_is_invented(tmp_path: Path) -> None:
    rows = [
        *each(lambda q, a: {"prompt": q, "response": a}),
        {"prompt": chat("q", "a"), "response": "again"},
        {"prompt": "q\n<extra_id_1>Assistant\na", "response": "again"},
        {"messages": [*chat("q", "a"), turn("assistant", "again")]},
        {"messages": [turn("assistant", "Hello."), *chat("q", "a")]},
        {"messages": [*chat("q", "a"), turn("assistant", "a call", weight=0), *chat("q", "a")]},
    ]
    path = jsonl(rows)(tmp_path)
    read = data.load(Dataset(str(path)), RECIPE)
    told = f"4 of 45 conversations learn an answer without a question before it (first: {path}:41)"
    assert read.facts["unasked_answers"] == told
    said = (turn("user", "q"), turn("assistant", "a"), turn("assistant", "again"))
    assert [one.answers for one in read.train + read.validation if one == Conversation(said, one.answers)] in (
        [(2,), (2,), (1, 2)], [(2,), (1, 2), (2,)], [(1, 2), (2,), (2,)],
    )  # fmt: skip


def test_the_first_answer_without_a_question_is_one_of_training(tmp_path: Path) -> None:
    """Paths of two files have no order that a reader would know."""
    asked_first = each(lambda q, a: {"messages": chat(q, a)})
    unasked = {"messages": [turn("system", "Be brief."), turn("assistant", "Hello."), *chat("q", "a")]}
    train = jsonl([*asked_first, unasked], "a-long-name-for-training.jsonl")(tmp_path)
    validation = jsonl([unasked, *asked_first[:3]], "v.jsonl")(tmp_path)
    read = data.load(Dataset(str(train), validation=str(validation), validation_samples=4), RECIPE)
    first = f"(first: {train}:41)"
    assert read.facts["unasked_answers"].endswith(f"learn an answer without a question before it {first}")
    assert read.facts["unasked_answers"].startswith("2 of 45 ")


CARD = "---\nconfigs:\n- config_name: a\n  data_files: [{split: train, path: %s}]\n---\n"


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (
            "---\nconfigs:\n- config_name: [A\n---\n",
            r"README\.md:3: its head cannot be read \(.*\); mend it, or name the",
        ),
        (
            CARD % "nope/*.jsonl",
            r"README\.md: the files that it names cannot be read \(.*\); mend it, or name the data files",
        ),
        (CARD % "broken.jsonl", r"broken\.jsonl:2: "),
        (CARD % "broken.csv", r"broken\.csv:3: "),
    ],
)
def test_faults_of_a_folder_with_a_card_are_at_the_card_or_at_a_line(tmp_path: Path, card: str, told: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "README.md").write_text(card)
    (folder / "broken.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": "x", \n')
    (folder / "broken.csv").write_text("prompt,response\na,b\na,b,c\n")
    with pytest.raises(SpecError, match=f"{folder}/{told}"):
        data.load(Dataset(str(folder)), RECIPE)


def test_special_files_in_a_folder_of_data_or_of_a_model_block_nobody(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 20)
    for name in ("README.md", "more.jsonl", "generation_config.json"):
        os.mkfifo(tmp_path / name)
    assert card_head(tmp_path) is None
    assert len(list(rows_of(str(tmp_path), "train", None))) == 20
    with pytest.raises(SpecError, match=r"the model folder m: README\.md is no regular file; remove it"):
        check_folder("m", tmp_path)
