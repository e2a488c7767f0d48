"""What this machine has for a sweep, and what it lacks."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal  # pynvml has no types, and a double may take its place; JSON that the program prints

from gridsweep.carbon.readings import titled
from gridsweep.errors import ExecutorError, GridsweepError
from gridsweep.records import codec
from gridsweep.spec import load
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import CarbonSource, Sweep

EXTRAS = {
    "train": ("torch", "transformers", "peft", "safetensors", "datasets"),
    "report": ("plotly", "jinja2", "matplotlib"),
    "serve": ("fastapi", "uvicorn"),
    "ray": ("ray",),
    "kubernetes": ("httpx",),
    "live": ("httpx",),
    "parquet": ("pyarrow",),
    "solver": ("scipy",),
    "optuna": ("optuna",),
    "4bit": ("bitsandbytes",),
}
OPTIONAL = ("serve", "ray", "kubernetes", "live", "parquet", "solver", "optuna", "4bit")
ROOM_GB = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is well, what was seen, what to do about it."""

    what: str
    state: Literal["ok", "note", "missing"]
    seen: str
    advice: str = ""


def examine(folder: Path = Path(), sweeps: Sequence[Sweep] = ()) -> list[Finding]:
    """Look at Python, the extras, the devices, the energy counters, the disk, and the providers of the sweeps given."""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} CPUs"),
        *(_extra(name, packages) for name, packages in EXTRAS.items()),
        _devices(),
        _energy(),
        *power([device for sweep in sweeps for device in sweep.devices]),
        _disk(folder),
        _grid(),
        *(_provider(carbon) for carbon in dict.fromkeys(sweep.carbon for sweep in sweeps)),
    ]


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        advice = f"pip install 'gridsweep[{name}]'"
        state: Literal["note", "missing"] = "note" if name in OPTIONAL else "missing"
        return Finding(f"extra {name}", state, f"without {', '.join(absent)}", advice)
    return Finding(f"extra {name}", "ok", ", ".join(f"{package} {_version(package)}" for package in packages))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"


def _devices() -> Finding:
    from gridsweep.energy.nvml import visible_gpus

    gpus = visible_gpus()
    if gpus:
        return Finding("devices", "ok", f"{len(gpus)} NVIDIA GPU(s): {', '.join(gpus)}")
    cores = os.cpu_count() or 1
    return Finding(
        "devices", "note", f"no NVIDIA GPU; workers train on the CPU, one core each: up to `devices: {cores}`"
    )


def _energy() -> Finding:
    from gridsweep.energy.meters import meter_for
    from gridsweep.energy.nvml import visible_gpus

    meter = meter_for(Device("device0"), 0 if visible_gpus() else None)
    try:
        source = meter.source
    finally:
        meter.close()
    if source.startswith("modelled"):
        advice = "set power_w of the devices (watts of a busy core) to what a wall meter shows"
        return Finding("energy", "note", f"no counter is readable; energy is {source}", advice)
    return Finding("energy", "ok", f"measured by {source}")


def power(asked: Sequence[Device] = (), nvml: Any = None, notes: Path | None = None) -> list[Finding]:
    """The GPUs' power limits, and whether those that devices ask for can be. Changes nothing."""
    import pynvml

    from gridsweep.energy.nvml import nvml_index, visible_gpus
    from gridsweep.energy.power_limits import seen

    nvml = nvml or pynvml
    found = []
    asking = [device for device in asked if device.power_limit_w is not None]
    gpus = visible_gpus(nvml)
    if asking and not gpus:
        names = ", ".join(device.name for device in asking)
        return [Finding("power limit", "note", f"{names}: no NVIDIA GPU here, so power_limit_w changes nothing")]
    for gpu in gpus:
        index = nvml_index(gpu)
        try:
            limits, _ = seen(0 if index is None else index, nvml, notes)
        except nvml.NVMLError as error:
            found.append(Finding(f"power {gpu}", "note", f"the driver tells no limit: {error}"))
            continue
        text = f"limit {limits.now:g} W (default {limits.usual:g}, allowed {limits.least:g} to {limits.most:g})"
        wrong = [d for d in asking if d.power_limit_w and not limits.least <= d.power_limit_w <= limits.most]
        if wrong:
            names = ", ".join(f"{d.name} asks for {d.power_limit_w:g} W" for d in wrong)
            found.append(Finding(f"power {gpu}", "missing", f"{text}; {names}", "set power_limit_w within these"))
        elif limits.busy:
            found.append(Finding(f"power {gpu}", "ok", f"{text}, set by a worker that trains"))
        elif limits.left is not None or limits.now != limits.usual:
            before = limits.usual if limits.left is None else limits.left
            who = "not the default" if limits.left is None else f"left by a worker that was killed, {before:g} W before"
            advice = f"sudo nvidia-smi -i {gpu} -pl {before:g}, unless it is meant"
            found.append(Finding(f"power {gpu}", "note", f"{text}, {who}", advice))
        else:
            found.append(Finding(f"power {gpu}", "ok", text))
    return found


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    if free < ROOM_GB:
        return Finding("disk", "note", f"{free:.1f} GB free", "a 7B base model alone takes 15 GB")
    return Finding("disk", "ok", f"{free:.0f} GB free")


def _grid() -> Finding:
    from gridsweep.grid.providers.trace import open_trace

    provider = open_trace("solar-valley")
    trace = titled(provider.provenance.title, provider.provenance.quality)
    return Finding("grid", "ok", f"bundled trace {trace}, works offline")


def _provider(carbon: CarbonSource) -> Finding:
    """What a configured provider says of its zone just now, without the rungs that would stand in for it."""
    from gridsweep.grid.registry import source_for

    what, now = f"grid {carbon.provider}", datetime.now(UTC)
    try:
        reading = source_for(carbon).read(now)
    except GridsweepError as error:
        return Finding(what, "missing", f"{carbon.zone}: {error}", "a sweep would go on with what else is known")
    found, level = reading.provenance, reading.history.at(now)
    present = (
        f"{level:.0f} gCO2eq/kWh now" if level == level else f"known up to {reading.history.end:%Y-%m-%d %H:%M} UTC"
    )
    ahead = "with its own forecast" if reading.forecast is not None else "no forecast of its own; we make one"
    seen = f"{carbon.zone}: {present}, {found.kind}, {found.basis}, {found.quality}; {ahead}"
    if found.quality in ("synthetic", "static"):
        return Finding(what, "note", seen, "no measurement: good for trying out, not for a claim")
    return Finding(what, "ok", seen)


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
    if Path(subject).suffix not in (".yaml", ".yml"):
        return _measured(subject, subject, seconds)
    with TemporaryDirectory() as folder:  # the worker reads no YAML: it gets the sweep as a run folder keeps it
        sweep = Path(folder) / "sweep.json"
        sweep.write_text(codec.dumps(load(subject)), encoding="utf-8")
        return _measured(subject, str(sweep), seconds)


def _measured(subject: str, argument: str, seconds: float) -> dict[str, Any]:
    command = [*PROGRAM, argument, f"--seconds={seconds}", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOADING_S + 4 * seconds)
    except subprocess.TimeoutExpired:
        raise ExecutorError(f"measuring {subject} did not end in time; try fewer --seconds") from None
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode == GridsweepError.exit_code:
        raise GridsweepError(last)
    if done.returncode:
        raise ExecutorError(f"measuring {subject} ended with exit {done.returncode}: {last}")
    try:
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ExecutorError(
            f"measuring {subject} printed no result; try `{' '.join(command[1:3])} {subject}`"
        ) from None
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


def _memory(memory: dict[str, Any]) -> tuple[Literal["ok", "note"], str]:
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
