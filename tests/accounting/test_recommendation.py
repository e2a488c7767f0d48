"""The recommended configuration: `gridsweep best`, and its text for PEFT, TRL and axolotl."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields, replace
from typing import Any

import pytest
import yaml

from gridsweep.accounting.recommendation import Recommendation, recommend
from gridsweep.records.journal import Journal
from gridsweep.render.recommendation import text
from gridsweep.render.trainers import TRAINERS, snippet
from gridsweep.runs.run import summarize
from gridsweep.selection.paired_differences import difference
from gridsweep.state.events import Ended
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.identity import ambiguous
from gridsweep.sweep.losses import Losses
from gridsweep.train.learning_rate import learning_rate

SPEC = """\
name: small
model: {id: org/model, revision: main}
dataset: {id: org/data, train_samples: 96}
recipe: {steps: 12, checkpoint_every: 4, rslora: true, lora_plus: 4, max_length: 200, warmup: 0.25, clip: 0.5}
space: {r: [16, 32], alpha: [32, 64], lr: 3e-5, dropout: 0.1}
design: grid
devices: 2
estimates: {duration: 1h, power_w: 15}
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 7200}}
rungs: none
policy: immediate
"""
MADE = Recommendation(
    id="r16-a32-lr1e-4-d0p05-00000000", sweep="mine", params=LoraParams(16, 32.0, 1e-5, 0.05), seed=7, seeds=1,
    base="full", model=Model("org/model", "v1"), dataset=Dataset("org/data", "v2", "train", 4000, 1000),
    recipe=Recipe(), total_steps=1500, validation_loss=1.25, low=1.2, high=1.3, initial_loss=2.0, others=2, tied=(),
    of=3, left=0, rungs=True, caveats=("The winner is on the edge of the space: r 16 ...",),
    facts={"dtype": "bfloat16", "prompt_template": "chat template", "train_samples": "3990"},
)  # fmt: skip


@pytest.fixture
def run(gridsweep, tmp_path):
    """A sweep of four, run to its end by stand-in workers."""
    (tmp_path / "small.yaml").write_text(SPEC)
    code, _, err = gridsweep("run", "small.yaml")
    assert code == 0, err
    return gridsweep


# The verb


def test_best_names_the_winner_with_its_interval_and_all_that_was_trained(run):
    rows = json.loads(run("report", "--json")[1])["experiments"]
    code, out, _ = run("best", "runs/small")
    assert code == 0
    assert out.startswith(f"best      {rows[0]['id']}\n")
    assert re.search(rf"^loss      {rows[0]['validation_loss']:.4f} \(95 %: \d+\.\d+ to \d+\.\d+\)", out, re.MULTILINE)
    assert "rsLoRA" in out and "B at 4 times the rate" in out and "a warm-up of 25.0 %" in out
    assert "12 steps of 2 x 4 samples of at most 200 tokens" in out and "gradient norm at most 0.5" in out
    assert f"gridsweep export {rows[0]['id']} runs/small --to DIR" in out
    assert out.count("caveats") == 1 and "Only 32 validation samples" in out and "one seed" in out
    tied = [row["id"] for row in rows[1:] if row["tied"]]
    named = re.search(r"^tied      (.*)$", out, re.MULTILINE)
    assert named and [id for id in tied if id not in named[1]] == []


def test_best_as_json_is_the_same_for_programs(run):
    made = json.loads(run("best", "--json")[1])
    rows = json.loads(run("report", "--json")[1])["experiments"]
    row = rows[0]
    assert (made["id"], made["validation_loss"]) == (row["id"], row["validation_loss"])
    assert made["params"] == {key: row[key] for key in ("r", "alpha", "lr", "dropout")}
    assert made["recipe"]["rslora"] is True and made["recipe"]["steps"] == made["total_steps"] == 12
    assert made["warmup_steps"] == 3 and made["left"] == 0 and made["experiment_count"] == 4
    assert made["interval"][0] < made["validation_loss"] < made["interval"][1]
    assert made["adapter"] == f"runs/small/store/experiments/{made['id']}/adapter"
    tied = [(row["id"], row["validation_loss"]) for row in rows[1:] if row["tied"]]
    assert [(other["id"], other["validation_loss"]) for other in made["tied"]] == tied
    code, out, _ = run("best", "--json", "--as", "peft")
    assert code == 2 and "choose one" in json.loads(out)["error"]["remedy"]


def test_an_unfinished_sweep_has_a_best_so_far_and_says_how_many_are_left(run, tmp_path, capsys):
    journal = Journal(tmp_path / "runs/small/state/journal.db")
    events = journal.events()
    journal.close()
    first = next(i for i, event in enumerate(events) if isinstance(event, Ended))
    state = State(events[: first + 1])
    made = recommend(state, summarize(state))
    assert made is not None and made.left == state.left == 4 - len(events[first].outcomes)
    assert f"{made.left} of 4 experiments have not ended: this is the best so far." in made.caveats
    text(made, tmp_path / "runs/small", None)
    out = capsys.readouterr().out
    assert out.startswith(f"so far    {made.id}, {made.left} of 4 remain\n") and "restore it" in out
    assert f"# Caveat: {made.left} of 4 experiments have not ended" in snippet(made, "peft")
    before = State(events[:first])
    assert recommend(before, summarize(before)) is None


def test_without_a_trained_experiment_it_says_what_to_do(gridsweep, tmp_path, monkeypatch):
    assert gridsweep("best")[0] == 2
    assert "start one with `gridsweep run SPEC`" in gridsweep("best")[2]
    (tmp_path / "small.yaml").write_text(SPEC)
    monkeypatch.setenv("GRIDSWEEP_MISBEHAVE", "nan:r")
    gridsweep("run", "small.yaml")
    code, out, err = gridsweep("best", "runs/small", "--as", "peft")
    assert (code, out) == (2, "") and "all 4 experiments of runs/small failed; `gridsweep report runs/small`" in err


def test_a_run_ends_with_where_the_configuration_is(run):
    _, out, _ = run("run", "small.yaml")
    assert out.splitlines()[-2] == "configuration: gridsweep best runs/small --as peft (or trl, axolotl)"
    assert "next: gridsweep best runs/small" in run("status")[1]


def test_an_ambiguous_beginning_is_answered_by_what_to_type(run):
    for verb in (("explain", "r16"), ("export", "r16", "--to", "out"), ("logs", "r16")):
        code, out, err = run(*verb)
        assert (code, out) == (2, "")
        named = re.search(r"'r16' matches 2 experiments; type one of (.*)\n", err)
        assert named and set(named[1].split(", ")) == {"r16-a32", "r16-a64"}
    code, out, _ = run("explain", "r16-a64")
    assert code == 0 and re.search(r"^loss      \d\.\d{4} on the validation samples$", out, re.MULTILINE)
    code, _, err = run("explain", "nope")
    assert code == 2 and re.search(r"no experiment id starts with 'nope'; choose from r16-\S+, r\S+, ", err)


def test_what_to_type_is_the_shortest_part_that_is_one_experiments_own():
    ids = ["r8-a1-lr1e-4-d0-11111111", "r8-a16-lr1e-4-d0-22222222", "r8-a16-lr1e-5-d0-33333333"]
    assert ambiguous("r8", ids, ids).endswith("type one of r8-a1-lr1e-4, r8-a16-lr1e-4, r8-a16-lr1e-5")
    twins = ["r8-a1-d0-11111111", "r8-a1-d0-22222222"]
    assert ambiguous("r8", twins, twins).endswith("type one of r8-a1-d0-11111111, r8-a1-d0-22222222")
    many = [f"r8-a{i}-d0" for i in range(100, 120)]
    assert "matches 20 experiments" in ambiguous("r8", many, many) and ambiguous("r8", many, many).endswith(
        "and 8 more"
    )


def test_the_interval_of_a_loss_is_that_of_a_mean_over_tokens():
    values, tokens = (1.0, 2.0, 3.0, 2.0), (10.0, 10.0, 10.0, 10.0)
    found = difference(Losses(values, tokens), Losses((0.0,) * 4, tokens))
    low, high = found.interval()
    assert (
        found.mean == 2.0 and low == pytest.approx(2 - 3.182 * 0.8165 / 2, abs=1e-3) and high + low == pytest.approx(4)
    )


# What is pasted


def arguments(source: str, function: str) -> dict[str, Any]:
    """The keyword arguments of a call in Python source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function:
            return {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in node.keywords}
    raise AssertionError(f"no call of {function}")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_snippet_says_whose_it_is_its_caveats_and_what_is_drawn_otherwise(trainer):
    made = snippet(MADE, trainer)
    assert made.startswith(f"# Sweep mine: {MADE.id}, validation loss 1.2500 (1.2000 to 1.3000).\n# Caveat: The winner")
    said = " ".join(re.findall(r"# *(.*)", made))
    for words in (
        "first step has a learning rate of 0",
        "Averaged weights were used at rungs only",
        "variation as from another seed",
    ):
        assert words in said
    assert "Averaged" not in snippet(replace(MADE, rungs=False), trainer)


def test_the_trl_snippet_is_python_with_sftconfigs_names():
    made = arguments(snippet(MADE, "trl"), "SFTConfig")
    assert (made["max_length"], made["packing"], made["completion_only_loss"]) == (384, False, True)
    assert made["model_init_kwargs"] == {"revision": "v1", "dtype": "bfloat16"} and made["bf16"] is True
    assert arguments(snippet(MADE, "trl"), "LoraConfig") == arguments(snippet(MADE, "peft"), "LoraConfig")
    common = arguments(snippet(MADE, "peft"), "TrainingArguments")
    assert {key: made[key] for key in common} == common


def test_the_axolotl_yaml_holds_what_was_trained():
    made = yaml.safe_load(snippet(MADE, "axolotl"))
    assert (made["base_model"], made["model_revision"], made["adapter"]) == ("org/model", "v1", "lora")
    assert (made["lora_r"], made["lora_alpha"], made["lora_dropout"]) == (16, 32, 0.05)
    assert made["lora_target_modules"] == list(Recipe().target_modules) and made["peft_use_rslora"] is False
    assert made["datasets"] == [{"path": "org/data", "split": "train", "revision": "v2"}]
    assert (made["sequence_len"], made["sample_packing"], made["train_on_inputs"]) == (384, False, False)
    assert (made["micro_batch_size"], made["gradient_accumulation_steps"]) == (2, 4)
    assert (made["num_epochs"], made["max_steps"], made["warmup_steps"]) == (3, 1500, 45)
    assert isinstance(made["learning_rate"], float) and made["learning_rate"] == 1e-5, "a number to YAML 1.1 as well"
    assert (made["lr_scheduler"], made["optimizer"]) == ("cosine", "adamw_torch")
    assert (made["weight_decay"], made["max_grad_norm"], made["seed"], made["bf16"]) == (0.01, 1.0, 7, True)


def test_what_axolotl_cannot_say_is_a_comment():
    other = replace(MADE, params=LoraParams(16, 22.5, 1e-4, 0.0), recipe=Recipe(steps=100, lora_plus=4.0), base="4-bit")
    made = snippet(other, "axolotl")
    told = yaml.safe_load(made)
    assert (told["adapter"], told["load_in_4bit"], told["loraplus_lr_ratio"]) == ("qlora", True, 4.0)
    assert told["num_epochs"] == 4, "1,500 steps of 8 among 3,990 samples"
    for words in ("whole numbers for lora_alpha", "may ignore weight_decay", "NF4"):
        assert words in made
    assert "num_epochs" not in yaml.safe_load(snippet(replace(other, facts={}, dataset=Dataset("a/b")), "axolotl"))


def test_the_modules_are_those_of_the_adapter_and_all_linear_only_where_they_are_unknown():
    every = replace(MADE, recipe=replace(MADE.recipe, target_modules=("all-linear",)))
    unknown = [snippet(every, trainer) for trainer in TRAINERS]
    assert all("all-linear may match other modules here" in text for text in unknown)
    assert "'all-linear'" in unknown[0] and "lora_target_linear: true" in unknown[2]
    known = replace(every, modules=("o_proj", "q_proj"), excluded=("vision.q_proj",))
    peft, trl, axolotl = (snippet(known, trainer) for trainer in TRAINERS)
    for said in (peft, trl):
        assert "target_modules=['o_proj', 'q_proj']" in said and "exclude_modules=['vision.q_proj']" in said
    assert yaml.safe_load(axolotl)["lora_target_modules"] == ["o_proj", "q_proj"]
    assert "names without adapters in the sweep: 1, the first is vision.q_proj" in re.sub(r"\n# +", " ", axolotl)


def test_lora_plus_and_layers_are_said_in_python():
    other = replace(MADE, recipe=Recipe(lora_plus=16.0, layers="upper-half"), layers=(2, 3))
    for trainer in ("peft", "trl"):
        made = snippet(other, trainer)
        assert arguments(made, "LoraConfig")["layers_to_transform"] == [2, 3]
        assert "# optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-05," in made
        assert "loraplus_lr_ratio=16.0, loraplus_weight_decay=0.01)" in made
        assert "upper half" in snippet(replace(other, layers=None), trainer)


def test_nothing_in_a_name_can_end_a_comment_or_a_string():
    odd = replace(MADE, model=Model("./a'b\nimport os"), sweep="x", caveats=("one\nimport os",))
    tree = ast.parse(snippet(odd, "peft"))
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))
    assert yaml.safe_load(snippet(odd, "axolotl"))["base_model"] == "./a'b\nimport os"


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.25])
def test_transformers_schedule_is_the_workers_once_warm(schedule, warmup):
    torch = pytest.importorskip("torch")
    from transformers import get_scheduler

    recipe = Recipe(learning_rate_schedule=schedule, warmup=warmup)
    made = arguments(snippet(replace(MADE, recipe=recipe, total_steps=100), "peft"), "TrainingArguments")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=made["learning_rate"])
    name, steps = made["lr_scheduler_type"], made["max_steps"]
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=made["warmup_steps"], num_training_steps=steps)
    for step in range(100):
        ours, theirs = learning_rate(recipe, 1e-5, step, 100), scheduler.get_last_lr()[0]
        late = 1e-5 / made["warmup_steps"] if step < made["warmup_steps"] else 0.0
        assert theirs == pytest.approx(ours - late, abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_peft_snippet_runs_and_holds_what_was_trained():
    peft = pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    there: dict[str, Any] = {}
    cpu = replace(MADE, facts={"dtype": "float32"}, recipe=Recipe(rslora=True))
    exec(compile(snippet(cpu, "peft"), "snippet", "exec"), there)
    lora, training = there["lora_config"], there["training_args"]
    assert isinstance(lora, peft.LoraConfig) and there["base_model"] == "org/model"
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.bias) == (16, 32, 0.05, "none")
    assert (set(lora.target_modules), lora.use_rslora) == (set(Recipe().target_modules), True)
    assert lora.task_type == "CAUSAL_LM" and lora.layers_to_transform is None
    assert (training.learning_rate, training.max_steps, training.warmup_steps) == (1e-5, 1500, 45)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 4)
    assert (training.weight_decay, training.max_grad_norm, training.seed) == (0.01, 1.0, 7)
    assert {field.name for field in fields(training)} >= set(arguments(snippet(cpu, "peft"), "TrainingArguments"))


@pytest.mark.train
def test_the_peft_snippet_is_the_adapter_that_was_trained(gridsweep, tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    monkeypatch.setenv("GRIDSWEEP_WORKER", "gridsweep.train")
    (tmp_path / "real.yaml").write_text("""\
name: real
model: tiny-qwen2
dataset: {id: stdlib, train_samples: 16, validation_samples: 8}
recipe: {steps: 3, batch_size: 2, accumulation: 1, max_length: 64, layers: upper-half, rslora: true}
space: {r: 4, alpha: [8, 12.5], lr: 1e-3, dropout: 0.1}
estimates: {duration: 1h, power_w: 15}
policy: immediate
rungs: none
clock: {replay: {from: "2024-06-10T16:00:00Z", speed: 7200}}
""")
    code, _, err = gridsweep("run", "real.yaml")
    assert code == 0, err
    there: dict[str, Any] = {}
    exec(compile(gridsweep("best", "--as", "peft")[1], "snippet", "exec"), there)
    made = json.loads(gridsweep("best", "--json")[1])
    trained = peft.LoraConfig.from_pretrained(made["adapter"])
    for name in ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "layers_to_transform", "bias",
                 "task_type"):  # fmt: skip
        assert getattr(there["lora_config"], name) == getattr(trained, name), name
