"""Energy of CPU packages, read from RAPL's counters in powercap."""

from __future__ import annotations

import re
import time
from pathlib import Path

from gridsweep.energy.modelled import Seconds, busy_seconds, cpu_seconds

POWERCAP = Path("/sys/class/powercap")


PACKAGE_LIMIT_W = 1000.0  # No package draws more; a higher figure means a reset of the counter, not a wraparound.


class RaplMeter:
    """This process tree's share of the energy of the processor packages, from RAPL's microjoule counters.

    All processes draw from a package. For each interval between two readings, the tree gets the ratio of its CPU
    time to the CPU time of all processes, so busy processes carry the idle power too. Memory counts only if the
    package includes it. A counter wraps around after 10 to 60 minutes of load, and a second wrap goes unseen: read
    the meter every few minutes. Raises `OSError` or `ValueError` if no package can be read (by default, only root
    can read the files).
    """

    source = "rapl"

    def __init__(
        self,
        root: Path = POWERCAP,
        own: Seconds = cpu_seconds,
        busy: Seconds = busy_seconds,
        clock: Seconds = time.monotonic,
    ):
        self._own, self._busy, self._clock = own, busy, clock
        self._packages = [_Package(path) for path in _package_folders(root)]
        if not self._packages:
            raise FileNotFoundError(f"{root}: no processor package counts its energy here")
        self._spent, self._machine, self._at = own(), busy(), clock()
        self._total = 0.0

    def joules(self) -> float:
        at = self._clock()
        drawn = [package.drawn(at - self._at) for package in self._packages]
        spent, machine = max(self._spent, self._own()), max(self._machine, self._busy())
        everyone = machine - self._machine
        share = min(1.0, (spent - self._spent) / everyone) if everyone > 0 else 0.0
        self._total += share * sum(drawn)
        self._spent, self._machine, self._at = spent, machine, at
        return self._total

    def close(self) -> None: ...


def _package_folders(root: Path) -> list[Path]:
    """Return each package folder once: no subdomain, no `psys` (the whole platform), no second driver's duplicate."""
    folders = sorted(p for p in root.glob("intel-rapl:*") if re.fullmatch(r"intel-rapl:\d+", p.name))
    named = {(path / "name").read_text().strip(): path for path in reversed(folders)}
    return [path for name, path in sorted(named.items()) if name.startswith("package")]


class _Package:
    def __init__(self, folder: Path):
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()

    def _read(self) -> int:
        return int(self._counter.read_text())

    def drawn(self, seconds: float) -> float:
        """Return the joules since the last reading, `seconds` ago."""
        now = self._read()
        drawn = now - self._last
        self._last = now
        if drawn < 0:
            drawn += self._range
            if not 0 <= drawn / 1e6 <= PACKAGE_LIMIT_W * seconds:
                return 0.0  # The counter was reset, as after a suspend, not wrapped; the interval is unknown.
        return drawn / 1e6
