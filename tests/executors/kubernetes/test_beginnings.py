"""Folders on a volume that cannot be attempts, or whose beginning is not what they say: told, counted, not believed."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gridsweep import load
from gridsweep.executors.kubernetes.manifests.delivery import assignment_of
from gridsweep.records.attempts import AttemptFolder, EnergyLine, Progress, Result
from gridsweep.runs import clusters
from gridsweep.runs.collecting import Collection
from gridsweep.runs.folder import RunFolder
from gridsweep.state.state import State
from gridsweep.sweep.losses import Losses
from gridsweep.sweep.stints import Outcome

SPEC = """\
name: gated
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 40, checkpoint_every: 4}
space: {r: [8], alpha: [16], lr: [1e-4], dropout: [0.1]}
design: grid
devices: 1
tiers: [{name: day, threshold: 200, max_delay: 24h}]
carbon: {provider: static, zone: XX, value: 300}
estimates: {duration: 5m, power_w: 15}
rungs: none
policy: immediate
executor: {kubernetes: {gate: suspend}}
"""
STEPS = 40
BEGUN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=20)
KWH = 15e-3 * STEPS * 10 / 3600


class Volume:
    """A volume with one attempt that made all steps, ten seconds each at 15 W."""

    def __init__(self, tmp: Path):
        self.tmp = tmp
        (tmp / "gated.yaml").write_text(SPEC)
        self.sweep = load(tmp / "gated.yaml")
        self.id = self.sweep.experiments[0].id
        task = assignment_of(self.sweep, self.id)
        self.name, self.stint = task.attempt, task.attempt.rpartition("/")[0]
        self.folder = AttemptFolder(tmp / "volume/gated/stints" / self.name)
        self.folder.prepare(task)
        self.path = self.folder.path
        (self.path / "worker.json").write_text(json.dumps({"started_at": BEGUN.isoformat(), "host": "node"}))
        os.utime(self.path / "worker.json", (BEGUN.timestamp(), BEGUN.timestamp()))
        for step in range(STEPS + 1):
            at = BEGUN + timedelta(seconds=10 * step)
            self.folder.append(Progress(at, "training", step, {self.id: 3.0} if step else {}))
            if step < STEPS:
                self.folder.append(EnergyLine(at, 10.0, KWH / STEPS, "nvml", step + 1))
        with self.folder.saving_adapter(self.id, STEPS) as draft:
            (draft / "adapter_config.json").write_text("{}")
        losses = Losses((2.0,) * 4, (10.0,) * 4)
        outcome = Outcome(
            self.id,
            "done",
            STEPS,
            validation_loss=2.0,
            losses=losses,
            adapter=f"stints/{self.name}/adapters/{self.id}",
        )
        self.folder.finish(Result(BEGUN + timedelta(seconds=10 * STEPS), (outcome,)))

    def collect(self) -> Collection:
        return clusters.collect(self.sweep, self.tmp / "run", store=self.tmp / "volume", ended=True)

    def state(self) -> State:
        return RunFolder(self.tmp / "run").read()

    def told(self, **fields: Any) -> None:
        path = self.path / "worker.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        os.utime(path, (BEGUN.timestamp(), BEGUN.timestamp()))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_an_honest_attempt_is_taken_at_its_word(volume: Volume) -> None:
    made = volume.collect()
    (attempt,) = volume.state().attempts.values()
    assert (made.counts, made.warnings[:0], attempt.requested_at) == ({"done": 1}, (), BEGUN)
    assert attempt.drawn_kwh == pytest.approx(KWH) and "beginning" not in attempt.why


@pytest.mark.parametrize("days", [-365, -1, 0.01, 365])
def test_a_beginning_that_no_file_bears_out_is_not_believed(volume: Volume, days: float) -> None:
    volume.told(started_at=(BEGUN + timedelta(days=days)).isoformat())
    made = volume.collect()
    (attempt,) = volume.state().attempts.values()
    assert attempt.requested_at == BEGUN and made.counts == {"done": 1}
    assert any("known by its first line of progress, because worker.json says 20" in text for text in made.warnings)
    assert "known by its first line of progress" in attempt.why


@pytest.mark.parametrize("minutes", [-4, 4])
def test_clocks_may_differ_by_minutes(volume: Volume, minutes: int) -> None:
    volume.told(started_at=(BEGUN + timedelta(minutes=minutes)).isoformat())
    volume.collect()
    (attempt,) = volume.state().attempts.values()
    assert attempt.requested_at == BEGUN + timedelta(minutes=minutes)


def test_a_copy_without_the_times_of_its_files_is_believed_and_told(volume: Volume) -> None:
    for path in volume.path.iterdir():
        os.utime(path)
    made = volume.collect()
    (attempt,) = volume.state().attempts.values()
    assert attempt.requested_at == BEGUN and any(
        "1 of 1 attempts began before their files were written" in text for text in made.warnings
    )


def spoil(path: Path, way: str) -> None:
    path.unlink()
    if way == "a pipe":
        os.mkfifo(path)
    elif way == "a folder":
        path.mkdir()
    elif way == "a link":
        path.symlink_to("/etc/hostname")
    elif way != "missing":
        path.write_text({"empty": "", "a list": "[]"}[way])


SPECIAL = ("a pipe", "a folder", "a link")
SPOILT = ("missing", "empty", "a list", *SPECIAL)


@pytest.mark.parametrize("way", SPOILT)
def test_an_attempt_without_a_usable_worker_json_counts(volume: Volume, way: str) -> None:
    spoil(volume.path / "worker.json", way)
    made = volume.collect()
    (attempt,) = volume.state().attempts.values()
    assert made.counts == {"done": 1} and attempt.requested_at == BEGUN
    assert any("its beginning is known by its first line of progress" in text for text in made.warnings)


@pytest.mark.parametrize("way", SPOILT)
def test_an_attempt_without_a_usable_assignment_is_named(volume: Volume, way: str) -> None:
    other = volume.path.with_name("2")
    shutil.copytree(volume.path, other)
    for path in (other / "stint.json", other / "result.json"):
        path.write_text(path.read_text().replace(volume.name, f"{volume.stint}/2"))
    spoil(volume.path / "stint.json", way)
    (volume.path / "result.json").unlink()
    made = volume.collect()
    (text,) = [text for text in made.warnings if "was left out" in text]
    assert text.startswith(f"stints/{volume.name} on the volume was left out: ") and "stint.json" in text
    assert "no regular file" in text or way not in SPECIAL
    assert any("the work and the energy of 1 attempt that was left out" in text for text in made.unknown)
    assert made.counts == {"done": 1}, "the other attempt is not held up"


def test_status_names_the_attempt_that_cannot_be_read(volume: Volume) -> None:
    shutil.copytree(volume.path, volume.path.with_name("2"))
    (volume.path / "result.json").unlink()
    volume.collect()
    standing = volume.state().standings[volume.id]
    assert standing.status == "waiting"
    assert f"stints/{volume.stint}/2: its assignment is that of stints/{volume.name}" in standing.why


def test_nothing_but_unreadable_attempts_is_said_so(volume: Volume) -> None:
    (volume.path / "stint.json").unlink()
    with pytest.raises(Exception, match=r"no attempt of the sweep gated in .* can be read: .* stint.json, is missing"):
        volume.collect()


@pytest.mark.parametrize("number", [2, 10**17])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_later_folder_does_not_undo_a_result(volume: Volume, number: int, renamed: bool) -> None:
    other = volume.path.with_name(str(number))
    shutil.copytree(volume.path, other)
    if renamed:
        path = other / "stint.json"
        path.write_text(path.read_text().replace(volume.name, f"{volume.stint}/{number}"))
        (other / "result.json").write_text("{}")
    for _ in range(2):
        made = volume.collect()
        state = volume.state()
        assert made.counts == {"done": 1} and list(state.attempts) == [volume.name]
        assert sum(attempt.drawn_kwh for attempt in state.attempts.values()) == pytest.approx(KWH)
        assert any(f"stints/{volume.stint}/{number} on the volume was left out" in text for text in made.warnings)
        assert any("the work and the energy of " in text for text in made.unknown)


def test_an_earlier_folder_that_is_gone_is_told(volume: Volume) -> None:
    text = (volume.path / "stint.json").read_text().replace(volume.name, f"{volume.stint}/2")
    volume.path.rename(volume.path.with_name("2"))
    (volume.path.with_name("2") / "stint.json").write_text(text)
    assert any(
        f"stints/{volume.name} on the volume was left out: its folder is gone" in t for t in volume.collect().warnings
    )


@pytest.mark.parametrize("way", SPECIAL)
def test_what_stands_in_the_place_of_a_result_is_told_as_that(volume: Volume, way: str) -> None:
    spoil(volume.path / "result.json", way)
    volume.collect()
    standing = volume.state().standings[volume.id]
    assert standing.status == "waiting" and "result.json is no regular file" in standing.reason
    assert sum(attempt.drawn_kwh for attempt in volume.state().attempts.values()) == pytest.approx(KWH)
