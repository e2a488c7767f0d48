"""What went wrong as a JSON document: what, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from gridsweep.errors import INTERRUPTED, FileFault, GridsweepError, SpecError, remedied


@dataclass(frozen=True, slots=True)
class Fault:
    """An error. `code` is a stable word of its kind; the program ends with `exit_code`."""

    code: str
    exit_code: int
    what: str
    where: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class FaultInFile:
    """One fault of a spec or of a trace."""

    file: str
    line: int | None
    key: str | None
    what: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, and each fault of the file where it is about one."""

    error: Fault
    errors: tuple[FaultInFile, ...] = ()
    schema_version: int = 1


def failure(code: str, exit_code: int, what: str, where: str | None = None, remedy: str | None = None) -> Failure:
    """Of an error that is none of ours."""
    return Failure(Fault(code, exit_code, what, where, remedy))


def left_at_once(again: str) -> Failure:
    """Of a run that a second Ctrl-C ended; its command goes on with it."""
    return failure("interrupted", INTERRUPTED, "left at once; the workers go on by themselves", remedy=again)


def failure_of(error: GridsweepError) -> Failure:
    """Of an error of ours; of several faults in a file the error counts them."""
    faults = error.faults if isinstance(error, SpecError) else ()
    what, where, remedy = error.what, error.where, error.remedy
    if len(faults) > 1:
        where = faults[0].file
        what, remedy = f"{len(faults)} faults in {where}", "mend what `errors` lists"
    return Failure(Fault(error.code, error.exit_code, what, where, remedy), tuple(map(_in_file, faults)))


def _in_file(fault: FileFault) -> FaultInFile:
    what, remedy = remedied(fault.what)
    return FaultInFile(fault.file, fault.line, fault.key or None, what, remedy)
