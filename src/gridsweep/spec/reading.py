"""Reading and checking of `sweep.yaml`; its JSON schema and its template."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any  # a JSON schema, and pydantic's own

from pydantic.json_schema import GenerateJsonSchema

from gridsweep.errors import FileFault, SpecError
from gridsweep.spec.consistency import inconsistencies
from gridsweep.spec.expansion import sweep_of
from gridsweep.spec.faults import check
from gridsweep.spec.file import SpecFile
from gridsweep.spec.yaml_lines import MAX_BYTES, TOO_LARGE, Document, Fault
from gridsweep.sweep.sweep import Sweep

SCHEMA_ID = "urn:gridsweep:sweep.yaml:1"


def load(path: str | PurePath) -> Sweep:
    """Return the sweep that a file describes; paths in it are relative to the file. Raise `SpecError` on any fault."""
    try:
        if Path(path).is_dir():
            raise SpecError(f"{path}: is a folder; name the file in it, such as {PurePath(path) / 'sweep.yaml'}")
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: there is no such file; `gridsweep init` writes one") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise SpecError(f"{path}: cannot be read: {cause}; check the path and its permissions") from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"{path}: {TOO_LARGE}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        what = f"the byte 0x{byte:02x} is not valid UTF-8; save the file as UTF-8"
        raise SpecError(f"{path}:{line}: {what}", faults=[FileFault(str(path), line, "", what)]) from None
    return loads(text, path)


def loads(text: str, path: str | PurePath = "sweep.yaml") -> Sweep:
    """Return the sweep that a text describes, as if it were the file `path`. Raise `SpecError` on any fault."""
    document = Document(text, str(path))
    if not isinstance(document.plain, dict):
        what = "no `key: value` lines; `gridsweep init` writes a working file"
        raise document.error([*document.faults, Fault((), what)])
    folder = Path(os.path.normpath(Path(path).absolute())).parent
    checked = check(document.plain)
    file = SpecFile.model_construct(**checked.sections)
    faults = [*document.faults, *checked.faults]
    faults += inconsistencies(document.plain, file, checked.broken, folder)
    if faults:
        raise document.error(faults)
    return sweep_of(file, _name(path), folder)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of `sweep.yaml` (draft 2020-12), for editors; it accepts every short form.

    Faults that involve several keys, such as a rule with an unknown tier, are found by `load` only.
    """
    schema = SpecFile.model_json_schema(schema_generator=_Untitled)
    return {
        "$schema": _Untitled.schema_dialect,
        "$id": SCHEMA_ID,
        **schema,
        "title": "A gridsweep sweep.yaml",
    }


def template() -> str:
    """Return a commented `sweep.yaml` that works without a network, for `gridsweep init`."""
    return files("gridsweep.spec").joinpath("template.yaml").read_text(encoding="utf-8")


def _name(path: str | PurePath) -> str:
    """Return the file's name without its ending, as a valid name of a sweep."""
    return re.sub(r"[^a-z0-9]+", "-", PurePath(path).stem.lower())[:63].strip("-") or "sweep"


class _Untitled(GenerateJsonSchema):
    """Generator without a title for each key: editors would show the title instead of the description."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
