"""The command line. A verb and the function it calls share a name; heavy imports wait until a verb needs them."""

from __future__ import annotations

import os
import sys

import click

from gridsweep.cli import grid, studies, sweeps, winners
from gridsweep.cli.group import cli
from gridsweep.errors import INTERRUPTED, USAGE, GridsweepError

__all__ = ["cli", "grid", "main", "studies", "sweeps", "winners"]


def main() -> None:
    """Run the command line; every `GridsweepError` becomes its message and its exit code."""
    try:
        cli.main(standalone_mode=False)
    except GridsweepError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
