"""The work in a pod of the double: the container's own command, as processes on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol  # a Kubernetes object

from gridsweep.executors.kubernetes.manifests.names import STORE
from gridsweep.testing.stand_in import STAND_IN

Object = dict[str, Any]


class Work(Protocol):
    """The work in a pod."""

    def poll(self) -> int | None:
        """Return the exit code; None while the work runs."""
        ...

    def stop(self) -> bool:
        """Run the pod's preStop; return whether it, or the work, is over. Call again until it is."""
        ...

    def kill(self) -> None: ...

    def tail(self) -> str:
        """Return the last output."""
        ...


class Process:
    """A container's command in its own session, with its own home folder."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], home: Path, pre_stop: Sequence[str]):
        self.home, self._environment, self._pre_stop = home, environment, tuple(pre_stop)
        self._stopping: subprocess.Popen[bytes] | None = None
        with (home / "job.log").open("wb") as log:
            self._child = subprocess.Popen(
                command,
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._child.poll()

    def stop(self) -> bool:
        if self._stopping is None and self._pre_stop and self.poll() is None:
            self._stopping = subprocess.Popen(
                self._pre_stop,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.poll() is not None or self._stopping is None or self._stopping.poll() is not None

    def kill(self) -> None:
        for child in (self._child, self._stopping):
            if child is not None:
                if child.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def tail(self) -> str:
        return (self.home / "job.log").read_text(errors="replace")[-2000:]


class Kubelet:
    """Starts pods' containers, with the volume mounted at a folder of this machine.

    `command` replaces the real worker. Images in `bare` have Python but no worker.
    """

    def __init__(self, volume: Path, scratch: Path):
        self.volume, self.scratch = volume, scratch
        self.command: tuple[str, ...] = STAND_IN
        self.bare: set[str] = set()
        self.started: list[str] = []
        for name, options in (("python", ""), ("bare", "-I -S ")):
            self._shim(scratch / name / "python", options)

    @staticmethod
    def _shim(path: Path, options: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {options}"$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def start(self, pod: Object, entrypoint: str = "") -> Work:
        """Start a pod's only container, or a Ray job's entrypoint in it."""
        container = pod["spec"]["containers"][0]
        self.started.append(pod["metadata"]["name"])
        home = self.scratch / pod["metadata"]["name"]
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        path = self.scratch / ("bare" if container["image"] in self.bare else "python")
        told = {e["name"]: str(e["value"]).replace("$$(", "$(") for e in container["env"] if "value" in e}
        environment = {**os.environ, **told, "HOME": str(home), "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
        mounted = {name: str(self.volume) + at[len(STORE) :] for name, at in told.items() if at.startswith(f"{STORE}/")}
        environment |= mounted
        if self.command == STAND_IN:
            environment["GRIDSWEEP_WORKER"] = "gridsweep.testing"
        else:
            environment |= {
                "GRIDSWEEP_WORKER": "gridsweep.testing.kubernetes.worker",
                "GRIDSWEEP_COMMAND": json.dumps(self.command),
            }
        if not entrypoint:
            environment["GRIDSWEEP_READER_PORT"] = str(port := free_port())
            work = Process(container["command"], environment, home, ())
            self._until_open(port, work)
            pod["port"] = port
            return work
        stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ())
        return Process(["sh", "-c", entrypoint], environment, home, stop)

    @staticmethod
    def _until_open(port: int, work: Work) -> None:
        end = time.monotonic() + 20
        while work.poll() is None and time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
