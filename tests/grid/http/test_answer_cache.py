"""Answers on disk: found again while fresh, and never a reason to fail."""

from __future__ import annotations

import json
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from loopback import START

from gridsweep.grid.http.cache import AnswerCache, default_folder, key_of

KEY = key_of("gb", "https://example.org", "/intensity", [("zone", "13")])
HOUR = timedelta(hours=1)


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "new" / "cache", "GB Carbon/Intensity")


def test_an_answer_is_found_as_long_as_it_is_fresh(cache):
    cache.save(KEY, '{"é": 1}', START)
    assert cache.load(KEY, START + HOUR, HOUR) == ('{"é": 1}', START)
    assert cache.load(KEY, START + 2 * HOUR, HOUR) is None
    assert cache.load("0" * 64, START, HOUR) is None


def test_an_answer_of_the_future_is_ignored(cache):
    cache.save(KEY, "1", START)
    assert cache.load(KEY, START - timedelta(seconds=1), HOUR) is None


def test_nobody_else_can_read_the_cache(cache):
    cache.save(KEY, "1", START)
    (entry,) = cache.folder.iterdir()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert cache.folder.name == "gb-carbon-intensity"
    cache.folder.chmod(0o755)
    cache.load(KEY, START, HOUR)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({"key": KEY, "fetched_at": START.isoformat(), "body": 3}).encode(),
        json.dumps({"key": KEY, "fetched_at": "2026-10-15T12:00:00", "body": "1"}).encode(),
        json.dumps({"key": KEY, "fetched_at": 5, "body": "1"}).encode(),
        json.dumps({"key": "of something else", "fetched_at": START.isoformat(), "body": "1"}).encode(),
        b" " * (12 * 1024 * 1024 + 1),
    ],
    ids=range(11),
)
def test_a_corrupt_or_foreign_entry_is_ignored_and_written_anew(cache, content):
    cache.save(KEY, "1", START)
    (entry,) = cache.folder.iterdir()
    entry.write_bytes(content)
    assert cache.load(KEY, START, HOUR) is None
    cache.save(KEY, "2", START)
    assert cache.load(KEY, START, HOUR) == ("2", START)


def test_only_the_newest_two_hundred_are_kept(cache):
    cache.folder.mkdir(parents=True)
    for i in range(250):
        left = cache.folder / f"left-over-{i}.part"
        left.touch()
        os.utime(left, (i, i))
    cache.save(KEY, "1", START)
    names = {entry.name for entry in cache.folder.iterdir()}
    assert len(names) == 200
    assert f"{KEY}.json" in names and "left-over-50.part" not in names and "left-over-51.part" in names


def test_a_disk_that_cannot_be_written_is_no_error_and_leaves_nothing(cache, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    broken = AnswerCache(in_the_way, "gb")
    broken.save(KEY, "1", START)
    assert broken.load(KEY, START, HOUR) is None

    cache.save(KEY, "\ud800", START)  # fails half-way through the file
    assert list(cache.folder.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_no_error(cache):
    cache.folder.mkdir(parents=True)
    (cache.folder / f"{KEY}.json").symlink_to("/dev/full")
    assert cache.load(KEY, START, HOUR) is None
    cache.save(KEY, "1", START)
    assert cache.load(KEY, START, HOUR) == ("1", START)


@pytest.mark.skipif(os.getuid() == 0, reason="to root belongs what would be somebody else's")
def test_a_folder_of_somebody_else_is_not_used(cache):
    cache = cache
    cache.folder = Path("/usr")
    with pytest.raises(PermissionError, match="somebody else"):
        cache._own()
    cache.save(KEY, "1", START)
    assert cache.load(KEY, START, HOUR) is None


def test_the_key_tells_provider_server_path_and_parameters_apart_and_their_order():
    base = ("gb", "https://example.org", "/a", [("x", "1"), ("y", "2")])
    others = [
        ("em", *base[1:]),
        ("gb", "https://example.com", *base[2:]),
        (*base[:2], "/b", base[3]),
        (*base[:3], [("x", "1")]),
        (*base[:3], [("y", "2"), ("x", "1")]),
        (*base[:3], [("x", '1"], ["y", "2')]),
    ]
    keys = {key_of(*other) for other in (base, *others)}
    assert len(keys) == 7
    assert all(len(key) == 64 for key in keys)


def test_the_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "gridsweep"
    monkeypatch.setenv("HOME", "/home/somebody")
    for unset in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_folder() == Path("/home/somebody/.cache/gridsweep")
