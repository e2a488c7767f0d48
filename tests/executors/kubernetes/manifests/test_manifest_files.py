"""A folder of manifests on the disk."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml

from builders import PROJECT
from gridsweep.errors import GridsweepError, SpecError
from gridsweep.executors.kubernetes.manifests.bundle import MARK
from gridsweep.render.manifest_files import render, write
from gridsweep.spec import load, loads
from gridsweep.sweep.clusters import KubernetesCluster
from gridsweep.sweep.experiments import is_local

EXAMPLE = PROJECT / "examples" / "published.yaml"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_published_sweep_is_21_jobs_behind_compute_gardener(tmp_path):
    made = render(EXAMPLE, tmp_path / "out", gate="compute-gardener")
    assert made.jobs == 21
    listed, shared = (
        yaml.safe_load((tmp_path / "out" / folder / "kustomization.yaml").read_text())["resources"]
        for folder in ("", "base")
    )
    assert files(tmp_path / "out") == {
        "kustomization.yaml", *listed, "base/kustomization.yaml", *(f"base/{name}" for name in shared)
    }  # fmt: skip
    assert shared == ["volume.yaml"]  # which outlives the sweep
    assert sum(name.startswith("jobs/") for name in listed) == 21


@pytest.mark.parametrize(("tier", "jobs"), [("tier1", 8), ("tier2", 4), ("tier3", 9)])
def test_one_tier_alone(tmp_path, tier, jobs):
    assert render(EXAMPLE, tmp_path / "out", tier=tier, gate="suspend").jobs == jobs
    assert "base/volume.yaml" in files(tmp_path / "out")


def test_gate_none_is_the_loop_with_its_spec(tmp_path):
    assert render(EXAMPLE, tmp_path / "out", gate="none", namespace=True).jobs == 0
    loop = list(yaml.safe_load_all((tmp_path / "out" / "controller.yaml").read_text()))
    (held,) = (m["data"] for m in loop if m["kind"] == "ConfigMap")
    written = "\n\n# Written by `gridsweep render`, for the cluster:\nexecutor:\n  kubernetes: {}\n"
    assert held == {"sweep.yaml": EXAMPLE.read_text().rstrip() + written}
    assert {"base/namespace.yaml", "base/journal.yaml"} <= files(tmp_path / "out")
    assert not any("journal" in name for name in files(tmp_path / "out") if not name.startswith("base/"))


def readme_example() -> str:
    blocks = re.findall(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if "threshold: p20" in block)


def test_the_example_of_the_readme_renders(tmp_path):
    spec = tmp_path / "mine.yaml"
    spec.write_text(readme_example())
    assert render(spec, tmp_path / "out").jobs == 0
    assert render(spec, tmp_path / "out", gate="suspend").jobs == 20
    loop = list(yaml.safe_load_all(render(spec, tmp_path / "out", gate="none").texts()["controller.yaml"]))
    (held,) = (m["data"]["sweep.yaml"] for m in loop if m["kind"] == "ConfigMap")
    there = loads(held, "/config/sweep.yaml")
    here = load(spec)
    assert there == replace(here, executor=there.executor) and there.name == "mine"
    assert there.executor.name == "kubernetes"


@pytest.mark.parametrize("given", ["--gate", "executor"])
def test_a_percentile_under_a_gate_that_needs_numbers_is_refused_whatever_brought_the_gate(tmp_path, given):
    spec = tmp_path / "sweep.yaml"
    text = readme_example()
    if given == "executor":
        text = (
            text.replace("policy: planned", "policy: immediate") + "executor: {kubernetes: {gate: compute-gardener}}\n"
        )
    spec.write_text(text)
    with pytest.raises(
        SpecError, match=r"tiers\[1\]\.threshold: must be a number, not p20.*choose gate: none or suspend"
    ):
        render(spec, tmp_path / "out", gate="compute-gardener" if given == "--gate" else None)


def test_a_queue_can_be_named_beside_its_gate(tmp_path):
    with pytest.raises(SpecError, match="`--queue`"):
        render(EXAMPLE, tmp_path / "out", gate="kueue")
    assert render(EXAMPLE, tmp_path / "out", gate="kueue", queue="gpus").jobs == 21


@pytest.mark.parametrize(
    "executor",
    [
        "executor: local\n",
        "executor: {ray: {address: http://127.0.0.1:8265}}  # somewhere\n",
        "executor:\n  kubernetes:\n    namespace: ml   # ours\n    gate: suspend\n    run_deadline: 3h\n\n# the end\n",
        "'executor': {kubernetes: {namespace: ml, context: mine, node_selector: {a: '1'}}}\n",
    ],
)
def test_the_loop_in_the_cluster_never_trains_in_its_own_pod(tmp_path, executor):
    spec = tmp_path / "sweep.yaml"
    spec.write_text("\ufeff# a comment\n" + executor + EXAMPLE.read_text())
    made = render(spec, tmp_path / "out", gate="none")
    (held,) = (m["data"]["sweep.yaml"] for m in made.manifests if m["kind"] == "ConfigMap")
    there, here = loads(held, "/config/sweep.yaml"), load(spec)
    assert there.executor.name == "kubernetes" and there.executor.kubernetes.gate == "none"
    wanted = here.executor.kubernetes or KubernetesCluster()
    assert there.executor.kubernetes == replace(wanted, gate="none", context=None)  # the context is of this machine
    assert replace(there, executor=here.executor) == here


REST = "dataset: {id: org/data, train_samples: 9}\nestimates: {duration: 1h, power_w: 9}\n"
WHOLE = {"model": "org/model", "dataset": {"id": "org/data", "train_samples": 9}, "estimates": {"duration": "1h"}}
WHOLE["estimates"]["power_w"] = 9
ALL_FORMS = {
    "flow": yaml.safe_dump(WHOLE, default_flow_style=True),
    "json": json.dumps(WHOLE),
    "end": f"model: org/model\n{REST}...\n",
    "indented": "".join(f"  {line}\n" for line in ["model: org/model", *REST.splitlines()]),
    "tabs": f"model: org/model\t\n{REST}executor:\t# x\n  local\n",
    "question": f"? model\n: org/model\n{REST}? executor\n: local\n",
    "anchor": f"model: org/model\nexecutor: {{kubernetes: {{namespace: &m ml, gate: suspend}}}}\n{REST}"
    "tiers: [{name: *m, threshold: 9, max_delay: 1h}]\nrules: [{tier: *m}]\n",
}


@pytest.mark.parametrize("form", ALL_FORMS)
def test_whatever_form_a_spec_has_the_cluster_gets_the_same_sweep(tmp_path, form):
    spec = tmp_path / "1e4.yaml"  # a name that is a number, unless it is quoted
    spec.write_text(ALL_FORMS[form])
    made = render(spec, tmp_path / "out", gate="none")
    (held,) = (m["data"]["sweep.yaml"] for m in made.manifests if m["kind"] == "ConfigMap")
    there, here = loads(held, tmp_path / "sweep.yaml"), load(spec)
    assert there.name == "1e4" and replace(there, executor=here.executor) == here
    assert there.executor.name == "kubernetes"


def test_all_files_that_a_spec_names_travel(tmp_path):
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (tmp_path / "costs.json").write_text('{"packed": [[1, 1.0]], "evaluation": 0.1, "measured_on": "x"}')
    spec = tmp_path / "sweep.yaml"
    text = ALL_FORMS["end"].replace("...\n", "").replace("org/model", "{id: org/model, chat_template: t.jinja}")
    spec.write_text(text.replace("power_w: 9", "power_w: 9, results: costs.json"))
    made = render(spec, tmp_path / "out", gate="none")
    (held,) = (m["data"] for m in made.manifests if m["kind"] == "ConfigMap")
    assert sorted(held) == ["costs.json", "sweep.yaml", "t.jinja"]
    (tmp_path / "in").mkdir()
    (tmp_path / "t.jinja").rename(tmp_path / "in" / "t.jinja")
    spec.write_text(text.replace("t.jinja", "in/t.jinja"))
    with pytest.raises(SpecError, match=r"model\.chat_template: in/t\.jinja must be in the folder"):
        render(spec, tmp_path / "out", gate="none")


SECRETIVE = "carbon: {provider: watttime, zone: CAISO_NORTH}\nenv: {KEY: env:LICENCE}\n"


def test_tokens_reach_the_pods_by_a_secret_alone(tmp_path):
    spec = tmp_path / "sweep.yaml"
    spec.write_text(EXAMPLE.read_text() + SECRETIVE)
    with pytest.raises(SpecError, match=r"env\.KEY: .*executor\.kubernetes\.secret|pods need WATTTIME_USERNAME"):
        render(spec, tmp_path / "out")
    spec.write_text(EXAMPLE.read_text() + SECRETIVE + "executor: {kubernetes: {secret: mine}}\n")
    made = render(spec, tmp_path / "out", gate="none")
    (loop,) = (m for m in made.manifests if m["kind"] == "Job")
    variables = loop["spec"]["template"]["spec"]["containers"][0]["env"]
    referred = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in variables if "valueFrom" in v}
    assert referred == {name: {"name": "mine", "key": name} for name in ("WATTTIME_USERNAME", "WATTTIME_PASSWORD")}
    job = next(m for m in render(spec, tmp_path / "out", gate="suspend").manifests if m["kind"] == "RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "LICENCE"}}} in head["env"]
    spec.write_text(EXAMPLE.read_text() + "carbon: {provider: eia, zone: CISO, token: file:/key}\n")
    with pytest.raises(SpecError, match="file:/key is on this machine"):
        render(spec, tmp_path / "out", gate="none")


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


@pytest.mark.parametrize("gate", ["none", "suspend"])
@pytest.mark.parametrize("example", sorted(EXAMPLE.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_renders_and_is_read_back_there_as_here(tmp_path, example, gate):
    sweep = load(example)
    if (
        sweep.replay is not None
        or is_local(sweep.model.id)
        or is_local(sweep.dataset.id)
        or sweep.model.id == "tiny-qwen2"
    ):
        pytest.skip("of this machine alone")
    render(example, tmp_path / "out", gate=gate)
    if gate != "none":
        return
    loop = list(yaml.safe_load_all((tmp_path / "out" / "controller.yaml").read_text()))
    (held,) = (m["data"] for m in loop if m["kind"] == "ConfigMap")
    for name, text in held.items():
        (tmp_path / name).write_text(text)
    there = load(tmp_path / "sweep.yaml")
    assert there.experiments == sweep.experiments
    assert there.estimates == sweep.estimates


@pytest.mark.parametrize("form", ["block", "flow", "anchor", "json"])
def test_a_results_file_elsewhere_travels_under_its_base_name(tmp_path, form):
    results = EXAMPLE.parent.parent / "docs" / "results" / "lean-cpu.json"
    (tmp_path / "measured").mkdir()
    shutil.copy(results, tmp_path / "measured" / "lean.json")
    spec = tmp_path / "specs" / "one.yaml"
    spec.parent.mkdir()
    plain = yaml.safe_load(EXAMPLE.read_text())
    plain["estimates"]["results"] = "../measured/lean.json"
    if form == "json":
        spec.write_text(json.dumps(plain))
    else:
        text = yaml.safe_dump(plain, default_flow_style=form == "flow", sort_keys=False)
        spec.write_text(text.replace("results: ", "results: &a ") if form == "anchor" else text)
    sweep = load(spec)
    render(spec, tmp_path / "out", gate="none")
    loop = list(yaml.safe_load_all((tmp_path / "out" / "controller.yaml").read_text()))
    (held,) = (m["data"] for m in loop if m["kind"] == "ConfigMap")
    assert held["lean.json"] == results.read_text()
    (tmp_path / "there").mkdir()
    for name, text in held.items():
        (tmp_path / "there" / name).write_text(text)
    assert load(tmp_path / "there" / "sweep.yaml").estimates == sweep.estimates


def test_another_rendering_replaces_the_last_one_whole(tmp_path):
    render(EXAMPLE, tmp_path / "out")
    render(EXAMPLE, tmp_path / "out", tier="tier2", gate="suspend")
    assert len(files(tmp_path / "out")) == 4 + 4
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
        render(EXAMPLE, tmp_path / "out", tier="tier9", gate="suspend")
    with pytest.raises(GridsweepError, match="cannot write"):
        write({"kustomization.yaml": MARK, "a": "", "a/b": ""}, tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_loop_starts_every_tier(tmp_path):
    with pytest.raises(SpecError, match="--tier"):
        render(EXAMPLE, tmp_path / "out", gate="none", tier="tier1")
