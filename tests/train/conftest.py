"""A small real training: the bundled tiny-qwen2 on a file of a few pairs, in seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from gridsweep.records.attempts import Assignment, AttemptFolder, Part
from gridsweep.sweep.experiments import Dataset, LoraParams, Model, Recipe
from gridsweep.sweep.stints import Checkpoint, Device

STEPS = 6
PARAMS = LoraParams(4, 16, 1e-3, 0.1)
RECIPE = {"steps": STEPS, "batch_size": 2, "accumulation": 2, "max_length": 64, "checkpoint_every": 2}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs of different lengths."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {
            "prompt": f"Say {'a ' * (n % 5)}number: {n}",
            "response": f"def number_{n}():\n    return {n}" + " + 1" * (n % 7),
        }
        for n in range(20)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def assigned(tmp_path: Path, pairs_file: Path) -> Callable[..., AttemptFolder]:
    """Makes attempt folders of one store: `assigned(attempt, from_step=..., checkpoint=...)`, or `parts=...`."""

    def prepare(
        attempt: str = "1",
        *,
        from_step: int = 0,
        to_step: int = STEPS,
        checkpoint: Checkpoint | None = None,
        params: LoraParams = PARAMS,
        model: str = "tiny-qwen2",
        dataset: Dataset | None = None,
        recipe: dict[str, object] | None = None,
        power_limit_w: float | None = None,
        parts: Sequence[Part] = (),
        memory_gb: float | None = None,
    ) -> AttemptFolder:
        folder = AttemptFolder(tmp_path / "store" / "stints" / "s-1" / attempt)
        data = dataset or Dataset(str(pairs_file), train_samples=14, validation_samples=6)
        folder.prepare(
            Assignment(
                attempt,
                Model(model),
                data,
                Recipe(**{**RECIPE, **(recipe or {})}),  # type: ignore[arg-type]
                STEPS,
                Device("cpu", memory_gb, power_w=10, power_limit_w=power_limit_w),
                tuple(parts) or (Part("x", params, 1, from_step, to_step, checkpoint),),
            )
        )
        return folder

    return prepare
