"""The command line as its users meet it: what it prints, and every exit code."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import jsonschema
import pytest

from builders import PROJECT
from gridsweep.errors import EXIT_CODES
from gridsweep.records.journal import Journal
from gridsweep.records.looks import Look
from old_runs import unpack

EXAMPLES = PROJECT / "examples"
SPEC = """\
name: small
model: tiny-qwen2
dataset: stdlib
recipe: {steps: 12, checkpoint_every: 4}
space: {r: [16], alpha: [32, 64], lr: [1e-4, 5e-5], dropout: [0.1]}
design: grid
tiers: [{name: any, threshold: 200, max_delay: 600h}]  # on the slowest machine no start is overdue
devices: 2
estimates: {duration: 1h, power_w: 15}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 7200}}
rungs: none
"""
OLD_TRACE = "timestamp,carbon_intensity\n" + "".join(f"2020-01-01T{h:02d}:00:00Z,100\n" for h in range(24))


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def background(tmp_path):
    """Start a run in a process of its own, slow enough to be caught; it is ended with the test."""
    started = []

    def start(spec, *options, folder="runs/small", **environment):
        command = [sys.executable, "-m", "gridsweep.cli", "run", str(spec), *options]
        variables = os.environ | {"GRIDSWEEP_WORKER": "gridsweep.testing", "GRIDSWEEP_STEP_SECONDS": "0.3"}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=variables | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        journal = tmp_path / folder / "store/stints"
        end = time.monotonic() + 30
        while not list(journal.glob("*/1/progress.jsonl")):
            assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    subprocess.run([sys.executable, "-m", "gridsweep.cli", "stop", "runs/small"], cwd=tmp_path, check=False,
                   capture_output=True, env=os.environ | {"GRIDSWEEP_WORKER": "gridsweep.testing"})  # fmt: skip


def test_check_as_json_names_every_experiment_with_its_tier(gridsweep):
    code, out, _ = gridsweep("check", EXAMPLES / "published.yaml", "--json")
    experiments = json.loads(out)["experiments"]
    assert code == 0
    assert len({e["id"] for e in experiments}) == 21
    assert [sum(e["tier"] == f"tier{n}" for e in experiments) for n in (1, 2, 3)] == [8, 4, 9]
    assert set(experiments[0]) == {"id", "r", "alpha", "lr", "dropout", "tier", "tier_reason", "more"}


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_what_a_look_refuses_is_placed_at_its_key_and_what_it_warns_of_is_told(gridsweep, spec, monkeypatch, verb):
    spec.write_text(SPEC.replace("recipe: {steps: 12, checkpoint_every: 4}", "recipe:\n  steps: 4\n  max_length: 3"))
    line = spec.read_text().splitlines().index("  max_length: 3") + 1
    look = Look(error="no sample has room for a response in 3 tokens; raise recipe.max_length")
    monkeypatch.setattr("gridsweep.runs.looking.looked", lambda *_: look)
    code, _, err = gridsweep(verb, spec)
    assert (code, err.splitlines()[-1]) == (2, f"error: {spec}:{line}: recipe.max_length: {look.error}")
    error = json.loads(gridsweep(verb, spec, "--json")[1])["error"]
    assert (error["where"], error["remedy"]) == (f"{spec}:{line}: recipe.max_length", "raise recipe.max_length")
    look = Look(warnings=("3 of 8 validation samples are trained on too",))
    _, out, err = gridsweep(verb, spec)
    assert "3 of 8 validation samples" in out + err


def test_init_writes_a_spec_that_checks_plans_and_is_not_overwritten(gridsweep, tmp_path):
    assert gridsweep("init")[0] == 0
    assert gridsweep("check", "sweep.yaml")[0] == 0
    assert gridsweep("plan", "sweep.yaml")[0] == 0
    code, _, err = gridsweep("init")
    assert code == 2 and "already exists" in err


def test_schema_accepts_the_examples(gridsweep):
    import yaml

    _, out, _ = gridsweep("schema")
    schema = json.loads(out)
    for example in EXAMPLES.glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(example.read_text()), schema)


def test_plan_as_json_says_what_it_would_save(gridsweep, spec):
    code, out, _ = gridsweep("plan", spec, "--json")
    plan = json.loads(out)
    assert code == 0 and len(plan["experiments"]) == 4
    assert plan["emissions_g"] <= plan["immediate_emissions_g"]


def test_simulate_prints_the_documented_json(gridsweep):
    code, out, _ = gridsweep(
        "simulate", EXAMPLES / "published.yaml", "--trace", "solar-valley",
        "--policy", "threshold", "--policy", "immediate",
        "--from", "2025-06-01", "--to", "2025-06-03", "--every", "12h", "--json",
    )  # fmt: skip
    made = json.loads(out)
    assert code == 0
    assert (made["schema_version"], made["starts"], made["devices"]) == (5, 4, 2)
    assert set(made["policies"][0]) == {
        "policy", "emissions_mean_g", "reduction", "reduction_p10", "reduction_p50", "reduction_p90", "makespan_mean_s",
        "makespan_p90_s", "late_starts", "late_ends", "share_of_bound", "bound_reduction", "pauses_mean",
        "energy_mean_kwh", "never_waited", "reduction_waited",
    }  # fmt: skip
    threshold, immediate = made["policies"]
    assert threshold["reduction"] > 0.1 and immediate["reduction"] == 0


def test_a_run_from_its_spec_to_its_report(gridsweep, spec, tmp_path):
    code, out, err = gridsweep("run", spec)
    assert code == 0, err
    report = tmp_path / "runs/small/state/report.html"
    assert out.splitlines()[-1] == f"report: {report.relative_to(tmp_path)}"
    assert report.exists() and report.with_suffix(".md").exists()
    code, out, _ = gridsweep("report", "runs/small", "--json")
    made = json.loads(out)
    losses = [row["validation_loss"] for row in made["experiments"]]
    assert losses == sorted(losses) and len(losses) == 4
    for row in made["experiments"]:
        home = tmp_path / "runs/small/store/experiments" / row["id"]
        assert (home / "adapter/adapter_config.json").exists() and (home / "README.md").exists()
    code, out, _ = gridsweep("status", "--json")
    assert json.loads(out)["counts"]["done"] == 4
    code, out, _ = gridsweep("explain", made["experiments"][0]["id"][:20])
    assert code == 0 and "started" in out and "no cleaner window" in out
    assert gridsweep("report", "runs/small", "--markdown")[1].startswith("#")
    assert gridsweep("stop", "runs/small")[1].startswith("nothing is left")
    again, out, _ = gridsweep("run", spec)
    assert again == 0, "running a finished sweep again changes nothing"


def test_explain_knows_nearly_right_names(gridsweep, spec):
    gridsweep("run", spec)
    code, _, err = gridsweep("explain", "r16", "runs/small")
    assert code == 2 and "'r16' matches 4 experiments; type one of" in err
    code, _, err = gridsweep("explain", "q16-a32", "runs/small")
    assert code == 2 and "did you mean" in err


def test_by_default_rungs_stop_those_that_fall_behind_and_the_report_says_so(spec, gridsweep):
    spec.write_text(SPEC.replace("rungs: none\n", ""))
    code, out, err = gridsweep("run", spec.name)
    assert code == 0, err
    assert "rung at step" in err and "of 4 continue" in err
    assert "4 → " in out and "of all steps" in out
    code, out, _ = gridsweep("report", "runs/small", "--json")
    made = json.loads(out)
    assert {row["status"] for row in made["experiments"]} == {"done", "stopped"}
    assert made["rungs"][0]["step"] == 6 and len(made["rungs"][0]["stopped_ids"]) == 1
    stopped = next(row for row in made["experiments"] if row["status"] == "stopped")
    assert stopped["saved_energy_kwh"] > 0 and "stopped at step" in stopped["reason"]


def test_exit_3_when_an_experiment_fails_and_the_rest_goes_on(gridsweep, spec, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:r16-a64-lr1e-4")
    code, out, _ = gridsweep("run", spec)
    assert code == 3
    _, out, _ = gridsweep("status", "--json")
    assert json.loads(out)["counts"] == {"waiting": 0, "running": 0, "done": 3, "failed": 1, "stopped": 0}


def test_exit_5_when_everything_fails_alike(gridsweep, spec, monkeypatch):
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "crash:r16")
    code, _, err = gridsweep("run", spec)
    assert code == 5
    assert "for the same reason: the stand-in was told to crash" in err
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE")
    assert gridsweep("run", spec)[0] == 0, "once mended, the same command goes on"


def test_exit_124_for_a_deadline_that_cannot_be_met(gridsweep, spec):
    spec.write_text(SPEC + "finish_by: 90m\n")
    for verb in ("check", "plan", "run"):
        code, _, err = gridsweep(verb, spec)
        assert code == 124 and "take 2 h, and finish_by leaves 1.5 h; move finish_by" in err
    assert not (spec.parent / "runs").exists(), "a sweep that cannot begin leaves no folder"


def test_a_file_in_the_place_of_a_run_is_said_to_be_one(gridsweep, spec):
    for verb in ("best", "status", "report"):
        code, _, err = gridsweep(verb, spec.name)
        assert (
            code == 2
            and err == "error: small.yaml is a file, not the folder of a run; name the folder, such as runs/NAME\n"
        )


def test_a_run_that_fails_before_its_submission_is_not_the_newest_run(gridsweep, spec, tmp_path):
    assert gridsweep("run", spec)[0] == 0
    failing = tmp_path / "failing.yaml"
    (tmp_path / "grid.csv").write_text(OLD_TRACE)
    text = SPEC.replace("name: small", "name: failing")
    failing.write_text(text + "carbon: {provider: trace, zone: Nowhere, file: grid.csv}\n")
    code, _, err = gridsweep("run", failing)
    assert code == 2 and "grid.csv has no data at 2024-06-10" in err
    assert not (tmp_path / "runs/failing/state/journal.db").exists()
    code, out, _ = gridsweep("status", "--json")
    assert code == 0 and json.loads(out)["sweep"] == "small"
    code, _, err = gridsweep("status", "runs/failing")
    assert code == 2 and "holds no sweep; start one with `gridsweep run SPEC --folder runs/failing`" in err
    shutil.copytree(
        tmp_path / "runs/small", tmp_path / "runs/old", ignore=shutil.ignore_patterns("journal*", "snapshot*")
    )
    Journal(tmp_path / "runs/old/state/journal.db", epoch=1).close()  # left by an earlier version
    assert json.loads(gridsweep("status", "--json")[1])["sweep"] == "small"


def test_check_plan_and_simulate_refuse_a_deadline_that_cannot_be_met_alike(gridsweep, tmp_path):
    wanted = "21 experiments of 1.5 h on 2 devices take 16.5 h, and finish_by leaves 5 h; move finish_by"
    tight = tmp_path / "tight.yaml"
    tight.write_text((EXAMPLES / "published.yaml").read_text() + "finish_by: 5h\n")
    solar = ("--trace", "solar-valley", "--every", "900h")
    for command in (
        ["check", tight], ["plan", tight], ["simulate", tight, *solar],
        ["simulate", EXAMPLES / "published.yaml", *solar, "--finish-by", "5h"],
    ):  # fmt: skip
        code, out, err = gridsweep(*command)
        assert code == 124 and not out and wanted in err


def test_exit_124_for_a_plan_that_names_late_starts(gridsweep, spec):
    """Four hours of work on two devices: two experiments start an hour after the submission, and may wait 10 min."""
    spec.write_text(SPEC.replace("max_delay: 600h", "max_delay: 10m"))
    code, out, _ = gridsweep("plan", spec)
    assert code == 124 and "2 experiments start after their deadline" in " ".join(out.split())
    assert "misses the deadline" not in out
    assert gridsweep("run", spec)[0] == 124


def test_exit_6_for_a_second_run_and_4_for_a_stop(gridsweep, spec, background):
    process = background(spec)
    begun = time.monotonic()
    code, _, err = gridsweep("run", spec)
    assert code == 6 and time.monotonic() - begun < 2
    assert f"process {process.pid} is already running" in err
    code, out, _ = gridsweep("stop", "runs/small")
    assert code == 0 and "experiments remain" in out
    assert process.wait(30) == 4
    assert gridsweep("run", "runs/small")[0] == 0


def test_exit_130_for_ctrl_c_with_the_state_saved(gridsweep, spec, background):
    process = background(spec)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "resume with: gridsweep run" in out
    counts = json.loads(gridsweep("status", "--json")[1])["counts"]
    assert counts["running"] == 0 and counts["waiting"] > 0
    assert gridsweep("run", spec)[0] == 0


def test_the_hint_after_ctrl_c_names_the_folder_that_was_given(gridsweep, spec, background, tmp_path):
    process = background(spec, "--folder", "runs/my trial", folder="runs/my trial")
    process.send_signal(signal.SIGINT)
    hint = re.search(r"resume with: gridsweep (run .*)", process.communicate(timeout=30)[0])
    assert hint and shlex.split(hint[1]) == ["run", str(spec), "--folder", "runs/my trial"]
    assert gridsweep(*shlex.split(hint[1]))[0] == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["my trial"]


def test_a_second_ctrl_c_leaves_at_once_and_the_workers_are_adopted(gridsweep, spec, background):
    process = background(spec, GRIDSWEEP_STEP_SECONDS="2")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=10)[0]
    assert process.returncode == 130 and "the workers keep running" in out
    assert gridsweep("run", spec)[0] == 0
    stints = json.loads(gridsweep("status", "--json")[1])["experiments"]
    assert all(e["status"] == "done" for e in stints)


def test_detach_runs_in_the_background(gridsweep, spec):
    code, out, _ = gridsweep("run", spec, "--detach")
    assert code == 0 and "status --watch runs/small" in out
    assert gridsweep("status", "runs/small", "--watch")[0] == 0
    os.waitpid(int(out.split()[1]), 0)
    assert json.loads(gridsweep("status", "--json")[1])["counts"]["done"] == 4


def test_exit_7_for_a_damaged_journal(gridsweep, spec, tmp_path):
    gridsweep("run", spec)
    (tmp_path / "runs/small/state/journal.db").write_bytes(b"not a journal" * 1000)
    for verb in (["run", spec], ["status"], ["report"]):
        code, _, err = gridsweep(*verb)
        assert code == 7 and "journal.db" in err


def test_a_changed_spec_is_refused_with_a_diff(gridsweep, spec):
    gridsweep("run", spec)
    spec.write_text(SPEC.replace("steps: 12", "steps: 13"))
    code, _, err = gridsweep("run", spec)
    assert code == 2 and "recipe.steps: 12 before, 13 now" in err and "--folder" in err


def test_a_trace_of_another_time_is_said_before_anything_starts(gridsweep, spec, tmp_path):
    (tmp_path / "grid.csv").write_text(OLD_TRACE)
    spec.write_text(SPEC + "carbon: {provider: trace, zone: Nowhere, file: grid.csv}\n")
    code, _, err = gridsweep("run", spec)
    assert code == 2 and "grid.csv has no data at 2024-06-10 16:00" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chek", "x"], "check"),
        (["check", "nope.yaml"], "there is no such file"),
        (["check", "."], "is a folder"),
        (["status", "nowhere"], "holds no sweep"),
        (["status"], "no run found in ./runs"),
        (["run", "nope.yaml"], "there is no such file"),
        (["simulate", EXAMPLES / "published.yaml", "--trace", "nope.csv"], "nope.csv"),
        (
            ["simulate", EXAMPLES / "published.yaml", "--trace", "solar-valley", "--policy", "magic"],
            "unknown policy 'magic'",
        ),
        (["simulate", EXAMPLES / "published.yaml", "--trace", "solar-valley", "--every", "6"], "such as 24h"),
        (
            ["simulate", EXAMPLES / "published.yaml", "--trace", "solar-valley", "--from", "2030-01-01"],
            "choose --from",
        ),
        (["plan", EXAMPLES / "demo.yaml", "--at", "2024-06-10T16:00"], "time zone"),
    ],
)
def test_exit_2_for_bad_usage_with_a_next_step(gridsweep, arguments, words):
    code, out, err = gridsweep(*arguments)
    assert code == 2 and words in err and out == "" and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_said(gridsweep, spec, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    code, _, err = gridsweep("run", spec)
    assert code == 2 and "--folder" in err


def test_doctor_says_how_energy_is_known(gridsweep):
    code, out, _ = gridsweep("doctor")
    assert code == 0 and "energy" in out and "works offline" in out
    findings = json.loads(gridsweep("doctor", "--json")[1])["findings"]
    assert {"python", "devices", "energy", "disk", "grid"} <= {f["what"] for f in findings}


def test_doctor_keeps_its_columns_apart_and_names_every_extra(gridsweep):
    _, out, _ = gridsweep("doctor")
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    for extra in set(project["optional-dependencies"]) - {"dev"}:
        assert re.search(rf"^(ok|note|missing) +extra {extra} +\S", out, re.MULTILINE), extra
    assert "(synthetic) (synthetic)" not in out and "bundled trace Solar valley (synthetic), works offline" in out


def test_logs_of_a_healthy_experiment_say_that_there_are_none(gridsweep, spec):
    gridsweep("run", spec)
    code, out, err = gridsweep("logs", "r16-a32-lr1e-4")
    assert (code, out) == (0, "") and "/1) printed nothing (workers print warnings and errors only)" in err


def test_the_help_lists_every_exit_code(gridsweep):
    _, out, _ = gridsweep("--help")
    assert all(f"{code:>3}  " in out for code in EXIT_CODES)


def test_the_help_is_quick():
    """In CPU seconds, which other work on the machine does not change."""
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "gridsweep.cli", "--help"], check=True, capture_output=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.4


@pytest.mark.parametrize("verb", [("schema",), ("status", "{folder}")], ids=["click", "rich"])
def test_a_reader_that_leaves_is_no_fault(tmp_path, verb):
    """`gridsweep status | true`: whatever writes, it ends with 0 and without a word."""
    folder = unpack("finished", tmp_path)
    command = [sys.executable, "-P", "-m", "gridsweep", *(part.format(folder=folder) for part in verb)]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.stdout.close()
    assert (done.stderr.read(), done.wait(60)) == (b"", 0)
    done.stderr.close()
