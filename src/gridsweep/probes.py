"""What this machine's device trains best, measured by a program of its own, as findings."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from gridsweep.doctor import EXTRAS, Finding
from gridsweep.errors import ExecutorError, GridsweepError

DEFAULT_MODEL = "tiny-qwen2"
PROGRAM = (sys.executable, "-m", "gridsweep.train.probe")
LOADING_S = 900.0
"""So long a large model may take to load, beyond what is measured."""


def probe(subject: str, seconds: float) -> dict[str, Any]:
    """What `python -m gridsweep.train.probe` finds for a spec's path or a model's name.

    Raises `GridsweepError` where the extra `train` is missing or the model is not on this machine, `ExecutorError`
    where the program ends otherwise.
    """
    absent = [package for package in EXTRAS["train"] if find_spec(package) is None]
    if absent:
        raise GridsweepError(
            f"doctor --train has to train, and {', '.join(absent)} is not installed; pip install 'gridsweep[train]'"
        )
    command = [*PROGRAM, subject, f"--seconds={seconds}", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOADING_S + 4 * seconds)
    except subprocess.TimeoutExpired:
        raise ExecutorError(
            f"measuring {subject} did not end in time; try `{' '.join(command[1:])}` with fewer --seconds"
        ) from None
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode == GridsweepError.exit_code:
        raise GridsweepError(last)
    if done.returncode:
        raise ExecutorError(f"measuring {subject} ended with exit {done.returncode}: {last}")
    try:
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ExecutorError(f"measuring {subject} printed no result; try `{' '.join(command[1:])}`") from None
    return made


def findings(made: dict[str, Any]) -> list[Finding]:
    """A line for the device, its memory, each choice and the energy; the best choice is marked."""
    kind = f"{made['device']} ({made['kind']}, {made['dtype']})"
    lines = [
        Finding("train device", "ok", f"{kind} with {made['model']}: {made['samples']}"),
        Finding("train memory", *_memory(made["memory"])),
    ]
    for choice in made["choices"]:
        lines.append(Finding(f"train {choice['members']}", "ok", _choice(choice, choice == made["best"])))
    for one in made["left_out"]:
        lines.append(Finding(f"train {one['members']}", "note", f"not measured: {one['why']}"))
    if made["energy"] is None:
        lines.append(Finding("train energy", "note", "no counter is readable here, so joules a token are left out"))
    if power := made.get("power"):
        may = "may be set" if power["may_be_set"] else "may not be set by this user: power_limit_w will not take effect"
        text = f"limit {power['now']:g} W, {power['least']:g} to {power['most']:g} W allowed; it {may}"
        lines.append(Finding("train power", "ok" if power["may_be_set"] else "note", text))
    lines.append(Finding("train written", "ok", made["written"]))
    return lines


def _memory(memory: dict[str, Any]) -> tuple[Any, str]:
    adapters = ", ".join(f"r{r} {_bytes(size)}" for r, size in memory["adapter_bytes"].items())
    tokens = ", ".join(f"r{r} {_bytes(size)}" for r, size in memory["bytes_per_token"].items())
    seen = (
        f"base {_bytes(memory['base_bytes'])}; an adapter {adapters}; a token in a pass {tokens}; "
        f"{_bytes(memory['device_bytes'])} hold {memory['fit_resident']} adapters, "
        f"and pass {memory['fit_at_once']} at once with {memory['tokens_of_a_step']} tokens each"
    )
    return ("ok" if memory["fit_at_once"] else "note"), seen


def _choice(choice: dict[str, Any], best: bool) -> str:
    said = [f"{choice['tokens_per_s']:,.0f} tokens/s"]
    if choice["joules_per_token"] is not None:
        said.append(f"{choice['joules_per_token']:.3g} J a token")
    peak = "" if choice["peak_bytes"] is None else f"peak {_bytes(choice['peak_bytes'])}, "
    said.append(f"{peak}{_bytes(choice['foreseen_bytes'])} foreseen")
    said.append(f"masks {'kept' if choice['remember'] else 'made again'}")
    return ", ".join(said) + ("  <- best" if best else "")


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"
