"""Work in virtual time only: it writes the files that a worker would have written by now."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal  # a Kubernetes object

from gridsweep.carbon.traces import HOUR
from gridsweep.executors.kubernetes.manifests.names import STORE
from gridsweep.executors.kubernetes.volume_reader import Reader
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment, AttemptFolder, EnergyLine, Outcome, Progress, Result


class VirtualKubelet:
    """Starts pods whose workers take the time `step` per step on the clock `now`."""

    def __init__(self, volume: Path, now: Callable[[], datetime], step: timedelta):
        self.volume, self.now, self.step = volume, now, step
        self.started: list[str] = []

    def start(self, pod: dict[str, Any], entrypoint: str = "") -> VirtualWork | ServedVolume:
        told = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
        store = Path(told["GRIDSWEEP_STORE"].replace(STORE, str(self.volume), 1))
        if not entrypoint:
            served = ServedVolume(Reader(("127.0.0.1", 0), store, told["GRIDSWEEP_READER_LOCK"]))
            pod["port"] = served.port
            return served
        self.started.append(pod["metadata"]["name"])
        work = codec.loads(Assignment, told["GRIDSWEEP_ASSIGNMENT"].replace("$$(", "$("))
        return VirtualWork(AttemptFolder(store / "stints" / work.attempt), work, self.now, self.step)


class ServedVolume:
    """A reader pod: its own server, in this process."""

    def __init__(self, reader: Reader):
        self._reader, self.port = reader, int(reader.server_address[1])
        self._ended = False
        threading.Thread(target=reader.serve_forever, args=(0.02,), daemon=True).start()

    def poll(self) -> int | None:
        return 0 if self._ended else None

    def stop(self) -> bool:
        self.kill()
        return True

    def kill(self) -> None:
        if not self._ended:
            self._ended = True
            self._reader.shutdown()
            self._reader.server_close()

    def tail(self) -> str:
        return ""


class VirtualWork:
    """A worker that is exactly on time."""

    def __init__(self, folder: AttemptFolder, work: Assignment, now: Callable[[], datetime], step: timedelta):
        self.folder, self.now, self.step = folder, now, step
        (self.part,) = work.members
        self.code: int | None = None
        self.begun, self.done = now(), self.part.from_step
        if (folder.path / "worker.json").exists():
            self.code = 1  # like the real start program: a folder is never reused
            return
        folder.prepare(work)
        (folder.path / "worker.json").write_text(json.dumps({"started_at": self.begun.isoformat(), "pid": 0}))
        folder.append(Progress(self.begun, "training", self.done, {}))

    def poll(self) -> int | None:
        while self.code is None and self.begun + self.step <= self.now():
            kwh = 0.1 * (self.step / HOUR)
            self.folder.append(EnergyLine(self.begun, self.step.total_seconds(), kwh, "modelled", self.done + 1))
            self.begun, self.done = self.begun + self.step, self.done + 1
            self.folder.append(Progress(self.begun, "training", self.done, {self.part.experiment: 1.0 / self.done}))
            if self.done == self.part.to_step:
                self._finish("done")
        return self.code

    def stop(self) -> bool:
        if self.poll() is None:
            self._finish("paused")
        return True

    def kill(self) -> None:
        self.code = -9 if self.code is None else self.code

    def tail(self) -> str:
        return ""

    def _finish(self, how: Literal["done", "paused"]) -> None:
        adapter = self.folder.path / "adapters" / self.part.experiment
        saved = None
        if how == "done":
            with self.folder.saving_adapter(self.part.experiment, self.done) as draft:
                (draft / "adapter_config.json").write_text("{}")
        elif self.done:
            with self.folder.saving(self.part.experiment, self.done) as draft:
                (draft / "step.txt").write_text(str(self.done))
            saved = self.folder.checkpoint(self.part.experiment)
        name = str(adapter.relative_to(self.folder.store)) if how == "done" else None
        loss = 1.0 / self.done if self.done else None
        outcome = Outcome(self.part.experiment, how, self.done, "", loss, loss, 4.0, saved, name)
        self.folder.finish(Result(self.begun, (outcome,), facts={"worker": "virtual"}))
        self.code = 0
