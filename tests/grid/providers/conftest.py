"""Says at the end how many behaviours of an API each provider was tried on."""

from __future__ import annotations

from typing import Any

from gridsweep.testing.provider_contract import tally


def pytest_terminal_summary(terminalreporter: Any) -> None:
    passed = terminalreporter.stats.get("passed", [])
    for line in tally(pair for report in passed for pair in getattr(report, "user_properties", [])):
        terminalreporter.write_line(line)
