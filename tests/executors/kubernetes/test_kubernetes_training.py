"""Real training in the double's pods, from the command's own code: the same losses as on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from bench import CLUSTER, KubernetesBench

from builders import FORK, losses, run_to_its_end, ten_steps, until
from gridsweep.executors.kubernetes.manifests.roles import laptop_rules
from gridsweep.runs import run as runs
from gridsweep.runs.folder import RunFolder
from gridsweep.sweep.clusters import ExecutorChoice

pytestmark = [pytest.mark.train, pytest.mark.slow]
TRAINS = (sys.executable, "-P", "-m", "gridsweep.train")


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
        loop = FORK.Process(target=run_to_its_end, args=(sweep, there))
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
