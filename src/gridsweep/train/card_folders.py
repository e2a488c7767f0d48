"""Local folders whose README.md (a dataset card) says which files belong to which split: what is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any  # what datasets resolves

from gridsweep.errors import GridsweepError, SpecError
from gridsweep.records.bounded import MEBIBYTE, UnfitError, whole
from gridsweep.train.rows import file_rows

CARD = "README.md"
LONGEST = 16 * MEBIBYTE


def card_head(folder: Path) -> str | None:
    """Return the head of a folder's card if it names configurations; `datasets` reads those folders."""
    try:
        card = whole(folder / CARD, LONGEST, follow=True).decode(errors="replace")
    except (OSError, UnfitError):
        return None
    head = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return head[1] if head and re.search(r"^configs:", head[1], re.MULTILINE) else None


def explained(folder: Path, config: str | None, split: str, error: SpecError) -> SpecError:
    """Return an error of reading such a folder with what is at fault: the card, or a file with its line."""
    import yaml

    try:
        yaml.safe_load(card_head(folder) or "")
    except yaml.YAMLError as broken:
        mark = getattr(broken, "problem_mark", None)
        line = f":{mark.line + 2}" if mark is not None else ""  # the head begins on the second line
        problem = getattr(broken, "problem", None) or "it is not YAML"
        return SpecError(f"{folder / CARD}{line}: its head cannot be read ({problem}); mend it, or name the data files")
    try:
        for file in _files(folder, config, split):
            for _ in file_rows(Path(file)):
                pass
    except SpecError as found:
        return found
    except Exception:  # datasets cannot say which files they are: then the card is at fault
        cause = str(error.__cause__ or error.what).strip().partition("\n")[0]
        return SpecError(
            f"{folder / CARD}: the files that it names cannot be read ({cause}); mend it, or name the data files"
        )
    return SpecError(error.what, remedy=f"mend the files, or {folder / CARD}, which says which of them are read")


def _files(folder: Path, config: str | None, split: str) -> list[Any]:
    """Return the files of a split as the card has it."""
    from datasets import load_dataset_builder

    named = re.match(r"[\w.-]+", split.strip())
    found = load_dataset_builder(str(folder), config).config.data_files
    if not found:
        raise GridsweepError("no files are named")
    return list(found[named[0] if named else "train"])
