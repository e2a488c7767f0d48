"""The profiles: each is a spec that can be planned, and what it says fits does, by the model of memory."""

import json
import re
from dataclasses import replace

import pytest

from builders import PROJECT
from gridsweep import load
from gridsweep.sweep.rungs import DEFAULT

PROFILES = sorted((PROJECT / "examples" / "profiles").glob("*.yaml"))
CARDS = [path for path in PROFILES if path.stem != "laptop"]


def test_there_is_one_for_each_device():
    assert [path.stem for path in PROFILES] == ["141gb", "24gb", "80gb", "laptop"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem == "24gb" else (), id=path.stem) for path in PROFILES],
)
def test_it_passes_check_and_plan(gridsweep, path):
    code, out, err = gridsweep("check", path, "--json")
    assert code == 0, err
    assert len(json.loads(out)["experiments"]) == 21
    code, out, err = gridsweep("plan", path)
    assert code == 0 and out, err


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_it_is_the_published_sweep_with_rungs(path):
    sweep = load(path)
    published = load(PROJECT / "examples" / "published.yaml")
    assert [e.params for e in sweep.experiments] == [e.params for e in published.experiments]
    assert sweep.rungs == (DEFAULT if path in CARDS else replace(DEFAULT, at=DEFAULT.at[1:], keep=DEFAULT.keep[1:]))
    assert sweep.devices[0].memory_gb is not None
    if path in CARDS:
        assert (sweep.model, sweep.dataset, sweep.recipe) == (published.model, published.dataset, published.recipe)
        assert sweep.devices[0].memory_gb == float(path.stem.removesuffix("gb"))


@pytest.mark.train
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_its_pack_fits_by_the_model_of_memory(path, monkeypatch):
    """All of the largest pack live while one member passes the longest sample; and the figures told are the model's."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import torch
    from shapes import frozen

    from gridsweep.train.footprint import SHORT_LIVED, of_model

    sweep, laptop = load(path), path.stem == "laptop"
    shape, dtype = ("smollm2", torch.float32) if laptop else ("7b", torch.bfloat16)
    footprint = of_model(frozen(shape, torch.device("meta"), dtype), sweep.recipe.target_modules, counted=2 / 3)
    memory = sweep.devices[0].memory_gb * 1e9
    largest = sorted((e.params.r for e in sweep.experiments), reverse=True)[: sweep.pack]
    tokens = footprint.tokens(memory, largest, 1, 32)
    assert tokens >= SHORT_LIVED * sweep.recipe.max_length
    if path.stem == "24gb":
        assert footprint.tokens(memory, [*largest, 32], 1, 32) < sweep.recipe.max_length
    text = " ".join(path.read_text().replace("#", "").split())
    for said in (footprint.base, footprint.adapter(16), footprint.adapter(32)):
        assert f"{said / 1e9:.2f} GB" in text
    assert f"{footprint.token(32, 8) / 1e6:.2f} MB" in text


@pytest.mark.train
def test_the_table_is_the_models(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import torch
    from shapes import frozen

    from gridsweep.sweep.experiments import Recipe
    from gridsweep.train.footprint import of_model

    lean = of_model(frozen("7b", torch.device("meta"), torch.bfloat16), Recipe().target_modules, counted=2 / 3)
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", (PROJECT / "docs" / "profiles.md").read_text(), re.M))
    assert rows["an adapter in all"] == " | ".join(f"{lean.adapter(r) / 1e9:.2f} GB" for r in (16, 32))
    assert rows["a token in a pass, lean"] == " | ".join(f"{lean.token(r, 8) / 1e6:.2f} MB" for r in (16, 32))
    published = [16] * 8 + [32] * 13
    for members, row in ((4, "of each of 4"), (8, "of each of 8"), (21, "of all 21")):
        found = [lean.tokens(gb * 1e9, published, members, 32) for gb in (24, 80, 141)]
        assert rows[row] == " | ".join(f"{n:,}" if n else "none" for n in found)
    found = [lean.resident(gb * 1e9, 32, 384) for gb in (24, 80, 141)]
    assert rows["live, while one passes one sample of 384 tokens"] == " | ".join(map(str, found))
