"""A run whose adapters are real LoRAs of tiny-qwen2 (never trained, but not zero), and the small server over it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from asking import Server

from adapter_files import published, stand_in_run
from gridsweep.records.attempts import Part
from gridsweep.serving import launch
from gridsweep.serving.access import check_free
from gridsweep.serving.child import running
from gridsweep.serving.client import Client
from gridsweep.serving.taught import Taught
from gridsweep.sweep.experiments import LoraParams, Model, Recipe


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key and no cache but the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in ("GRIDSWEEP_API_KEY", "GRIDSWEEP_API_KEY_FILE", "VLLM_API_KEY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a proxy where nothing listens: a request that goes by it fails. For each test here, and for no other."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from gridsweep.train.lean.group import Group
    from gridsweep.train.model import load_base
    from gridsweep.train.samples import Sample

    folder = stand_in_run(tmp_path_factory.mktemp("serving") / "run")
    model = Model("tiny-qwen2")
    base = load_base(model, torch.device("cpu"), torch.float32)[1]
    homes = sorted((folder / "store" / "experiments").iterdir())
    parts = [Part(home.name, LoraParams(4 + n, 32.0, 1e-4, 0.05), n, 0, 1) for n, home in enumerate(homes)]
    group = Group(base, parts, Recipe(), 1, [Sample((2, 3, 4), 1)], model)
    for r, stack in group.roster.stacks.items():
        stack.weights[:, stack.split :].normal_(0, 0.03, generator=torch.Generator().manual_seed(r))
    for home in homes:
        shutil.rmtree(home / "adapter")
        with published(folder, home.name) as draft:
            group.save_adapter(home.name, draft)
    return folder


@pytest.fixture(scope="session")
def server(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The small server with two adapters, on loopback, without a key."""
    port = check_free("127.0.0.1", 0)
    folder = tmp_path_factory.mktemp("log")
    command = launch.own_command(
        launch.chosen(run_folder, ["e00", "e01"]), "127.0.0.1", port, None, folder / "template", Taught()
    )
    with running(command.argv, command.variables, folder / "log") as child:
        child.wait_until(Client(f"http://127.0.0.1:{port}").healthy, lambda: False, 60)
        yield Server(port)
