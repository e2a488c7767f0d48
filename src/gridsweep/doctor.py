"""Checks of this machine for sweeps: packages, devices, energy counters, disk, grid providers."""

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
    "kubernetes": ("httpx2",),
    "live": ("httpx2",),
    "parquet": ("pyarrow",),
    "solver": ("scipy",),
    "optuna": ("optuna",),
    "4bit": ("bitsandbytes",),
    "remote": ("fsspec", "s3fs"),
}
OPTIONAL = ("serve", "ray", "kubernetes", "live", "parquet", "solver", "optuna", "4bit", "remote")
ROOM_GB = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: the subject, its state, the observation, and the remedy."""

    what: str
    state: Literal["ok", "note", "missing"]
    seen: str
    advice: str = ""


def examine(folder: Path = Path(), sweeps: Sequence[Sweep] = ()) -> list[Finding]:
    """Check Python, the extras, devices, energy counters, the disk, and the grid providers of `sweeps`."""
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


def of_cluster(spec: Path) -> list[Finding]:
    """Check the Kubernetes cluster of a spec, and try every object of its rendering, without changing anything.

    Raise `SpecError` if it cannot be rendered, `ExecutorError` if there is no cluster, or it does not answer.
    """
    from gridsweep.executors.kubernetes.api import Api, server_for
    from gridsweep.executors.kubernetes.examination import examined
    from gridsweep.executors.kubernetes.manifests.bundle import bundle, cluster_of
    from gridsweep.executors.kubernetes.manifests.delivery import assignment_of, worker_sources
    from gridsweep.executors.kubernetes.manifests.rayjob import rayjob

    sweep = load(spec)
    cluster = cluster_of(sweep)
    sources = worker_sources() if cluster.worker == "configmap" else None
    made = bundle(sweep, cluster, spec=spec.read_text(encoding="utf-8-sig"), worker_sources=sources).manifests
    if cluster.gate == "none":  # the loop makes its RayJobs later
        made.append(rayjob(sweep, cluster, assignment_of(sweep, sweep.experiments[0].id)))
    server = server_for(cluster.context)
    api = Api(server, cluster.namespace)
    try:
        looks = examined(api, cluster, made)
    finally:
        api.close()
    at = Finding("cluster", "ok", f"{server.url}, namespace {cluster.namespace}, gate {cluster.gate}")
    return [at, *(Finding(look.what, look.state, look.seen, look.advice) for look in looks)]


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
        advice = "set power_w of the devices (watts per busy core) to the reading of a wall meter"
        return Finding("energy", "note", f"no readable energy counter; energy is {source}", advice)
    return Finding("energy", "ok", f"measured by {source}")


def power(asked: Sequence[Device] = (), nvml: Any = None, notes: Path | None = None) -> list[Finding]:
    """Return the GPUs' power limits, and whether the limits that devices request are allowed. Change nothing."""
    import pynvml

    from gridsweep.energy.nvml import nvml_index, visible_gpus
    from gridsweep.energy.power_limits import seen

    nvml = nvml or pynvml
    found = []
    asking = [device for device in asked if device.power_limit_w is not None]
    gpus = visible_gpus(nvml)
    if asking and not gpus:
        names = ", ".join(device.name for device in asking)
        return [Finding("power limit", "note", f"{names}: no NVIDIA GPU here, so power_limit_w has no effect")]
    for gpu in gpus:
        index = nvml_index(gpu)
        try:
            limits, _ = seen(0 if index is None else index, nvml, notes)
        except nvml.NVMLError as error:
            found.append(Finding(f"power {gpu}", "note", f"the driver reports no limit: {error}"))
            continue
        text = f"limit {limits.now:g} W (default {limits.usual:g}, allowed {limits.least:g} to {limits.most:g})"
        wrong = [d for d in asking if d.power_limit_w and not limits.least <= d.power_limit_w <= limits.most]
        if wrong:
            names = ", ".join(f"{d.name} requests {d.power_limit_w:g} W" for d in wrong)
            found.append(Finding(f"power {gpu}", "missing", f"{text}; {names}", "set power_limit_w within this range"))
        elif limits.busy:
            found.append(Finding(f"power {gpu}", "ok", f"{text}, set by a running worker"))
        elif limits.left is not None or limits.now != limits.usual:
            before = limits.usual if limits.left is None else limits.left
            who = "not the default" if limits.left is None else f"left by a killed worker, {before:g} W before"
            advice = f"sudo nvidia-smi -i {gpu} -pl {before:g}, unless this limit is intended"
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
    """Check a configured provider with a reading of its zone, without fallbacks."""
    from gridsweep.grid.registry import source_for

    what, now = f"grid {carbon.provider}", datetime.now(UTC)
    try:
        reading = source_for(carbon).read(now)
    except GridsweepError as error:
        return Finding(what, "missing", f"{carbon.zone}: {error}", "a sweep would continue with its fallbacks")
    found, level = reading.provenance, reading.history.at(now)
    present = (
        f"{level:.0f} gCO2eq/kWh now" if level == level else f"known up to {reading.history.end:%Y-%m-%d %H:%M} UTC"
    )
    ahead = "with its own forecast" if reading.forecast is not None else "no forecast of its own; gridsweep makes one"
    seen = f"{carbon.zone}: {present}, {found.kind}, {found.basis}, {found.quality}; {ahead}"
    if found.quality in ("synthetic", "static"):
        return Finding(what, "note", seen, "not measured: suitable for trials, not for claims")
    return Finding(what, "ok", seen)


DEFAULT_MODEL = "tiny-qwen2"


PROGRAM = (sys.executable, "-P", "-m", "gridsweep.train.probe")


LOADING_S = 900.0
"""Seconds that a large model may take to load, on top of the measuring time."""


def probe(subject: str, seconds: float) -> dict[str, Any]:
    """Return the result of `python -m gridsweep.train.probe` for the path of a spec or the name of a model.

    Raise `GridsweepError` if the extra `train` is missing or the model is not on this machine, `ExecutorError` if the
    program fails in another way.
    """
    absent = [package for package in EXTRAS["train"] if find_spec(package) is None]
    if absent:
        raise GridsweepError(
            f"doctor --train needs {', '.join(absent)}, which is not installed; pip install 'gridsweep[train]'"
        )
    if Path(subject).suffix not in (".yaml", ".yml"):
        return _measured(subject, subject, seconds)
    with TemporaryDirectory() as folder:  # the worker cannot read YAML, so it gets the sweep as JSON
        sweep = Path(folder) / "sweep.json"
        sweep.write_text(codec.dumps(load(subject)), encoding="utf-8")
        return _measured(subject, str(sweep), seconds)


def _measured(subject: str, argument: str, seconds: float) -> dict[str, Any]:
    command = [*PROGRAM, argument, f"--seconds={seconds}", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOADING_S + 4 * seconds)
    except subprocess.TimeoutExpired:
        raise ExecutorError(f"measuring {subject} took too long; try fewer --seconds") from None
    last = (done.stderr.strip().splitlines() or ["no error output"])[-1]
    if done.returncode == GridsweepError.exit_code:
        raise GridsweepError(last)
    if done.returncode:
        raise ExecutorError(f"measuring {subject} failed with exit {done.returncode}: {last}")
    try:
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ExecutorError(
            f"measuring {subject} printed no result; try `{' '.join(command[1:3])} {subject}`"
        ) from None
    return made


def findings(made: dict[str, Any]) -> list[Finding]:
    """Return findings on the device, its memory, each measured choice and the energy; the best choice is marked."""
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
        lines.append(
            Finding("train energy", "note", "no readable energy counter here, so joules per token are unknown")
        )
    if power := made.get("power"):
        may = "can be set" if power["may_be_set"] else "cannot be set by this user: power_limit_w has no effect"
        text = f"limit {power['now']:g} W, {power['least']:g} to {power['most']:g} W allowed; it {may}"
        lines.append(Finding("train power", "ok" if power["may_be_set"] else "note", text))
    lines.append(Finding("train written", "ok", made["written"]))
    return lines


def _memory(memory: dict[str, Any]) -> tuple[Literal["ok", "note"], str]:
    adapters = ", ".join(f"r{r} {_bytes(size)}" for r, size in memory["adapter_bytes"].items())
    tokens = ", ".join(f"r{r} {_bytes(size)}" for r, size in memory["bytes_per_token"].items())
    seen = (
        f"base {_bytes(memory['base_bytes'])}; per adapter {adapters}; per token in a pass {tokens}; "
        f"{_bytes(memory['device_bytes'])} hold {memory['fit_resident']} adapters, "
        f"{memory['fit_at_once']} of them in one pass with {memory['tokens_of_a_step']} tokens each"
    )
    return ("ok" if memory["fit_at_once"] else "note"), seen


def _choice(choice: dict[str, Any], best: bool) -> str:
    said = [f"{choice['tokens_per_s']:,.0f} tokens/s"]
    if choice["joules_per_token"] is not None:
        said.append(f"{choice['joules_per_token']:.3g} J/token")
    peak = "" if choice["peak_bytes"] is None else f"peak {_bytes(choice['peak_bytes'])}, "
    said.append(f"{peak}{_bytes(choice['foreseen_bytes'])} predicted")
    said.append(f"masks {'kept' if choice['remember'] else 'recomputed'}")
    return ", ".join(said) + ("  <- best" if best else "")


def _bytes(size: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"
