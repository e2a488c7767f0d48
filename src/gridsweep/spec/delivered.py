"""The text of a spec as a cluster gets it: under its own name, and with the executor that it is rendered for."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import PurePath

import yaml

from gridsweep.errors import SpecError
from gridsweep.spec.reading import loads
from gridsweep.sweep.clusters import ExecutorChoice, KubernetesCluster
from gridsweep.sweep.sweep import Sweep

MARK = "# Written by `gridsweep render`, for the cluster:"


def delivered(text: str, path: PurePath, sweep: Sweep, cluster: KubernetesCluster) -> str:
    """Return the text of the spec `path` so that whatever reads it there runs `sweep` on `cluster`.

    The rest of the text stays as it is, with its comments. Raise `SpecError` if that cannot be done.
    """
    text = text.removeprefix("\ufeff")
    there = PurePath(path).with_name("sweep.yaml")  # the name of a spec without one is the file's
    wanted = ExecutorChoice("kubernetes", kubernetes=cluster)
    if sweep.executor == wanted and loads(text, there).name == sweep.name:
        return text
    keys = {} if "\nname:" in f"\n{text}" else {"name": sweep.name}
    added = yaml.safe_dump({**keys, "executor": {"kubernetes": _section(cluster)}}, sort_keys=False)
    made = f"{_without(text, 'executor').rstrip()}\n\n{MARK}\n{added}"
    try:
        read = loads(made, there)
    except SpecError as error:
        raise SpecError(f"{path} cannot run on a cluster as it is: {error}") from None
    if (read.executor, read.name, read.experiments) != (wanted, sweep.name, sweep.experiments):
        raise SpecError(
            f"{path} cannot be given the executor of a cluster; write it as `key: value` lines, with "
            f"executor: {{kubernetes: {{namespace: {cluster.namespace}}}}}"
        )
    return made


def _without(text: str, name: str) -> str:
    """Return a YAML text without one key of its top level."""
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(document, yaml.MappingNode) or document.flow_style:
        return text
    for key, value in document.value:
        if key.value == name:
            return text[: key.start_mark.index] + text[max(value.end_mark.index, key.end_mark.index + 1) :]
    return text


def _section(cluster: KubernetesCluster) -> dict[str, object]:
    """Return the keys that differ from the defaults. The context is of the machine that rendered."""
    usual = KubernetesCluster()
    values = {field.name: getattr(cluster, field.name) for field in fields(cluster) if field.name != "context"}
    changed = {name: value for name, value in values.items() if value != getattr(usual, name)}
    return {
        name: f"{value.total_seconds():g}s" if isinstance(value, timedelta) else value
        for name, value in changed.items()
    }
