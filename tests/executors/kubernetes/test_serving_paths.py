"""Where `serve --kubernetes` says the adapters are: on the volume, wherever the loop ran."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from bench import CLUSTER, KubernetesBench, drive_sweep

from adapter_files import stand_in_run
from builders import real_sweep
from gridsweep.executors.kubernetes.manifests.checks import problems
from gridsweep.executors.kubernetes.manifests.names import STORE
from gridsweep.render.manifest_files import render_serving
from gridsweep.runs.folder import RunFolder
from gridsweep.serving.servable import Servable
from gridsweep.state.state import State
from gridsweep.sweep.clusters import ExecutorChoice
from gridsweep.testing.executor_contract import stand_in

SWEEP = real_sweep(2, steps=2, executor=ExecutorChoice("kubernetes", kubernetes=CLUSTER))


def modules_of(folder: Path) -> dict[str, str]:
    """The adapters that a rendered server loads: paths by name."""
    objects = yaml.safe_load_all((folder / "serving.yaml").read_text())
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    assert dict(pairwise(words))["--max-cpu-loras"] == "2"
    return dict(word.split("=") for word in words[words.index("--lora-modules") + 1 :])


def adapters_of(state: State) -> list[Servable]:
    return [Servable(id, Path("/runs/here") / id / "adapter", state.sweep.model, 8) for id in state.standings]


@pytest.mark.parametrize("mounted", [True, False], ids=["in the cluster", "from a laptop"])
def test_the_server_is_told_paths_that_are_on_the_volume(tmp_path: Path, mounted: bool):
    with KubernetesBench(tmp_path, mounted=mounted, sweep=SWEEP.name) as bench:
        bench.kubelet.command = stand_in(0.01)
        state = drive_sweep(SWEEP, tmp_path / "run", bench.server, bench.store if mounted else None)
        first = render_serving(state, adapters_of(state), tmp_path / "serving")
        paths = modules_of(tmp_path / "serving")
        assert list(paths) == ["e00", "e01"]
        for id, path in paths.items():
            here = bench.volume / path.removeprefix(f"{STORE}/")
            assert (here / "adapter_config.json").is_file(), f"{path} is not on the volume"
            assert here.name in (id, "adapter")
        assert not any(" cp " in line for line in first)


def test_of_a_sweep_that_ran_elsewhere_the_adapters_are_copied_to_the_paths_first(tmp_path: Path):
    state = RunFolder(stand_in_run(tmp_path / "run", 2)).read()
    first = render_serving(state, adapters_of(state), tmp_path / "serving")
    paths = modules_of(tmp_path / "serving")
    pod = "gridsweep-serving-browse"
    assert [line for line in first if " cp " in line] == [
        f"kubectl -n gridsweep cp /runs/here/{id}/adapter {pod}:{paths[id]}" for id in ("e00", "e01")
    ]
    assert f"kubectl apply -f {tmp_path / 'serving'}/browse.yaml" in first
    assert f"kubectl -n gridsweep exec {pod} -- mkdir -p {paths['e00'].rpartition('/')[0]}" in first
    header = (tmp_path / "serving" / "kustomization.yaml").read_text()
    assert all(f"#   {line.replace(str(tmp_path / 'serving'), '.')}\n" in header for line in first)
    assert "browse.yaml" not in yaml.safe_load(header)["resources"]
    browse = yaml.safe_load((tmp_path / "serving" / "browse.yaml").read_text())
    assert browse["metadata"]["name"] == pod and problems([browse]) == []
    assert browse["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "gridsweep-store"}
    assert browse["spec"]["automountServiceAccountToken"] is False
    (key,) = (line for line in first if "create secret" in line)
    assert key == "kubectl -n gridsweep create secret generic gridsweep-serving --from-file=API_KEY=api-key"
    server = (tmp_path / "serving" / "serving.yaml").read_text()
    assert "name: gridsweep-serving\n" in server and "key: API_KEY\n" in server
