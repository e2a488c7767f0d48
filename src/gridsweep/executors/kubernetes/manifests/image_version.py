"""The version check that starts every program in an image: an image of another version is refused with both versions.

The manifest and the package in the image share a protocol (the assignment, the attempt's folder, the verbs) that has
no version of its own; without this check a mismatch shows as an `ImportError` deep in a log.
"""

from __future__ import annotations

from gridsweep import __version__

CHECK = f"""\
import sys
import gridsweep
held = getattr(gridsweep, "__version__", "0.1.0")
if held != "{__version__}":
    sys.exit(f"the image holds gridsweep {{held}}, this needs {__version__}; use an image of that version")
"""
"""The check; it uses only the package's `__version__`, which 0.1.0 did not have."""

CONTROLLER = f"{CHECK}from gridsweep.cli import main\nmain()\n"
"""The command line, run with the container's arguments."""
