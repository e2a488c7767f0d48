"""benchmarks/gpu.py, run whole on a CPU; and its arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gridsweep.spec import loads

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_projection import Rate, Rates, estimates, projected  # noqa: E402

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
    """1/8 of the steps by 21, 1/8 by 11 and the baseline's half, and so on; few members are slower."""
    found = projected(rates(), 100.0)
    alive = [21, 11 + 10 / 21, 6 + 15 / 21, 3 + 18 / 21]
    of_full = sum(a * s for a, s in zip(alive, (1 / 8, 1 / 8, 1 / 4, 1 / 2), strict=True)) / 21
    assert of_full == pytest.approx(0.365, abs=1e-3)
    energy = found["lean, rungs 21-11-6-3"]["kwh"] / found["lean, all to the end"]["kwh"]
    assert energy == pytest.approx(of_full, rel=2e-3)
    assert found["lean, rungs 21-11-6-3"]["hours"] > of_full * found["lean, all to the end"]["hours"]


def test_what_was_not_counted_stays_unknown() -> None:
    found = projected(rates(joules=None), 100.0)
    assert {one["kwh"] for one in found.values()} == {one["of_naive_energy"] for one in found.values()} == {None}
    assert estimates(rates(), 100.0) == {"packed": [[1, 0.6667], [8, 0.3333], [21, 0.3333]], "evaluation": 0.0}


@pytest.mark.slow
def test_the_whole_benchmark_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device=cpu", "--shape=tiny", "--minutes=1"]
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
