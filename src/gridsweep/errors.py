"""The errors of gridsweep, each with its exit code.

A message says what happened, to which thing, and what to do: `[WHERE: ]WHAT[; REMEDY]`. An error takes the three parts
separately or as one text, which is split by that form; it has all three attributes either way.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

DONE = 0
FAULT = 1
USAGE = 2
SOME_FAILED = 3
SIGNALLED = 4
EXECUTOR = 5
LEASE_HELD = 6
STATE_DAMAGED = 7
SIGNAL = 8
UNFINISHED = 9
DEADLINE = 124
INTERRUPTED = 130

EXIT_CODES: dict[int, str] = {
    DONE: "done",
    FAULT: "a fault of gridsweep itself, or its output could not be written",
    USAGE: "usage, or an error in the spec, a trace or a folder",
    SOME_FAILED: "some experiments failed, the rest are done",
    SIGNALLED: "stopped by a signal, or by `gridsweep stop`; state saved",
    EXECUTOR: "the executor could not run the work, or the disk is full or fails; state saved",
    LEASE_HELD: "another run holds the folder",
    STATE_DAMAGED: "the journal is damaged",
    SIGNAL: "a carbon provider gave no answer, or no trustworthy one",
    UNFINISHED: "experiments are left that have neither ended nor failed",
    DEADLINE: "a deadline cannot be met, or was missed (`finish_by`, or a tier's `max_delay`)",
    INTERRUPTED: "interrupted by Ctrl-C; state saved",
}


_WHERE = re.compile(r"([^\s:]+(?::\d+)?): (?=\S)")
"""A file (with its line) or a key at the start of a message: one word, an optional number, then `: `."""

_QUOTED = re.compile(r"""`[^`]*`|"[^"]*"|(?<!\w)'[^']*'(?!\w)""")
"""Code or a value within a message; an apostrophe within a word opens nothing."""


_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
"""CSI (colours, the cursor) and OSC (titles, the clipboard)."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 without tab and line feed, marks that turn the direction of text, and halves of characters."""


def word(path: object) -> str:
    """Return a path as one word of a shell, for commands in messages."""
    return shlex.quote(str(path))


def printable(text: str) -> str:
    """Return a text of somebody else without control characters: a terminal would obey them (ESC, OSC 52).

    Sequences for a terminal, such as colours, are removed; other control characters are replaced.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _SEQUENCE.sub("", text))


@dataclass(frozen=True, slots=True)
class FileFault:
    """One error in a file; `line` and `key` if known. `what` may name the remedy after a semicolon."""

    file: str
    line: int | None
    key: str
    what: str

    @property
    def where(self) -> str:
        """Return the place of the error as far as it is known: `sweep.yaml:3: tiers[0].max_delay`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}" if self.key else place


class GridsweepError(Exception):
    """The base of every error that a user can see. `exit_code` is the exit code of the program, `code` a stable word.

    `message` is the whole text, or only what happened if `where` or `remedy` is given separately.
    """

    exit_code = USAGE
    code = "error"

    def __init__(self, message: str = "", *, where: str | None = None, remedy: str | None = None):
        message = printable(message)  # it may quote a worker, a provider or a dataset
        given = where is not None or remedy is not None
        self.where, self.what, self.remedy = (where, message, remedy) if given else parts(message)
        text = f"{where}: {message}" if where else message
        joint = "\n" if "\n" in message else "; "  # after a list of lines the remedy has its own
        super().__init__(f"{text}{joint}{remedy}" if remedy else text)


def parts(message: str) -> tuple[str | None, str, str | None]:
    """Return the three parts of a message: where, what and the remedy."""
    found = _WHERE.match(message)
    what, remedy = remedied(message[found.end() :] if found else message)
    return found and found[1], what, remedy


def remedied(text: str) -> tuple[str, str | None]:
    """Return what happened, and the remedy, which follows the last semicolon outside quotes and backticks."""
    at = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text).rfind("; ")
    return (text, None) if at < 0 else (text[:at], text[at + 2 :] or None)


class SpecError(GridsweepError):
    """The spec, or an input it names, is wrong. `faults` lists the errors of the file in file order."""

    code = "spec"

    def __init__(
        self,
        message: str = "",
        *,
        where: str | None = None,
        remedy: str | None = None,
        faults: Sequence[FileFault] = (),
    ):
        super().__init__(message, where=where, remedy=remedy)
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            self.where, (self.what, self.remedy) = self.faults[0].where, remedied(self.faults[0].what)


class TraceError(SpecError):
    """A trace file does not hold carbon intensity over time."""

    code = "trace"


class AdapterError(GridsweepError):
    """An adapter is missing, damaged, or cannot be served."""

    code = "adapter"


class AccessError(GridsweepError):
    """A server would be open to other machines without a key, or its key is not valid."""

    code = "access"


class ServingError(GridsweepError):
    """A server does not start, or gives wrong answers."""

    exit_code = EXECUTOR
    code = "serving"


class SignalError(GridsweepError):
    """A carbon provider gave no usable answer. `status` is the HTTP status, if there was one."""

    exit_code = SIGNAL
    code = "signal"

    def __init__(self, message: str = "", status: int | None = None, *, remedy: str | None = None):
        super().__init__(message, remedy=remedy)
        self.status = status


class CredentialError(SignalError):
    """A secret is missing, or the provider refuses the secret or the request; a retry does not help."""

    code = "credential"


class AnswerError(SignalError):
    """The provider's answer breaks its contract: shape, unit, zone, size."""

    code = "answer"


class UnreachableError(SignalError):
    """The provider did not answer: no route, no name, no TLS, a timeout, or a server that is down."""

    code = "unreachable"


class LimitError(SignalError):
    """The provider, or gridsweep's own request budget for it, allows no further request for now."""

    code = "limit"


class PolicyError(GridsweepError):
    """A policy made an impossible decision: a device in use, work that does not exist."""

    exit_code = EXECUTOR
    code = "policy"


class CheckpointError(GridsweepError):
    """A checkpoint is missing, damaged, or of another step; another attempt may continue from an earlier one."""

    exit_code = EXECUTOR
    code = "checkpoint"


class ExecutorError(GridsweepError):
    """Work cannot be started or observed."""

    exit_code = EXECUTOR
    code = "executor"


class StorageError(ExecutorError):
    """A disk is full, fails, or forbids what is to be written or read: nothing is damaged, and a later run goes on."""

    code = "storage"


class HubError(ExecutorError):
    """The model hub cannot be reached; a later attempt may reach it."""

    code = "hub"


class ApiError(ExecutorError):
    """A cluster's API server refused a request permanently."""

    code = "api"


class LeaseError(GridsweepError):
    """Another run drives this folder."""

    exit_code = LEASE_HELD
    code = "lease"


class JournalError(GridsweepError):
    """The journal cannot be read, or was written by a newer version."""

    exit_code = STATE_DAMAGED
    code = "journal"


class IncompleteWarning(UserWarning):
    """Nothing tells whether all of a journal is there."""


class MovedError(JournalError):
    """A run's folder was moved, deleted or replaced while the run drove it."""

    code = "moved"


class DeadlineError(GridsweepError):
    """A deadline cannot be met."""

    exit_code = DEADLINE
    code = "deadline"
