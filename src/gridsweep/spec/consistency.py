"""What only several sections together can get wrong: names that must meet, points that must have a tier, files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gridsweep import designs
from gridsweep.spec.expansion import (
    BUNDLED_TRACES,
    baseline_of,
    candidates_of,
    design_of,
    resolved,
    rules_of,
    space_of,
    tiers_of,
    trace_file,
)
from gridsweep.spec.sections import MOST_POINTS, SpecFile
from gridsweep.spec.values import nearest, shown
from gridsweep.spec.yaml_lines import Fault
from gridsweep.sweep import PARAMS, LoraParams, is_local, number

SHOWN = 3


def inconsistencies(
    data: dict[str, Any], file: SpecFile, broken: Collection[str], folder: Path
) -> Iterator[Fault]:
    """Every disagreement among the sections that are not `broken`; `data` is what the file says, right or not."""

    def sound(*sections: str) -> bool:
        return not any(section in broken for section in sections)

    yield from _tier_names(data, file, sound("tiers", "rules"))
    if sound("space", "design"):
        faults = list(_design(file))
        yield from faults
        if not faults and sound("tiers", "rules"):
            yield from _untiered(file)
    if sound("dataset", "recipe") and file.recipe.steps is None and file.dataset.train_samples is None:
        what = "missing; epochs are counted by it: give it, or recipe.steps"
        yield Fault(("dataset", "train_samples"), what)
    for section in ("model", "dataset"):
        if sound(section) and is_local(id := getattr(file, section).id):
            yield from _absent(section, id, folder)
    if sound("carbon"):
        yield from _trace(file, folder)
    if sound("policy") and (limits := file.policy.on_off) and limits.resume_below > limits.pause_above:
        what = f"must be at most pause_above, {number(limits.pause_above)}, not {number(limits.resume_below)}"
        yield Fault(("policy", "on_off", "resume_below"), what)
    yield from _twice(data, "devices")


def _tier_names(data: dict[str, Any], file: SpecFile, sound: bool) -> Iterator[Fault]:
    yield from _twice(data, "tiers")
    names = _names(data, "tiers") if data.get("tiers") is not None else [t.name for t in designs.PUBLISHED_TIERS]
    rules = data.get("rules")
    for i, rule in enumerate(rules if isinstance(rules, list) else ()):
        tier = rule.get("tier") if isinstance(rule, dict) else None
        if isinstance(tier, str) and names and tier not in names:
            yield Fault(("rules", i, "tier"), f"there is no tier {shown(tier)}; {nearest(tier, names)}")
    if rules is None and sound:
        unknown = {rule.tier for rule in rules_of(None, file.tiers)} - {tier.name for tier in tiers_of(file.tiers)}
        if unknown:
            what = f"missing; the default rules need the tiers tier1, tier2 and tier3, and there is no {min(unknown)}"
            yield Fault(("rules",), f"{what}: give rules of your own")


def _design(file: SpecFile) -> Iterator[Fault]:
    design = design_of(file.design, file.space)
    if design.published is not None:
        if file.space is not None:
            yield Fault(("space",), "design published is a fixed list of 21; remove space, or choose design: grid")
        return
    if file.space is None:
        yield Fault(("space",), "missing; add the values of r, alpha, lr and dropout, or choose design: published")
        return
    space = space_of(file.space)
    if space.size > MOST_POINTS and design.one_factor is None:
        what = f"its grid has {space.size:,} points, at most {MOST_POINTS:,} are allowed; give fewer values"
        yield Fault(("space",), what)
    elif design.sample is not None and design.sample.n > space.size:
        what = f"must be at most {space.size}, the points of the grid, not {design.sample.n}"
        yield Fault(("design", "sample", "n"), what)
    elif design.one_factor is not None:
        baseline = baseline_of(design, space)
        for param in PARAMS:
            value, axis = getattr(baseline, param), space.axis(param)
            if value not in axis:
                what = f"must be one of space.{param}, {', '.join(map(number, axis[:20]))}, not {number(value)}"
                yield Fault(("design", "one_factor", "baseline", param), what)


def _untiered(file: SpecFile) -> Iterator[Fault]:
    rules = rules_of(file.rules, file.tiers)
    points = candidates_of(design_of(file.design, file.space), file.space)
    lost = [params for params in points if designs.assign(params, rules) is None]
    if lost:
        names = "; ".join(map(_point, lost[:SHOWN])) + (f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
        what = f"no rule gives these a tier: {names}; end with a rule without `when`"
        yield Fault(("rules",), what)


def _trace(file: SpecFile, folder: Path) -> Iterator[Fault]:
    try:
        path = trace_file(file.carbon, folder)
        found = path is None or path.is_file()
    except (OSError, ValueError, RuntimeError):
        found = False
    if not found:
        hint = nearest(file.carbon.file, BUNDLED_TRACES).replace("there are:", "bundled:")
        yield Fault(("carbon", "file"), f"there is no file {shown(file.carbon.file)} in {folder}; {hint}")


def _absent(section: str, id: str, folder: Path) -> Iterator[Fault]:
    try:
        found = Path(resolved(id, folder)).exists()
    except (OSError, ValueError, RuntimeError):
        found = False
    if not found:
        yield Fault((section, "id"), f"there is no file or folder {shown(id)} in {folder}; mend the path")


def _twice(data: dict[str, Any], section: str) -> Iterator[Fault]:
    """Names of tiers or devices that are given twice."""
    seen: dict[str, int] = {}
    for i, element in enumerate(data[section] if isinstance(data.get(section), list) else ()):
        name = element.get("name") if isinstance(element, dict) else None
        if isinstance(name, str) and seen.setdefault(name, i) != i:
            what = f"{shown(name)} is the name of {section}[{seen[name]}] already; choose another"
            yield Fault((section, i, "name"), what)


def _names(data: dict[str, Any], section: str) -> list[str]:
    elements = data[section] if isinstance(data[section], list) else []
    return [e["name"] for e in elements if isinstance(e, dict) and isinstance(e.get("name"), str)]


def _point(params: LoraParams) -> str:
    return " ".join(f"{param}={number(getattr(params, param))}" for param in PARAMS)
