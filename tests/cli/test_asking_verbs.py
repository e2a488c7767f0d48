"""The commands that ask something of a sweep, as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from builders import attempts, driven, lines, real_sweep, until
from gridsweep import errors
from gridsweep.records.requests import name_of
from gridsweep.render import documents
from gridsweep.render.kinds import KINDS
from gridsweep.runs.folder import RunFolder

ME = name_of(os.geteuid())
SPEC = """\
name: small
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 4}
space: {r: [16], alpha: [32], lr: [%s], dropout: [0.1]}
design: grid
estimates: {duration: 1h, power_w: 15}
%s
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: auto}}
"""


def test_a_spec_with_more_points_and_devices_is_added_to_its_sweep(gridsweep, tmp_path):
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC % ("1e-4, 5e-5", ""))
    assert gridsweep("run", "small.yaml")[0] == 0
    spec.write_text(SPEC % ("1e-4, 2e-4, 3e-4", "devices: 2"))
    assert "2 before, 3 now" in gridsweep("run", "small.yaml")[2]
    code, out, err = gridsweep("add", "small.yaml", "--json")
    told = json.loads(out)
    jsonschema.Draft202012Validator(documents.schema(KINDS["add"], "add")).validate(told)
    assert code == 0 and len(told["added_ids"]) == 2
    assert told["answer"] == "waiting" and told["next"] == "gridsweep run runs/small"
    assert "note: the spec lacks 1 experiment of the sweep: kept" in err
    assert "1 request not yet taken" in gridsweep("status")[1]
    code, out, err = gridsweep("run", "runs/small")
    assert code == 0 and f"{ME} asked to add" in err and "changed: devices: 1 before, 2 now" in err
    assert "4 done" in gridsweep("status")[1]
    report = json.loads(gridsweep("report", "--json")[1])
    assert report["requests"][0]["added_ids"] == told["added_ids"]
    assert "What was asked" in (tmp_path / "runs/small/state/report.md").read_text()
    assert "What was asked" in (tmp_path / "runs/small/state/report.html").read_text()


def test_a_spec_of_another_sweep_is_refused_at_its_line(gridsweep, tmp_path):
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC % ("1e-4", ""))
    assert gridsweep("run", "small.yaml")[0] == 0
    spec.write_text((SPEC % ("1e-4", "")).replace("steps: 4", "steps: 5"))
    code, out, err = gridsweep("add", "small.yaml")
    assert code == errors.USAGE and out == "" and "only tiers, policy, devices" in err
    assert gridsweep("status")[1].count("not yet taken") == 0


def test_experiments_and_the_folder_are_told_apart(gridsweep, tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.1")
    loop = driven(real_sweep(3, steps=12), tmp_path / "here")
    until(lambda: any(line.step for attempt in attempts(tmp_path / "here") for line in lines(attempt)))
    assert gridsweep("hold", "e02", "here")[1] == "hold e02: done\n"
    assert gridsweep("cancel", "here", "e01", "e01")[1] == "cancel e01: done\n"
    code, _, err = gridsweep("pause", "e", "here")
    assert code == errors.USAGE and "'e' matches 3 experiments" in err
    code, _, err = gridsweep("cancel", "here")
    assert code == errors.USAGE and "refused: it names no experiment" in err
    code, _, err = gridsweep("hold", "e02", "here", "--until", "2020-01-01")
    assert code == errors.USAGE and "is past: the sweep's time is" in err
    status = gridsweep("status", "here")[1]
    assert "1 cancelled" in status and f"held by {ME}" in status
    assert gridsweep("release", "e02", "here", "--now")[1] == "release e02: done\n"
    loop.join(60)
    assert loop.exitcode == 0
    code, _, err = gridsweep("pause", "here")
    assert code == errors.USAGE and "there is nothing to pause" in err
    assert len(RunFolder(Path("here")).read().asks.taken) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("hold", "here", "--until", "2030-01-01", "--for", "2h"), "--until and --for name the same time"),
        (("pause", "here", "there"), "here and there are both run folders"),
        (("add", "nope.yaml"), "there is no such file"),
    ],
)
def test_what_cannot_be_asked_is_refused(gridsweep, tmp_path, arguments, told):
    for name in ("here", "there"):
        (tmp_path / name / "state").mkdir(parents=True)
    code, out, err = gridsweep(*arguments)
    assert (code, out) == (errors.USAGE, "") and told in err
