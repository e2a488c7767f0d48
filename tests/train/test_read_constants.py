"""Ways to change what a sweep takes as constant, each found in the digest that names it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gridsweep.records.attempts import Assignment
from gridsweep.sweep.experiments import Dataset, Model, Recipe
from gridsweep.sweep.stints import Device
from gridsweep.train import constants
from gridsweep.train.checkpoint import pinned_model
from gridsweep.train.look import look
from gridsweep.train.model import TINY_QWEN2

WEIGHTS = "model.safetensors"
ROWS = [{"prompt": f"Add {n}.", "response": f"x += {n}"} for n in range(19)]
ROWS.append({"prompt": "Add 19.", "response": "x += 19; " * 20})


class Place:
    """A model folder and a data file that a test may spoil."""

    def __init__(self, path: Path):
        self.model, self.data = path / "model", path / "pairs.jsonl"
        shutil.copytree(TINY_QWEN2, self.model)
        self.write(ROWS)
        self.recipe = Recipe(steps=4, max_length=64)

    def write(self, rows: list[dict[str, str]]) -> None:
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def json(self, name: str, **changes: object) -> None:
        """Change some keys of one of the model's files; None removes one."""
        path = self.model / name
        found = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))

    def seen(self) -> dict[str, str]:
        dataset = Dataset(str(self.data), train_samples=12, validation_samples=8)
        asked = Assignment("look", Model(str(self.model)), dataset, self.recipe, 4, Device("d0"), (), encoding=2)
        found = look(asked)
        assert not found.error and not found.unseen
        return found.constants


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Place(tmp_path)


def flipped(path: Path) -> None:
    """Change the last byte, which is one of a weight."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def vocabulary(place: Place, change: Callable[[dict[str, object]], None]) -> None:
    path = place.model / "tokenizer.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def without_a_merge(found: dict) -> None:
    found["model"]["merges"].pop()


def two_swapped(found: dict) -> None:
    words = found["model"]["vocab"]
    words["x"], words["y"] = words["y"], words["x"]


TEMPLATE = """{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""
DATA = {"training data", "encoded samples"}
CHANGES = {
    "an answer edited": (lambda p: p.write([*ROWS[:5], ROWS[5] | {"response": "y"}, *ROWS[6:]]), DATA),
    "a question edited": (lambda p: p.write([ROWS[0] | {"prompt": "Add nothing."}, *ROWS[1:]]), DATA),
    "a space more": (lambda p: p.write([ROWS[0] | {"response": "x += 0 "}, *ROWS[1:]]), DATA),
    "another order": (lambda p: p.write([ROWS[1], ROWS[0], *ROWS[2:]]), DATA),
    "a row put in": (lambda p: p.write([ROWS[-1], *ROWS[:-1]]), DATA),
    "a weight": (lambda p: flipped(p.model / WEIGHTS), {"model weights"}),
    "more weights": (lambda p: shutil.copy(p.model / WEIGHTS, p.model / "more.safetensors"), {"model weights"}),
    "the attention's base": (lambda p: p.json("config.json", rope_theta=5e5), {"model config"}),
    "the norm's epsilon": (lambda p: p.json("config.json", rms_norm_eps=1e-3), {"model config"}),
    "the config's data type": (lambda p: p.json("config.json", dtype="bfloat16"), {"model config"}),
    "a chat template": (
        lambda p: (p.model / "chat_template.jinja").write_text(TEMPLATE), {"chat template", "encoded samples"},
    ),
    "another template's end": (
        lambda p: (p.model / "chat_template.jinja").write_text(TEMPLATE + " "), {"chat template", "encoded samples"},
    ),
    "a merge less": (lambda p: vocabulary(p, without_a_merge), {"tokenizer"}),
    "two words swapped": (lambda p: vocabulary(p, two_swapped), {"tokenizer", "encoded samples"}),
    "another end": (lambda p: p.json("tokenizer_config.json", eos_token="!"), {"tokenizer", "encoded samples"}),
    "another padding": (lambda p: p.json("tokenizer_config.json", pad_token="!"), {"tokenizer"}),
    "shorter samples": (lambda p: setattr(p, "recipe", Recipe(steps=4, max_length=26)), {"encoded samples"}),
    "another split": (lambda p: setattr(p, "recipe", Recipe(steps=4, max_length=64, seed=7)), DATA),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_is_found_where_it_lies(place: Place, name: str) -> None:
    before = place.seen()
    change, expected = CHANGES[name]
    change(place)
    now = place.seen()
    assert {thing for thing in before if before[thing] != now[thing]} == expected


def test_nothing_is_found_where_nothing_has_changed(place: Place) -> None:
    before = place.seen()
    os.utime(place.data)
    os.utime(place.model / WEIGHTS)
    shutil.move(place.model, place.model.with_name("elsewhere"))
    shutil.copytree(place.model.with_name("elsewhere"), place.model)
    assert place.seen() == before


def test_a_file_is_hashed_again_only_after_a_change(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = constants.file_digest
    monkeypatch.setattr(constants, "file_digest", lambda path: hashed.append(path.name) or real(path))
    weights = place.model / WEIGHTS
    first = constants.cached_digest(weights)
    assert constants.cached_digest(weights) == first and hashed == ["model.safetensors"]
    flipped(weights)
    assert constants.cached_digest(weights) != first and len(hashed) == 2


def test_a_hub_model_is_named_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the hub, as its client writes it: `main` moves from one commit to another."""
    home = tmp_path / "models--someone--tiny"
    commits = ["1" * 40, "2" * 40]
    for commit in commits:
        shutil.copytree(TINY_QWEN2, home / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = []
    for commit in commits:
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / "main").write_text(commit)
        found.append(constants.of_model(pinned_model(Model("someone/tiny"))))
    assert found == [{"model commit": commit} for commit in commits]
    assert constants.of_model(pinned_model(Model("someone/tiny", "1" * 40))) == {"model commit": "1" * 40}
