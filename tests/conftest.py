"""For all tests: no deadline an example (the machine may be busy), and no GPU for stand-in workers."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("gridsweep", deadline=None)
settings.load_profile("gridsweep")


@pytest.fixture(autouse=True)
def fast_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in worker takes five milliseconds a step, and behaves."""
    monkeypatch.setenv("GRIDSWEEP_STEP_SECONDS", "0.005")
    monkeypatch.delenv("GRIDSWEEP_MISBEHAVE", raising=False)
