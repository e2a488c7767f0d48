"""Run folders that gridsweep 0.1.0 wrote are read, reported and resumed by this version, with the same results.

`tests/old_folders/make.py` says what is in them. Texts and JSON that are printed may change on purpose; then

    python tests/test_old_folders.py

writes what this version prints, and the difference is looked at in git. What is in `facts.json`, `resumed.json`,
`encoding.txt` and `example_ids.json` is never written anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridsweep import Sweep
from gridsweep.records import codec
from gridsweep.sweep.experiments import Columns
from old_runs import (
    EXPECTED,
    VERBS,
    bodies,
    encoding,
    events,
    expected,
    explained,
    facts,
    kinds,
    names,
    resumed,
    unpack,
)

NEW: set[str] = {
    "Assignment.beside[]: nothing",
    "Assignment.beside[]: number",
    "Assignment.constants{key}: text",
    "Assignment.constants{}: text",
    "Assignment.encoding: whole number",
    "Assignment.submitted: instant",
    "Assignment.submitted: nothing",
    "Collected.at: instant",
    "Collected.facts{key}: text",
    "Collected.facts{}: text",
    "Collected.gate: text",
    "Collected.kind: 'Collected'",
    "Collected.source: text",
    "Collected.unknown[]: text",
    "Fingerprinted.at: instant",
    "Fingerprinted.by: text",
    "Fingerprinted.kind: 'Fingerprinted'",
    "Fingerprinted.missing[]: text",
    "Fingerprinted.things{key}: text",
    "Fingerprinted.things{}: text",
    "Added.request: text",
    "Lost.storage: flag",
    "Result.storage: flag",
    "Halted.refused: flag",
    "Resumed.sweep.estimates.guess: flag",
    "Submitted.sweep.estimates.guess: flag",
    "Resumed.sweep.executor.local.file_gb: nothing",
    "Resumed.sweep.executor.local.file_gb: number",
    "Resumed.sweep.executor.local.memory_gb: nothing",
    "Resumed.sweep.executor.local.memory_gb: number",
    "Resumed.sweep.executor.local.open_files: nothing",
    "Resumed.sweep.executor.local.open_files: whole number",
    "Submitted.sweep.executor.local.file_gb: nothing",
    "Submitted.sweep.executor.local.file_gb: number",
    "Submitted.sweep.executor.local.memory_gb: nothing",
    "Submitted.sweep.executor.local.memory_gb: number",
    "Submitted.sweep.executor.local.open_files: nothing",
    "Submitted.sweep.executor.local.open_files: whole number",
    "Resumed.sweep.executor.kubernetes.ephemeral_storage: nothing",
    "Resumed.sweep.executor.kubernetes.ephemeral_storage: text",
    "Resumed.sweep.executor.kubernetes.pod{key}: text",
    "Resumed.sweep.executor.kubernetes.pod{}: anything",
    "Resumed.sweep.executor.kubernetes.secret: nothing",
    "Resumed.sweep.executor.kubernetes.secret: text",
    "Resumed.sweep.executor.kubernetes.ttl: span",
    "Submitted.sweep.executor.kubernetes.ephemeral_storage: nothing",
    "Submitted.sweep.executor.kubernetes.ephemeral_storage: text",
    "Submitted.sweep.executor.kubernetes.pod{key}: text",
    "Submitted.sweep.executor.kubernetes.pod{}: anything",
    "Submitted.sweep.executor.kubernetes.secret: nothing",
    "Submitted.sweep.executor.kubernetes.secret: text",
    "Submitted.sweep.executor.kubernetes.ttl: span",
    "Lost.refused: flag",
    "Progress.constants: nothing",
    "Progress.constants{key}: text",
    "Progress.constants{}: text",
    "Result.refused: flag",
    "Reverted.at: instant",
    "Reverted.checkpoint.digest: text",
    "Reverted.checkpoint.experiment: text",
    "Reverted.checkpoint.path: text",
    "Reverted.checkpoint.step: whole number",
    "Reverted.checkpoint: nothing",
    "Reverted.experiment: text",
    "Reverted.kind: 'Reverted'",
    "Reverted.why: text",
    "Submitted.encoding: whole number",
    "Assignment.model.chat_template: nothing",
    "Assignment.model.chat_template: text",
    "ClockAnchored.jump: span",
    "Progressed.clock: span",
    "Progressed.over_at: instant",
    "Progressed.over_at: nothing",
    *(f"{where}.sweep.rungs.drift: {kind}" for where in ("Resumed", "Submitted") for kind in ("nothing", "number")),
    "Submitted.sweep.env[][0]: text",
    "Submitted.sweep.env[][1]: text",
    "Resumed.sweep.env[][0]: text",
    "Resumed.sweep.env[][1]: text",
    "Promised.at: instant",
    "Promised.emissions_g: number",
    "Promised.finish: instant",
    "Promised.finish_immediate: instant",
    "Promised.forecast: text",
    "Promised.immediate_g: number",
    "Promised.kind: 'Promised'",
    "Promised.start: instant",
    "Promised.step: span",
    "Promised.values[]: nothing",
    "Promised.values[]: number",
    "Promised.work: span",
    "Resumed.sweep.model.chat_template: nothing",
    "Resumed.sweep.model.chat_template: text",
    "Resumed.sweep.replay.speed: 'auto'",
    "Submitted.sweep.model.chat_template: nothing",
    "Submitted.sweep.model.chat_template: text",
    "Submitted.sweep.replay.speed: 'auto'",
    *(
        f"{where}.dataset.{written}"
        for where in ("Assignment", "Resumed.sweep", "Submitted.sweep")
        for written in (
            *(f"columns.{key}: {kind}" for key in Columns.__dataclass_fields__ for kind in ("nothing", "text")),
            "columns: nothing",
            "config: nothing",
            "config: text",
            "skip_at_most: number",
            "train_on: 'all_answers'",
            "train_on: 'last_answer'",
            "validation: nothing",
            "validation: text",
        )
    ),
    "Added.experiments[].params.more[][0]: text",
    "Added.experiments[].params.more[][1]: flag",
    "Added.experiments[].params.more[][1]: number",
    "Added.experiments[].params.more[][1]: text",
    "Added.experiments[].params.more[][1]: whole number",
    "Added.experiments[].params.more[][1][]: text",
    "Assignment.judging.max_length: whole number",
    "Assignment.judging.score: 'averaged'",
    "Assignment.judging.score: 'raw'",
    "Assignment.judging: nothing",
    "Assignment.members[].params.more[][0]: text",
    "Assignment.members[].params.more[][1]: flag",
    "Assignment.members[].params.more[][1]: number",
    "Assignment.members[].params.more[][1]: text",
    "Assignment.members[].params.more[][1]: whole number",
    "Assignment.members[].params.more[][1][]: text",
    "Assignment.members[].recipe.accumulation: whole number",
    "Assignment.members[].recipe.batch_size: whole number",
    "Assignment.members[].recipe.checkpoint_every: whole number",
    "Assignment.members[].recipe.clip: number",
    "Assignment.members[].recipe.epochs: number",
    "Assignment.members[].recipe.layers: 'all'",
    "Assignment.members[].recipe.layers: 'upper-half'",
    "Assignment.members[].recipe.learning_rate_schedule: text",
    "Assignment.members[].recipe.lora_plus: number",
    "Assignment.members[].recipe.max_length: whole number",
    "Assignment.members[].recipe.rslora: flag",
    "Assignment.members[].recipe.seed: whole number",
    "Assignment.members[].recipe.steps: nothing",
    "Assignment.members[].recipe.steps: whole number",
    "Assignment.members[].recipe.target_modules[]: text",
    "Assignment.members[].recipe.validation_share: number",
    "Assignment.members[].recipe.warmup: number",
    "Assignment.members[].recipe.weight_decay: number",
    "Assignment.members[].recipe: nothing",
    "Resumed.sweep.experiments[].params.more[][0]: text",
    "Resumed.sweep.experiments[].params.more[][1]: flag",
    "Resumed.sweep.experiments[].params.more[][1]: number",
    "Resumed.sweep.experiments[].params.more[][1]: text",
    "Resumed.sweep.experiments[].params.more[][1]: whole number",
    "Resumed.sweep.experiments[].params.more[][1][]: text",
    "Submitted.sweep.experiments[].params.more[][0]: text",
    "Submitted.sweep.experiments[].params.more[][1]: flag",
    "Submitted.sweep.experiments[].params.more[][1]: number",
    "Submitted.sweep.experiments[].params.more[][1]: text",
    "Submitted.sweep.experiments[].params.more[][1]: whole number",
    "Submitted.sweep.experiments[].params.more[][1][]: text",
}
"""Names under which more is written than 0.1.0 did, each a line of `encoding()`."""

LATE = {"elsewhere": {"exit_code": 124}, "outage": {"exit_code": 124}, "killed": {"exit_code": 9}}
"""Folders with starts later than their tiers allow, and one with work left: 0.1.0 said nothing of them."""

OLD = {"stopped": "gridsweep.train", "packed": "gridsweep.train", "killed": "gridsweep.testing"}
"""Folders with work left, and the worker that goes on with it."""
REAL = (pytest.mark.train, pytest.mark.slow)
FINISHED = {"finished": 0, "raced": 0, "troubled": 3}


LATER_KEYS = {"status.json": {"requests": [], "requests_waiting": 0}, "report.json": {"requests": []}}
"""Keys of documents that came later, as they are for the folders of then."""
LATER_IN_ROWS = {"report.json": {"more": {}}}
"""Keys of the experiments of a document that came later."""


def alike(value: Any, rel: float = 1e-9) -> Any:
    """The same, but for the last digits of numbers."""
    if isinstance(value, dict):
        return {key: alike(found, rel) for key, found in value.items()}
    if isinstance(value, list):
        return [alike(found, rel) for found in value]
    return pytest.approx(value, rel=rel, abs=1e-12) if isinstance(value, float) else value


def test_all_folders_are_there():
    assert names() == ["elsewhere", "finished", "killed", "outage", "packed", "raced", "stopped", "troubled"]


# Read and reported


@pytest.mark.parametrize("name", names())
def test_a_folder_is_read_as_it_was_written(name: str, tmp_path: Path):
    wanted = expected(name, "facts.json") | LATE.get(name, {})
    assert facts(unpack(name, tmp_path)) == alike(wanted)


@pytest.mark.parametrize("name", names())
def test_the_command_line_says_the_same_of_it(name: str, tmp_path: Path, gridsweep: Callable[..., Any]):
    unpack(name, tmp_path)
    for file, verb in (VERBS | explained(list(expected(name, "facts.json")["experiments"]))).items():
        code, out, err = gridsweep(*(part.format(folder=name) for part in verb))
        assert (code, err) == (0, "")
        if file.endswith(".json"):
            wanted = expected(name, file) | LATER_KEYS.get(file, {})
            if later := LATER_IN_ROWS.get(file):
                wanted["experiments"] = [row | later for row in wanted["experiments"]]
            assert json.loads(out) == alike(wanted), file
        else:
            assert out == expected(name, file), file


# Resumed


def same_machine() -> bool:
    """Whether losses have to be equal to the last bit: they are, with the same torch on the same processor."""
    import torch

    from gridsweep.train.device import device_name

    now = {"torch": torch.__version__, "cpu": device_name(torch.device("cpu"))}
    return bool(now == json.loads((EXPECTED / "machine.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [pytest.param(name, marks=REAL if "train" in OLD[name] else ()) for name in OLD])
def test_a_folder_with_work_left_ends_with_the_losses_of_then(
    name: str, tmp_path: Path, gridsweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    folder = unpack(name, tmp_path)
    monkeypatch.setenv("GRIDSWEEP_WORKER", OLD[name])
    for variable, value in (("CUDA_VISIBLE_DEVICES", ""), ("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
        monkeypatch.setenv(variable, value)
    assert gridsweep("run", name)[0] in (0, 124)  # how late a start is on a clock of numeric speed is the machine's
    wanted, found = expected(name, "resumed.json"), resumed(folder)
    assert found.pop("exit_code") in (0, 124) and wanted.pop("exit_code") == 0
    if "train" not in OLD[name]:
        assert found == alike(wanted)
    elif same_machine():
        assert found == wanted
    else:  # another processor or torch adds in another order: the tests of training allow as much
        assert found == alike(wanted, 1e-3)


@pytest.mark.parametrize(("name", "code"), FINISHED.items())
def test_a_folder_that_has_ended_stays_as_it_is(name: str, code: int, tmp_path: Path, gridsweep: Callable[..., Any]):
    folder = unpack(name, tmp_path)
    before = bodies(folder)
    assert gridsweep("run", name)[0] == code
    assert facts(folder) == alike(expected(name, "facts.json"))
    after = bodies(folder)
    assert after[: len(before)] == before
    assert {body["kind"] for body in after[len(before) :]} <= {"Resumed", "ClockAnchored", "Observed"}


# Written in the same way


def test_values_are_written_under_the_names_of_then():
    then = set((EXPECTED / "encoding.txt").read_text(encoding="utf-8").splitlines())
    now = set(encoding())
    assert then - now == set(), "what 0.1.0 wrote can no longer be read under its name"
    new = {line for line in now - then if not line.startswith("Asked.")}  # an event that 0.1.0 did not know
    assert new == NEW, "more is written than 0.1.0 did: name it in NEW"


def pruned(new: Any, old: Any) -> Any:
    """A value without the keys that 0.1.0 did not write."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: pruned(value, old[key]) for key, value in new.items() if key in old}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [pruned(a, b) for a, b in zip(new, old, strict=True)]
    return new


@pytest.mark.parametrize("name", names())
def test_an_event_is_written_again_as_it_was(name: str, tmp_path: Path):
    folder = unpack(name, tmp_path)
    then = bodies(folder)
    now = [json.loads(codec.dumps(event)) for event in events(folder)]
    assert [pruned(new, old) for new, old in zip(now, then, strict=True)] == then
    if not NEW:
        assert now == then


def test_every_kind_of_event_is_in_some_folder(tmp_path: Path):
    found, answered, ends = set(), set(), set()
    for name in names():
        for body in bodies(unpack(name, tmp_path)):
            found.add(body["kind"])
            if body["kind"] == "Answered":
                answered.add(body["rung"])
            ends |= {outcome["status"] for outcome in body.get("outcomes", ())}
    then = re.findall(r"^(\w+)\.kind: '\1'$", (EXPECTED / "encoding.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found == set(then) <= kinds()
    assert answered >= {"live", "stale", "forecast", "static", "none"}
    assert ends == {"done", "reached", "paused", "failed"}


# Specs


def test_the_examples_name_the_same_experiments():
    examples = Path(__file__).parents[1] / "examples"
    for path, ids in json.loads((EXPECTED / "example_ids.json").read_text(encoding="utf-8")).items():
        assert [e.id for e in Sweep.load(examples / path).experiments] == ids, path


def test_a_folder_names_neither_the_machine_nor_the_place_it_was_made_on(tmp_path: Path):
    for name in names():
        for path in unpack(name, tmp_path).rglob("*"):
            found = (
                re.findall(rb"/(?:tmp|home|root|usr|work|opt|venv)/[\w./-]*", path.read_bytes())
                if path.is_file()
                else []
            )
            assert not found, path
            if path.name == "worker.json":
                assert json.loads(path.read_text())["host"] == "somewhere"


def record() -> None:
    """Write what this version prints of the folders."""
    for name in names():
        with tempfile.TemporaryDirectory() as place:
            unpack(name, Path(place))
            for file, verb in (VERBS | explained(list(expected(name, "facts.json")["experiments"]))).items():
                command = [sys.executable, "-m", "gridsweep.cli", *(part.format(folder=name) for part in verb)]
                done = subprocess.run(command, cwd=place, env=os.environ, capture_output=True, text=True, check=True)
                (EXPECTED / name / file).write_text(done.stdout, encoding="utf-8")


if __name__ == "__main__":
    record()
