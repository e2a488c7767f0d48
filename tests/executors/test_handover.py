"""What a lost attempt leaves to go on from, and which checkpoints nobody needs any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders import START, after, make_sweep
from gridsweep.executors.handover import assignment, news
from gridsweep.executors.publisher import Publisher
from gridsweep.records.attempts import AttemptFolder
from gridsweep.state.events import Ended, Lost, Ranked, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Member, Outcome, Stint

SWEEP = replace(make_sweep(3, steps=8), pack=3, rungs=Rungs((0.5,), (1,)))
IDS = ("e00", "e01", "e02")


class Bench:
    """A sweep whose attempts are folders that the test writes into."""

    def __init__(self, path: Path):
        self.path, self.state = path, State([Submitted(START, SWEEP)])

    def request(self, *members: Member) -> AttemptFolder:
        stint = Stint(members)
        name = f"{stint.id}/1"
        self.state.apply(Requested(START, name, stint, "d0", "a test"))
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
