"""An attempt as a RayJob: one pod, a Ray head that has the GPU and trains on it.

There is no worker group, so that no head idles while its worker waits; `HTTPMode` needs no submitter pod.
"""

from __future__ import annotations

import json
import math
from datetime import timedelta

from gridsweep import __version__
from gridsweep.errors import SpecError
from gridsweep.executors.kubernetes.manifests import delivery
from gridsweep.executors.kubernetes.manifests.names import (
    ATTEMPT,
    DIGEST,
    MANAGED_BY,
    NAME,
    Manifest,
    digest,
    experiment_annotations,
    go_duration,
    job_name,
    labels,
    store_of,
)
from gridsweep.executors.kubernetes.manifests.patches import patched
from gridsweep.executors.kubernetes.manifests.pods import (
    claim,
    container_security,
    environment,
    hugging_face,
    mount,
    on_gpu_nodes,
    referring,
    resources,
    scratch,
    security,
)
from gridsweep.records import codec
from gridsweep.records.attempts import Assignment
from gridsweep.spec.yaml_lines import dotted
from gridsweep.sweep.clusters import Gate, KubernetesCluster, gate_faults
from gridsweep.sweep.experiments import number
from gridsweep.sweep.sweep import Sweep
from gridsweep.sweep.tiers import Percentile, Tier

RAY_VERSION = "2.60.0"
COMPUTE_GARDENER = "compute-gardener-scheduler"
THRESHOLD = f"{COMPUTE_GARDENER}.kubernetes.io/carbon-intensity-threshold"
MAX_DELAY = f"{COMPUTE_GARDENER}.kubernetes.io/max-scheduling-delay"
QUEUE = "kueue.x-k8s.io/queue-name"
OBJECT_STORE_BYTES = 100_000_000  # The worker does not use it; Ray's default is 30 % of the memory.


def rayjob(
    sweep: Sweep, cluster: KubernetesCluster, work: Assignment, *, gate: Gate | None = None, again: bool = False
) -> Manifest:
    """Return the RayJob of an attempt. With `again`, a resumed RayJob continues by itself: for use without the loop.

    Equal arguments give equal manifests; the annotation `gridsweep.io/digest` covers all the rest. Raise `SpecError`
    if `gate` (by default the cluster's) lacks something, or a variable its Secret.
    """
    gate = gate or cluster.gate
    limits = [each.threshold for each in sweep.tiers]
    for place, what in gate_faults(gate, cluster.queue, limits):
        raise SpecError(what, where=dotted(place))
    first = work.members[0].experiment
    tier = sweep.tier(sweep.experiment(first).tier)
    # A label has one value: for a pack it is the first member; the assignment names all members.
    joined = labels(sweep.name, "worker", experiment=first, tier=tier.name, stint=work.attempt.rpartition("/")[0])
    notes = {**experiment_annotations(sweep, first), ATTEMPT: work.attempt}
    own = dict(joined)
    if gate == "kueue":  # Kueue sets `suspend` on creation; setting it here would suspend the job again at every apply
        assert cluster.queue is not None, "a queue was asked for above"
        own[QUEUE] = cluster.queue
    made: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": job_name(sweep.name, work.attempt, first),
            "namespace": cluster.namespace,
            "labels": own,
            "annotations": notes,
        },
        "spec": _spec(
            patched(_template(gate, tier, joined, notes, _pod(sweep, cluster, work, again)), cluster.pod),
            deadline(sweep, cluster, tier, gate),
            gate,
            cluster.ttl,
        ),
    }
    seal = digest(json.dumps(made, sort_keys=True))
    made["metadata"]["annotations"] = {**notes, DIGEST: seal}
    return made


def _spec(template: Manifest, longest: timedelta, gate: Gate, ttl: timedelta) -> Manifest:
    """Return the spec of a RayJob: a cluster of one head, which is stopped after `longest`, or `ttl` after its end."""
    spec: Manifest = {
        "entrypoint": delivery.ENTRYPOINT,
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": math.ceil(ttl.total_seconds()),
        "backoffLimit": 0,
        "activeDeadlineSeconds": math.ceil(longest.total_seconds()),
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "headGroupSpec": {
                "rayStartParams": {
                    "num-gpus": "1",
                    "dashboard-host": "0.0.0.0",  # the operator submits through it; the NetworkPolicy keeps others out
                    "object-store-memory": str(OBJECT_STORE_BYTES),
                },
                "template": template,
            },
        },
    }
    if gate == "suspend":
        spec["suspend"] = True
    return spec


def _template(gate: Gate, tier: Tier, joined: dict[str, str], notes: dict[str, str], pod: Manifest) -> Manifest:
    """Return the head's pod template, with Compute Gardener's annotations and scheduler if that is the gate."""
    template: Manifest = {
        # Without the app.kubernetes.io name and managed-by: KubeRay sets its own on a head, and selects by them.
        "metadata": {
            "labels": {key: value for key, value in joined.items() if key not in (NAME, MANAGED_BY)},
            "annotations": notes | _held(gate, tier),
        },
        "spec": pod,
    }
    if gate == "compute-gardener":
        pod["schedulerName"] = COMPUTE_GARDENER
    return template


def deadline(sweep: Sweep, cluster: KubernetesCluster, tier: Tier, gate: Gate) -> timedelta:
    """Return how long a RayJob may take from the moment KubeRay begins to count.

    With Compute Gardener, KubeRay also counts the time the pod waits: for the grid, at most the tier's delay, and then
    for a device, at most until all other experiments have run. Time in suspension is not counted.
    """
    if gate != "compute-gardener":
        return cluster.run_deadline
    rounds = math.ceil(len(sweep.experiments) / len(sweep.devices))
    return tier.max_delay + rounds * sweep.estimates.duration + cluster.run_deadline


def _held(gate: Gate, tier: Tier) -> dict[str, str]:
    """Return the annotations by which Compute Gardener holds a pod; empty for other gates."""
    if gate != "compute-gardener":
        return {}
    assert not isinstance(tier.threshold, Percentile), "a spec without faults gives this gate numbers"
    return {THRESHOLD: number(tier.threshold), MAX_DELAY: go_duration(tier.max_delay)}


def _pod(sweep: Sweep, cluster: KubernetesCluster, work: Assignment, again: bool) -> Manifest:
    variables = environment(
        GRIDSWEEP_ASSIGNMENT=codec.dumps(work, indent=1),
        GRIDSWEEP_VERSION=__version__,
        GRIDSWEEP_STORE=store_of(sweep.name),
        GRIDSWEEP_AGAIN="1" if again else "0",
        HOME="/tmp",
        USER="gridsweep",  # the user id need not be in the image's passwd file, and torch asks for a name
        PYTHONDONTWRITEBYTECODE="1",
        NVIDIA_DRIVER_CAPABILITIES="compute,utility",  # utility includes NVML, the energy counter
        RAY_JOB_STOP_WAIT_TIME_S=str(delivery.STOP_WAIT_SECONDS),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",
    )
    mounts = [mount("store"), mount("tmp", "/tmp"), mount("shm", "/dev/shm")]
    volumes = [claim("store", cluster.volume), scratch("tmp", "8Gi"), scratch("shm", "4Gi", memory=True)]
    if cluster.worker == "configmap":
        variables += environment(PYTHONPATH=delivery.PACKAGE)
        mounts.append(mount("package", delivery.PACKAGE, read_only=True))
        volumes.append(delivery.sources_volume(sweep.name))
    container = {
        "name": "ray-head",
        "image": cluster.image,
        "env": [*referring(sweep.env, cluster), *variables, *hugging_face(cluster)],
        "ports": [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
        ],
        "resources": resources(cluster.cpu, cluster.memory, gpus=1, scratch=cluster.ephemeral_storage),
        "securityContext": container_security(),
        "volumeMounts": mounts,
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", delivery.STOP]}}},
    }
    return {
        **on_gpu_nodes(cluster),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service called ray would set RAY_PORT
        "terminationGracePeriodSeconds": delivery.GRACE_SECONDS,
        "securityContext": security(),
        "containers": [container],
        "volumes": volumes,
    }
