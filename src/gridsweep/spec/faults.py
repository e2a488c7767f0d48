"""Checks of each section alone: unknown or missing keys, values out of bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args  # each section has a type of its own

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gridsweep.spec.axes import Section
from gridsweep.spec.file import SpecFile
from gridsweep.spec.values import nearest, shown
from gridsweep.spec.yaml_lines import Fault, Where


def keys(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the keys of a section as written in the file, each with its field."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


_SECTIONS: dict[str, TypeAdapter[Any]] = {
    key: TypeAdapter(field.rebuild_annotation()) for key, field in keys(SpecFile).items()
}


@dataclass(frozen=True, slots=True)
class Checked:
    """The valid sections, and the faults of the others."""

    sections: dict[str, Any]
    broken: frozenset[str]
    faults: tuple[Fault, ...]


def check(data: dict[str, Any]) -> Checked:
    """Check each section alone, so that one fault does not hide another; an empty section counts as absent."""
    sections: dict[str, Any] = {}
    broken: set[str] = set()
    faults: list[Fault] = []
    missing: list[Fault] = []
    meant: set[Where] = set()
    for key in data:
        if key not in _SECTIONS:
            faults.append(_unknown((key,), meant))
    for key, adapter in _SECTIONS.items():
        if data.get(key) is None:
            if keys(SpecFile)[key].is_required():
                missing.append(_missing((key,)))
                broken.add(key)
            continue
        try:
            sections[key] = adapter.validate_python(data[key])
        except ValidationError as error:
            broken.add(key)
            for fault in error.errors(include_url=False):
                where = (key, *fault["loc"])
                match fault["type"]:
                    case "extra_forbidden":
                        faults.append(_unknown(where, meant))
                    case "missing":
                        missing.append(_missing(where))
                    case "too_short" if fault["input"]:
                        pass  # the list is not empty: its elements are wrong and already reported
                    case _:
                        faults.append(Fault(_written(data, where), _wrong(fault)))
    # a misspelt key is not reported as missing too
    faults += [fault for fault in missing if fault.where not in meant]
    broken |= {str(where[0]) for where in meant}
    return Checked(sections, frozenset(broken), tuple(faults))


def _unknown(where: Where, meant: set[Where]) -> Fault:
    section = _section_of(where[:-1])
    hint = nearest(str(where[-1]), keys(section) if section else ())
    if hint.startswith("did you mean "):
        meant.add((*where[:-1], hint.removeprefix("did you mean ").rstrip("?")))
    return Fault(where, f"unknown key; {hint}")


def _missing(where: Where) -> Fault:
    section = _section_of(where[:-1])
    field = keys(section).get(str(where[-1])) if section else None
    return Fault(where, f"missing; add it: {_as_hint(field.description or '')}" if field else "missing; add it")


def _as_hint(description: str) -> str:
    """Return a description as part of a message: one clause, in lower case but for names, without a full stop."""
    word = description.split(" ", 1)[0]
    begin = (
        description[:1].lower() if (word[1:] == word[1:].lower() and len(word) > 1) or word == "A" else description[:1]
    )
    return (begin + description[1:]).removesuffix(".").replace("; ", ", ")


def _wrong(fault: ErrorDetails) -> str:
    match fault["type"]:
        case "value_error":
            return str(fault["ctx"]["error"])
        case "model_type" | "model_attributes_type":
            return f"must be a mapping of keys to values, not {shown(fault['input'])}"
        case "tuple_type" | "list_type":
            return f"must be a list, not {shown(fault['input'])}"
        case "too_short":
            return "is empty; give at least one element"
        case "too_long":
            return f"has {fault['ctx']['actual_length']:,} elements; give at most {fault['ctx']['max_length']:,}"
    return f"{fault['msg']}, not {shown(fault['input'])}"


def _written(data: object, where: Where) -> Where:
    """Return the part of a place that the file contains: a short form has no keys."""
    for i, step in enumerate(where):
        try:
            data = data[step]  # type: ignore[index]  # a missing step raises
        except (LookupError, TypeError):
            return where[:i]
    return where


def _section_of(where: Where) -> type[Section] | None:
    section: type[Section] | None = SpecFile
    for step in where:
        if isinstance(step, str) and section is not None:
            field = keys(section).get(step)
            section = next(_sections_in(field.annotation), None) if field else None
    return section


def _sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_in(part)
