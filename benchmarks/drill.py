"""What a sweep survives: kills at every call, a disk that fails or is full, broken specs and journals, dead workers.

    python benchmarks/drill.py [--long] [--only kills,writes,faults,full,specs,journal,workers]

Short, it takes some four minutes. With `--long` every commit, rename and sync of a small sweep is killed before and
after (with `writes` also within), the disk fails at 1 to 10 % of the calls, it is full from every third point on,
20,000 specs and 1,500 journals are broken, and 50 torch workers are killed: an hour or two. The last needs the extra
`train`, and is left out of the short form. The calls are intercepted by a library made of `tests/faults.c`, which takes
a C compiler. Prints a table, and what went wrong; exits 1 if anything did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "tests" / "spec")]

Found = tuple[int, Counter[str], list[str]]
"""The cases, how they ended, and what went wrong."""


def forked(*arguments: str) -> Found:
    """Run cases of `tests/drilling.py`."""
    command = [sys.executable, str(PROJECT / "tests" / "drilling.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        cases = [json.loads(line) for line in process.stdout][1:]
    if process.returncode:
        return 0, Counter(), [f"{' '.join(arguments)}: exit code {process.returncode}"]
    ends = Counter(" then ".join(map(str, case["codes"])) for case in cases)
    wrong = [f"{case['kind']} {case['number']}: {fault}" for case in cases for fault in case["faults"]]
    return len(cases), ends, wrong


def kills(*, long: bool) -> Found:
    return forked("kills", "--every", "1" if long else "23")


def writes(*, long: bool) -> Found:
    return forked("writes", "--every", "3" if long else "67")


def faults(*, long: bool) -> Found:
    total, ends, wrong = 0, Counter[str](), list[str]()
    for permille in (10, 20, 30, 50, 100):
        more = forked("faults", "--permille", str(permille), "--last", "40" if long else "4")
        total, ends, wrong = total + more[0], ends + more[1], wrong + more[2]
    return total, ends, wrong


def full(*, long: bool) -> Found:
    return forked("full", "--every", "3" if long else "29")


def specs(*, long: bool) -> Found:
    from mutations import judged, mutated, traps

    ends, wrong = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "sweep.yaml"
        every = [*traps(), *((f"seed 1, {n}", t) for n, t in enumerate(islice(mutated(1), 20_000 if long else 500)))]
        for name, text in every:
            what, fault = judged(path, text)
            ends[what] += 1
            wrong += [f"spec {name}: {fault}"] if fault else []
    return len(every), ends, wrong


def journal(*, long: bool) -> Found:
    """Change a row, or bytes of the file: either it is told, or what is read is what was written."""
    from builders import DAYS, make_sweep, rehearsed
    from gridsweep.errors import GridsweepError
    from gridsweep.policy.gates import Threshold
    from gridsweep.records.facts import text_of
    from gridsweep.records.journal import Journal, create
    from gridsweep.runs.mending import verify

    events = rehearsed(make_sweep(3), DAYS, Threshold())[1]
    rows = [(n, event.at.isoformat(), event.kind, text_of(event)) for n, event in enumerate(events, 1)]
    ends, wrong, random_ = Counter[str](), list[str](), random.Random(7)
    count = 1500 if long else 150
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "run" / "state" / "journal.db"
        for n in range(count):
            shutil.rmtree(path.parent, ignore_errors=True)
            path.parent.mkdir(parents=True)
            create(path, rows)
            with closing(Journal(path, epoch=1)):
                pass
            broken(path, random_)
            told = []
            for look in (lambda: _read(path), lambda: verify(path.parents[1]).faults):
                try:
                    found = look()
                    told.append(found != events if isinstance(found, list) else bool(found))
                    if isinstance(found, list) and found != events:
                        wrong.append(f"journal {n}: other facts were read, silently")
                except GridsweepError:
                    told.append(True)
                except Exception as error:
                    wrong.append(f"journal {n}: {type(error).__name__}: {error}")
            ends["told" if any(told) else "as it was"] += 1
    return count, ends, wrong


def _read(path: Path) -> list[object]:
    from gridsweep.records.journal import Journal

    with closing(Journal(path)) as opened:
        return list(opened.events())


def broken(path: Path, random_: random.Random) -> None:
    """Change a field of a row by SQL, or bytes of the file or of its head."""
    if random_.random() < 0.7:
        with closing(sqlite3.connect(path)) as db, db:
            (last,) = db.execute("SELECT max(seq) FROM events").fetchone()
            seq, column = random_.randint(1, last), random_.choice(["at", "kind", "body", "chain", "seq"])
            (text,) = db.execute(f"SELECT {column} FROM events WHERE seq = ?", (seq,)).fetchone()
            at = random_.randrange(len(str(text)) + 1)
            value = random_.choice(
                [
                    None,
                    "",
                    b"\xff\xfe",
                    1e308,
                    -1,
                    2**60,
                    "{}",
                    str(text)[:at],
                    str(text)[:at] + "\x00" + str(text)[at:],
                ]
            )
            try:
                db.execute(f"UPDATE OR REPLACE events SET {column} = ? WHERE seq = ?", (value, seq))
            except sqlite3.Error:
                db.execute("DELETE FROM events WHERE seq = ?", (seq,))
        return
    file = random_.choice([path, path, path.with_name("journal.head")])
    data = bytearray(file.read_bytes())
    for _ in range(random_.choice([1, 1, 4, 64])):
        data[random_.randrange(len(data))] = random_.randrange(256)
    file.write_bytes(data[: random_.choice([len(data), len(data), random_.randrange(len(data))])])


SWEEP = """
name: workers
model: tiny-qwen2
dataset: {id: stdlib, train_samples: 64, validation_samples: 16}
recipe: {steps: 12, batch_size: 2, max_length: 64, checkpoint_every: 1}
space: {r: [2, 4, 8], alpha: [8, 16], lr: [1e-3], dropout: [0.0]}
design: grid
carbon: {provider: trace, file: solar-valley}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: auto}}
policy: immediate
devices: 1
pack: 3
estimates: {duration: 20m, power_w: 15}
rungs: {at: [0.5], keep: [3]}
repeats: {seeds: 2, finalists: 2}
"""


def workers(*, long: bool) -> Found:
    """Kill torch workers that train packs with rungs and repeats; each death costs steps, and changes no result."""
    from gridsweep.records.attempts import AttemptFolder
    from gridsweep.runs.folder import RunFolder
    from gridsweep.runs.mending import verify

    wanted, shot, random_ = 50 if long else 0, 0, random.Random(3)
    ends, wrong, tables = Counter[str](), list[str](), list[dict[str, object]]()
    with tempfile.TemporaryDirectory() as home:
        spec = Path(home) / "sweep.yaml"
        spec.write_text(SWEEP)
        for number in range(1 + wanted):
            if shot >= wanted and number:
                break
            folder = Path(home) / f"run{number}"
            fruitless: Counter[str] = Counter()
            for _ in range(30):
                command = [sys.executable, "-P", "-m", "gridsweep", "run", str(spec), "--folder", str(folder)]
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
                    while process.poll() is None:
                        time.sleep(0.3 + 2 * random_.random())
                        for path in folder.glob("store/stints/*/[0-9]*") if number and shot < wanted else ():
                            attempt, pid = AttemptFolder(path), AttemptFolder(path).pid()
                            if pid and attempt.alive() and fruitless[path.parent.name] < 2:
                                os.killpg(pid, signal.SIGKILL)
                                shot, fruitless = shot + 1, fruitless + Counter([path.parent.name])
                    said = process.stderr.read() if process.stderr else ""
                ends[f"run: {process.returncode}"] += 1
                wrong += [f"workers {number}: {said[-500:]}"] if "Traceback" in said else []
                if process.returncode == 0:
                    break
            wrong += [f"workers {number}: {fault}" for fault in verify(folder).faults]
            standings = RunFolder(folder).read().standings
            tables.append({id: (s.status, s.outcome and s.outcome.validation_loss) for id, s in standings.items()})
            if tables[-1] != tables[0]:
                wrong.append(f"workers {number}: another table: {tables[-1]}")
    ends["killed"] = shot
    return shot, ends, wrong


PARTS: dict[str, Callable[..., Found]] = {
    "kills": kills, "writes": writes, "faults": faults, "full": full, "specs": specs, "journal": journal,
    "workers": workers,
}  # fmt: skip


def chosen(only: str, *, long: bool) -> Iterator[str]:
    for name in only.split(",") if only else PARTS:
        if name not in PARTS:
            sys.exit(f"there is no part {name!r}; choose from {', '.join(PARTS)}")
        if long or name != "workers":
            yield name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    wrong = []
    print(f"{'part':<10}{'cases':>8}{'wrong':>8}{'seconds':>10}  ends")
    for name in chosen(given.only, long=given.long):
        begun = time.monotonic()
        cases, ends, faulty = PARTS[name](long=given.long)
        told = ", ".join(f"{end} ({count})" for end, count in ends.most_common(6))
        print(f"{name:<10}{cases:>8,}{len(faulty):>8}{time.monotonic() - begun:>10.0f}  {told}", flush=True)
        wrong += faulty
    for fault in wrong[:50]:
        print(fault)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
