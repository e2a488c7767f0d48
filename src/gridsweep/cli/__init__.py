"""The command line. Each command calls a function of the same name and imports heavy packages only when it runs."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from itertools import takewhile
from typing import Any, NoReturn  # Any: what the library hands on

import click

from gridsweep.cli import asking, collecting, grid, mending, recommending, studies, sweeps, winners
from gridsweep.cli.group import cli, print_json
from gridsweep.errors import (
    FAULT,
    INTERRUPTED,
    USAGE,
    GridsweepError,
    IncompleteWarning,
    StorageError,
    printable,
    remedied,
)
from gridsweep.records.disk import AGAIN, DISK

__all__ = ["asking", "cli", "collecting", "grid", "main", "mending", "recommending", "studies", "sweeps", "winners"]


def main() -> None:
    """Run the command line; print a `GridsweepError` as a message (a document with --json) and exit with its code."""
    as_json = "--json" in takewhile("--".__ne__, sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a bar or a dash that the terminal's encoding lacks is no error
    tell = _document if as_json else _message
    warnings.simplefilter("once", IncompleteWarning)
    warnings.showwarning = _warned(warnings.showwarning)
    try:
        cli.main(standalone_mode=False)
    except (GridsweepError, click.ClickException, click.Abort, KeyboardInterrupt) as error:
        sys.exit(tell(error))
    except BrokenPipeError:
        _reader_gone()
    except SystemExit as exit:
        if exit.code == FAULT:  # click and rich end so when they meet a broken pipe, and no verb does
            _reader_gone()
        raise
    except OSError as error:
        if error.filename is not None and error.errno in DISK:
            sys.exit(tell(StorageError(f"{error.filename}: {error.strerror}", remedy=AGAIN)))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would try to flush it again
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
        sys.exit(FAULT)
    except Exception as error:
        if as_json:
            _document(error)
        raise


def _warned(others: Callable[..., None]) -> Callable[..., None]:
    """Return what shows warnings: those of gridsweep as one line on stderr, with --json too; others as before."""

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if not issubclass(category, IncompleteWarning):
            others(message, category, *where)
            return
        with suppress(OSError):
            click.echo(f"warning: {printable(str(message))}", err=True)

    return show


def _reader_gone() -> NoReturn:
    """End well: the reader of the pipe has what it wanted, and no message can be delivered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    sys.exit(0)


def _message(error: BaseException) -> int:
    """Print an error as text; return the exit code."""
    if isinstance(error, GridsweepError):
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return USAGE
    return INTERRUPTED


def _document(error: BaseException) -> int:
    """Print an error as a JSON document; return the exit code."""
    from gridsweep.render.failures import failure, failure_of

    if isinstance(error, GridsweepError):
        made = failure_of(error)
    elif isinstance(error, click.ClickException):
        where, help_ = _usage(error)
        what, remedy = remedied(error.format_message())
        made = failure("usage", USAGE, what, where, remedy or help_)
    elif isinstance(error, Exception) and not isinstance(error, click.Abort):
        made = failure("internal", 1, f"{type(error).__name__}: {error}", remedy="report it with the output on stderr")
    else:
        made = failure("interrupted", INTERRUPTED, "interrupted by Ctrl-C")
    print_json(made, lines=True)
    return made.error.exit_code


def _usage(error: click.ClickException) -> tuple[str | None, str | None]:
    """Return the faulty argument or option, and the command that shows its help."""
    ctx = getattr(error, "ctx", None)
    param = getattr(error, "param", None)
    where = param.get_error_hint(ctx).strip("'\"") if param is not None else getattr(error, "option_name", None)
    return where, f"see `{ctx.command_path} --help`" if ctx is not None else None
