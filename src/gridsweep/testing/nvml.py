"""A double of NVML: two boards, by the names and units of nvidia-ml-py."""

from __future__ import annotations


class VirtualNvml:
    """Stands in for `pynvml`. Tests set its fields; `sessions` counts open sessions, `writes` lists all limits set.

    `counter`, `power` and `limits` say which values the driver reports, `root` whether limits may be set.
    """

    class NVMLError(Exception):
        """The error that every failing call raises."""

    def __init__(self, counter: bool = True, power: bool = True, limits: bool = True, root: bool = True):
        self.uuids = ["GPU-aaaa-1111", "GPU-bbbb-2222"]
        self.millijoules: list[float] = [1_000_000, 2_000_000]
        self.milliwatts: list[float] = [100_000, 300_000]
        self.limit = [700_000, 700_000]
        self.usual, self.least, self.most = 700_000, 200_000, 700_000
        self.counter, self.power, self.limits, self.root = counter, power, limits, root
        self.sessions = 0
        self.writes: list[int] = []

    def nvmlInit(self) -> None:
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if not 0 <= index < len(self.uuids):
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in self.uuids:
            raise self.NVMLError("Not Found")
        return self.uuids.index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return self.uuids[handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> float:
        self._supported(self.counter)
        return self.millijoules[handle]

    def nvmlDeviceGetPowerUsage(self, handle: int) -> float:
        self._supported(self.power)
        return self.milliwatts[handle]

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        self._supported(self.limits)
        return self.limit[handle]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: int) -> int:
        self._supported(self.limits)
        return self.usual

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: int) -> list[int]:
        self._supported(self.limits)
        return [self.least, self.most]

    def nvmlDeviceSetPowerManagementLimit(self, handle: int, limit: int) -> None:
        self._supported(self.limits)
        if not self.root:
            raise self.NVMLError("Insufficient Permissions")
        if not self.least <= limit <= self.most:
            raise self.NVMLError("Invalid Argument")
        self.limit[handle] = limit
        self.writes.append(limit)

    def _supported(self, there: bool) -> None:
        if not there:
            raise self.NVMLError("Not Supported")


class NoNvml(VirtualNvml):
    """A machine without the driver."""

    def nvmlInit(self) -> None:
        raise self.NVMLError("Shared Library Not Found")
