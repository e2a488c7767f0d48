"""Folders of Kubernetes manifests, written completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gridsweep.errors import GridsweepError, SpecError, word
from gridsweep.executors.kubernetes.manifests.bundle import MARK, Bundle, bundle, cluster_of
from gridsweep.executors.kubernetes.manifests.delivery import worker_sources
from gridsweep.executors.kubernetes.manifests.names import store_of
from gridsweep.executors.kubernetes.manifests.serving import KEY, SERVER, browser, serving
from gridsweep.executors.kubernetes.manifests.yaml_text import document
from gridsweep.serving.servable import Servable
from gridsweep.spec import load
from gridsweep.spec.delivered import DELIVERED, delivered, renamed
from gridsweep.spec.yaml_lines import Document
from gridsweep.state.state import State
from gridsweep.sweep.clusters import Gate, KubernetesCluster
from gridsweep.sweep.sweep import Sweep


def render(
    spec: Path,
    folder: Path,
    *,
    tier: str | None = None,
    gate: Gate | None = None,
    queue: str | None = None,
    namespace: bool = False,
    role: bool = False,
) -> Bundle:
    """Write the manifests of a sweep into a folder, replacing earlier gridsweep manifests there.

    Raise `SpecError` if the spec cannot be rendered, `GridsweepError` if the folder holds other files.
    """
    sweep = load(spec)
    cluster = replace(cluster_of(sweep, gate, queue), context=None)  # of this machine, not of the cluster
    loop = cluster.gate == "none"
    files, elsewhere = _named_files(sweep, spec) if loop else (None, "")
    text = delivered(spec.read_text(encoding="utf-8-sig"), spec, sweep, cluster) if loop else ""
    made = bundle(
        sweep,
        cluster,
        spec=renamed(text, spec, ("estimates", "results"), elsewhere) if elsewhere else text,
        spec_files=files,
        worker_sources=worker_sources() if cluster.worker == "configmap" else None,
        tier=tier,
        namespace=namespace,
        role=role,
        at=datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0),
    )
    write(made.texts(), folder)
    return made


def render_serving(state: State, adapters: Sequence[Servable], folder: Path) -> list[str]:
    """Write the manifests of a vLLM server that reads a sweep's adapters from the cluster's volume.

    Return the commands that come first: those that make the server's Secret, and those that copy the adapters of a
    sweep that ran elsewhere onto the volume. They are in the header of kustomization.yaml too.
    """
    sweep, base = state.sweep, adapters[0].base
    cluster = sweep.executor.kubernetes or KubernetesCluster()
    there = sweep.executor.name == "kubernetes" or state.collected is not None
    paths = {adapter.name: _on_the_volume(state, adapter.name, on_cluster=there) for adapter in adapters}
    if base.chat_template is not None:
        raise SpecError(
            "the manifests of a server cannot carry model.chat_template; use `gridsweep serve` without --kubernetes"
        )
    made = serving(base.id, base.revision, paths, [a.rank for a in adapters], cluster)
    browse, first = browser(cluster), _secret(cluster)
    if not there:
        first += _copies(cluster, browse["metadata"]["name"], {a.name: a.folder for a in adapters}, paths)
    lines = [line.format(place=".") for line in [*first, "kubectl apply --server-side -k {place}"]]
    header = "\n".join([f"{MARK} to serve {', '.join(paths)}.", "#", *(f"#   {line}" for line in lines), ""])
    texts = Bundle({"serving.yaml": tuple(made)}, header).texts()
    write({**texts, "browse.yaml": document(browse)}, folder)  # applied by hand, where files are looked at or copied
    return [line.format(place=word(folder)) for line in first]


def _on_the_volume(state: State, experiment: str, *, on_cluster: bool) -> str:
    """Return the folder of an adapter on the cluster's volume.

    The loop in the cluster publishes adapters there; a loop on a laptop publishes them into its own store, and the
    volume has them only where their workers wrote them. In both cases the latter exists.
    """
    outcome, store = state.standings[experiment].outcome, store_of(state.sweep.name)
    if on_cluster and outcome is not None and outcome.adapter:
        return f"{store}/{outcome.adapter}"
    return f"{store}/experiments/{experiment}/adapter"


def _secret(cluster: KubernetesCluster) -> list[str]:
    """Return the commands that make the server's key and its Secret."""
    return [
        "python -c \"import secrets; print(secrets.token_urlsafe(), end='')\" > api-key",
        f"kubectl -n {cluster.namespace} create secret generic {SERVER} --from-file={KEY}=api-key",
    ]


def _copies(cluster: KubernetesCluster, pod: str, folders: Mapping[str, Path], paths: Mapping[str, str]) -> list[str]:
    """Return the commands that copy adapters onto the volume, through a pod that mounts it; `{place}` is its folder."""
    at = f"kubectl -n {cluster.namespace}"
    lines = ["kubectl apply -f {place}/browse.yaml", f"{at} wait --for=condition=Ready pod/{pod}"]
    for name, path in paths.items():
        home = path.rpartition("/")[0]
        lines.append(f"{at} exec {pod} -- mkdir -p {home}")
        lines.append(f"{at} cp {_braced(word(folders[name]))} {pod}:{path}")
    return [*lines, f"{at} delete pod {pod}"]


def _braced(text: str) -> str:
    """Return a text as `str.format` takes it."""
    return text.replace("{", "{{").replace("}", "}}")


def write(texts: dict[str, str], folder: Path) -> None:
    """Create a folder with these files by rename; replace earlier gridsweep manifests only."""
    folder = folder.absolute()
    if folder.exists() and not _ours(folder):
        raise GridsweepError(f"{folder} exists and was not written by gridsweep; name another folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        for name, text in texts.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise GridsweepError(f"cannot write {folder}: {error.strerror}; name another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    head = folder / "kustomization.yaml"
    if head.is_file():
        return head.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    return not any(folder.iterdir())


def _named_files(sweep: Sweep, spec: Path) -> tuple[dict[str, str], str]:
    """Return the files that a spec names, and the name there of a results file that lies elsewhere, "" if none does.

    The cluster has one folder for all files. Others than a results file, of which nothing but the estimates come, must
    lie beside the spec.
    """
    found: dict[str, str] = {}
    elsewhere = ""
    given = Document(spec.read_text(encoding="utf-8-sig"), str(spec)).plain
    for section, key in (
        ("model", "chat_template"),
        ("carbon", "file"),
        ("estimates", "results"),
        ("design", "points"),
    ):
        part = given.get(section)
        named = part.get(key) if isinstance(part, dict) else None
        if not isinstance(named, str) or (section == "carbon" and not Path(sweep.carbon.file or "").is_file()):
            continue  # a trace that comes with the package lies in no folder of the user's
        path = spec.absolute().parent / named
        if path.parent != spec.absolute().parent:
            if key != "results" or path.name in found or path.name == DELIVERED:
                what = f"{named} must be in the folder of {spec.name} to reach the cluster; copy it there"
                raise SpecError(what, where=f"{section}.{key}")
            elsewhere = path.name
        found[path.name] = path.read_text(encoding="utf-8")
    return found, elsewhere
