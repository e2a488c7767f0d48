"""All files of a folder for `kubectl apply -k`: the objects a sweep needs in a cluster, by file name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from gridsweep.errors import ExecutorError, SpecError
from gridsweep.executors.kubernetes.manifests.checks import problems
from gridsweep.executors.kubernetes.manifests.controller import controller
from gridsweep.executors.kubernetes.manifests.delivery import assignment_of, check_reachable, sources
from gridsweep.executors.kubernetes.manifests.names import EXPERIMENT, SWEEP, TIER, Manifest, label_value
from gridsweep.executors.kubernetes.manifests.network import worker_policy
from gridsweep.executors.kubernetes.manifests.rayjob import rayjob
from gridsweep.executors.kubernetes.manifests.storage import volume_claim
from gridsweep.executors.kubernetes.manifests.yaml_text import document, documents
from gridsweep.sweep.clusters import Gate, KubernetesCluster
from gridsweep.sweep.sweep import Sweep

MARK = "# Written by `gridsweep render`"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Manifests by file name, and the comment at the top of the kustomization."""

    files: Mapping[str, tuple[Manifest, ...]]
    header: str

    @property
    def manifests(self) -> list[Manifest]:
        return [manifest for part in self.files.values() for manifest in part]

    @property
    def jobs(self) -> int:
        return sum(manifest["kind"] == "RayJob" for manifest in self.manifests)

    def texts(self) -> dict[str, str]:
        """Return the text of every file, including kustomization.yaml."""
        kustomization: Manifest = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": list(self.files),
        }
        texts = {name: documents(part) for name, part in self.files.items()}
        return {"kustomization.yaml": self.header + document(kustomization), **texts}


def cluster_of(sweep: Sweep, gate: Gate | None = None) -> KubernetesCluster:
    """Return the cluster a sweep names, with `gate` in place of its own if given.

    A sweep without a cluster gets the defaults, and the gate of the published setup: Compute Gardener.
    """
    named = sweep.executor.kubernetes or KubernetesCluster(gate="compute-gardener")
    return replace(named, gate=gate) if gate else named


def bundle(
    sweep: Sweep,
    cluster: KubernetesCluster,
    *,
    spec: str = "",
    spec_files: Mapping[str, str] | None = None,
    worker_sources: Mapping[str, str] | None = None,
    tier: str | None = None,
    namespace: bool = False,
    at: datetime | None = None,
) -> Bundle:
    """Return the manifests that run the sweep in a cluster: gated RayJobs or, with `gate: none`, the loop.

    `spec` and `spec_files` are the texts of sweep.yaml and of the files it names, for the loop; `worker_sources` are
    the package's sources, if a ConfigMap delivers them. With `tier`, only that tier's jobs are included. `at` is the
    date for chat templates that write one. Raise `SpecError` if the sweep cannot run this way, `ExecutorError` if a
    cluster would refuse the manifests.
    """
    check_reachable(sweep, cluster)
    loop = cluster.gate == "none"
    names = [each.name for each in sweep.tiers]
    if tier is not None and tier not in names:
        raise SpecError(f"there is no tier {tier!r}; there are: {', '.join(names)}")
    if tier is not None and loop:
        raise SpecError("with gate: none the loop starts every tier's experiments; leave out --tier, or choose a gate")
    files: dict[str, tuple[Manifest, ...]] = {}
    if namespace:
        files["namespace.yaml"] = (_namespace(cluster),)
    files["volume.yaml"] = (volume_claim(sweep, cluster, loop=loop),)
    files["network.yaml"] = (worker_policy(sweep, cluster),)
    if cluster.worker == "configmap":
        files["worker.yaml"] = sources(sweep, cluster, dict(worker_sources or {}))
    if loop:
        files["controller.yaml"] = tuple(controller(sweep, cluster, spec, dict(spec_files or {})))
    else:
        for experiment in sweep.experiments:
            if tier in (None, experiment.tier):
                job = rayjob(sweep, cluster, assignment_of(sweep, experiment.id, at), again=True)
                files[f"jobs/{job['metadata']['name']}.yaml"] = (job,)
    made = Bundle(files, _header(sweep, cluster, loop=loop))
    if found := problems(made.manifests):
        raise ExecutorError("a cluster would refuse these manifests: " + "; ".join(found[:5]))
    return made


def _namespace(cluster: KubernetesCluster) -> Manifest:
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": enforced}}


def _header(sweep: Sweep, cluster: KubernetesCluster, *, loop: bool) -> str:
    """Return the header: the commands to run.

    They apply server-side, because client-side apply copies each object into an annotation of limited size.
    """
    space = f"-n {cluster.namespace}"
    lines = [
        f"{MARK} from the sweep {sweep.name}, gate {cluster.gate}. It is written anew, not edited.",
        "#",
        "#   kubectl apply --server-side -k .",
    ]
    if loop:
        lines += [f"#   kubectl {space} logs -f -l app.kubernetes.io/component=controller"]
    else:
        lines += [
            f"#   kubectl apply --server-side -k . -l {TIER}=TIER          # one tier's jobs, once the rest is there",
            f"#   kubectl {space} get rayjobs -L {TIER},{EXPERIMENT}",
        ]
    if not loop and (sweep.rungs or sweep.repeats or sweep.propose):
        lines += [
            "#",
            "# Rungs and experiments added later need gridsweep's loop (gate: none): these jobs train every",
            "# experiment to its end.",
        ]
    if cluster.gate == "suspend":
        release = """-p '{"spec":{"suspend":false}}'"""
        lines += [f"#   kubectl {space} patch rayjob JOB --type merge {release}    # lets it start"]
    lines += [
        "#",
        "# `kubectl delete -k .` deletes the volume too, with its adapters; this keeps it:",
        f"#   kubectl {space} delete rayjobs,deployments -l {SWEEP}={label_value(sweep.name)}",
    ]
    return "\n".join(lines) + "\n"
