"""A Ray head on loopback, as a child of the tests; ended by its id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

SLOTS = 2


class Head:
    """A head with two `gpu_slot`s."""

    def __init__(self) -> None:
        # A short path: Unix sockets lie below it.
        self.folder = Path(tempfile.mkdtemp(prefix="gs-", dir="/tmp"))
        port, client = free_port(), free_port()
        self.address = f"http://127.0.0.1:{port}"
        programs = str(Path(sys.executable).parent)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {
            "PATH": programs + os.pathsep + os.environ["PATH"],
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        environment.pop("PYTHONPATH", None)  # what runs there came with the job
        with (self.folder / "head.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    f"{programs}/ray", "start", "--head", "--block", "--num-cpus=2",
                    f'--resources={{"gpu_slot": {SLOTS}}}', "--disable-usage-stats", f"--temp-dir={self.folder / 'r'}",
                    "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}",
                    f"--ray-client-server-port={client}", "--port=0", "--dashboard-agent-listen-port=0",
                    "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000",
                ],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "head.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/api/jobs/", timeout=5):
                return True
        except OSError:
            return False

    def freeze(self, frozen: bool) -> None:
        """Let the dashboard answer no more, or again."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (dashboard,) = (child for child in children if "dashboard.py" in " ".join(child.cmdline()))
        dashboard.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
