"""Checks of a design and its space: axes that are missing, values that cannot be, points without a tier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any  # what YAML holds

from gridsweep.spec.axes import KINDS, MOST_POINTS
from gridsweep.spec.expansion import candidates_of, design_of, rules_of, space_of
from gridsweep.spec.file import SpecFile
from gridsweep.spec.study import DesignSection
from gridsweep.spec.yaml_lines import Fault
from gridsweep.sweep import designs
from gridsweep.sweep.experiments import LoraParams, text
from gridsweep.sweep.space import Relation, Space

SHOWN = 3


def design_faults(data: dict[str, Any], file: SpecFile, folder: Path, *, ruled: bool) -> Iterator[Fault]:
    """Yield each inconsistency of design and space; points without a tier if the rules are `ruled` sound."""
    faults = list(_design(file))
    points: tuple[LoraParams, ...] = ()
    design = design_of(file.design, file.space)
    where = ("design", "points") if design.points is not None else ("space",)
    if not faults:
        try:
            points = candidates_of(design, file.space, folder)
        except ValueError as error:
            faults = [Fault(where, str(error))]
        else:
            faults = list(_points(data, file, where, points))
    yield from faults
    if not faults and ruled:
        yield from _untiered(file, points)


def _design(file: SpecFile) -> Iterator[Fault]:
    design = design_of(file.design, file.space)
    if design.published is not None or design.points is not None:
        if file.space is not None:
            what = "published, a fixed list of 21 points" if design.published else "points, which are given one by one"
            yield Fault(("space",), f"not used by design {what}; remove space, or choose design: grid")
        return
    if file.space is None:
        what = "missing; add the values of r, alpha, lr and dropout, or choose design: published"
        yield Fault(("space",), what)
        return
    space = space_of(file.space)
    for key in sorted({each.param for conditions in space.exclude for each in conditions} - {*space.keys}):
        yield Fault(("space", "exclude"), f"{key} is no axis of the space, so it excludes nothing; remove it")
    if not any(getattr(file.space, key) is not None for key in KINDS):
        yield Fault(("space",), "names no axis; give the values of one, such as lr: [5e-5, 1e-4, 2e-4]")
    elif space.ranges and (design.sample is None or design.sample.method == "tiers"):
        what = f"a range needs design: {{sample: {{n: ...}}}}, {'by sobol or random' if design.sample else 'or a list'}"
        yield from (Fault(("space", key), what) for key in space.ranges)
    elif not space.ranges and space.size > MOST_POINTS and design.one_factor is None:
        what = f"the grid has {space.size:,} points, at most {MOST_POINTS:,} are allowed; give fewer values"
        yield Fault(("space",), what)
    elif design.sample is not None and design.sample.n > MOST_POINTS:
        yield Fault(("design", "sample", "n"), f"must be at most {MOST_POINTS:,}, not {design.sample.n:,}")
    elif design.one_factor is not None:
        yield from _baseline(design, space)


def _baseline(design: DesignSection, space: Space) -> Iterator[Fault]:
    """Yield the values of a baseline that its axes do not have."""
    given = design.one_factor.baseline.model_dump(exclude_none=True) if design.one_factor else {}
    for param, value in given.items():
        where = ("design", "one_factor", "baseline", param)
        if param not in space.keys:
            yield Fault(where, f"{param} is no axis of the space; add it there, or set it in the recipe")
            continue
        axis = dict(zip(space.keys, space.listed, strict=True))[param]
        if value not in axis and not any(isinstance(each, Relation) for each in axis):
            allowed = ", ".join(text(each) for each in axis[:20] if not isinstance(each, Relation))
            yield Fault(where, f"must be a value of space.{param} ({allowed}), not {text(value)}")


def _points(
    data: dict[str, Any], file: SpecFile, where: tuple[str, ...], points: Sequence[LoraParams]
) -> Iterator[Fault]:
    """Yield why the points of a design, which are given at `where`, are too few, or such that no recipe can have."""
    sample = file.design.sample if file.design else None
    if sample is not None and sample.n > len(points):
        what = f"must be at most {len(points)}, the size of the grid, not {sample.n}"
        yield Fault(("design", "sample", "n"), what)
    if not points:
        yield Fault((*where, "exclude"), "excludes every point; loosen a condition")
        return
    yield from _unfit(where, points)
    keys = points[0].keys
    recipe = data.get("recipe")
    counted = isinstance(recipe, dict) and recipe.get("steps") is not None
    if "epochs" in keys and ("steps" in keys or counted):
        yield Fault((*where, "epochs"), "has no effect beside a number of steps, which overrides it; remove one")
    for n, rule in enumerate(file.rules or ()):
        for key, test in rule.when:
            if test is not None and key not in keys:
                yield Fault(
                    ("rules", n, "when", key), f"{key} is no axis of this sweep, so it decides nothing; remove it"
                )


def _unfit(where: tuple[str, ...], points: Sequence[LoraParams]) -> Iterator[Fault]:
    """Yield the first value that follows from another axis and that its own axis does not allow."""
    for params in points:
        for key, value in params.values.items():
            try:
                KINDS[key].read(value)
            except ValueError as error:
                yield Fault((*where, key), f"{error} (at {_point(params)})")
                return


def _untiered(file: SpecFile, points: Sequence[LoraParams]) -> Iterator[Fault]:
    rules = rules_of(file.rules, file.tiers)
    lost = [params for params in points if designs.assign(params, rules) is None]
    if lost:
        names = [_point(params) for params in lost[:SHOWN]]
        if len(lost) > SHOWN:
            names.append(f"and {len(lost) - SHOWN} more")
        what = f"no rule assigns a tier to: {', '.join(names)}; end with a rule without `when`"
        yield Fault(("rules",), what)


def _point(params: LoraParams) -> str:
    return " ".join(f"{param}={text(value)}" for param, value in params.values.items())
