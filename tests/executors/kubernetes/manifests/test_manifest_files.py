"""A folder of manifests on the disk."""

import pytest
import yaml

from builders import PROJECT
from gridsweep.errors import GridsweepError, SpecError
from gridsweep.executors.kubernetes.manifests.bundle import MARK
from gridsweep.render.manifest_files import render, write

EXAMPLE = PROJECT / "examples" / "published.yaml"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_published_sweep_is_21_jobs_behind_compute_gardener(tmp_path):
    made = render(EXAMPLE, tmp_path / "out")
    assert made.jobs == 21
    listed = yaml.safe_load((tmp_path / "out" / "kustomization.yaml").read_text())["resources"]
    assert files(tmp_path / "out") == {"kustomization.yaml", *listed}
    assert sum(name.startswith("jobs/") for name in listed) == 21


@pytest.mark.parametrize(("tier", "jobs"), [("tier1", 8), ("tier2", 4), ("tier3", 9)])
def test_one_tier_alone(tmp_path, tier, jobs):
    assert render(EXAMPLE, tmp_path / "out", tier=tier, gate="suspend").jobs == jobs
    assert "volume.yaml" in files(tmp_path / "out")


def test_gate_none_is_the_loop_with_its_spec(tmp_path):
    assert render(EXAMPLE, tmp_path / "out", gate="none", namespace=True).jobs == 0
    loop = list(yaml.safe_load_all((tmp_path / "out" / "controller.yaml").read_text()))
    (held,) = (m["data"] for m in loop if m["kind"] == "ConfigMap")
    assert held == {"sweep.yaml": EXAMPLE.read_text()}
    assert "namespace.yaml" in files(tmp_path / "out")


def test_a_trace_beside_the_spec_comes_along(tmp_path):
    (tmp_path / "grid.csv").write_text("timestamp,carbon_intensity\n")
    spec = tmp_path / "sweep.yaml"
    spec.write_text(EXAMPLE.read_text() + "carbon: {provider: trace, zone: X, file: grid.csv}\n")
    render(spec, tmp_path / "out", gate="none")
    loop = list(yaml.safe_load_all((tmp_path / "out" / "controller.yaml").read_text()))
    (held,) = (m["data"] for m in loop if m["kind"] == "ConfigMap")
    assert held["grid.csv"] == "timestamp,carbon_intensity\n"


def test_a_trace_elsewhere_is_refused(tmp_path):
    (tmp_path / "grid.csv").write_text("timestamp,carbon_intensity\n")
    spec = tmp_path / "specs" / "sweep.yaml"
    spec.parent.mkdir()
    spec.write_text(EXAMPLE.read_text() + "carbon: {provider: trace, zone: X, file: ../grid.csv}\n")
    with pytest.raises(SpecError, match="in the folder of"):
        render(spec, tmp_path / "out", gate="none")
    assert not (tmp_path / "out").exists()


def test_another_rendering_replaces_the_last_one_whole(tmp_path):
    render(EXAMPLE, tmp_path / "out")
    render(EXAMPLE, tmp_path / "out", tier="tier2")
    assert len(files(tmp_path / "out")) == 3 + 4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kustomization.yaml").write_text("resources: []\n")
    with pytest.raises(GridsweepError, match="not written by gridsweep"):
        render(EXAMPLE, tmp_path / "out")
    assert (tmp_path / "out" / "kustomization.yaml").read_text() == "resources: []\n"


def test_an_error_leaves_nothing_and_the_last_rendering_in_place(tmp_path):
    render(EXAMPLE, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(SpecError, match="tier9"):
        render(EXAMPLE, tmp_path / "out", tier="tier9")
    with pytest.raises(GridsweepError, match="cannot write"):
        write({"kustomization.yaml": MARK, "a": "", "a/b": ""}, tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_loop_starts_every_tier(tmp_path):
    with pytest.raises(SpecError, match="--tier"):
        render(EXAMPLE, tmp_path / "out", gate="none", tier="tier1")
