"""Find a device's best settings for a model: time groups of several sizes, and measure their memory and energy.

Energy is measured only where a meter counts it.
"""

from __future__ import annotations

import platform
import random
import re
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import torch

from gridsweep.energy.meters import Meter
from gridsweep.energy.nvml import NvmlMeter
from gridsweep.energy.power_limits import seen
from gridsweep.energy.rapl import RaplMeter
from gridsweep.errors import HubError, SpecError
from gridsweep.records.attempts import Part
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe, is_local
from gridsweep.train import data
from gridsweep.train.device import accelerator_index, described, device_and_dtype, device_name
from gridsweep.train.encoding import encode
from gridsweep.train.footprint import HEADROOM, SHORT_LIVED, Footprint, of_model, weights_of
from gridsweep.train.lean.group import Group, Plan
from gridsweep.train.lean.measure import Choice, measure
from gridsweep.train.lean.packing import pack, runs
from gridsweep.train.machine_memory import resident, there
from gridsweep.train.model import load_base
from gridsweep.train.peak import Peak
from gridsweep.train.samples import Sample

if TYPE_CHECKING:
    from gridsweep.train.pretrained import CausalLM, Tokenizer

SCHEMA_VERSION = 1
SIZES = (1, 2, 4, 8, 16, 32)
DEFAULT_PARAMS = tuple(LoraParams((16, 32)[n % 2], 64, 5e-5, 0.1) for n in range(16))
METERED_S = 1.0  # a GPU's counter moves a few times a second
ROUNDS = 3
MANY = 10_000  # the most random-token samples to make; never more than one step needs


@dataclass(frozen=True, slots=True)
class Subject:
    """The sweep to measure; `params` are the experiments', `memory` is the device's in bytes if the spec states it."""

    model: Model
    dataset: Dataset
    recipe: Recipe
    params: tuple[LoraParams, ...]
    memory: float | None = None


class Weighed(TypedDict):
    """A choice with its speed, memory and energy; `joules_per_token` and `peak_bytes` are None if not measurable."""

    members: int
    tokens_in_a_pass: int
    remember: bool
    tokens_per_s: float
    joules_per_token: float | None
    foreseen_bytes: int
    peak_bytes: int | None


class Memory(TypedDict):
    """The memory model's figures; `adapter_bytes` and `bytes_per_token` are by rank."""

    device_bytes: int
    base_bytes: int
    adapter_bytes: dict[str, int]
    bytes_per_token: dict[str, int]
    tokens_of_a_step: int
    fit_resident: int
    fit_at_once: int


class LeftOut(TypedDict):
    """A number of members that was not measured, and the reason."""

    members: int
    why: str


class Measurement(TypedDict):
    """All results for a device and a model, as printed and kept in the cache."""

    schema_version: int
    device: str
    kind: str
    dtype: str
    model: str
    samples: str
    measured_at: str
    versions: dict[str, str]
    energy: str | None
    power: dict[str, float] | None
    memory: Memory
    choices: list[Weighed]
    best: Weighed
    left_out: list[LeftOut]
    written: NotRequired[str]  # the file, once written


def measured(subject: Subject, seconds: float) -> Measurement:
    """Measure for about `seconds`, not counting loading. Raise `SpecError` if the model is not on this machine."""
    index = accelerator_index()  # before torch counts GPUs
    device, dtype = device_and_dtype()
    try:
        tokenizer, base = load_base(subject.model, device, dtype)
    except (HubError, SpecError) as error:
        raise SpecError(f"{error}; doctor --train downloads nothing") from error
    samples, what = _samples(subject, tokenizer, base.config.vocab_size)
    until = time.monotonic() + seconds
    group = _group(base, subject, samples)
    sizes, left_out = _affordable(group, seconds * 0.6)
    tokens, small = _tokens(group, sizes)
    left_out |= small
    sizes = list(tokens)
    found = _measured(group, tokens, seconds * 0.6)
    meter = _meter(device, index)
    try:
        by_size = {n: [choice for choice in found if choice.members == n] for n in sizes}
        fastest = [max(some, key=lambda choice: choice.tokens_per_s) for some in by_size.values() if some]
        each = max(0.0, until - time.monotonic()) / max(1, len(fastest))
        weighed = [_weighed(group, choice, tokens[choice.members], meter, min(each, METERED_S)) for choice in fastest]
    finally:
        if meter is not None:
            meter.close()
    left_out |= {n: "out of memory" for n, some in by_size.items() if not some}
    if not weighed:
        raise SpecError(f"not even one adapter trains beside {subject.model.id} in this device's memory")
    best = max(weighed, key=lambda choice: choice["tokens_per_s"])
    return {
        "schema_version": SCHEMA_VERSION,
        "device": device_name(device),
        "kind": described(device),
        "dtype": str(dtype).removeprefix("torch."),
        "model": subject.model.id,
        "samples": what,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
        "energy": meter.source if meter is not None else None,
        "power": _power(device, index),
        "memory": _memory(group, subject, device),
        "choices": weighed,
        "best": best,
        "left_out": [{"members": n, "why": why} for n, why in sorted(left_out.items())],
    }


def file_name(device: str) -> str:
    """Return a device's name as a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower() or "device"


def _samples(subject: Subject, tokenizer: Tokenizer, vocabulary: int) -> tuple[list[Sample], str]:
    """Return samples and their origin: the dataset if it is local, else random tokens of the maximum length."""
    recipe, dataset = subject.recipe, subject.dataset
    if dataset.id == "stdlib" or is_local(dataset.id) or Path(dataset.id).is_dir():
        pairs, template = data.load(dataset, recipe).train, subject.model.chat_template
        found = encode(tokenizer, pairs, recipe.max_length, template=template).samples
        if found:
            mean = sum(len(sample.ids) for sample in found) / len(found)
            return found, f"{len(found)} samples of {dataset.id}, {mean:.0f} tokens on average"
    length = min(recipe.max_length, 4096)
    chance = random.Random(recipe.seed)
    made = [
        Sample(tuple(chance.randrange(vocabulary) for _ in range(length)), max(1, length // 3))
        for _ in range(min(MANY, recipe.batch_size * recipe.accumulation))
    ]
    return made, f"random tokens, {length} a sample, as {dataset.id} is not a local dataset"


def _group(base: CausalLM, subject: Subject, samples: list[Sample]) -> Group:
    """Return a group of the sweep's first experiments, as many as requested and as fit the memory."""
    params = (subject.params or DEFAULT_PARAMS)[: SIZES[-1]]
    total = 1000
    if base.device.type == "cuda":  # leave room for a pass of one member
        longest = round(SHORT_LIVED * max(len(sample.ids) for sample in samples))
        free = weights_of(base) + torch.cuda.mem_get_info(base.device)[0]
        footprint = of_model(base, subject.recipe.target_modules)
        params = params[: max(1, footprint.resident(free, max(one.r for one in params), longest))]
    while True:
        members = [Part(str(n), one, n, 0, total) for n, one in enumerate(params)]
        try:
            return Group(base, members, subject.recipe, total, samples, subject.model, plan=Plan(1),
                         layers=subject.recipe.layers)  # fmt: skip
        except torch.OutOfMemoryError:
            if len(params) == 1:
                raise SpecError(f"not even one adapter fits beside {subject.model.id} on this device") from None
            params = params[: len(params) // 2]
            torch.cuda.empty_cache()


def _affordable(group: Group, seconds: float) -> tuple[list[int], dict[int, str]]:
    """Return the sizes that can be timed in `seconds`, estimated from one member's pass, and why the others cannot."""
    wanted = [n for n in SIZES if n < len(group.members)] + [len(group.members)]
    took = _seconds_of_a_pass(group)
    sizes, left_out, spent = [1], {}, took * 2 * (ROUNDS + 1)
    for n in wanted[1:]:
        spent += took * n * 2 * 2  # masks kept and recomputed, each with one warm-up and at least one timed pass
        if spent > seconds:
            left_out[n] = f"would take longer than {seconds:.0f} s"
        else:
            sizes.append(n)
    return sizes, left_out


def _tokens(group: Group, sizes: list[int]) -> tuple[dict[int, int | None], dict[int, str]]:
    """Return, by the memory model, each size's tokens per member in a pass (None: a step's), and why others are out."""
    lengths = [len(sample.ids) for sample in group.batch(0)]
    if group.device.type != "cuda":
        return dict.fromkeys(sizes), {}
    free, _ = torch.cuda.mem_get_info(group.device)
    free += torch.cuda.memory_reserved(group.device) - torch.cuda.memory_allocated(group.device)
    footprint = _footprint(group, False)
    found: dict[int, int | None] = {}
    left_out = {}
    for n in sizes:
        r = max(part.params.r for part in group.roster.parts.values())
        each = ((1 - HEADROOM) * free - footprint.logits(n)) / (n * footprint.token(r, n) * SHORT_LIVED)
        if each < max(lengths):
            left_out[n] = "out of memory by its model"
        else:
            found[n] = None if each >= sum(lengths) else int(each)
    if not found:
        found[1] = max(lengths)  # the memory model may be too strict
        del left_out[1]
    return found, left_out


def _measured(group: Group, tokens: dict[int, int | None], seconds: float) -> list[Choice]:
    """Return all choices, timed in turns; sizes that differ in tokens per pass are timed one after another."""
    if set(tokens.values()) == {None}:
        return list(measure(group, sizes=tuple(tokens), rounds=ROUNDS, seconds=seconds).choices)
    found: list[Choice] = []
    for n, each in tokens.items():
        group.plan = replace(group.plan, tokens=each)
        found += measure(group, sizes=(n,), rounds=ROUNDS, seconds=seconds / len(tokens)).choices
    return found


def _seconds_of_a_pass(group: Group) -> float:
    """Return the seconds of a step of one member, one sample per pass: the smallest memory need there is."""
    lengths = [len(sample.ids) for sample in group.batch(0)]
    before, group.plan = group.plan, replace(group.plan, tokens=max(lengths), remember=False)
    try:
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            tokens = _pass(group, 1)
        return (time.perf_counter() - start) * sum(lengths) / tokens
    except torch.OutOfMemoryError:
        return 0.0  # `measure` reports the problem
    finally:
        group.plan = before


def _pass(group: Group, members: int) -> int:
    """Run one forward and backward pass of the first step's samples; return the number of tokens of all members."""
    packed = pack(runs(group.batch(0), group.plan.tokens)[0], group.device)
    names = group.roster.portions(members)[0]
    group.forward_backward(names, packed, 0, max(1, len(packed.targets)))
    if group.device.type == "cuda":
        torch.cuda.synchronize(group.device)
    return packed.tokens * len(names)


def _weighed(group: Group, choice: Choice, at_once: int | None, meter: Meter | None, seconds: float) -> Weighed:
    """Measure a choice's peak memory and, if a meter counts, its energy, over passes for `seconds` (at least one)."""
    before, group.plan = group.plan, Plan(choice.members, at_once, choice.remember)
    length = sum(len(sample.ids) for sample in runs(group.batch(0), at_once)[0])
    peak = Peak(group.device)
    try:
        start, joules, tokens = time.monotonic(), meter.joules() if meter else 0.0, 0
        while not tokens or (meter is not None and time.monotonic() - start < seconds):
            tokens += _pass(group, choice.members)
        drawn = meter.joules() - joules if meter else None
    finally:
        group.plan = before
    footprint = _footprint(group, choice.remember)
    ranks = [group.roster.parts[name].params.r for name in group.roster.portions(choice.members)[0]]
    every = [part.params.r for part in group.roster.parts.values()]
    held = footprint.base + sum(map(footprint.adapter, every))
    foreseen = held + footprint.in_a_pass(ranks, length)
    return {
        "members": choice.members,
        "tokens_in_a_pass": length,
        "remember": choice.remember,
        "tokens_per_s": choice.tokens_per_s,
        "joules_per_token": drawn / tokens if drawn else None,
        "foreseen_bytes": round(foreseen),
        "peak_bytes": peak.bytes(held),
    }


def _footprint(group: Group, remember: bool) -> Footprint:
    base, samples = group.lean.base, group.batch(0)
    counted = sum(sample.counted for sample in samples) / sum(len(sample.ids) for sample in samples)
    dropping = any(part.params.dropout for part in group.roster.parts.values())
    return Footprint(
        weights_of(base), base.dtype.itemsize, group.lean.shapes, base.config, counted, remember and dropping
    )


def _memory(group: Group, subject: Subject, device: torch.device) -> Memory:
    """Return the memory model's figures for recomputed masks, and how many adapters of the largest rank fit."""
    on_gpu = device.type == "cuda"
    whole = float(torch.cuda.get_device_properties(device).total_memory) if on_gpu else there()
    memory = whole if subject.memory is None else subject.memory
    footprint = _footprint(group, False)
    if not on_gpu:  # the process takes of the same memory
        adapters = sum(footprint.adapter(part.params.r) for part in group.roster.parts.values())
        footprint = replace(footprint, beside=max(0.0, resident() - footprint.base - adapters))
    ranks = sorted({part.params.r for part in group.roster.parts.values()})
    lengths = [len(sample.ids) for sample in group.batch(0)]
    return {
        "device_bytes": round(memory),
        "base_bytes": footprint.base,
        "adapter_bytes": {str(r): footprint.adapter(r) for r in ranks},
        "bytes_per_token": {str(r): round(footprint.token(r)) for r in ranks},
        "tokens_of_a_step": sum(lengths),
        "fit_resident": footprint.resident(memory, ranks[-1], max(lengths)),
        "fit_at_once": footprint.at_once(memory, ranks[-1], sum(lengths)),
    }


def _power(device: torch.device, index: int | str | None) -> dict[str, float] | None:
    """Return the GPU's power limits in W and whether this process may set them; None if unknown."""
    try:
        limits, may = seen(0 if index is None else index, trying=True) if device.type == "cuda" else (None, False)
    except Exception:  # any error of the driver
        return None
    return None if limits is None else {**asdict(limits), "may_be_set": may}


def _meter(device: torch.device, index: int | str | None) -> Meter | None:
    """Return a meter that measures; None instead of a meter that only models."""
    try:
        return NvmlMeter(0 if index is None else index) if device.type == "cuda" else RaplMeter()
    except Exception:  # any error of the driver or the kernel
        return None
