"""An export to a URL: whole or told, checked by reading back, with fsspec's own memory and local file systems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fsspec
import pytest

from adapter_files import run_with_adapters
from gridsweep.errors import AdapterError
from gridsweep.records.files import verify
from gridsweep.render import remote
from gridsweep.render.export import export

FILES = [
    "README.md",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/manifest.json",
    "metrics.json",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of one; nobody changes it."""
    return run_with_adapters(tmp_path_factory.mktemp("made") / "run", 1)


@pytest.fixture
def memory():
    """fsspec's memory, which the whole process shares."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def below(system, path: str) -> list[str]:
    return sorted(found.removeprefix(path).lstrip("/") for found in system.find(path))


def test_an_export_reaches_a_store_whole(run, memory, tmp_path, gridsweep):
    code, out, err = gridsweep("export", "e00", run, "--to", "memory://bucket/winner", "--json")
    assert code == 0, err
    assert json.loads(out)["path"] == "memory://bucket/winner"
    assert err == "warning: memory://bucket/winner lay in this process's memory and is gone with it; name a folder\n"
    assert below(memory, "/bucket/winner") == FILES
    memory.get("/bucket/winner", str(tmp_path / "back"), recursive=True)
    assert verify(next((tmp_path / "back").rglob("adapter")))


def test_a_local_url_is_a_folder(run, tmp_path):
    assert export(run, "e00", f"file://{tmp_path}/a/b") == f"file://{tmp_path}/a/b"
    assert below(fsspec.filesystem("file"), f"{tmp_path}/a/b") == FILES
    assert verify(tmp_path / "a" / "b" / "adapter")


def test_nothing_is_overwritten(run, memory):
    memory.pipe("/bucket/winner/notes.txt", b"mine")
    with pytest.raises(AdapterError, match="memory://bucket/winner is not empty, and export overwrites nothing"):
        export(run, "e00", "memory://bucket/winner")
    with pytest.raises(AdapterError, match="exists and is not a folder"):
        export(run, "e00", "memory://bucket/winner/notes.txt")
    assert below(memory, "/bucket") == ["winner/notes.txt"]


def test_the_manifest_comes_last_and_what_was_uploaded_is_removed_where_a_file_fails(run, memory, monkeypatch):
    put, done = type(memory).put_file, []

    def failing(self, source, target, **more):
        done.append(target)
        if len(done) == len(FILES):
            raise PermissionError("no quota\nand more")
        return put(self, source, target, **more)

    monkeypatch.setattr(type(memory), "put_file", failing)
    with pytest.raises(AdapterError) as caught:
        export(run, "e00", "memory://bucket/winner")
    assert str(caught.value).startswith("cannot upload to memory://bucket/winner: PermissionError: no quota; check the")
    assert done[-1].endswith("adapter/manifest.json")
    assert memory.find("/bucket") == []


def test_what_cannot_be_removed_is_named(run, memory, monkeypatch):
    def refused(self, path):
        raise PermissionError("append only")

    def full(self, source, target, **more):
        if target.endswith("metrics.json"):
            raise OSError("the store is full")
        self.pipe(target, Path(source).read_bytes())

    monkeypatch.setattr(type(memory), "rm_file", refused)
    monkeypatch.setattr(type(memory), "put_file", full)
    with pytest.raises(AdapterError, match=r"the store is full; remove what is left there: .*/README\.md"):
        export(run, "e00", "memory://bucket/winner")


def test_a_file_that_comes_back_changed_is_an_error(run, memory, monkeypatch):
    def lossy(self, source, target, **more):
        self.pipe(target, Path(source).read_bytes()[:-1])

    monkeypatch.setattr(type(memory), "put_file", lossy)
    with pytest.raises(AdapterError, match=r"README\.md at memory://bucket/winner differs from what was uploaded"):
        export(run, "e00", "memory://bucket/winner")
    assert memory.find("/bucket") == []


def test_errors_of_the_library_say_what_to_do(run, memory, monkeypatch):
    with pytest.raises(AdapterError, match=r"cannot open nothing://x/y: .*; name one that fsspec knows"):
        export(run, "e00", "nothing://x/y")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(AdapterError, match="s3://bucket/path needs a package that is not installed; pip install s3fs"):
        export(run, "e00", "s3://key:word@bucket/path")
    monkeypatch.setattr(type(memory), "exists", lambda *_: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(AdapterError, match="cannot upload to memory://bucket/x: OSError: no route; check the address"):
        export(run, "e00", "memory://bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(AdapterError, match=r"needs fsspec; pip install 'gridsweep\[remote\]'"):
        export(run, "e00", "memory://bucket/x")


def test_a_password_in_a_url_is_not_shown():
    assert remote.public("sftp://me:secret@host/a/b@c") == "sftp://host/a/b@c"
    assert remote.public("s3://bucket/a") == "s3://bucket/a"
    assert remote.is_url("s3://bucket") and not remote.is_url("runs/out") and not remote.is_url("/a://b")


def test_a_damaged_adapter_is_not_uploaded(run, memory, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "store/experiments/e00/adapter/manifest.json").unlink()
    with pytest.raises(AdapterError, match="no readable manifest"):
        export(copy, "e00", "memory://bucket/winner")
    assert memory.find("/bucket") == []
