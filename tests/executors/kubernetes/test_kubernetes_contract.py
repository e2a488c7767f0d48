"""The contract of executors, kept by the Kubernetes one: from a laptop, through the reader pod, and in the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import KubernetesBench

from gridsweep.testing.executor_contract import WorkerContract


class TestFromALaptop(WorkerContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[KubernetesBench]:
        with KubernetesBench(tmp_path, mounted=False) as bench:
            yield bench


class TestInTheCluster(WorkerContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[KubernetesBench]:
        with KubernetesBench(tmp_path, mounted=True) as bench:
            yield bench
