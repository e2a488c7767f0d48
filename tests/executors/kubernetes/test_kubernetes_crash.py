"""The controller dies, again and again: nothing is lost, nothing is started twice, and the losses are the same."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from bench import KubernetesBench, drive_sweep
from test_scenarios import Stage

from builders import FORK, RELAXED, URGENT, lines, losses, real_sweep, until
from gridsweep.executors.kubernetes.api import Api
from gridsweep.runs.folder import RunFolder
from gridsweep.state.events import Pausing
from gridsweep.testing.executor_contract import expected_loss, stand_in
from gridsweep.testing.kubernetes.server import ApiServer

SWEEP = real_sweep(8, steps=24, devices=2, tiers=(URGENT, RELAXED))


def driven(folder: Path, bench: KubernetesBench):
    """A process of its own that drives the sweep."""

    def work() -> None:
        drive_sweep(SWEEP, folder, bench.server, bench.store if bench.mounted else None)
        os._exit(0)

    process = FORK.Process(target=work)
    process.start()
    return process


def finished(folder: Path) -> bool:
    place = RunFolder(folder)
    return place.submitted() and place.read().finished


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "mounted", "moments"), [(0, True, 18), (2, False, 18), (3, False, 50)])
def test_a_controller_killed_at_random_moments(tmp_path: Path, seed: int, mounted: bool, moments: int):
    random_ = random.Random(seed)
    kills = 0
    with KubernetesBench(tmp_path, mounted=mounted, sweep=SWEEP.name) as bench:
        bench.kubelet.command = stand_in(0.04 * moments / 18)
        run = tmp_path / "run"
        while kills < moments and not finished(run):
            loop = driven(run, bench)
            time.sleep(random_.choice([0.05, 0.1, 0.3]) + random_.random() * 0.2)
            assert loop.exitcode in (None, 0)
            kills += loop.exitcode is None
            loop.kill()
            loop.join()
        assert kills >= moments - 1
        state = drive_sweep(SWEEP, run, bench.server, bench.store if mounted else None)
        wanted = {e.id: ("done", expected_loss(SWEEP, e.id)) for e in SWEEP.experiments}
        assert losses(state) == wanted
        assert [len(s.attempts) for s in state.standings.values()] == [1] * 8
        heads = [name for name in bench.kubelet.started if name.endswith("-head")]
        assert len(heads) == len(set(heads)) == 8  # pods in which a worker was started
        until(lambda: not bench.server.all("rayjobs"))  # all are told to go; the operator is on its way
        adapters = (bench.store if mounted else run / "store").glob("experiments/*/adapter/adapter_config.json")
        assert len(list(adapters)) == 8
        worked = attempts_below(bench.volume / SWEEP.name)
        assert {f"{a.path.parent.name}/{a.path.name}" for a in worked} == set(state.attempts)
        for folder in worked:
            assert [line.step for line in lines(folder)] == list(range(25))


def attempts_below(store: Path):
    from gridsweep.records.attempts import AttemptFolder

    return [AttemptFolder(path) for path in sorted(store.glob("stints/*/*")) if not path.name.startswith(".")]


class Died(BaseException):
    """The controller is no more."""


class Mortal:
    """Kills the controller before or after its n-th request."""

    def __init__(self, at: int, after: bool):
        self.left, self.after, self.done = at, after, False

    def __call__(self, api: Api, asked):
        def call(*arguments, **named):
            self.left -= 1
            if self.left == 0 and not self.after:
                self.done = True
                raise Died
            try:
                return asked(*arguments, **named)
            finally:  # also after one that is refused
                if self.left == 0:
                    self.done = True
                    raise Died

        return call


SLOWLY = pytest.param(True, False, marks=pytest.mark.slow)
"""Through the reader pod, whose requests are moments to die at too."""


@pytest.mark.parametrize(("after", "mounted"), [(False, True), (True, True), SLOWLY])
def test_a_controller_that_dies_at_each_of_its_requests(server: ApiServer, tmp_path: Path, after: bool, mounted: bool):
    at, survived = 0, False
    while not survived:
        at += 1
        server.objects.clear()
        place = tmp_path / str(at)
        stage = Stage(server, place / "volume", mirror=None if mounted else place / "mirror")
        mortal = Mortal(at, after)
        stage.api._asked = mortal(stage.api, stage.api._asked)
        told = []
        for turn in range(60):
            try:
                if not stage.name or (not stage.state.active and stage.state.standings["e00"].status == "waiting"):
                    stage.request()
                elif turn == 3:
                    stage.tell(Pausing(stage.time, stage.name, "enough"))
                    told.append(stage.name)
                stage.turn(2.0)
            except Died:
                stage.begin_anew()
            if stage.state.finished and not server.all("rayjobs"):
                break
        survived = not mortal.done
        assert stage.state.standings["e00"].status == "done", at
        assert server.all("rayjobs") == [], at
        assert stage.kinds().count("Requested") == 2 == len(stage.kubelet.started), at
        assert stage.kinds().count("Paused") == stage.kinds().count("Ended") == 1, at
        assert len({name for verb, plural, name in server.requests if (verb, plural) == ("create", "rayjobs")}) == 2
        server.requests.clear()
        stage.close()
    print(f"died at {at - 1} requests, {'after' if after else 'before'} each")
    assert at > 20
