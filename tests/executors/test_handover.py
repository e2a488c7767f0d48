"""What a lost attempt leaves to go on from, and which checkpoints nobody needs any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from builders import START, after, make_sweep
from gridsweep.executors.assigning import assignment
from gridsweep.executors.handover import news
from gridsweep.executors.publisher import Publisher
from gridsweep.records.attempts import AttemptFolder, EnergyLine, Progress, Result
from gridsweep.records.attempts import now as wall
from gridsweep.schedule.timetable import timetable
from gridsweep.state.events import UNTOLD, Ended, Fingerprinted, Lost, Ranked, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Recipe
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.sweep import Replay

SWEEP = replace(make_sweep(3, steps=8), pack=3, rungs=Rungs((0.5,), (1,)))
IDS = ("e00", "e01", "e02")


class Bench:
    """A sweep whose attempts are folders that the test writes into."""

    def __init__(self, path: Path):
        self.path, self.state = path, State([Submitted(START, SWEEP)])

    def request(self, *members: Member, at: datetime = START) -> AttemptFolder:
        stint = Stint(members)
        name = f"{stint.id}/1"
        self.state.apply(Requested(at, name, stint, "d0", "a test"))
        folder = AttemptFolder(self.path / "store" / "stints" / name)
        folder.prepare(assignment(self.state, self.state.attempts[name]))
        self.name = name
        return folder

    def lost(self, folder: AttemptFolder) -> Lost:
        (*_, event) = news(self.state, self.state.attempts[self.name], folder, after(1), ended=True)
        assert isinstance(event, Lost)
        self.state.apply(event)
        return event

    def kept(self) -> list[str]:
        """The checkpoints there are: attempt's step / experiment."""
        found = self.path.glob("store/stints/*/*/checkpoints/*/*")
        return sorted(f"{path.parent.name}/{path.name}" for path in found)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def save(folder: AttemptFolder, step: int, *ids: str) -> None:
    for id in ids:
        with folder.saving(id, step) as draft:
            (draft / "x").write_text(f"{id} {step}")


def to_the_rung(bench: Bench) -> AttemptFolder:
    return bench.request(*(Member(id, 0, 4) for id in IDS))


@pytest.mark.parametrize(
    ("saved", "steps"),
    [
        ([(2, IDS), (3, IDS)], [3, 3, 3]),
        ([(2, IDS), (3, IDS[:1])], [2, 2, 2]),  # killed while it saved: they go on together
        ([(3, IDS), (4, IDS)], [3, 3, 3]),  # the rung is not passed without a look
        ([(3, IDS[:2])], [3, 3]),
        ([(2, IDS[:1]), (3, IDS[1:])], [2, 3, 3]),  # nothing in common
        ([], []),
    ],
)
def test_what_a_lost_attempt_leaves(bench: Bench, saved: list, steps: list[int]) -> None:
    folder = to_the_rung(bench)
    for step, ids in saved:
        save(folder, step, *ids)
    assert [checkpoint.step for checkpoint in bench.lost(folder).checkpoints] == steps


def test_after_the_last_step_only_the_end_is_made_again(bench: Bench) -> None:
    folder = bench.request(Member("e00", 4, 8))
    save(folder, 8, "e00")
    assert [checkpoint.step for checkpoint in bench.lost(folder).checkpoints] == [8]


def test_each_experiment_takes_its_own_checkpoints_along(bench: Bench) -> None:
    folder, publisher = to_the_rung(bench), Publisher(bench.path / "store")
    for step in (3, 4):
        save(folder, step, *IDS)
    (folder.path / "checkpoints" / "3" / ".e02").mkdir()  # of a worker that was killed
    at_rung = [Outcome(id, "reached", 4, train_loss=n, checkpoint=folder.checkpoint(id)) for n, id in enumerate(IDS)]
    bench.state.apply(Ended(after(1), bench.name, tuple(at_rung), {}))
    publisher.publish(bench.state)
    assert bench.kept() == ["3/.e02", *(f"{step}/{id}" for step in (3, 4) for id in IDS)]

    bench.state.apply(Ranked(after(1), 4, ("e02",), "the worst", ("e00", "e01"), (), (), None, "raw"))
    publisher.publish(bench.state)  # a stopped one keeps its last; who goes on keeps all
    assert bench.kept() == ["3/e00", "3/e01", "4/e00", "4/e01", "4/e02"]

    last = bench.request(Member("e00", 4, 8))
    save(last, 6, "e00")
    with last.saving_adapter("e00", 8) as draft:
        (draft / "adapter_config.json").write_text("{}")
    done = Outcome("e00", "done", 8, adapter=str((last.path / "adapters/e00").relative_to(last.store)))
    bench.state.apply(Ended(after(2), bench.name, (done,), {}))
    publisher.publish(bench.state)
    Publisher(bench.path / "store").publish(bench.state)
    assert bench.kept() == ["3/e01", "4/e01", "4/e02"]
    assert not (last.path / "checkpoints").exists()
    assert (bench.path / "store/experiments/e00/adapter/adapter_config.json").exists()


# Where grid time follows the work

FOLLOWING = make_sweep(3, steps=8, pack=3, rungs=Rungs((0.5,), (1,)), hours=2.0, replay=Replay(START, "auto"))
LATER = after(99)


class Following(Bench):
    """The attempt of a pack of three to the rung at step 4, three hours by the estimate."""

    def __init__(self, path: Path):
        self.path, self.state = path, State([Submitted(START, FOLLOWING)])
        self.folder = self.request(*(Member(id, 0, 4) for id in IDS))
        self.table = timetable(self.state, self.state.attempts[self.name])

    def says(self, *steps: int, phase: str = "training") -> None:
        for step in steps:
            self.folder.append(Progress(wall(), phase, step, {"e00": float(step)}))  # type: ignore[arg-type]

    def draws(self, *steps: int) -> None:
        for step in steps:
            self.folder.append(EnergyLine(wall(), 1.0, 1e-3, "modelled", step))

    def look(self, now: datetime, *, ended: bool = False) -> list:
        events = news(self.state, self.state.attempts[self.name], self.folder, now, ended=ended)
        for event in events:
            self.state.apply(event)
        return events

    def finishes(self, *outcomes: Outcome) -> None:
        """Write a result whose outcomes have their checkpoints, as a worker does."""
        saves = {outcome.step for outcome in outcomes if outcome.status in ("reached", "paused")}
        for step in saves:
            save(self.folder, step, *IDS)
        saved = {id: self.folder.checkpoint(id) for id in IDS}
        self.folder.finish(Result(wall(), tuple(replace(o, checkpoint=saved[o.experiment]) for o in outcomes)))


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path)


def at_rung(id: str) -> Outcome:
    return Outcome(id, "reached", 4, train_loss=1.0)


def kinds(events: list) -> list[str]:
    return [event.kind for event in events]


def test_an_end_is_told_when_the_sweeps_time_has_come_to_it(following: Following) -> None:
    following.says(0, 1, 2, 3, 4)
    following.draws(4)
    assert kinds(following.look(START)) == ["Running", "Progressed"]
    following.finishes(*map(at_rung, IDS))
    (told,) = following.look(START, ended=True)
    assert (told.at, told.over_at) == (START, after(3))
    assert following.look(after(2.9), ended=True) == []
    assert kinds(following.look(after(3), ended=True)) == ["Progressed", "Ended"]
    assert following.state.attempts[following.name].ended_at == after(3)


@pytest.mark.parametrize(("told", "missing"), [([], 4), ([0, 1], 3), ([0, 1, 2, 4], 0), ("zero", 4)])
def test_energy_that_no_file_tells_is_the_stated_power_of_the_device(following: Following, told: Any, missing: int):
    """A file of energy that is gone, cut or all zero would be a saving that nobody made."""
    following.says(0, 1, 2, 3, 4)
    if told == "zero":
        following.folder.append(EnergyLine(wall(), 1.0, -0.0, "modelled", 4))
    else:
        following.draws(*told)
    following.finishes(*map(at_rung, IDS))
    following.look(after(3), ended=True)
    attempt = following.state.attempts[following.name]
    untold = [segment for segment in attempt.energy if segment.source == UNTOLD]
    assert [segment.step for segment in untold] == ([4] if missing else [])
    took = (following.folder.changed_at() - following.folder.prepared_at()) / timedelta(hours=1)
    watts = FOLLOWING.devices[0].power_w or FOLLOWING.estimates.power_w
    assert sum(segment.kwh for segment in untold) == pytest.approx(watts * took / 1000 * missing / 4, rel=1e-2)
    assert attempt.ended_at == after(3) and all(segment.end <= after(3) for segment in attempt.energy)


def test_a_line_of_energy_after_the_last_change_of_the_folder_is_a_loss(bench: Bench) -> None:
    """A loop that was killed looks days later: the attempt lasted until its folder was last changed."""
    begun = wall() - timedelta(hours=1)
    bench.state = State([Submitted(begun, SWEEP)])
    folder = bench.request(*(Member(id, 0, 4) for id in IDS), at=begun)
    folder.append(Progress(begun + timedelta(minutes=1), "training", 1, {}))
    folder.append(EnergyLine(wall() + timedelta(hours=10), 1.0, 1e-3, "measured", 1))
    later = wall() + timedelta(days=2)
    (*_, lost) = news(bench.state, bench.state.attempts[bench.name], folder, later, ended=True)
    assert isinstance(lost, Lost) and "start is" in lost.why and "after its folder was last changed" in lost.why
    assert lost.at <= wall() + timedelta(minutes=1)


def test_the_clock_of_a_file_server_may_be_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of changes are the server's: an hour behind, they would put all work after the last change."""
    begun = wall() - timedelta(minutes=30)
    bench.state = State([Submitted(begun, SWEEP)])
    folder = bench.request(*(Member(id, 0, 4) for id in IDS), at=begun)
    folder.append(Progress(begun + timedelta(minutes=20), "training", 1, {}))
    for name, minutes in (("prepared_at", -60), ("changed_at", -38)):
        monkeypatch.setattr(AttemptFolder, name, lambda _, at=begun + timedelta(minutes=minutes): at)
    events = news(bench.state, bench.state.attempts[bench.name], folder, wall(), ended=False)
    assert kinds(events) == ["Running", "Progressed"]


def test_without_its_assignment_an_attempt_is_judged_all_the_same(following: Following) -> None:
    following.says(0, 1)
    (following.folder.path / "stint.json").unlink()
    assert kinds(following.look(after(3), ended=True))[-1] == "Lost"


def test_energy_is_told_up_to_the_sweeps_time(following: Following) -> None:
    following.says(0, 1, 2, 3, 4)
    following.draws(0, 1, 2, 4, 4)  # loading, three steps in two lines, and the scoring
    table = following.table
    assert following.look(START)[-1].energy == ()
    (told,) = following.look(table.at(1))
    assert [(s.start, s.end, s.step) for s in told.energy] == [(START, table.ready, 0), (table.ready, table.at(1), 1)]
    following.finishes(*map(at_rung, IDS))
    told, _ = following.look(after(3), ended=True)
    assert [(s.start, s.end, s.kwh) for s in told.energy] == [
        (table.at(1), table.at(2), 1e-3),
        (table.at(2), after(3), 2e-3),
    ]


def test_one_killed_while_it_loads_is_lost_where_it_started(following: Following) -> None:
    following.says(0, phase="loading")
    following.draws(0)
    told, lost = following.look(START, ended=True)
    assert isinstance(lost, Lost) and lost.at == START
    assert [(s.start, s.end) for s in told.energy] == [(START, START)]


def test_one_killed_at_work_is_lost_at_the_last_step_it_is_known_to_have_made(following: Following) -> None:
    following.says(0, 1)
    save(following.folder, 2, *IDS)  # and died before it could say so
    (*_, told) = following.look(START, ended=True)
    assert told.over_at == following.table.at(2)
    charged, lost = following.look(LATER, ended=True)
    assert isinstance(lost, Lost) and [(s.source, s.step) for s in charged.energy] == [(UNTOLD, 2)]


def test_where_all_diverge_the_attempt_ends_at_that_step(following: Following) -> None:
    following.says(0, 1)
    following.finishes(*(Outcome(id, "failed", 3, "nan") for id in IDS))
    assert following.look(START, ended=True)[-1].over_at == following.table.at(3)


def test_one_that_pauses_while_it_is_scored_is_not_scored(following: Following) -> None:
    following.says(0, 1, 2, 3, 4)
    following.finishes(*(Outcome(id, "paused", 3) for id in IDS))
    assert following.look(START, ended=True)[-1].over_at == following.table.trained


def test_an_end_never_lies_before_the_sweeps_time(following: Following) -> None:
    following.says(0, 1)
    told, lost = following.look(LATER, ended=True)[-2:]
    assert lost.at == told.over_at == LATER


def test_small_steps_are_told_together() -> None:
    with TemporaryDirectory() as folder:
        sweep = replace(FOLLOWING, total_steps=8000, recipe=Recipe(steps=8000))
        bench = Following.__new__(Following)
        bench.path, bench.state = Path(folder), State([Submitted(START, sweep)])
        bench.folder = bench.request(Member("e00", 0, 8000))
        bench.says(0, 1)
        assert len(bench.look(START)) == 2
        bench.says(2, 3)  # not a minute of the grid, and not a minute ago
        assert bench.look(START) == []
        bench.says(100)
        assert [event.step for event in bench.look(START)] == [100]
        bench.folder.append(Progress(wall() - timedelta(minutes=2), "training", 101, {}))
        assert [event.step for event in bench.look(START)] == [101]


def test_constants_are_told_once_and_compared_by_the_next(bench: Bench) -> None:
    folder = bench.request(Member("e00", 0, 8))
    assert folder.assignment().constants == {}
    line = Progress(wall(), "loading", 0, {}, {"training data": "d", "dtype": "float32"})
    folder.append(line)
    attempt = bench.state.attempts[bench.name]
    told = news(bench.state, attempt, folder, after(1), ended=False)[0]
    assert told == Fingerprinted(after(1), {"training data": "d", "dtype": "float32"}, bench.name)
    bench.state.apply(told)
    assert not any(isinstance(e, Fingerprinted) for e in news(bench.state, attempt, folder, after(1), ended=False))
    assert assignment(bench.state, attempt).constants == {"training data": "d", "dtype": "float32"}


def test_a_revision_is_a_commit_once_it_is_known(bench: Bench) -> None:
    bench.request(Member("e00", 0, 8))
    bench.state.apply(Fingerprinted(START, {"model commit": "c0ffee", "data commit": "beef"}, "submission"))
    made = assignment(bench.state, bench.state.attempts[bench.name])
    assert (made.model.revision, made.dataset.revision) == ("c0ffee", "beef")


def test_a_refused_result_is_a_refused_loss(bench: Bench) -> None:
    folder = bench.request(Member("e00", 0, 8))
    folder.finish(Result(wall(), (), error="the data have no answers", refused=True))
    lost = bench.lost(folder)
    assert (lost.why, lost.refused) == ("the data have no answers", True)


# A checkpoint that is damaged


def damage(bench: Bench, id: str, step: int) -> None:
    (path,) = bench.path.glob(f"store/stints/*/*/checkpoints/{step}/{id}/x")
    path.write_text("other weights")


def ends(bench: Bench, folder: AttemptFolder) -> list:
    """What is told of an attempt that ended without a result, folded."""
    events = news(bench.state, bench.state.attempts[bench.name], folder, after(1), ended=True)
    for event in events:
        bench.state.apply(event)
    return events


def test_a_damaged_checkpoint_is_left_for_an_earlier_one_then_for_the_beginning(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.state = State([Submitted(START, make_sweep(3, steps=8))])
    first = bench.request(Member("e00", 0, 8))
    save(first, 2, "e00")
    save(first, 4, "e00")
    bench.lost(first)
    standing = bench.state.standings["e00"]
    for step, back in ((4, 2), (2, 0)):
        assert standing.step == step
        again = bench.request(Member("e00", step, 8))
        assert kinds(ends(bench, again)) == ["Lost"]  # it is whole: another cause
        damage(bench, "e00", step)
        bench.request(Member("e00", step, 8))
        lost, reverted = ends(bench, again)
        assert lost.kind == "Lost" and reverted.kind == "Reverted" and standing.step == back
        assert f"the checkpoint of step {step} " in reverted.why
        assert (standing.checkpoint.step if standing.checkpoint else 0) == back
        assert (standing.status, standing.fruitless) == ("waiting", 0)


def test_nobody_goes_back_behind_a_rung(bench: Bench) -> None:
    folder = to_the_rung(bench)
    for step in (3, 4):
        save(folder, step, *IDS)
    outcomes = tuple(replace(at_rung(id), checkpoint=folder.checkpoint(id)) for id in IDS)
    bench.state.apply(Ended(after(1), bench.name, outcomes, {}))
    bench.state.apply(Ranked(after(1), 4, (), "all", IDS, (), (), None, "raw"))
    damage(bench, "e00", 4)
    last = bench.request(Member("e00", 4, 8))
    assert kinds(ends(bench, last)) == ["Lost"]
    assert bench.state.standings["e00"].step == 4
