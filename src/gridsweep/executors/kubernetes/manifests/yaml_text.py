"""Manifests as YAML that kubectl parses unambiguously."""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from gridsweep.executors.kubernetes.manifests.names import Manifest

# YAML 1.2 and Go read as numbers and booleans some values that PyYAML leaves unquoted: `1e-4` would reach the API
# server as a number, but an annotation must be text. So every value that does not begin like a word is quoted.
_WORD = re.compile(r"[A-Za-z_/][\w./:@ -]*[\w./]")
_TRUTHS = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|nan|inf|none")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = _WORD.fullmatch(value) and not _TRUTHS.fullmatch(value) and ": " not in value
    style = "|" if "\n" in value else None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def document(value: Manifest) -> str:
    """Return one object as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def documents(values: Iterable[Manifest]) -> str:
    """Return several objects as one YAML stream."""
    return "---\n".join(map(document, values))
