"""The grid's verbs as users meet them: forecast, zones, doctor and check on real HTTP, strict sweeps, settling."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from gridsweep.carbon.traces import HOUR, Trace, floor_to
from gridsweep.testing.grid.dialect import Grid
from gridsweep.testing.grid.electricity_maps import ElectricityMapsApi
from gridsweep.testing.grid.server import GridServer

NOW = datetime.now(UTC)
LEVELS = 300 - 150 * np.cos((np.arange(24 * 45) + floor_to(NOW, HOUR).hour) * 2 * np.pi / 24)
TRUTH = Trace(floor_to(NOW, HOUR) - timedelta(days=40), HOUR, np.round(LEVELS))
SPEC = """\
name: live
model: tiny-qwen2
dataset: stdlib
recipe: {{steps: 12, checkpoint_every: 4}}
space: {{r: [16], alpha: [32, 64], lr: [1e-4], dropout: [0.1]}}
design: grid
tiers:
  - {{name: any, threshold: {threshold}, max_delay: 24h}}
policy: {policy}
devices: 2
estimates: {{duration: 1h, power_w: 15}}
carbon: {{{carbon}}}
"""
REPLAY = 'clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 7200}}\n'


@pytest.fixture
def service():
    """Electricity Maps on a loopback server, over a grid that is cleanest at midday."""
    with GridServer(ElectricityMapsApi(), Grid("DE", TRUTH, lambda: datetime.now(UTC))) as server:
        yield server


@pytest.fixture
def write(monkeypatch, tmp_path, service):
    """Write a spec on that service, or on another `carbon` section; returns its path."""
    monkeypatch.setenv("EM_TOKEN", ElectricityMapsApi().secrets["token"])

    def spec(carbon=None, threshold="p40", policy="threshold", more=""):
        url = f"{service.url}/v3"
        carbon = carbon or f'provider: electricity_maps, zone: DE, token: "env:EM_TOKEN", base_url: "{url}"'
        path = tmp_path / "live.yaml"
        path.write_text(SPEC.format(carbon=carbon, threshold=threshold, policy=policy) + more)
        return path

    return spec


def test_a_forecast_needs_neither_account_nor_network(gridsweep):
    code, out, _ = gridsweep("forecast")
    assert code == 0
    assert "synthetic-solar-valley" in out and "best windows of 1.5 h" in out and "▁" in out
    assert "our own forecast from history" in out


def test_a_forecast_says_how_the_present_is_known_and_what_now_means(gridsweep, tmp_path):
    _, out, _ = gridsweep("forecast", "--at", "2024-06-10T16:20:00Z")
    assert "gCO2eq/kWh (synthetic)\n" in out and "(live)" not in out and "(now:" not in out
    assert "best windows of 1.5 h (the 1.5 h from now: " in out and " on average):" in out
    rows = "".join(f"{TRUTH.start + i * HOUR:%Y-%m-%dT%H:%M}Z,{level}\n" for i, level in enumerate(TRUTH.values))
    (tmp_path / "mine.csv").write_text(f"timestamp,carbon_intensity\n{rows}")
    assert "gCO2eq/kWh (recorded)\n" in gridsweep("forecast", "--trace", "mine.csv")[1]


def test_a_forecast_as_json_has_the_expected_with_its_band_and_sources(gridsweep):
    code, out, _ = gridsweep("forecast", "--trace", "solar-valley", "--at", "2024-06-10T16:00:00Z", "--json")
    made = json.loads(out)
    assert code == 0 and made["schema_version"] == 2
    columns = list(zip(*(made[f"expected{side}_g_per_kwh"] for side in ("_low", "", "_high")), strict=True))
    assert len(columns) == 96 and all(low <= level <= high for low, level, high in columns)
    assert made["windows"][0]["intensity_g_per_kwh"] <= made["immediate_intensity_g_per_kwh"]
    assert [source["quality"] for source in made["sources"]] == ["synthetic", "forecast"]
    assert 0 < made["typical_error"] < 0.3


def test_a_forecast_is_drawn(gridsweep, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, _ = gridsweep("forecast", "--png", "f.png")
    assert code == 0 and "wrote f.png" in out
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert gridsweep("forecast", "--png", "nowhere/f.png")[0] == 2


def test_a_live_zone_is_shown_with_who_says_so(gridsweep, write):
    code, out, err = gridsweep("forecast", write())
    assert code == 0, err
    assert "(live)" in out and "Electricity Maps, DE, lifecycle factors" in out
    assert "average, lifecycle" in out


def test_a_silent_provider_is_named_with_what_stands_in(gridsweep, write, service):
    spec = write(carbon='provider: uk, zone: GB, base_url: "http://127.0.0.1:9"')
    code, out, _ = gridsweep("forecast", spec)
    assert code == 0
    assert "(static)" in out and "cannot be reached" in out and "yearly average" in out


def test_secrets_stay_out_of_what_is_printed_and_written(gridsweep, write, service, tmp_path):
    secret = ElectricityMapsApi().secrets["token"]
    for verb in (["forecast"], ["doctor"], ["check"], ["plan"], ["run", "--json"]):
        _, out, err = gridsweep(verb[0], write(policy="immediate"), *verb[1:])  # or it waits for a clean hour of today
        assert secret not in out + err
    found = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert found == []


def test_a_sweep_runs_on_a_live_provider(gridsweep, write, service):
    code, out, err = gridsweep("run", write(policy="immediate"), "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["counts"] == {"done": 2}
    assert made["meaning"] == "average, lifecycle"
    assert made["outages"] == [] and made["unknown_energy_kwh"] == 0
    assert service.most_in_flight == 1 and len(service.seen) <= 12


def test_doctor_asks_the_provider_of_a_spec(gridsweep, write):
    code, out, _ = gridsweep("doctor", write(), "--json")
    (seen,) = [f for f in json.loads(out)["findings"] if f["what"] == "grid electricity_maps"]
    assert code == 0 and seen["state"] == "ok"
    assert "gCO2eq/kWh now, average, lifecycle" in seen["seen"]


def test_doctor_says_what_a_wrong_key_needs(gridsweep, write, monkeypatch):
    monkeypatch.setenv("EM_TOKEN", "wrong-token")
    _, out, _ = gridsweep("doctor", write(), "--json")
    (seen,) = [f for f in json.loads(out)["findings"] if f["what"] == "grid electricity_maps"]
    assert seen["state"] == "missing" and "401" in seen["seen"] and "wrong-token" not in out


@pytest.mark.parametrize(("threshold", "words"), [(5, "no slot of the last week met"), (900, "work would never wait")])
def test_check_warns_of_a_limit_that_sorts_nothing(gridsweep, write, threshold, words):
    code, out, _ = gridsweep("check", write(threshold=threshold), "--json")
    (warning,) = json.loads(out)["warnings"]
    assert code == 0 and words in warning and "p40" in warning


def test_a_forecast_where_nothing_answered_is_an_error(gridsweep):
    """No service at the address, no archive, and no yearly average for the region."""
    spec = 'provider: uk, zone: "13", base_url: "http://127.0.0.1:9"'
    Path("nowhere.yaml").write_text(SPEC.format(carbon=spec, threshold=100, policy="planned"))
    code, out, err = gridsweep("forecast", "nowhere.yaml")
    assert (code, out) == (8, "") and "no grid data for 13" in err and "cannot be reached" in err


def test_check_says_nothing_of_limits_that_the_policy_ignores(gridsweep, write):
    for policy in ("planned", "immediate"):
        code, out, _ = gridsweep("check", write(threshold=5, policy=policy), "--json")
        assert (code, json.loads(out)["warnings"]) == (0, [])
    nowhere = 'provider: uk, zone: GB, base_url: "http://127.0.0.1:9"'
    _, out, _ = gridsweep("check", write(carbon=nowhere, policy="planned"), "--json")
    (warning,) = json.loads(out)["warnings"]
    assert "the grid cannot be read" in warning and "limit" not in warning


def test_check_judges_no_limit_by_a_yearly_average(gridsweep, write):
    _, out, _ = gridsweep("check", write(carbon='provider: uk, zone: GB, base_url: "http://127.0.0.1:9"'), "--json")
    (warning,) = json.loads(out)["warnings"]
    assert "cannot be checked" in warning and "cannot be reached" in warning


def test_check_is_content_with_a_percentile(gridsweep, write):
    code, out, _ = gridsweep("check", write(), "--json")
    assert (code, json.loads(out)["warnings"]) == (0, [])


def test_a_strict_sweep_refuses_a_synthetic_grid(gridsweep, write):
    spec = write(carbon="file: solar-valley, strict: true", more=REPLAY)
    code, _, err = gridsweep("run", spec)
    assert code == 8
    assert "synthetic" in err and "strict" in err


def test_a_report_is_settled_and_says_so(gridsweep, write):
    spec = write(carbon="file: solar-valley", more=REPLAY)
    assert gridsweep("run", spec)[0] == 0
    code, out, err = gridsweep("report", "runs/live", "--settle", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["settlement"]["revised"] == 0
    assert made["settlement"]["emissions_g"] == pytest.approx(made["emissions_g"])
    assert "Settled" in gridsweep("report", "runs/live", "--markdown")[1]


def test_zones_are_found_by_name(gridsweep):
    code, out, _ = gridsweep("zones", "germ", "--provider", "static", "--json")
    assert code == 0
    assert [zone["zone"] for zone in json.loads(out)["zones"]] == ["DE"]


@pytest.mark.parametrize(
    ("carbon", "words"),
    [
        ("provider: uk", "carbon.zone: missing"),
        ("provider: electricity_maps, zone: DE, token: abc123secret", "never the secret itself"),
        ("provider: uk, zone: GB, token: 'env:X'", "not a key of the provider uk"),
        ("file: solar-valley, value: 5", "not a key of the provider trace"),
        ("provider: static, zone: FR, on_signal_loss: panic", "wait_until_deadline"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_without_repeating_a_secret(gridsweep, write, carbon, words):
    code, _, err = gridsweep("check", write(carbon=carbon))
    assert code == 2 and words in err and "abc123secret" not in err


def test_a_live_provider_replays_no_past(gridsweep, write):
    code, _, err = gridsweep("check", write(more=REPLAY))
    assert code == 2 and "reads only the present" in err
