"""The adapters of a run: listed, the best, one taken away."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapter_files import published, run_with_adapters, stand_in_run, write_adapter
from builders import make_sweep
from gridsweep.errors import SpecError
from gridsweep.records.files import verify
from gridsweep.render.export import export
from gridsweep.serving.adapters import Adapter, best, models, one, sealed
from gridsweep.serving.servable import AdapterError
from gridsweep.sweep.experiments import Dataset
from gridsweep.sweep.sweep import Estimates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of three; nobody changes it."""
    noisy = Estimates(timedelta(hours=1), 100.0, loss_noise=10.0)
    return run_with_adapters(
        tmp_path_factory.mktemp("made") / "run", estimates=noisy, dataset=Dataset("/home/me/pairs")
    )


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def home(run, adapter):
    return run / "store" / "experiments" / adapter / "adapter"


def test_models_lists_the_finished_adapters_the_best_first(run):
    listed = models(run)
    assert [adapter.place for adapter in listed] == [1, 2, 3]
    assert sorted(adapter.experiment for adapter in listed) == ["e00", "e01", "e02"]
    assert [adapter.loss for adapter in listed] == sorted(adapter.loss for adapter in listed)
    for adapter in listed:
        assert adapter.path == home(run, adapter.experiment)
        assert adapter.size_bytes == sum(path.stat().st_size for path in adapter.path.iterdir())
        assert adapter.emissions_g >= 0 and adapter.energy_kwh > 0


def test_an_adapter_that_is_gone_is_not_listed(run):
    second = models(run)[1]
    shutil.rmtree(second.path)
    assert [adapter.place for adapter in models(run)] == [1, 3]


def test_the_best_comes_with_those_it_is_not_surely_better_than(run):
    winner, tied = best(run)
    assert winner.place == 1
    assert [adapter.place for adapter in tied] == [2, 3]


def test_the_best_is_never_quietly_the_second(run):
    first = models(run)[0]
    shutil.rmtree(first.path)
    with pytest.raises(AdapterError, match=f"the best is {first.experiment}, but its adapter is not in"):
        best(run)


def test_without_a_sweep_there_is_nothing(tmp_path):
    with pytest.raises(SpecError, match="holds no sweep"):
        models(tmp_path)


def test_one_is_found_by_the_beginning_of_its_name(run):
    listed = models(run)
    assert one(listed, "e01").experiment == "e01"
    longer = [replace(listed[0], experiment=name) for name in ("r8-a1", "r8-a16", "r16")]
    assert one(longer, "r16").experiment == "r16"
    assert one(longer, "r8-a1").experiment == "r8-a1"
    with pytest.raises(AdapterError, match="matches 2 experiments; type one of r8-a1, r8-a16"):
        one(longer, "r8")
    with pytest.raises(AdapterError, match="did you mean e0"):
        one(listed, "f01")
    for name in ("", "../e00", "\x1b[0m"):
        with pytest.raises(AdapterError) as caught:
            one(listed, name)
        assert str(caught.value).isprintable()


def test_an_experiment_without_an_adapter_is_said_to_be_stopped():
    """Rungs stop most experiments: `no finished adapter's name starts with` reads like a typing error."""
    listed = [Adapter("r8-a1", 1, 2.5, False, 1.0, 1.0, 9, Path("x"))]
    stopped = SimpleNamespace(
        experiment="r16-a32", status="stopped", reason="stopped at step 9 of 35: 6 of 11 continue, by the loss"
    )
    waiting = SimpleNamespace(experiment="r16-a64", status="waiting", reason="")
    failed = SimpleNamespace(experiment="r4-a1", status="failed", reason="out of memory")
    for beginning, why in (
        ("r16-a3", "r16-a32 has no adapter: stopped at step 9 of 35"),
        ("r16-a64", "r16-a64 has no adapter: waiting"),
        ("r4", "r4-a1 has no adapter: failed: out of memory"),
    ):
        with pytest.raises(AdapterError) as caught:
            one(listed, beginning, [stopped, waiting, failed])
        assert str(caught.value) == f"{why}; finished adapters: r8-a1"
    with pytest.raises(AdapterError, match="no finished adapter's name starts with"):
        one(listed, "r16", [stopped, waiting, failed])  # two of them: neither is meant for sure


def test_an_export_holds_adapter_card_and_figures(run, tmp_path):
    target = export(run, "e01", tmp_path / "out" / "e01")
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "adapter", "metrics.json"]
    assert verify(target / "adapter")
    card = (target / "README.md").read_text()
    assert "co2_eq_emissions:\n  emissions:" in card
    figures = json.loads((target / "metrics.json").read_text())
    listed = one(models(run), "e01")
    assert figures["validation_loss"] == listed.loss
    assert figures["emissions_g"] == listed.emissions_g
    assert figures["params"] == {"r": 9, "alpha": 32.0, "lr": 0.0001, "dropout": 0.05}
    assert (figures["seed"], figures["step"], figures["of"]) == (42, 2, 3)
    assert figures["model"] == {"id": "tiny-qwen2", "revision": None}
    assert figures["dataset"]["id"] == "pairs"
    assert figures["facts"] == {"worker": "stand-in"}
    for file in target.rglob("*"):
        assert file.is_dir() or b"/home/me" not in file.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_an_export_overwrites_nothing(run, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    export(run, "e00", target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(AdapterError, match="not empty"):
        export(run, "e01", target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AdapterError, match="not a folder"):
        export(run, "e01", tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError, match="not a folder"):
        export(run, "e01", tmp_path / "link")
    with pytest.raises(AdapterError, match="cannot export"):
        export(run, "e01", tmp_path / "file" / "below")
    assert not list(tmp_path.glob(".*"))


def damage_bytes(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


def add_pickle(folder):
    (folder / "adapter_model.bin").write_bytes(b"")


def add_stranger(folder):
    (folder / "README.md").write_text("not in the manifest")


def point_outside(folder):
    (folder / "manifest.json").write_text(json.dumps({"files": {"../../../../../secret": "0"}}))


def no_manifest(folder):
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_bytes, "was changed after training"),
        (add_pickle, "pickle"),
        (add_stranger, "was changed after training"),
        (point_outside, "was changed after training"),
        (no_manifest, "no readable manifest"),
    ],
)
def test_a_damaged_adapter_is_not_exported(run, tmp_path, damage, words):
    damage(home(run, "e00"))
    with pytest.raises(AdapterError, match=words):
        export(run, "e00", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_the_manifest_knows_is_refused_all_the_same(run, tmp_path):
    shutil.rmtree(home(run, "e00"))
    with published(run, "e00") as draft:
        write_adapter(draft)
        (draft / "training_args.bin").write_bytes(b"x")
    with pytest.raises(AdapterError, match=r"training_args\.bin.*pickle"):
        sealed(one(models(run), "e00"))


def test_the_stand_ins_adapters_are_listed_and_not_exported(tmp_path):
    run = stand_in_run(tmp_path / "run", 1)
    assert [adapter.experiment for adapter in models(run)] == ["e00"]
    with pytest.raises(AdapterError, match="stand-in"):
        export(run, "e00", tmp_path / "out")


def test_a_sweep_without_results_has_no_best(tmp_path):
    from gridsweep.records.journal import Journal
    from gridsweep.records.lease import lease
    from gridsweep.state.events import Submitted

    folder = tmp_path / "run"
    with lease(folder / "state") as epoch:
        journal = Journal(folder / "state" / "journal.db", epoch=epoch)
        from builders import START

        journal.extend([Submitted(START, make_sweep(1), timedelta(minutes=1))])
        journal.close()
    assert models(folder) == []
    with pytest.raises(AdapterError, match="no finished adapter yet"):
        best(folder)
    with pytest.raises(AdapterError, match="finished adapters: none yet"):
        one([], "e00")
