"""Race rules that stop experiments on recorded learning curves: what ships as the default, and a price list.

    python benchmarks/rung_race.py                     # families for choosing only: seconds
    python benchmarks/rung_race.py --judge [--out FILE]

The protocol stands in docs/decisions/028-rungs-by-a-race.md and was committed before any rule was run on any curve:
families for choosing and for judging, seeds, the metric, and what ships as a consequence. `--judge` scores each class's
representative, the named schedules and the price list on the families for judging, prints all figures of both kinds
and writes them to docs/results/rung-race.json. Nothing is trained here; `curves.py` made the curves.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from rung_rules import (
    DEFAULT_AT,
    DEFAULT_KEEP,
    SHARES,
    Replayed,
    Rule,
    Sweep,
    fixed,
    freeze_thaw,
    learned,
    paired,
    prior,
    read,
    replay,
)

CURVES = Path(__file__).parent / "curves"
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "rung-race.json"
CHOOSING, JUDGING = ("source", "records", "prose"), ("headers", "library", "edge", "long")
DRAWS = 20_000
ROOM, SLACK = 0.01, 0.005  # more of the steps than the shipped rule: of a variant when chosen, of a rule that beats
DRIFTS = (0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.0)  # of paired tests
CAPS = ((18, 15, 12, 9, 6), (17, 13, 10, 8, 5), (16, 12, 9, 6, 4))
WIDE = (20, 18, 16, 14, 11)  # of the price list
POWERS = (1.25, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2)  # of the price list

SHIPPED = fixed((11, 6, 3), (1 / 8, 1 / 4, 1 / 2))
FINER = fixed(DEFAULT_KEEP, DEFAULT_AT)
NAMED = (
    SHIPPED,
    FINER,
    fixed((10, 7, 4, 2), (1 / 8, 1 / 4, 1 / 2, 3 / 4)),
    fixed((15, 11, 8, 3), (1 / 8, 1 / 4, 1 / 2, 3 / 4)),
)
CAN_SHIP = ("named", "schedule search", "paired tests, at most so many")  # the planner needs a largest number
Variant = Callable[[Sequence[Sweep]], Rule]  # from the sweeps that may be learned from


# -- classes of rules


def schedules() -> list[Variant]:
    """Return fixed places at four sets of shares: every fall of at least a quarter from a few numbers."""
    shares = ((1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4), (1 / 8, 1 / 4, 1 / 2, 3 / 4), (1 / 16, 3 / 16, 3 / 8, 5 / 8),
              (1 / 16, 1 / 4, 1 / 2, 3 / 4))  # fmt: skip
    found: list[Variant] = []
    for at in shares:
        for keep in product((16, 14, 12, 10), (12, 10, 8, 6), (8, 6, 4), (5, 3, 2), (2, 1)):
            places = keep[5 - len(at) :]
            falling = all(after <= 0.8 * before for before, after in pairwise(places))
            rule = fixed(places, at)
            if falling and all(rule.name != made([]).name for made in found):
                found.append(_as_is(rule))
    return found


def _as_is(rule: Rule) -> Variant:
    return lambda sweeps: rule


def classes() -> dict[str, list[Variant]]:
    """Return every variant of every class."""
    return {
        "schedule search": schedules(),
        "paired tests": [_as_is(paired(drift, power)) for drift, power in product(DRIFTS, (0.5, 1.0, 2.0))],
        "paired tests, at most so many": [
            _as_is(paired(drift, 1.0, most, DEFAULT_AT)) for drift, most in product(DRIFTS, CAPS)
        ],
        "freeze-thaw": [_as_is(freeze_thaw(p, w)) for p, w in product((0.25, 0.5, 1.0), (0.25, 0.5, 0.75, 1.0))],
        "learned": [
            lambda sweeps, r=ridge, w=weight: learned(sweeps, r, w)  # type: ignore[misc]  # bound now
            for ridge, weight in product((1.0, 10.0, 100.0), (0.5, 1.0))
        ],
        "prior": [lambda sweeps, w=weight: prior(sweeps, w) for weight in (0.1, 0.2, 0.4, 0.8)],  # type: ignore[misc]
    }


def on_choosing(variant: Variant, sweeps: Sequence[Sweep]) -> list[Replayed]:
    """Replay on the families for choosing, each by a rule that learned from the other families."""
    rules = {family: variant([s for s in sweeps if s.family != family]) for family in {s.family for s in sweeps}}
    return [replay(sweep, rules[sweep.family]) for sweep in sweeps]


def chosen(variants: Sequence[Variant], sweeps: Sequence[Sweep], most: float) -> Variant | None:
    """Return the variant with the least mean regret among those that make at most this share of the steps."""
    figures = [(mean(runs, "regret"), place) for place, variant in enumerate(variants)
               if mean(runs := on_choosing(variant, sweeps), "share") <= most]  # fmt: skip
    return variants[min(figures)[1]] if figures else None


def priced() -> list[tuple[Rule, tuple[int, ...], float | None]]:
    """Return the two families of the price list, with their places and drift: fixed places, and paired tests."""
    found: list[tuple[Rule, tuple[int, ...], float | None]] = []
    for power in POWERS:
        keep = tuple(round(21 * (k / 21) ** power) for k in DEFAULT_KEEP)
        found.append((fixed(keep, DEFAULT_AT), keep, None))
    for most, drift in product((CAPS[0], WIDE), DRIFTS):
        found.append((paired(drift, 1.0, most, DEFAULT_AT), most, drift))
    return found


# -- figures


def mean(runs: Sequence[Replayed], what: str) -> float:
    return float(np.mean([getattr(run, what) for run in runs]))


def bootstrap(values: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return the sorted means of resampled sweeps; the same draws for every rule."""
    chance = np.random.default_rng(0)
    columns = np.asarray(values)[chance.integers(len(values), size=(DRAWS, len(values)))]
    return np.sort(columns.mean(axis=1))


def limits(values: Sequence[float], confidence: float = 0.90) -> tuple[float, float]:
    """Return the two-sided interval of a mean."""
    means = bootstrap(values)
    low, high = round((1 - confidence) / 2 * DRAWS), round((1 + confidence) / 2 * DRAWS) - 1
    return float(means[low]), float(means[high])


def upper(values: Sequence[float], confidence: float = 0.90) -> float:
    """Return the one-sided upper limit of a mean."""
    return float(bootstrap(values)[round(confidence * DRAWS) - 1])


def figures(runs: Sequence[Replayed], shipped: Sequence[Replayed], finer: Sequence[Replayed],
            sweeps: Sequence[Sweep]) -> dict[str, Any]:  # fmt: skip
    """Return what is said of a rule on some sweeps; regrets and shares as shares of 1."""
    regrets = [run.regret for run in runs]
    by_family = {
        f: [run.regret for run, s in zip(runs, sweeps, strict=True) if s.family == f] for f in families(sweeps)
    }
    return {
        "sweeps": len(runs),
        "kept": sum(run.kept for run in runs),
        "regret": round(mean(runs, "regret"), 5),
        "regret_90": [round(end, 5) for end in limits(regrets)],
        "regret_upper_90": round(upper(regrets), 5),
        "regret_max": round(max(regrets), 4),
        "share_of_steps": round(mean(runs, "share"), 4),
        "scored": round(mean(runs, "scored"), 1),
        "less_shipped": paired_with(runs, shipped),
        "less_finer": paired_with(runs, finer),
        "by_family": {family: round(float(np.mean(values)), 4) for family, values in by_family.items()},
    }


def paired_with(runs: Sequence[Replayed], others: Sequence[Replayed]) -> dict[str, Any]:
    """Return the paired difference in regret from another rule, with its 90 % interval."""
    apart = [run.regret - other.regret for run, other in zip(runs, others, strict=True)]
    return {"regret": round(float(np.mean(apart)), 5), "interval_90": [round(end, 5) for end in limits(apart)]}


def families(sweeps: Sequence[Sweep]) -> list[str]:
    return sorted({sweep.family for sweep in sweeps})


# -- the race


def load(folder: Path, names: Sequence[str]) -> tuple[list[Sweep], list[str]]:
    """Return the sweeps of some families, and those left out because their regret has no scale."""
    files = sorted(file for file in folder.glob("*.json.gz") if file.name.split("-")[0] in names)
    sweeps = [read(file) for file in files]
    usable = [sweep for sweep in sweeps if np.isfinite(sweep.spread) and sweep.spread > 0]
    return usable, [sweep.name for sweep in sweeps if sweep not in usable]


def representatives(sweeps: Sequence[Sweep]) -> dict[str, Variant]:
    """Return the variant of each class that is to be judged."""
    most = mean([replay(sweep, SHIPPED) for sweep in sweeps], "share") + ROOM
    found = {}
    for kind, variants in classes().items():
        best = chosen(variants, sweeps, most)
        if best is None:
            print(f"{kind}: none of {len(variants)} variants makes at most {most:.1%} of the steps", file=sys.stderr)
        else:
            found[kind] = best
    return found


def race(choosing: Sequence[Sweep], judging: Sequence[Sweep] | None) -> list[dict[str, Any]]:
    """Return a row for each rule; without `judging`, only what it did on the families for choosing."""
    entries: list[tuple[str, Variant]] = [("named", _as_is(rule)) for rule in NAMED]
    entries += list(representatives(choosing).items())
    references = {kind: [[replay(s, r) for s in sweeps] for r in (SHIPPED, FINER)]
                  for kind, sweeps in (("choosing", choosing), ("judging", judging or []))}  # fmt: skip
    rows = []
    for kind, variant in entries:
        rule = variant(choosing)
        row = {"class": kind, "rule": rule.name,
               "choosing": figures(on_choosing(variant, choosing), *references["choosing"], choosing)}  # fmt: skip
        if judging:
            row["judging"] = figures([replay(s, rule) for s in judging], *references["judging"], judging)
        rows.append(row)
    return rows


def ships(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rule that the protocol names, and which rules beat 16, 10, 6, 4, 2."""
    by_name = {row["rule"]: row for row in rows}
    most = max(by_name[rule.name]["judging"]["share_of_steps"] for rule in (SHIPPED, FINER)) + SLACK
    beaten = [
        row
        for row in rows
        if row["class"] in CAN_SHIP
        and row["judging"]["less_finer"]["interval_90"][1] < 0
        and row["judging"]["share_of_steps"] <= most
    ]
    named = min(beaten, key=lambda row: row["choosing"]["regret"]) if beaten else by_name[FINER.name]
    return {"rule": named["rule"], "beat_16_10_6_4_2": [row["rule"] for row in beaten], "most_steps": round(most, 4)}


def prices(judging: Sequence[Sweep]) -> list[dict[str, Any]]:
    """Return the price list: rules with their share of steps and regret on the families for judging."""
    rules = [*priced(), (NAMED[2], (10, 7, 4, 2), None), (NAMED[3], (15, 11, 8, 3), None), (SHIPPED, (11, 6, 3), None)]
    rows = []
    for rule, keep, drift in rules:
        runs = [replay(sweep, rule) for sweep in judging]
        rows.append(
            {
                "rule": rule.name,
                "at": [SHARES[place] for place in rule.rungs],
                "keep": list(keep),
                "drift": drift,
                "share_of_steps": round(mean(runs, "share"), 4),
                "share_of_steps_max": round(max(run.share for run in runs), 4),
                "regret": round(mean(runs, "regret"), 5),
                "regret_upper_90": round(upper([run.regret for run in runs]), 5),
                "kept": sum(run.kept for run in runs),
                "scored": round(mean(runs, "scored"), 1),
            }
        )
    return sorted(rows, key=lambda row: row["share_of_steps"])


def show(rows: Sequence[dict[str, Any]], kind: str, count: int) -> None:
    """Print the table of one kind of families."""
    print(f"\n{kind} families, {count} sweeps: steps | kept | regret (90 %) | less 11, 6, 3 | less 16, 10, 6, 4, 2")
    for row in rows:
        found = row[kind]
        apart = [found[key] for key in ("less_shipped", "less_finer")]
        pairs = " | ".join(
            f"{d['regret']:+.1%} ({d['interval_90'][0]:+.1%} to {d['interval_90'][1]:+.1%})" for d in apart
        )
        print(f"{found['share_of_steps']:.1%} | {found['kept']} | {found['regret']:.1%} "
              f"({found['regret_90'][0]:.1%} to {found['regret_90'][1]:.1%}) | {pairs} | {row['class']}: {row['rule']} "
              f"{found['by_family']}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--judge", action="store_true", help="score on the families for judging, and write")
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    random.seed(0)
    start = time.process_time()
    choosing, out = load(asked.curves, CHOOSING)
    judging, more = load(asked.curves, JUDGING) if asked.judge else ([], [])
    rows = race(choosing, judging)
    show(rows, "choosing", len(choosing))
    if not asked.judge:
        return 0
    show(rows, "judging", len(judging))
    made = ships(rows)
    listed = prices(judging)
    print(f"\nships: {made['rule']}; beat 16, 10, 6, 4, 2: {', '.join(made['beat_16_10_6_4_2']) or 'none'}\n\nprices:")
    for row in listed:
        print(f"{row['share_of_steps']:.1%} | {row['regret']:.2%} (up to {row['regret_upper_90']:.2%}) | {row['rule']}")
    counts = {kind: {f: sum(s.family == f for s in some) for f in families(some)}
              for kind, some in (("choosing", choosing), ("judging", judging))}  # fmt: skip
    cpu_s = round(time.process_time() - start, 1)
    found = {"command": "python benchmarks/rung_race.py --judge", "families": counts, "left_out": out + more,
             "rules": rows, "ships": made, "prices": listed, "cpu_s": cpu_s}  # fmt: skip
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
