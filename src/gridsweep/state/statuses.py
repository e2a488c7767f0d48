"""What may become of an experiment, by name."""

from __future__ import annotations

from typing import Literal

Status = Literal["waiting", "running", "reached", "done", "failed", "stopped"]
"""`reached`: at a rung, waiting for its decision."""
ALIVE: tuple[Status, ...] = ("waiting", "running", "reached")
