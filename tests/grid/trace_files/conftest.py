"""For all readers: a file in a fresh folder, and nothing on the screen."""

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "grid.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd):
    yield
    assert capfd.readouterr() == ("", "")
