"""Data and a model on the hub: what is known before the wait, and the commits that a sweep keeps.

A process of its own looks and loads, because the libraries read the hub's address when they are imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builders import START
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, Part
from gridsweep.records.looks import Look
from gridsweep.sweep.constants import ENCODING
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.testing.hub import Hub
from gridsweep.train.model import TINY_QWEN2

pytestmark = pytest.mark.train
ROWS = [{"prompt": f"Say {n}.", "response": f"return {n}"} for n in range(60)]
SERVER = """
import sys
from pathlib import Path
from gridsweep.errors import GridsweepError
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.train import loading, look
for line in sys.stdin:
    what, _, text = line.partition(" ")
    if what == "look":
        print(codec.dumps(look.main(text)), flush=True)
        continue
    try:
        ready = loading.load(codec.loads(Assignment, text), Path.cwd(), lambda: None)
        print(codec.dumps(ready.constants), flush=True)
    except GridsweepError as error:
        print(codec.dumps({type(error).__name__: str(error)}), flush=True)
"""


def lines(rows: list[dict[str, str]]) -> dict[str, bytes]:
    return {"data/train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}


def base() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in TINY_QWEN2.iterdir() if path.is_file()}


def assignment(**changes: object) -> Assignment:
    part = Part("e00", LoraParams(4, 16.0, 1e-3, 0.0), 42, 0, 4)
    recipe = Recipe(steps=4, batch_size=2, max_length=64)
    dataset = Dataset("me/pairs", train_samples=20, validation_samples=5)
    asked = Assignment("a/1", Model("me/tiny"), dataset, recipe, 4, Device("d0"), (part,), "full", ENCODING, {}, START)
    return replace(asked, **changes)  # type: ignore[arg-type]


class Worker:
    """A process that looks at assignments, and loads them as a worker does."""

    def __init__(self, hub: Hub, tmp: Path, offline: str = "0"):
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp / "hf"), "XDG_CACHE_HOME": str(tmp / "cache")}
        others = ("_offline", "_proxy")  # set for other tests, or by the machine: the double is on loopback
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith(others)}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp,
            env=inherited | environment | {"HF_HUB_OFFLINE": offline, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, what: str, asked: Assignment) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what} {codec.dumps(asked)}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def look(self, asked: Assignment) -> Look:
        return codec.loads(Look, self.ask("look", asked))

    def load(self, asked: Assignment) -> Mapping[str, str]:
        found: dict[str, str] = json.loads(self.ask("load", asked))
        return found


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def worker(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(hub, tmp_path_factory.mktemp("hub"))
    yield worker
    worker.process.kill()
    worker.process.communicate()


Push = Callable[[list[dict[str, str]]], str]


@pytest.fixture
def push(hub: Hub) -> Push:
    """The hub with a base and these rows; the commit of the rows."""
    hub.push("models", "me/tiny", base())
    return lambda rows: hub.push("datasets", "me/pairs", lines(rows))


def test_the_first_rows_the_tokenizer_and_the_shape_are_looked_at_before_the_wait(worker: Worker, push: Push) -> None:
    commit = push(ROWS)
    look = worker.look(assignment())
    assert look.error == look.unreachable == ""
    assert look.constants["data commit"] == commit and len(look.constants["model commit"]) == 40
    assert look.facts["data"] == "25 of the first 25 rows are samples"
    assert [piece.text for piece in look.first if piece.learned] == ["return 0<|endoftext|>"]
    assert look.unseen.keys() == {"training data", "encoded samples"}  # only a worker fetches all rows


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"a": "x", "b": "y"}] * 60, "the columns are a, b; one of these is needed"),
        ([{"prompt": "x", "response": ""}] * 60, "none of its first 60 rows can be used: 60 blank response"),
        ([{"prompt": "x", "response": ""}, *ROWS], "1 of 26 rows cannot be used: 1 blank response"),
    ],
    ids=["columns", "blank", "share"],
)
def test_rows_that_a_worker_would_refuse_are_refused_before_the_wait(
    worker: Worker, push: Push, rows: list[dict[str, str]], told: str
) -> None:
    push(rows)
    assert told in worker.look(assignment()).error


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (Dataset("me/pears"), "the dataset me/pears (train): cannot be read"),
        (Dataset("me/pairs", split="tests"), "Available splits: ['train']"),
        (Dataset("me/pairs", validation="held_out"), "(held_out): cannot be read"),
        (Dataset("me/pairs", revision="1" * 40), "the dataset me/pairs (train): cannot be read"),
    ],
    ids=["id", "split", "validation", "revision"],
)
def test_a_name_that_the_hub_does_not_know_is_refused(worker: Worker, push: Push, dataset: Dataset, told: str) -> None:
    push(ROWS)
    assert told in worker.look(assignment(dataset=dataset)).error


def test_one_of_several_configurations_is_read(worker: Worker, hub: Hub, push: Push) -> None:
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: [{{split: train, path: {name}.jsonl}}]\n" for name in ("short", "long")
    )
    files = {
        f"{name}.jsonl": lines(ROWS[at : at + 30])["data/train.jsonl"] for name, at in (("short", 0), ("long", 30))
    }
    push(ROWS)
    hub.push("datasets", "me/several", {"README.md": f"{card}---\n".encode(), **files})
    asked = Dataset("me/several", train_samples=20, validation_samples=5)
    looks = {name: worker.look(assignment(dataset=replace(asked, config=name))) for name in ("short", "long")}
    first = {name: next(piece.text for piece in look.first if piece.learned) for name, look in looks.items()}
    assert first == {"short": "return 0<|endoftext|>", "long": "return 30<|endoftext|>"}
    for wrong in (asked, replace(asked, config="other")):  # none of them is the default
        error = worker.look(assignment(dataset=wrong)).error
        assert error.startswith("dataset.config: the dataset me/several has the configurations 'short', 'long'")


def test_a_branch_that_moves_changes_no_attempt_after_the_first(worker: Worker, hub: Hub, push: Push) -> None:
    """Attempts load the commits that are journaled; without them another commit is found and refused."""
    push(ROWS)
    first = worker.load(assignment())
    moved = push(ROWS[::-1])
    hub.push("models", "me/tiny", base() | {"README.md": b"moved"})
    pinned = assignment(
        constants=first,
        model=Model("me/tiny", first["model commit"]),
        dataset=replace(assignment().dataset, revision=first["data commit"]),
    )
    assert worker.load(pinned) == first
    assert worker.load(assignment())["data commit"] == moved
    refused = worker.load(assignment(constants=first))["SpecError"]
    assert f"the data commit was {first['data commit']} and is now {moved}" in refused
    assert "name this commit in dataset.revision" in refused


def test_a_hub_that_cannot_be_reached_refuses_nothing(hub: Hub, tmp_path: Path) -> None:
    """The next attempt may reach it: this is no error of the spec. (Offline, because its client tries for 31 s.)"""
    alone = Worker(hub, tmp_path, offline="1")
    try:
        assert "the hub cannot be reached" in alone.look(assignment()).unreachable
        assert "HubError" in alone.load(assignment())
    finally:
        alone.process.kill()
        alone.process.communicate()
