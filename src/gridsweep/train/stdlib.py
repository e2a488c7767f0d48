"""Pairs of prompt and response from the running Python's standard library: nothing to download.

A function with a docstring becomes a pair: its signature and docstring are the prompt, its source is the response.
The modules are split into two halves by a hash of their names: the source text of half `a` pre-trains the tiny base,
the pairs of half `b` fine-tune it, and some modules of half `b` are held out for validation. No module is in two of
the three sets. The text is PSF-licensed and changes with the Python version, so the version and a digest of the pairs
go into the facts.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gridsweep.train.cache import made_once

# Tests, bundled tools, and installed packages, which differ between machines.
EXCLUDED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data"}
EXCLUDED |= {"site-packages", "dist-packages", "lib-dynload", "__pycache__", "_pyrepl"}
SHORTEST_DOCSTRING = 20  # characters
VERSION = 1  # of the mining; increase it when mining yields different pairs


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the standard library, as prompt and response."""

    module: str
    prompt: str
    response: str

    @property
    def length(self) -> int:
        """The number of characters of prompt and response together."""
        return len(self.prompt) + len(self.response)


def half(module: str) -> Literal["a", "b"]:
    """Return a module's half: `a` for pre-training the base, `b` for fine-tuning it."""
    return "b" if hashlib.sha256(module.encode()).digest()[0] & 1 else "a"


def held_out(module: str) -> bool:
    """Return whether a module of half `b` is held out for validation; about one in five is."""
    return hashlib.sha256(module.encode()).digest()[1] < 51


def sources() -> Iterator[tuple[str, Path]]:
    """Yield (module, file) of every module that is used, sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                path = Path(folder, name)
                parts = path.relative_to(root).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    yield from sorted(found.items())


def functions() -> list[Function]:
    """Return all pairs of both halves, about 5,700. Mining takes a few seconds; the result is cached."""
    listing = "".join(f"{module} {path.stat().st_size}\n" for module, path in sources())
    state = hashlib.sha256(f"{VERSION} {sys.version}\n{listing}".encode()).hexdigest()[:12]
    major, minor = sys.version_info[:2]

    def make(draft: Path) -> None:
        rows = [(f.module, f.prompt, f.response) for f in mine()]
        draft.write_text(json.dumps(rows), encoding="utf-8")

    cached = made_once(f"stdlib-{major}.{minor}-{state}.json", make)
    return [Function(*row) for row in json.loads(cached.read_text(encoding="utf-8"))]


def mine() -> Iterator[Function]:
    """Read every module and yield its functions; of duplicates (copied between modules) only the first."""
    seen = set()
    for module, path in sources():
        for function in functions_of(module, _text(path)):
            if function.response not in seen:
                seen.add(function.response)
                yield function


def functions_of(module: str, text: str) -> Iterator[Function]:
    """Yield the functions of one module that have a long enough docstring and a body besides it."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or len(docstring) < SHORTEST_DOCSTRING or len(node.body) < 2:
            continue
        first, second = node.body[0], node.body[1]
        if not (node.lineno < first.lineno and (first.end_lineno or 0) < second.lineno):
            continue  # written on one line
        # Lines are sliced here because ast.get_source_segment splits the whole file again for every function.
        header = textwrap.dedent("\n".join(lines[node.lineno - 1 : first.lineno - 1]))
        kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
        prompt = f"Write this Python function.\n\n{header}\n\n{docstring}"
        yield Function(module, prompt, textwrap.dedent("\n".join(kept)))


def raw_texts(which: Literal["a", "b"]) -> list[str]:
    """Return the source of every module of one half."""
    return [_text(path) for module, path in sources() if half(module) == which]


def digest(pairs: list[Function]) -> str:
    """Return the sha256 over the pairs, which tells the data of different Python versions apart."""
    sha = hashlib.sha256()
    for pair in pairs:
        sha.update(json.dumps([pair.module, pair.prompt, pair.response]).encode())
    return sha.hexdigest()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
