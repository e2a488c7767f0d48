"""One NVIDIA GPU, one call: LoRA training by plain PEFT, tuned PEFT and lean groups, and the published sweep's costs.

    python benchmarks/gpu.py [--shape 7b] [--minutes 12] [--device cuda] [--out FILE]

A model of Qwen2.5's shape gets random bfloat16 weights (speed does not depend on them; nothing is downloaded).
Samples are random tokens in a mix of lengths like HelpSteer2's, cut at 384. Every way makes whole optimizer steps of 8
samples an adapter, all linear layers, the published sweep's ranks and dropouts, clipping and AdamW included:

    naive PEFT     micro-batches of 2, 4 to a step, as they come, each padded to its longest; logits of all tokens
    tuned PEFT     one micro-batch of 8 of equal lengths, so without any padding; logits where they count
    lean           1, 2, 4, 8, 16, 21 adapters at once, in passes of several sizes; packed

PEFT's adapters are float32 under autocast to bfloat16 on a GPU, one of rank 16 and one of rank 32 by turns; there is no
loading in any figure, the process is warm. Rounds over all ways are interleaved until the minutes are over, a way
repeats its step for two seconds in each, and medians are told. Seconds are wall clock, on a CPU the process's. Joules
are NVML's counter of the whole board (RAPL on a CPU); where there is none they are left out. `peak` is the base, the
way's own adapters and what lived beyond that. How many tokens pass at once is chosen by the model of memory; what is
out of memory is told and skipped, but PEFT then tries activation checkpointing. The rows marked (*) say where time
goes, and are in no projection.

With `--power-limit-w 300` the fastest lean way is timed once more at the end, by turns with that limit and without (*).
That changes a setting of the GPU, needs root, and is put back; where it may not be set the row says so.

The projection is arithmetic (gpu_projection.py): 21 configurations of 12,000 samples, judged on 1,000. The file, by
default docs/results/gpu-<device>-<shape>.json, is also one that a spec's `estimates.results` reads.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from gpu_report import report
from gpu_ways import EFFECTIVE, LONGEST, Lean, Peft, Way, samples, spread_over
from shapes import SHAPES, frozen

from gridsweep.energy.meters import Meter
from gridsweep.energy.nvml import NvmlMeter
from gridsweep.energy.power_limits import limited
from gridsweep.energy.rapl import RaplMeter
from gridsweep.errors import SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import LoraParams, Model
from gridsweep.sweep.stints import Device
from gridsweep.train.device import accelerator_index, device_name
from gridsweep.train.footprint import HEADROOM, Footprint, of_model, weights_of
from gridsweep.train.lean.group import Group, Plan

INDEX = accelerator_index()  # before CUDA starts, which is to count GPUs as NVML does
SIZES = (21, 16, 8, 4, 2, 1)
PASSES = {1: (1,), 2: (1, 2), 4: (2, 4), 8: (4, 8), 16: (8, 16), 21: (4, 8, 21)}
TINY_LONGEST = 48  # tokens, so that a CPU gets to its end in a minute
WARM_UP = 0.45  # of the time at most
AT_LEAST_S = {"cuda": 2.0, "cpu": 0.0}
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")


class Bench:
    """All ways, timed in rounds until `until` (monotonic seconds)."""

    def __init__(
        self,
        device: torch.device,
        base_bytes: int,
        meter: Meter | None,
        until: float,
        now: Callable[[], float] = time.monotonic,
    ):
        self.device, self.base_bytes, self.meter, self.until = device, base_bytes, meter, until
        self.now = now
        self.clock = time.perf_counter if device.type == "cuda" else time.process_time
        self.ways: list[Way] = []
        self.took: dict[int, float] = {}  # wall seconds of a way's last turn
        self.rounds = 0

    def run(self, begun: float) -> None:
        last = begun + WARM_UP * (self.until - begun)
        for way in self.ways:
            if not way.why and self.now() > last:
                way.why = "not reached in the time given"
            if not way.why:
                self._turn(way, 0, 0.0)
                way.seconds.clear(), way.joules.clear()
                print(f"  warm: {way.name}{f': {way.why}' if way.why else ''}", flush=True)
        while self._round():
            self.rounds += 1
            print(f"  round {self.rounds}, {max(0.0, self.until - self.now()):.0f} s left", flush=True)
        for way in self.ways:
            if not way.why and not way.seconds:
                way.why = "not reached in the time given"

    def _round(self) -> bool:
        """Whether there was time for every way."""
        for way in self.ways:
            if way.why:
                continue
            need = max(AT_LEAST_S[self.device.type], self.took[id(way)])
            if self.rounds and self.now() + need > self.until:
                return False
            if self.now() > self.until:
                return False
            self._turn(way, 10 * self.rounds + 1, AT_LEAST_S[self.device.type])
        return any(not way.why for way in self.ways)

    def _turn(self, way: Way, step: int, at_least: float) -> None:
        """Time one way; where memory is too small, as it can be made to fit, or not at all."""
        begun, fits = self.now(), False
        while not fits and not way.why:
            try:
                self._timed(way, step, at_least)
                fits = True
            except torch.OutOfMemoryError:
                pass  # what the failed step made is let go of only after this clause
            if not fits:
                gc.collect()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                how = way.shrink() if way.shrink else ""
                way.seconds.clear(), way.joules.clear()
                way.peak = 0
                if not how:
                    way.why = "out of memory"
                elif how not in way.name:
                    way.name += f", {how}"
        self.took[id(way)] = self.now() - begun

    def _timed(self, way: Way, step: int, at_least: float) -> None:
        on_gpu = self.device.type == "cuda"
        lived = 0
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            lived = torch.cuda.memory_allocated()
        joules = self.meter.joules() if self.meter else 0.0
        wall, start, tokens = self.now(), self.clock(), 0
        while not tokens or self.now() - wall < at_least:
            tokens += way.make(step)
            step += 1
            if on_gpu:
                torch.cuda.synchronize()
        way.seconds.append((self.clock() - start) / tokens)
        if self.meter:
            way.joules.append((self.meter.joules() - joules) / tokens)
        if on_gpu:
            beyond = torch.cuda.max_memory_allocated() - lived
            way.peak = max(way.peak, self.base_bytes + way.held + beyond)


def build(shape: str, device: torch.device, longest: int, bench: Bench, base: Any) -> None:
    """All ways, the most telling first; adapters that do not fit beside the base are told as ways without figures."""
    train = samples(512, longest, SHAPES[shape]["vocabulary"])
    pefts = {}
    for r in (32, 16):
        try:
            pefts[r] = Peft(base, LoraParams(r, 64, 5e-5, 0.1), train)
        except torch.OutOfMemoryError:
            bench.ways.append(Way(f"PEFT, rank {r}", "naive", 1, lambda n: 0, 0, r, why="out of memory"))
    for r, one in pefts.items():
        held = one.held
        bench.ways.append(Way(f"naive PEFT 2 x 4, rank {r}", "naive", 1, one.naive, held, r, 2, shrink=one.checkpoint))
        bench.ways.append(Way(f"tuned PEFT 8, rank {r}", "tuned", 1, one.tuned, held, r, 8, shrink=one.checkpoint))
    if 32 in pefts:
        for level, kind in ((False, "naive"), (True, "tuned")):
            name = f"judging, {kind} PEFT"
            bench.ways.append(Way(name, f"judging {kind}", 1, pefts[32].judge(level), pefts[32].held))
    group = resident(base, train, device)
    if group is None:
        bench.ways.append(Way("lean", "lean", 1, lambda n: 0, 0, why="out of memory"))
        return
    footprint = Footprint(weights_of(base), base.dtype.itemsize, group.lean.shapes, base.config, 2 / 3)
    memory = float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
    lean = Lean(group, footprint, memory)
    most = len(group.members)
    for members in (1, *(n for n in SIZES if n > 1)):
        if members > most:
            bench.ways.append(
                Way(f"lean, {members}", "lean", members, lambda n: 0, 0, why=f"out of memory: {most} fit")
            )
            continue
        bench.ways += [lean.way(members, size) for size in PASSES[members]]
    bench.ways.append(lean.judging(train, min(8, most)))
    other = device.type != "cpu"
    some = min(8, most)
    bench.ways += [
        lean.way(1, 1, name="(*) lean, 1, logits in larger portions", kind="probe", logits=2**27),
        lean.way(1, 1, name=f"(*) lean, 1, masks {'kept' if other else 'made again'}", kind="probe", kept=other),
        lean.way(some, min(4, some), name=f"(*) lean, {some} in passes of {min(4, some)}, no dropout", kind="probe",
                 dropout=False),
    ]  # fmt: skip


def resident(base: Any, train: list[Any], device: torch.device) -> Group | None:
    """As many members as fit, of the published ones."""
    footprint = of_model(base, EFFECTIVE.target_modules)
    for size in SIZES:
        wanted = sum(footprint.adapter(params.r) for params in spread_over(size))
        if device.type == "cuda" and wanted > (1 - HEADROOM) * torch.cuda.mem_get_info()[0]:
            continue
        parts = [Part(f"{n}", params, n, 0, 1000) for n, params in enumerate(spread_over(size))]
        try:
            return Group(base, parts, EFFECTIVE, 1000, train, Model("./random"), plan=Plan(1))
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
    return None


def limited_and_not(bench: Bench, watts: float, rounds: int = 5) -> list[Way]:
    """The fastest lean way with the GPU's power limited and without, by turns; a reason where that cannot be."""
    found = [way for way in bench.ways if way.kind == "lean" and way.seconds and not way.why]
    if not found:
        return [Way(f"(*) limited to {watts:g} W", "power", 1, lambda n: 0, 0, why="no lean way was measured")]
    best = min(found, key=lambda way: median(way.seconds))
    free, capped = (
        replace(best, name=f"(*) {best.name}, {how}", kind="power", seconds=[], joules=[])
        for how in ("its usual power", f"limited to {watts:g} W")
    )
    for n in range(rounds):
        bench._turn(free, 1000 + 20 * n, AT_LEAST_S[bench.device.type])
        try:
            with limited(Device("gpu", power_limit_w=watts), INDEX) as said:
                if not said.startswith(f"{watts:g} W, "):
                    capped.why = f"power limit {said}"
                    break
                bench._turn(capped, 1000 + 20 * n, AT_LEAST_S[bench.device.type])
        except SpecError as error:
            capped.why = str(error)
            break
    return [free, capped]


def meter_of(device: torch.device) -> Meter | None:
    """One that counts, never a model."""
    try:
        return NvmlMeter(0 if INDEX is None else INDEX) if device.type == "cuda" else RaplMeter()
    except Exception:  # whatever a driver or a kernel answers
        return None


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--power-limit-w", type=float, metavar="W")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> int:
    told, begun = options(), time.monotonic()
    if told.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; try --device cpu --shape tiny --minutes 1", file=sys.stderr)
        return 2
    device = torch.device(told.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    name = device_name(device)
    longest = TINY_LONGEST if told.shape == "tiny" else LONGEST
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    print(f"{name}, {told.shape}, {str(dtype).removeprefix('torch.')}, samples cut at {longest} tokens", flush=True)
    base = frozen(told.shape, device, dtype)
    meter = meter_of(device)
    energy = meter.source if meter else None
    print(f"energy: {energy or 'no counter is readable; joules and kWh are left out'}", flush=True)
    bench = Bench(device, weights_of(base), meter, begun + 60 * told.minutes)
    build(told.shape, device, longest, bench, base)
    print(f"  built in {time.monotonic() - begun:.0f} s", flush=True)
    bench.run(begun)
    if told.power_limit_w is not None:
        bench.ways += limited_and_not(bench, told.power_limit_w)
    report(bench.ways, device, told, name, longest, energy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
