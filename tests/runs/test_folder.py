"""Run folders that may be read but not written, or not even read."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders import START, make_sweep
from gridsweep.errors import SpecError
from gridsweep.records.journal import Journal
from gridsweep.records.lease import lease
from gridsweep.runs.folder import RunFolder
from gridsweep.state.events import Stopping, Submitted

OTHER_USER = 65534


@contextmanager
def another_user():
    """Files are accessed as by somebody without rights of their own; root would be let through everywhere."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.fixture
def place():
    """A run folder with an awkward name, in a place that every user can reach."""
    base = Path(tempfile.mkdtemp(prefix="runs [red] é x"))
    base.chmod(0o755)
    found = RunFolder(base / "a sweep")
    found.state.mkdir(parents=True)
    with lease(found.state) as epoch:
        journal = Journal(found.journal, epoch=epoch)
        journal.extend([Submitted(START, make_sweep(2)), Stopping(START, "asked to")])
        journal.close()
    yield found
    subprocess.run(["chmod", "-R", "u+rwX", str(base)], check=True)
    shutil.rmtree(base)


def open_to_read(place, mode):
    for path in (place.path, *place.path.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o444)


def test_a_folder_that_may_only_be_read_is_read(place):
    open_to_read(place, 0o555)
    with another_user():
        state = place.read()
    assert (len(state.standings), state.stopping) == (2, "asked to")
    assert sorted(path.name for path in place.state.iterdir()) == ["journal.db", "journal.head", "lease"]


def test_what_was_just_written_is_read_too_though_it_is_not_yet_in_the_main_file(place):
    with lease(place.state) as epoch:
        journal = Journal(place.journal, epoch=epoch)
        journal.extend([Stopping(START, "asked to again")])
        open_to_read(place, 0o555)
        with another_user():
            assert place.read().stopping == "asked to again"
        journal.close()


def test_a_folder_of_another_user_that_is_closed_is_told_as_one(place):
    open_to_read(place, 0o500)
    place.journal.chmod(0o400 if os.geteuid() == 0 else 0)
    with another_user(), pytest.raises(SpecError) as told:
        place.read()
    assert "may not be read by this user" in told.value.what and "chmod -R a+rX '" in told.value.remedy
