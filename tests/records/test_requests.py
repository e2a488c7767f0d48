"""Request files: written by the user's commands, or by anybody who can write into the folder."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import make_sweep
from gridsweep.errors import StorageError
from gridsweep.records import codec, requests
from gridsweep.records.bounded import UnfitError
from gridsweep.records.disk import TRIES
from gridsweep.records.requests import Request

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD = '{"what": "pause", "asked_at": "2026-01-01T12:00:00Z", "experiments": ["e00"]}'


def put(state: Path, text: str | bytes, name: str = "a1.json") -> str:
    folder = requests.folder_of(state)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return name


def test_a_request_comes_back_as_it_was_left_in_order_of_time(tmp_path):
    first = Request("hold", NOON, ("e00", "e01"), until=NOON + timedelta(hours=3))
    second = Request("add", NOON + timedelta(seconds=1), sweep=make_sweep(2), added=make_sweep(2).experiments)
    late = requests.leave(tmp_path, second)
    early = requests.leave(tmp_path, first)
    assert requests.left(tmp_path) == [f"{early}.json", f"{late}.json"]
    assert [requests.read(tmp_path, name).request for name in requests.left(tmp_path)] == [first, second]
    found = requests.read(tmp_path, f"{early}.json")
    assert (found.id, found.by) == (early, requests.name_of(os.geteuid()))
    requests.clear(tmp_path, f"{early}.json")
    assert requests.left(tmp_path) == [f"{late}.json"]
    assert (requests.folder_of(tmp_path).stat().st_mode & 0o777) == 0o700


def test_drafts_and_a_folder_without_requests_wait_for_nothing(tmp_path):
    assert requests.left(tmp_path) == []
    put(tmp_path, GOOD, ".a1.json.77")
    assert requests.left(tmp_path) == []


def test_a_request_that_is_too_long_is_not_left(tmp_path):
    with pytest.raises(UnfitError, match="longer than 65,536 bytes"):
        requests.leave(tmp_path, Request("pause", NOON, tuple(f"e{i:09}" for i in range(9000))))
    assert requests.left(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "cannot be read"),
        ("", "cannot be read"),
        ("[" * 9000, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (GOOD.replace("pause", "format"), "cannot be read (what: Input should be"),
        (GOOD[:-1] + ', "untill": "2026-01-01T13:00:00Z"}', "cannot be read (untill: there is no such key)"),
        (GOOD.replace("12:00:00Z", "12:00:00"), "no time zone"),
        (GOOD[:-1] + ', "until": "2026-01-01"}', "no time zone"),
        (GOOD[:-1] + ', "until": "9999-12-31T23:59:59-14:00"}', "not between 1970 and 2200"),
        (GOOD[:-1] + ', "schema_version": 99}', "of version 99"),
        (json.dumps({"what": "pause", "asked_at": "2026-01-01T12:00:00Z", "x": "y" * 70_000}), "longer than 65,536"),
    ],
)
def test_what_is_no_request_is_unfit(tmp_path, text, told):
    found = requests.read(tmp_path, put(tmp_path, text))
    assert found.request is None and told in found.unfit and found.id == "a1"


def test_names_that_no_request_has_are_unfit_each_under_an_id_of_its_own(tmp_path):
    names = ["a b.json", "a", "\x1b]52;c;x\x07.json", "-.json", "x" * 65 + ".json", "ä.json"]
    ids = {requests.read(tmp_path, put(tmp_path, GOOD, name)).id for name in names}
    assert len(ids) == len(names) and all(id.startswith("unfit-") for id in ids)
    assert all("is no name of a request" in requests.read(tmp_path, name).unfit for name in names)


def test_links_pipes_and_folders_are_unfit_and_are_put_aside(tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text(GOOD)
    folder = requests.folder_of(tmp_path)
    folder.mkdir()
    (folder / "a.json").symlink_to(outside)
    os.mkfifo(folder / "b.json")
    (folder / "c.json").mkdir()
    for name in ("a.json", "b.json", "c.json"):
        assert "no regular file" in requests.read(tmp_path, name).unfit
        requests.clear(tmp_path, name)
    assert requests.left(tmp_path) == [] and outside.exists() and (folder / ".c.json").is_dir()
    assert "cannot be read" in requests.read(tmp_path, "gone.json").unfit


def test_a_key_within_a_sweep_that_nothing_knows_is_named(tmp_path):
    text = codec.dumps(Request("add", NOON, sweep=make_sweep(1)))
    put(tmp_path, text.replace('"power_w"', '"power_w": 1, "pwr"', 1))
    assert "sweep.estimates.pwr: there is no such key" in requests.read(tmp_path, "a1.json").unfit


def test_a_disk_that_fails_takes_no_request_away(tmp_path, monkeypatch):
    put(tmp_path, GOOD)
    calls = []

    def fail(path: Path) -> os.stat_result:
        calls.append(path)
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "lstat", fail)
    with pytest.raises(StorageError, match=r"a1\.json: Input/output error"):
        requests.read(tmp_path, "a1.json")
    assert len(calls) == TRIES
    monkeypatch.undo()
    assert requests.read(tmp_path, "a1.json").request is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_a_folder_of_requests_of_another_user_holds_none(tmp_path):
    put(tmp_path, GOOD)
    os.chown(requests.folder_of(tmp_path), 65534, -1)
    assert requests.left(tmp_path) == []
    with pytest.raises(UnfitError, match="belongs to nobody"):
        requests.leave(tmp_path, Request("pause", NOON))
    os.chown(tmp_path, 65534, -1)  # root drives that user's sweep
    assert requests.left(tmp_path) == ["a1.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_another_users_request_is_unfit(tmp_path, monkeypatch):
    put(tmp_path, GOOD)
    os.chown(requests.folder_of(tmp_path) / "a1.json", 65534, -1)
    found = requests.read(tmp_path, "a1.json")
    assert found.request is None and found.by == "nobody" and "belongs to nobody" in found.unfit
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert requests.read(tmp_path, "a1.json").request is not None
    os.chown(requests.folder_of(tmp_path) / "a1.json", 0, -1)
    assert requests.read(tmp_path, "a1.json").request is not None  # root may ask anything
    assert requests.name_of(54321) == "user 54321"


def test_a_folder_of_requests_that_is_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a1.json").write_text(GOOD)
    requests.folder_of(tmp_path).symlink_to(elsewhere)
    assert requests.left(tmp_path) == []
    with pytest.raises(UnfitError, match="is a link"):
        requests.leave(tmp_path, Request("pause", NOON))
