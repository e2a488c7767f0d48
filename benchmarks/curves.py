"""Make a table of learning curves: whole sweeps of 21 experiments, of which the losses alone are kept.

    python benchmarks/curves.py --bases FOLDER [--only FAMILY] [--list]

Each sweep trains 21 configurations together to their end with the lean trainer: cosine, 5 % warm-up, batches of 4.
Families differ in text, in the shape of the base, in its adapted modules, in length and in space (`FAMILIES`); within a
family, sweeps differ in seed (split, order, initial weights, dropout) and in the multiple of all learning rates, which
moves the optimum. What is written, one file a sweep in benchmarks/curves/, gzip JSON with four decimals:

- `averaged`: at 1/16, 1/8, 3/16, 1/4, 3/8, 1/2, 5/8, 3/4 and 7/8 of the steps, the loss of the averaged weights on each
  of the 48 validation samples judged at rungs; `raw`: there, the mean loss of the weights as they are on 24 of them;
- `window`: there, the training loss of the last tenth of all steps; `train`: the training loss in 32 parts;
- `final`: the loss of the weights after the last step on each of 192 validation samples; the first are those of rungs.

A finished sweep is a file and is not run again, so that the program may be stopped at any time. A sweep takes about 45
seconds of CPU time on one thread (up to 78 where the machine is shared); those of the family `long` make ten times as
many steps and take longer. An experiment that diverged has no values from there on. The rules are replayed on these
files by `rung_race.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import gzip
import hashlib
import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from curve_texts import Shape, base_of, samples, split

from gridsweep.records.attempts import Part
from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import ALL_LINEAR, LoraParams, Model, Recipe
from gridsweep.train.lean.group import Group, Plan

FOLDER = Path(__file__).parent / "curves"
SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
JUDGED, VALIDATION, RAW, BATCH = 48, 192, 24, 4  # validation samples at rungs, at the end, and for `raw`
PARTS = 32  # of the training losses


@dataclass(frozen=True, slots=True)
class Family:
    """Sweeps that share text, base, length and space; `multiples` of the learning rates are taken by turns."""

    base: str  # the text of the base
    text: str  # the text of the adapters
    shape: Shape
    space: str
    multiples: tuple[float, ...]
    steps: int
    tokens: int
    sweeps: int
    first: int  # seed
    modules: tuple[str, ...] = (ALL_LINEAR,)


SMALL = Shape("qwen2", 96, 256, 2, 4, 2, 512, 500)
DEEP = Shape("llama", 64, 176, 4, 4, 4, 384, 400)
WIDE = Shape("qwen2", 128, 384, 2, 4, 1, 1024, 350)
BYTES = Shape("llama", 112, 288, 2, 7, 7, 258, 500)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
QV = ("q_proj", "v_proj")

FAMILIES = {
    "source": Family("stdlib", "stdlib", SMALL, "published", (10, 40, 100), 128, 32, 12, 1000),
    "records": Family("stdlib", "records", SMALL, "drawn", (1, 4), 112, 40, 10, 1100),
    "prose": Family("prose", "prose", DEEP, "drawn", (1, 3, 8), 128, 32, 12, 1200, QV),
    "headers": Family("library", "headers", BYTES, "published", (20, 60, 150), 128, 32, 10, 2000),
    "library": Family("prose", "library", WIDE, "lattice", (1, 3), 144, 32, 10, 2100, ATTENTION),
    "edge": Family("library", "prose", BYTES, "published", (3, 6), 112, 48, 8, 2200, ATTENTION),
    "long": Family("stdlib", "library", SMALL, "published", (20, 60), 1280, 32, 4, 2300, QV),
}


# -- spaces of 21 points


def points(space: str, seed: int) -> list[LoraParams]:
    """Return 21 points; those of `drawn` and `lattice` depend on the seed."""
    if space == "published":
        return list(published())
    chance = random.Random(f"{space} {seed}")
    if space == "drawn":  # each value by itself; rates over two decades
        found = []
        while len(found) < 21:
            rate = float(f"{10 ** chance.uniform(-3.6, -1.9):.3g}")
            found.append(
                LoraParams(chance.choice((2, 4, 8, 16)), float(chance.choice((8, 16, 32))), rate,
                           chance.choice((0.0, 0.05, 0.1)))
            )  # fmt: skip
        return found
    rates = [6e-4, 1e-3, 2e-3, 3e-3, 5e-3, 8e-3, 1.2e-2]  # seven rates at three pairs of rank and alpha
    pairs = chance.sample([(4, 8.0), (4, 32.0), (8, 16.0), (8, 64.0), (16, 32.0), (32, 32.0)], 3)
    return [LoraParams(r, alpha, rate, 0.05) for r, alpha in pairs for rate in rates]


# -- a sweep


def sweep(name: str, multiple: float, seed: int, bases: Path) -> dict[str, Any]:
    """Train the 21 experiments of one sweep to their end; return its losses."""
    family = FAMILIES[name]
    shape = hashlib.sha256(json.dumps(asdict(family.shape)).encode()).hexdigest()[:8]
    tokenizer, base, facts = base_of(bases / f"{family.base}-{shape}", family.base, family.shape)
    _, train_texts, validation_texts = split(family.text)
    validation = samples(tokenizer, validation_texts, seed, family.tokens, VALIDATION)
    train = samples(tokenizer, train_texts, seed, family.tokens, min(BATCH * family.steps, 1600))
    params = [replace(p, lr=p.lr * multiple) for p in points(family.space, seed)]
    names = [f"{n:02}" for n in range(len(params))]
    members = [Part(n, p, seed, 0, family.steps) for n, p in zip(names, params, strict=True)]
    recipe = Recipe(
        steps=family.steps, batch_size=BATCH, accumulation=1, max_length=family.tokens, warmup=0.05, seed=seed,
        target_modules=family.modules,
    )  # fmt: skip
    start = time.process_time()
    found: dict[str, Any] = {
        "family": name,
        "seed": seed,
        "multiple": multiple,
        "params": [[p.r, p.alpha, p.lr, p.dropout] for p in params],
        "steps": family.steps,
        "base": facts,
        "digest": hashlib.sha256(repr([s.ids for s in validation + train]).encode()).hexdigest()[:16],
    }
    group = Group(base, members, recipe, family.steps, train, Model("tiny"), plan=Plan(7))
    try:
        found |= curves(group, validation, names)
    finally:
        group.close()
    return found | {"cpu_s": round(time.process_time() - start, 1)}


def curves(group: Group, validation: list[Any], names: list[str]) -> dict[str, Any]:
    """Return what is recorded at each share and at the end."""
    total = group.total_steps
    at = [max(1, round(share * total)) for share in SHARES]
    averaged, raw, window = [], [], []
    every: dict[str, list[float]] = {name: [] for name in names}
    for step in range(total):
        for name, loss in group.step(step, lambda: None).items():
            every[name].append(loss)
        if step + 1 in at:
            scores = group.evaluate(validation[:JUDGED], lambda: None, averaged=True)
            averaged.append([rounded(scores[n].sums / scores[n].counts) if n in scores else None for n in names])
            now = group.evaluate(validation[:RAW], lambda: None)
            raw.append([round(now[n].mean, 4) if n in now else None for n in names])
            recent = max(1, total // 10)
            window.append([round(mean(every[n][-recent:]), 4) if n in now else None for n in names])
    last = group.evaluate(validation, lambda: None)
    parts = [[round(mean(part), 3) for part in in_parts(every[n], total)] for n in names]
    return {
        "at": at,
        "averaged": averaged,
        "raw": raw,
        "window": window,
        "train": parts,
        "final": [rounded(last[n].sums / last[n].counts) if n in last else None for n in names],
        "diverged": sorted(group.diverged),
    }


def in_parts(values: list[float], total: int) -> list[list[float]]:
    """Divide the losses of a run into 32 parts of equal length; those after a divergence are left out."""
    edges = [round(part * total / PARTS) for part in range(PARTS + 1)]
    cuts = (values[low:high] for low, high in pairwise(edges))
    return [cut for cut in cuts if cut and all(map(math.isfinite, cut))]


def rounded(values: torch.Tensor) -> list[float] | None:
    """Return losses with four decimals; None where one is not finite."""
    listed = [round(value, 4) for value in values.tolist()]
    return listed if all(map(math.isfinite, listed)) else None


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# -- all of them


def planned() -> list[tuple[str, float, int]]:
    """Return every sweep: family, multiple, seed. Families take turns, so that a stop leaves some of each."""
    found = []
    for name, family in FAMILIES.items():
        for n in range(family.sweeps):
            place = (n + 0.5) / family.sweeps
            found.append((place, name, family.multiples[n % len(family.multiples)], family.first + n))
    return [(name, multiple, seed) for _, name, multiple, seed in sorted(found)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bases", type=Path, required=True, help="where the tiny bases are kept")
    parser.add_argument("--only", choices=FAMILIES, help="one family")
    parser.add_argument("--to", type=Path, default=FOLDER, help="where the curves go")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.to.mkdir(parents=True, exist_ok=True)
    for name, multiple, seed in planned():
        file = asked.to / f"{name}-{seed}.json.gz"
        if file.is_file() or (asked.only and name != asked.only):
            continue
        if asked.list:
            print(f"{name} x{multiple:g} seed {seed}")
            continue
        found = sweep(name, multiple, seed, asked.bases)
        draft = file.with_suffix(".part")
        draft.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), 9, mtime=0))
        draft.rename(file)
        print(f"{name} x{multiple:g} seed {seed}: {found['cpu_s']} CPU seconds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
