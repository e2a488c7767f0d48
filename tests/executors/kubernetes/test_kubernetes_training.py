"""Real training in the double's pods, from the command's own code: the same losses as on this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from bench import CLUSTER, KubernetesBench

from builders import FORK, START, losses, until
from gridsweep.carbon.traces import HOUR
from gridsweep.executors.kubernetes.manifests.roles import laptop_rules
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.sweep.clusters import ExecutorChoice
from gridsweep.sweep.experiments import Dataset, Model, Recipe
from gridsweep.sweep.sweep import Replay, Sweep
from gridsweep.sweep.tiers import Tier
from gridsweep.testing.executor_contract import sweep_of

pytestmark = [pytest.mark.train, pytest.mark.slow]
TRAINS = (sys.executable, "-P", "-m", "gridsweep.train")


def ten_steps(executor: ExecutorChoice, pairs: Path) -> Sweep:
    """Return four experiments of ten real steps."""
    from dataclasses import replace

    rows = [{"prompt": f"Say {n}", "response": f"return {n}" + " + 1" * (n % 5)} for n in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(
        sweep_of(4, steps=10),
        model=Model("tiny-qwen2"),
        dataset=Dataset(str(pairs), train_samples=16, validation_samples=4),
        recipe=Recipe(steps=10, batch_size=2, accumulation=1, max_length=64, checkpoint_every=4),
        replay=Replay(START, 300.0),
        tiers=(Tier("only", 1000.0, 4000 * HOUR, 1),),  # on the slowest machine no start is overdue
        executor=executor,
    )


def run_there(sweep: Sweep, folder: Path) -> None:
    os._exit(runs.run(sweep, folder).exit_code)


def kubeconfig(path: Path, url: str) -> Path:
    named = {"current-context": "double", "contexts": [{"name": "double", "context": {"cluster": "c", "user": "u"}}]}
    named |= {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    path.write_text(yaml.safe_dump(named))
    return path


def test_four_experiments_of_ten_steps_end_as_on_this_machine_though_the_loop_is_killed(tmp_path: Path, monkeypatch):
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    here, there, pairs = tmp_path / "here", tmp_path / "there", tmp_path / "pairs.jsonl"
    assert runs.run(ten_steps(ExecutorChoice(), pairs), here).exit_code == 0
    with KubernetesBench(tmp_path, mounted=False) as bench:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", bench.server.url)))
        claim = {"metadata": {"name": CLUSTER.volume}, "spec": {}, "status": {"phase": "Bound"}}
        bench.server.put("persistentvolumeclaims", claim)
        bench.server.grant(laptop_rules())
        bench.kubelet.command = TRAINS
        sweep = ten_steps(ExecutorChoice("kubernetes", kubernetes=CLUSTER), pairs)
        loop = FORK.Process(target=run_there, args=(sweep, there))
        loop.start()
        until(lambda: any(there.glob("store/stints/*/*/worker.json")), 120)
        loop.kill()
        loop.join()
        assert runs.run(None, there).exit_code == 0
        heads = [name for name in bench.kubelet.started if name.endswith("-head")]
        assert len(heads) == 4 and not bench.server.unrecorded
    wanted, found = RunFolder(here).read(), RunFolder(there).read()
    assert losses(found) == losses(wanted)
    assert [s.outcome.train_loss for s in found.standings.values()] == [
        s.outcome.train_loss for s in wanted.standings.values()
    ]
    assert all(len(standing.attempts) == 1 for standing in found.standings.values())
    assert len(list(there.glob("store/experiments/*/adapter/adapter_model.safetensors"))) == 4
