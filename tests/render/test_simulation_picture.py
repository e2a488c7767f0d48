"""A back-test on a terminal, as JSON by its command, and as a picture."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from gridsweep.carbon.readings import Provenance
from gridsweep.carbon.traces import HOUR
from gridsweep.errors import GridsweepError
from gridsweep.render import simulation
from gridsweep.simulation.backtest import Simulation
from gridsweep.simulation.comparison import Bound, PolicyResult

HEADER = "issued,timestamp,forecast,actual"
START = datetime(2024, 6, 10, tzinfo=UTC)
GATE = PolicyResult("threshold", 2074.0, 0.315, 0.05, 0.34, 0.49, 64.6, 103.5, 3421, 13.4, 0.0, 0.01, 0.32, 0.46, 0.685)
AT_ONCE = PolicyResult("immediate", 3028.0, 0.0, 0.0, 0.0, 0.0, 16.5, 16.5, 0, 13.4, 0.0, 1.0)
MADE = Simulation(
    1316, 2, (GATE, AT_ONCE), "history", 51.5,
    Bound(1316, 1635.0, 0.46, 80.2, True), Bound(1300, 1632.0, 0.461, 80.1, False),
)  # fmt: skip
GRID = Provenance("a grid")


def test_the_table_says_what_was_possible(capsys):
    simulation.text(MADE, GRID)
    out = capsys.readouterr().out
    gate = next(line for line in out.splitlines() if line.startswith("threshold"))
    assert [word in gate for word in ("31.5 %", "68.5 %", "64.6 h", "13.4 kWh", "1.0 %", "3421")] == [True] * 6
    assert "achievable without pauses: 46.0 % in 80.2 h\n" in out
    assert "achievable with free pauses: 46.1 % in 80.1 h, or slightly more (over 1300 starts" in out
    assert "1316 starts on 2 devices, all within 51.5 h, a grid (measured), forecast: history" in out


def test_without_bounds_nothing_is_said_of_them(capsys):
    bare = replace(GATE, bound_reduction=None, share_of_bound=None)
    simulation.text(replace(MADE, policies=(bare,), bound=None, bound_pausing=None, finish_by_h=None), GRID)
    out = capsys.readouterr().out
    assert "achievable with" not in out and "unknown" not in out and "all within" not in out


def test_the_picture_is_a_png_of_some_size(tmp_path):
    simulation.png(MADE, tmp_path / "saving.png", "published, a grid")
    data = (tmp_path / "saving.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 10_000


def test_the_picture_shows_every_policy(tmp_path):
    simulation.png(MADE, tmp_path / "two.png")
    simulation.png(replace(MADE, policies=(AT_ONCE,)), tmp_path / "one.png")
    assert (tmp_path / "two.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_a_policy_outside_its_own_percentiles_can_be_drawn(tmp_path):
    """A mean over grams may lie outside the percentiles over starts."""
    simulation.png(replace(MADE, policies=(replace(GATE, reduction=0.6, makespan_h_mean=120.0),)), tmp_path / "x.png")


def test_a_picture_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(GridsweepError, match=r"name a \.png file in a folder that exists"):
        simulation.png(MADE, tmp_path / "nowhere" / "x.png")


def test_the_picture_library_is_loaded_for_pictures_only():
    code = "import sys, gridsweep.render.simulation; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


SPEC = """\
name: small
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 12, checkpoint_every: 4}
space: {r: [16], alpha: [32, 64], lr: [1e-4], dropout: [0.1]}
design: grid
devices: 2
estimates: {duration: 90m, power_w: 100}
"""


@pytest.fixture
def simulate(gridsweep, tmp_path):
    """Simulate a small sweep: `code, out, err = simulate("--no-bound")`."""
    (tmp_path / "small.yaml").write_text(SPEC)
    return partial(gridsweep, "simulate", "small.yaml")


VALLEY = ("--trace", "solar-valley", "--from", "2025-06-01", "--to", "2025-06-02")


def test_the_command_drives_policies_side_by_side_and_draws_them(simulate, tmp_path):
    options = ("--finish-by", "30h", "--devices", "1", "--idle-power", "10", "--forecast", "perfect", "--png", "x.png")
    code, out, err = simulate(*VALLEY, *options, "--policy", "planned", "--policy", "immediate", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert (made["schema_version"], made["starts"], made["devices"], made["finish_by_s"]) == (5, 4, 1, 108_000)
    assert made["forecast"] == "perfect"
    planned, immediate = made["policies"]
    assert 0.9 < planned["share_of_bound"] <= 1 and immediate["share_of_bound"] == 0
    assert planned["bound_reduction"] == made["bound"]["reduction"] <= made["bound_pausing"]["reduction"]
    assert {"pauses_mean", "energy_mean_kwh", "never_waited", "reduction_waited"} < set(planned)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_bounds_can_be_left_out(simulate):
    made = json.loads(simulate(*VALLEY, "--no-bound", "--json")[1])
    assert made["bound"] is made["bound_pausing"] is made["policies"][0]["share_of_bound"] is None


def test_recorded_forecasts_bring_their_trace(simulate, tmp_path):
    lines = [HEADER]
    for issue in range(0, 72, 24):
        moments = [START + (issue + i) * HOUR for i in range(48)]
        lines += [f"{moments[0].isoformat()},{moment.isoformat()},100,{100 + moment.hour}" for moment in moments]
    (tmp_path / "told.csv").write_text("\n".join(lines))
    window = ("--from", "2024-06-11", "--to", "2024-06-12")
    code, out, err = simulate("--forecast", "recorded:told.csv", *window, "--policy", "immediate")
    assert code == 0, err
    assert "4 starts" in out and "told.csv (measured), forecast: recorded:told.csv" in out


def test_without_a_trace_it_is_the_specs_own(simulate, tmp_path):
    window = ("--from", "2024-06-10", "--to", "2024-06-11", "--policy", "immediate", "--no-bound")
    hours = [START.replace(month=5, day=1, hour=0) + i * HOUR for i in range(24 * 60)]
    rows = "".join(f"{hour.isoformat()},{100 + hour.hour}\n" for hour in hours)
    (tmp_path / "mine.csv").write_text(f"timestamp,carbon_intensity\n{rows}")
    (tmp_path / "small.yaml").write_text(SPEC + "carbon: {file: mine.csv}\n")
    code, out, err = simulate(*window)
    assert code == 0, err
    assert "4 starts on 2 devices, mine.csv (measured), forecast" in out
    assert "solar-valley" not in out
    code, out, _ = simulate(*VALLEY, "--policy", "immediate", "--no-bound")
    assert code == 0 and "Solar valley (synthetic), forecast" in out, "--trace comes before the spec's own"


def test_without_any_trace_in_the_spec_it_is_the_bundled_one_named_once(simulate):
    code, out, _ = simulate(*VALLEY[2:], "--policy", "immediate", "--no-bound")
    assert code == 0 and ", Solar valley (synthetic), forecast" in out


def test_a_live_provider_leaves_no_trace_to_simulate_on(simulate, tmp_path):
    (tmp_path / "small.yaml").write_text(SPEC + "carbon: {provider: uk, zone: GB}\n")
    code, out, err = simulate()
    assert (code, out) == (2, "") and "needs a trace; name one with --trace" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*VALLEY, "--forecast", "magic"), "say history, perfect or recorded:FILE"),
        (("--forecast", "recorded:nope.csv"), "nope.csv: there is no such file"),
        ((*VALLEY, "--devices", "0"), "--devices"),
        ((*VALLEY, "--idle-power", "-5"), "--idle-power"),
        ((*VALLEY, "--finish-by", "soon"), "--finish-by"),
    ],
)
def test_bad_usage_ends_with_2_and_a_word(simulate, arguments, words):
    code, out, err = simulate(*arguments)
    assert (code, out) == (2, "") and words in err and "Traceback" not in err
