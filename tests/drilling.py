"""A small sweep on a disk that fails, and in a loop that dies, at chosen calls: the cases of the drill, run by forks.

    python tests/drilling.py kills|writes|faults|full [--every N] [--first N] [--seed N] [--cases N]

One line of JSON a case. The calls are intercepted by `faults.c`, so this program starts itself again with it preloaded;
it exits with 77 if no C compiler is there. What is imported once serves every case: loops and workers are forks of
this process, and a worker is the stand-in, started by a fork in place of a spawn.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

NO_COMPILER = 77
SOURCE = Path(__file__).with_name("faults.c")
LOADED = "GRIDSWEEP_DRILL_LIBRARY"
COUNT, KILL, FAIL, FULL, OFF = range(5)
WRITES_TOO = 1
EVERY_KIND = 511
LONGEST = 60.0
"""Seconds after which a case counts as hung."""
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 9, 124, 130}

SPEC = """
name: drill
model: tiny-qwen2
dataset: {id: stdlib, train_samples: 64, validation_samples: 32}
recipe: {steps: 8, batch_size: 4, checkpoint_every: 2}
space: {r: [4, 8, 16], alpha: [16, 32], lr: [1e-4], dropout: [0.05]}
design: grid
carbon: {provider: trace, file: solar-valley}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: auto}}
policy: immediate
devices: 2
pack: 2
estimates: {duration: 20m, power_w: 15}
rungs: {at: [0.5], keep: [3]}
"""


@dataclass
class Case:
    """What a disturbance led to; `faults` are breaches of the promises, none is wanted."""

    kind: str
    number: int
    codes: list[int | str] = field(default_factory=list)
    disturbed: int = 0
    faults: list[str] = field(default_factory=list)
    words: str = ""


def preloaded() -> ctypes.CDLL:
    """Return the library with the failing calls; start this program again with it if it is not there yet."""
    if LOADED in os.environ:
        return ctypes.CDLL(os.environ[LOADED])
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit(NO_COMPILER)
    with tempfile.TemporaryDirectory() as home:
        library = Path(home) / "faults.so"
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=False
        )
        if made.returncode:
            sys.exit(NO_COMPILER)
        environment = {**os.environ, "LD_PRELOAD": str(library), LOADED: str(library)}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)


class Ground:
    """A folder for cases, and the forks that run `gridsweep` in it."""

    def __init__(self, shim: ctypes.CDLL, home: Path):
        self.shim, self.home = shim, home
        self.spec = home / "sweep.yaml"
        self.spec.write_text(SPEC)
        self.folder = home / "run"
        self.starts, self.said = home / "starts", home / "said"
        self.wanted: dict[str, object] = {}

    def fresh(self) -> None:
        """Empty the folder, and leave requests in it that the run will take: one experiment cancelled, one paused."""
        from gridsweep.records import requests
        from gridsweep.records.requests import Request
        from gridsweep.spec import load

        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "state").mkdir(parents=True)
        for path in (self.starts, self.said):
            path.write_bytes(b"")
        ids = [experiment.id for experiment in load(self.spec).experiments]
        at = datetime(2024, 6, 10, tzinfo=UTC)
        for n, (what, id) in enumerate((("cancel", ids[-1]), ("pause", ids[0]), ("resume", ids[0]))):
            requests.leave(self.folder / "state", Request(what, at + timedelta(seconds=n), (id,)))  # type: ignore[arg-type]  # one of its words

    def warm(self) -> None:
        """Run the sweep in this process, so that its forks find everything imported, compiled and cached."""
        import gridsweep.render.answers
        import gridsweep.render.progress
        import gridsweep.render.terminal  # noqa: F401  # imported for the forks
        from gridsweep.render import files, html
        from gridsweep.runs import run, worlds
        from gridsweep.spec import load

        html.render = lambda made: "<!DOCTYPE html>"  # drawing it takes longer than the sweep
        worlds.POLL_SECONDS = 0.005
        self.fresh()
        spawn = os.posix_spawnp
        os.posix_spawnp = self._spawner(lambda n: None)  # type: ignore[assignment]  # a fork in its place
        done = run.run(load(self.spec), self.folder, command=[sys.executable, "-P", "-m", "gridsweep.testing"])
        os.posix_spawnp = spawn
        files.publish(done.folder, done.report)

    def run(
        self, arm: Callable[[], object] = lambda: None, workers: Callable[[int], object] = lambda n: None
    ) -> int | str:
        """Run the sweep, or resume it, in a fork; return its exit code, or the name of what ended it."""
        child = os.fork()
        if child == 0:
            self._child(arm, workers)
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else signal.Signals(-code).name
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "hung"

    def _child(self, arm: Callable[[], object], workers: Callable[[int], object]) -> None:
        code: object = 99
        try:
            said = os.open(self.said, os.O_WRONLY | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.posix_spawnp = self._spawner(workers)  # type: ignore[assignment]  # a fork in its place
            from gridsweep import cli

            sys.argv = ["gridsweep", "run", str(self.spec), "--folder", str(self.folder)]
            arm()
            try:
                cli.main()
                code = 0
            except SystemExit as exit:
                code = exit.code
            sys.stdout.flush()
        except BaseException:
            import traceback

            self.shim.drill_arm(b"", OFF, 0, 0, 0)
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def _spawner(self, workers: Callable[[int], object]) -> Callable[..., int]:
        def spawn(
            path: str,
            command: Sequence[str],
            environment: object,
            *,
            file_actions: Sequence[tuple[Any, ...]],
            setsid: bool,
        ) -> int:
            child = os.fork()
            if child:
                return child
            try:
                self.shim.drill_arm(b"", OFF, 0, 0, 0)
                log = next(action for action in file_actions if action[0] == os.POSIX_SPAWN_OPEN and action[1] == 1)
                self._worker(command[-1], log[2:], workers)
            finally:
                os._exit(1)

        return spawn

    def _worker(self, folder: str, log: tuple[Any, ...], workers: Callable[[int], object]) -> None:
        """Be the worker of an attempt: hold its lock and no other file of the loop's."""
        os.setsid()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        handle = os.open(*log)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
            with suppress(OSError):
                if fd > 2 and not os.get_inheritable(fd):
                    os.close(fd)
        with self.starts.open("a") as file:
            file.write(f"{Path(folder).parent.name}/{Path(folder).name}\n")
        from gridsweep.testing.stand_in import main

        workers(sum(map(ord, folder)) + len(self.starts.read_text().splitlines()))
        code = 0
        try:
            main([folder])
        except SystemExit as exit:
            code = int(exit.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)

    # -- judging

    def table(self) -> dict[str, object]:
        """Return what became of each experiment, with its losses at rungs, to the last digit."""
        from gridsweep.runs.folder import RunFolder

        standings = RunFolder(self.folder).read().standings
        return {
            id: [
                s.status,
                s.step,
                s.outcome.validation_loss if s.outcome else None,
                {n: o.losses for n, o in s.scores.items()},
            ]
            for id, s in standings.items()
        }

    def settled(self) -> None:
        """Wait until no worker of the folder is alive."""
        from gridsweep.records.attempts import AttemptFolder

        end = time.monotonic() + LONGEST
        folders = [AttemptFolder(path) for path in self.folder.glob("store/stints/*/[0-9]*")]
        while any(folder.alive() for folder in folders) and time.monotonic() < end:
            time.sleep(0.002)

    def half(self) -> Iterator[str]:
        """Yield the files that are not whole, though no name of theirs says that they are drafts."""
        from gridsweep.records.files import MANIFEST, verify

        for path in sorted(self.folder.rglob("*")):
            parts = path.relative_to(self.folder).parts
            if any(part.startswith(".") for part in parts) or not path.is_file():
                continue
            if path.name == MANIFEST:
                if not verify(path.parent):
                    yield f"{Path(*parts)} does not fit to its files"
            elif path.suffix == ".json" or path.name == "journal.head":
                try:
                    text = path.read_text()
                    if path.name == "snapshot.json":  # three documents, a line each
                        _, _, _ = map(json.loads, text.splitlines())
                    else:
                        json.loads(text) if path.suffix == ".json" else int(text.split()[0])
                except (ValueError, IndexError):
                    yield f"{Path(*parts)} is half written"

    def verified(self) -> Iterator[str]:
        from gridsweep.errors import SpecError
        from gridsweep.runs.mending import verify

        try:
            yield from verify(self.folder).faults
        except SpecError as error:
            if not re.search("holds no sweep|holds a sweep that was never submitted", str(error)):
                yield str(error)

    def judge(self, case: Case, code: int | str, *, last: bool) -> None:
        """Add to a case what breaks a promise after a run that ended with this code; the `last` one had no trouble."""
        said = self.said.read_text(errors="replace")
        if "Traceback" in said:
            case.faults.append(f"a traceback: {said[-1500:]}")
        if code not in DOCUMENTED and code != "SIGKILL":
            case.faults.append(f"it ended with {code}")
        self.settled()
        case.faults += [f"verify: {fault}" for fault in self.verified()]
        case.faults += self.half()
        twice = [name for name, count in Counter(self.starts.read_text().split()).items() if count > 1]
        case.faults += [f"{name} was started twice" for name in twice]
        if (last or code == 0) and not case.faults:
            if code != 0:
                case.faults.append(f"the last run ended with {code}: {said[-500:]}")
            elif self.table() != self.wanted:
                case.faults.append(f"another table: {self.table()}")
            elif not (self.folder / "state" / "report.json").exists():
                case.faults.append("no report")

    def undisturbed(self) -> tuple[int, int]:
        """Run the sweep once as it is; return how many points it has, without writes and with them."""
        counted = self.home / "points"
        leave = os._exit

        def told(code: int) -> None:
            counted.write_text(str(self.shim.drill_points()))
            leave(code)

        def count(mask: int) -> None:
            self.shim.drill_arm(str(self.folder).encode(), COUNT, 0, 0, mask)
            os._exit = told  # type: ignore[assignment]  # it never returns

        found = []
        for mask in (0, WRITES_TOO):
            self.fresh()
            code = self.run(partial(count, mask))
            assert code == 0, self.said.read_text()
            found.append(int(counted.read_text()))
            self.wanted = self.table()
        return found[0], found[1]


def arming(ground: Ground, mode: int, number: int, seed: int, mask: int) -> Callable[[], object]:
    return lambda: ground.shim.drill_arm(str(ground.folder).encode(), mode, number, seed, mask)


def killed(ground: Ground, number: int, mask: int) -> Case:
    """The loop dies at one point; then it is run again."""
    case = Case("writes" if mask else "kills", number)
    ground.fresh()
    code = ground.run(arming(ground, KILL, number, 0, mask))
    case.codes.append(code)
    case.disturbed = int(code == "SIGKILL")
    ground.judge(case, code, last=False)
    case.codes.append(code := ground.run())
    ground.judge(case, code, last=True)
    return case


def failing(ground: Ground, permille: int, seed: int, mask: int = EVERY_KIND) -> Case:
    """Calls of loop and workers fail; then the disk is as it should be."""
    case = Case("faults", seed)
    ground.fresh()
    for n in range(3):
        code = ground.run(
            arming(ground, FAIL, permille, 1000 * seed + n, mask),
            lambda worker: arming(ground, FAIL, permille, seed + 7919 * worker, mask)(),
        )
        case.codes.append(code)
        ground.judge(case, code, last=False)
        if code == 0 or case.faults:
            break
    case.words = told(ground)
    case.codes.append(code := ground.run())
    ground.judge(case, code, last=True)
    return case


def full(ground: Ground, number: int) -> Case:
    """The disk is full from one point on, also for the workers, and when the sweep is run again; then there is room."""
    case = Case("full", number)
    ground.fresh()
    worker = arming(ground, FULL, number % 37, 0, 0)
    for begins in (number, number % 5, 0):
        code = ground.run(arming(ground, FULL, begins, 0, 0), lambda n: worker())
        case.codes.append(code)
        ground.judge(case, code, last=False)
        if code not in (0, 5):
            case.faults.append(f"a full disk ended the run with {code}")
        if code == 0 or case.faults:
            break
    case.words = told(ground)
    case.codes.append(code := ground.run())
    ground.judge(case, code, last=True)
    return case


def told(ground: Ground) -> str:
    """Return the errors that the runs have printed so far, and forget them."""
    words = " | ".join(re.findall(r"^error: .*", ground.said.read_text(errors="replace"), re.MULTILINE))[:600]
    ground.said.write_bytes(b"")
    return words


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["kills", "writes", "faults", "full"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=10**6)
    parser.add_argument("--permille", type=int, default=30)
    parser.add_argument("--kinds", type=int, default=EVERY_KIND, help="Sum of the kinds of calls that fail: faults.c.")
    parser.add_argument("--seconds", type=float, default=3600.0)
    chosen = parser.parse_args(arguments)
    library = preloaded()
    os.environ.pop("LD_PRELOAD", None)  # of this process it stays
    os.environ |= {"GRIDSWEEP_WORKER": "gridsweep.testing", "GRIDSWEEP_STEP_SECONDS": "0.001"}
    end = time.monotonic() + chosen.seconds
    with tempfile.TemporaryDirectory(prefix="drill", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        os.environ["XDG_CACHE_HOME"] = f"{home}/cache"
        os.chdir(home)
        ground = Ground(library, Path(home).resolve())
        ground.warm()
        points, writes = ground.undisturbed()
        print(json.dumps({"points": points, "writes": writes}), flush=True)
        top = {"kills": 2 * points, "writes": 2 * writes, "full": points}.get(chosen.kind, 10**6)
        for number in range(chosen.first, min(chosen.last, top), chosen.every):
            if time.monotonic() > end:
                break
            if chosen.kind in ("kills", "writes"):
                case = killed(ground, number, int(chosen.kind == "writes"))
            elif chosen.kind == "full":
                case = full(ground, number)
            else:
                case = failing(ground, chosen.permille, number, chosen.kinds)
            print(json.dumps(asdict(case)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
