"""What can go wrong, each with the exit code the command line ends with.

A message says what happened, to which thing, and what to do.
"""

from __future__ import annotations

DONE = 0
USAGE = 2
SOME_FAILED = 3
SIGNALLED = 4
EXECUTOR = 5
LEASE_HELD = 6
STATE_DAMAGED = 7
SIGNAL = 8
DEADLINE = 124
INTERRUPTED = 130

EXIT_CODES: dict[int, str] = {
    DONE: "done",
    USAGE: "usage, or an error in the spec, a trace or a folder",
    SOME_FAILED: "some experiments failed, the rest are done",
    SIGNALLED: "stopped by a signal, or by `gridsweep stop`; state saved",
    EXECUTOR: "the executor could not run the work",
    LEASE_HELD: "another run holds the folder",
    STATE_DAMAGED: "the journal is damaged",
    SIGNAL: "a carbon provider does not answer, or not in a way that can be trusted",
    DEADLINE: "a deadline that cannot be met, or was not",
    INTERRUPTED: "interrupted by Ctrl-C; state saved",
}


class GridsweepError(Exception):
    """The root of every error a user can see; `exit_code` is what the command line returns."""

    exit_code = USAGE


class SpecError(GridsweepError):
    """The spec, or an input it names, is wrong."""


class TraceError(SpecError):
    """A trace file cannot be read as carbon intensity over time."""


class SignalError(GridsweepError):
    """A carbon provider gave no usable answer. `status` is its HTTP status, where it had one."""

    exit_code = SIGNAL

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class CredentialError(SignalError):
    """A secret is missing, or the provider refuses it or what it asks for: asking again does not help."""


class AnswerError(SignalError):
    """The provider answered something that is not what it promises: shape, unit, zone, size."""


class UnreachableError(SignalError):
    """No answer came: no route, no name, no TLS, no time, or a server that is down."""


class LimitError(SignalError):
    """The provider, or our own budget for it, allows no further request for now."""


class PolicyError(GridsweepError):
    """A policy decided something impossible: a device in use, work that is not there."""

    exit_code = EXECUTOR


class ExecutorError(GridsweepError):
    """Work cannot be started or observed."""

    exit_code = EXECUTOR


class LeaseError(GridsweepError):
    """Another run drives this folder."""

    exit_code = LEASE_HELD


class JournalError(GridsweepError):
    """The journal cannot be read, or was written by a newer version."""

    exit_code = STATE_DAMAGED


class DeadlineError(GridsweepError):
    """A deadline cannot be met."""

    exit_code = DEADLINE
