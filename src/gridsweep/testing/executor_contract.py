"""The executor contract as tests to inherit (pytest collects them; nothing here imports pytest).

    class TestMine(WorkerContract):
        @pytest.fixture
        def bench(self, tmp_path):
            return MyBench(tmp_path / "store")

`ExecutorContract` also applies to simulated executors; `WorkerContract` adds checks of real workers: files, losses to
the last digit, and the state after a kill. A `Bench` makes executors and kills workers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR, Trace
from gridsweep.loop import Executor, World, drive
from gridsweep.policy.gates import Immediate
from gridsweep.records.attempts import Part
from gridsweep.runs.worlds import Live
from gridsweep.simulation.virtual import Observations
from gridsweep.state.events import Ended, Event, Lost, Paused, Pausing, Requested, Running, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Dataset, Experiment, LoraParams, Model, Recipe
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Device, Member, Stint
from gridsweep.sweep.sweep import Estimates, Sweep
from gridsweep.sweep.tiers import Tier
from gridsweep.testing.stand_in import loss_after

WORD = "a word from the worker"
QUICK, SLOW = 0.005, 0.1
"""Seconds per step of the stand-in: short enough to end at once, and long enough to be interrupted."""


def stand_in(pace: float = QUICK, misbehave: str = "") -> tuple[str, ...]:
    """Return the command of a stand-in worker that prints `WORD` first; its environment is included."""
    return (
        "env",
        f"GRIDSWEEP_STEP_SECONDS={pace}",
        f"GRIDSWEEP_MISBEHAVE={misbehave}",
        "sh",
        "-c",
        f'echo "{WORD}"; exec "$0" "$@"',
        sys.executable,
        "-P",
        "-m",
        "gridsweep.testing",
    )


def sweep_of(n: int, *, steps: int = 6, devices: int = 2) -> Sweep:
    """Return a sweep of `n` experiments e00, e01, ..., with a checkpoint every other step."""
    experiments = (
        Experiment(f"e{i:02}", LoraParams(8 + i, 32.0, 1e-4, 0.05), 42, "only", "a contract") for i in range(n)
    )
    return Sweep(
        name="contract",
        model=Model("model"),
        dataset=Dataset("dataset"),
        recipe=Recipe(steps=steps, checkpoint_every=2),
        experiments=tuple(experiments),
        tiers=(Tier("only", 1000.0, HOUR, 1),),
        estimates=Estimates(HOUR, 100.0),
        devices=tuple(Device(f"d{i}") for i in range(devices)),
        total_steps=steps,
    )


def expected_loss(sweep: Sweep, id: str, steps: int | None = None) -> float:
    """Return the stand-in's loss of an undisturbed experiment after `steps` steps (default: all)."""
    experiment = next(e for e in sweep.experiments if e.id == id)
    part = Part(id, experiment.params, experiment.seed, 0, sweep.total_steps)
    loss = loss_after(part, 0)
    for step in range(1, (steps or sweep.total_steps) + 1):
        loss = loss_after(part, step, loss)
    return loss


class Bench:
    """A place with workers, on the wall clock. `patience` is the most seconds any wait may take."""

    patience = 60.0

    def __init__(self, store: Path):
        self.store = store

    def executor(self, command: Sequence[str]) -> Executor:
        """Return a new executor over the same store and place, as after a crash of the loop."""
        raise NotImplementedError

    def kill(self, attempt: str) -> None:
        """End an attempt's worker as a crash would, without a result."""
        raise NotImplementedError

    def now(self) -> datetime:
        return datetime.now(UTC)

    def rest(self, executor: Executor, state: State) -> None:
        """Let a short time pass."""
        time.sleep(0.05)

    def world(self, executor: Executor) -> World:
        start = self.now().replace(minute=0, second=0, microsecond=0) - HOUR
        grid = Observations(Trace(start, HOUR, [100.0] * 48), Provenance("a contract"))
        return Live(grid, executor)  # type: ignore[arg-type]  # executors without workers have their own world


class Story:
    """A sweep under way on a bench: its executor, its journal, and the state folded from it."""

    def __init__(self, bench: Bench, executor: Executor, sweep: Sweep):
        self.bench, self.executor = bench, executor
        self.journal: list[Event] = [Submitted(bench.now(), sweep)]
        self.state = State(self.journal)

    def tell(self, event: Event) -> None:
        self.journal.append(event)
        self.state.apply(event)

    def request(self, id: str = "e00", device: str = "d0") -> str:
        """Journal and start the next attempt at the rest of an experiment, and return its name."""
        stint = Stint((Member(id, self.state.standings[id].step, self.state.sweep.total_steps),))
        name = f"{stint.id}/{self.state.tries.get(stint.id, 0) + 1}"
        self.tell(Requested(self.bench.now(), name, stint, device, "a contract"))
        self.executor.act(self.state)
        return name

    def pause(self, attempt: str, *, kill: bool = False) -> None:
        self.tell(Pausing(self.bench.now(), attempt, "enough", kill=kill))
        self.executor.act(self.state)

    def look(self) -> list[Event]:
        """Observe as if a minute had passed since the last time, so that all events are reported."""
        events = list(self.executor.observe(self.state, self.bench.now() + timedelta(minutes=2)))
        for event in events:
            self.tell(event)
        return events

    def until(self, condition: Callable[[], bool]) -> None:
        """Act and observe until a condition is true."""
        end = time.monotonic() + self.bench.patience
        while not condition():
            assert time.monotonic() < end, f"it did not come true in {self.bench.patience} s: {self.journal[-3:]}"
            self.bench.rest(self.executor, self.state)
            self.look()
            self.executor.act(self.state)

    def finish(self) -> Event:
        """Act and observe until nothing runs, and return the last event."""
        self.until(lambda: not self.state.active)
        return self.journal[-1]

    def reach(self, attempt: str, step: int) -> None:
        self.until(lambda: self.state.attempts[attempt].step >= step)

    def die(self, executor: Executor) -> None:
        """Simulate a crash of the loop: only the journal is left, and another executor takes over."""
        self.state, self.executor = State(self.journal), executor

    def facts(self, *kinds: type[object]) -> list[str]:
        return [event.kind for event in self.journal if isinstance(event, kinds)]

    def loss(self, id: str = "e00") -> float | None:
        outcome = self.state.standings[id].outcome
        return outcome.validation_loss if outcome else None


ATTEMPT = (Requested, Running, Paused, Ended, Lost)


class ExecutorContract:
    """Tests for every executor. A subclass provides the fixture `bench`."""

    def story(self, bench: Bench, n: int = 1, *, pace: float = QUICK, misbehave: str = "", **sweep: int) -> Story:
        return Story(bench, bench.executor(stand_in(pace, misbehave)), sweep_of(n, **sweep))

    def test_requested_runs_and_ends_once_however_often_it_is_asked(self, bench: Bench) -> None:
        story = self.story(bench)
        name = story.request()
        other = bench.executor(stand_in())
        for executor in (story.executor, other, other):
            executor.act(story.state)
        assert isinstance(story.finish(), Ended)
        assert story.facts(*ATTEMPT) == ["Requested", "Running", "Ended"]
        standing, attempt = story.state.standings["e00"], story.state.attempts[name]
        assert (standing.status, standing.step, attempt.step) == ("done", 6, 6)
        assert attempt.running_at and attempt.ended_at and attempt.running_at <= attempt.ended_at
        assert sum(segment.kwh for segment in attempt.energy) > 0
        self.undisturbed(story)

    def undisturbed(self, story: Story) -> None:
        """Check further properties of an undisturbed attempt; executors with workers add some."""

    def test_observing_twice_tells_the_same(self, bench: Bench) -> None:
        story = self.story(bench)
        story.request()
        end = time.monotonic() + bench.patience
        while not (seen := story.executor.observe(story.state, bench.now())) or not isinstance(seen[-1], Ended):
            assert time.monotonic() < end
            bench.rest(story.executor, story.state)
        now = bench.now()
        once, twice = (list(story.executor.observe(story.state, now)) for _ in range(2))
        assert once == twice and isinstance(once[-1], Ended)
        for event in once:
            story.tell(event)
        assert story.look() == []

    def test_told_to_pause_it_keeps_what_it_trained_and_the_rest_goes_on_from_there(self, bench: Bench) -> None:
        story = self.story(bench, steps=30, misbehave="wait:e00")
        name = story.request()
        self.under_way(story, name)
        story.pause(name)
        assert isinstance(story.finish(), Paused)
        standing = story.state.standings["e00"]
        assert 0 <= standing.step < 30 and (standing.checkpoint or not standing.step)
        kept = standing.step
        story.die(bench.executor(stand_in()))
        again = story.request()
        assert isinstance(story.finish(), Ended)
        assert story.state.attempts[again].stint.members == (Member("e00", kept, 30),)
        assert story.state.standings["e00"].status == "done"
        self.same_end(story)

    def under_way(self, story: Story, attempt: str) -> None:
        """Wait until an attempt has work worth keeping."""
        story.bench.rest(story.executor, story.state)

    def same_end(self, story: Story) -> None:
        """Check that the result equals that of an undisturbed sweep."""

    def test_another_loop_takes_over_what_runs(self, bench: Bench) -> None:
        story = self.story(bench, pace=SLOW)
        story.request()
        story.die(bench.executor(stand_in()))
        assert isinstance(story.finish(), Ended)
        assert story.facts(*ATTEMPT) == ["Requested", "Running", "Ended"]
        self.same_end(story)

    def test_devices_are_never_doubled(self, bench: Bench) -> None:
        story = self.story(bench, 3, misbehave=self.wrong)
        drive(story.state, story.journal, bench.world(story.executor), Immediate())
        assert tuple(standing.status for standing in story.state.standings.values()) == self.statuses
        attempts = story.state.attempts.values()
        for device in story.state.sweep.devices:
            held = sorted((a.requested_at, a.ended_at) for a in attempts if a.device == device.name)
            assert all(one[1] and one[1] <= other[0] for one, other in pairwise(held))
        assert len({attempt.device for attempt in attempts}) == 2

    wrong = ""
    statuses: tuple[str, ...] = ("done", "done", "done")


class WorkerContract(ExecutorContract):
    """Tests for every executor with real workers (`worlds.Workers`)."""

    wrong = "nan:e00"  # an experiment that fails permanently fails alone
    statuses = ("failed", "done", "done")

    def undisturbed(self, story: Story) -> None:
        self.same_end(story)
        name, store = story.state.standings["e00"].attempts[0], story.bench.store
        config = store / "experiments" / "e00" / "adapter" / "adapter_config.json"
        assert json.loads(config.read_text()) == {"r": 8}
        assert story.state.facts == {"worker": "stand-in"}
        assert WORD in list(story.executor.logs(name))  # type: ignore[attr-defined]  # all that start workers have it

    def under_way(self, story: Story, attempt: str) -> None:
        story.reach(attempt, 3)

    def same_end(self, story: Story) -> None:
        assert story.loss() == expected_loss(story.state.sweep, "e00")

    def test_killed_it_is_lost_and_the_rest_goes_on_from_its_checkpoint(self, bench: Bench) -> None:
        story = self.story(bench, steps=60, misbehave="wait:e00")
        name = story.request()
        story.reach(name, 5)
        bench.kill(name)
        lost = story.finish()
        assert isinstance(lost, Lost) and lost.why
        standing = story.state.standings["e00"]
        assert standing.step >= 4 and standing.checkpoint and standing.checkpoint.step == standing.step
        story.die(bench.executor(stand_in()))
        story.request()
        assert isinstance(story.finish(), Ended)
        self.same_end(story)

    def test_a_pack_of_three_is_compared_at_a_rung_and_the_best_goes_on(self, bench: Bench) -> None:
        sweep = replace(sweep_of(3, devices=1), pack=3, rungs=Rungs((0.5,), (1,)))
        story = Story(bench, bench.executor(stand_in()), sweep)
        drive(story.state, story.journal, bench.world(story.executor), Immediate())
        losses = {id: expected_loss(sweep, id, 3) for id in ("e00", "e01", "e02")}
        best = min(losses, key=losses.__getitem__)
        statuses = {id: s.status for id, s in story.state.standings.items()}
        assert statuses == {id: "done" if id == best else "stopped" for id in losses}, story.journal
        assert story.loss(best) == expected_loss(sweep, best)
        spans = [[(m.from_step, m.to_step) for m in a.stint.members] for a in story.state.attempts.values()]
        assert spans == [[(0, 3)] * 3, [(3, 6)]]

    def test_one_that_is_deaf_is_ended_when_it_is_to_be_killed(self, bench: Bench) -> None:
        story = self.story(bench, misbehave="hang:e00")
        name = story.request()
        story.reach(name, 2)
        story.pause(name, kill=True)
        assert isinstance(story.finish(), Lost)
        assert not story.executor.alive(story.state)  # type: ignore[attr-defined]  # all that start workers have it
