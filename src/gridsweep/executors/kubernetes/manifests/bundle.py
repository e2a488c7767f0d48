"""All files of a folder for `kubectl apply -k`: the objects a sweep needs in a cluster, by file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gridsweep.errors import ExecutorError, SpecError
from gridsweep.executors.kubernetes.manifests.checks import problems
from gridsweep.executors.kubernetes.manifests.controller import controller, journal_claim
from gridsweep.executors.kubernetes.manifests.delivery import assignment_of, check_reachable, sources
from gridsweep.executors.kubernetes.manifests.names import EXPERIMENT, TIER, Manifest, object_name
from gridsweep.executors.kubernetes.manifests.network import worker_policy
from gridsweep.executors.kubernetes.manifests.rayjob import rayjob
from gridsweep.executors.kubernetes.manifests.roles import laptop_role
from gridsweep.executors.kubernetes.manifests.storage import volume_claim
from gridsweep.executors.kubernetes.manifests.yaml_text import document, documents
from gridsweep.spec.yaml_lines import dotted
from gridsweep.sweep.clusters import Gate, KubernetesCluster, gate_faults
from gridsweep.sweep.sweep import Sweep

MARK = "# Written by `gridsweep render`"
BASE = "base/"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Manifests by file name, and the comments at the top of the two kustomizations.

    What several sweeps share, and what outlives them, is in the folder `BASE`.
    """

    files: Mapping[str, tuple[Manifest, ...]]
    header: str
    base: str = ""

    @property
    def manifests(self) -> list[Manifest]:
        return [manifest for part in self.files.values() for manifest in part]

    @property
    def jobs(self) -> int:
        return sum(manifest["kind"] == "RayJob" for manifest in self.manifests)

    def texts(self) -> dict[str, str]:
        """Return the text of every file, including one kustomization.yaml for the sweep and one for its base."""
        texts = {name: documents(part) for name, part in self.files.items()}
        own = [name for name in self.files if not name.startswith(BASE)]
        shared = [name.removeprefix(BASE) for name in self.files if name.startswith(BASE)]
        found = {"kustomization.yaml": self.header + _kustomization(own)}
        if shared:
            found[f"{BASE}kustomization.yaml"] = self.base + _kustomization(shared)
        return {**found, **texts}


def _kustomization(files: Sequence[str]) -> str:
    return document(
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(files)}
    )


def cluster_of(sweep: Sweep, gate: Gate | None = None, queue: str | None = None) -> KubernetesCluster:
    """Return the cluster a sweep names, or the defaults, with `gate` and `queue` in place of its own if given."""
    named = sweep.executor.kubernetes or KubernetesCluster()
    return replace(named, gate=gate or named.gate, queue=queue or named.queue)


def bundle(
    sweep: Sweep,
    cluster: KubernetesCluster,
    *,
    spec: str = "",
    spec_files: Mapping[str, str] | None = None,
    worker_sources: Mapping[str, str] | None = None,
    tier: str | None = None,
    namespace: bool = False,
    role: bool = False,
    at: datetime | None = None,
) -> Bundle:
    """Return the manifests that run the sweep in a cluster: gated RayJobs or, with `gate: none`, the loop.

    `spec` and `spec_files` are the texts of sweep.yaml and of the files it names, for the loop; `worker_sources` are
    the package's sources, if a ConfigMap delivers them. With `tier`, only that tier's jobs are included; with `role`,
    also the rights of a user's own machine. `at` is the date for chat templates that write one. Raise `SpecError` if
    the sweep cannot run this way, `ExecutorError` if a cluster would refuse the manifests.
    """
    check_reachable(sweep, cluster)
    for place, what in gate_faults(cluster.gate, cluster.queue, [each.threshold for each in sweep.tiers]):
        raise SpecError(what, where=dotted(place))
    loop = cluster.gate == "none"
    names = [each.name for each in sweep.tiers]
    if tier is not None and tier not in names:
        raise SpecError(f"there is no tier {tier!r}; there are: {', '.join(names)}")
    if tier is not None and loop:
        raise SpecError("with gate: none the loop starts every tier; leave out --tier, or choose another with --gate")
    files: dict[str, tuple[Manifest, ...]] = {}
    if namespace:
        files[f"{BASE}namespace.yaml"] = (_namespace(cluster),)
    if role:
        files[f"{BASE}role.yaml"] = (laptop_role(cluster),)
    files[f"{BASE}volume.yaml"] = (volume_claim(sweep, cluster, loop=loop),)
    if loop:
        files[f"{BASE}journal.yaml"] = (journal_claim(sweep, cluster),)
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
    made = Bundle(files, _header(sweep, cluster, loop=loop), _base_header(sweep, cluster, namespace=namespace))
    later = [rayjob(sweep, cluster, assignment_of(sweep, sweep.experiments[0].id, at))] if loop else []
    found = problems([*made.manifests, *later])  # the loop's own jobs must not be refused once it runs
    if found and cluster.pod:
        raise SpecError(f"a cluster would refuse the pods: {'; '.join(found[:5])}", where="executor.kubernetes.pod")
    if found:
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
        "#   kubectl apply --server-side -k base      # once: what outlives the sweep",
        "#   kubectl apply --server-side -k .",
    ]
    if loop:
        name = object_name(sweep.name, "controller")
        lines += [
            f"#   kubectl {space} logs -f job/{name}",
            "#",
            "# The loop is a Job: it ends with the sweep, and cannot be changed. To run it again, to resume or with",
            "# another sweep.yaml:",
            f"#   kubectl {space} delete job {name}",
            "#   kubectl apply --server-side -k .",
        ]
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
        "# What this deletes can be applied again; the volume with its adapters and the journal are in base/ and stay:",
        "#   kubectl delete -k .",
    ]
    return "\n".join(lines) + "\n"


def _base_header(sweep: Sweep, cluster: KubernetesCluster, *, namespace: bool) -> str:
    """Return the header of what outlives the sweep."""
    whole = "the namespace with all that is in it, and " if namespace else ""
    lines = [
        f"{MARK} from the sweep {sweep.name}: what outlives it, and what sweeps share. Apply it first, once.",
        "#",
        "#   kubectl apply --server-side -k base",
        "#",
        f"# The claim {cluster.volume} can grow, and change in nothing else. If it is there with another size or",
        "# class, kubectl refuses this one: leave base out and name its values in executor.kubernetes, or name another",
        "# claim in executor.kubernetes.volume; then render again.",
        "#",
        f"# `kubectl delete -k base` deletes {whole}the volume with its adapters, and the journal.",
    ]
    return "\n".join(lines) + "\n"
