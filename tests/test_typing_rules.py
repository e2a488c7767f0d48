"""The rules for types: all of the package is checked strictly, and each `Any` and each ignored error has its reason.

A reason is a comment on the same line or alone on the line above. One at `from typing import Any` holds for the module.
"""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gridsweep

ROOT = Path(gridsweep.__file__).parent
PROJECT = Path(__file__).parents[1]
IGNORED = re.compile(r"#\s*type:\s*ignore(?:\[[\w, -]+\])?")
TOOLS = re.compile(r"#\s*(?:noqa\b[:\w ,]*|fmt: \w+)")
"""Comments for tools give no reason."""


def comments(text: str) -> dict[int, str]:
    """The comment of each line that has one, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def is_reason(comment: str) -> bool:
    """Whether a comment says something, apart from its instructions to tools."""
    return bool(re.search(r"\w", TOOLS.sub("", IGNORED.sub("", comment))))


def reasoned(text: str) -> set[int]:
    """The numbers of the lines with a reason beside them: on the line itself, or alone on the line above."""
    lines = text.splitlines()
    found = {number for number, comment in comments(text).items() if is_reason(comment)}
    return found | {number + 1 for number in found if lines[number - 1].lstrip().startswith("#")}


def without_reason(text: str) -> Iterator[str]:
    """Every `Any` and every `type: ignore` of a source text that has no reason beside it, as `LINE: what`."""
    tree, well = ast.parse(text), reasoned(text)
    for number, comment in comments(text).items():
        if IGNORED.search(comment) and number not in well:
            yield f"{number}: {comment}"
    imports = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(name.name == "Any" for name in node.names)
    ]
    if imports and all(well.intersection(range(node.lineno, (node.end_lineno or 0) + 1)) for node in imports):
        return
    for node in ast.walk(tree):
        named = (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        )
        if named and node.lineno not in well:
            yield f"{node.lineno}: Any"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_any_and_each_ignored_error_has_its_reason(path: Path) -> None:
    assert list(without_reason(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "from typing import Any  # plotly has no types\n\n\ndef f(x: Any) -> Any: ...\n",
        "# plotly has no types\nfrom typing import Any\nx: Any\n",
        "from typing import (\n    Any,  # plotly has no types\n    Protocol,\n)\nx: Any\n",
        "from typing import Any\n\nx: Any  # whatever YAML holds\n",
        "from typing import Any\n\n# whatever YAML holds\nx: Any\n",
        "x = f()  # type: ignore[no-untyped-call]  # plotly has no types\n",
        "# plotly has no types\nx = f()  # type: ignore[no-untyped-call]\n",
        "'''Any text.'''  # noqa: RUF100\n",
    ],
)
def test_what_has_a_reason_passes(text: str) -> None:
    assert list(without_reason(text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from typing import Any\nx: Any\n", ["2: Any"]),
        ("from typing import Any  # noqa: F401\nx: list[Any]\n", ["2: Any"]),
        ("import typing\nx: typing.Any\n", ["2: Any"]),
        ("y = 1  # of another line\nx = f()  # type: ignore[misc]\n", ["2: # type: ignore[misc]"]),
        ("x = f()  # type: ignore\n", ["1: # type: ignore"]),
    ],
)
def test_what_has_none_is_found(text: str, found: list[str]) -> None:
    assert list(without_reason(text)) == found


def test_mypy_checks_all_of_the_package_strictly() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert settings["strict"] is True and settings["files"] == ["src/gridsweep"]
    assert "ignore-without-code" in settings["enable_error_code"]
    assert not settings.keys() & {"exclude", "ignore_errors", "disable_error_code", "follow_imports"}
    for override in settings["overrides"]:
        assert override.keys() <= {"module", "ignore_missing_imports", "follow_imports"}
        assert not any(module.startswith("gridsweep") for module in override["module"])
