"""Checks across sections: names that must match, points without a tier, missing files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, cast  # what YAML holds; a checked word

from gridsweep.errors import SignalError, SpecError
from gridsweep.grid.registry import plugin, source_for
from gridsweep.grid.source import Http, Means
from gridsweep.spec.clusters import executor_of
from gridsweep.spec.designs import design_faults
from gridsweep.spec.expansion import (
    BUNDLED_TRACES,
    absolute,
    carbon_of,
    estimates_of,
    rules_of,
    template_text,
    tiers_of,
)
from gridsweep.spec.file import CarbonSection, SpecFile
from gridsweep.spec.study import DatasetSection
from gridsweep.spec.values import nearest, shown
from gridsweep.spec.yaml_lines import Fault
from gridsweep.sweep.clusters import Gate, gate_faults
from gridsweep.sweep.experiments import is_local, number


def inconsistencies(data: dict[str, Any], file: SpecFile, broken: Collection[str], folder: Path) -> Iterator[Fault]:
    """Yield each inconsistency between the sections that are not `broken`; `data` is the file as written."""

    def sound(*sections: str) -> bool:
        return not any(section in broken for section in sections)

    yield from _tier_names(data, file, sound("tiers", "rules"))
    if sound("space", "design"):
        yield from design_faults(data, file, folder, ruled=sound("tiers", "rules"))
    if sound("dataset", "recipe") and file.recipe.steps is None and file.dataset.train_samples is None:
        what = "missing; add it to count the steps of an epoch, or set recipe.steps"
        yield Fault(("dataset", "train_samples"), what)
    if sound("env", "executor"):
        yield from _remote_secrets(file)
    for section in ("model", "dataset"):
        yield from _absent(data, section, folder)
    if sound("dataset"):
        yield from _data(file.dataset, folder)
    yield from _template(data, folder)
    yield from _trace(data, folder)
    if sound("carbon"):
        faults = list(_provider(data, file))
        yield from faults or _refused(file.carbon, folder)
    if sound("estimates") and file.estimates.results is not None:
        try:
            estimates_of(file.estimates, folder)
        except SpecError as error:
            yield Fault(("estimates", "results"), str(error))
    if sound("executor", "policy", "tiers"):
        yield from _gate(file)
    if sound("policy") and (limits := file.policy.on_off) and limits.resume_below > limits.pause_above:
        what = f"must be at most pause_above, {number(limits.pause_above)}, not {number(limits.resume_below)}"
        yield Fault(("policy", "on_off", "resume_below"), what)
    if sound("rungs", "propose") and file.propose is not None and file.rungs is None:
        yield Fault(("propose",), "needs rungs, which free places for new points; remove it, or set rungs: default")
    yield from _twice(data, "devices")


def _remote_secrets(file: SpecFile) -> Iterator[Fault]:
    """Yield each reference to a variable of this machine that would be written, with its value, into a cluster."""
    executor = executor_of(file.executor)
    if executor.name == "local" or (executor.kubernetes and executor.kubernetes.secret):
        return
    for name, value in file.env.items():
        if value.startswith("env:"):
            what = "refers to a variable of this machine, whose value would be readable in the cluster; "
            there = (
                "name a Secret that holds it in executor.kubernetes.secret" if executor.kubernetes else "set it there"
            )
            yield Fault(("env", name), what + there)


def _tier_names(data: dict[str, Any], file: SpecFile, sound: bool) -> Iterator[Fault]:
    yield from _twice(data, "tiers")
    given, rules = data.get("tiers"), data.get("rules")
    names = [tier.name for tier in tiers_of(None)] if given is None else _names(given)
    for i, rule in enumerate(rules if isinstance(rules, list) else ()):
        tier = rule.get("tier") if isinstance(rule, dict) else None
        if isinstance(tier, str) and names and tier not in names:
            yield Fault(("rules", i, "tier"), f"there is no tier {shown(tier)}; {nearest(tier, names)}")
    if rules is None and sound:
        unknown = {rule.tier for rule in rules_of(None, file.tiers)}.difference(names)
        if unknown:
            what = f"missing; add rules for your tiers: the default rules need the tiers {', '.join(sorted(unknown))}"
            yield Fault(("rules",), what)


def _gate(file: SpecFile) -> Iterator[Fault]:
    cluster = file.executor.kubernetes if file.executor else None
    if cluster is None:
        return
    gate = cast(Gate, cluster.gate)
    for where, what in gate_faults(gate, cluster.queue, [tier.threshold for tier in tiers_of(file.tiers)]):
        yield Fault(where, what)
    if cluster.gate in ("compute-gardener", "kueue") and (file.policy.immediate is None):
        what = f"must be immediate: gate {cluster.gate} holds work back, not gridsweep; set policy: immediate"
        yield Fault(("policy",), what)


def _provider(data: dict[str, Any], file: SpecFile) -> Iterator[Fault]:
    """Yield keys that the provider does not accept, a missing zone, and a clock that it cannot replay."""
    carbon, name = file.carbon, file.carbon.provider
    source = plugin(name)
    given = data["carbon"] if isinstance(data.get("carbon"), dict) else {}
    for key in ("file", "token", "username", "password", "base_url", "basis", "value"):
        if given.get(key) is not None and key not in source.keys:
            takes = ", ".join(sorted(source.keys)) or "none"
            yield Fault(("carbon", key), f"not a key of the provider {name}; remove it (its keys: {takes})")
    if name != "trace" and carbon.zone is None and carbon.value is None:
        yield Fault(("carbon", "zone"), f"missing; {name} needs a zone: `gridsweep zones --provider {name}` lists them")
    if source.live and file.clock is not None:
        yield Fault(("clock",), f"{name} reads only the present; replay a trace, or remove the clock")


def _refused(section: CarbonSection, folder: Path) -> Iterator[Fault]:
    """Yield why a provider refuses its settings, such as a zone that it does not have; nothing is requested."""
    if section.provider == "trace":
        return  # its file is looked at elsewhere
    try:
        source_for(carbon_of(section, folder), Means(_unasked, lambda _: "", folder))
    except SpecError as error:
        key, colon, what = str(error).removeprefix("carbon.").partition(": ")
        if colon and key in CarbonSection.model_fields:
            yield Fault(("carbon", key), what)
        else:
            yield Fault(("carbon",), str(error))
    except SignalError:
        pass  # of the service or the secrets: `check` and `run` say so


def _unasked(base_url: str) -> Http:
    raise SignalError(f"{base_url} is not asked while a spec is read")


def _trace(data: dict[str, Any], folder: Path) -> Iterator[Fault]:
    file = data["carbon"].get("file") if isinstance(data.get("carbon"), dict) else None
    if isinstance(file, str) and file not in BUNDLED_TRACES and not _found(file, folder, Path.is_file):
        hint = nearest(file, BUNDLED_TRACES).replace("choose one of:", "bundled:")
        yield Fault(("carbon", "file"), f"there is no file {shown(file)} in {folder}; {hint}")


def _absent(data: dict[str, Any], section: str, folder: Path) -> Iterator[Fault]:
    value = data.get(section)
    where, id = ((section, "id"), value.get("id")) if isinstance(value, dict) else ((section,), value)
    if isinstance(id, str) and is_local(id) and not _found(id, folder, Path.exists):
        yield Fault(where, f"there is no file or folder {shown(id)} in {folder}; correct the path")


def _data(section: DatasetSection, folder: Path) -> Iterator[Fault]:
    """Yield a missing validation file, and columns that do not make a form."""
    path = section.validation
    if path is not None and is_local(path) and not _found(path, folder, Path.exists):
        what = f"there is no file or folder {shown(path)} in {folder}; correct the path"
        yield Fault(("dataset", "validation"), what)
    if section.columns is not None:
        given = {key for key, column in section.columns if column is not None}
        named: dict[str, str] = {}
        for key, column in section.columns:
            if column is not None and named.setdefault(column, key) != key:
                what = f"{shown(column)} is already the {named[column]}; name another column, or remove one of the keys"
                yield Fault(("dataset", "columns", key), what)
        whole = given & {"messages", "text"}
        pair = {"prompt", "response", "context", "history"} & given
        if len(whole) > 1 or (whole and pair) or ("text" in whole and "system" in given):
            what = f"{' and '.join(sorted(given))} exclude each other; name messages, text, or prompt and response"
            yield Fault(("dataset", "columns"), what)
        elif not whole and not {"prompt", "response"} <= given:
            yield Fault(("dataset", "columns"), "incomplete; name messages, text, or prompt and response")


def _template(data: dict[str, Any], folder: Path) -> Iterator[Fault]:
    file = data["model"].get("chat_template") if isinstance(data.get("model"), dict) else None
    if not isinstance(file, str):
        return
    try:
        template_text(absolute(file, folder))
    except SpecError as error:
        yield Fault(("model", "chat_template"), str(error).removeprefix("model.chat_template: "))
    except (ValueError, RuntimeError):  # a null character, or ~ names an unknown user
        yield Fault(("model", "chat_template"), f"there is no file {shown(file)} in {folder}; correct the path")


def _found(path: str, folder: Path, there: Callable[[Path], bool]) -> bool:
    try:
        return there(absolute(path, folder))
    except (OSError, ValueError, RuntimeError):  # the name is too long, or ~ names an unknown user
        return False


def _twice(data: dict[str, Any], section: str) -> Iterator[Fault]:
    """Yield the names of tiers or devices that are used twice."""
    seen: dict[str, int] = {}
    for i, element in enumerate(data[section] if isinstance(data.get(section), list) else ()):
        name = element.get("name") if isinstance(element, dict) else None
        if isinstance(name, str) and seen.setdefault(name, i) != i:
            what = f"{shown(name)} is already the name of {section}[{seen[name]}]; choose another"
            yield Fault((section, i, "name"), what)


def _names(elements: object) -> list[str]:
    listed = elements if isinstance(elements, list) else []
    return [e["name"] for e in listed if isinstance(e, dict) and isinstance(e.get("name"), str)]
