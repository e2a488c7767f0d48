"""What may become of an experiment, by name."""

from __future__ import annotations

from typing import Literal

Status = Literal["waiting", "running", "reached", "done", "failed", "stopped", "cancelled"]
"""`reached`: at a rung, waiting for its decision. `stopped`: by a rung. `cancelled`: by a user."""
ALIVE: tuple[Status, ...] = ("waiting", "running", "reached")
