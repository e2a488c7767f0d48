"""The group of all commands, and their shared options and helpers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gridsweep import __version__
from gridsweep.errors import EXIT_CODES, GridsweepError, SpecError

if TYPE_CHECKING:
    from gridsweep.runs.folder import RunFolder
    from gridsweep.sweep.sweep import Sweep

T = TypeVar("T")
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text (docs/json.md).")
folder_argument = click.argument("folder", type=click.Path(path_type=Path), required=False)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gridsweep")
def cli() -> None:
    """Run LoRA hyperparameter sweeps when the power grid is cleanest."""


def worker() -> list[str]:
    """Return the command that starts a worker; GRIDSWEEP_WORKER names another module (gridsweep.testing.stand_in)."""
    return [sys.executable, "-P", "-m", os.environ.get("GRIDSWEEP_WORKER", "gridsweep.train")]


def notice(*, quiet: bool) -> Callable[[str], None]:
    """Return a listener that prints a line to stderr, or nothing."""

    def told(text: str) -> None:
        with suppress(OSError):  # what is about to run does not depend on a reader
            click.echo(text, err=True)

    return (lambda text: None) if quiet else told


def load(path: Path) -> Sweep:
    from gridsweep import spec  # not by way of `api`, which imports all verbs

    return spec.load(path)


def folder_of(folder: Path | None) -> RunFolder:
    """Return the named run folder, or the newest one below runs/; raise `GridsweepError` if there is none."""
    from gridsweep.runs.folder import RunFolder

    if folder is not None:
        return RunFolder(folder)
    named = (path for name in ("db", "head") for path in Path("runs").glob(f"*/state/journal.{name}"))
    journals = sorted(named, key=lambda path: path.lstat().st_mtime, reverse=True)
    found = next((place for path in journals if not (place := RunFolder(path.parent.parent)).empty()), None)
    if found is None:
        raise GridsweepError("no run found in ./runs; start one with `gridsweep run SPEC`, or name a run folder")
    return found


def one_of(standings: Mapping[str, T], beginning: str) -> T:
    import difflib

    from gridsweep.sweep.identity import ambiguous

    if beginning in standings:
        return standings[beginning]
    matches = [id for id in standings if id.startswith(beginning)]
    if len(matches) == 1:
        return standings[matches[0]]
    slugs = {id.rpartition("-")[0]: id for id in standings}
    near = [slugs[slug] for slug in difflib.get_close_matches(beginning, slugs, n=3, cutoff=0.4)]
    if matches:
        raise GridsweepError(ambiguous(beginning, matches, list(standings)))
    there = [*list(standings)[:5], *([f"and {len(standings) - 5} more"] if len(standings) > 5 else [])]
    hint = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(there)}"
    raise GridsweepError(f"no experiment id starts with {beginning!r}; {hint}")


@contextmanager
def ending_with(code: int) -> Iterator[None]:
    """Exit with the code of a run that is not done, rather than with that of an output that nobody can read."""
    try:
        yield
    except (OSError, SystemExit):  # rich exits where a pipe is broken
        if not code:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the exit would try to flush it again
        sys.exit(code)


@contextmanager
def placing(spec: Path) -> Iterator[None]:
    """Raise a `SpecError` of the block at the line of the key that it names, if it names no place of its own."""
    from gridsweep.spec.places import placed

    try:
        yield
    except SpecError as error:
        raise placed(error, spec) from None


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Raise a `SpecError` of the block as one of this option, if it names no place of its own."""
    try:
        yield
    except SpecError as error:
        if error.where is not None or error.faults:
            raise
        raise SpecError(error.what, where=option, remedy=error.remedy) from None


def print_json(value: object, *, lines: bool = False) -> None:
    """Print a value as a JSON document (`render.documents`); `lines` puts it on one line, for streams of documents."""
    from gridsweep.render import documents

    click.echo(documents.line(value) if lines else documents.text(value))
