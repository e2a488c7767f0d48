"""A GPU's power limit while a worker trains: what is set, what is put back, and what is said where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gridsweep.doctor import power
from gridsweep.energy.power_limits import limited, seen
from gridsweep.errors import SpecError
from gridsweep.sweep.stints import Device
from gridsweep.testing.nvml import NoNvml, VirtualNvml

ASKS = Device("gpu0", power_limit_w=300)


def test_the_limit_holds_during_the_block_and_is_put_back(tmp_path):
    nvml = VirtualNvml()
    with limited(ASKS, 1, nvml, tmp_path) as told:
        assert nvml.limit == [700_000, 300_000]
        assert told == "300 W, 700 W before"
    assert nvml.limit == [700_000, 700_000]
    assert nvml.sessions == 0


def test_an_error_puts_it_back_too(tmp_path):
    nvml = VirtualNvml()
    with pytest.raises(KeyboardInterrupt), limited(ASKS, 0, nvml, tmp_path):
        raise KeyboardInterrupt
    assert nvml.limit[0] == 700_000


def test_nothing_is_touched_where_no_limit_is_asked_for(tmp_path):
    nvml = VirtualNvml()
    with limited(Device("gpu0"), 0, nvml, tmp_path) as told:
        assert (told, nvml.writes) == ("", [])


def test_a_limit_the_board_does_not_allow_is_refused(tmp_path):
    nvml = VirtualNvml()
    with (
        pytest.raises(SpecError, match="gpu0: power_limit_w is 100, and this GPU allows 200 to 700 W"),
        limited(Device("gpu0", power_limit_w=100), 0, nvml, tmp_path),
    ):
        pytest.fail("the block ran")
    assert (nvml.writes, nvml.sessions) == ([], 0)


@pytest.mark.parametrize(
    ("nvml", "index", "told"),
    [
        (VirtualNvml(root=False), 0, "not set: Insufficient Permissions, it needs root; trained at 700 W"),
        (VirtualNvml(limits=False), 0, "not set: NVML says Not Supported"),
        (NoNvml(), 0, "not set: NVML says Shared Library Not Found"),
        (VirtualNvml(), None, "not set: there is no NVIDIA GPU here"),
    ],
)
def test_where_it_cannot_be_set_work_goes_on_and_that_is_said(tmp_path, nvml, index, told):
    with limited(ASKS, index, nvml, tmp_path) as said:
        assert said == told
    assert (nvml.writes, nvml.sessions, list(tmp_path.glob("*.json"))[1:]) == ([], 0, [])
    with limited(ASKS, index, nvml, tmp_path) as again:  # nothing is left behind that would be told of
        assert again == told


def test_a_limit_that_does_not_take_effect_is_told(tmp_path):
    nvml = VirtualNvml()
    nvml.nvmlDeviceSetPowerManagementLimit = lambda handle, limit: None  # type: ignore[method-assign]
    with limited(ASKS, 0, nvml, tmp_path) as told:
        assert told == "300 W asked for, 700 W in force, 700 W before"


def test_a_second_worker_on_the_same_gpu_leaves_the_limit_to_the_first(tmp_path):
    nvml = VirtualNvml()
    with limited(ASKS, 0, nvml, tmp_path):
        with limited(Device("gpu0", power_limit_w=400), 0, nvml, tmp_path) as told:
            assert told == "not set: another worker has set this GPU's, 300 W"
        assert nvml.limit[0] == 300_000
        assert seen(0, nvml, tmp_path)[0].busy
    assert nvml.limit[0] == 700_000


KILLED = """
import os, signal, sys
from pathlib import Path
from gridsweep.energy.power_limits import limited
from gridsweep.sweep.stints import Device
from gridsweep.testing.nvml import VirtualNvml
with limited(Device("gpu0", power_limit_w=300), 0, VirtualNvml(), Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> VirtualNvml:
    """A machine on which a worker was killed while its limit held."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    nvml = VirtualNvml()
    nvml.limit[0] = 300_000
    return nvml


def test_the_next_worker_puts_back_what_a_killed_one_left(tmp_path, killed):
    with limited(Device("gpu0", power_limit_w=400), 0, killed, tmp_path) as told:
        assert told == "400 W, 700 W before; a worker that was killed had left 300 W, put back to 700 W"
    assert killed.limit[0] == 700_000


def test_even_a_worker_without_a_limit_of_its_own_puts_it_back(tmp_path, killed):
    with limited(Device("gpu0"), 0, killed, tmp_path) as told:
        assert told == "a worker that was killed had left 300 W, put back to 700 W"
        assert killed.limit[0] == 700_000
    with limited(Device("gpu0"), 0, killed, tmp_path) as told:
        assert told == ""


def test_what_was_left_is_told_where_it_may_not_be_put_back(tmp_path, killed):
    killed.root = False
    with limited(Device("gpu0"), 0, killed, tmp_path) as told:
        assert told.endswith("left 300 W, and putting 700 W back failed: Insufficient Permissions")


def test_a_limit_changed_since_is_not_taken_for_a_left_one(tmp_path, killed):
    killed.limit[0] = 500_000
    assert seen(0, killed, tmp_path)[0].left is None


# The doctor


def test_the_doctor_tells_limits_and_tries_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    nvml = VirtualNvml()
    (finding,) = power([ASKS], nvml, tmp_path)
    assert (finding.state, finding.seen) == ("ok", "limit 700 W (default 700, allowed 200 to 700)")
    assert nvml.writes == []


def test_the_doctor_tells_what_a_killed_worker_left(tmp_path, killed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (finding,) = power([], killed, tmp_path)
    assert finding.state == "note" and "left by a killed worker, 700 W before" in finding.seen
    assert finding.advice.startswith("sudo nvidia-smi -i 0 -pl 700")


def test_the_doctor_tells_of_limits_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (finding,) = power([Device("gpu0", power_limit_w=900)], VirtualNvml(), tmp_path)
    assert finding.state == "missing" and "gpu0 requests 900 W" in finding.seen
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (finding,) = power([ASKS], NoNvml(), tmp_path)
    assert finding.seen == "gpu0: no NVIDIA GPU here, so power_limit_w has no effect"
    assert power([Device("cpu")], NoNvml(), tmp_path) == []


@pytest.mark.parametrize("root", [True, False])
def test_trying_changes_nothing_and_tells_whether_limits_may_be_set(tmp_path, root):
    nvml = VirtualNvml(root=root)
    assert seen(0, nvml, tmp_path, trying=True)[1] == root
    assert nvml.limit == [700_000, 700_000]
