"""A submission and a resume look at data and model first: a difference, or what a worker would refuse, ends with 2."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders import START, real_sweep
from gridsweep.errors import USAGE, ExecutorError, HubError, SpecError
from gridsweep.records import codec
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.records.looks import Look
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.runs.looking import fingerprinted, looked
from gridsweep.state.events import Fingerprinted, Requested, Submitted
from gridsweep.state.state import State
from gridsweep.sweep.experiments import Dataset, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.sweep.sweep import ExecutorChoice, PolicyChoice
from gridsweep.testing.stand_in import STAND_IN
from gridsweep.train import look as look_program
from gridsweep.train.model import TINY_QWEN2

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def at_once(request, monkeypatch):
    """The look's program runs in this process, which has its libraries loaded; but for tests of the process itself."""
    if "alone" in request.node.name:
        return
    monkeypatch.setattr(
        "gridsweep.runs.looking.subprocess.run",
        lambda *_, input, **__: SimpleNamespace(stdout=codec.dumps(look_program.main(input)), stderr="", returncode=0),
    )


@pytest.fixture
def project(tmp_path):
    """A folder of a user's own: data and a model."""
    home = tmp_path / "project"
    home.mkdir()
    rows = [{"prompt": f"Add {n}.", "response": f"x += {n}"} for n in range(20)]
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(TINY_QWEN2, home / "model")
    return home


def sweep_in(home: Path):
    recipe = Recipe(steps=2, batch_size=2, accumulation=1, max_length=64, checkpoint_every=1)
    return replace(
        real_sweep(1, steps=2, speed=100.0),
        model=Model(str(home / "model")), recipe=recipe, policy=PolicyChoice("immediate"),
        dataset=Dataset(str(home / "pairs.jsonl"), train_samples=12, validation_samples=8),
    )  # fmt: skip


def submitted(sweep, folder, *, encoding=2, facts=None):
    """A folder whose sweep was submitted and looked at, and in which nothing has started."""
    place = RunFolder(folder)
    place.state.mkdir(parents=True)
    begun = Submitted(START, sweep, encoding=encoding)
    events = (
        [begun, *fingerprinted(looked(sweep, START, encoding=encoding), State(), START)] if encoding > 1 else [begun]
    )
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        journal.extend(events)
        journal.close()
    return place


def edited(home):
    text = (home / "pairs.jsonl").read_text()
    (home / "pairs.jsonl").write_text(text.replace("x += 7", "x += 8"))


def overwritten(home):
    weights = home / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


@pytest.mark.parametrize(("change", "thing"), [(edited, "training data"), (overwritten, "model weights")])
def test_what_changed_between_stop_and_run_is_refused_and_nothing_is_trained(project, tmp_path, change, thing):
    sweep = sweep_in(project)
    place = submitted(sweep, tmp_path / "run")
    change(project)
    for again in (sweep, None):
        with pytest.raises(SpecError) as told:
            runs.run(again, place.path)
        assert f"the {thing} was " in told.value.what and "--folder" in told.value.remedy
        assert told.value.exit_code == USAGE
    assert not place.read().attempts and not (place.store / "stints").exists()


def with_own_validation(home):
    sweep = sweep_in(home)
    return replace(sweep, dataset=replace(sweep.dataset, validation=str(home / "held_out.jsonl")))


def test_a_project_that_moved_goes_on_with_the_same_ids_and_only_then(project, tmp_path):
    (project / "held_out.jsonl").write_text('{"prompt": "Say.", "response": "x"}\n' * 8)
    sweep = with_own_validation(project)
    place = submitted(sweep, tmp_path / "run")
    moved = shutil.move(project, tmp_path / "elsewhere")
    done = runs.run(with_own_validation(Path(moved)), place.path)
    state = place.read()
    assert done.exit_code == 0 and state.count("done") == 1
    assert [e.id for e in state.sweep.experiments] == [e.id for e in sweep.experiments]
    assert state.constants.things["dtype"] == "float32"  # told by the attempt
    assert any("dataset.id" in change for change in state.amendments[0].changes)
    edited(Path(moved))  # of a sweep that has ended
    with pytest.raises(SpecError, match="the training data was"):
        runs.run(with_own_validation(Path(moved)), place.path)
    assert runs.run(None, place.path).exit_code == 0  # nothing is trained, and nobody names data


def test_a_project_that_is_gone_is_asked_for(project, tmp_path):
    place = submitted(sweep_in(project), tmp_path / "run")
    shutil.move(project, tmp_path / "elsewhere")
    with pytest.raises(SpecError, match=r"is not there .*run a spec that names their place, with --folder"):
        runs.run(None, place.path)


def test_wrong_columns_are_refused_before_anything_waits(project, tmp_path):
    (project / "pairs.jsonl").write_text('{"text_a": "x", "text_b": "y"}\n' * 20)
    with pytest.raises(SpecError, match="text_a"):
        runs.run(sweep_in(project), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").submitted()


def test_alone_a_file_named_like_a_library_beside_the_spec_is_never_imported(project, tmp_path, monkeypatch):
    for name in ("select.py", "torch.py", "random.py"):
        (project / name).write_text("raise SystemExit('imported from the user\\'s folder')\n")
    monkeypatch.chdir(project)
    assert runs.run(sweep_in(project), tmp_path / "run").exit_code == 0


def test_a_worker_that_meets_other_data_than_the_submission_ends_the_sweep_at_once(project, tmp_path, monkeypatch):
    """The data change after the look, before the worker reads them."""
    sweep = sweep_in(project)
    place = submitted(sweep, tmp_path / "run")
    monkeypatch.setattr("gridsweep.runs.run.seen", lambda *_: edited(project))
    done = runs.run(sweep, place.path)
    state = place.read()
    assert done.exit_code == USAGE and len(state.attempts) == 1
    assert "the training data was " in state.halted and state.count("done") == 0


def test_a_model_on_a_hub_that_cannot_be_reached_is_told_before_the_wait(project, tmp_path):
    sweep = replace(sweep_in(project), model=Model("someone/tiny"))
    with pytest.raises(HubError, match="someone/tiny is not on this machine"):
        runs.run(sweep, tmp_path / "run")
    look = looked(sweep, START)
    assert look.constants.keys() == {"training data"} and "hub" in look.unseen["tokenizer"]


def test_what_only_workers_can_read_is_told_by_the_first_of_them(project):
    sweep = replace(sweep_in(project), executor=ExecutorChoice("kubernetes"), dataset=Dataset("/mnt/pairs.jsonl"))
    (told,) = fingerprinted(looked(sweep, START), State(), START)
    assert told.things == {} and set(told.missing) == {"training data", "tokenizer", "chat template", "encoded samples"}
    assert "/mnt/pairs.jsonl is read where the workers are" in looked(sweep, START).unseen.values()


def test_a_program_of_ones_own_is_not_looked_at(project):
    assert looked(sweep_in(project), START, STAND_IN) is None
    assert fingerprinted(None, State(), START) == []


def test_a_folder_of_before_is_fingerprinted_at_its_first_resume_and_keeps_its_encoding(project, tmp_path):
    sweep = sweep_in(project)
    place = submitted(sweep, tmp_path / "run", encoding=1)
    assert runs.run(sweep, place.path).exit_code == 0
    constants = place.read().constants
    assert constants.encoding == 1 and {"training data", "model weights", "tokenizer"} <= constants.things.keys()
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        events = journal.events()
        journal.close()
    kinds = [type(event) for event in events]
    assert kinds.index(Fingerprinted) < kinds.index(Requested)
    assert next(event.by for event in events if isinstance(event, Fingerprinted)) == "resume"


def test_the_first_look_of_old_data_is_held_against_what_their_results_told():
    state = State([Submitted(START, real_sweep(1))])
    state.facts["dataset_digest"] = "a" * 64
    with pytest.raises(SpecError, match="the training data was aaaaaaaaaaaa and is now bbbbbbbbbbbb"):
        fingerprinted(Look({"training data": "b" * 64}), state, START)


def test_the_look_alone_runs_in_the_users_folder_with_the_users_environment(project, monkeypatch):
    monkeypatch.chdir(project)
    relative = replace(sweep_in(project), dataset=Dataset("./pairs.jsonl", train_samples=12, validation_samples=8))
    assert looked(relative, START).constants["training data"] and os.environ["HF_HUB_OFFLINE"] == "1"


def compiled(home):
    """Weights as `torch.compile` names them."""
    from safetensors.torch import load_file, save_file

    weights = home / "model" / "model.safetensors"
    save_file({f"_orig_mod.{name}": tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})


def pointer(home):
    lines = ("version https://git-lfs.github.com/spec/v1", "oid sha256:0", "size 9", "")
    (home / "model" / "model.safetensors").write_text("\n".join(lines))


def other_model(home):
    config = json.loads((home / "model" / "config.json").read_text())
    (home / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 500}))


def no_such_type(home):
    config = json.loads((home / "model" / "config.json").read_text())
    (home / "model" / "config.json").write_text(json.dumps(config | {"model_type": "quill"}))


def broken_tokenizer(home):
    (home / "model" / "tokenizer.json").write_text("{")


def latin1(home):
    (home / "pairs.jsonl").write_bytes('{"prompt": "Größe", "response": "x"}\n'.encode("latin-1"))


def no_answers(home):
    rows = [{"prompt": f"Add {n}.", "response": ""} for n in range(20)]
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (compiled, "_orig_mod"),
        (pointer, "git lfs pull"),
        (other_model, "have another shape"),
        (no_such_type, "quill"),
        (broken_tokenizer, "tokenizer"),
        (latin1, "UTF-8"),
        (no_answers, "20"),
    ],
)
def test_what_a_worker_would_refuse_is_refused_before_the_wait(project, tmp_path, spoil, words):
    spoil(project)
    with pytest.raises(SpecError) as told:
        runs.run(sweep_in(project), tmp_path / "run")
    assert words in str(told.value) and told.value.remedy and told.value.exit_code == USAGE
    assert not RunFolder(tmp_path / "run").submitted() and not (tmp_path / "run" / "store" / "stints").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_modules": ("q_projection",)}, "q_projection"),
        ({"max_length": 3}, "max_length"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused(project, tmp_path, changes, words):
    sweep = sweep_in(project)
    with pytest.raises(SpecError, match=words):
        runs.run(replace(sweep, recipe=replace(sweep.recipe, **changes)), tmp_path / "run")


def test_a_model_too_large_for_the_device_is_refused(project, tmp_path):
    sweep = replace(sweep_in(project), devices=(Device("small", memory_gb=0.001),))
    with pytest.raises(SpecError, match=r"the device has 0\.00 GB"):
        runs.run(sweep, tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (15, "the look at data and model was interrupted by SIGTERM; run the command again"),
        (9, "interrupted by SIGKILL; if memory ran out"),
        (11, "interrupted by SIGSEGV; run `gridsweep doctor`"),
        (50, "interrupted by signal 50; run `gridsweep doctor`"),
    ],
)
def test_a_look_that_a_signal_ends_was_interrupted(project, monkeypatch, number, words):
    monkeypatch.setattr(
        "gridsweep.runs.looking.subprocess.run",
        lambda *_, **__: SimpleNamespace(stdout="", stderr="some words", returncode=-number),
    )
    with pytest.raises(ExecutorError) as told:
        looked(sweep_in(project), START)
    assert words in str(told.value)


def test_rows_on_both_sides_and_marks_within_texts_are_warned_of(project, tmp_path):
    rows = [{"prompt": f"Add {n}.", "response": f"x += {n}"} for n in range(18)]
    forged = {"prompt": "Add.", "response": "x<|endoftext|>y"}
    (project / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, forged]))
    (project / "others.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows[:3], *({"prompt": "p", "response": f"{n}"} for n in range(5))])
    )
    data = Dataset(str(project / "pairs.jsonl"), validation=str(project / "others.jsonl"))
    sweep = replace(sweep_in(project), dataset=data)
    look = looked(sweep, START)
    seen, marked = look.warnings
    assert seen.startswith(f"3 of 8 validation samples are trained on too (first: {project}/others.jsonl:1); ")
    where = f"{project}/pairs.jsonl:19, '<|endoftext|>'"
    assert marked.startswith(f"special tokens or turn marks in the texts of 1 of 27 samples (first: {where}); ")
    assert look.facts["validation seen"] == seen.partition(";")[0] and look.facts["marked"] in marked
    assert looked(sweep_in(project), START).warnings == ()
    told = []
    report = runs.run(sweep, tmp_path / "run", noticed=told.append).report
    assert f"warning: {seen}" in told
    assert f"The losses flatter every experiment alike: {seen.partition(';')[0]}." in report.notes
    facts = RunFolder(tmp_path / "run").read().facts
    assert facts["validation_seen"] == look.facts["validation seen"] and facts["marked"] == look.facts["marked"]


def test_a_changed_validation_file_is_looked_at_again(project):
    rows = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(4)]
    other = project / "others.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep = sweep_in(project)
    sweep = replace(sweep, dataset=Dataset(sweep.dataset.id, validation=str(other)))
    before = looked(sweep, START)
    assert before == looked(sweep, START) and before.warnings == ()
    other.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "Add 1.", "response": "x += 1"}]))
    after = looked(sweep, START)
    assert after.constants["training data"] != before.constants["training data"] and len(after.warnings) == 1
