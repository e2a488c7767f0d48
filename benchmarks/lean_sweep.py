"""The whole published sweep on this CPU: CPU seconds to its winner, beside plain PEFT, one experiment after another.

    python benchmarks/lean_sweep.py [--quick] [--out FILE]

21 configurations, tiny-qwen2, functions of the standard library, effective batches of 8, one thread, one warm process.
Two kinds of data: `equal`, samples of exactly 64 tokens, without any padding to compute; and `mixed`, all functions of
the data's half cut at 384 tokens, whose lengths vary widely. For every 12 samples trained on one validates, as in the
published sweep (1,000 beside 3 epochs of 4,000).

(i) Plain PEFT: micro-batches of 2, 4 to a step, as they come, each padded to its longest; all steps, and the validation
loss before and after. (ii) Tuned PEFT, the faster of one micro-batch of 8 and of 4 micro-batches of 2 sorted by length
within the step. (iii) Ours: the default rungs stop those that fall behind;
all members together, in passes of at most 512 tokens a member and of as many members as
`gridsweep.train.lean.measure` found best (its time is counted); averaged weights judged on a quarter of the validation
samples at a rung, the last few on all of it. (iii) runs in full. (i) and (ii) run on one configuration of rank 16 and
two of rank 32 in each of five rounds, taken by turns, a step or two and an evaluation each; from their medians by rank
the whole is reckoned, 8 configurations of rank 16 and 13 of rank 32, by the tokens they compute, padding included. The
rounds lie before, between and after the stages of (iii). Fresh adapters and optimizers of (i) and (ii) are not counted;
those of (iii) are.

In each round groups of some sizes make the same steps as (i). `packed` is what a member's step takes in such a group of
what it takes in (i), with portions as measured; at 21 it is the ratio without rungs. All are medians over rounds.

docs/results/lean-cpu.json has for each kind of data, and of `equal` at its top level:

    packed      pairs [members, share of the time the same members take one after another in plain PEFT]
    evaluation  judging one experiment at a rung, as a share of its whole run in plain PEFT
    stages      members, steps and CPU seconds from one rung to the next, and a member-step's share of plain PEFT's
    share       all of (iii) over all of (i); `share_of_tuned` over (ii)
    winner      the experiment with the smallest last validation loss

--quick makes half the steps and shorter rounds. Takes about eight minutes of CPU time. Exits 1 where a goal is missed:
`share` at most 1/4, and 1/5 for `mixed`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import platform
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "train"))
from plain_peft import Training, add_lora

from gridsweep.records.attempts import Part
from gridsweep.selection.halving import Score, at_rung
from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import Model, Recipe, number
from gridsweep.sweep.losses import Losses, which_score
from gridsweep.sweep.rungs import DEFAULT, steps
from gridsweep.train import stdlib
from gridsweep.train.conversations import asked
from gridsweep.train.encoding import encode
from gridsweep.train.lean.group import Group, Plan, Scores
from gridsweep.train.lean.measure import measure
from gridsweep.train.model import load_base
from gridsweep.train.samples import Sample, effective_batch

MODEL, RUNGS, SEED, MULTIPLE = Model("tiny-qwen2"), DEFAULT, 42, 10.0  # of all learning rates, for so small a model
TWO_BY_FOUR, EIGHT = Recipe(batch_size=2, accumulation=4), Recipe(batch_size=8, accumulation=1)
PLAIN, SORTED, ONE = "PEFT 2 x 4", "PEFT 2 x 4 sorted", "PEFT 8"
PORTIONS, AT_ONCE = (1, 2, 4), 512  # members, and tokens of each in a pass
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "lean-cpu.json"


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of data, and how long it is tried."""

    name: str
    longest: int
    equal: bool
    steps: int
    rounds: int
    a_round: int  # steps
    sizes: tuple[int, ...]
    goal: float


CASES = (
    Case("equal", 64, True, 120, 5, 2, (1, 2, 3, 4, 6, 8, 11, 21), 1 / 4),
    Case("mixed", 384, False, 32, 5, 1, (1, 2, 4, 21), 1 / 5),
)


def members(total: int) -> list[Part]:
    """The experiments."""
    found = []
    for n, params in enumerate(published()):
        name = f"{n + 1:02} r{params.r} a{number(params.alpha)} lr{number(params.lr)} d{number(params.dropout)}"
        found.append(Part(name, replace(params, lr=params.lr * MULTIPLE), SEED, 0, total))
    return found


def some_of(parts: Sequence[Part], size: int) -> list[Part]:
    """So many, ranks mixed as in the whole."""
    return [parts[n * len(parts) // size] for n in range(size)]


def samples(case: Case, tokenizer: Any) -> tuple[list[Sample], list[Sample]]:
    """To train on, and to validate."""
    sides = []
    for held_out in (False, True):
        found = [
            f for f in stdlib.functions() if stdlib.half(f.module) == "b" and stdlib.held_out(f.module) == held_out
        ]
        side = encode(tokenizer, [asked(f.prompt, f.response) for f in found], case.longest).samples
        side = [sample for sample in side if not case.equal or len(sample.ids) == case.longest]
        random.Random(SEED).shuffle(side)
        sides.append(side)
    return sides[0], sides[1][: 4 * round(case.steps * 8 / 12 / 4)]


def unsorted(train: Sequence[Sample], step: int, size: int, seed: int) -> list[Sample]:
    """The samples of a step as they come."""
    batch = effective_batch(train, step, size, seed)
    random.Random(step).shuffle(batch)
    return batch


def padded(batch: Sequence[Sample], size: int) -> int:
    """The tokens of a step in micro-batches of `size`, padding included."""
    micro = [batch[first : first + size] for first in range(0, len(batch), size)]
    return sum(len(some) * max(len(sample.ids) for sample in some) for some in micro)


class Bench:
    """One kind of data, everything that is timed on it, and the times."""

    def __init__(self, case: Case, tokenizer: Any):
        self.case, self.parts = case, members(case.steps)
        self.train, self.validation = samples(case, tokenizer)
        self.quarter = self.validation[: len(self.validation) // 4]
        self.seconds: dict[tuple[str, int], list[float]] = defaultdict(list)  # (way, rank): of a step's average token
        self.judging: dict[tuple[str, int], list[float]] = defaultdict(list)  # of one whole evaluation
        self.packed: dict[int, list[float]] = defaultdict(list)  # size: shares
        self.rounds = 0
        self.totals = {
            way: sum(padded(self.batch(way, step), size) for step in range(case.steps))
            for way, _, size in self.ways()
        }  # fmt: skip
        # What goes before is not timed.
        self.plan = Plan(tokens=AT_ONCE)
        self.groups = {size: Group(base(), some_of(self.parts, size), TWO_BY_FOUR, case.steps, self.train, MODEL)
                       for size in case.sizes}  # fmt: skip

    @staticmethod
    def ways() -> list[tuple[str, Recipe, int]]:
        return [(PLAIN, TWO_BY_FOUR, 2), (SORTED, TWO_BY_FOUR, 2), (ONE, EIGHT, 8)]

    def batch(self, way: str, step: int) -> list[Sample]:
        return (unsorted if way == PLAIN else effective_batch)(self.train, step, 8, SEED)

    def round(self) -> None:
        """A few steps of one configuration of rank 16 and two of rank 32, each way; then the groups' same steps."""
        case, turn = self.case, self.rounds
        self.rounds += 1
        begin = turn * case.steps // case.rounds
        span = range(begin, begin + case.a_round)
        small, large = ([part for part in self.parts if part.params.r == r] for r in (16, 32))
        chosen = [small[turn % 8], large[2 * turn % 13], large[(2 * turn + 1) % 13]]
        now: dict[tuple[str, int], list[float]] = defaultdict(list)
        for part in chosen:
            for way, recipe, size in self.ways():
                training = Training(
                    add_lora(base(), MODEL, part.params, recipe, SEED), part, recipe, case.steps, self.train, 0
                )
                with patch("plain_peft.effective_batch", unsorted if way == PLAIN else effective_batch):
                    training.step(0, lambda: None)  # warms up
                    took = cpu(lambda training=training: [training.step(step, lambda: None) for step in span])
                tokens = sum(padded(self.batch(way, step), size) for step in span)
                now[way, part.params.r].append(took / tokens)
                if way == PLAIN:
                    took = cpu(lambda training=training: training.evaluate(self.validation, case.steps, lambda: None))
                    self.judging[PLAIN, part.params.r].append(took)
        for key, found in now.items():
            self.seconds[key].append(sum(found) / len(found))
        tokens = sum(padded(self.batch(PLAIN, step), 2) for step in span)
        for size, group in self.groups.items():
            group.plan = replace(self.plan)
            if turn == 0:
                group.step(0, lambda: None)
            took = cpu(lambda group=group: [group.step(step, lambda: None) for step in span])
            alone = sum(self.seconds[PLAIN, part.params.r][-1] for part in group.roster.parts.values()) * tokens
            self.packed[size].append(took / alone)

    def run_s(self, way: str, r: int) -> float:
        """A whole run of one experiment, with the evaluations before and after."""
        return median(self.seconds[way, r]) * self.totals[way] + 2 * median(self.judging[PLAIN, r])

    def all_s(self, way: str) -> float:
        return 8 * self.run_s(way, 16) + 13 * self.run_s(way, 32)


@dataclass(slots=True)
class Chain:
    """Our whole sweep, stage by stage."""

    measuring: float = 0.0
    building: float = 0.0
    final: float = 0.0  # the last evaluation
    finalists: int = 0
    winner: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def total(self) -> float:
        spent = sum(stage["training_cpu_s"] + stage["evaluating_cpu_s"] for stage in self.stages)
        return self.measuring + self.building + self.final + spent


def run(bench: Bench, between: Callable[[], None]) -> Chain:
    """All of it; `between` is called between stages, and its time not counted."""
    case, chain = bench.case, Chain()
    model, start = base(), time.process_time()
    group = Group(
        model, bench.parts, replace(TWO_BY_FOUR, warmup=0.05), case.steps, bench.train, MODEL, plan=bench.plan
    )
    chain.building = time.process_time() - start
    start = time.process_time()
    group.plan = measure(group, sizes=PORTIONS, rounds=1, ahead=case.steps).plan(group.plan)
    chain.measuring = time.process_time() - start
    bench.plan = group.plan
    between()
    before = 0
    for place, at in enumerate(steps(RUNGS, case.steps)):
        stage = trained(group, before, at)
        scores: dict[str, Scores] = {}
        start = time.process_time()
        scores = group.evaluate(bench.quarter, lambda: None, averaged=True)
        stage["evaluating_cpu_s"] = round(time.process_time() - start, 2)
        judged = {name: Score(found.mean, None, losses(found)) for name, found in scores.items()}
        by = which_score(TWO_BY_FOUR.learning_rate_schedule)
        decided = at_rung(judged, RUNGS, place, by=by, of=len(bench.parts))
        group.drop([name for name in decided.stopped if name in group.members])
        chain.stages.append(stage | {"tied": len(decided.tied)})
        before = at
        between()
    chain.stages.append(trained(group, before, case.steps) | {"evaluating_cpu_s": 0.0})
    start = time.process_time()
    last = group.evaluate(bench.validation, lambda: None)
    chain.final, chain.finalists = time.process_time() - start, len(last)
    chain.winner = min(last, key=lambda name: last[name].mean)
    between()
    return chain


def trained(group: Group, begin: int, end: int) -> dict[str, Any]:
    ranks = [part.params.r for part in group.roster.parts.values()]
    took = cpu(lambda: [group.step(step, lambda: None) for step in range(begin, end)])
    return {
        "members": len(ranks),
        "rank_16": ranks.count(16),
        "from_step": begin,
        "to_step": end,
        "training_cpu_s": round(took, 2),
    }


def losses(found: Scores) -> Losses:
    return Losses(tuple((found.sums / found.counts).tolist()), tuple(found.counts.tolist()))


def base() -> Any:
    return load_base(MODEL, torch.device("cpu"), torch.float32)[1]


def cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def tried(case: Case, tokenizer: Any) -> dict[str, Any]:
    """Run and print one kind of data."""
    bench = Bench(case, tokenizer)
    lengths = [len(sample.ids) for sample in bench.train]
    print(
        f"\n{case.name}: {len(lengths)} samples of {min(lengths)} to {max(lengths)} tokens, {case.steps} steps, "
        f"{len(bench.validation)} samples validate, {len(bench.quarter)} of them at rungs",
        flush=True,
    )
    slots = iter(n * case.rounds // 5 for n in range(1, 6))  # five places between the stages

    def between() -> None:
        for _ in range(next(slots) - bench.rounds):
            bench.round()

    chain = run(bench, between)
    plain, tuned = bench.all_s(PLAIN), min(bench.all_s(ONE), bench.all_s(SORTED))
    each = plain / len(bench.parts)
    real = sum(len(sample.ids) for step in range(case.steps) for sample in bench.batch(ONE, step))
    for way, _, _ in bench.ways():
        whole = bench.all_s(way)
        print(
            f"{way:20}{whole:8.1f} CPU s reckoned for all 21, {plain / whole:.2f} times as fast as {PLAIN}; "
            f"{bench.totals[way] / real:.2f} tokens computed per token"
        )
    for stage in chain.stages:
        made, few = stage["to_step"] - stage["from_step"], stage.pop("rank_16")
        # Without the evaluations, which plain PEFT makes before and after.
        alone = sum(
            n * median(bench.seconds[PLAIN, r]) * bench.totals[PLAIN]
            for n, r in ((few, 16), (stage["members"] - few, 32))
        )
        stage["member_step_share"] = round(stage["training_cpu_s"] / (alone * made / case.steps), 3)
        print(
            f"   steps {stage['from_step']:3} to {stage['to_step']:3}: {stage['members']:2} members "
            f"{stage['training_cpu_s']:7.1f} s, a member's step {stage['member_step_share']:.2f} of plain PEFT's; "
            f"judged in {stage['evaluating_cpu_s']:.1f} s"
        )
    judged = sum(stage["evaluating_cpu_s"] for stage in chain.stages)
    times = sum(stage["members"] for stage in chain.stages[:-1])
    share = chain.total / plain
    print(
        f"ours{'':16}{chain.total:8.1f} CPU s for all of it: portions measured {chain.measuring:.1f}, stacks built "
        f"{chain.building:.1f}, rungs judged {judged:.1f}, {chain.finalists} finalists judged {chain.final:.1f}; "
        f"winner {chain.winner}"
    )
    print(
        f"   {1 / share:.2f} times as fast as (i), share {share:.3f}; {tuned / chain.total:.2f} times as fast as (ii); "
        f"portions of {bench.plan.members}, masks {'kept' if bench.plan.remember else 'made again'}"
    )
    spread = {size: quantiles(found, n=4, method="inclusive") for size, found in bench.packed.items()}
    print("   packed: " + ", ".join(f"{n}: {q[1]:.2f} ({q[0]:.2f}-{q[2]:.2f})" for n, q in spread.items()))
    print(f"   without rungs {1 / spread[21][1]:.2f} times as fast as (i)", flush=True)
    return {
        "packed": [[n, round(q[1], 3)] for n, q in spread.items()],
        "evaluation": round(judged / times / each, 5),
        "stages": chain.stages,
        "final_evaluation_cpu_s": round(chain.final, 2),
        "measuring_cpu_s": round(chain.measuring, 2),
        "building_cpu_s": round(chain.building, 2),
        "winner": chain.winner,
        "total_cpu_s": round(chain.total, 1),
        "plain_peft_cpu_s": round(plain, 1),
        "tuned_peft_cpu_s": round(tuned, 1),
        "share": round(share, 4),
        "share_of_tuned": round(chain.total / tuned, 4),
        "without_rungs": round(1 / spread[21][1], 3),
        "steps": case.steps,
        "padding": {way: round(bench.totals[way] / real, 3) for way, _, _ in bench.ways()},
        "portion": bench.plan.members,
        "goal": case.goal,
        "met": share <= case.goal,
    }


def machine() -> dict[str, Any]:
    """The CPU's name and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "threads_used": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half the steps, shorter rounds")
    parser.add_argument("--out", type=Path, default=None, help="where the results go; not written by --quick")
    asked_for = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, _ = load_base(MODEL, torch.device("cpu"), torch.float32)
    found = {}
    for case in CASES:
        chosen = replace(case, rounds=5, a_round=1, steps=case.steps // 2, sizes=(1, 21)) if asked_for.quick else case
        found[case.name] = tried(chosen, tokenizer)
    met = all(one["met"] for one in found.values())
    print(f"\n{'goals met' if met else 'a goal is missed'}")
    out = asked_for.out or (None if asked_for.quick else RESULTS)
    if out is not None:
        content = {
            "command": "python benchmarks/lean_sweep.py" + (" --quick" if asked_for.quick else ""),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "transformers", "peft")},
            "measured_on": "cpu",
            "model": MODEL.id,
            "rungs": {"at": list(RUNGS.at), "keep": list(RUNGS.keep)},
            **{name: found["equal"][name] for name in ("packed", "evaluation", "stages", "winner", "share")},
            "data": found,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
