"""Where the machine stands changes nothing: the same files and the same sweeps in twelve local time zones."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from builders import RELAXED, URGENT, make_sweep
from gridsweep.records import codec
from gridsweep.sweep.sweep import PolicyChoice

ZONES = (
    "UTC",
    "Europe/London",
    "America/Los_Angeles",
    "America/St_Johns",  # half an hour off
    "America/Sao_Paulo",  # gave its clock changes up
    "Africa/Casablanca",  # winter time in Ramadan
    "Antarctica/Troll",  # changes by two hours
    "Asia/Kolkata",
    "Asia/Kathmandu",  # a quarter of an hour off
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Pacific/Chatham",
)
EVES = (
    "2011-12-29T18:00:00+00:00",  # Apia leaves a day out
    "2024-03-09T18:00:00+00:00",  # clocks change in North America and in Morocco
    "2024-03-30T12:00:00+00:00",  # in Europe and at Troll
    "2024-04-06T02:00:00+00:00",  # in Chatham and Lord Howe
    "2024-04-13T18:00:00+00:00",  # in Morocco again
    "2024-09-28T02:00:00+00:00",  # in Chatham
    "2024-10-05T03:00:00+00:00",  # on Lord Howe
    "2024-10-26T12:00:00+00:00",  # in Europe and at Troll
    "2024-11-02T18:00:00+00:00",  # in North America
)
"""Just before some clocks change; each sweep and each file goes over the change."""

CHILD = """
import hashlib, json, sys, time
from datetime import datetime, timedelta
from pathlib import Path
from gridsweep.records import codec
from gridsweep.policy.registry import policy_for
from gridsweep.grid.providers.trace import TraceProvider
from gridsweep.simulation.plan import plan
from gridsweep.simulation.rehearsal import rehearse
from gridsweep.sweep.sweep import Sweep
from gridsweep.grid.trace_files import read_trace

folder, half_hour = Path(sys.argv[1]), timedelta(minutes=30)
sweeps = [codec.loads(Sweep, text) for text in json.load(sys.stdin)]
told = {}
for eve in map(datetime.fromisoformat, sys.argv[2:]):
    first = eve - timedelta(days=3)
    levels = [100 + 17 * i % 233 + i / 7 for i in range(6 * 48)]
    moments = [(first + i * half_hour).astimezone().isoformat() for i in range(len(levels))]
    csv, lines = folder / "local.csv", folder / "local.jsonl"
    rows = [f"{moment},{level}" for moment, level in zip(moments, levels)]
    csv.write_text("\\n".join(["timestamp,carbon_intensity", *rows]))
    lines.write_text("".join(
        json.dumps({"time": moment, "rating": level, "duration": "00:30:00"}) + "\\n"
        for moment, level in zip(moments, levels)
    ))
    for file in (csv, lines):
        trace = read_trace(file)
        told[f"{file.suffix} {eve}"] = [trace.start.isoformat(), str(trace.step), trace.values.tolist() == levels]
    provider = TraceProvider(trace, "X", "a trace")
    for sweep in sweeps:
        journal = []
        rehearse(sweep, eve, provider, policy_for(sweep.policy), journal=journal)
        texts = [codec.dumps(event) for event in journal]
        digest = hashlib.sha256("\\n".join(texts).encode()).hexdigest()
        told[f"{sweep.policy.name} {eve}"] = [len(texts), sum('"why"' in text for text in texts), digest]
        told[f"plan {sweep.policy.name} {eve}"] = codec.dumps(plan(sweep, provider, eve))
local = [str(datetime.fromisoformat(eve).astimezone().utcoffset()) for eve in sys.argv[2:]]
print(json.dumps({"local": local, "told": told}, sort_keys=True))
"""


def told_in(zone: str, folder) -> tuple[list[str], dict[str, list]]:
    """The offset of the local time at each eve, and what a process in that zone makes of files and sweeps."""
    tiers = (URGENT, RELAXED)
    gate = make_sweep(5, tiers=tiers, devices=2, hours=2.25)
    on_off = make_sweep(
        4, tiers=tiers, hours=3.0, policy=PolicyChoice("on_off", {"pause_above": 260.0, "resume_below": 180.0})
    )
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *EVES],
        input=json.dumps([codec.dumps(gate), codec.dumps(on_off)]),
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["local"], answer["told"]


@pytest.fixture(scope="module")
def at_greenwich(tmp_path_factory) -> dict[str, list]:
    return told_in("UTC", tmp_path_factory.mktemp("utc"))[1]


@pytest.mark.parametrize("zone", ZONES[1:])
def test_the_local_time_zone_changes_nothing(zone, at_greenwich, tmp_path):
    local, told = told_in(zone, tmp_path)
    # The process did live in that zone: without its rules the C library takes UTC in silence.
    assert local == [str(datetime.fromisoformat(eve).astimezone(ZoneInfo(zone)).utcoffset()) for eve in EVES]
    assert told == at_greenwich


def test_there_is_something_to_compare(at_greenwich):
    for eve in map(datetime.fromisoformat, EVES):
        for file in (".csv", ".jsonl"):
            assert at_greenwich[f"{file} {eve}"] == [(eve - timedelta(days=3)).isoformat(), "0:30:00", True]
        for policy in ("threshold", "on_off"):
            events, decided, _ = at_greenwich[f"{policy} {eve}"]
            assert events > 20
            assert decided >= 4
    digests = [
        at_greenwich[f"{policy} {datetime.fromisoformat(eve)}"][2] for policy in ("threshold", "on_off") for eve in EVES
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("zone", ["Europe/London", "America/Los_Angeles", "Antarctica/Troll", "Pacific/Apia"])
def test_some_clock_changes_within_the_files(zone):
    days = [datetime.fromisoformat(eve).astimezone(UTC) + i * timedelta(days=1) for eve in EVES for i in range(3)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    changes = [i for i, (a, b) in enumerate(pairwise(offsets)) if a != b and i % 3 < 2]
    assert changes
