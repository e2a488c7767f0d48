"""Errors found after a spec was read, such as those of its data and model, at their line in the file."""

from __future__ import annotations

import re
from pathlib import Path

from gridsweep.errors import FileFault, SpecError
from gridsweep.spec.axes import Section
from gridsweep.spec.file import SpecFile
from gridsweep.spec.study import DatasetSection, ModelSection, RecipeSection
from gridsweep.spec.yaml_lines import Document, Where, dotted

KEYS: dict[str, type[Section]] = {"model": ModelSection, "dataset": DatasetSection, "recipe": RecipeSection}
KEY = re.compile("|".join(rf"\b({name})\.({'|'.join(section.model_fields)})\b(?!\.)" for name, section in KEYS.items()))
ABOUT_DATA, ABOUT_MODEL = "the dataset ", ("the model ", "the weights of ", "the tokenizer of ")
TEMPLATE_LINE = re.compile(r"\(line (\d+) of the template\)")
ABOUT_TEMPLATE = "the chat template cannot write"


def placed(error: SpecError, path: Path) -> SpecError:
    """Return an error at the line of the key that it names, in the spec `path`; or at a line of the chat template.

    An error that has a place already, or names no key of the file, is returned unchanged.
    """
    text = str(error)
    place = _place(error.where)
    if error.faults or "\n" in text or (error.where is not None and not place):
        return error
    try:
        document = Document(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, ValueError, SpecError):
        return error
    if text.startswith(ABOUT_TEMPLATE) and (file := _template(document, path)) is not None:
        line = TEMPLATE_LINE.search(text)
        found = FileFault(str(file), int(line[1]) if line else None, "", text)
    else:
        key = place or _key(KEY.search(text), text)
        if not key:
            return error
        what = text.removeprefix(f"{dotted(key)}: ")
        here = isinstance(document.plain, dict) and key[0] in document.plain
        found = FileFault(str(path), document.line(key) if here else None, dotted(key), what)
    return SpecError(f"{found.where}: {found.what}", faults=[found])


def _place(where: str | None) -> Where:
    """Return the keys of a place such as `tiers.1.threshold`; () for one that no spec has."""
    parts = re.findall(r"[^.\[\]]+", where or "") or [""]
    return tuple(int(part) if part.isdigit() else part for part in parts) if parts[0] in SpecFile.model_fields else ()


def _key(named: re.Match[str] | None, text: str) -> Where:
    """Return the key that an error names, or whose value it is about."""
    if named is not None:
        return tuple(part for part in named.groups() if part is not None)
    if text.startswith(ABOUT_DATA):
        return ("dataset", "id")
    return ("model", "id") if text.startswith(ABOUT_MODEL) else ()


def _template(document: Document, path: Path) -> Path | None:
    """Return the file that the spec names as chat template; None if it names none."""
    model = document.plain.get("model") if isinstance(document.plain, dict) else None
    file = model.get("chat_template") if isinstance(model, dict) else None
    return path.parent / file if isinstance(file, str) else None
