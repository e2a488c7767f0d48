"""Errors as JSON documents: what happened, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from gridsweep.errors import INTERRUPTED, FileFault, GridsweepError, SpecError, remedied


@dataclass(frozen=True, slots=True)
class Fault:
    """An error. `code` is a stable word for its kind; the program exits with `exit_code`."""

    code: str
    exit_code: int
    what: str
    where: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class FaultInFile:
    """One error in a spec or in a trace."""

    file: str
    line: int | None
    key: str | None
    what: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, with every single error of a file if a file is wrong."""

    error: Fault
    errors: tuple[FaultInFile, ...] = ()
    schema_version: int = 1


def failure(code: str, exit_code: int, what: str, where: str | None = None, remedy: str | None = None) -> Failure:
    """Return the document of an error that is not a `GridsweepError`."""
    return Failure(Fault(code, exit_code, what, where, remedy))


def left_at_once(again: str) -> Failure:
    """Return the document of a run that a second Ctrl-C ended; `again` is the command that resumes it."""
    return failure("interrupted", INTERRUPTED, "exited at once; the workers keep running", remedy=again)


def failure_of(error: GridsweepError) -> Failure:
    """Return the document of a `GridsweepError`; several errors in a file are listed and counted."""
    faults = error.faults if isinstance(error, SpecError) else ()
    what, where, remedy = error.what, error.where, error.remedy
    if len(faults) > 1:
        where = faults[0].file
        what, remedy = f"{len(faults)} errors in {where}", "fix the errors listed in `errors`"
    return Failure(Fault(error.code, error.exit_code, what, where, remedy), tuple(map(_in_file, faults)))


def _in_file(fault: FileFault) -> FaultInFile:
    what, remedy = remedied(fault.what)
    return FaultInFile(fault.file, fault.line, fault.key or None, what, remedy)
