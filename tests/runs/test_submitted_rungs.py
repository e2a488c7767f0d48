"""`rungs: default` keeps the meaning that it had when a sweep was submitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gridsweep.records import codec
from gridsweep.runs.amendments import amendments, as_submitted
from gridsweep.spec import loads
from gridsweep.state.events import Submitted
from gridsweep.sweep.rungs import DEFAULT, EARLIER, adapted
from gridsweep.sweep.sweep import Sweep
from old_runs import bodies, unpack

LEAST = "model: tiny-qwen2\ndataset: stdlib\nrecipe: {steps: 240}\nestimates: {duration: 1h, power_w: 15}\n"
THEN = LEAST + "rungs: {at: [1/8, 1/4, 1/2], keep: [11, 6, 3]}\n"
"""A spec with the rungs that `default` meant up to version 0.1.0."""
SMALL = """\
name: small
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 24, checkpoint_every: 4}
space: {r: [16], alpha: [32, 64], lr: [1e-4, 5e-5, 2e-5], dropout: [0.1]}
tiers: [{name: any, threshold: 200, max_delay: 600h}]
estimates: {duration: 1h, power_w: 15}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: auto}}
"""


def then(text: str = THEN) -> Sweep:
    """A sweep as version 0.1.0 submitted it."""
    sweep = loads(text)
    assert sweep.rungs is not None
    return replace(sweep, rungs=replace(EARLIER, keep_always=sweep.rungs.keep_always))


def test_what_0_1_0_journaled_is_read_with_its_numbers(tmp_path: Path):
    """The journals of then hold the numbers, not the word; they lack the drift, which came later."""
    body = next(body for body in bodies(unpack("raced", tmp_path)) if body["kind"] == "Submitted")
    assert set(body["sweep"]["rungs"]) == {"at", "keep", "keep_always", "together"}
    body["sweep"]["rungs"] = {"at": [0.125, 0.25, 0.5], "keep": [11, 6, 3], "keep_always": [], "together": True}
    assert codec.loads(Submitted, json.dumps(body)).sweep.rungs == EARLIER


def test_rungs_without_numbers_are_read_by_nobody(tmp_path: Path):
    """No default stands in the class, so that none can change what a journal says."""
    body = next(body for body in bodies(unpack("raced", tmp_path)) if body["kind"] == "Submitted")
    del body["sweep"]["rungs"]["keep"]
    with pytest.raises(ValueError, match="keep"):
        codec.loads(Submitted, json.dumps(body))


def test_a_sweep_of_then_goes_on_with_its_rungs_when_its_spec_says_default():
    now = loads(LEAST)
    assert now.rungs == DEFAULT != EARLIER
    kept, note = as_submitted(then(), now)
    assert kept.rungs == EARLIER and "the rungs stay as submitted: 11, 6, 3" in note
    assert amendments(then(), kept) == []


def test_a_default_of_today_stays_a_default_of_today():
    now = loads(LEAST)
    assert as_submitted(now, now) == (now, "")


@pytest.mark.parametrize("line", ["rungs: none", "rungs: {at: [1/2], keep: [4]}"])
def test_rungs_that_the_user_has_changed_are_not_taken_back(line: str):
    changed = loads(LEAST + line)
    assert as_submitted(then(), changed) == (changed, "")
    with pytest.raises(Exception, match="holds another sweep"):
        amendments(then(), changed)


def test_too_few_steps_for_the_rungs_of_today_are_enough_for_those_of_then():
    few = loads(LEAST.replace("240", "4"))
    assert few.rungs is None and not adapted(DEFAULT, 21, 4, 0).at
    old = replace(few, rungs=EARLIER, pack=21)
    kept, note = as_submitted(old, few)
    assert (kept.rungs, kept.pack) == (EARLIER, 21) and note


def test_a_folder_is_run_again_with_the_spec_of_then(gridsweep, tmp_path: Path):
    """Six experiments: then 3 were kept at an eighth. The same file, read today, means other rungs."""
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL + "rungs: {at: [1/8, 1/4, 1/2], keep: [11, 6, 3]}\n")
    assert gridsweep("run", "small.yaml")[0] in (0, 124)
    before = [body["step"] for body in bodies(tmp_path / "runs" / "small") if body["kind"] == "Ranked"]
    spec.write_text(SMALL + "rungs: default\n")
    code, _, err = gridsweep("run", "small.yaml")
    assert code in (0, 124) and "the rungs stay as submitted: 3, the default of version 0.1.0" in err
    after = bodies(tmp_path / "runs" / "small")
    assert [body["step"] for body in after if body["kind"] == "Ranked"] == before == [3]
    resumed = next(body for body in after if body["kind"] == "Resumed")
    assert resumed["sweep"]["rungs"]["keep"] == [3] and resumed["changes"] == []
