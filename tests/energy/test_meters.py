import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gridsweep.energy.meters import ACCELERATOR_W, CORE_W, LastingMeter, meter_for
from gridsweep.energy.modelled import ModelledMeter, busy_seconds, cpu_seconds
from gridsweep.energy.nvml import NvmlMeter, nvml_index
from gridsweep.energy.rapl import RaplMeter
from gridsweep.sweep.stints import Device
from gridsweep.testing.nvml import NoNvml, VirtualNvml

CPU = Device("cpu")


class Dial:
    """A number that a test turns."""

    def __init__(self, value: float = 0.0):
        self.value = value

    def __call__(self) -> float:
        return self.value


def domain(root: Path, folder: str, name: str, energy: int = 0, range_uj: int = 262_143_328_850) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (path / "energy_uj").write_text(f"{energy}\n")
    return path / "energy_uj"


# Which GPU


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        (None, 0),
        ("", None),
        ("-1", None),
        ("none", None),
        ("0", 0),
        ("3", 3),
        (" 2 , 3", 2),
        ("-1,0", None),
        ("GPU-aaaa-1111,GPU-bbbb-2222", "GPU-aaaa-1111"),
        ("MIG-cccc", "MIG-cccc"),
    ],
)
def test_the_first_visible_device_is_the_one_that_trains(visible, index):
    assert nvml_index(visible) == index


@pytest.mark.parametrize(("index", "board"), [(0, 0), (1, 1), ("GPU-bbbb-2222", 1), ("GPU-bb", 1)])
def test_a_gpu_is_found_by_index_or_uuid_even_a_shortened_one(index, board):
    nvml = VirtualNvml()
    meter = NvmlMeter(index, nvml)
    nvml.millijoules[board] += 5000
    assert meter.joules() == 5


@pytest.mark.parametrize("index", [2, "GPU-dddd", "GPU-"])
def test_a_gpu_that_is_not_there_or_not_one_is_an_error(index):
    nvml = VirtualNvml()
    with pytest.raises(nvml.NVMLError):
        NvmlMeter(index, nvml)
    assert nvml.sessions == 0


# NVML


def test_the_energy_counter_counts_from_when_the_meter_was_made():
    nvml = VirtualNvml()
    meter = NvmlMeter(0, nvml)
    assert (meter.joules(), meter.source) == (0, "nvml")
    nvml.millijoules[0] += 1500
    assert meter.joules() == 1.5
    assert meter.joules() == 1.5
    meter.close()
    assert nvml.sessions == 0


def test_a_counter_that_starts_again_takes_nothing_back():
    nvml = VirtualNvml()
    meter = NvmlMeter(0, nvml)
    nvml.millijoules[0] += 4000
    assert meter.joules() == 4
    nvml.millijoules[0] = 10
    assert meter.joules() == 4
    nvml.millijoules[0] += 1000
    assert meter.joules() == 5


def test_without_a_counter_power_is_integrated_by_trapezoids(monkeypatch):
    monkeypatch.setattr("gridsweep.energy.nvml.SAMPLE_EVERY_S", 3600)
    nvml, clock = VirtualNvml(counter=False), Dial()
    meter = NvmlMeter(0, nvml, clock)
    assert meter.source == "nvml power"
    clock.value, nvml.milliwatts[0] = 10, 200_000
    assert meter.joules() == pytest.approx((100 + 200) / 2 * 10)
    clock.value = 12
    assert meter.joules() == pytest.approx(1500 + 400)
    meter.close()


def test_power_is_sampled_between_readings_until_the_meter_is_closed(monkeypatch):
    monkeypatch.setattr("gridsweep.energy.nvml.SAMPLE_EVERY_S", 0.01)
    nvml = VirtualNvml(counter=False)
    asked = []
    answer = nvml.nvmlDeviceGetPowerUsage
    nvml.nvmlDeviceGetPowerUsage = lambda handle: (asked.append(handle), answer(handle))[1]  # type: ignore[method-assign]
    meter = NvmlMeter(1, nvml)
    deadline = time.monotonic() + 10
    while len(asked) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(asked) >= 5
    assert meter.joules() > 0
    meter.close()
    count = len(asked)
    time.sleep(0.05)
    assert len(asked) == count
    assert nvml.sessions == 0


def test_the_sampler_lives_through_a_failing_sample(monkeypatch):
    monkeypatch.setattr("gridsweep.energy.nvml.SAMPLE_EVERY_S", 0.01)
    nvml = VirtualNvml(counter=False)
    meter = NvmlMeter(0, nvml)
    nvml.power = False
    time.sleep(0.05)
    with pytest.raises(nvml.NVMLError):
        meter.joules()
    nvml.power = True
    assert meter.joules() > 0
    meter.close()


def test_power_is_sampled_at_least_twice_a_second():
    from gridsweep.energy.nvml import SAMPLE_EVERY_S

    assert SAMPLE_EVERY_S <= 0.5


# RAPL


def rapl(root: Path) -> tuple[RaplMeter, Dial, Dial, Dial]:
    own, busy, clock = Dial(), Dial(), Dial()
    return RaplMeter(root, own, busy, clock), own, busy, clock


def test_the_process_gets_its_share_of_the_packages(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0", energy=5_000_000)
    meter, own, busy, clock = rapl(tmp_path)
    own.value, busy.value, clock.value = 1, 4, 2
    counter.write_text("45000000")
    assert (meter.joules(), meter.source) == (10, "rapl")
    own.value, busy.value, clock.value = 2, 5, 4
    counter.write_text("75000000")
    assert meter.joules() == 10 + 30


def test_a_share_stays_between_nothing_and_all(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0")
    meter, own, busy, _ = rapl(tmp_path)
    own.value, busy.value = 3, 2  # ticks of the two counts need not agree
    counter.write_text("7000000")
    assert meter.joules() == 7
    counter.write_text("9000000")
    assert meter.joules() == 7  # nobody was busy
    own.value, busy.value = 1, 10  # a child nobody waited for
    counter.write_text("19000000")
    assert meter.joules() == 7


def test_every_package_counts_once_and_no_part_of_one(tmp_path):
    counters = [
        domain(tmp_path, "intel-rapl:0", "package-0"),
        domain(tmp_path, "intel-rapl:1", "package-1"),
        domain(tmp_path, "intel-rapl:0:0", "core"),
        domain(tmp_path, "intel-rapl:0:1", "dram"),
        domain(tmp_path, "intel-rapl:2", "psys"),
        domain(tmp_path, "intel-rapl:3", "package-0"),
        domain(tmp_path, "intel-rapl-mmio:0", "package-0"),
    ]
    meter, own, busy, _ = rapl(tmp_path)
    own.value = busy.value = 1
    for place, counter in enumerate(counters):
        counter.write_text(str(10**place * 1_000_000))
    assert meter.joules() == 11


def test_a_counter_wraps_around(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0", energy=90_000_000, range_uj=100_000_000)
    meter, own, busy, clock = rapl(tmp_path)
    own.value, busy.value, clock.value = 1, 1, 1
    counter.write_text("5000000")
    assert meter.joules() == 15


def test_a_counter_set_back_is_not_taken_for_one_that_wrapped(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0", energy=200_000_000_000)
    meter, own, busy, clock = rapl(tmp_path)
    own.value, busy.value, clock.value = 1, 1, 10
    counter.write_text("1000000")
    assert meter.joules() == 0
    own.value, busy.value, clock.value = 2, 2, 20
    counter.write_text("3000000")
    assert meter.joules() == 2


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj"])
def test_an_unreadable_package_is_no_meter(tmp_path, missing):
    domain(tmp_path, "intel-rapl:0", "package-0")
    (tmp_path / "intel-rapl:0" / missing).unlink()
    with pytest.raises(OSError, match=missing):
        RaplMeter(tmp_path)


def test_a_machine_without_packages_is_no_meter(tmp_path):
    domain(tmp_path, "intel-rapl:0", "psys")
    with pytest.raises(OSError, match="no processor package"):
        RaplMeter(tmp_path)


# The model


def test_modelled_energy_is_watts_times_busy_time():
    busy = Dial(100)
    meter = ModelledMeter(20, busy)
    assert (meter.joules(), meter.source) == (0, "modelled")
    busy.value = 103
    assert meter.joules() == 60
    busy.value = 101
    assert meter.joules() == 60
    busy.value = 104
    assert meter.joules() == 80


def test_cpu_time_is_spent_by_working_and_not_by_sleeping():
    before = cpu_seconds()
    time.sleep(0.2)
    slept = cpu_seconds() - before
    while cpu_seconds() - before < slept + 0.2:
        pass
    assert slept < 0.15
    assert busy_seconds() > 0


def test_cpu_time_of_children_counts_while_they_live_and_after():
    work = "import sys, time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\nsys.stdin.read()"
    before = cpu_seconds()
    child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    alive = cpu_seconds() - before
    child.communicate()
    assert alive >= 0.35
    assert cpu_seconds() - before >= alive - 0.03  # the kernel rounds to its ticks, each count by itself


# Which meter, and what becomes of it


def test_a_gpu_that_works_is_measured(tmp_path):
    nvml = VirtualNvml()
    domain(tmp_path, "intel-rapl:0", "package-0")
    meter = meter_for(CPU, 1, tmp_path, nvml)
    nvml.millijoules[1] += 3000
    assert (meter.joules(), meter.source) == (3, "nvml")


@pytest.mark.parametrize("nvml", [NoNvml(), VirtualNvml(counter=False, power=False)])
@pytest.mark.parametrize(("power_w", "watts"), [(None, ACCELERATOR_W), (425.0, 425.0), (0.0, 0.0)])
def test_a_gpu_that_says_nothing_is_modelled_by_the_clock(tmp_path, monkeypatch, nvml, power_w, watts):
    domain(tmp_path, "intel-rapl:0", "package-0")  # which cannot see a GPU
    clock = Dial()
    monkeypatch.setattr("gridsweep.energy.meters.time.monotonic", clock)
    meter = meter_for(Device("gpu", power_w=power_w), 0, tmp_path, nvml)
    clock.value = 2
    assert (meter.joules(), meter.source) == (2 * watts, "modelled")


def test_a_processor_with_counters_is_measured(tmp_path):
    domain(tmp_path, "intel-rapl:0", "package-0")
    assert meter_for(CPU, None, tmp_path, NoNvml()).source == "rapl"


@pytest.mark.parametrize(("power_w", "watts"), [(None, CORE_W), (40.0, 40.0)])
def test_a_processor_without_counters_is_modelled_by_its_time(tmp_path, monkeypatch, power_w, watts):
    spent = Dial()
    monkeypatch.setattr("gridsweep.energy.modelled.ModelledMeter.__init__.__defaults__", (spent,))
    meter = meter_for(Device("cpu", power_w=power_w), None, tmp_path / "absent", NoNvml())
    spent.value = 3
    assert (meter.joules(), meter.source) == (3 * watts, "modelled")


@pytest.mark.parametrize("content", ["", "many", None])
def test_a_broken_counter_is_modelled_from_the_start(tmp_path, content):
    counter = domain(tmp_path, "intel-rapl:0", "package-0")
    if content is None:
        counter.unlink()
    else:
        counter.write_text(content)
    assert meter_for(CPU, None, tmp_path, NoNvml()).source == "modelled"


class Failing:
    """A meter that can be broken, and may even fail to close."""

    source = "nvml"

    def __init__(self, error: Exception):
        self.value, self.error, self.broken, self.closed = 0.0, error, False, 0

    def joules(self) -> float:
        if self.broken:
            raise self.error
        return self.value

    def close(self) -> None:
        self.closed += 1
        if self.broken:
            raise self.error


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("odd"), VirtualNvml.NVMLError("GPU is lost")])
def test_a_meter_lost_on_the_way_is_modelled_from_its_last_reading(error):
    measured, busy = Failing(error), Dial()
    meter = LastingMeter(measured, ModelledMeter(10, busy))
    measured.value, busy.value = 500, 4
    assert (meter.joules(), meter.source) == (500, "nvml")
    measured.broken, busy.value = True, 7
    assert (meter.joules(), meter.source) == (530, "modelled (nvml lost)")
    measured.broken, measured.value, busy.value = False, 9999, 8
    assert (meter.joules(), meter.source) == (540, "modelled (nvml lost)")
    meter.close()
    assert measured.closed == 1


def test_a_meter_lost_before_its_first_reading_is_modelled_from_the_start():
    measured, busy = Failing(OSError("gone")), Dial(50)
    meter = LastingMeter(measured, ModelledMeter(10, busy))
    measured.broken, busy.value = True, 52
    assert meter.joules() == 20


def test_a_counter_that_vanishes_does_not_fail_the_work(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", "package-0")
    meter: Any = meter_for(CPU, None, tmp_path, NoNvml())
    counter.unlink()
    first = meter.joules()
    assert meter.source == "modelled (rapl lost)"
    assert meter.joules() >= first >= 0
    meter.close()


def test_nothing_heavy_is_imported():
    code = "import sys, gridsweep.energy.meters; sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
