"""Files travel whole, once, and nowhere else."""

from __future__ import annotations

import os

import pytest

from gridsweep.executors.ray import parcels
from gridsweep.executors.ray.parcels import Damaged, Outbox, Packer, unpack


@pytest.fixture
def here(tmp_path):
    (tmp_path / "here" / "checkpoints" / "2").mkdir(parents=True)
    return tmp_path / "here"


def moved(here, there, before=None):
    """Pack and unpack; the index, and the pieces that were fetched."""
    pieces: dict[str, bytes] = {}
    fetched = []
    index = Packer(here, pieces.__setitem__).pack()

    def fetch(piece: str) -> bytes:
        fetched.append(piece)
        return pieces[piece]

    unpack(index, there, fetch, before)
    return index, fetched


def test_what_arrives_is_what_was_sent_with_its_times(here, tmp_path):
    big = os.urandom(3 * parcels.PIECE + 17)
    (here / "checkpoints" / "2" / "big").write_bytes(big)
    (here / "empty").touch()
    (here / ".half").write_text("not yet")
    os.utime(here / "empty", (1000.5, 1000.5))
    there = tmp_path / "there"
    index, fetched = moved(here, there)
    assert (there / "checkpoints" / "2" / "big").read_bytes() == big and len(fetched) == 4
    assert (there / "empty").stat().st_mtime == 1000.5 and not (there / ".half").exists()
    assert moved(here, there, index)[1] == []


def test_of_a_file_that_grew_only_what_is_new_is_read_and_fetched(here, tmp_path):
    line = b"x" * 99 + b"\n"
    pieces: dict[str, bytes] = {}
    packer = Packer(here, pieces.__setitem__)
    with (here / "progress.jsonl").open("ab") as file:
        file.write(line * 2000)
    before = packer.pack()
    unpack(before, tmp_path / "there", pieces.__getitem__)
    pieces.clear()
    with (here / "progress.jsonl").open("ab") as file:
        file.write(line * 1000)
    after = packer.pack()
    unpack(after, tmp_path / "there", pieces.__getitem__, before)
    assert (tmp_path / "there" / "progress.jsonl").read_bytes() == line * 3000
    assert len(pieces) == 2 and len(after["files"]["progress.jsonl"]["pieces"]) == 5


def test_what_was_removed_there_is_removed_here(here, tmp_path):
    (here / "a").write_text("a")
    index, _ = moved(here, tmp_path / "there")
    (here / "a").unlink()
    moved(here, tmp_path / "there", index)
    assert not (tmp_path / "there" / "a").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_nothing_lands_outside(tmp_path, name):
    with pytest.raises(Damaged, match="outside"):
        unpack({"files": {name: {"size": 0, "mtime": 0, "pieces": []}}}, tmp_path / "there", lambda piece: b"")
    assert list(tmp_path.iterdir()) == []


def test_a_piece_that_is_not_what_its_name_says_is_refused_and_no_file_appears(tmp_path):
    index = {"files": {"a": {"size": 1, "mtime": 0, "pieces": ["0" * 64]}}}
    with pytest.raises(Damaged, match="a piece of a differs from the sent data"):
        unpack(index, tmp_path, lambda piece: b"?")
    assert not (tmp_path / "a").exists()


def test_an_outbox_keeps_pieces_for_a_while_and_no_longer(here, tmp_path, monkeypatch):
    outbox = Outbox(here, tmp_path / "outbox")

    def kept() -> int:
        return len(list((tmp_path / "outbox" / "pieces").iterdir()))

    (here / "log.txt").write_text("one")
    outbox.put()
    (here / "log.txt").write_text("another")
    outbox.put(over=True)
    assert kept() == 2
    monkeypatch.setattr(parcels, "KEEP_SECONDS", 0.0)
    outbox.put(over=True)
    assert kept() == 1


def test_a_log_travels_up_to_a_limit(here, tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "LOG_LIMIT", 100_000)
    (here / "log.txt").write_bytes(b"x" * 300_000)
    moved(here, tmp_path / "there")
    assert (tmp_path / "there" / "log.txt").stat().st_size == 100_000
