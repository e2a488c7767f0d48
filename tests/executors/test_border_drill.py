"""Evil workers: every field of every file with every hostile value, written by hand and not by our own writers.

Each case is judged by the journal, the report's figures and what lies on disk: the attempt is lost with the file's name
as the reason, or what became of it is right.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import HOUR, make_sweep
from gridsweep.carbon.readings import Provenance
from gridsweep.executors import border
from gridsweep.executors.assigning import assignment
from gridsweep.executors.claims import ALLOWED, PLAUSIBLE_KW
from gridsweep.executors.handover import news
from gridsweep.executors.publisher import Publisher
from gridsweep.records import codec
from gridsweep.records.attempts import AttemptFolder
from gridsweep.render import documents, html, markdown
from gridsweep.runs.run import summarize
from gridsweep.state.events import ClockAnchored, Ended, Event, Lost, Observed, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.rungs import Rungs
from gridsweep.sweep.stints import Member, Outcome, Stint
from gridsweep.sweep.sweep import Replay

NOW = datetime.now(UTC).replace(microsecond=0)
BEGUN = NOW - timedelta(minutes=10)
SUBMITTED = NOW - timedelta(hours=1)
IDS = ("e00", "e01")
SWEEP = replace(make_sweep(2, steps=8), pack=2, rungs=Rungs((0.5,), (1,)))

DELETE = object()
HOSTILE: list[Any] = [
    DELETE, None, True, "", "x", "nan", 0, -1, -0.5, 1, 3, 7, 9, 10**6, 10**18, 2**64, 10**30, 1e29, 1e300, 1e308,
    -1e308, math.nan, math.inf, -math.inf, [], {}, [None], {"e99": 1.0}, {"e00": math.nan}, {"e00": -math.inf},
    [[[[[]]]]], "/etc/passwd", "../../../../etc", "..", ".", "stints", "²", "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z", "2024-06-10T00:00:00", "1970-01-01T00:00:00Z", "\x1b]52;c;ZXZpbA==\x07\x1b[2J", "\u202e",
    "a" * 20_000, "\x00", "done", "reached", "paused", "stopped", "failed", "e01", "e99",
]  # fmt: skip


@dataclass
class Scene:
    """An attempt whose worker has ended, with honest files; `steps` are those of the attempt."""

    folder: AttemptFolder
    journal: list[Event]
    name: str
    kind: str
    ends: datetime

    def state(self) -> State:
        return State(self.journal)

    def documents(self) -> dict[str, Any]:
        """What an honest worker wrote, by file: a line of each, and the result."""
        return {
            "progress.jsonl": json.loads((self.folder.path / "progress.jsonl").read_text().splitlines()[-1]),
            "energy.jsonl": json.loads((self.folder.path / "energy.jsonl").read_text().splitlines()[-1]),
            "result.json": json.loads((self.folder.path / "result.json").read_text()),
        }


def at(seconds: float) -> str:
    return (BEGUN + timedelta(seconds=seconds)).isoformat()


def losses(samples: int) -> dict[str, list[float]]:
    return {"values": [2.0] * samples, "tokens": [10.0] * samples}


def saved(folder: AttemptFolder, id: str, step: int) -> dict[str, Any]:
    with folder.saving(id, step) as draft:
        (draft / "weights").write_text(f"{id} {step}")
    checkpoint = folder.checkpoint(id)
    assert checkpoint is not None
    return json.loads(codec.dumps(checkpoint))


def outcome(folder: AttemptFolder, id: str, kind: str) -> dict[str, Any]:
    """An honest outcome, as a dictionary."""
    said: dict[str, Any] = {"experiment": id, "initial_validation_loss": 4.0}
    if kind == "done":
        with folder.saving_adapter(id, 8) as draft:
            (draft / "adapter_config.json").write_text("{}")
        place = f"stints/{folder.path.parent.name}/{folder.path.name}/adapters/{id}"
        scores = {"train_loss": 2.0, "validation_loss": 2.0, "averaged_validation_loss": 2.0}
        return {
            **said,
            **scores,
            "status": "done",
            "step": 8,
            "adapter": place,
            "losses": losses(4),
            "judged": losses(2),
        }
    if kind == "failed":
        return {**said, "status": "failed", "step": 2, "reason": "the training loss is nan"}
    step = 4 if kind == "reached" else 2
    more = {"train_loss": 2.5, "losses": losses(2)} if kind == "reached" else {}
    return {**said, **more, "status": kind, "step": step, "checkpoint": saved(folder, id, step)}


KINDS = ("done", "reached", "paused", "failed", "error")


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    kind: str = request.param
    first = 4 if kind == "done" else 0
    stint = Stint(tuple(Member(id, first, 8 if first else 4) for id in IDS))
    name = f"{stint.id}/1"
    journal: list[Event] = [
        Submitted(SUBMITTED, SWEEP),
        Observed(SUBMITTED, SUBMITTED.replace(minute=0, second=0), HOUR, (100.0,) * 3, Provenance("a test")),
        Requested(BEGUN, name, stint, "d0", "a test"),
    ]
    folder = AttemptFolder(tmp_path / "store" / "stints" / name)
    state = State(journal)
    folder.prepare(assignment(state, state.attempts[name]))
    (folder.path / "log.txt").touch()
    moments = [{"at": at(60 * n), "phase": "training", "step": first + n, "losses": {"e00": 3.0}} for n in range(3)]
    drawn = [
        {
            "start": at(60 * n),
            "seconds": 80.0 if n == 2 else 60.0,
            "kwh": 1e-4,
            "source": "measured",
            "step": first + 2 * n,
        }
        for n in range(3)
    ]
    (folder.path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in moments))
    (folder.path / "energy.jsonl").write_text("".join(json.dumps(line) + "\n" for line in drawn))
    outcomes = [] if kind == "error" else [outcome(folder, id, kind) for id in IDS]
    result = {
        "ended_at": at(200),
        "outcomes": outcomes,
        "error": "it broke" if kind == "error" else "",
        "facts": {"a": "b"},
    }
    (folder.path / "result.json").write_text(json.dumps(result))
    return Scene(folder, journal, name, kind, BEGUN + timedelta(seconds=200))


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a document, the first of each list standing for all."""
    yield way
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*way, key))


def changed(document: Any, way: tuple[Any, ...], value: Any) -> Any:
    if not way:
        return {} if value is DELETE else value
    made = copy.deepcopy(document)
    spot = made
    for key in way[:-1]:
        spot = spot[key]
    if value is DELETE:
        del spot[way[-1]]
    else:
        spot[way[-1]] = value
    return made


def looked_at(scene: Scene) -> tuple[State, list[Event]]:
    """The state after one look at the ended worker's files, as the journal would fold it."""
    state = scene.state()
    events = news(state, state.attempts[scene.name], scene.folder, NOW, ended=True)
    for event in events:
        text = codec.dumps(event)
        assert codec.loads(type(event), text) == event
        state.apply(event)
    return state, events


def check(scene: Scene, state: State, events: list[Event], *, whole: bool) -> str:
    """Judge a case by its figures; return what became of the attempt."""
    end = events[-1]
    attempt = state.attempts[scene.name]
    assert not state.active and attempt.ended_at is not None
    assert all(BEGUN <= event.at <= NOW + timedelta(seconds=3) for event in events), events
    for segment in attempt.energy:
        assert 0 <= segment.kwh < 1 and BEGUN <= segment.start <= segment.end <= NOW + timedelta(seconds=3)
    assert attempt.drawn_kwh <= PLAUSIBLE_KW * ((NOW - BEGUN) + ALLOWED) / timedelta(hours=1)
    for standing in state.standings.values():
        assert standing.status in ("waiting", "reached", "done", "failed")
        assert 0 <= standing.step <= 8
        if standing.status == "done":
            assert standing.outcome and standing.outcome.validation_loss == 2.0
        assert standing.loss is None or math.isfinite(standing.loss)
    if whole or not isinstance(end, Lost):
        report = summarize(state)
        json.loads(documents.text(report), parse_constant=lambda name: pytest.fail(f"{name} in the report"))
        assert 0 <= report.energy_kwh <= PLAUSIBLE_KW
        for shown in (html.render(report), markdown.render(report)) if whole else ():
            assert "\x1b" not in shown and "\x07" not in shown
    store = scene.folder.store
    Publisher(store).publish(state)
    for path in (store / "experiments").rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.read_text() in ("{}", (path.parent / "manifest.json").read_text())
    assert not isinstance(end, Lost) or end.why
    return end.kind


def test_honest_files_are_taken(scene: Scene) -> None:
    state, events = looked_at(scene)
    expected = {"done": "Ended", "reached": "Ended", "paused": "Paused", "failed": "Ended", "error": "Lost"}
    assert check(scene, state, events, whole=True) == expected[scene.kind]
    assert state.attempts[scene.name].ended_at == scene.ends
    assert state.attempts[scene.name].drawn_kwh == pytest.approx(3e-4)


LINES = ("progress.jsonl", "energy.jsonl")


@pytest.mark.parametrize(
    ("scene", "file"),
    [*((kind, "result.json") for kind in KINDS), *((kind, file) for kind in ("done", "paused") for file in LINES)],
    indirect=["scene"],
)
def test_every_field_with_every_hostile_value(scene: Scene, file: str) -> None:
    """The last line of several, or the result, has one field changed."""
    document, path = scene.documents()[file], scene.folder.path / file
    honest = path.read_text()
    cases = lost = 0
    for way in places(document):
        for value in HOSTILE:
            if value is DELETE and not way:
                continue
            evil = json.dumps(changed(document, way, value))
            path.write_text(evil if file == "result.json" else honest[: honest[:-1].rindex("\n") + 1] + evil + "\n")
            state, events = looked_at(scene)
            try:
                end = check(scene, state, events, whole=cases % 250 == 0)
            except Exception as error:
                raise AssertionError(f"{scene.kind}, {file}: {way} = {value!r}: {events[-1]}") from error
            cases, lost = cases + 1, lost + (end == "Lost")
            if end == "Lost" and scene.kind != "error" and way != ("error",):  # which a worker may say
                assert f"its worker wrote {file}: " in events[-1].why, (way, value)
    path.write_text(honest)
    assert cases >= 200 and (lost > cases / 2 or scene.kind in ("error", "failed"))


def linked(path: Path, content: str) -> None:
    secret = path.parent / ".secret"
    secret.write_text(content)
    path.unlink(missing_ok=True)
    path.symlink_to(secret)


def folder_at(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def pipe(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def garbage(path: Path, content: str) -> None:
    path.write_bytes(b"\xff\xfe{\n" * 10)


def nested(path: Path, content: str) -> None:
    path.write_text("[" * 100_000 + "\n")


def endless(path: Path, content: str) -> None:
    path.write_text(content + " " * (2 << 20) + "\n")


def empty(path: Path, content: str) -> None:
    path.write_text("\n")


WAYS: list[Callable[[Path, str], None]] = [linked, folder_at, pipe, garbage, nested]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", ["progress.jsonl", "energy.jsonl", "result.json"])
def test_what_is_no_file_of_its_kind_is_a_loss(scene: Scene, file: str, way: Callable[[Path, str], None]) -> None:
    way(scene.folder.path / file, (scene.folder.path / file).read_text())
    state, events = looked_at(scene)
    assert check(scene, state, events, whole=True) == "Lost"
    assert f"its worker wrote {file}: " in events[-1].why  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", ["log.txt", "worker.json", "stint.json"])
def test_other_files_decide_nothing(scene: Scene, file: str, way: Callable[[Path, str], None]) -> None:
    way(scene.folder.path / file, "x")
    assert scene.folder.pid() is None or file != "worker.json"
    check(scene, *looked_at(scene), whole=False)


def test_a_line_without_end_is_a_loss(scene: Scene) -> None:
    endless(scene.folder.path / "energy.jsonl", '{"start": ')
    state, events = looked_at(scene)
    assert check(scene, state, events, whole=True) == "Lost"
    assert "a line of more than 1,048,576 bytes" in events[-1].why  # type: ignore[union-attr]


# What lies on disk


def link_out(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    (path.parent / ".elsewhere").mkdir()
    (path.parent / ".elsewhere" / "weights").write_text("another's")
    path.symlink_to(path.parent / ".elsewhere")


def link_within(path: Path) -> None:
    next(file for file in path.iterdir() if file.name != "manifest.json").unlink()
    (path / "weights").symlink_to("/etc/hostname")


def pipe_within(path: Path) -> None:
    os.mkfifo(path / "more")


def climbing(path: Path) -> None:
    (path.parent / ".outside").write_text("another's")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../.outside"] = "00"
    (path / "manifest.json").write_text(json.dumps(manifest))


def altered(path: Path) -> None:
    next(file for file in path.iterdir() if file.name != "manifest.json").write_text("other weights")


def gone(path: Path) -> None:
    (path / "manifest.json").unlink()


@pytest.mark.parametrize("way", [link_out, link_within, pipe_within, climbing, altered, gone])
@pytest.mark.parametrize("scene", ["done", "reached", "paused"], indirect=True)
def test_a_saved_folder_that_is_not_what_it_says_is_a_loss(scene: Scene, way: Callable[[Path], None]) -> None:
    home = scene.folder.path
    way(home / "adapters" / "e00" if scene.kind == "done" else next((home / "checkpoints").glob("*/e00")))
    state, events = looked_at(scene)
    assert check(scene, state, events, whole=True) == "Lost"
    assert isinstance(end := events[-1], Lost) and "its worker wrote result.json: " in end.why
    assert "e00" not in {saved.experiment for saved in end.checkpoints}


@pytest.mark.parametrize("name", ["²", "٣", "1e3", "-1", "+2", "02", "2 ", "9" * 30, "a", ".", "\udcff"])
@pytest.mark.parametrize("scene", ["reached"], indirect=True)
def test_a_folder_that_is_no_step_is_none(scene: Scene, name: str) -> None:
    (scene.folder.path / "checkpoints" / name).mkdir(exist_ok=True)
    assert check(scene, *looked_at(scene), whole=False) == "Ended"


@pytest.mark.parametrize("scene", ["paused"], indirect=True)
def test_a_worker_that_pauses_at_once_is_tried_thrice(scene: Scene) -> None:
    """Unasked and without a new step: it would be tried without end."""
    path = scene.folder.path / "result.json"
    result = json.loads(path.read_text())
    result["outcomes"] = [{"experiment": id, "status": "paused", "step": 0} for id in IDS]
    shutil.rmtree(scene.folder.path / "checkpoints")
    path.write_text(json.dumps(result))
    state, events = looked_at(scene)
    assert isinstance(events[-1], Lost) and "it paused by itself before a new step was saved" in events[-1].why
    assert [standing.fruitless for standing in state.standings.values()] == [1, 1]


@pytest.mark.parametrize("scene", ["done"], indirect=True)
@pytest.mark.parametrize("field", ["losses", "judged"])
def test_losses_on_other_samples_than_the_others_are_a_loss(scene: Scene, field: str) -> None:
    """Pairs of losses are compared sample by sample."""
    path = scene.folder.path / "result.json"
    result = json.loads(path.read_text())
    result["outcomes"][1][field] = losses(3)
    path.write_text(json.dumps(result))
    assert check(scene, *looked_at(scene), whole=True) == "Lost"


@pytest.mark.parametrize("scene", ["done"], indirect=True)
def test_an_attempt_is_judged_by_those_that_end_in_the_same_look(scene: Scene) -> None:
    """The state does not have their outcomes yet."""
    state = scene.state()
    attempt = state.attempts[scene.name]
    ended = news(state, attempt, scene.folder, NOW, ended=True)[-1]
    assert isinstance(ended, Ended)
    other = replace(ended, outcomes=tuple(replace(one, losses=Losses((0.5,), (1.0,))) for one in ended.outcomes))
    (*_, lost) = news(state, attempt, scene.folder, NOW, ended=True, before=[other])
    assert isinstance(lost, Lost) and "are over other samples than those of other experiments" in lost.why


def test_what_is_told_while_the_worker_lives_kills_it(scene: Scene) -> None:
    (scene.folder.path / "result.json").unlink()
    with (scene.folder.path / "energy.jsonl").open("a") as file:
        file.write(json.dumps({"start": at(0), "seconds": 1.0, "kwh": -10, "source": "x", "step": 0}) + "\n")
    state = scene.state()
    told = news(state, state.attempts[scene.name], scene.folder, NOW, ended=False)
    for event in told:
        state.apply(event)
    pausing = told[-1]
    assert pausing.kind == "Pausing" and pausing.kill and "its worker wrote energy.jsonl: at byte " in pausing.why
    assert not [
        e for e in news(state, state.attempts[scene.name], scene.folder, NOW, ended=False) if e.kind == "Pausing"
    ]
    (lost,) = news(state, state.attempts[scene.name], scene.folder, NOW, ended=True)
    assert isinstance(lost, Lost) and lost.why == pausing.why


def test_an_outcome_of_the_honest_is_as_the_class_has_it() -> None:
    """So that a field that is added is attacked too."""
    known = {"experiment", "status", "step", "reason", "train_loss", "validation_loss", "initial_validation_loss"}
    known |= {"checkpoint", "adapter", "losses", "averaged_validation_loss", "judged"}
    assert set(Outcome.__slots__) == known
    assert isinstance(Ended(NOW, "a", ()), Ended)


# Times, where a replay runs fast or follows the work

ABSURD = ["8999-12-31T00:00:00Z", "1971-01-02T00:00:00Z", "2026-01-01T00:00:00+23:59"]


@pytest.mark.parametrize("speed", [1e6, "auto"])
@pytest.mark.parametrize("when", ABSURD)
@pytest.mark.parametrize("scene", ["done", "paused"], indirect=True)
def test_an_absurd_time_moves_nothing_out_of_its_attempt(scene: Scene, when: str, speed: Any) -> None:
    sweep = replace(SWEEP, replay=Replay(SUBMITTED, speed))
    anchors = [ClockAnchored(BEGUN, NOW - timedelta(seconds=1), 0.0 if speed == "auto" else speed, "start of work")]
    scene.journal = [Submitted(SUBMITTED, sweep), *anchors, *scene.journal[1:]]
    for file, key in (("progress.jsonl", "at"), ("energy.jsonl", "start"), ("result.json", "ended_at")):
        path = scene.folder.path / file
        document = scene.documents()[file] | {key: when}
        path.write_text(
            path.read_text() + json.dumps(document) + "\n" if file != "result.json" else json.dumps(document)
        )
    far = NOW + timedelta(days=400)
    state = scene.state()
    for _ in range(2):
        for event in news(state, state.attempts[scene.name], scene.folder, far, ended=True):
            assert codec.loads(type(event), codec.dumps(event)) == event
            assert SUBMITTED <= event.at <= far + timedelta(days=30)
            state.apply(event)
        if not state.active:
            break
    assert not state.active
    documents.text(summarize(state))


@pytest.mark.parametrize(("minutes", "told"), [(-4, ""), (13, ""), (-60, "60 min behind"), (70, "60 min ahead of")])
@pytest.mark.parametrize("scene", ["done"], indirect=True)
def test_a_clock_that_differs_by_minutes_is_corrected_and_by_an_hour_refused(
    scene: Scene, minutes: int, told: str
) -> None:
    """The first line was written between the request and now, ten minutes later."""
    (scene.folder.path / "worker.json").write_text('{"host": "node7"}')
    for path in (scene.folder.path / name for name in ("progress.jsonl", "energy.jsonl", "result.json")):
        for second in (0, 60, 120, 200):
            path.write_text(path.read_text().replace(at(second), at(second + 60 * minutes)))
    state, events = looked_at(scene)
    assert check(scene, state, events, whole=True) == ("Lost" if told else "Ended")
    assert f"the clock of node7 is {told} this machine's" in str(events[-1]) or not told
    assert state.attempts[scene.name].clock == timedelta(minutes=0 if told else (-4 if minutes < 0 else 3))


@pytest.mark.parametrize("seconds", [-1e15, -1.0, 0.0, 1e10, 1e15])
@pytest.mark.parametrize("scene", ["reached"], indirect=True)
def test_a_file_may_bear_any_time(scene: Scene, seconds: float) -> None:
    (scene.folder.path / "result.json").unlink()
    for path in (*scene.folder.path.iterdir(), scene.folder.path):
        try:
            os.utime(path, (seconds, seconds))
        except (OSError, OverflowError):
            pytest.skip("this file system keeps no such time")
    assert check(scene, *looked_at(scene), whole=False) == "Lost"


@pytest.mark.parametrize("speed", [None, "auto"])
@pytest.mark.parametrize("scene", ["done"], indirect=True)
def test_long_files_are_read_in_parts_and_to_their_end(
    scene: Scene, speed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(border, "AT_ONCE", 150)  # a line, and not two
    if speed:
        replay = Replay(SUBMITTED, speed)
        scene.journal = [
            Submitted(SUBMITTED, replace(SWEEP, replay=replay)),
            ClockAnchored(BEGUN, NOW, 0.0, "start"),
            *scene.journal[1:],
        ]
    state, far = scene.state(), NOW + timedelta(days=2)
    looks = 0
    while state.active and looks < 20:
        looks += 1
        for event in news(state, state.attempts[scene.name], scene.folder, far, ended=True):
            state.apply(event)
    assert 3 <= looks < 20 and {s.status for s in state.standings.values()} == {"done"}
    assert state.attempts[scene.name].drawn_kwh == pytest.approx(3e-4)
