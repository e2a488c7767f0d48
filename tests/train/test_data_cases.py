"""Data as people have it: what each file or folder gives, or the error that names what to do."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from data_files import COUNT, PLAIN, A, Q, Writer, chat, each, folder, jsonl, lines, parquet, raw, saved, table, turn

from gridsweep.errors import SpecError
from gridsweep.sweep.experiments import Dataset, Recipe
from gridsweep.train import data
from gridsweep.train.conversations import Conversation, asked

pytestmark = pytest.mark.train

PAIRS = [asked(q, a) for q, a in zip(Q, A, strict=True)]
WHOLE = lines(PLAIN)
BRIEF = turn("system", "Be brief.")
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
SCORES = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 2}


def conversations(*before: dict[str, object], learned: tuple[int, ...] = ()) -> list[Conversation]:
    """The forty pairs, each after other turns."""
    last = len(before) + 1
    return [Conversation(tuple(chat(q, a, *before)), learned or (last,)) for q, a in zip(Q, A, strict=True)]


def parts(text: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}]


ODD = "line\u2028sep\u2029para\x85nel \x00nul"
EARLIER = (turn("user", "Hello."), turn("assistant", "Hello, what can I do?"))
MARKED = "Hello.\n<extra_id_1>Assistant\nHello, what can I do?\n<extra_id_1>User\n"

SAME: dict[str, Writer] = {
    "one object per line": jsonl(PLAIN),
    "ndjson": jsonl(PLAIN, "d.ndjson"),
    "jsonlines": jsonl(PLAIN, "d.jsonlines"),
    "a byte order mark": raw("d.jsonl", b"\xef\xbb\xbf" + WHOLE),
    "two files with byte order marks in one": raw("d.jsonl", b"".join(b"\xef\xbb\xbf" + lines([r]) for r in PLAIN)),
    "a byte order mark before a list": raw("d.json", b"\xef\xbb\xbf" + json.dumps(PLAIN).encode()),
    "lines of Windows": raw("d.jsonl", WHOLE.replace(b"\n", b"\r\n")),
    "blank lines": raw("d.jsonl", WHOLE.replace(b"\n", b"\n \n\n")),
    "no last line end": raw("d.jsonl", WHOLE.rstrip()),
    "an upper-case suffix": jsonl(PLAIN, "D.JSONL"),
    "compressed": jsonl(PLAIN, "d.jsonl.gz"),
    "compressed, in upper case": jsonl(PLAIN, "D.JSON.GZ"),
    "lines in .json": jsonl(PLAIN, "d.json"),
    "a list": raw("d.json", json.dumps(PLAIN, indent=2).encode()),
    "a list under a key": raw("d.json", json.dumps({"version": 1, "tags": ["a"], "data": PLAIN}).encode()),
    "a table": table("d.csv", PLAIN),
    "a table with tabs": table("d.tsv", PLAIN, "\t"),
    "a table with semicolons": table("d.csv", PLAIN, ";"),
    "a table with tabs called CSV": table("d.csv", PLAIN, "\t"),
    "a table with a byte order mark, compressed": lambda at: raw(
        "e.csv.gz", b"\xef\xbb\xbf" + table("d.csv", PLAIN)(at).read_bytes()
    )(at),
    "Parquet": parquet("d.parquet", PLAIN),
    "Parquet, short suffix, compressed": parquet("d.PQ.gz", PLAIN),
    "a name with spaces and umlauts": jsonl(PLAIN, "\xe9t\xe9 2024 \u2013 donn\xe9es/jeu d'essai [1].jsonl"),
    "a folder of a file": folder(jsonl(PLAIN, "train.jsonl"), raw("README.md", b"# data\n")),
    "a folder of a file of any name": folder(jsonl(PLAIN, "rows.jsonl"), raw("dataset_info.json", b"{}")),
    "a folder of shards": folder(*(jsonl(PLAIN[n : n + 8], f"data/train-{n:05d}-of-5.jsonl") for n in range(0, 40, 8))),
    "a folder with a test file": folder(jsonl(PLAIN, "a/rows.csv.jsonl"), jsonl(PLAIN[:3], "a/test.jsonl")),
    "a folder with hidden files": folder(jsonl(PLAIN, "d.jsonl"), jsonl(PLAIN, ".cache/d.jsonl")),
    "a saved dataset": saved(alone=PLAIN),
    "saved splits": saved(train=PLAIN, test=PLAIN[:5]),
    "HelpSteer2's columns": jsonl([{**row, **SCORES} for row in PLAIN]),
    "capital columns": jsonl(each(lambda q, a: {"Prompt": q, " Response": a})),
    "prompt and completion": jsonl(each(lambda q, a: {"prompt": q, "completion": a})),
    "lists of messages": jsonl(each(lambda q, a: {"prompt": chat(q, a)[:1], "completion": chat(q, a)[1:]})),
    "a list of messages and a text": jsonl(each(lambda q, a: {"prompt": chat(q, a)[:1], "response": a})),
    "a text and a list of messages": jsonl(each(lambda q, a: {"prompt": q, "completion": chat(q, a)[1:]})),
    "ShareGPT": jsonl(
        each(lambda q, a: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]})
    ),
    "question and answer": jsonl(each(lambda q, a: {"question": q, "answer": a})),
    "query and response": jsonl(each(lambda q, a: {"query": q, "response": a, "type": "x"})),
    "OpenOrca": jsonl(each(lambda q, a: {"id": "1", "system_prompt": "", "question": q, "response": a})),
    "input and output": jsonl(each(lambda q, a: {"input": q, "output": a})),
    "Dolly": jsonl(each(lambda q, a: {"instruction": q, "context": "", "response": a, "category": "x"})),
    "messages": jsonl(each(lambda q, a: {"messages": chat(q, a)})),
    "messages before a prompt of the same": jsonl(each(lambda q, a: {"prompt": q, "messages": chat(q, a)})),
    "content in parts": jsonl(each(lambda q, a: {"messages": chat(parts(q), parts(a))})),
    "the role model": jsonl(each(lambda q, a: {"messages": [turn("user", q), turn("model", a)]})),
    "messages in a text": jsonl(each(lambda q, a: {"messages": json.dumps(chat(q, a))})),
    "messages in a table": table("d.csv", each(lambda q, a: {"messages": json.dumps(chat(q, a))})),
    "messages in Parquet": parquet("d.parquet", each(lambda q, a: {"messages": chat(q, a)})),
    "messages without a value": jsonl(each(lambda q, a: {"messages": None, "prompt": q, "response": a})),
    "rows of two forms": jsonl(
        [{"messages": chat(q, a)} if n % 2 else PLAIN[n] for n, (q, a) in enumerate(zip(Q, A, strict=True))]
    ),
    "two contexts without a value": jsonl(
        each(lambda q, a: {"instruction": q, "input": None, "context": None, "output": a})
    ),
    "an empty text in place of a value": table(
        "d.csv", each(lambda q, a: {"messages": "", "prompt": q, "response": a, "output": "", "text": ""})
    ),
    "Alpaca without a value": jsonl(each(lambda q, a: {"instruction": q, "input": None, "output": a})),
    "Alpaca with the input alone": jsonl(each(lambda q, a: {"instruction": "", "input": q, "output": a})),
    "Alpaca with its text": jsonl(each(lambda q, a: {"instruction": q, "input": "", "output": a, "text": q + a})),
    "a blank system turn": jsonl(each(lambda q, a: {"messages": chat(q, a, turn("system", ""))})),
    "turns after the answer": jsonl(each(lambda q, a: {"messages": [*chat(q, a), turn("user", "Thanks.")]})),
    "an answer of weight 0 at the end": jsonl(
        each(lambda q, a: {"messages": [*chat(q, a), *chat("No.", "Yes.")[:1], turn("assistant", "Yes.", weight=0)]})
    ),
}
"""Forty times the same question and answer."""

OTHER: dict[str, tuple[Writer, list[Conversation]]] = {
    "separators end no line": (
        jsonl([{**row, "response": ODD} if n == 3 else row for n, row in enumerate(PLAIN)]),
        [asked(Q[3], ODD) if n == 3 else pair for n, pair in enumerate(PAIRS)],
    ),
    "a system turn": (jsonl(each(lambda q, a: {"messages": chat(q, a, BRIEF)})), conversations(BRIEF)),
    "the role developer": (
        jsonl(each(lambda q, a: {"messages": chat(q, a, turn("developer", "Be brief."))})),
        conversations(BRIEF),
    ),
    "a system column": (
        jsonl(each(lambda q, a: {"system": "Be brief.", "conversations": chat(q, a)})),
        conversations(BRIEF),
    ),
    "the same system turn twice": (
        jsonl(each(lambda q, a: {"system": "Be brief.", "messages": chat(q, a, BRIEF)})),
        conversations(BRIEF),
    ),
    "two answers": (
        jsonl(each(lambda q, a: {"messages": chat(q, a, *EARLIER)})),
        conversations(*EARLIER, learned=(1, 3)),
    ),
    "answers within a prompt": (
        jsonl(each(lambda q, a: {"prompt": [*EARLIER, turn("user", q)], "completion": a})),
        conversations(*EARLIER),
    ),
    "HelpSteer2's turns": (jsonl(each(lambda q, a: {"prompt": MARKED + q, "response": a})), conversations(*EARLIER)),
    "all turns marked": (
        jsonl(
            each(
                lambda q, a: {
                    "prompt": f"<extra_id_0>System\nBe brief.\n<extra_id_1>User\n{q}\n<extra_id_1>Assistant\n",
                    "response": a,
                }
            )
        ),
        conversations(BRIEF),
    ),
    "tools": (
        jsonl(
            each(
                lambda q, a: {
                    "messages": [
                        turn("user", q),
                        turn("assistant", None, tool_calls=[CALL]),
                        turn("tool", "3"),
                        turn("assistant", a),
                    ]
                }
            )
        ),
        [
            Conversation(
                (turn("user", q), turn("assistant", "", tool_calls=[CALLED]), turn("tool", "3"), turn("assistant", a)),
                (1, 3),
            )
            for q, a in zip(Q, A, strict=True)
        ],
    ),
    "Alpaca with some inputs": (
        jsonl([{"instruction": q, "input": "" if n % 2 else "x is a number", "output": A[n]} for n, q in enumerate(Q)]),
        [asked(q if n % 2 else f"{q}\n\nx is a number", A[n]) for n, q in enumerate(Q)],
    ),
    "Alpaca with system and history": (
        jsonl(
            each(
                lambda q, a: {
                    "instruction": q,
                    "input": "",
                    "output": a,
                    "system": "Be brief.",
                    "history": [["e", "f"]],
                }
            )
        ),
        conversations(BRIEF, turn("user", "e"), turn("assistant", "f")),
    ),
    "a history in a text": (
        table("d.csv", each(lambda q, a: {"instruction": q, "output": a, "history": '[["e", "f"]]'})),
        conversations(turn("user", "e"), turn("assistant", "f")),
    ),
    "a question with its context": (
        jsonl(each(lambda q, a: {"answer": a, "question": q, "context": "CREATE TABLE t (x)"})),
        [asked(f"{q}\n\nCREATE TABLE t (x)", a) for q, a in zip(Q, A, strict=True)],
    ),
    "plain text": (
        jsonl(each(lambda q, a: {"text": q + a})),
        [Conversation((), (), q + a) for q, a in zip(Q, A, strict=True)],
    ),
    "surrounding space stays": (
        jsonl(each(lambda q, a: {"prompt": f" {q}\n", "response": f"\n {a} "})),
        [asked(f" {q}\n", f"\n {a} ") for q, a in zip(Q, A, strict=True)],
    ),
}

REFUSED: dict[str, tuple[Writer, str]] = {
    "objects over several lines": (
        raw("d.jsonl", "\n".join(json.dumps(row, indent=2) for row in PLAIN).encode()),
        r"d\.jsonl:1: not a whole JSON object; .*`jq -c \. d\.jsonl > NEW`",
    ),
    "a Git LFS pointer": (
        raw("d.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"b" * 64 + b"\nsize 1\n"),
        r"d\.jsonl: a Git LFS pointer, .*`git lfs pull`",
    ),
    "a pointer in place of Parquet": (
        raw("d.parquet", b"version https://git-lfs.github.com/spec/v1\n"),
        "`git lfs pull`",
    ),
    "a git-annex pointer": (raw("d.csv", b"/annex/objects/MD5E-s1--abc.csv\n"), "`git annex get`"),
    "Latin-1": (
        raw("d.jsonl", b"".join(lines([row]) if n != 7 else b'{"prompt": "caf\xe9"}\n' for n, row in enumerate(PLAIN))),
        r"d\.jsonl:8: not UTF-8 \(byte 0xe9 at position 16\); `iconv -f latin1",
    ),
    "Latin-1, compressed": (raw("d.csv.gz", b"prompt,response\np,caf\xe9\n"), r"d\.csv\.gz:2: not UTF-8 \(byte 0xe9"),
    "UTF-16": (
        raw("d.csv", "prompt,response\np,r\n".encode("utf-16")),
        r"d\.csv:1: UTF-16, not UTF-8; `iconv -f utf-16",
    ),
    "a damaged archive": (
        lambda at: (
            (jsonl(PLAIN, "d.jsonl.gz")(at), (at / "d.jsonl.gz").write_bytes((at / "d.jsonl.gz").read_bytes()[:60]))
            and at / "d.jsonl.gz"
        ),
        r"d\.jsonl\.gz: cannot be read \(.*\); check that the file is whole",
    ),
    "no archive": (
        lambda at: jsonl(PLAIN)(at).rename(at / "d.jsonl.gz"),
        r"d\.jsonl\.gz: is not compressed by gzip; rename it to d\.jsonl",
    ),
    "no Parquet": (raw("d.parquet", b"PAR1" + b"x" * 200), r"d\.parquet: cannot be read"),
    "a malformed line": (
        raw("d.jsonl", WHOLE + b"{'prompt': 1}\n"),
        r"d\.jsonl:41: not JSON .*; mend or remove the line",
    ),
    "a list in a line": (
        raw("d.jsonl", json.dumps(PLAIN).encode()),
        r"d\.jsonl:1: a list, not an object; name the file \.json",
    ),
    "a number in a line": (raw("d.jsonl", b"3\n"), r"d\.jsonl:1: not an object such as"),
    "a malformed list": (raw("d.json", b'[{"prompt": "p"},\n{"prompt" 1}]'), r"d\.json:2: not JSON"),
    "a list of texts": (raw("d.json", b'["a"]'), r"d\.json: row 1 is not an object"),
    "columns as lists": (
        raw("d.json", b'{"prompt": ["p"], "response": ["r"]}'),
        r"holds no list of objects, but the keys prompt,",
    ),
    "two lists": (raw("d.json", json.dumps({"a": PLAIN, "b": PLAIN}).encode()), "lists of objects under a, b"),
    "too many fields": (raw("d.csv", b"prompt,response\np,r\np,r,s\n"), r"d\.csv:3: 3 fields, but the header has 2"),
    "a column twice": (raw("d.csv", b"prompt,prompt\np,r\n"), r"d\.csv:1: the column 'prompt' is there twice"),
    "an open quote": (raw("d.csv", b'prompt,response\np,"r\n'), r"d\.csv:2: not a CSV row"),
    "numbers": (
        jsonl([{"prompt": q, "response": n} for n, q in enumerate(Q)]),
        r"d\.jsonl:1: response holds a number \(0\)",
    ),
    "answers as objects": (
        jsonl([{"question": q, "answer": {"text": ["a"]}} for q in Q]),
        "answer holds an object, not text",
    ),
    "several answers": (
        jsonl([{"question": q, "answer": ["a", "b"]} for q in Q]),
        "holds a list of text; only a text",
    ),
    "a cut-off line": (raw("d.jsonl", WHOLE[:-9]), r"d\.jsonl:40: not JSON .*; mend or remove the line"),
    "no response": (
        raw("d.csv", b"prompt\n" + b"p\n" * 9),
        r"d\.csv:2: the columns are prompt; one of",
    ),
    "two contexts": (
        jsonl([{"instruction": "i", "input": "x", "context": "y", "output": "o"}]),
        "input and context could each be the context",
    ),
    "many blanks": (
        jsonl([row if n % 3 else {**row, "response": "  "} for n, row in enumerate(PLAIN)]),
        r"14 of 40 rows cannot be used: 14 blank response \(first: .*d\.jsonl:1\); .*skip_at_most: 0\.35 \(now 0\.01\)",
    ),
    "conversations without an answer": (jsonl([{"messages": [turn("user", q)]} for q in Q]), "40 no answer"),
    "conversations without a prompt": (jsonl([{"messages": [turn("assistant", a)]} for a in A]), "40 no prompt"),
    "no value in any column": (jsonl([{"messages": None}] * 40), "40 no conversation"),
    "a broken character": (raw("d.jsonl", b'{"prompt": "p\\ud83d", "response": "r"}\n' * 9), "9 broken character"),
    "an unknown role": (
        jsonl([{"messages": [turn("narrator", "x"), *chat("q", "a")]}]),
        r"d\.jsonl:1: turn 1 of messages has the role 'narrator'; use one of system,",
    ),
    "an image": (
        jsonl([{"messages": chat([{"type": "image_url", "image_url": {"url": "x"}}], "a")}]),
        "turn 1 of messages holds a part of type 'image_url'; only a text, or a list of text parts",
    ),
    "turns as texts": (jsonl([{"conversations": ["q", "a"]}]), "turn 1 of conversations is text, not an object"),
    "a list as Python writes it": (
        table("d.csv", [{"messages": str(chat("q", "a"))}]),
        "text but no list of turns in JSON; write it with json.dumps",
    ),
    "two system turns": (jsonl([{"system": "a", "messages": chat("q", "a", BRIEF)}]), "two system turns"),
    "two responses": (
        jsonl([{"prompt": "p", "response": "r", "output": "o"}]),
        "response and output could each be the response",
    ),
    "a prompt made from an instruction": (
        jsonl([{"instruction": "i", "input": "", "output": "o", "prompt": "p"}]),
        "prompt and instruction could each be the prompt",
    ),
    "preferences": (
        jsonl([{"prompt": "p", "chosen": "c", "rejected": "r"}]),
        r"columns are prompt, chosen, rejected; .*dataset\.columns: \{messages: chosen\}",
    ),
    "unknown columns": (
        jsonl([{"task": "p", "gold": "r"}]),
        r"d\.jsonl:1: the columns are task, gold; .*dataset\.columns: \{prompt: \.\.\., response: \.\.\.\}",
    ),
    "nothing": (raw("d.jsonl", b""), r"d\.jsonl is empty: it holds no rows; name another file"),
    "an empty folder": (folder(raw("README.md", b"# data\n")), "holds no data files"),
    "a folder with the same rows twice": (
        folder(jsonl(PLAIN, "train.jsonl"), table("train.csv", PLAIN)),
        "several kinds",
    ),
    "a folder with a file and its archive": (folder(jsonl(PLAIN), jsonl(PLAIN, "d.jsonl.gz")), "several kinds"),
    "an unknown kind of file": (
        raw("d.xlsx", b"x"),
        r"d\.xlsx is no known kind of file; name it by its kind: \.jsonl,",
    ),
}


def load(path: Path, **keys: object) -> data.Data:
    return data.load(Dataset(str(path), **keys), Recipe())  # type: ignore[arg-type]  # a test's own keys


def split(expected: list[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """A fifth of the samples validates, in the order that the recipe's seed gives."""
    order = list(expected)
    random.Random("split 42").shuffle(order)
    return order[: len(order) - len(order) // 5], order[len(order) - len(order) // 5 :]


@pytest.mark.parametrize("name", SAME)
def test_the_forty_pairs(tmp_path: Path, name: str) -> None:
    read = load(SAME[name](tmp_path))
    assert (read.train, read.validation) == split(PAIRS)
    assert read.facts["dataset_digest"] == data.digest(read.train + read.validation)
    assert (read.rows, dict(read.skipped)) == (COUNT, {})


@pytest.mark.parametrize("name", OTHER)
def test_other_conversations(tmp_path: Path, name: str) -> None:
    writer, expected = OTHER[name]
    read = load(writer(tmp_path))
    assert (read.train, read.validation) == split(expected)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_what_and_where_and_the_remedy(tmp_path: Path, name: str) -> None:
    writer, message = REFUSED[name]
    with pytest.raises(SpecError) as error:
        load(writer(tmp_path))
    assert re.search(message, str(error.value)), error.value


def test_every_row_of_the_documentation_is_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [json.loads(row) for row in re.findall(r"^\|[^|]+\| `(\{.*\})` \|$", text, re.M)]
    assert len(rows) == 15
    for row in rows:
        read = data.read_row("here", data.by_name(row), None, "all_answers").conversation
        assert read.text or read.response in ("3", "5", "It is 3.")
