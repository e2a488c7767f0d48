"""Energy that is missing in a worker's files is never a saving, and is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import HOUR, make_sweep
from gridsweep.accounting.caveats import caveats
from gridsweep.accounting.ledger import ledger
from gridsweep.carbon.readings import Provenance
from gridsweep.executors.assigning import assignment
from gridsweep.executors.handover import news
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import UNTOLD, Ended, Event, Held, Lost, Observed, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.stints import Member, Stint

NOW = datetime.now(UTC).replace(microsecond=0)
BEGUN = NOW - timedelta(minutes=10)
WATTS = 100.0
STEPS, PACE = 40, 10.0
"""40 steps in 400 seconds, with a line of energy of 100 W each."""
HONEST = WATTS * STEPS * PACE / 3.6e6


class Work:
    """An attempt whose worker made all steps; a test changes its files before the look."""

    def __init__(self, tmp: Path):
        sweep = make_sweep(1, steps=STEPS)
        sweep = replace(sweep, devices=tuple(replace(d, power_w=WATTS) for d in sweep.devices))
        self.id = sweep.experiments[0].id
        stint = Stint((Member(self.id, 0, STEPS),))
        self.name = f"{stint.id}/1"
        self.journal: list[Event] = [
            Submitted(BEGUN, sweep),
            Observed(BEGUN, BEGUN.replace(minute=0, second=0), HOUR, (100.0,) * 3, Provenance("a test")),
            Requested(BEGUN, self.name, stint, sweep.devices[0].name, "a test"),
        ]
        state = State(self.journal)
        self.folder = AttemptFolder(tmp / "store" / "stints" / self.name)
        self.folder.prepare(assignment(state, state.attempts[self.name]))
        (self.folder.path / "log.txt").touch()
        moments = [
            {"at": at(PACE * n), "phase": "training", "step": n, "losses": {self.id: 3.0} if n else {}}
            for n in range(STEPS + 1)
        ]
        self.energy: list[Any] = [
            {"start": at(PACE * n), "seconds": PACE, "kwh": HONEST / STEPS, "source": "nvml", "step": n + 1}
            for n in range(STEPS)
        ]
        self.write("progress.jsonl", moments)
        with self.folder.saving_adapter(self.id, STEPS) as draft:
            (draft / "adapter_config.json").write_text("{}")
        losses = {"values": [2.0] * 4, "tokens": [10.0] * 4}
        outcome = {"experiment": self.id, "status": "done", "step": STEPS, "validation_loss": 2.0, "losses": losses}
        outcome["adapter"] = f"stints/{self.name}/adapters/{self.id}"
        self.result: dict[str, Any] | None = {"ended_at": at(STEPS * PACE), "outcomes": [outcome]}

    def write(self, name: str, lines: list[Any]) -> None:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (self.folder.path / name).write_text(text)

    def looked_at(self) -> State:
        self.write("energy.jsonl", self.energy)
        if self.result is not None:
            (self.folder.path / "result.json").write_text(json.dumps(self.result))
        state = State(self.journal)
        self.events = news(state, state.attempts[self.name], self.folder, NOW, ended=True)
        for event in self.events:
            state.apply(event)
        return state


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def drawn(state: State) -> float:
    return sum(attempt.drawn_kwh for attempt in state.attempts.values())


def noted(state: State) -> bool:
    return any("the devices' stated power" in note for note in caveats(state, ledger(state)))


def test_an_honest_file_is_taken_as_it_is(work: Work) -> None:
    state = work.looked_at()
    assert isinstance(work.events[-1], Ended) and drawn(state) == pytest.approx(HONEST) and not noted(state)
    assert len(state.attempts[work.name].energy) <= STEPS * PACE / 60 + 1, "lines are merged"


LEFT: dict[str, Any] = {
    "none": lambda lines: [],
    "the last": lambda lines: lines[-1:],
    "the first": lambda lines: lines[:1],
    "first and last": lambda lines: [*lines[:2], lines[-1]],
    "no head": lambda lines: lines[20:],
    "no tail": lambda lines: lines[:20],
    "a hole": lambda lines: [*lines[:10], *lines[15:]],
    "each other": lambda lines: lines[::2],
    "all zero": lambda lines: [line | {"kwh": 0.0} for line in lines],
    "all tiny": lambda lines: [line | {"kwh": 1e-300} for line in lines],
    "zeros but the last": lambda lines: [*(line | {"kwh": 0.0} for line in lines[:-1]), lines[-1]],
}


@pytest.mark.parametrize("left", LEFT)
def test_missing_energy_is_charged_at_the_stated_power(work: Work, left: str) -> None:
    work.energy = LEFT[left](work.energy)
    state = work.looked_at()
    assert isinstance(work.events[-1], Ended)
    assert drawn(state) == pytest.approx(HONEST, rel=1e-3) and noted(state)
    energy = sorted(state.attempts[work.name].energy, key=lambda segment: segment.start)
    assert all(BEGUN <= segment.start <= segment.end <= NOW for segment in energy)


def test_a_machine_that_slept_is_not_charged(work: Work) -> None:
    """Its clock went on, and no step was made."""
    slept = timedelta(seconds=150)
    for name in ("progress.jsonl", "energy.jsonl"):
        key = "at" if name == "progress.jsonl" else "start"
        lines = (
            work.energy
            if key == "start"
            else [json.loads(line) for line in (work.folder.path / name).read_text().splitlines()]
        )
        for line in lines[21:]:
            line[key] = (datetime.fromisoformat(line[key]) + slept).isoformat()
        if key == "at":
            work.write(name, lines)
    assert work.result is not None
    work.result["ended_at"] = at(STEPS * PACE + 150)
    state = work.looked_at()
    assert drawn(state) == pytest.approx(HONEST) and not noted(state)


@pytest.mark.parametrize("line", ['{"kwh": NaN}', "\x00" * 50, "[]", -1e-6, float("nan")])
def test_energy_after_a_refused_line_is_charged_as_waste(work: Work, line: Any) -> None:
    work.energy[20] = line if isinstance(line, str) else work.energy[20] | {"kwh": line}
    state = work.looked_at()
    assert isinstance(end := work.events[-1], Lost) and "its worker wrote energy.jsonl: at byte " in end.why
    assert drawn(state) == pytest.approx(HONEST, rel=1e-3) and noted(state)
    assert ledger(state).wasted.energy_kwh == pytest.approx(HONEST, rel=1e-3)


@pytest.mark.parametrize("kept", [0, 10])
def test_a_lost_attempt_without_its_energy_is_charged_as_far_as_its_progress(work: Work, kept: int) -> None:
    work.result, work.energy = None, work.energy[:kept]
    state = work.looked_at()
    assert isinstance(work.events[-1], Lost) and noted(state)
    assert drawn(state) == pytest.approx(HONEST, rel=1e-3) == ledger(state).wasted.energy_kwh


def test_a_lost_attempt_is_charged_for_what_a_checkpoint_proves(work: Work) -> None:
    work.result, work.energy = None, []
    work.write("progress.jsonl", [])
    with work.folder.saving(work.id, 4) as draft:
        (draft / "weights").write_text("4")
    state = work.looked_at()
    (segment,) = state.attempts[work.name].energy
    assert (segment.source, segment.step) == (UNTOLD, 4)
    assert segment.kwh == pytest.approx(WATTS / 1000 * ((segment.end - segment.start) / HOUR)) and segment.kwh > 0


def test_a_lost_attempt_that_proves_no_step_is_not_charged(work: Work) -> None:
    work.result, work.energy = None, []
    work.write("progress.jsonl", [{"at": at(1), "phase": "loading", "step": 0, "losses": {}}])
    assert drawn(work.looked_at()) == 0


def test_time_in_a_queue_is_not_charged(work: Work) -> None:
    work.energy = []
    work.write("progress.jsonl", [])
    held, free = BEGUN + timedelta(seconds=1), BEGUN + timedelta(seconds=300)
    work.journal += [Held(held, work.name, "Kueue", "no GPU"), Held(free, work.name, "", "")]
    assert drawn(work.looked_at()) == pytest.approx(WATTS * (STEPS * PACE - 300) / 3.6e6)


def test_energy_of_another_year_leaves_the_progress_as_proof(work: Work) -> None:
    for line in work.energy:
        line["start"] = line["start"].replace(f"{BEGUN:%Y}", f"{BEGUN.year - 1}")
    state = work.looked_at()
    assert isinstance(end := work.events[-1], Lost) and "energy.jsonl: start is " in end.why
    assert drawn(state) == pytest.approx(HONEST, rel=1e-3) and noted(state)


@pytest.mark.parametrize("order", ["twice", "reversed", "one twice"])
def test_repeated_lines_are_refused_and_not_counted_twice(work: Work, order: str) -> None:
    lines = work.energy
    work.energy = {"twice": lines * 2, "reversed": lines[::-1], "one twice": [*lines[:9], lines[8], *lines[9:]]}[order]
    state = work.looked_at()
    assert isinstance(end := work.events[-1], Lost) and "lines are repeated" in end.why
    assert drawn(state) == pytest.approx(HONEST, rel=1e-3)


def test_an_attempt_does_not_end_before_its_last_line(work: Work) -> None:
    work.result = {**(work.result or {}), "ended_at": at(1)}
    work.energy = []
    state = work.looked_at()
    assert state.attempts[work.name].ended_at == BEGUN + timedelta(seconds=STEPS * PACE)
    assert drawn(state) == pytest.approx(HONEST) and noted(state)


def at(seconds: float) -> str:
    return (BEGUN + timedelta(seconds=seconds)).isoformat()
