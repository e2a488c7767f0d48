"""`gridsweep recommend`: what it writes passes `check` and `plan` and runs; what it refuses leaves no file."""

import json
import os

import pytest

from gridsweep.spec import load
from gridsweep.train.device import device_name

PAIRS = [{"prompt": f"What is {i} plus {i}?", "response": f"It is {2 * i}, of course."} for i in range(30)]


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


def test_a_recommended_sweep_passes_check_and_plan_and_runs(gridsweep, pairs, tmp_path):
    (tmp_path / "sub").mkdir()
    code, out, err = gridsweep("recommend", "tiny-qwen2", "pairs.jsonl", "--to", "sub/mine.yaml", "--hours", "0.03")
    assert code == 0, err
    assert "a guess" in out and "nothing stops a running sweep" in out and "--as peft (or trl)" in out
    sweep = load("sub/mine.yaml")
    assert sweep.dataset.id == str(tmp_path / "pairs.jsonl")
    assert (sweep.dataset.train_samples, sweep.dataset.validation_samples) == (24, 6)
    assert sweep.estimates.guess and sweep.finish_by.total_seconds() == 108
    assert gridsweep("check", "sub/mine.yaml")[0] == 0
    assert gridsweep("plan", "sub/mine.yaml")[0] == 0
    code, _, err = gridsweep("run", "sub/mine.yaml")
    assert code in (0, 124), err  # a busy machine may be late
    code, out, _ = gridsweep("best", "runs/mine", "--as", "trl")
    assert code == 0 and "SFTConfig" in out


def test_a_measured_speed_takes_the_place_of_the_guess(gridsweep, pairs, tmp_path):
    import torch

    folder = tmp_path / "cache" / "gridsweep" / "devices"
    folder.mkdir(parents=True)
    from gridsweep.train.probing import SCHEMA_VERSION, file_name

    device = device_name(torch.device("cpu"))
    choices = [{"members": 1, "tokens_per_s": 1234.0}]
    kept = {"tiny-qwen2": {"choices": choices, "measured_at": "2026-11-30T12:00:00+00:00"}}
    (folder / f"{file_name(device)}.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "models": kept}))
    code, out, err = gridsweep("recommend", "tiny-qwen2", "pairs.jsonl", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert not told["guess"] and not load("sweep.yaml").estimates.guess
    estimates = next(choice for choice in told["choices"] if choice["key"] == "estimates")
    assert "1,234 tokens/s" in estimates["why"] and "2026-11-30" in estimates["source"]
    assert told["budget_s"] is None and told["experiment_count"] == len(load("sweep.yaml").experiments)


def test_an_existing_file_is_replaced_only_where_that_is_asked_for(gridsweep, pairs, tmp_path):
    mine = tmp_path / "sweep.yaml"
    mine.write_text("name: mine\n")
    code, _, err = gridsweep("recommend", "tiny-qwen2", "pairs.jsonl")
    assert code == 2 and "already exists" in err and mine.read_text() == "name: mine\n"
    code, _, err = gridsweep("recommend", "tiny-qwen2", "nothing.jsonl", "--overwrite")
    assert code == 2 and mine.read_text() == "name: mine\n"
    assert gridsweep("recommend", "tiny-qwen2", "pairs.jsonl", "--overwrite")[0] == 0
    assert load(mine).model.id == "tiny-qwen2"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tiny-qwen2", "./nothing.jsonl"], 2, "there is no file or folder ./nothing.jsonl"),
        (["./nothing", "pairs.jsonl"], 2, "there is no file or folder ./nothing"),
        (["tiny-qwen", "pairs.jsonl"], 2, "did you mean tiny-qwen2?"),
        (["tiny-qwen2", "blank.jsonl"], 2, "none of its 2 rows can be used"),
        (["tiny-qwen2", "empty.jsonl"], 2, "empty"),
        (["tiny-qwen2", "pairs.jsonl", "--hours", "0.0001"], 2, "too small for even one experiment"),
        (["tiny-qwen2", "pairs.jsonl", "--grams", "1e-6"], 2, "give --grams"),
        (["tiny-qwen2", "pairs.jsonl", "--provider", "uk"], 2, "uk needs a zone"),
        (["tiny-qwen2", "pairs.jsonl", "--hours", "0"], 2, "--hours"),
    ],
)
def test_what_is_refused_leaves_no_file(words, code, said, gridsweep, pairs, tmp_path):
    (tmp_path / "blank.jsonl").write_text('{"prompt": "a", "response": ""}\n' * 2)
    (tmp_path / "empty.jsonl").write_text("")
    found, _, err = gridsweep("recommend", *words, "--to", "new.yaml")
    assert (found, said in err) == (code, True), err
    assert not os.path.lexists("new.yaml")
