"""What the tests of the Kubernetes executor share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gridsweep.testing.kubernetes.server import ApiServer


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server
