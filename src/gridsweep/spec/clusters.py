"""The sections of `sweep.yaml` that define where workers run."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any  # a section may have fewer keys than the value

from pydantic import Field

from gridsweep.spec.axes import Section
from gridsweep.spec.pod import PodPatch
from gridsweep.spec.pod_fields import Quantity
from gridsweep.spec.study import Choice
from gridsweep.spec.values import Number, OneOf, Span, Word, choice_of
from gridsweep.sweep.clusters import GATES, ExecutorChoice, KubernetesCluster, Limits, RayCluster

EXECUTORS = ("local", "ray", "kubernetes")

_RAY, _KUBERNETES = RayCluster(), KubernetesCluster()

Url = Annotated[str, Word(r"https?://[^\s/@]+(/\S*)?", "an address such as http://127.0.0.1:8265, without a password")]
Secret = Annotated[
    str, Word(r"(env:[A-Za-z_]\w*|file:\S.*)", "env:NAME or file:PATH; never write the secret itself here")
]
Label = Annotated[str, Word(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a DNS label: lower-case letters, digits and '-'")]
Name = Annotated[
    str, Word(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", "a name of lower-case letters, digits, '-' and '.'")
]
Image = Annotated[str, Word(r"[\w][\w.:/@-]{0,510}", "an image such as registry/name:tag or registry/name@sha256:...")]
Amount = Annotated[str, Quantity()]
MEMORY = "64Mi"
"""A worker's interpreter does not start in less."""
Text = Annotated[str, Word(r"[^\x00-\x1f]{1,1000}", "one line of text")]


class LocalSection(Section):
    """Processes on this machine, and what each may take of it."""

    memory_gb: Annotated[float, Number(least=0.1, most=1_000_000)] | None = Field(
        default=None, description="The most memory of a worker in GB, not counting a GPU's; default: no limit."
    )
    file_gb: Annotated[float, Number(least=0.001, most=1_000_000)] | None = Field(
        default=None, description="The largest file that a worker may write, in GB; default: no limit."
    )
    open_files: Annotated[int, Number(least=64, most=1_000_000, whole=True)] | None = Field(
        default=None, description="The most files that a worker may have open at once; default: no limit."
    )


class RaySection(Section):
    """A Ray cluster, reached through its Jobs API."""

    address: Url = Field(default=_RAY.address, description="The address of the Ray dashboard.")
    shared: Text | None = Field(
        default=None, description="A folder that this machine and the nodes see under the same path."
    )
    resource: Annotated[str, Word(r"[A-Za-z_][\w-]{0,62}", "GPU or the name of a custom resource")] = Field(
        default=_RAY.resource, description="The resource that a stint occupies on a node: GPU, or a custom resource."
    )
    token: Secret | None = Field(default=None, description="The cluster's token: env:NAME or file:PATH.")


class KubernetesSection(Section):
    """A Kubernetes cluster with the KubeRay operator."""

    namespace: Label = Field(default=_KUBERNETES.namespace, description="The namespace of all objects.")
    image: Image = Field(default=_KUBERNETES.image, description="The worker's image.")
    gate: Annotated[str, OneOf(GATES)] = Field(
        default=_KUBERNETES.gate, description="Which component holds attempts back."
    )
    queue: Name | None = Field(default=None, description="Kueue's local queue, with gate: kueue.")
    context: Text | None = Field(default=None, description="The kubeconfig context; default: the current one.")
    volume: Name = Field(default=_KUBERNETES.volume, description="The volume claim for models, attempts and adapters.")
    volume_size: Amount | None = Field(default=None, description="The volume's size; default: computed.")
    storage_class: Name | None = Field(default=None, description="The volume's storage class; default: the cluster's.")
    access_mode: Annotated[str, OneOf(("ReadWriteMany", "ReadWriteOnce"))] = Field(
        default=_KUBERNETES.access_mode, description="Whether several nodes may mount the volume at once."
    )
    runtime_class: Name | None = Field(default=_KUBERNETES.runtime_class, description="The pods' RuntimeClass.")
    node_selector: dict[str, str] = Field(
        default=_KUBERNETES.node_selector, description="Labels of the nodes that may run workers."
    )
    cpu: Amount = Field(default=_KUBERNETES.cpu, description="CPUs a worker requests.")
    memory: Annotated[str, Quantity(MEMORY)] = Field(
        default=_KUBERNETES.memory, description="Memory a worker requests, and its limit."
    )
    hugging_face_secret: Name | None = Field(
        default=None, description="A Secret with the key HF_TOKEN, for gated models."
    )
    worker: Annotated[str, OneOf(("image", "configmap"))] = Field(
        default=_KUBERNETES.worker,
        description="How the worker's code reaches the pod: in the image, or in a ConfigMap.",
    )
    run_deadline: Annotated[timedelta, Span()] = Field(
        default=_KUBERNETES.run_deadline, description="The longest run of one attempt; waits do not count."
    )
    secret: Name | None = Field(
        default=None, description="A Secret whose keys are the variables that the spec refers to with env:NAME."
    )
    ttl: Annotated[timedelta, Span(timedelta(0))] = Field(
        default=_KUBERNETES.ttl, description="How long the pod of a finished attempt stays; it keeps its GPU so long."
    )
    ephemeral_storage: Amount | None = Field(
        default=None, description="Ephemeral storage that a worker requests; default: none is requested."
    )
    pod: Annotated[dict[str, Any], PodPatch()] = Field(
        default={}, description="Metadata and spec of pods, merged into them: labels, tolerations, volumes, ..."
    )


class ExecutorSection(Choice):
    """Where the workers run; exactly one key."""

    local: LocalSection | None = Field(default=None, description="Processes on this machine.")
    ray: RaySection | None = Field(default=None, description="Jobs on a Ray cluster.")
    kubernetes: KubernetesSection | None = Field(default=None, description="RayJobs on a Kubernetes cluster.")


Executors = Annotated[ExecutorSection, choice_of(EXECUTORS)]


def executor_of(section: ExecutorSection | None) -> ExecutorChoice:
    """Return the executor that a section chooses; this machine by default."""
    if section is not None and section.ray is not None:
        return ExecutorChoice("ray", ray=RayCluster(**dict(section.ray)))
    if section is not None and section.kubernetes is not None:
        values: dict[str, Any] = dict(section.kubernetes)
        return ExecutorChoice("kubernetes", kubernetes=KubernetesCluster(**values))
    return ExecutorChoice(local=Limits(**dict(section.local)) if section is not None and section.local else Limits())
