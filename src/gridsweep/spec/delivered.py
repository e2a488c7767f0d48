"""The text of a spec as a cluster gets it: under its own name, and with the executor that it is rendered for."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import PurePath

import yaml

from gridsweep.errors import SpecError
from gridsweep.spec.reading import loads
from gridsweep.spec.yaml_lines import Document
from gridsweep.sweep.clusters import ExecutorChoice, KubernetesCluster
from gridsweep.sweep.sweep import Sweep

MARK = "# Written by `gridsweep render`, for the cluster:"

DELIVERED = "sweep.yaml"
"""The name of the spec there."""


def delivered(text: str, path: PurePath, sweep: Sweep, cluster: KubernetesCluster) -> str:
    """Return the text of the spec `path` so that whatever reads it there runs `sweep` on `cluster`.

    The rest of the text stays as it is, with its comments. Raise `SpecError` if that cannot be done.
    """
    text = text.removeprefix("\ufeff")
    there = PurePath(path).with_name(DELIVERED)  # the name of a spec without one is the file's
    wanted = ExecutorChoice("kubernetes", kubernetes=cluster)
    if sweep.executor == wanted and loads(text, there).name == sweep.name:
        return text
    plain = Document(text, str(there)).plain
    keys = {} if "name" in plain else {"name": sweep.name}
    executor: dict[str, object] = {"kubernetes": _section(cluster)}
    last: SpecError | None = None
    for made in (_amended(text, keys, executor), _anew({**plain, **keys, "executor": executor})):
        try:
            read = loads(made, there) if made else None
        except SpecError as error:
            last = error
            continue
        if read is not None and replace(read, executor=sweep.executor) == sweep and read.executor == wanted:
            return made
    raise _unfit(path, last)


def renamed(text: str, path: PurePath, keys: tuple[str, str], name: str) -> str:
    """Return a delivered text in which the value of `section.key` is the name of a file that lies beside it there.

    Raise `SpecError` if the text has a form in which that value cannot be replaced.
    """
    wanted = Document(text, str(path)).plain
    section, key = keys
    wanted[section] = {**wanted[section], key: name}
    try:
        node = _child(_child(yaml.compose(text, Loader=yaml.SafeLoader), section), key)
    except yaml.YAMLError:  # what our own reader takes, PyYAML's may not
        node = None
    if node is not None and node.start_mark.index < node.end_mark.index:
        made = text[: node.start_mark.index] + json.dumps(name) + text[node.end_mark.index :]
        if Document(made, str(path)).plain == wanted:
            return made
    raise SpecError(
        f"{name} must be in the folder of {path.name} to reach the cluster; copy it there", where=".".join(keys)
    )


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _amended(text: str, keys: dict[str, str], executor: dict[str, object]) -> str:
    """Return the text with another executor, at its end; "" where its form does not allow it."""
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # what our own reader takes, PyYAML's may not
        return ""
    if not isinstance(document, yaml.MappingNode) or document.flow_style:
        return ""
    for key, value in document.value:
        if key.value == "executor":
            text = text[: key.start_mark.index] + text[max(value.end_mark.index, key.end_mark.index + 1) :]
    name = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    return f"{text.rstrip()}\n\n{MARK}\n{name}{yaml.safe_dump({'executor': executor}, sort_keys=False)}"


def _anew(plain: dict[str, object]) -> str:
    """Return a spec as JSON, which is YAML without its comments and other forms."""
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    for end in "\x85\u2028\u2029":  # only escaped do they stand in a spec
        text = text.replace(end, f"\\u{ord(end):04x}")
    return f"{MARK}\n{text}\n"


def _unfit(path: PurePath, error: SpecError | None) -> SpecError:
    """Return the error for a spec that a cluster cannot take, at the key of the user's file."""
    if error is not None and error.faults:
        fault = error.faults[0]
        return SpecError(f"on a cluster, {fault.what}", where=fault.key or None)
    return SpecError(f"{path} cannot be given the executor of a cluster; write executor: {{kubernetes: {{}}}} into it")


def _section(cluster: KubernetesCluster) -> dict[str, object]:
    """Return the keys that differ from the defaults. The context is of the machine that rendered."""
    usual = KubernetesCluster()
    values = {field.name: getattr(cluster, field.name) for field in fields(cluster) if field.name != "context"}
    changed = {name: value for name, value in values.items() if value != getattr(usual, name)}
    return {
        name: f"{value.total_seconds():g}s" if isinstance(value, timedelta) else value
        for name, value in changed.items()
    }
