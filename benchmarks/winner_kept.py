"""Whether stopping early keeps the winner: whole sweeps on real text, to which the shipped rule is applied afterwards.

    python benchmarks/winner_kept.py --keep FOLDER [--quick] [--seeds FIRST] [--out FILE]

Each of 18 sweeps trains the published 21 configurations together to their end: tiny-qwen2 on functions of the standard
library, all linear layers, 240 steps of 4 samples of at most 48 tokens (the source of a function without its prompt,
so that every token counts), cosine, 5 % warm-up. Each has a seed of its own: split, order, initial weights, dropout. In
six sweeps each all learning rates are multiplied by 10, 40 or 100. For rank 32 and alpha 128 the best rate of this
model is near 2e-3, seen with seed 900; so it is the largest of the three rates, the middle one, or lies at the lower
edge and beyond. (At 30 it would lie between two rates, and all would end within 0.01 nats of the median: a plateau,
whose winner 480 samples do not know.)

What an experiment goes through does not depend on the others, so a rule is replayed on the recorded losses: the default
rungs, as `gridsweep.selection.halving.at_rung` decides them (docs/results/winner-kept.json is of the default of version
0.1.0: 11, 6, 3 at 1/8, 1/4, 1/2). Rungs score 120 validation samples, the last comparison all 480 (the published sweep
has 1,000). Three scores decide by turns: the validation loss with averaged weights (what is shipped for a cosine), that
of the weights as they are, and the training loss of the last tenth of all steps. Nothing in the rule was chosen by
these 18 seeds; the window of the average was, by earlier ones.

Printed and written to docs/results/winner-kept.json: how often the winner was kept, with Wilson's 95 % interval; how
often a tied one came instead (a paired difference within two standard errors and 2 % of median - best); the regret, as
a share of (median - best) of all 21 final losses, with the one-sided 90 % and 95 % limits of a bootstrap over sweeps;
the share of steps made, ties included; Spearman's correlation of each score with the final ranking,
the median by rung; how many of a rung's places the raw score would have filled otherwise; and whose learning rate won.
The quarter scored at rungs is part of what is scored at the end; how well the end itself is known is printed, too.

A finished sweep is a file in FOLDER and is not run again; a sweep takes about four minutes of CPU time on one thread.
--quick runs one sweep of each kind; --seeds begins at another seed, --out writes to another file. Exits 1 where a goal
is missed: mean regret at most 2 %, its 90 % limit at most 5 %, share of steps at most 34 %.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import math
import platform
import random
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from rank_agreement import regret_bound, spearman

from gridsweep.records.attempts import Part
from gridsweep.selection.halving import TIE_ERRORS, TIE_ROOM, TIE_SPREAD, Score, at_rung, cut
from gridsweep.selection.paired_differences import difference
from gridsweep.sweep.designs import published
from gridsweep.sweep.experiments import Dataset, Model, Recipe, number
from gridsweep.sweep.losses import Losses, ScoreName, which_score
from gridsweep.sweep.rungs import DEFAULT, steps
from gridsweep.train import data
from gridsweep.train.conversations import Conversation
from gridsweep.train.encoding import encode
from gridsweep.train.lean.group import Group, Plan, Scores
from gridsweep.train.lean.measure import measure
from gridsweep.train.model import load_base
from gridsweep.train.samples import Sample

MODEL, DATASET = Model("tiny-qwen2"), Dataset("stdlib")
STEPS, TOKENS, VALIDATION = 240, 48, 480
RECIPE = Recipe(steps=STEPS, batch_size=2, accumulation=2, max_length=TOKENS, warmup=0.05)
KINDS = {"edge": 10, "inside": 40, "beyond": 100}  # the learning rates' multiple
EACH, FIRST = 6, 201  # sweeps of a kind, and the first of their seeds
RUNGS = DEFAULT
WINDOW = "window"
GOALS = {"regret": 0.02, "limit": 0.05, "share": 0.34}
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "winner-kept.json"


# -- a sweep, trained to its end


def names(multiple: float) -> dict[str, Any]:
    """The experiments by name, the baseline first; learning rates are named as published."""
    found = {}
    for n, params in enumerate(published()):
        name = f"{n + 1:02} r{params.r} a{number(params.alpha)} lr{number(params.lr)} d{number(params.dropout)}"
        found[name] = replace(params, lr=params.lr * multiple)
    return found


def texts(tokenizer: Any, pairs: list[Conversation]) -> list[Sample]:
    """The answers alone, cut; the first token is all that is given."""
    whole = encode(tokenizer, pairs, 4096).samples
    return [Sample(sample.ids[sample.prompt : sample.prompt + TOKENS], 1) for sample in whole]


def sweep(multiple: float, seed: int, tokenizer: Any, base: Any) -> dict[str, Any]:
    """Train all 21; what there is to know about them at the rungs and at the end."""
    recipe = replace(RECIPE, seed=seed)
    pairs = data.load(DATASET, recipe)
    train, validation = texts(tokenizer, pairs.train), texts(tokenizer, pairs.validation)[:VALIDATION]
    quarter = validation[: VALIDATION // 4]
    members = [Part(name, params, seed, 0, STEPS) for name, params in names(multiple).items()]
    start = time.process_time()
    group = Group(base, members, recipe, STEPS, train, MODEL, plan=Plan(8))
    counted = [sum(sample.counted for sample in group.batch(step)) for step in range(STEPS)]
    rungs: list[dict[str, Any]] = []
    try:
        group.plan = measure(group, sizes=(4, 6, 8, 11), rounds=3, seconds=3).plan(group.plan)
        for step in range(STEPS):
            group.step(step, lambda: None)
            if step + 1 in steps(RUNGS, STEPS):
                rungs.append(
                    {
                        "step": step + 1,
                        "averaged": by_sample(group.evaluate(quarter, lambda: None, averaged=True)),
                        "raw": by_sample(group.evaluate(quarter, lambda: None)),
                        WINDOW: {name: group.histories[name].recent for name in group.members},
                    }
                )
        final = by_sample(group.evaluate(validation, lambda: None))
    finally:
        group.close()
    return {
        "seed": seed,
        "multiple": multiple,
        "digest": pairs.facts["dataset_digest"],
        "tokens": {"validation": [s.counted for s in validation], "train": counted},
        "rungs": rungs,
        "final": final,
        "diverged": group.diverged,
        "cpu_s": round(time.process_time() - start, 1),
    }


def by_sample(scores: dict[str, Scores]) -> dict[str, list[float]]:
    return {name: (found.sums / found.counts).tolist() for name, found in scores.items()}


# -- the rule, replayed


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one rule makes of one sweep."""

    kept: bool
    tied: bool  # not the winner, but one that cannot be told from it
    regret: float  # share of (median - best)
    regret_nats: float
    share: float
    ties: int
    disagreed: list[int | None]
    chosen: str


def losses_at(found: dict[str, Any], rung: dict[str, Any], score: str, name: str) -> Losses | None:
    """The losses behind a score, sample by sample or step by step."""
    values = rung[score].get(name)
    if values is None:
        return None
    counts = found["tokens"]["train"][: rung["step"]] if score == WINDOW else found["tokens"]["validation"]
    counts = counts[-len(values) :] if score == WINDOW else counts[: len(values)]
    return Losses(tuple(values), tuple(counts))


def finals(found: dict[str, Any]) -> dict[str, Losses | None]:
    tokens = tuple(found["tokens"]["validation"])
    total = names(found["multiple"])
    return {n: Losses(tuple(found["final"][n]), tokens) if n in found["final"] else None for n in total}


def loss(losses: Losses | None) -> float:
    return losses.mean if losses is not None and losses.finite else math.inf


def ends(found: dict[str, Any]) -> tuple[dict[str, float], str, float]:
    """Every experiment's last loss, the winner, and (median - best)."""
    last = {name: loss(losses) for name, losses in finals(found).items()}
    winner = min(last, key=lambda name: (last[name], name))
    return last, winner, median(last.values()) - last[winner]


def replay(found: dict[str, Any], score: str, baseline_stays: bool = False, room: float = TIE_ROOM) -> Replayed:
    """Stop those that `cut` stops when `score` decides."""
    alive = list(names(found["multiple"]))
    baseline, made, before, ties, disagreed = alive[0], 0, 0, 0, []
    total = len(alive)
    for place, rung in enumerate(found["rungs"]):
        made += len(alive) * (rung["step"] - before)
        before = rung["step"]
        scores = {}
        for name in alive:
            deciding = losses_at(found, rung, score, name)
            values = {kind: losses_at(found, rung, kind, name) for kind in ("averaged", "raw")}
            value = deciding if score == WINDOW else values["averaged"]
            scores[name] = Score(value and value.mean, values["raw"] and values["raw"].mean, deciding)
        by: ScoreName = "raw" if score == "raw" else "averaged"
        always = {baseline} if baseline_stays else ()
        if RUNGS.drift is None:
            decided = cut(scores, RUNGS.keep[place], always=always, by=by, room=room)
        else:
            decided = at_rung(scores, RUNGS, place, always, by=by, of=total)
        alive = list(decided.kept)
        ties += len(decided.tied)
        disagreed.append(decided.disagreed)
    made += len(alive) * (STEPS - before)
    last, winner, spread = ends(found)
    chosen = min(alive, key=lambda name: (last[name], name))
    regret = last[chosen] - last[winner]
    ends_ = finals(found)
    one, other = ends_[chosen], ends_[winner]
    tied = False
    if chosen != winner and one is not None and other is not None and math.isfinite(regret):
        apart = difference(one, other)
        tied = apart.mean <= TIE_ERRORS * apart.standard_error and regret <= TIE_SPREAD * spread
    share = made / (total * STEPS)
    return Replayed(chosen == winner, tied, regret / spread, regret, share, ties, disagreed, chosen)


def agreement(found: dict[str, Any], score: str) -> list[float]:
    """Spearman's correlation with the final ranking of all 21, by rung."""
    last, _, _ = ends(found)
    ranks = []
    for rung in found["rungs"]:
        now = [loss(losses_at(found, rung, score, name)) for name in last]
        ranks.append(spearman(now, list(last.values())))
    return ranks


def by_the_quarter(found: dict[str, Any]) -> float:
    """The regret of the finally best experiment on the rungs' samples: no score on them can be blamed for it."""
    last, winner, spread = ends(found)
    few = VALIDATION // 4
    there = {name: Losses(all_.values[:few], all_.tokens[:few]) for name, all_ in finals(found).items() if all_}
    chosen = min(there, key=lambda name: (loss(there[name]), name))
    return (last[chosen] - last[winner]) / spread


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    middle, room = hits + z * z / 2, z * math.sqrt(hits * (of - hits) / of + z * z / 4)
    return (middle - room) / (of + z * z), (middle + room) / (of + z * z)


def upper(values: list[float], confidence: float, draws: int = 20_000) -> float:
    """The one-sided limit of the mean, by a bootstrap over sweeps with a fixed seed."""
    chance = random.Random(0)
    means = sorted(mean(chance.choices(values, k=len(values))) for _ in range(draws))
    return means[min(draws - 1, math.ceil(confidence * draws) - 1)]


def summary(
    sweeps: list[dict[str, Any]], score: str, baseline_stays: bool = False, room: float = TIE_ROOM
) -> dict[str, Any]:
    runs = [replay(found, score, baseline_stays, room) for found in sweeps]
    kept, tied = sum(run.kept for run in runs), sum(run.tied for run in runs)
    low, high = wilson(kept, len(runs))
    regrets = [run.regret for run in runs]
    ranks = [agreement(found, score) for found in sweeps]
    return {
        "sweeps": len(runs),
        "kept": kept,
        "wilson_95": [round(low, 3), round(high, 3)],
        "tied_instead": tied,
        "kept_or_tied_wilson_95": [round(end, 3) for end in wilson(kept + tied, len(runs))],
        "regret_mean": round(mean(regrets), 5),
        "regret_upper_90": round(upper(regrets, 0.90), 5),
        "regret_upper_95": round(upper(regrets, 0.95), 5),
        "regret_max": round(max(regrets), 5),
        "regret_mean_nats": round(mean(run.regret_nats for run in runs), 6),
        "share_of_steps": round(mean(run.share for run in runs), 4),
        "share_of_steps_max": round(max(run.share for run in runs), 4),
        "ties_kept": sum(run.ties for run in runs),
        "spearman_by_rung": [round(median(column), 3) for column in zip(*ranks, strict=True)],
        "spearman_lowest": [round(min(column), 3) for column in zip(*ranks, strict=True)],
    }


def disagreement(sweeps: list[dict[str, Any]]) -> list[dict[str, float]]:
    """By rung: in how many sweeps averaged and raw weights named other places, and the mean number of them."""
    counts = [replay(found, "averaged").disagreed for found in sweeps]
    return [
        {"sweeps": sum(bool(n) for n in column), "places": round(mean(n or 0 for n in column), 2)}
        for column in zip(*counts, strict=True)
    ]


# -- what is printed


def report(sweeps: list[dict[str, Any]], out: Path, command: str) -> bool:
    """Print and write it all; whether the goals are met."""
    by_kind = {kind: [s for s in sweeps if s["multiple"] == multiple] for kind, multiple in KINDS.items()}
    rows = []
    print("\nsweep: best experiment; (median - best) in nats; regret, share of (median - best), by deciding score")
    for kind, some in by_kind.items():
        for found in some:
            _, winner, spread = ends(found)
            runs = {score: replay(found, score) for score in ("averaged", "raw", WINDOW)}
            rows.append(
                {
                    "kind": kind,
                    "multiple": found["multiple"],
                    "seed": found["seed"],
                    "winner": winner,
                    "median_less_best": round(spread, 5),
                    "winner_known_to": round(regret_bound(finals(found)) / spread, 3),
                    "diverged": len(found["diverged"]),
                    "share_of_steps": round(runs["averaged"].share, 4),
                    "ties": runs["averaged"].ties,
                    "regret": {score: round(run.regret, 5) for score, run in runs.items()},
                    "chosen": {score: run.chosen for score, run in runs.items()},
                    "cpu_s": found["cpu_s"],
                }
            )
            print(
                f"{kind:7} seed {found['seed']:3}: {winner:28} {spread:.4f} nats"
                + "".join(
                    f"   {score} {100 * run.regret:5.1f} %{' kept' if run.kept else ' tied' if run.tied else ' LOST'}"
                    for score, run in runs.items()
                )
            )
    table = {
        score: {"all": summary(sweeps, score)} | {kind: summary(some, score) for kind, some in by_kind.items() if some}
        for score in ("averaged", "raw", WINDOW)
    }
    print(
        f"\n{'deciding score':16}{'sweeps':8}{'kept':>7}  {'95 %':14}{'tied':>5}{'regret':>9}{'90 %':>8}{'95 %':>8}"
        f"{'most':>8}{'steps':>8}   Spearman by rung"
    )
    for score, kinds in table.items():
        for kind, row in kinds.items():
            low, high = row["wilson_95"]
            print(
                f"{score:16}{kind:8}{row['kept']:>4}/{row['sweeps']:<3} {f'{low:.2f} to {high:.2f}':14}"
                f"{row['tied_instead']:>5}{100 * row['regret_mean']:8.2f}%{100 * row['regret_upper_90']:7.2f}%"
                f"{100 * row['regret_upper_95']:7.2f}%{100 * row['regret_max']:7.1f}%"
                f"{100 * row['share_of_steps']:7.1f}%   {' '.join(f'{r:.2f}' for r in row['spearman_by_rung'])}"
            )
    print("\nwhat ties and the baseline cost, averaged weights deciding")
    parts = {}
    for name, stays, room in (
        ("as shipped", False, TIE_ROOM),
        ("no ties", False, 0.0),
        ("the baseline kept, too", True, TIE_ROOM),
    ):
        row = parts[name] = summary(sweeps, "averaged", stays, room)
        print(
            f"{name:24}{row['kept']:>4}/{row['sweeps']:<3} regret {100 * row['regret_mean']:.2f}%, "
            f"steps {100 * row['share_of_steps']:.1f}%, {row['ties_kept']} ties kept"
        )
    whole = table["averaged"]["all"]
    low, high = whole["kept_or_tied_wilson_95"]
    print(
        f"\nthe winner or one tied with it: {whole['kept'] + whole['tied_instead']} of {len(sweeps)} "
        f"({low:.2f} to {high:.2f}), averaged weights deciding"
    )
    noise = {
        kind: {
            "median_less_best_nats": round(median(ends(s)[2] for s in some), 5),
            "winner_known_to": round(median(regret_bound(finals(s)) / ends(s)[2] for s in some), 3),
            "regret_by_last_loss_on_quarter": round(mean(by_the_quarter(s) for s in some), 4),
        }
        for kind, some in (("all", sweeps), *by_kind.items())
        if some
    }
    print(
        "\nhow well the end itself is known, medians: (median - best); the bound of the winner's own regret at 95 %, of"
    )
    print("that; and the mean regret of the best experiment at the very end on the rungs' samples alone")
    for kind, row in noise.items():
        print(
            f"{kind:8}{row['median_less_best_nats']:.4f} nats{100 * row['winner_known_to']:6.0f}%"
            f"{100 * row['regret_by_last_loss_on_quarter']:8.1f}%"
        )
    apart = disagreement(sweeps)
    print("\naveraged and raw weights disagreed about who goes on, by rung:", end=" ")
    print(", ".join(f"{a['sweeps']} of {len(sweeps)} sweeps ({a['places']:.1f} places)" for a in apart))
    shipped = table[which_score(RECIPE.learning_rate_schedule)]["all"]
    goals = {
        "regret": shipped["regret_mean"] <= GOALS["regret"],
        "limit": shipped["regret_upper_90"] <= GOALS["limit"],
        "share": shipped["share_of_steps"] <= GOALS["share"],
    }
    print("\ngoals: " + ", ".join(f"{name} {'met' if met else 'MISSED'}" for name, met in goals.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": MODEL.id, "dataset": DATASET.id, "steps": STEPS, "samples_a_step": 4, "tokens_a_sample": TOKENS,
        "validation_samples": VALIDATION, "at_rungs": VALIDATION // 4, "rungs": list(RUNGS.at),
        "keep": list(RUNGS.keep), "schedule": RECIPE.learning_rate_schedule, "warmup": RECIPE.warmup,
        "multiples": KINDS,
    }  # fmt: skip
    content = {
        "command": command, "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "versions": versions(),
        "measured_on": "cpu", "settings": settings, "goals": {"bounds": GOALS, "met": goals},
        "by_score": table, "parts_of_the_rule": parts, "noise": noise, "disagreed_by_rung": apart, "sweeps": rows,
    }  # fmt: skip
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return all(goals.values())


def machine() -> dict[str, Any]:
    """The CPU's name and cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "threads_used": 1}


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers", "peft", "numpy")}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder with a file for each finished sweep")
    parser.add_argument("--quick", action="store_true", help="one sweep of each kind")
    parser.add_argument("--seeds", type=int, default=FIRST, help="the first seed")
    parser.add_argument("--out", type=Path, default=None, help="where the summary goes")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.keep.mkdir(parents=True, exist_ok=True)
    tokenizer, base = load_base(MODEL, torch.device("cpu"), torch.float32)
    sweeps, seed = [], asked.seeds
    for _ in range(1 if asked.quick else EACH):
        for kind, multiple in KINDS.items():
            file = asked.keep / f"{kind}-{seed}.json"
            if not file.is_file():
                found = sweep(multiple, seed, tokenizer, base)
                draft = file.with_suffix(".part")
                draft.write_text(json.dumps(found), encoding="utf-8")
                draft.rename(file)
                print(f"{kind} seed {seed}: {found['cpu_s']} CPU seconds", file=sys.stderr, flush=True)
            sweeps.append(json.loads(file.read_text(encoding="utf-8")))
            seed += 1
    ours = asked.quick or asked.seeds != FIRST
    out = asked.out or (asked.keep / "summary.json" if ours else RESULTS)
    options = " --quick" if asked.quick else "" + (f" --seeds {asked.seeds}" if asked.seeds != FIRST else "")
    return 0 if report(sweeps, out, f"python benchmarks/winner_kept.py --keep FOLDER{options}") else 1


if __name__ == "__main__":
    sys.exit(main())
