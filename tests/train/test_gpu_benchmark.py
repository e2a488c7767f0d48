"""benchmarks/gpu.py, run whole on a CPU; and its arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builders import PROJECT
from gridsweep.spec import loads
from gridsweep.sweep.experiments import LoraParams
from gridsweep.train.footprint import Footprint, weights_of

sys.path.insert(0, str(PROJECT / "benchmarks"))

from gpu import Bench, resident
from gpu_projection import Rate, Rates, estimates, projected
from gpu_ways import Lean, Peft, Way, levelled, samples
from shapes import frozen

pytestmark = pytest.mark.train


def rates(joules: float | None = 2.0) -> Rates:
    """Lean is twice as fast at 8 members as alone, tuned is half as fast again as naive, judging is free."""
    naive, tuned, free = Rate(3.0, joules), Rate(2.0, joules), Rate(0.0, joules and 0.0)
    lean = {1: Rate(2.0, joules), 8: Rate(1.0, joules), 21: Rate(1.0, joules)}
    return Rates({16: naive, 32: naive}, {16: tuned, 32: tuned}, lean, free, free, free)


def test_the_projection_is_tokens_times_rates() -> None:
    found = projected(rates(), 100.0)
    assert found["naive, one after another"]["hours"] == pytest.approx(21 * 12_000 * 100 * 3 / 3600)
    assert found["naive, one after another"]["kwh"] == pytest.approx(21 * 12_000 * 100 * 2 / 3.6e6)
    assert found["tuned, one after another"]["times_as_fast"] == pytest.approx(1.5)
    assert found["lean, all to the end"]["times_as_fast"] == pytest.approx(3.0)


def test_rungs_make_a_share_of_the_steps() -> None:
    """1/16 of the steps by 21, 1/16 by 16 and the baseline's part, and so on; few members are slower."""
    found, chain = projected(rates(), 100.0), "lean, rungs 21-16-10-6-4-2"
    alive = [21, 16 + 5 / 21, 10 + 11 / 21, 6 + 15 / 21, 4 + 17 / 21, 2 + 19 / 21]
    of_full = sum(a * s for a, s in zip(alive, (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 4, 1 / 4), strict=True)) / 21
    assert of_full == pytest.approx(0.345, abs=1e-3)
    energy = found[chain]["kwh"] / found["lean, all to the end"]["kwh"]
    assert energy == pytest.approx(of_full, rel=2e-3)
    assert found[chain]["hours"] > of_full * found["lean, all to the end"]["hours"]


def test_what_was_not_counted_stays_unknown() -> None:
    found = projected(rates(joules=None), 100.0)
    assert {one["kwh"] for one in found.values()} == {one["of_naive_energy"] for one in found.values()} == {None}
    assert estimates(rates(), 100.0) == {"packed": [[1, 0.6667], [8, 0.3333], [21, 0.3333]], "evaluation": 0.0}


@pytest.mark.slow
def test_the_whole_benchmark_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(PROJECT / "benchmarks" / "gpu.py"), "--device=cpu", "--shape=tiny", "--minutes=1"]
    done = subprocess.run([*command, f"--out={out}"], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    assert made["measured_on"].endswith(", tiny") and made["energy"] in (None, "rapl")
    assert ("kWh are left out" in done.stdout) is (made["energy"] is None)
    speeds = {row["name"]: row["tokens_per_s"] for row in made["rows"] if "why" not in row}
    assert {"naive PEFT 2 x 4, rank 32", "tuned PEFT 8, rank 16", "lean, 1 in passes of 1"} <= set(speeds)
    assert all(row.get("tokens_per_s", 0) > 0 or row["why"] == "not reached in the time given" for row in made["rows"])
    spec = "model: tiny-qwen2\ndataset: {id: stdlib, train_samples: 96}\n"
    spec += "estimates: {duration: 1h, power_w: 15, results: gpu.json}\n"
    if "projected" in made:  # a very busy machine may not get that far
        assert made["projected"]["naive, one after another"]["times_as_fast"] == 1
        read = loads(spec, tmp_path / "sweep.yaml").estimates
        assert read.packed == tuple(map(tuple, made["packed"])) and read.measured.startswith(made["measured_on"])


def test_what_is_out_of_memory_is_made_to_fit_or_told() -> None:
    room = {"left": 2}
    clock = {"s": 0.0}  # its own: what else the process does takes none of the minutes

    def too_large(n: int) -> int:
        raise torch.OutOfMemoryError("no room")

    def fits(n: int) -> int:
        clock["s"] += 0.05
        return 10

    def fits_when_smaller(n: int) -> int:
        clock["s"] += 0.05
        if room["left"]:
            raise torch.OutOfMemoryError("no room")
        return 10

    def smaller() -> str:
        room["left"] -= 1
        return "fewer tokens"

    ways = [
        Way("one that fits", "lean", 1, fits, 0),
        Way("too large", "lean", 1, too_large, 0),
        Way("made to fit", "lean", 1, fits_when_smaller, 0, shrink=smaller),
    ]
    bench = Bench(torch.device("cpu"), 0, None, 4.0, lambda: clock["s"])
    bench.ways = ways
    bench.run(0.0)
    assert [way.why for way in ways] == ["", "out of memory", ""]
    assert ways[2].name == "made to fit, fewer tokens" and ways[2].seconds and not ways[1].seconds


def test_tokens_of_a_pass_are_chosen_by_memory_and_steps_stay_the_same() -> None:
    """Members of a narrowed roster make the steps they would in a group of their own."""
    device = torch.device("cpu")
    train = samples(32, 24, 2048)
    group = resident(frozen("tiny", device, torch.float32), train, device)
    base = group.lean.base
    footprint = Footprint(weights_of(base), 4, group.lean.shapes, base.config, remembered=True)
    each = 1.2 * footprint.token(32, 4)
    lean = Lean(group, footprint, (footprint.logits(4) + 4 * each * 50 + 1) / 0.9)
    way, too_many = lean.way(4, 4), lean.way(21, 21)
    assert way.tokens_in_a_pass == 50 and not way.why
    assert "out of memory by its model" in too_many.why
    weights = {r: stack.weights.clone() for r, stack in lean.whole.stacks.items()}
    assert way.make(0) == 4 * sum(len(sample.ids) for sample in group.batch(0))
    moved = {r: (stack.weights != weights[r]).any(1).tolist() for r, stack in lean.whole.stacks.items()}
    assert moved == {16: [True, True] + [False] * 6, 32: [True, True] + [False] * 11}
    assert way.shrink() == "fewer tokens" and way.tokens_in_a_pass == 25
    assert way.make(1) > 0


def test_levelled_samples_have_no_padding() -> None:
    batch = samples(8, 384, 2048, seed=3)
    level = levelled(batch)
    assert {len(sample.ids) for sample in level} == {sum(len(s.ids) for s in batch) // 8} and len(level) == 8


def test_the_mix_of_lengths_is_as_told() -> None:
    lengths = [len(sample.ids) for sample in samples(4000, 384, 2048)]
    assert 290 < sum(lengths) / 4000 < 305 and 0.45 < lengths.count(384) / 4000 < 0.49


def test_tuned_peft_makes_logits_where_they_count_and_the_loss_is_the_same() -> None:
    peft = Peft(frozen("tiny", torch.device("cpu"), torch.float32), LoraParams(8, 16, 1e-3, 0.0), [])
    level = levelled(samples(8, 24, 2048))
    assert peft._loss(level, every=False).item() == pytest.approx(peft._loss(level, every=True).item(), rel=1e-5)
