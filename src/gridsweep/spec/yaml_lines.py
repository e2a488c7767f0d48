"""YAML parsing into plain values with their line numbers.

A spec needs mappings, lists, text and numbers, so this parser accepts a subset of YAML: no tags, no second document,
no merge keys, and at most `MAX_VALUES` values with aliases expanded. Scalars follow YAML 1.2: `1e-4` is a number,
and `NO` is Norway rather than false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any  # YAML values, and PyYAML's events

import yaml

from gridsweep.errors import FileFault, SpecError

MAX_BYTES = 1 << 20
TOO_LARGE = "larger than 1 MiB, while a sweep takes a few kilobytes; check that this is the right file"
MAX_VALUES = 20_000
MAX_DEPTH = 32
MAX_FAULTS = 100

NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)

Where = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?\d{1,300}", re.ASCII)
# no text, or a line's end in YAML 1.1 and none in 1.2 (U+0085, U+2028, U+2029): what follows it would be read twice
_UNPRINTABLE = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NO_TAGS = "the tag {!r} is not allowed; write plain text, numbers and lists"
# libyaml, if PyYAML was built with it, yields the same events ten times as fast
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its place in the document; `line` is set where it differs from the line of the place."""

    where: Where
    what: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class _Node:
    """A value and its line; `size` counts the values within, aliases expanded.

    `content` is a scalar, a list of nodes, or a mapping of key to (the key's line, node).
    """

    line: int
    size: int
    content: Any

    @property
    def plain(self) -> Any:
        if isinstance(self.content, dict):
            return {key: node.plain for key, (_, node) in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain for node in self.content]
        return self.content


class Document:
    """One YAML document: `plain` is its value, `faults` are the faults that did not stop the parsing.

    Raise `SpecError` for text that cannot be parsed: a syntax error, too many aliases, no document at all.
    """

    def __init__(self, text: str, file: str):
        self.file = file
        self.faults: list[Fault] = []
        self._anchors: dict[str, _Node | None] = {}
        self._size = 0
        text = text.removeprefix("\ufeff")
        if len(text) > MAX_BYTES:
            raise SpecError(f"{file}: {TOO_LARGE}")
        if bad := _UNPRINTABLE.search(text):
            line = text.count("\n", 0, bad.start()) + 1
            what = f"the character {bad.group()!a} is not text; delete it, or save the file as UTF-8"
            raise self._stop(line, what)
        try:
            self._root = self._read(yaml.parse(text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error, text) from None
        except yaml.YAMLError as error:
            raise SpecError(f"{file}: not YAML: {error}; start from the file that `gridsweep init` writes") from None
        self.plain = self._root.plain

    def line(self, where: Where) -> int:
        """Return the line of a value, or of the nearest enclosing value that exists."""
        node, line = self._root, 1
        for step in where:
            if isinstance(node.content, dict) and step in node.content:
                key_line, node = node.content[step]
                line = key_line if isinstance(node.content, dict | list) else node.line
            elif isinstance(node.content, list) and isinstance(step, int) and step < len(node.content):
                node = node.content[step]
                line = node.line
            else:
                break
        return line

    def error(self, faults: list[Fault]) -> SpecError:
        """Return all faults as one error, one line each, in the order of the file."""
        placed = sorted((f.line or self.line(f.where), dotted(f.where), f.what) for f in faults)
        lines = [f"{self.file}:{line}: {name + ': ' if name else ''}{what}" for line, name, what in placed]
        if len(lines) > MAX_FAULTS:
            lines[MAX_FAULTS:] = [f"{self.file}: and {len(lines) - MAX_FAULTS} more; correct these first"]
        return SpecError("\n".join(lines), faults=[FileFault(self.file, *fault) for fault in placed[:MAX_FAULTS]])

    def _stop(self, line: int, what: str) -> SpecError:
        return SpecError(f"{self.file}:{line}: {what}", faults=[FileFault(self.file, line, "", what)])

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> SpecError:
        line = getattr(error.problem_mark or error.context_mark, "line", 0) + 1
        here = "".join(text.splitlines()[line - 1 : line])
        if "\t" in here[: len(here) - len(here.lstrip())]:
            return self._stop(line, "not YAML: the line is indented by a tab; indent with spaces")
        hint = "look for a missing quote, bracket, colon or indent just before this line"
        return self._stop(line, f"not YAML: {error.problem}; {hint}")

    def _read(self, events: Iterator[Any]) -> _Node:
        root: _Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._stop(_line(event), "a second document starts here; keep one document per file")
                root = self._node(next(events), events, ())
        if root is None or root.content is None:
            raise SpecError(f"{self.file}: the file is empty; `gridsweep init` writes a working file")
        return root

    def _node(self, event: Any, events: Iterator[Any], where: Where) -> _Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if len(where) > MAX_DEPTH:
            raise self._stop(line, f"nested deeper than {MAX_DEPTH} levels; remove levels, a sweep needs five")
        self._count(1, line)
        if event.tag is not None:
            self.faults.append(Fault(where, _NO_TAGS.format(event.tag), line))
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        before = self._size
        content: Any
        if isinstance(event, yaml.MappingStartEvent):
            content = self._mapping(events, where)
        elif isinstance(event, yaml.SequenceStartEvent):
            content = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                content.append(self._node(item, events, (*where, len(content))))
        else:
            content = _scalar(event.value) if event.implicit[0] else event.value
        node = _Node(line, self._size - before + 1, content)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _mapping(self, events: Iterator[Any], where: Where) -> dict[str, tuple[int, _Node]]:
        content: dict[str, tuple[int, _Node]] = {}
        while not isinstance(key := next(events), yaml.MappingEndEvent):
            line = _line(key)
            if not isinstance(key, yaml.ScalarEvent):
                raise self._stop(line, "a key must be a plain word; write `key: value`")
            if key.tag is not None:
                self.faults.append(Fault((*where, key.value), _NO_TAGS.format(key.tag), line))
            node = self._node(next(events), events, (*where, key.value))
            if key.value in content:
                what = f"given twice, first in line {content[key.value][0]}; delete one of them"
                self.faults.append(Fault((*where, key.value), what, line))
            else:
                content[key.value] = (line, node)
        return content

    def _alias(self, anchor: str, line: int) -> _Node:
        if anchor not in self._anchors:
            raise self._stop(line, f"the alias *{anchor} has no anchor above it; write the value out")
        node = self._anchors[anchor]
        if node is None:
            raise self._stop(line, f"the alias *{anchor} is inside its own anchor; write the value out")
        self._count(node.size, line)
        return node

    def _count(self, size: int, line: int) -> None:
        self._size += size
        if self._size > MAX_VALUES:
            what = f"more than {MAX_VALUES:,} values, aliases expanded; check that this is the right file"
            raise self._stop(line, what)


def dotted(where: Where) -> str:
    """Return a place in dotted form: `tiers[1].max_delay`."""
    text = ""
    for step in where:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            word = step if re.fullmatch(r"[\w-]{1,60}", step) else _quoted(step)
            text += f".{word}" if text else word
    return text


def _line(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _scalar(text: str) -> Any:
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text
