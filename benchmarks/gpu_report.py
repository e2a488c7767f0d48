"""What benchmarks/gpu.py tells of its ways: rows, the projection, the machine; printed, and as a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_projection import Rate, Rates, estimates, projected
from gpu_ways import Way, samples
from shapes import SHAPES

from gridsweep.train.device import accelerator_index
from gridsweep.train.probing import file_name


def rates_of(ways: list[Way]) -> Rates | None:
    """The fastest of each kind; None where one is missing."""

    def rate(way: Way) -> Rate:
        return Rate(median(way.seconds), median(way.joules) if way.joules else None)

    found = [way for way in ways if way.seconds and not way.why]
    judging = {way.kind.removeprefix("judging "): rate(way) for way in found if way.kind.startswith("judging")}
    naive = {way.r: rate(way) for way in found if way.kind == "naive"}
    tuned = {way.r: rate(way) for way in found if way.kind == "tuned"}
    lean: dict[int, Rate] = {}
    for way in found:
        if way.kind == "lean" and (way.adapters not in lean or rate(way).seconds < lean[way.adapters].seconds):
            lean[way.adapters] = rate(way)
    if {16, 32} - naive.keys() or {16, 32} - tuned.keys() or not lean or {"naive", "tuned", "lean"} - judging.keys():
        return None
    return Rates(naive, tuned, lean, judging["naive"], judging["tuned"], judging["lean"])


def row(way: Way) -> dict[str, Any]:
    told = {"name": way.name, "kind": way.kind, "adapters": way.adapters, "in_a_pass": way.in_a_pass}
    if way.why or not way.seconds:
        return told | {"why": way.why}
    speeds = sorted(1 / seconds for seconds in way.seconds)
    return told | {
        "tokens_in_a_pass": way.tokens_in_a_pass,
        "tokens_per_s": median(speeds),
        "slowest_and_fastest": [speeds[0], speeds[-1]],
        "joules_per_token": median(way.joules) if way.joules else None,
        "watts": median(j / s for j, s in zip(way.joules, way.seconds, strict=True)) if way.joules else None,
        "peak_bytes": way.peak or None,
        "rounds": len(way.seconds),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What it was measured on."""
    versions = {}
    for package in ("torch", "transformers", "peft", "gridsweep"):
        with suppress(PackageNotFoundError):  # of a source tree that is not installed
            versions[package] = version(package)
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cpus": os.cpu_count(),
        **versions,
    }
    if device.type == "cuda":
        import pynvml

        told |= {"cuda": torch.version.cuda, "memory_bytes": torch.cuda.get_device_properties(device).total_memory}
        index = accelerator_index()
        with suppress(Exception):  # a driver may refuse; what was measured counts all the same
            pynvml.nvmlInit()
            told["driver"] = pynvml.nvmlSystemGetDriverVersion()
            handle = pynvml.nvmlDeviceGetHandleByIndex(index if isinstance(index, int) else 0)
            told["power_limit_w"] = pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
    return told


def report(
    ways: list[Way], device: torch.device, told: argparse.Namespace, name: str, longest: int, energy: str | None
) -> None:
    """Print all, and write the file."""
    rows = [row(way) for way in ways]
    print(f"\n{'':52}{'tokens/s':>12}{'J/token':>10}{'peak GB':>9}  rounds")
    for one in rows:
        if "why" in one:
            print(f"{one['name']:52}  {one['why']}")
            continue
        joules = f"{one['joules_per_token']:.4f}" if one["joules_per_token"] is not None else ""
        peak = f"{one['peak_bytes'] / 1e9:.1f}" if one["peak_bytes"] else ""
        print(f"{one['name']:52}{one['tokens_per_s']:12,.0f}{joules:>10}{peak:>9}{one['rounds']:>8}")
    drawn = samples(4000, longest, SHAPES[told.shape]["vocabulary"], seed=1)
    length = sum(len(sample.ids) for sample in drawn) / len(drawn)
    rates = rates_of(ways)
    made: dict[str, Any] = {
        "measured_on": f"{name}, {told.shape}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "machine": machine(device),
        "shape": told.shape,
        "longest": longest,
        "mean_length": length,
        "energy": energy,
        "rows": rows,
    }
    if rates is None:
        print("\nno projection: a way that it needs was not measured")
    else:
        made |= estimates(rates, length) | {"projected": projected(rates, length)}
        kind = "of the GPU" if device.type == "cuda" else "of CPU time"
        print(f"\n21 configurations, 12,000 samples of {length:.0f} tokens, hours {kind}, projected for {name}:")
        for way, one in made["projected"].items():
            kwh = f", {one['kwh']:.2f} kWh" if one["kwh"] is not None else ""
            less = f", {one['of_naive_energy']:.2f} of its energy" if one["of_naive_energy"] is not None else ""
            print(f"  {way:28}{one['hours']:8.3f} h{kwh}; {one['times_as_fast']:.2f} x naive's speed{less}")
    out = told.out or Path(__file__).parents[1] / "docs" / "results" / f"gpu-{file_name(name)}-{told.shape}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"\nwrote {out}")
